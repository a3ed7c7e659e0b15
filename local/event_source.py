"""Lambda's event source mapping for a queue, as far as the local run needs it.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html says which messages are
deleted. A failed message is delivered again after the queue's visibility timeout; in the end the
queue moves it to the dead-letter queue.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from local.lambda_runtime import REGION

BATCH_SIZE = 100  # messages: moto is slow, so that small batches fall behind
SQS_LIMIT = 10  # messages that SQS delivers or deletes in one call


class Batch(NamedTuple):
    """The result of one batch."""

    received: int  # messages
    failed: int  # of these, left in the queue


@dataclass
class EventSource:
    """Delivers a queue's messages to a function."""

    sqs: Any  # boto3's client
    queue_url: str
    function: Callable[[object], Any]  # such as LambdaFunction.invoke

    def poll(self) -> Batch | None:
        """Deliver one batch to the function; return None if the queue is empty.

        If the function raises, the batch stays in the queue.
        """
        messages = {message["MessageId"]: message for message in self._receive()}
        if not messages:
            return None
        arn = ":".join(["arn:aws:sqs", REGION, *self.queue_url.split("/")[-2:]])
        answer = self.function({"Records": [sqs_record(m, arn) for m in messages.values()]})
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        entries = [
            {"Id": message_id, "ReceiptHandle": messages[message_id]["ReceiptHandle"]}
            for message_id in messages.keys() - failed
        ]
        for start in range(0, len(entries), SQS_LIMIT):
            some = entries[start : start + SQS_LIMIT]
            self.sqs.delete_message_batch(QueueUrl=self.queue_url, Entries=some)
        return Batch(len(messages), len(failed))

    def _receive(self) -> Iterator[dict[str, Any]]:
        """Yield up to a batch of messages, without waiting for more."""
        for _ in range(BATCH_SIZE // SQS_LIMIT):
            received = self.sqs.receive_message(
                QueueUrl=self.queue_url, MaxNumberOfMessages=SQS_LIMIT, AttributeNames=["All"]
            ).get("Messages", [])
            yield from received
            if len(received) < SQS_LIMIT:
                break


def sqs_record(message: Mapping[str, Any], queue_arn: str) -> dict[str, Any]:
    """Return a received message as Lambda passes it to a function."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},  # the function reads none
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": REGION,
    }
