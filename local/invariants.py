"""What must hold whatever comes in: file bytes, SQS bodies, Datadog's answers.

The tests check it with what hypothesis thinks of, `make fuzz` with what atheris finds.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import ddg_metric_submit
import ddg_series_api
import ddg_stats_file
from ddg_stats_file import Sample, StatsFileError
from tests.scripted_server import Call, ScriptedServer

NOW = 1_575_839_011
MAX_SECONDS = 1.0  # that one input may take
POST_SECONDS = 0.5
SQS_BYTES = 262_144  # SendMessage reference, the lower of two limits
NOT_FOR_SQS = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Broken(Exception):
    """Something that must hold doesn't."""


def require(holds: bool, what: str) -> None:
    """Raise Broken unless it holds."""
    if not holds:
        raise Broken(what)


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Fail what takes over a second."""
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    require(seconds < MAX_SECONDS, f"took {seconds:.1f} s")


def check_file(content: bytes) -> None:
    """Any bytes are samples, each fit for Datadog, or a reason in a line."""
    with quickly():
        try:
            samples = ddg_stats_file.read_stats_file(
                content, now=NOW, max_age=3600, tags=("env:x", "job:y")
            )
        except StatsFileError as error:
            require(str(error).isprintable(), f"a reason of several lines: {error}")
            require(len(str(error)) < 1000, f"a long reason: {error}")
            return
    require(bool(samples), "neither samples nor a reason")
    seconds = [(sample.timestamp, sample.tags) for sample in samples]
    require(len({*seconds}) == len(seconds), "two samples of a second and tags")
    for sample in samples:
        check_sample(sample)
    payload = json.dumps(ddg_series_api.build_series(samples), allow_nan=False)
    require("NaN" not in payload, "no JSON")


def check_sample(sample: Sample) -> None:
    """A sample is what Datadog keeps as it is."""
    require(NOW - 3600 <= sample.timestamp <= NOW + 600, f"at {sample.timestamp}")
    require({"env:x", "job:y"} <= {*sample.tags}, f"tags {sample.tags}")
    require([*sample.tags] == sorted({*sample.tags}), f"tags in disorder: {sample.tags}")
    for tag in sample.tags:
        require(bool(tag) and ddg_stats_file.normalise_tag(tag) == tag, f"tag {tag!r}")
        require(not CONTROL.search(tag), f"tag {tag!r}")
    require(bool(sample.values), "no metric")
    for name, value in sample.values.items():
        require(bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]{0,199}", name)), f"metric {name!r}")
        require(type(value) in (int, float), f"{name} is {value!r}")
        require(abs(value) <= sys.float_info.max, f"{name} is {value!r}")


def check_body(body: str) -> None:
    """Any body is deliveries; refused, it fits in a message, and in a log line."""
    with quickly():
        [message] = ddg_metric_submit.read_messages(
            {"Records": [{"messageId": "1", "body": body, "attributes": {}}]}
        )
        for delivery in message.deliveries:
            require(type(delivery.bucket) is str and type(delivery.key) is str, "no names")
            line = ddg_metric_submit.address(delivery)
            require(not CONTROL.search(line), f"a line is broken by {line!r}")
            delivery.refused = delivery.refused or f"not JSON: {body[:100]}"
        if message.deliveries:
            check_message(ddg_metric_submit.rejected_message(message))


def check_body_bytes(data: bytes) -> None:
    """Likewise for a body that may not be text."""
    check_body(data.decode(errors="replace"))


def check_message(message: Mapping[str, object]) -> None:
    """SQS takes the message: its characters, its attributes, its size."""
    body, attributes = message["MessageBody"], message["MessageAttributes"]
    assert isinstance(body, str)  # noqa: S101  # for mypy
    assert isinstance(attributes, dict)  # noqa: S101  # for mypy
    texts = {name: attribute["StringValue"] for name, attribute in attributes.items()}
    size = len((body + "".join(f"{name}String{text}" for name, text in texts.items())).encode())
    require(size <= SQS_BYTES or not texts, f"{size} bytes")
    for text in (body, *texts.values()):
        require(bool(text) and not NOT_FOR_SQS.search(text), f"SQS doesn't take {text!r}")
    require(len(texts.get("reason", "").encode()) <= 1024, "a reason of over 1 KiB")


class Answers:
    """A server that answers anything, and the submitter's POST to it."""

    def __init__(self) -> None:
        self.answer = b""
        self.server = ScriptedServer(self.send)

    def send(self, call: Call) -> Iterator[bytes]:
        """Answer, and close the connection after it."""
        yield self.answer
        raise ConnectionAbortedError

    def check(self, answer: bytes) -> None:
        """Whatever is answered: no exception, in time, and success only by the status 202."""
        self.answer = answer
        with quickly():
            heard = ddg_series_api.post(
                ddg_series_api.build_series([Sample(NOW, ("env:x",), {"m": 1})]),
                api_key="key-of-the-fuzzer",
                app_key=None,
                host=self.server.url,
                seconds=POST_SECONDS,
            )
        status_line = answer.partition(b"\n")[0]
        require(heard.status_code != 202 or b"202" in status_line, f"{heard} to {answer!r}")
        require("key-of-the-fuzzer" not in repr(heard), f"the key is in {heard}")


TARGETS: dict[str, Sequence[bytes]] = {  # each with what to begin with
    "file": (
        b'{"timestamp": %d, "a": 1, "tags": ["x"], "b": {"c": 2.5e3}}' % NOW,
        b'[{"timestamp": %d, "a": 1}, {"timestamp": %d, "a": null, "b": -0.0}]' % (NOW, NOW + 1),
        b'{"timestamp": %d, "a": 1}\n{"timestamp": %d.5, "a": 2}\n' % (NOW, NOW - 1),
        b"\x1f\x8b\x08\0\0\0\0\0\x02\xff\xabV*\xc9\xccM-.I\xcc-P\xb22\xac\x05\0",
    ),
    "body": (
        b'{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "stats/a+b%2Fc"}}}]}',
        b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}',
    ),
    "answer": (
        b'HTTP/1.1 202 Accepted\r\nContent-Length: 16\r\n\r\n{"status": "ok"}',
        b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: /elsewhere\r\nContent-Encoding: gzip\r\n\r\n",
    ),
}
