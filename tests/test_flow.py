"""The flow: S3 -> notification -> SQS -> submitter -> Datadog or the dead-letter queue."""

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
from tests.submitter import Submitter

MAX_RECEIVE_COUNT = 3


@pytest.fixture
def stack(submitter: Submitter) -> Stack:
    """A bucket that notifies a queue with a dead-letter queue."""
    stack = create_stack(submitter.moto, f"flow-{uuid.uuid4()}", 0, MAX_RECEIVE_COUNT)
    submitter.set(REJECTED_QUEUE_URL=stack.rejected.url)
    return stack


def run(stack: Stack, submitter: Submitter) -> list[Batch]:
    """Feed the queue to the submitter until it is empty."""

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
    """Stand in for StartMessageMoveTask, which moto lacks."""
    for message in messages:
        stack.queue.send_message(MessageBody=message.body)


def test_files_arrive(stack: Stack, submitter: Submitter) -> None:
    """S3's test event and files outside the prefix are done without a word."""
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


def test_bad_file_is_kept_with_its_reason(stack: Stack, submitter: Submitter) -> None:
    """With the notification as it came, which is sent again once the file is corrected."""
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
    """Failed messages come back, become dead letters in the end, and can be moved back."""
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
