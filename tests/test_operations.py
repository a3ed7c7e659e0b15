"""docs/operations.md and docs/examples/: their commands and examples work."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from tests.operated import KEY, StackOnMoto, make_stack, run, stats

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/operations.md").read_text("utf-8")
EXAMPLES = ROOT / "docs/examples"
BUCKETS = (ROOT / "docs/buckets.md").read_text("utf-8")
COMMANDS = re.findall(r"\.venv/bin/ddg-ops ([^`\n]+)", PAGE + BUCKETS)
stack = pytest.fixture(make_stack)
Patch = pytest.MonkeyPatch


def test_each_command_of_the_page_works(stack: StackOnMoto, tmp_path: Path) -> None:
    """Run in the pages' order, on a stack with refused files and dead letters."""
    stack.patch.chdir(tmp_path)
    stack.patch.setenv("DATADOG_API_KEY", KEY)
    (tmp_path / "stats.json").write_text(json.dumps(stats(rows=1)))
    stack.put("stats/nightly/1.json", b"not JSON")
    stack.submit()
    stack.put("stats/nightly/2.json", stats(rows=2))
    for message in stack.take(stack.main_url):
        stack.send_all(stack.dead_letter_url, [message["Body"]])
    bucket = stack.connect("eventbridge")
    for command in COMMANDS:
        words = shlex.split(command.replace("acme-data", bucket))
        if words[0] == "tail":
            words.append("--no-follow")
        if "--canary" in words:
            words += ["--timeout", "0.01"]
        result = stack.run(*words)
        # Unknown: whether the role may read the second bucket, and where a missing file is.
        is_unknown = command == "check" or words[0] == "where"
        assert result.code in ((1, 3) if is_unknown else (0, 1)), (command, result)
    assert len(COMMANDS) > 30


# --- Permissions ---


PERMISSIONS = dict(re.findall(r"^\| (`.+?`) \| (.*`[a-z0-9]+:[A-Z].*) \|$", PAGE, re.MULTILINE))
IAM_ACTIONS = {  # permissions with other names than their calls (Service Authorization Reference)
    "s3:GetBucketNotificationConfiguration": "s3:GetBucketNotification",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjectsV2": "s3:ListBucket",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "monitoring:DescribeAlarms": "cloudwatch:DescribeAlarms",
    "monitoring:GetMetricStatistics": "cloudwatch:GetMetricStatistics",
}


CALLS: dict[str, tuple[str, set[str]]] = {  # row -> command lines, permissions of rarer calls
    "`check`": ("check --canary --timeout 0.01", {"secretsmanager:GetSecretValue"}),
    "`rejected`, `dead`": (
        ", ".join(
            f"rejected {command}"
            for command in ("list", "show", "save k", "replay", "replay --yes", "send k --yes")
        ),
        {"s3:ListBucket", "s3:GetObjectVersion"},  # for a missing file, or one with versions
    ),
    "`backfill`": ("backfill --since 1h --yes", set()),
    "`tail`": ("tail --no-follow", set()),
    "`where`": ("where stats/a/1.json", set()),
    "`jobs`": ("jobs", set()),
    "`pause`, `resume`": ("pause --yes, resume --yes", set()),
}


@pytest.mark.parametrize("row", CALLS)
def test_permissions_are_those_of_the_calls(row: str, stack: StackOnMoto) -> None:
    """The table lists exactly the permissions that the commands need."""
    lines, silent = CALLS[row]
    stack.patch.setenv("DATADOG_API_KEY", KEY)
    if row == "`check`":
        stack.connect("eventbridge")
    stack.generate()
    stack.put("stats/a/1.json", stats(rows=1))
    stack.reject("stats/a/1.json", "not JSON")
    called: set[str] = set()
    clients: Any = BaseClient
    call = clients._make_api_call

    def note(client: Any, operation: str, parameters: Any) -> Any:
        called.add(f"{client.meta.service_model.endpoint_prefix}:{operation}")
        return call(client, operation, parameters)

    stack.patch.setattr(clients, "_make_api_call", note)
    for line in lines.split(", "):
        assert stack.run(line).code in (0, 1)
    needed = {IAM_ACTIONS.get(operation, operation) for operation in called}
    assert needed | silent == set(re.findall(r"`([a-z0-9]+:[A-Za-z]+)`", PERMISSIONS[row]))


# --- Examples ---


def validate(content: str | bytes, file: Path) -> None:
    """Check a file with `ddg-ops validate`."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    result = run("validate", str(file))
    assert result.code == 0
    assert "2 points" in result.out
    assert re.search(r"rows\.read\{\} = 1231  ", result.out)


def test_example_in_python(stack: StackOnMoto, tmp_path: Path) -> None:
    """It uploads a valid file."""
    command = [sys.executable, str(EXAMPLES / "write_stats.py"), stack.bucket, "nightly"]
    key = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    body = stack.aws["s3"].get_object(Bucket=stack.bucket, Key=key)["Body"].read()
    validate(body, tmp_path / "file")
    assert key.startswith("stats/nightly/")


def test_example_in_shell(tmp_path: Path) -> None:
    """It uploads a valid file in any locale, through the program `aws`."""
    (tmp_path / "aws").write_text(f'#!/bin/sh\ncat > {tmp_path}/body\necho "$@"\n')
    (tmp_path / "aws").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LC_ALL": "de_DE.UTF-8"}
    command = [str(EXAMPLES / "write_stats.sh"), "a-bucket", "nightly"]
    out = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    assert re.fullmatch(r"s3 cp - s3://a-bucket/stats/nightly/\d+-[0-9a-f]{8}\.json\n", out.stdout)
    validate((tmp_path / "body").read_bytes(), tmp_path / "file")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        pytest.param("java", ["-Duser.language=de", "WriteStats.java"], id="Java"),
        pytest.param("go", ["run", "write_stats.go"], id="Go"),
    ],
)
def test_example_in_other_languages(program: str, arguments: list[str], tmp_path: Path) -> None:
    """It prints a valid file."""
    found = shutil.which(program)
    # The program may be a stub, as on a Mac.
    if (
        not found
        or subprocess.run(
            [found, "version" if program == "go" else "-version"], capture_output=True
        ).returncode
    ):
        pytest.skip(f"no {program} on this machine")
    shown = subprocess.run([found, *arguments], check=True, cwd=EXAMPLES, stdout=subprocess.PIPE)
    validate(shown.stdout, tmp_path / "file")
