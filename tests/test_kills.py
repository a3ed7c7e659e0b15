"""The submitter in its own process, which is killed."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from local.datadog_server import Answer, DatadogServer, Request
from tests.events import sqs_event, sqs_record, stats
from tests.scripted_server import Call, ScriptedServer, bucket_of, response
from tests.submitter import API_KEY

PROGRAM = """
import json, sys
from ddg_metric_submit import lambda_handler
from tests.events import Context
print(json.dumps(lambda_handler(json.loads(sys.argv[1]), Context())))
"""
ROOT = Path(__file__).resolve().parent.parent
FILES = {f"stats/job/{n}": stats(**{f"m{n}": n}) for n in range(3)} | {"stats/bad": b"oops"}
STORED = {(f"m{n}", ("job:job",)): [n] for n in range(3)}


def start(event: object) -> subprocess.Popen[str]:
    """Start an execution environment for one invocation."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(event)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> Any:
    """Return the handler's answer; None if the process was killed."""
    printed, _ = process.communicate(timeout=60)
    return json.loads(printed.splitlines()[-1]) if process.returncode == 0 else None


@pytest.mark.parametrize(
    ("moment", "stored", "kept"),
    [("POST", {}, 0), ("POST taken", STORED, 0), ("refusal kept", STORED, 1)],
)
def test_killed_process_loses_nothing(
    datadog: DatadogServer,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    stored: Mapping[object, object],
    kept: int,
) -> None:
    """The batch is delivered again; then its points are there once, and the bad file is kept."""
    event = sqs_event([sqs_record([key]) for key in FILES])
    rejected: list[str] = []
    moments = [moment]  # still to come

    def dies(*now: str) -> bool:
        if moments and moment in now:
            moments.clear()
            process.kill()
            process.wait()
            return True
        return False

    def post(request: Request) -> Answer | None:
        killed = dies("POST", "POST taken")
        return Answer(accept=moment == "POST taken", reset=True) if killed else None

    def play(call: Call) -> bytes | Iterable[bytes]:
        if call.method == "GET":
            return bucket_of(FILES)(call)
        rejected.append(json.loads(call.body)["MessageBody"])
        dies("refusal kept")
        return response(body=b'{"MessageId": "kept"}')

    def values() -> dict[tuple[str, tuple[str, ...]], list[float]]:
        return {series: [*points.values()] for series, points in datadog.points.items()}

    datadog.respond = post
    with ScriptedServer(play) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        monkeypatch.setenv("DATADOG_API_KEY", API_KEY)
        monkeypatch.setenv("DATADOG_HOST", datadog.url)
        monkeypatch.setenv("REJECTED_QUEUE_URL", f"{aws.url}/123456789012/rejected")
        process = start(event)
        assert answer(process) is None
        assert (values(), len(rejected)) == (stored, kept)
        assert answer(start(event)) == {"batchItemFailures": []}
    assert values() == STORED
    assert rejected == (kept + 1) * [event["Records"][-1]["body"]]
