"""The submitter: what it makes of S3's objects, of markers among them, and of S3's trouble."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.events import BUCKET, Context, sqs_record, stats
from tests.scripted_server import (
    Call,
    Objects,
    Script,
    bucket_of,
    response,
    s3_error,
    silent,
)
from tests.submitter import Submitter

LIMIT = 10 * 1024 * 1024


# --- Markers ---


def test_markers_are_accepted_quietly(submitter: Submitter) -> None:
    """Spark, Hadoop and S3's console leave them behind; they ring no alarm and count nowhere."""
    empty = ["job/", "_SUCCESS", "job/_committed_4711", "_", "job/.part-0.crc", "day_$folder$"]
    empty += ["_$folder$", "a b/_c+d"]
    markers = dict.fromkeys(empty, b"") | {"job/_SUCCESS": b'{"committer": "magic"}'}
    markers |= {"no-json/_SUCCESS": b"\0", "large/_SUCCESS": b" " * (LIMIT + 1)}
    markers = {f"stats/{key}": content for key, content in markers.items()}
    messages = [sqs_record([key]) for key in markers]
    objects = {**markers, "stats/a.json": stats()}
    outcome = submitter.submit_from(objects, *messages, sqs_record(objects))
    assert outcome.files == (1, 0, 0)
    assert (outcome.retried, outcome.rejected, outcome.log) == ([], [], [])
    assert outcome.summary["Ignored"] == 0


def test_anything_else_is_a_file(submitter: Submitter) -> None:
    """An empty file of another name is a job's fault; and what has content is read."""
    empty = ["a.json", "_job/a.json", ".job/a", "a_", "a_$folder$.json", "$folder$"]
    malformed = ["_SUCCESS.json", "a_SUCCESS", "_success", "_SUCCESS/a", "_a.json", ".a"]
    good = {"_b.json": stats(), ".b": stats(), "day_$folder$": stats(), "job/": stats()}
    bad = dict.fromkeys(empty, b"") | dict.fromkeys(malformed, b" ")
    files = {f"stats/{key}": content for key, content in (bad | good).items()}
    outcome = submitter.submit_from(files)
    assert outcome.files == (len(good), len(bad), 0)
    refused = {message.attributes["key"] for message in outcome.rejected}
    assert refused == {f"stats/{key}" for key in bad}


# --- Sizes and encodings ---


def test_content_encoding_is_left_alone(submitter: Submitter) -> None:
    """An object's Content-Encoding says nothing about what was uploaded: its first bytes do."""

    def encoded(content: bytes) -> Script:
        return lambda call: response(body=content, Content_Encoding="gzip")

    outcome = submitter.submit_from(
        {
            "stats/a": encoded(gzip.compress(stats(m=1))),
            "stats/b": encoded(stats(n=1)),
            "stats/c": gzip.compress(stats(o=1)) + bytes(512),
            "stats/d": encoded(gzip.compress(b" " * 11_000_000)),
        }
    )
    assert outcome.files == (3, 1, 0)
    assert "decompressed" in outcome.reasons[0]
    assert submitter.stored() == {(name, ()): [1.0] for name in "mno"}


