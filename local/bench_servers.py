"""S3, Secrets Manager and Datadog for the bench: one process that answers late and costs little.

Nothing is stored or checked (local/datadog_server.py does that): an object's content follows from
its key, and what is sent is counted. As the answers wait in a timer and not in a thread, a thousand
can wait at a time.
"""

import argparse
import asyncio
import base64
import json
import random
import re
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "bench"
JOBS = 20  # that the files are of; files of one job have a second each
NAMES = ("orders.placed", "orders.failed", "rows.read", "rows.written", "queue.length")
HIGHEST_VALUE = 9_999
COUNTS_PATH = "/bench/counts"
OUTAGE_PATH = "/bench/outage"  # the next GET ends what the one before began
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CONTINUE = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE)


def object_key(index: int, metrics: int, now: int) -> str:
    """Return the key of the index-th file, which holds so many metrics."""
    return f"stats/job-{index % JOBS:02}/{metrics}/{now - index // JOBS}.json"


@cache
def object_content(key: str) -> bytes:
    """Return a stats file's bytes; the numbers in its key say which."""
    metrics, timestamp = map(int, re.findall(r"\d+", key)[-2:])
    numbers = random.Random(key)
    values = {metric_name(index): numbers.randint(0, HIGHEST_VALUE) for index in range(metrics)}
    return json.dumps({"timestamp": timestamp, **values}).encode()


def metric_name(index: int) -> str:
    """Return the name of a file's index-th metric."""
    return NAMES[index] if index < len(NAMES) else f"{NAMES[index % len(NAMES)]}.{index}"


class Counts(NamedTuple):
    """What the servers have seen since they were started."""

    gets: int
    puts: int
    posts: int
    post_bytes: int  # the POSTs' bodies, on the wire
    plain_bytes: int  # the same, inflated
    busy_seconds: float  # CPU


class Connection(asyncio.Protocol):
    """One connection of a client's: a request is answered when the latency is over."""

    def __init__(self, seen: Counter[str], latency: float) -> None:
        self.seen = seen
        self.latency = latency
        self.received = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a listener's always is
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer a request as soon as all of it has come."""
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = LENGTH.search(head)
        if length and len(body) < int(length[1]):
            if not body and CONTINUE.search(head):
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self.received = b""
        method, path, _ = head.split(b" ", 2)
        answer = self.answer(method.decode(), path.decode(), body)
        if path in (COUNTS_PATH.encode(), OUTAGE_PATH.encode()):
            self.transport.write(answer)
        else:
            asyncio.get_running_loop().call_later(self.latency, self.transport.write, answer)

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        """Count a request and return its answer."""
        if path == COUNTS_PATH:
            return response("200 OK", json.dumps(self.counts()).encode())
        if path == OUTAGE_PATH:
            self.seen["outage"] ^= 1
            return response("200 OK", b"{}")
        if body.startswith(b'{"SecretId":'):  # Secrets Manager's GetSecretValue
            return response("200 OK", b'{"SecretString": "bench"}')
        self.seen[method] += 1
        if method == "GET":
            return object_response(path)
        if method == "PUT":
            return response("200 OK", b"", 'ETag: "0"\r\n')
        self.seen["post_bytes"] += len(body)
        # Only the length is kept. Plain JSON, as two of the contenders send it, isn't inflated.
        deflated = not body.startswith(b"{")
        self.seen["plain_bytes"] += len(zlib.decompress(body)) if deflated else len(body)
        if self.seen["outage"]:
            return response("503 Service Unavailable", b"")
        return response("202 Accepted", b'{"status": "ok"}')

    def counts(self) -> Counts:
        """Return what was counted so far."""
        seen = self.seen
        return Counts(
            gets=seen["GET"],
            puts=seen["PUT"],
            posts=seen["POST"],
            post_bytes=seen["post_bytes"],
            plain_bytes=seen["plain_bytes"],
            busy_seconds=time.process_time(),
        )


def response(status: str, body: bytes, headers: str = "") -> bytes:
    """Return an HTTP response's bytes."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@cache
def object_response(path: str) -> bytes:
    """Return what S3 answers to a GET, with the headers that boto3 makes something of."""
    content = object_content(path)
    checksum = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
    headers = (
        "x-amz-id-2: wUxLTJfMnjWHQHjGR4cJ7xyEZdVV8gSE5TtSTL1rFiFtK1rEd7zkDpGNYtwD2vQ2Yw4p\r\n"
        "x-amz-request-id: 3RGJ0Q2X4K4P6QWE\r\n"
        "Date: Tue, 01 Jul 2025 12:00:00 GMT\r\n"
        "Last-Modified: Tue, 01 Jul 2025 12:00:00 GMT\r\n"
        'ETag: "d41d8cd98f00b204e9800998ecf8427e"\r\n'
        "x-amz-server-side-encryption: AES256\r\n"
        f"x-amz-checksum-crc32: {checksum}\r\n"  # as of any file that today's SDKs have written
        "x-amz-checksum-type: FULL_OBJECT\r\n"
        "Accept-Ranges: bytes\r\n"
        "Server: AmazonS3\r\n"
    )
    return response("200 OK", content, headers)


async def serve(s3_latency: float, datadog_latency: float) -> None:
    """Listen, print where, and go on until standard input ends: whoever started this is gone."""
    loop = asyncio.get_running_loop()
    seen: Counter[str] = Counter()
    urls = []
    for latency in (s3_latency, datadog_latency):
        server = await loop.create_server(
            lambda latency=latency: Connection(seen, latency),  # type: ignore[misc]  # mypy can't infer it
            "127.0.0.1",
            backlog=1024,
        )
        urls.append("http://{}:{}".format(*server.sockets[0].getsockname()))
    print(json.dumps(urls), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


class Servers:
    """The servers' process; a context manager."""

    def __init__(self, s3_latency: float = 0.0, datadog_latency: float = 0.0) -> None:
        """Start the process; latencies are in seconds."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(s3_latency), str(datadog_latency)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout  # noqa: S101  # PIPE says so
        self.s3_url, self.datadog_url = json.loads(self._process.stdout.readline())
        self._open = build_opener(ProxyHandler({})).open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()

    def counts(self) -> Counts:
        """Return what both servers have seen."""
        with self._open(self.s3_url + COUNTS_PATH) as answer:
            return Counts(*json.load(answer))

    def toggle_outage(self) -> None:
        """Let Datadog answer 503 from now on, or no longer."""
        self._open(self.s3_url + OUTAGE_PATH).close()

    @contextmanager
    def counting(self) -> Iterator[list[Counts]]:
        """Yield a list that holds, after the block, the counts of what happened in it."""
        before = self.counts()
        added: list[Counts] = []
        yield added
        after = self.counts()._asdict()
        added.append(
            Counts(**{name: after[name] - count for name, count in before._asdict().items()})
        )

    def environment(self) -> dict[str, str]:
        """Return the environment in which a function finds these servers."""
        return {
            "AWS_ENDPOINT_URL": self.s3_url,
            "DATADOG_HOST": self.datadog_url,
            "DATADOG_API_KEY": "bench",
            "REJECTED_QUEUE_URL": f"{self.s3_url}/123456789012/rejected",
            "STATS_BUCKET": BUCKET,
            "LOG_LEVEL": "ERROR",  # the outages are meant
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m local.bench_servers", description=__doc__)
    parser.add_argument("s3_latency", type=float, help="seconds")
    parser.add_argument("datadog_latency", type=float, help="seconds")
    options = parser.parse_args()
    asyncio.run(serve(options.s3_latency, options.datadog_latency))
