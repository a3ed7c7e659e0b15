"""SQS over HTTP for deep queues, where moto's takes time that grows with the depth."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from threading import Lock
from typing import Any

from tests.operated import ACCOUNT, LocalServer

ARN = f"arn:aws:sqs:us-east-1:{ACCOUNT}:"
WHO = f"<R><GetCallerIdentityResult><Account>{ACCOUNT}</Account></GetCallerIdentityResult></R>"


@dataclass
class Queue:
    """Messages, each a number of which the body is made when it is asked for."""

    waiting: deque[int] = field(default_factory=deque)
    in_flight: dict[str, int] = field(default_factory=dict)  # receipt handle -> message
    bodies: list[str] = field(default_factory=list)  # sent to it: their beginnings
    receives: int = 0


class SqsStub(LocalServer):
    """What ddg-ops asks of SQS, for queues named in the URL's path; and who it is, of what stack.

    most_in_flight: where more are received the oldest of them is visible again, as it is with a
    reader that is slower than the visibility timeout.
    """

    def __init__(
        self, message: Callable[[int], dict[str, Any]], most_in_flight: int = 10**9
    ) -> None:
        super().__init__(_Handler)
        self.message, self.most_in_flight = message, most_in_flight
        self.queues: dict[str, Queue] = {}
        self.lock = Lock()

    def answer(self, action: str, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        name = request["QueueUrl"].rsplit("/", 1)[-1]
        with self.lock:
            answer: dict[str, Any] = getattr(self, action)(self.queues[name], request)
        return answer

    def GetQueueAttributes(self, queue: Queue, request: dict[str, Any]) -> dict[str, Any]:
        redrive = json.dumps({"deadLetterTargetArn": f"{ARN}dead_letter"})
        attributes = {
            "ApproximateNumberOfMessages": str(len(queue.waiting)),
            "ApproximateNumberOfMessagesNotVisible": str(len(queue.in_flight)),
            "QueueArn": ARN + request["QueueUrl"].rsplit("/", 1)[-1],
            "RedrivePolicy": redrive,
        }
        return {"Attributes": attributes}

    def ReceiveMessage(self, queue: Queue, request: dict[str, Any]) -> dict[str, Any]:
        messages: list[dict[str, Any]] = []
        queue.receives += 1
        while queue.waiting and len(messages) < request["MaxNumberOfMessages"]:
            number = queue.waiting.popleft()
            handle = f"handle-{number}-{queue.receives}-" + 200 * "x"
            queue.in_flight[handle] = number
            messages.append(
                {"MessageId": f"id-{number}", "ReceiptHandle": handle} | self.message(number)
            )
        while len(queue.in_flight) > self.most_in_flight:
            queue.waiting.appendleft(queue.in_flight.pop(next(iter(queue.in_flight))))
        return {"Messages": messages} if messages else {}

    def SendMessageBatch(self, queue: Queue, request: dict[str, Any]) -> dict[str, Any]:
        assert sum(len(entry["MessageBody"]) for entry in request["Entries"]) <= 262_144
        queue.bodies += [entry["MessageBody"][:200] for entry in request["Entries"]]
        return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]]}

    def DeleteMessageBatch(self, queue: Queue, request: dict[str, Any]) -> dict[str, Any]:
        for entry in request["Entries"]:
            del queue.in_flight[entry["ReceiptHandle"]]
        return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]]}

    def ChangeMessageVisibilityBatch(self, queue: Queue, request: dict[str, Any]) -> dict[str, Any]:
        for entry in request["Entries"]:
            assert entry["VisibilityTimeout"] == 0
            if entry["ReceiptHandle"] in queue.in_flight:
                queue.waiting.append(queue.in_flight.pop(entry["ReceiptHandle"]))
        return {}


class _Handler(BaseHTTPRequestHandler):
    server: SqsStub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        target = self.headers["X-Amz-Target"]
        if target:
            self.send(json.dumps(self.server.answer(target.partition(".")[2], json.loads(body))))
        else:
            self.send(WHO)

    def do_GET(self) -> None:
        if "event-source-mappings" in self.path:
            function = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f"
            self.send(json.dumps({"EventSourceMappings": [{"FunctionArn": function}]}))
        else:
            variables = {"REJECTED_QUEUE_URL": f"{self.server.url}/{ACCOUNT}/rejected"}
            self.send(json.dumps({"Environment": {"Variables": variables}}))

    def send(self, body: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass
