"""Try the stack on a real AWS account: make smoke-aws.

Applies a stack of a fresh name in a folder of its own, puts a file into its bucket, waits until the
submitter's log says that the file is in Datadog, and destroys the stack, whatever happened. It asks
before it starts. Needs ./zipper.sh's zips, terraform, AWS credentials and DATADOG_API_KEY; the site
is DATADOG_SITE, datadoghq.com by default.
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
WAIT_SECONDS = 180  # an event source mapping that was just made may take a minute to start
LOOK_SECONDS = 3  # between two looks at the log


class Failed(Exception):
    """What didn't work, in words for a person."""


def terraform(folder: Path, *arguments: str, **environment: str) -> None:
    """Run terraform and let it print; Failed if it fails."""
    command = ["terraform", *arguments]
    if subprocess.run(command, cwd=folder, env={**os.environ, **environment}).returncode:
        raise Failed(f"`{' '.join(command)}` failed in {folder}.")


@contextmanager
def applied(api_key: str, settings: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """Make a stack in a folder of its own; within, its outputs.

    The key is on no command line and in no file but the state. The folder stays, with the state,
    if the stack can't be destroyed.
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
        terraform(folder, "destroy", "-input=false", "-auto-approve")  # it asks for no key
        shutil.rmtree(folder)


def put_file(session: Any, outputs: dict[str, Any]) -> str:
    """Write a file of now; return its key."""
    now = int(time.time())
    key = f"{outputs['prefix']}smoke/{now}.json"
    body = json.dumps({"timestamp": now, "ddg_stats.smoke": 1})
    session.client("s3").put_object(Bucket=outputs["bucket"], Key=key, Body=body)
    return key


def wait_until_submitted(session: Any, log_group: str) -> float:
    """Return the seconds it took until the log told of a file in Datadog.

    Raises Failed with what the log says otherwise, or when it says nothing for too long.
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
        time.sleep(LOOK_SECONDS)
    raise Failed(f"No file in Datadog after {WAIT_SECONDS} s. The log says:\n" + "\n".join(lines))


def main() -> None:
    """Ask, then apply, put a file, wait and destroy."""
    api_key = os.environ.get("DATADOG_API_KEY")
    if not api_key:
        raise Failed("DATADOG_API_KEY isn't set: export it first.")
    missing = [zip_file for zip_file in ZIPS if not (ROOT / zip_file).exists()]
    if missing:
        raise Failed(f"{', '.join(missing)}: not there. Run ./zipper.sh first.")
    session: Any = boto3.Session()
    region = os.environ.get("AWS_REGION") or session.region_name or DEFAULT_REGION
    os.environ["AWS_REGION"] = region  # which is where terraform looks
    session = boto3.Session(region_name=region)
    site = os.environ.get("DATADOG_SITE", DEFAULT_SITE)
    name = f"smoke-{secrets.token_hex(3)}"
    account = session.client("sts").get_caller_identity()["Account"]

    print(f"Makes the stack {name} in the AWS account {account}, region {region}, sends one point")
    print(f"ddg_stats.smoke to {site}, and destroys the stack. It costs a cent or so, 5 minutes.")
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
        print("Put", put_file(session, outputs))
        seconds = wait_until_submitted(session, outputs["log_groups"]["metric_submit"])
        print(f"submitted: in Datadog {seconds:.0f} s after it was put (looking at the log)")
    print(f"The stack {name} works, and is gone.")


if __name__ == "__main__":
    try:
        main()
    except (Failed, EOFError) as error:
        sys.exit(f"smoke-aws: {error}")
