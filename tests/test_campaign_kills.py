"""The submitter in real processes, really killed, and twice at the same time."""

from __future__ import annotations

import importlib
import json
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

import ddg_stats_file
from local.datadog_server import Answer, DatadogServer, Request
from local.lambda_runtime import FunctionError, LambdaFunction
from local.trial import SOURCE
from tests.events import sqs_event, sqs_record, stats
from tests.scripted_server import Call, ScriptedServer, bucket_of, response
from tests.test_submit_limits import dense
from tests.test_zips import LAMBDA_PACKAGES


@pytest.fixture(scope="module")
def submitter_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The submitter and its packages as they are installed here; zipper.sh's is for test_zips."""
    path = tmp_path_factory.mktemp("zip") / "submitter.zip"
    names = ("datadog", "requests", "urllib3", "certifi", "idna", "charset_normalizer")
    with zipfile.ZipFile(path, "w") as archive:
        for file in SOURCE.glob("ddg_*.py"):
            archive.write(file, file.name)
        for name in names:
            folder = Path(str(importlib.import_module(name).__file__)).parent
            for file in folder.rglob("*.*"):
                archive.write(file, file.relative_to(folder.parent))
    return path


class Stage(NamedTuple):
    """What the zip is run on; `start()` makes a new execution environment."""

    files: dict[str, bytes]  # in the bucket
    rejected: list[str]  # bodies
    kept: list[Callable[[], None]]  # what else happens when a body has been kept, once
    start: Callable[[], LambdaFunction]


@pytest.fixture
def stage(submitter_zip: Path, datadog: DatadogServer) -> Iterator[Stage]:
    """Three good files and a bad one, with the zip to deal with them."""
    files = {f"stats/job/{n}": stats(**{f"m{n}": n}) for n in range(3)} | {"stats/bad": b"oops"}
    rejected: list[str] = []
    kept: list[Callable[[], None]] = []

    def answer(call: Call) -> bytes | Iterable[bytes]:
        if call.method == "GET":
            return bucket_of(files)(call)
        rejected.append(json.loads(call.body)["MessageBody"])
        while kept:
            kept.pop()()
        return response(body=b'{"MessageId": "kept"}')

    with ScriptedServer(answer) as aws:
        environment = {
            "AWS_ENDPOINT_URL": aws.url,
            "DATADOG_API_KEY": "test-key",
            "DATADOG_HOST": datadog.url,
            "REJECTED_QUEUE_URL": f"{aws.url}/123456789012/rejected",
        }
        function = partial(
            LambdaFunction, submitter_zip, "ddg_metric_submit.lambda_handler", environment
        )
        yield Stage(files, rejected, kept, partial(function, packages=LAMBDA_PACKAGES))


STORED = {(f"m{n}", ("job:job",)): [n] for n in range(3)}


def values(datadog: DatadogServer) -> dict[tuple[str, tuple[str, ...]], list[float]]:
    """Return the values of each series."""
    return {series: [*points.values()] for series, points in datadog.points.items()}


@pytest.mark.parametrize("accepted", [False, True])
def test_killed_during_the_post(stage: Stage, datadog: DatadogServer, accepted: bool) -> None:
    """Whether Datadog took the points or not: the batch comes again, and they are there once."""
    event = sqs_event([sqs_record([key]) for key in stage.files])
    killed = stage.start()

    def kill(request: Request) -> Answer:
        datadog.respond = None
        killed.close()
        return Answer(accept=accepted, reset=True)

    datadog.respond = kill
    with pytest.raises(FunctionError, match="ExitError"):
        killed.invoke(event)
    assert stage.rejected == []
    with stage.start() as function:
        assert function.invoke(event) == {"batchItemFailures": []}
    assert values(datadog) == STORED
    assert stage.rejected == [event["Records"][-1]["body"]]


def test_killed_after_the_refusal_was_kept(stage: Stage) -> None:
    """It is refused again when its message comes again: kept twice, never lost."""
    event = sqs_event([sqs_record(["stats/bad"])])
    killed = stage.start()
    stage.kept.append(killed.close)
    with pytest.raises(FunctionError, match="ExitError"):
        killed.invoke(event)
    with stage.start() as function:
        assert function.invoke(event) == {"batchItemFailures": []}
    assert stage.rejected == [event["Records"][0]["body"]] * 2


def test_same_batch_at_the_same_time(stage: Stage, datadog: DatadogServer) -> None:
    """Two processes post the same points, which are there once; both refuse the bad file."""
    event = sqs_event([sqs_record([key]) for key in stage.files])
    both_post = threading.Barrier(2)

    def meet(request: Request) -> None:
        both_post.wait(60)

    datadog.respond = meet
    with stage.start() as one, stage.start() as other, ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda function: function.invoke(event), (one, other)))
    assert answers == [{"batchItemFailures": []}] * 2
    assert values(datadog) == STORED
    assert stage.rejected == [event["Records"][-1]["body"]] * 2


def test_ten_files_at_the_limit_take_little_memory(stage: Stage, datadog: DatadogServer) -> None:
    """A function of 256 MB has enough for them, with the runtime client in the same process."""
    padding = b" " * (ddg_stats_file.MAX_FILE_BYTES - 1000)
    stage.files.clear()
    stage.files["stats/dense"] = dense(ddg_stats_file.MAX_FILE_BYTES)
    stage.files.update({f"stats/{n}": stats(**{f"m{n}": n}) + padding for n in range(9)})
    with stage.start() as function:
        event = sqs_event([sqs_record([key]) for key in stage.files])
        assert function.invoke(event) == {"batchItemFailures": []}
        assert function.peak_memory() < 256 * 2**20
    assert len(datadog.points) > 9
