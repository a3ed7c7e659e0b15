"""How requests, bytes, work and memory grow with a batch: counted. Wall time is the bench's."""

import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

import ddg_metric_submit
from local.bench_servers import Counts, Servers, object_content, object_key
from local.contenders import CONTEXT, Contender, Run, prepared_body, sqs_event

METRICS = 5
MEGABYTE = 1_000_000
BATCH_END = 3_200  # files; S3's notifications, with which a batch of Lambda's reaches 6 MB


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """S3 and Datadog without latency."""
    with Servers() as servers:
        yield servers


@pytest.fixture(scope="module")
def contender(servers: Servers) -> Iterator[Contender]:
    """The submitter in a process of its own."""
    with Contender("ours", servers.environment()) as contender:
        yield contender


def count(servers: Servers, contender: Contender, files: int) -> tuple[Counts, Run]:
    """Submit so many files; return what the servers saw."""
    with servers.counting() as counted:
        run = contender.run(files, METRICS)
    return counted[0], run


@pytest.mark.parametrize("files", [1, 10, 100, 1_000])
def test_a_batch_takes_a_get_a_file_and_one_post(
    servers: Servers, contender: Contender, files: int
) -> None:
    """And every point arrives, none twice."""
    counts, run = count(servers, contender, files)
    assert (counts.gets, counts.posts, counts.puts) == (files, 1, 0)
    summary = {name: run.answer[name] for name in ("Submitted", "Points", "Requests", "WireBytes")}
    assert summary == {
        "Submitted": files,
        "Points": METRICS * files,
        "Requests": 1,
        "WireBytes": counts.post_bytes,
    }


def test_bytes_are_a_tenth_of_a_post_for_each_metric(
    servers: Servers, contender: Contender
) -> None:
    """1,000 files: against the JSON that the package sends for each metric by itself."""
    counts, _ = count(servers, contender, 1_000)
    by_itself = 0
    for index in range(1_000):
        stats = json.loads(object_content(object_key(index, METRICS, int(time.time()))))
        timestamp = stats.pop("timestamp")
        for metric, value in stats.items():
            series = {
                "metric": metric,
                "points": [[timestamp, value]],
                "tags": ["job:job-00"],
                "type": "gauge",
            }
            by_itself += len(json.dumps({"series": [series]}))
    assert counts.post_bytes < 0.1 * by_itself
    assert counts.plain_bytes < 0.4 * by_itself  # the points of a series stand side by side


def test_bytes_a_file_fall(servers: Servers, contender: Contender) -> None:
    """The larger the batch, the less of it is names and tags."""
    bytes_a_file = [
        count(servers, contender, files)[0].post_bytes / files for files in (1, 10, 100, 1_000)
    ]
    assert bytes_a_file == sorted(bytes_a_file, reverse=True)


def test_work_a_file_does_not_grow(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's calls in the thread that puts the batch together: 16 times the files, no more each.

    What the fetching threads do is a GET a file, whatever the batch.
    """
    for name, value in servers.environment().items():
        monkeypatch.setenv(name, value)
    ddg_metric_submit.aws_client.cache_clear()
    calls = [calls_a_file(files) for files in (100, 100, 1_600)]
    ddg_metric_submit.aws_client.cache_clear()
    assert calls[2] <= 1.1 * calls[1]
    assert capsys.readouterr().out.count('"Submitted": 1600') == 1


def calls_a_file(files: int) -> float:
    """Return how many calls the handler makes for each of so many files."""
    event = sqs_event(files, METRICS, int(time.time()))
    calls = 0

    def count_call(frame: FrameType, kind: str, argument: Any) -> None:
        nonlocal calls
        calls += kind == "call" and os.path.basename(frame.f_code.co_filename) not in WAITING  # noqa: PTH119  # called a million times

    sys.setprofile(count_call)
    try:
        ddg_metric_submit.lambda_handler(event, CONTEXT)
    finally:
        sys.setprofile(None)
    return calls / files


WAITING = {"threading.py", "_base.py", "thread.py"}  # how often depends on who comes first


def test_memory_of_the_largest_batch(servers: Servers) -> None:
    """Half of the function's 256 MB does for all that 6 MB of notifications name."""
    with Contender("ours", servers.environment()) as contender:
        start = contender.run(1, METRICS).peak_bytes
        peak = contender.run(BATCH_END, METRICS).peak_bytes
    assert peak < 128 * MEGABYTE
    assert (peak - start) / BATCH_END < 15_000  # bytes a file


def test_the_bench_s_body_is_the_submitter_s(servers: Servers, contender: Contender) -> None:
    """What floor and limit POST is as large as what they stand for."""
    counts, _ = count(servers, contender, 200)
    prepared = len(zlib.decompress(prepared_body(200, METRICS, int(time.time()))))
    assert prepared == pytest.approx(counts.plain_bytes, rel=0.15)
