"""The smoke test for a real account, against moto."""

import json
import os
import subprocess
import sys
import threading
import time

from tests.terraform.cloud import Cloud
from tests.terraform.root import AWS, ENVIRONMENT, PROJECT

SUMMARY = json.dumps({"Submitted": 1, "Refused": 0, "Retried": 0})
LOOK_SECONDS = 0.1


def write_summary(cloud: Cloud, stop: threading.Event) -> None:
    """Say in the submitter's log what it would say of one file, once its log is there."""
    logs = cloud.client("logs")
    while not stop.wait(LOOK_SECONDS):
        groups = logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/smoke-")["logGroups"]
        for group in groups:
            given = {"logGroupName": group["logGroupName"], "logStreamName": "one"}
            event = {"timestamp": int(time.time() * 1000), "message": SUMMARY}
            logs.create_log_stream(**given)
            logs.put_log_events(**given, logEvents=[event])
            return


def run_smoke(cloud: Cloud, answer: str) -> "subprocess.CompletedProcess[str]":
    """Run the script as a person would who types the answer, but for moto's address."""
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "local.smoke_aws"],
        cwd=PROJECT,
        env={**kept, **AWS, "AWS_ENDPOINT_URL": cloud.url, "DATADOG_API_KEY": "X"},
        input=answer,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_nothing_is_made_before_yes(cloud: Cloud, zips: None) -> None:
    """It says what it is going to do, and does it for a yes alone."""
    before = cloud.names()
    done = run_smoke(cloud, "y\n")
    assert done.returncode == 1
    assert "Makes the stack smoke-" in done.stdout
    assert "Nothing was done." in done.stdout
    assert cloud.names() == before


def test_file_is_followed_and_nothing_left(cloud: Cloud, zips: None) -> None:
    """Apply, a file, `submitted` in the log, destroy without a key. moto runs no function."""
    before = cloud.names()
    stop = threading.Event()
    submitter = threading.Thread(target=write_summary, args=(cloud, stop))
    submitter.start()
    done = run_smoke(cloud, "yes\n")
    stop.set()
    submitter.join()
    assert done.returncode == 0, done.stdout
    assert "submitted: in Datadog" in done.stdout
    assert cloud.names() == before
