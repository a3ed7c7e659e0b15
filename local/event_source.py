"""Lambda's event source mapping for a queue, as far as the local run needs one.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html describes what is
deleted and what stays. A failed message comes back when the queue's visibility timeout is over, and
the queue itself moves it to its dead-letter queue in the end.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Self

from local.lambda_runtime import REGION, FunctionError

RECEIVE_LIMIT = 10  # messages; SQS gives, and deletes, no more in one call
IDLE_SECONDS = 0.1  # between two looks at an empty queue; Lambda's own pollers wait up to 20


class Batch(NamedTuple):
    """What became of one batch."""

    received: int  # messages
    failed: int  # of these, left in the queue
    error: FunctionError | None = None  # why all of them are left


class EventSource:
    """Feeds a queue's messages to a function; as a context manager in a thread of its own."""

    def __init__(
        self,
        sqs: Any,
        queue_url: str,
        function: Callable[[object], object],
        *,
        batch_size: int = RECEIVE_LIMIT,
        on_batch: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        """Take a boto3 client for the queue and what invokes the function (LambdaFunction.invoke).

        on_batch is told of every batch, in the thread that polls.
        """
        self._sqs = sqs
        self._queue_url = queue_url
        attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
        self._queue_arn = attributes["Attributes"]["QueueArn"]
        self._function = function
        self._batch_size = batch_size
        self._on_batch = on_batch
        self._stop = threading.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="event-source")
        self._polling: Future[None] | None = None

    def __enter__(self) -> Self:
        self._polling = self._executor.submit(self._poll_until_stopped)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop after the batch in hand; raise what ended the polling early, if anything did."""
        self._stop.set()
        self._executor.shutdown()
        if self._polling is not None:
            self._polling.result()

    def _poll_until_stopped(self) -> None:
        while not self._stop.is_set():
            if self.poll() is None:
                self._stop.wait(IDLE_SECONDS)

    def poll(self) -> Batch | None:
        """Take one batch through the function; None if the queue has nothing to give."""
        messages = self._receive()
        if not messages:
            return None
        event = {"Records": [sqs_record(message, self._queue_arn) for message in messages]}
        try:
            answer = self._function(event)
        except FunctionError as error:
            batch = Batch(len(messages), len(messages), error)
        else:
            failed = failed_ids(answer, [message["MessageId"] for message in messages])
            self._delete(message for message in messages if message["MessageId"] not in failed)
            batch = Batch(len(messages), len(failed))
        self._on_batch(batch)
        return batch

    def _receive(self) -> list[dict[str, Any]]:
        """Return up to a batch of messages: what is there, without waiting for more."""
        messages: list[dict[str, Any]] = []
        while len(messages) < self._batch_size:
            limit = min(RECEIVE_LIMIT, self._batch_size - len(messages))
            response = self._sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=limit,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            received = response.get("Messages", [])
            messages += received
            if len(received) < limit:
                break
        return messages

    def _delete(self, messages: Iterable[Mapping[str, Any]]) -> None:
        handles = [message["ReceiptHandle"] for message in messages]
        for start in range(0, len(handles), RECEIVE_LIMIT):
            entries = [
                {"Id": str(index), "ReceiptHandle": handle}
                for index, handle in enumerate(handles[start : start + RECEIVE_LIMIT])
            ]
            self._sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)


def sqs_record(message: Mapping[str, Any], queue_arn: str) -> dict[str, Any]:
    """Return a received message the way Lambda hands it to a function."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: {
                "stringValue": value["StringValue"],
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": value["DataType"],
            }
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": REGION,
    }


def failed_ids(answer: object, message_ids: Sequence[str]) -> set[str]:
    """Return the ids of the messages that a function's answer leaves in the queue.

    No answer, or one without failures, leaves none; one that Lambda can't make sense of, all.
    """
    everything = set(message_ids)
    if not answer:
        return set()
    if not isinstance(answer, dict):
        return everything
    failures = answer.get("batchItemFailures")
    if not failures:
        return set()
    try:
        failed = {failure["itemIdentifier"] for failure in failures}
    except (KeyError, TypeError):
        return everything
    return failed if everything.issuperset(failed) else everything
