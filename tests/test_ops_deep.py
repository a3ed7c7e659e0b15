"""ddg-ops on queues that are deep, or never empty: on a stub, since moto's would take minutes."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from botocore.client import BaseClient

from tests.memory import memory_under
from tests.operated import ACCOUNT, notification, run

URLS = {
    role: f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{role}"
    for role in ("stats", "dead_letter", "rejected")
}
OUTPUTS = {"bucket": "b", "queue_urls": URLS, "function_names": {"metric_submit": "f"}}
ARN = f"arn:aws:sqs:us-east-1:{ACCOUNT}:"
MAPPING = {"FunctionArn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f"}
Shape = dict[str, Any]
Patch = pytest.MonkeyPatch


class SqsStub:
    """A stack in botocore's place, with a rejected queue of some depth.

    most_in_flight: when more are received, the oldest becomes visible again, as for a reader that
    is slower than the visibility timeout.
    """

    def __init__(self, patch: Patch, depth: int, most_in_flight: int = 10**9) -> None:
        patch.setattr(BaseClient, "_make_api_call", self._call)
        self._most_in_flight, self._receives, self._lock = most_in_flight, 0, Lock()
        self.waiting = deque(range(depth))
        self.in_flight: dict[str, int] = {}  # receipt handle -> message
        self.sent: list[str] = []  # to the main queue: the beginnings

    def _call(self, operation: str, parameters: Shape) -> Shape:
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
                return {"EventSourceMappings": [MAPPING]}
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
        body = notification("b", f"stats/job-{number % 7}/{number}")
        padding = (30_000 if number < 20 else 1_000) * "x"  # ten large ones don't fit into a call
        reason = f"timestamp {number} is {4000 + number} s old, and so on"
        return {
            "MessageId": f"id-{number}",
            "ReceiptHandle": handle,
            "Body": f'{body[:-1]}, "padding": "{padding}"}}',
            "Attributes": {"SentTimestamp": "1764000000000", "ApproximateReceiveCount": "1"},
            "MessageAttributes": {"reason": {"DataType": "String", "StringValue": reason}},
        }


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    """A folder with the stack's outputs."""
    monkeypatch.chdir(tmp_path)
    Path("o.json").write_text(json.dumps(OUTPUTS))


@pytest.mark.parametrize(
    ("line", "most"), [("rejected list", 30_000), ("rejected replay --yes", 5_000)]
)
def test_deep_queue(line: str, most: int, monkeypatch: Patch) -> None:
    """Ten times as many messages take ten times as long; 30 MB pass through a bounded memory."""
    seconds = []
    for number in (most // 10, most):
        stub = SqsStub(monkeypatch, number)
        started = time.process_time()
        with memory_under(60 * 1024 * 1024):
            document = run(line, "--stack", "o.json", "--json").document
        seconds.append(time.process_time() - started)
        sent = number if "replay" in line else 0
        assert (document["messages_read"], document["complete"]) == (number, True)
        assert len(set(stub.sent)) == len(stub.sent) == sent
        assert (len(stub.waiting), stub.in_flight) == (number - sent, {})
        assert "replay" in line or len(document["groups"]) == 7
    assert seconds[1] < 12 * seconds[0]


def test_queue_that_is_never_empty(monkeypatch: Patch) -> None:
    """Messages come again before the end: each counts once, and the share read is printed."""
    SqsStub(monkeypatch, 400, most_in_flight=100)
    result = run("rejected list --stack o.json --json")
    read = result.document["messages_read"]
    assert (result.code, result.document["complete"]) == (3, False)
    assert 90 <= read < 400
    assert sum(group["count"] for group in result.document["groups"]) == read
    told = run("rejected list --stack o.json").out
    assert re.search(r"The end of rejected wasn't reached: about [2-9]\d% was read", told)
