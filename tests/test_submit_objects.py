"""The submitter: objects of S3, markers among them, and errors of S3."""

import gzip
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.events import BUCKET, Context, sqs_record, stats
from tests.scripted_server import (
    Call,
    Objects,
    Script,
    bucket_of,
    closing_after,
    drip,
    reset,
    response,
    s3_error,
    sending,
    silent,
)
from tests.submitter import Submitter

LIMIT = 10 * 1024 * 1024


# --- Markers ---


def test_markers_are_skipped(submitter: Submitter) -> None:
    """Spark, Hadoop and S3's console leave them behind. They count nowhere."""
    empty = ["job/", "job/_committed_4711", "_", "job/.part-0.crc", "day_$folder$", "a b/_c+d"]
    markers = dict.fromkeys(empty, b"") | {"job/_SUCCESS": b'{"committer": "magic"}'}
    markers |= {"no-json/_SUCCESS": b"\0", "large/_SUCCESS": b" " * (LIMIT + 1)}
    markers = {f"stats/{key}": content for key, content in markers.items()}
    objects = {**markers, "stats/a.json": stats()}
    outcome = submitter.submit_from(objects, *map(submitter.message, markers), sqs_record(objects))
    assert outcome.files == (1, 0, 0)
    assert (outcome.retried, outcome.rejected, outcome.log) == ([], [], [])
    assert outcome.summary["Ignored"] == 0


def test_other_names_are_stats_files(submitter: Submitter) -> None:
    """They are refused if they are empty, and read if they have content."""
    empty = ["a.json", "_job/a.json", ".job/a", "a_", "a_$folder$.json", "$folder$"]
    malformed = ["_SUCCESS.json", "a_SUCCESS", "_success", "_SUCCESS/a", "_a.json", ".a"]
    good = {"_b.json": stats(), "day_$folder$": stats(), "job/": stats()}
    bad = dict.fromkeys(empty, b"") | dict.fromkeys(malformed, b" ")
    files = {f"stats/{key}": content for key, content in (bad | good).items()}
    outcome = submitter.submit_from(files)
    assert outcome.files == (len(good), len(bad), 0)
    refused = {message.attributes["key"] for message in outcome.rejected}
    assert refused == {f"stats/{key}" for key in bad}


# --- Sizes and encodings ---


