"""The bench's events, and its S3 and Datadog.

One event loop answers for both: it can delay a thousand requests at a time, and takes little CPU.
It stores and checks nothing (local/datadog_server.py does that): an object's content is computed
from its key, and requests are only counted.
"""

import asyncio
import json
import random
import re
import time
import zlib
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

from local.event_source import sqs_record

BUCKET = "bench"
JOBS = 20  # that write the files
NAMES = ("orders.placed", "orders.failed", "rows.read", "rows.written", "queue.length")
VALIDATE = "/api/v1/validate"  # asked during other requests: answered at once, and not counted
OBJECT_HEADERS = """x-amz-request-id: 3RGJ0Q2X4K4P6QWE\r
Last-Modified: Tue, 01 Jul 2025 12:00:00 GMT\r
ETag: "d41d8cd98f00b204e9800998ecf8427e"\r
x-amz-checksum-type: FULL_OBJECT\r
x-amz-checksum-crc32: """


@cache
def object_content(key: str) -> bytes:
    """Return the bytes of a stats file; its key has the metrics and the timestamp."""
    metrics, timestamp = map(int, re.findall(r"\d+", key)[-2:])
    numbers = random.Random(key)
    stats = {f"{NAMES[i % 5]}.{i // 5}": numbers.randint(0, 9_999) for i in range(metrics)}
    return json.dumps({"timestamp": timestamp, **stats}).encode()


def sqs_event(files: int, metrics: int) -> dict[str, Any]:
    """Return the event with which Lambda delivers S3's notifications of a number of files."""
    now = int(time.time())  # each file of a job has its own second
    keys = [f"stats/job-{i % JOBS:02}/{metrics}/{now - i // JOBS}.json" for i in range(files)]
    named = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}
    bucket = {"bucket": {"name": BUCKET}}
    messages = [
        {
            "MessageId": key,
            "ReceiptHandle": 1_300 * "x",  # makes the record as long as a real one, 1,900 bytes
            "Body": json.dumps({"Records": [named | {"s3": bucket | {"object": {"key": key}}}]}),
            "MD5OfBody": 32 * "0",
            "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1751371200000"},
        }
        for key in keys
    ]
    queue = "arn:aws:sqs:us-east-1:123456789012:stats"
    return {"Records": [sqs_record(message, queue) for message in messages]}


@contextmanager
def serve(
    s3_latency: float = 0.0, datadog_latency: float = 0.0
) -> Iterator[tuple[dict[str, str], Counter[str]]]:
    """Answer with a delay in seconds; yield a function's environment, and the counts.

    Counts the requests by method, and the POSTs' bytes on the wire as "wire".
    """
    seen: Counter[str] = Counter()
    urls: Future[list[str]] = Future()
    stopped: Future[None] = Future()

    async def listen() -> None:
        servers = [
            await asyncio.start_server(partial(converse, seen, latency), "127.0.0.1", backlog=1024)
            for latency in (s3_latency, datadog_latency)
        ]
        urls.set_result(["http://{}:{}".format(*each.sockets[0].getsockname()) for each in servers])
        await asyncio.wrap_future(stopped)
        for server in servers:
            server.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, listen())
        s3_url, datadog_url = urls.result()
        environment = {
            "AWS_ENDPOINT_URL": s3_url,
            "DATADOG_HOST": datadog_url,
            "DATADOG_API_KEY": "bench",
            "REJECTED_QUEUE_URL": f"{s3_url}/123456789012/rejected",
            "STATS_BUCKET": BUCKET,
        }
        try:
            yield environment, seen
        finally:
            stopped.set_result(None)


async def converse(
    seen: Counter[str], latency: float, reader: StreamReader, writer: StreamWriter
) -> None:
    """Answer the requests of a connection."""
    with suppress(IncompleteReadError, ConnectionError):  # the client has closed it
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if "100-continue" in head:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = re.search(r"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            method, path, _ = head.split(" ", 2)
            answer = respond(seen, method, path, body)
            await asyncio.sleep(0 if path == VALIDATE else latency)
            writer.write(answer)
    writer.close()


def respond(seen: Counter[str], method: str, path: str, body: bytes) -> bytes:
    """Count a request and return the response's bytes."""
    status, content, headers = "200 OK", b"", "Content-Type: application/json\r\n"
    seen[method] += path != VALIDATE
    if path == VALIDATE:
        content = b'{"valid": true}'
    elif method == "GET":
        content = object_content(path)
        checksum = b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
        headers += f"{OBJECT_HEADERS}{checksum}\r\n"
    elif method == "POST":
        status, content = "202 Accepted", b'{"status": "ok"}'
        seen["wire"] += len(body)
    return (
        f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(content)}\r\n\r\n".encode() + content
    )
