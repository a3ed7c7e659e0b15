"""The submitter in its own processes: killed, and two of them at the same time."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
ALL_DONE: dict[str, list[object]] = {"batchItemFailures": []}
FILES = {f"stats/job/{n}": stats(**{f"m{n}": n}) for n in range(3)} | {"stats/bad": b"oops"}
STORED = {(f"m{n}", ("job:job",)): [n] for n in range(3)}


class Stage(NamedTuple):
    """The services that the processes share."""

    datadog: DatadogServer
    rejected: list[str]  # bodies
    kept: list[Callable[[], None]]  # called once, after a body is kept

    def values(self) -> dict[tuple[str, tuple[str, ...]], list[float]]:
        return {series: [*points.values()] for series, points in self.datadog.points.items()}


def start(event: object) -> subprocess.Popen[str]:
    """Start an execution environment for one invocation."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(event)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def answer(process: subprocess.Popen[str]) -> Any:
    """Return the handler's answer; None if the process was killed."""
    printed, _ = process.communicate(timeout=60)
    return json.loads(printed.splitlines()[-1]) if process.returncode == 0 else None


@pytest.fixture
def stage(datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A bucket of three good files and a bad one, and a rejected queue."""
    stage = Stage(datadog, [], [])

    def play(call: Call) -> bytes | Iterable[bytes]:
        if call.method == "GET":
            return bucket_of(FILES)(call)
        stage.rejected.append(json.loads(call.body)["MessageBody"])
        while stage.kept:
            stage.kept.pop()()
        return response(body=b'{"MessageId": "kept"}')

    with ScriptedServer(play) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        monkeypatch.setenv("DATADOG_API_KEY", API_KEY)
        monkeypatch.setenv("DATADOG_HOST", datadog.url)
        monkeypatch.setenv("REJECTED_QUEUE_URL", f"{aws.url}/123456789012/rejected")
        yield stage


@pytest.mark.parametrize("accepted", [False, True])
def test_killed_during_the_post(stage: Stage, accepted: bool) -> None:
    """The batch is delivered again, and its points are there once."""
    event = sqs_event([sqs_record([key]) for key in FILES])

    def strike(request: Request) -> Answer:
        stage.datadog.respond = None
        kill(process)
        return Answer(accept=accepted, reset=True)

    stage.datadog.respond = strike
    process = start(event)
    assert (answer(process), stage.rejected) == (None, [])
    assert stage.values() == (STORED if accepted else {})
    assert answer(start(event)) == ALL_DONE
    assert stage.values() == STORED
    assert stage.rejected == [event["Records"][-1]["body"]]


def test_killed_after_the_refusal_was_kept(stage: Stage) -> None:
    """The message is delivered again and kept twice."""
    event = sqs_event([sqs_record(["stats/bad"])])
    stage.kept.append(lambda: kill(process))
    process = start(event)
    assert answer(process) is None
    assert answer(start(event)) == ALL_DONE
    assert stage.rejected == [event["Records"][0]["body"]] * 2


def test_same_batch_at_the_same_time(stage: Stage) -> None:
    """Both post the same points, which are there once; both refuse the bad file."""
    event = sqs_event([sqs_record([key]) for key in FILES])
    both_post = threading.Barrier(2)

    def meet(request: Request) -> None:
        both_post.wait(60)

    stage.datadog.respond = meet
    processes = [start(event), start(event)]
    assert [answer(process) for process in processes] == [ALL_DONE, ALL_DONE]
    assert stage.values() == STORED
    assert stage.rejected == [event["Records"][-1]["body"]] * 2