def test_content_encoding_is_not_used(submitter: Submitter) -> None:
    """The first bytes of an object tell whether it is gzip."""
    contents = {"stats/a": gzip.compress(stats(m=1)), "stats/b": stats(n=1)}
    objects = {
        key: sending(response(body=content, Content_Encoding="gzip"))
        for key, content in contents.items()
    }
    assert submitter.submit_from(objects).files == (2, 0, 0)
    assert submitter.stored() == {(name, ()): [1.0] for name in "mn"}


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
FRAMES: dict[str, Callable[[bytes], Script]] = {
    "with-length": lambda content: sending(response(body=content)),
    "chunked": lambda content: sending(CHUNKED % (len(content), content)),
    "until-closed": lambda content: closing_after(b"HTTP/1.1 200 OK\r\n\r\n" + content),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_file_is_read_up_to_the_limit(
    submitter: Submitter, frame: Callable[[bytes], Script]
) -> None:
    """One byte more is refused. A proxy may leave out the length."""
    contents = {"short": stats(m=1), "limit": stats(n=1).ljust(LIMIT), "over": b" " * (LIMIT + 1)}
    objects = {f"stats/{name}": frame(content) for name, content in contents.items()}
    outcome = submitter.submit_from(objects)
    assert outcome.files == (2, 1, 0)
    assert submitter.stored() == {("m", ()): [1.0], ("n", ()): [1.0]}
    assert [message.attributes["key"] for message in outcome.rejected] == ["stats/over"]
    assert "Split" in outcome.reasons[0]


def test_reading_stops_at_the_limit(submitter: Submitter) -> None:
    sent = []

    def endless(call: Call) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        for _ in range(5000):
            sent.append(1)
            yield b" " * 1_000_000

    outcome = submitter.submit_from({"stats/a.json": endless})
    assert outcome.files == (0, 1, 0)
    assert "Split" in outcome.reasons[0]
    assert len(sent) < 50  # the limit, and the buffers of two sockets


def test_large_object_is_requested_again_in_its_turn(submitter: Submitter) -> None:
    """Until then it holds no connection: S3 drops those that nobody reads from."""
    requests: Counter[str] = Counter()

    def dropped_at_first(call: Call) -> Iterator[bytes]:
        requests[call.path] += 1
        whole = response(body=stats(age=len(requests)).ljust(300_000))
        if requests[call.path] == 1:
            yield whole[:100_000]
            raise ConnectionAbortedError
        yield whole

    outcome = submitter.submit_from({f"stats/{n:02}": dropped_at_first for n in range(100)})
    assert outcome.files == (100, 0, 0)
    assert set(requests.values()) == {2}


# --- Errors ---


ERRORS: dict[Script, str] = {  # what S3 sends, and how the reason begins
    sending(response("403 Forbidden")): "S3 answered 403",
    sending(response("500 Error", b"<Error><Message>no</Message></Error>")): "S3 answered 500",
    sending(s3_error("500 Error", "x" * 1_000_000)): f"S3 answered {'x' * 400}.",
    sending(s3_error("503 E", "SlowDown")): "S3 answered SlowDown",
    closing_after(b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<Err"): "S3 can't be",
    closing_after(response(body=stats())[:-1]): "S3 can't be read",
    reset: "S3 can't be read",
    sending(b"220 smtp.example.com ready\r\n\r\n"): "S3 can't be read",
}


def test_file_is_retried_after_an_error_of_s3(submitter: Submitter) -> None:
    """The file may be good. Its neighbours are submitted."""
    failing: Objects = {f"stats/b{n:02}": script for n, script in enumerate(ERRORS)}
    outcome = submitter.submit_from({**failing, "stats/a": stats()})
    assert (outcome.files, outcome.retried) == ((1, 0, len(ERRORS)), [*range(len(ERRORS))])
    for key, said in zip(failing, ERRORS.values(), strict=True):
        [line] = [line for line in outcome.log if f"s3://{BUCKET}/{key}" in line]
        assert re.match(f"retried [0-9]+: {re.escape(said)}", line)
        assert len(line) < 1_000


def test_missing_object_is_refused(submitter: Submitter) -> None:
    """A 404 from S3 or a gateway isn't retried."""
    gone = [s3_error("404 N", "NoSuchKey"), response("404 N"), response("404 N", b"<html>Gone<br>")]
    objects: Objects = {f"stats/{n}": sending(answer) for n, answer in enumerate(gone)}
    with submitter.reading_from(bucket_of({**objects, "stats/a": stats()})) as s3:
        outcome = submitter.submit(*map(submitter.message, [*objects, "stats/a"]))
    assert outcome.files == (1, len(gone), 0)
    assert {*outcome.reasons} == {"the object is gone. Keep files until they are submitted."}
    assert len(s3.calls) == len(gone) + 1


def test_throttled_request_is_retried_at_once(submitter: Submitter) -> None:
    answers = iter([s3_error("503 Slow Down", "SlowDown")] * 2 + [response(body=stats())])
    with submitter.reading_from(lambda call: next(answers)):
        assert submitter.submit(sqs_record(["stats/a.json"])).files == (1, 0, 0)


def test_slow_s3_meets_the_deadline(submitter: Submitter) -> None:
    """Its file is retried; the others are submitted or refused."""
    context = Context(4)
    files: Objects = {"a": stats(m=1), "slow": drip, "b": b"{}", "c": stats(n=1)}
    objects = {f"stats/{name}": content for name, content in files.items()}
    with submitter.reading_from(bucket_of(objects)):
        outcome = submitter.submit(*(sqs_record([key]) for key in objects), context=context)
        assert context.get_remaining_time_in_millis() > 250
    assert (outcome.files, outcome.retried) == ((2, 1, 1), [1])
    assert f"retried 1: S3 did not send the object in time: s3://{BUCKET}/stats/slow" in outcome.log


def test_requests_that_hang_do_not_delay_the_next_batch(submitter: Submitter) -> None:
    """Their threads are left behind, and no request is started when the time is up."""
    keys = [f"stats/{n}" for n in range(100)]
    objects: Objects = {**dict.fromkeys(keys, silent), "stats/good": stats()}
    with submitter.reading_from(bucket_of(objects)) as s3:
        outcome = submitter.submit(sqs_record(keys), context=Context(4))
        assert outcome.files == (0, 0, 100)
        assert len(s3.calls) <= 64
        assert submitter.submit(sqs_record(["stats/good"]), context=Context(4)).files == (1, 0, 0)


def test_slow_object_does_not_hold_up_its_neighbours(submitter: Submitter) -> None:
    submitter.environment.setattr(submitter.module, "FETCH_SECONDS", 0.5)
    files = {f"stats/{n:02}": stats(age=n) for n in range(1, 100)}
    outcome = submitter.submit_from({"stats/00": drip, **files})
    assert (outcome.files, outcome.retried) == ((99, 0, 1), [0])
    assert outcome.summary["FetchMilliseconds"] < 5000  # of sixty seconds


LARGE = stats(n=1).ljust(LIMIT)  # five seconds of work


@pytest.mark.parametrize("content", [LARGE, gzip.compress(LARGE)], ids=["plain", "gzip"])
def test_large_file_is_retried_if_parsing_leaves_no_time_to_post(
    submitter: Submitter, content: bytes
) -> None:
    """Small files before and after it are submitted."""
    delays = [0, 53]  # seconds; a large object is requested twice

    def slowly(call: Call) -> bytes:
        submitter.clock.spend(delays.pop())
        return response(body=content)

    outcome = submitter.submit_from(
        {"stats/a.json": stats(m=1), "stats/b.json": slowly, "stats/c.json": stats(o=1)}
    )
    assert (outcome.files, outcome.retried) == ((2, 0, 1), [1])
    assert "no time" in outcome.log[0]
    assert len(submitter.datadog.requests) == 1