def told(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield an answer of S3's that tells its length."""
    content = b"".join(pieces)
    yield response(body=content)


def chunked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield one that doesn't."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def until_closed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield one that ends with its connection."""
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    yield from pieces
    raise ConnectionAbortedError


@pytest.mark.parametrize("answer", [told, chunked, until_closed])
def test_file_is_read_up_to_the_limit(submitter: Submitter, answer: Any) -> None:
    """A byte more is refused. S3 tells an object's length, what stands between may not."""
    whole = stats(m=1)
    outcome = submitter.submit_from(
        {
            "stats/short": lambda call: answer([whole[:9], whole[9:]]),
            "stats/limit": lambda call: answer([stats(n=1).ljust(LIMIT // 2), b" " * (LIMIT // 2)]),
            "stats/over": lambda call: answer([stats().ljust(LIMIT), b" "]),
        }
    )
    assert outcome.files == (2, 1, 0)
    assert submitter.stored() == {("m", ()): [1.0], ("n", ()): [1.0]}
    assert [message.attributes["key"] for message in outcome.rejected] == ["stats/over"]
    assert "Split" in outcome.reasons[0]


@pytest.mark.parametrize(
    "header", [b"Content-Length: 5000000000", b"x: y"], ids=["told", "until-closed"]
)
def test_never_more_than_the_limit_is_read(submitter: Submitter, header: bytes) -> None:
    """An object far over the limit is refused, and most of its bytes stay with S3."""
    sent = []

    def endless(call: Call) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n"
        for _ in range(5000):
            sent.append(1)
            yield b" " * 1_000_000

    outcome = submitter.submit_from({"stats/a.json": endless})
    assert outcome.files == (0, 1, 0)
    assert "Split" in outcome.reasons[0]
    assert len(sent) < 50  # the limit, and sockets' buffers twice


def test_large_object_waits_for_its_turn_without_a_connection(submitter: Submitter) -> None:
    """S3 drops a connection that nobody reads from: so it is closed, and asked for again later."""
    asked: Counter[str] = Counter()

    def dropped_at_first(call: Call) -> Iterator[bytes]:
        asked[call.path] += 1
        whole = response(body=stats(age=len(asked)).ljust(300_000))
        if asked[call.path] == 1:
            yield whole[:100_000]
            raise ConnectionAbortedError
        yield whole

    outcome = submitter.submit_from({f"stats/{n:02}": dropped_at_first for n in range(100)})
    assert outcome.files == (100, 0, 0)
    assert set(asked.values()) == {2}


# --- Trouble ---


def reset_at_once(call: Call) -> bytes:
    raise ConnectionResetError


def breaking_off(sent: bytes) -> Script:
    """Return a script that closes the connection after some bytes."""

    def script(call: Call) -> Iterator[bytes]:
        yield sent
        raise ConnectionAbortedError

    return script


ANSWERS: dict[str, tuple[bytes | Script, str]] = {
    "403-empty": (response("403 Forbidden"), "S3 answered 403"),
    "500-without-a-code": (response("500 Error", b"<Error><Message>no</Message></Error>"), "500"),
    "500-long-code": (s3_error("500 Error", "x" * 1_000_000), "x" * 400),
    "500-breaks-off": (
        breaking_off(b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<Err"),
        "S3 can't be read",
    ),
    "body-too-short": (breaking_off(response(body=stats())[:-1]), "S3 can't be read"),
    "reset-at-once": (reset_at_once, "S3 can't be read"),
    "no-http": (b"220 smtp.example.com ready\r\n\r\n", "S3 can't be read"),
}
for status, code in [
    *((403, code) for code in ("AccessDenied", "InvalidAccessKeyId", "InvalidObjectState")),
    *((400, "ExpiredToken"), (404, "NoSuchBucket"), (301, "PermanentRedirect")),
    *((409, "OperationAborted"), (503, "SlowDown"), (500, "InternalError")),
]:
    ANSWERS[code] = s3_error(f"{status} Error", code), f"S3 answered {code}"


@pytest.mark.parametrize(
    ("answer", "said"), [pytest.param(*row, id=name) for name, row in ANSWERS.items()]
)
def test_trouble_of_s3_is_retried(submitter: Submitter, answer: bytes | Script, said: str) -> None:
    """Not known to be the file's fault, so it stays in the queue; its neighbours go through."""
    script = (lambda call: answer) if isinstance(answer, bytes) else answer
    outcome = submitter.submit_from({"stats/b": script, "stats/a": stats()})
    assert outcome.files == (1, 0, 1)
    assert outcome.retried == [0]
    [line] = outcome.log
    assert line.startswith("retried 1: ")
    assert said in line
    assert line.endswith(f": s3://{BUCKET}/stats/b")
    assert len(line) < 1_000


GONE_HTML = response("404 Not Found", b"<html>Gone<br></html>")


@pytest.mark.parametrize(
    "answer",
    [
        s3_error("404 N", "NoSuchKey"),
        s3_error("404 N", "NoSuchVersion"),
        response("404 N"),
        GONE_HTML,
    ],
)
def test_gone_object_is_refused(submitter: Submitter, answer: bytes) -> None:
    """404, in S3's words or a gateway's: no try again will find the object."""
    objects: Objects = {"stats/a": lambda call: answer, "stats/b": stats()}
    with submitter.reading_from(bucket_of(objects)) as s3:
        outcome = submitter.submit(*(sqs_record([key]) for key in objects))
    assert outcome.files == (1, 1, 0)
    assert outcome.reasons == ["the object is gone. Keep files until they are submitted."]
    assert len(s3.calls) == 2


def test_throttling_that_ends_is_waited_out(submitter: Submitter) -> None:
    """S3 throttles while it scales: trying again within the invocation saves the file a round."""
    answers = iter([s3_error("503 Slow Down", "SlowDown")] * 2 + [response(body=stats())])
    with submitter.reading_from(lambda call: next(answers)):
        assert submitter.submit(sqs_record(["stats/a.json"])).files == (1, 0, 0)


def drips(call: Call) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    while not call.stopping.wait(0.02):
        yield b" "


@pytest.mark.parametrize("slow", [drips, silent])
def test_slow_s3_meets_the_deadline(submitter: Submitter, slow: Script) -> None:
    """What S3 didn't send in time is retried, and a refusal is kept; what it sent is submitted."""
    context = Context(4)
    files: Objects = {"a": stats(m=1), "slow": slow, "b": b"{}", "c": stats(n=1)}
    objects = {f"stats/{name}": content for name, content in files.items()}
    with submitter.reading_from(bucket_of(objects)):
        outcome = submitter.submit(*(sqs_record([key]) for key in objects), context=context)
        assert context.get_remaining_time_in_millis() > 250
    assert outcome.files == (2, 1, 1)
    assert outcome.retried == [1]
    assert f"retried 1: S3 did not send the object in time: s3://{BUCKET}/stats/slow" in outcome.log


def test_s3_that_hangs_costs_the_next_batch_nothing(submitter: Submitter) -> None:
    """Threads that wait for it are left behind, however many they are."""
    keys = [f"stats/{n}" for n in range(100)]
    objects: Objects = {**dict.fromkeys(keys, silent), "stats/good": stats()}
    with submitter.reading_from(bucket_of(objects)):
        outcome = submitter.submit(sqs_record(keys), context=Context(3))
        assert outcome.files == (0, 0, 100)
        assert submitter.submit(sqs_record(["stats/good"]), context=Context(4)).files == (1, 0, 0)


def test_object_that_drips_costs_its_neighbours_little(submitter: Submitter) -> None:
    """It is waited for no longer than any object may take, though it comes first."""
    files = {f"stats/{n:02}": stats(age=n) for n in range(1, 100)}
    outcome = submitter.submit_from({"stats/00": drips, **files})
    assert outcome.files == (99, 0, 1)
    assert outcome.retried == [0]
    assert outcome.summary["FetchMilliseconds"] < 8000  # of sixty seconds


def test_no_file_is_parsed_that_would_take_the_time_of_the_post(submitter: Submitter) -> None:
    """A large one is retried; its neighbours, parsed before and after it, are submitted."""

    asked = [0, 53]  # seconds; a large object is asked for twice

    def slowly(call: Call) -> bytes:
        submitter.clock.spend(asked.pop())
        return response(body=stats(n=1).ljust(LIMIT))  # five seconds of work

    outcome = submitter.submit_from(
        {"stats/a.json": stats(m=1), "stats/b.json": slowly, "stats/c.json": stats(o=1)}
    )
    assert outcome.files == (2, 0, 1)
    assert outcome.retried == [1]
    assert "no time" in outcome.log[0]
    assert len(submitter.datadog.requests) == 1
