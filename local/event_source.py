"""Lambda's event source mapping for a queue, as far as the local run needs it.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html says which messages are
deleted. A failed message is delivered again after the queue's visibility timeout; in the end the
queue moves it to the dead-letter queue.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from local.lambda_runtime import REGION

BATCH_SIZE = 10  # messages: Lambda's default, and what SQS delivers or deletes in one call


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
        received = self.sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=BATCH_SIZE, AttributeNames=["All"]
        )
        messages = {message["MessageId"]: message for message in received.get("Messages", [])}
        if not messages:
            return None
        arn = ":".join(["arn:aws:sqs", REGION, *self.queue_url.split("/")[-2:]])
        answer = self.function({"Records": [sqs_record(m, arn) for m in messages.values()]})
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        entries = [
            {"Id": message_id, "ReceiptHandle": messages[message_id]["ReceiptHandle"]}
            for message_id in messages.keys() - failed
        ]
        if entries:
            self.sqs.delete_message_batch(QueueUrl=self.queue_url, Entries=entries)
        return Batch(len(messages), len(failed))


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
