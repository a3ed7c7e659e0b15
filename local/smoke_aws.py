"""Try the stack on a real AWS account: make smoke-aws.

Asks first. Then applies a stack with a new name in a temporary folder, uploads a file, waits until
the submitter's log says that the file is in Datadog, and always destroys the stack. Needs the zips
of ./zipper.sh, terraform, AWS credentials and DATADOG_API_KEY. The site is DATADOG_SITE, by default
datadoghq.com.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).resolve().parent.parent
ZIPS = ("ddg_metric_submit.zip", "ddg_mock_datasource.zip")
DEFAULT_REGION = "us-east-1"
DEFAULT_SITE = "datadoghq.com"
WAIT_SECONDS = 180  # a new event source mapping may take a minute to start
POLL_SECONDS = 3  # between two reads of the log


class Failed(Exception):
    """A step failed; the text is for the user."""


def terraform(folder: Path, *arguments: str, **environment: str) -> None:
    """Run terraform and show its output; raise Failed if it fails."""
    command = ["terraform", *arguments]
    if subprocess.run(command, cwd=folder, env={**os.environ, **environment}).returncode:
        raise Failed(f"`{' '.join(command)}` failed in {folder}.")


@contextmanager
def applied(api_key: str, settings: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """Create a stack from a temporary folder; yield its outputs, and destroy it.

    The key isn't on a command line, and only in the state on disk. The folder and its state are
    kept if destroying fails.
    """
    folder = Path(tempfile.mkdtemp(prefix="smoke-"))
    for file in [*ROOT.glob("*.tf"), *(ROOT / zip_file for zip_file in ZIPS)]:
        shutil.copy(file, folder)
    (folder / "smoke.auto.tfvars.json").write_text(json.dumps(settings))
    terraform(folder, "init", "-input=false")
    try:
        terraform(folder, "apply", "-input=false", "-auto-approve", TF_VAR_ddg_api_key=api_key)
        command = ["terraform", "output", "-json"]
        printed = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout
        yield {output: shown["value"] for output, shown in json.loads(printed).items()}
    finally:
        terraform(folder, "destroy", "-input=false", "-auto-approve")  # needs no key
        shutil.rmtree(folder)


def put_file(session: Any, outputs: dict[str, Any]) -> str:
    """Upload a file with the current time; return its key."""
    now = int(time.time())
    key = f"{outputs['prefix']}smoke/{now}.json"
    body = json.dumps({"timestamp": now, "ddg_stats.smoke": 1})
    session.client("s3").put_object(Bucket=outputs["bucket"], Key=key, Body=body)
    return key


def wait_until_submitted(session: Any, log_group: str) -> float:
    """Return the seconds until the log says that the file is in Datadog.

    Raises Failed if the log says something else, or nothing for too long.
    """
    logs = session.client("logs")
    start, lines = time.monotonic(), list[str]()
    while time.monotonic() - start < WAIT_SECONDS:
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=log_group)
        lines = [event["message"].strip() for page in pages for event in page["events"]]
        summaries = [json.loads(line) for line in lines if line.startswith("{")]
        if any(summary.get("Submitted") for summary in summaries):
            return time.monotonic() - start
        if any(summary.get("Refused") or summary.get("Retried") for summary in summaries):
            raise Failed("The file was not submitted. The log says:\n" + "\n".join(lines))
        time.sleep(POLL_SECONDS)
    raise Failed(f"No file in Datadog after {WAIT_SECONDS} s. The log says:\n" + "\n".join(lines))


def main() -> None:
    """Ask, then apply, upload a file, wait and destroy."""
    api_key = os.environ.get("DATADOG_API_KEY")
    if not api_key:
        raise Failed("DATADOG_API_KEY isn't set: export it first.")
    missing = [zip_file for zip_file in ZIPS if not (ROOT / zip_file).exists()]
    if missing:
        raise Failed(f"{', '.join(missing)} is missing. Run ./zipper.sh first.")
    session: Any = boto3.Session()
    region = os.environ.get("AWS_REGION") or session.region_name or DEFAULT_REGION
    os.environ["AWS_REGION"] = region  # for terraform
    session = boto3.Session(region_name=region)
    site = os.environ.get("DATADOG_SITE", DEFAULT_SITE)
    name = f"smoke-{secrets.token_hex(3)}"
    account = session.client("sts").get_caller_identity()["Account"]

    print(f"Makes the stack {name} in the AWS account {account}, region {region}, sends one point")
    print(f"ddg_stats.smoke to {site}, and destroys the stack: 5 minutes, and a cent or so.")
    if input("Type yes to go on: ") != "yes":
        raise Failed("Nothing was done.")
    settings = {
        "name": name,
        "aws_region": region,
        "ddg_site": site,
        "mock_datasource_enabled": False,
        "heartbeat_schedule": None,  # the only file is ours
    }
    with applied(api_key, settings) as outputs:
        print("Uploaded", put_file(session, outputs))
        seconds = wait_until_submitted(session, outputs["log_groups"]["metric_submit"])
        print(f"submitted: in Datadog {seconds:.0f} s after the upload, by the log")
    print(f"The stack {name} works, and is destroyed.")


if __name__ == "__main__":
    try:
        main()
    except (Failed, EOFError) as error:
        sys.exit(f"smoke-aws: {error}")
