"""The flow: S3 -> notification -> SQS -> submitter -> Datadog, and the way to the dead letters."""

from __future__ import annotations

import gzip
import time
import uuid
from typing import Any

import pytest

from local.datadog_server import Answer
from local.event_source import Batch, EventSource
from local.pipeline import Stack, create_stack, depth, take_all
from tests.events import Context, stats
from tests.submitter import Submitter, cold_start

MAX_RECEIVE_COUNT = 3


@pytest.fixture
def stack(submitter: Submitter) -> Stack:
    """A bucket that notifies a queue, with its dead-letter queue, before the submitter."""
    stack = create_stack(submitter.moto, f"flow-{uuid.uuid4()}", 0, MAX_RECEIVE_COUNT)
    submitter.set(REJECTED_QUEUE_URL=stack.rejected.url)
    return stack


def run(stack: Stack, submitter: Submitter) -> list[Batch]:
    """Feed the queue to the submitter until there is nothing to be received."""

    def invoke(event: object) -> object:
        return submitter.module.lambda_handler(event, Context())

    source = EventSource(stack.queue.meta.client, stack.queue.url, invoke)
    batches = list(iter(source.poll, None))
    assert depth(stack.queue) == 0
    return batches


def put(stack: Stack, key: str, content: bytes) -> None:
    """Write a file."""
    stack.bucket.put_object(Key=key, Body=content)


def move_back(stack: Stack, messages: list[Any]) -> None:
    """Do StartMessageMoveTask's work, which moto can't."""
    for message in messages:
        stack.queue.send_message(MessageBody=message.body)


def test_files_arrive(stack: Stack, submitter: Submitter) -> None:
    """From the bucket to Datadog; the test event is swallowed, other folders are left alone."""
    now = int(time.time())
    put(stack, "stats/My Job/a b+c.json", stats(m=1))
    put(stack, "stats/nightly/é.json.gz", gzip.compress(stats(m=2)))
    put(stack, "stats/lines.jsonl", stats(1, now=now, a=1) + b"\n" + stats(now=now, a=2))
    put(stack, "elsewhere/a.json", stats(m=3))
    assert run(stack, submitter) == [Batch(4, 0)]
    values = {series: [*seconds.values()] for series, seconds in submitter.datadog.points.items()}
    assert values == {
        ("m", ("job:my_job",)): [1.0],
        ("m", ("job:nightly",)): [2.0],
        ("a", ()): [1.0, 2.0],
    }
    assert depth(stack.rejected) == 0


def test_generated_files_arrive(
    stack: Stack, submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generator and submitter agree about the contract."""
    monkeypatch.setenv("STATS_BUCKET", stack.bucket.name)
    cold_start("ddg_mock_datasource").lambda_handler({"files": 5}, None)
    run(stack, submitter)
    points = submitter.datadog.points
    assert {series: len(seconds) for series, seconds in points.items()} == {
        (name, ("job:mock-datasource",)): 5 for name in ("sample.stats", "processed.data")
    }


def test_bad_file_is_kept_with_its_reason(stack: Stack, submitter: Submitter) -> None:
    """The notification as it came, so that it can be sent again once the file is mended."""
    put(stack, "stats/nightly/bad.json", b'{"timestamp": "today", "m": 1}')
    run(stack, submitter)
    messages = take_all(stack.rejected)
    [attributes] = [
        {name: value["StringValue"] for name, value in message.message_attributes.items()}
        for message in messages
    ]
    assert "timestamp" in attributes.pop("reason")
    assert attributes == {"bucket": stack.bucket.name, "key": "stats/nightly/bad.json"}
    put(stack, "stats/nightly/bad.json", stats(m=1))
    take_all(stack.queue)
    move_back(stack, messages)
    assert run(stack, submitter) == [Batch(1, 0)]
    assert depth(stack.rejected) == 0


def test_outage_ends_with_nothing_lost(stack: Stack, submitter: Submitter) -> None:
    """What failed comes back, goes to the dead-letter queue in the end, and can be moved back."""
    take_all(stack.queue)  # the test event
    for n in range(3):
        put(stack, f"stats/nightly/{n}.json", stats(age=n, m=n))
    submitter.datadog.respond = lambda request: Answer(503)
    assert run(stack, submitter) == [Batch(3, 3)] * MAX_RECEIVE_COUNT
    assert depth(stack.dead_letters) == 3
    submitter.datadog.respond = None
    move_back(stack, take_all(stack.dead_letters))
    assert run(stack, submitter) == [Batch(3, 0)]
    [seconds] = submitter.datadog.points.values()
    assert sorted(seconds.values()) == [0.0, 1.0, 2.0]


def test_short_outage_is_over_before_the_dead_letters(stack: Stack, submitter: Submitter) -> None:
    """The second round goes through."""
    take_all(stack.queue)
    put(stack, "stats/nightly/a.json", stats(m=1))
    answers = [Answer(429), None]
    submitter.datadog.respond = lambda request: answers.pop(0)
    assert run(stack, submitter) == [Batch(1, 1), Batch(1, 0)]
    assert depth(stack.dead_letters) == 0
