"""The flow: S3 -> notification -> SQS -> submitter -> Datadog, and the way to the dead letters."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from local.datadog_server import Answer
from local.event_source import Batch, EventSource
from tests.events import Context, stats
from tests.submitter import Submitter, aws, cold_start

MAX_RECEIVE_COUNT = 3


class Pipeline:
    """A bucket that notifies a queue, with its dead-letter queue, before the submitter."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._name = f"flow-{uuid.uuid4()}"
        self.s3, self.sqs = aws("s3", submitter.moto), aws("sqs", submitter.moto)
        self.dead_letter_url, dead_letter_arn = self._create_queue("dead", {})
        redrive = {"deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": MAX_RECEIVE_COUNT}
        self.queue_url, queue_arn = self._create_queue(
            "stats", {"VisibilityTimeout": "0", "RedrivePolicy": json.dumps(redrive)}
        )
        self.rejected_url, _ = self._create_queue("rejected", {})
        submitter.set(REJECTED_QUEUE_URL=self.rejected_url)
        self.s3.create_bucket(Bucket=self._name)
        self.s3.put_bucket_notification_configuration(
            Bucket=self._name,
            NotificationConfiguration={
                "QueueConfigurations": [
                    {
                        "QueueArn": queue_arn,
                        "Events": ["s3:ObjectCreated:*"],
                        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "stats/"}]}},
                    }
                ]
            },
        )
        self.source = EventSource(self.sqs, self.queue_url, self._invoke)

    def _create_queue(self, name: str, attributes: dict[str, str]) -> tuple[str, str]:
        url = self.sqs.create_queue(QueueName=f"{self._name}-{name}", Attributes=attributes)
        url = url["QueueUrl"]
        got = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return url, got["Attributes"]["QueueArn"]

    def _invoke(self, event: object) -> object:
        return self._submitter.module.lambda_handler(event, Context())

    def put(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self._name, Key=key, Body=content)

    def run(self) -> Iterator[Batch]:
        """Feed the queue to the submitter until there is nothing to be received."""
        while batch := self.source.poll():
            yield batch

    def depth(self, url: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        got = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(got[name]) for name in names)

    def take(self, url: str) -> list[dict[str, Any]]:
        """Take what a queue holds, up to ten messages."""
        messages: list[dict[str, Any]] = self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages", [])
        for message in messages:
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return messages


@pytest.fixture
def pipeline(submitter: Submitter) -> Pipeline:
    """The pipeline on moto."""
    return Pipeline(submitter)


def test_files_arrive(pipeline: Pipeline, submitter: Submitter) -> None:
    """From the bucket to Datadog; the test event is swallowed, other folders are left alone."""
    now = int(time.time())
    pipeline.put("stats/My Job/a b+c.json", stats(m=1))
    pipeline.put("stats/nightly/é.json.gz", gzip.compress(stats(m=2)))
    pipeline.put(
        "stats/lines.jsonl",
        b'{"timestamp": %d, "a": 1}\n{"timestamp": %d, "a": 2}' % (now - 1, now),
    )
    pipeline.put("elsewhere/a.json", stats(m=3))
    batches = list(pipeline.run())
    assert sum(batch.received for batch in batches) == 4
    assert sum(batch.failed for batch in batches) == 0
    values = {series: [*seconds.values()] for series, seconds in submitter.datadog.points.items()}
    assert values == {
        ("m", ("job:my_job",)): [1.0],
        ("m", ("job:nightly",)): [2.0],
        ("a", ()): [1.0, 2.0],
    }
    assert pipeline.depth(pipeline.queue_url) == 0
    assert pipeline.depth(pipeline.rejected_url) == 0


def test_generated_files_arrive(
    pipeline: Pipeline, submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generator and submitter agree about the contract."""
    monkeypatch.setenv("STATS_BUCKET", pipeline._name)
    cold_start("ddg_mock_datasource").lambda_handler({"files": 5}, None)
    list(pipeline.run())
    points = submitter.datadog.points
    assert points.keys() == {
        (name, ("job:mock-datasource",)) for name in ("sample.stats", "processed.data")
    }
    assert [len(seconds) for seconds in points.values()] == [5, 5]


def test_bad_file_is_kept_with_its_reason(pipeline: Pipeline) -> None:
    """The notification as it came, so that it can be sent again once the file is mended."""
    pipeline.put("stats/nightly/bad.json", b'{"timestamp": "today", "m": 1}')
    list(pipeline.run())
    [message] = pipeline.take(pipeline.rejected_url)
    attributes = {
        name: value["StringValue"] for name, value in message["MessageAttributes"].items()
    }
    assert "timestamp" in attributes.pop("reason")
    assert attributes == {"bucket": pipeline._name, "key": "stats/nightly/bad.json"}
    # Mended, and its message moved back by hand: redrive knows no source queue for it
    pipeline.put("stats/nightly/bad.json", stats(m=1))
    pipeline.take(pipeline.queue_url)
    pipeline.sqs.send_message(QueueUrl=pipeline.queue_url, MessageBody=message["Body"])
    assert [*pipeline.run()] == [Batch(1, 0)]
    assert pipeline.depth(pipeline.rejected_url) == 0


def test_outage_ends_with_nothing_lost(pipeline: Pipeline, submitter: Submitter) -> None:
    """What failed comes back, goes to the dead-letter queue in the end, and can be moved back."""
    list(pipeline.run())  # the test event
    for n in range(3):
        pipeline.put(f"stats/nightly/{n}.json", stats(age=n, m=n))
    submitter.datadog.respond = lambda request: Answer(503)
    batches = list(pipeline.run())
    assert batches == [Batch(3, 3)] * MAX_RECEIVE_COUNT
    assert pipeline.depth(pipeline.queue_url) == 0
    assert pipeline.depth(pipeline.dead_letter_url) == 3
    submitter.datadog.respond = None
    for message in pipeline.take(pipeline.dead_letter_url):  # StartMessageMoveTask's work
        pipeline.sqs.send_message(QueueUrl=pipeline.queue_url, MessageBody=message["Body"])
    assert [*pipeline.run()] == [Batch(3, 0)]
    [seconds] = submitter.datadog.points.values()
    assert sorted(seconds.values()) == [0.0, 1.0, 2.0]
    assert pipeline.depth(pipeline.dead_letter_url) == 0


def test_short_outage_is_over_before_the_dead_letters(
    pipeline: Pipeline, submitter: Submitter
) -> None:
    """The second round goes through."""
    list(pipeline.run())
    pipeline.put("stats/nightly/a.json", stats(m=1))
    answers = [Answer(429), None]
    submitter.datadog.respond = lambda request: answers.pop(0)
    assert [*pipeline.run()] == [Batch(1, 1), Batch(1, 0)]
    assert pipeline.depth(pipeline.dead_letter_url) == 0
