"""SQS over HTTP for deep queues: moto's takes time that grows with the depth."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Queue:
    """Messages, each a number of which the body is made when it is asked for."""

    waiting: deque[int] = field(default_factory=deque)
    in_flight: dict[str, int] = field(default_factory=dict)  # receipt handle -> message
    bodies: list[str] = field(default_factory=list)  # sent to it: their beginnings


class SqsStub(ThreadingHTTPServer):
    """What ddg_ops.py asks of SQS, for queues named in the URL's path."""

    def __init__(self, message: Callable[[int], dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.message = message
        self.queues: dict[str, Queue] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> SqsStub:
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, action: str, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        queue = self.queues.setdefault(request["QueueUrl"].rsplit("/", 1)[-1], Queue())
        answer: dict[str, Any] = getattr(self, action)(queue, request)
        return answer

    def GetQueueAttributes(self, queue: Queue, _: dict[str, Any]) -> dict[str, Any]:
        counts = (len(queue.waiting), len(queue.in_flight))
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return {"Attributes": dict(zip(names, map(str, counts), strict=True))}

    def ReceiveMessage(self, queue: Queue, request: dict[str, Any]) -> dict[str, Any]:
        messages: list[dict[str, Any]] = []
        while queue.waiting and len(messages) < request["MaxNumberOfMessages"]:
            number = queue.waiting.popleft()
            handle = f"handle-{number}-" + 200 * "x"
            queue.in_flight[handle] = number
            messages.append(
                {"MessageId": f"id-{number}", "ReceiptHandle": handle} | self.message(number)
            )
        return {"Messages": messages} if messages else {}

    def SendMessageBatch(self, queue: Queue, request: dict[str, Any]) -> dict[str, Any]:
        assert sum(len(entry["MessageBody"]) for entry in request["Entries"]) <= 262_144
        queue.bodies += [entry["MessageBody"][:200] for entry in request["Entries"]]
        return successes(request)

    def DeleteMessageBatch(self, queue: Queue, request: dict[str, Any]) -> dict[str, Any]:
        for entry in request["Entries"]:
            del queue.in_flight[entry["ReceiptHandle"]]
        return successes(request)

    def ChangeMessageVisibilityBatch(self, queue: Queue, request: dict[str, Any]) -> dict[str, Any]:
        for entry in request["Entries"]:
            assert entry["VisibilityTimeout"] == 0
            queue.waiting.append(queue.in_flight.pop(entry["ReceiptHandle"]))
        return successes(request)


def successes(request: dict[str, Any]) -> dict[str, Any]:
    """Return that all entries of a batch went well."""
    return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]], "Failed": []}


class _Handler(BaseHTTPRequestHandler):
    server: SqsStub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        action = self.headers["X-Amz-Target"].partition(".")[2]
        body = json.dumps(self.server.answer(action, request)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
