"""A stack in botocore's place, for queues so deep that moto's would take minutes."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any

from tests.operated import ACCOUNT

URLS = {
    role: f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{role}"
    for role in ("stats", "dead_letter", "rejected")
}
OUTPUTS = {"bucket": "b", "queue_urls": URLS, "function_names": {"metric_submit": "f"}}
ARN = f"arn:aws:sqs:us-east-1:{ACCOUNT}:"
Shape = dict[str, Any]


class SqsStub:
    """A rejected queue of so many messages, and the stack that it is of.

    most_in_flight: where more are received the oldest of them is visible again, as it is with a
    reader that is slower than the visibility timeout.
    """

    def __init__(
        self, message: Callable[[int], Shape], depth: int, most_in_flight: int = 10**9
    ) -> None:
        self._message, self._most_in_flight = message, most_in_flight
        self._receives, self._lock = 0, Lock()
        self.waiting = deque(range(depth))
        self.in_flight: dict[str, int] = {}  # receipt handle -> message
        self.sent: list[str] = []  # to the main queue: the beginnings

    def call(self, operation: str, parameters: Shape) -> Shape:
        """Do what a client asks, in place of its _make_api_call()."""
        with self._lock:
            answer = self._answer(operation, parameters)
        return {"ResponseMetadata": {"HTTPHeaders": {}}} | answer

    def _answer(self, operation: str, parameters: Shape) -> Shape:
        role = parameters.get("QueueUrl", "").rpartition("/")[2]
        entries = parameters.get("Entries", [])
        match operation:
            case "GetCallerIdentity":
                return {"Account": ACCOUNT}
            case "GetFunctionConfiguration":
                return {"Environment": {"Variables": {"REJECTED_QUEUE_URL": URLS["rejected"]}}}
            case "ListEventSourceMappings":
                function = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f"
                return {"EventSourceMappings": [{"FunctionArn": function}]}
            case "GetQueueAttributes":
                attributes = {
                    "ApproximateNumberOfMessages": str(len(self.waiting)),
                    "ApproximateNumberOfMessagesNotVisible": str(len(self.in_flight)),
                    "QueueArn": ARN + role,
                    "RedrivePolicy": json.dumps({"deadLetterTargetArn": f"{ARN}dead_letter"}),
                }
                return {"Attributes": attributes}
            case "SendMessageBatch":
                assert role == "stats"
                assert sum(len(entry["MessageBody"]) for entry in entries) <= 262_144
                self.sent += [entry["MessageBody"][:200] for entry in entries]
                return {"Successful": entries}
            case "DeleteMessageBatch":
                for entry in entries:
                    del self.in_flight[entry["ReceiptHandle"]]
                return {"Successful": entries}
            case "ChangeMessageVisibilityBatch":
                handles = {entry["ReceiptHandle"] for entry in entries}
                again = handles & self.in_flight.keys()
                self.waiting.extend(self.in_flight.pop(handle) for handle in again)
                return {}
        assert (operation, role) == ("ReceiveMessage", "rejected")
        return {"Messages": [self._receive() for _ in range(min(10, len(self.waiting)))]}

    def _receive(self) -> Shape:
        self._receives += 1
        number, handle = self.waiting.popleft(), f"{self._receives}-{'h' * 200}"
        self.in_flight[handle] = number
        if len(self.in_flight) > self._most_in_flight:
            self.waiting.appendleft(self.in_flight.pop(next(iter(self.in_flight))))
        return {"MessageId": f"id-{number}", "ReceiptHandle": handle} | self._message(number)
