"""The submitter: what of a batch it reads, what it keeps of a refusal, and what it says."""

from __future__ import annotations

import gzip
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from local.datadog_server import Answer
from local.ledger import Point, balance
from tests.events import BUCKET, Context, notification, s3_record, sqs_record, stats
from tests.scripted_server import Call, Script, ScriptedServer, bucket_of, response, s3_error
from tests.submitter import METRICS, Submitter

MALFORMED = b'{"timestamp": '


def stored(submitter: Submitter) -> dict[tuple[str, tuple[str, ...]], list[float]]:
    """Return what Datadog has: metric and tags -> values in the order of time."""
    return {
        series: [value for _, value in sorted(points.items())]
        for series, points in submitter.datadog.points.items()
    }


# --- The main job ---


def test_file_of_the_readme(submitter: Submitter) -> None:
    """The sample file, its timestamp of today: two gauges with the job's tag, and no host."""
    now = int(time.time())
    content = json.dumps({"timestamp": now, "sample.stats": 1231, "processed.data": 321}).encode()
    outcome = submitter.submit_files({"stats/nightly/2026/a.json": content})
    assert outcome.files == (1, 0, 0)
    assert (outcome.retried, outcome.rejected, outcome.log) == ([], [], [])
    [request] = submitter.datadog.requests
    assert request.series == [
        {"metric": name, "type": "gauge", "points": [[now, [value]]], "tags": ["job:nightly"]}
        | {"points": [[now, value]]}
        for name, value in (("sample.stats", 1231), ("processed.data", 321))
    ]
    assert request.path == "/api/v1/series"
    assert request.headers["dd-api-key"] == "test-key"
    assert request.headers["content-encoding"] == "deflate"
    assert "dd-application-key" not in request.headers
    counts = {name: outcome.summary[name] for name in METRICS if "Milliseconds" not in name}
    assert counts == {
        "Submitted": 1,
        "Refused": 0,
        "Retried": 0,
        "Points": 2,
        "Collisions": 0,
        "Requests": 1,
        "WireBytes": request.wire_bytes,
    }


def test_batch_takes_one_post(submitter: Submitter) -> None:
    """However many messages and records: one POST while it fits."""
    files = {f"stats/job/{n}.json": stats(age=n, m=n, n=n) for n in range(30)}
    submitter.put_all(files)
    keys = list(files)
    messages = [submitter.message(*keys[n : n + 3]) for n in range(0, 30, 3)]
    outcome = submitter.submit(*messages)
    assert outcome.files == (30, 0, 0)
    assert outcome.summary["Points"] == 60
    assert len(submitter.datadog.requests) == outcome.summary["Requests"] == 1
    assert stored(submitter)["m", ("job:job",)] == list(range(29, -1, -1))


def test_empty_batch(submitter: Submitter) -> None:
    """Nothing to do is done, and told."""
    outcome = submitter.submit()
    assert outcome.files == (0, 0, 0)
    assert outcome.summary["Requests"] == 0


def test_redelivery_is_harmless(submitter: Submitter) -> None:
    """The same message again is the same points again, and the last write wins."""
    submitter.put("stats/job/a.json", stats(m=5))
    message = submitter.message("stats/job/a.json")
    submitter.submit(message)
    before = stored(submitter)
    outcome = submitter.submit(message, message)
    assert outcome.files == (2, 0, 0)
    assert outcome.summary["Collisions"] == 0
    assert stored(submitter) == before == {("m", ("job:job",)): [5.0]}


# --- Messages ---


@pytest.mark.parametrize("version", ["2.1", "2.6", "3.0"])
def test_every_record_of_every_version(submitter: Submitter, version: str) -> None:
    """A message may hold several records, and eventVersion grows."""
    files = {f"stats/job/{n}.json": stats(m=n, age=n) for n in range(3)}
    submitter.put_all(files)
    body = notification(files, submitter.bucket, version)
    assert submitter.submit(sqs_record(body=body)).files == (3, 0, 0)
    assert stored(submitter) == {("m", ("job:job",)): [2.0, 1.0, 0.0]}


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("stats/job/plain.json", id="plain"),
        pytest.param("stats/job/a b.json", id="space"),
        pytest.param("stats/job/a+b.json", id="plus"),
        pytest.param("stats/job/100%25.json", id="percent"),
        pytest.param("stats/job/ünï/日本.json", id="unicode"),
        pytest.param("stats/job/emoji-\U0001f4c8.json", id="beyond-the-bmp"),
        pytest.param("stats/job/a&b=c?d#e;f.json", id="reserved"),
        pytest.param("stats/job/'\"<>.json", id="quotes"),
        pytest.param("stats/job//double.json", id="double-slash"),
        pytest.param("stats/job/" + "k" * 1014, id="1024-bytes"),
        pytest.param("stats/job/line\nend\t\x1b[31m.json", id="control-characters"),
    ],
)
def test_key_is_decoded(submitter: Submitter, key: str) -> None:
    """S3 encodes keys in notifications; GetObject wants them plain."""
    # moto can't store all of these, so S3 is a script
    with submitter.reading_from(bucket_of({key: stats()})) as s3:
        outcome = submitter.submit(sqs_record([key]))
    assert s3.calls == [f"GET /{BUCKET}/{key}"]
    assert outcome.files == (1, 0, 0)


def test_slash_may_come_encoded(submitter: Submitter) -> None:
    """S3 leaves / as it is; other senders of the same notification encode it."""
    submitter.put("stats/job/a b.json", stats())
    record = s3_record("", submitter.bucket)
    record["s3"]["object"]["key"] = "stats%2Fjob%2Fa+b.json"
    outcome = submitter.submit(sqs_record(body=json.dumps({"Records": [record]})))
    assert outcome.files == (1, 0, 0)
    assert stored(submitter) == {("m", ("job:job",)): [1.0]}


def test_test_event_is_accepted_quietly(submitter: Submitter) -> None:
    """S3 sends one when a notification is set up."""
    body = json.dumps(
        {
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": "2026-01-01T00:00:00.000Z",
            "Bucket": "stats-bucket",
            "RequestId": "5582815E1AEA5ADF",
            "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
        }
    )
    outcome = submitter.submit(sqs_record(body=body))
    assert outcome.files == (0, 0, 0)
    assert (outcome.retried, outcome.rejected, outcome.log) == ([], [], [])


def test_folder_of_the_console_is_accepted_quietly(submitter: Submitter) -> None:
    """An empty object whose key ends in / is a folder, and no file."""
    submitter.put("stats/job/", b"")
    submitter.put("stats/job/a.json", stats())
    outcome = submitter.submit(submitter.message("stats/job/", "stats/job/a.json"))
    assert outcome.files == (1, 0, 0)
    assert (outcome.retried, outcome.rejected, outcome.log) == ([], [], [])


def test_empty_file_is_no_folder(submitter: Submitter) -> None:
    """Without the / it is a file with nothing in it; with content it is read like any."""
    outcome = submitter.submit_files({"stats/a.json": b"", "stats/b/": b"{}", "stats/c/": stats()})
    assert outcome.files == (1, 2, 0)


def with_object(**changes: object) -> str:
    """Return a notification whose one record's object is changed."""
    record = s3_record("stats/a.json")
    record["s3"]["object"] |= changes
    return json.dumps({"Records": [record]})


UNREADABLE = {
    "no-json": "hello",
    "white-space": " \r\n\thello \n",
    "half": '{"Records": [',
    "number": "42",
    "null": "null",
    "string": '"Records"',
    "list": "[]",
    "nan": "NaN",
    "huge-number": "1" * 5000,
    "deep": "[" * 100_000,
    "no-records": "{}",
    "other-event": '{"Event": "s3:Other"}',
    "records-null": '{"Records": null}',
    "records-empty": '{"Records": []}',
    "records-number": '{"Records": 5}',
    "records-string": '{"Records": "abc"}',
    "records-object": '{"Records": {"s3": {}}}',
    "record-null": '{"Records": [null]}',
    "record-empty": '{"Records": [{}]}',
    "s3-null": '{"Records": [{"s3": null}]}',
    "s3-list": '{"Records": [{"s3": []}]}',
    "bucket-string": '{"Records": [{"s3": {"bucket": "b", "object": {"key": "k"}}}]}',
    "name-number": '{"Records": [{"s3": {"bucket": {"name": 1}, "object": {"key": "k"}}}]}',
    "name-list": '{"Records": [{"s3": {"bucket": {"name": []}, "object": {"key": "k"}}}]}',
    "name-object": '{"Records": [{"s3": {"bucket": {"name": {}}, "object": {"key": "k"}}}]}',
    "name-null": '{"Records": [{"s3": {"bucket": {"name": null}, "object": {"key": "k"}}}]}',
    "name-empty": '{"Records": [{"s3": {"bucket": {"name": ""}, "object": {"key": "k"}}}]}',
    "name-impossible": '{"Records": [{"s3": {"bucket": {"name": "a/b"}, "object": {"key": "k"}}}]}',
    "name-surrogate": json.dumps({"Records": [s3_record("k", bucket="\ud800")]}),
    "key-number": with_object(key=5),
    "key-null": with_object(key=None),
    "key-list": with_object(key=["a"]),
    "key-empty": with_object(key=""),
    "key-surrogate": with_object(key="stats/\ud800.json"),
    "from-sns": json.dumps({"Type": "Notification", "Message": notification(["stats/a.json"])}),
    "from-eventbridge": json.dumps({"detail": {"bucket": {"name": "b"}, "object": {"key": "k"}}}),
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in UNREADABLE.items()])
def test_unreadable_message_is_refused(submitter: Submitter, body: str) -> None:
    """Its body is kept, and its neighbour goes through."""
    submitter.put("stats/job/a.json", stats())
    unreadable, good = sqs_record(body=body), submitter.message("stats/job/a.json")
    outcome = submitter.submit(unreadable, good)
    assert outcome.retried == []
    [rejected] = outcome.rejected
    assert rejected.body == body
    assert len(rejected.attributes["reason"]) > 20
    assert outcome.summary["Submitted"] == 1
    assert outcome.summary["Refused"] >= 1
    assert any(line.startswith("refused") for line in outcome.log)


@pytest.mark.parametrize(
    ("body", "kept"),
    [("", "(empty)"), ("a\0\ufffe\ud800", "a\ufffd\ufffd\ufffd"), ("\ud7ff\U0010ffff", None)],
    ids=["empty", "characters", "allowed"],
)
def test_body_that_sqs_would_not_take(submitter: Submitter, body: str, kept: str | None) -> None:
    """SQS gives no such body, but other senders of the same event might: it is kept as it can be.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    """
    outcome = submitter.submit(sqs_record(body=body))
    assert outcome.files == (0, 1, 0)
    assert [message.body for message in outcome.rejected] == [kept or body]


def test_unreadable_record_leaves_its_neighbours(submitter: Submitter) -> None:
    """What a message does name is submitted; the message is kept for what it doesn't."""
    submitter.put("stats/job/a.json", stats())
    body = json.dumps({"Records": [{}, s3_record("stats/job/a.json", submitter.bucket)]})
    outcome = submitter.submit(sqs_record(body=body))
    assert outcome.files == (1, 1, 0)
    assert [rejected.body for rejected in outcome.rejected] == [body]
    assert outcome.reasons[0].startswith("the message names no object")


def test_attributes_of_a_message_may_be_missing(submitter: Submitter) -> None:
    """Nothing but an id and a body is asked of a message."""
    submitter.put("stats/job/a.json", stats())
    message = submitter.message("stats/job/a.json")
    message = {"messageId": message["messageId"], "body": message["body"]}
    assert submitter.submit(message).files == (1, 0, 0)


# --- S3 ---


def reset_in_body(call: Call) -> Any:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    raise ConnectionResetError


def short_body(call: Call) -> Any:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + stats()
    raise ConnectionAbortedError


def error_breaks_off(call: Call) -> Any:
    yield b"HTTP/1.1 500 Error\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<Err"
    raise ConnectionAbortedError


def reset_at_once(call: Call) -> bytes:
    raise ConnectionResetError


def refuse(status: str, code: str, call: Call) -> bytes:
    return s3_error(status, code)


def no_http(call: Call) -> bytes:
    return b"220 smtp.example.com ready\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "named"),
    [
        pytest.param(partial(refuse, f"{status} Error", code), code, id=f"{status}-{code}")
        for status, code in [
            (403, "AccessDenied"),
            (403, "InvalidAccessKeyId"),
            (403, "RequestTimeTooSkewed"),
            (403, "InvalidObjectState"),
            (400, "ExpiredToken"),
            (404, "NoSuchBucket"),
            (301, "PermanentRedirect"),
            (409, "OperationAborted"),
            (503, "SlowDown"),
            (503, "ServiceUnavailable"),
            (500, "InternalError"),
        ]
    ]
    + [
        pytest.param(lambda call: response("403 Forbidden"), "403", id="403-empty"),
        pytest.param(lambda call: response("500 Error"), "500", id="500-empty"),
        pytest.param(lambda call: response("502 Bad Gateway", b"<html>"), "502", id="502-html"),
        pytest.param(
            lambda call: response("500 Error", b"<Error><Message>no</Message></Error>"),
            "500",
            id="500-without-a-code",
        ),
        pytest.param(partial(refuse, "500 Error", "x" * 1_000_000), "x" * 400, id="500-long-code"),
        pytest.param(error_breaks_off, "S3 can't be read", id="500-breaks-off"),
        pytest.param(reset_in_body, "", id="reset-in-the-body"),
        pytest.param(short_body, "", id="body-too-short"),
        pytest.param(reset_at_once, "", id="reset-at-once"),
        pytest.param(no_http, "", id="no-http"),
    ],
)
def test_trouble_of_s3_is_retried(submitter: Submitter, script: Script, named: str) -> None:
    """Not known to be the file's fault, so it stays in the queue; its neighbours go through."""
    objects: dict[str, bytes | Script] = {"stats/job/a.json": stats(m=1), "stats/job/b": script}
    with submitter.reading_from(bucket_of(objects)):
        outcome = submitter.submit(sqs_record(["stats/job/b"]), sqs_record(["stats/job/a.json"]))
    assert outcome.files == (1, 0, 1)
    assert outcome.retried == [0]
    [line] = outcome.log
    assert f"s3://{BUCKET}/stats/job/b" in line
    assert named in line
    assert "unexpected" not in line
    assert len(line) < 1_000


def test_gone_object_is_refused(submitter: Submitter) -> None:
    """404: nothing will bring it back."""
    submitter.put("stats/job/b.json", stats())
    gone, there = submitter.message("stats/job/a.json"), submitter.message("stats/job/b.json")
    outcome = submitter.submit(gone, there)
    assert outcome.files == (1, 1, 0)
    [rejected] = outcome.rejected
    assert rejected.body == gone["body"]
    assert "gone" in rejected.attributes.pop("reason")
    assert rejected.attributes == {"bucket": submitter.bucket, "key": "stats/job/a.json"}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(s3_error("404 Not Found", "NoSuchKey"), id="key"),
        pytest.param(s3_error("404 Not Found", "NoSuchVersion"), id="version"),
        pytest.param(response("404 Not Found"), id="empty"),
        pytest.param(
            response("404 Not Found", b"<html>Gone<br></html>", Content_Type="text/html"), id="html"
        ),
    ],
)
def test_404_of_an_object_in_any_words(submitter: Submitter, answer: bytes) -> None:
    """S3's name for it, or that of a gateway before it: no try again will find the object."""
    with submitter.reading_from(lambda call: answer) as s3:
        outcome = submitter.submit(sqs_record(["stats/a.json"]))
    assert outcome.files == (0, 1, 0)
    assert "gone" in outcome.reasons[0]
    assert len(s3.calls) == 1


def test_missing_bucket_is_retried(submitter: Submitter) -> None:
    """Somebody's mistake in the deployment isn't the file's."""
    outcome = submitter.submit(sqs_record(["stats/a.json"], bucket="no-such-bucket"))
    assert outcome.files == (0, 0, 1)
    assert "NoSuchBucket" in outcome.log[0]


def test_s3_out_of_reach_is_retried(submitter: Submitter) -> None:
    """Nobody listens at the port."""
    with ScriptedServer(bucket_of({})) as s3:
        pass
    submitter.set(AWS_ENDPOINT_URL_S3=s3.url)
    outcome = submitter.submit(sqs_record(["stats/a.json"]), sqs_record(["stats/b.json"]))
    assert outcome.files == (0, 0, 2)
    assert len(outcome.log) == 1


def test_throttling_that_ends_is_waited_out(submitter: Submitter) -> None:
    """S3 throttles while it scales: trying again within the invocation saves the file a round."""
    answers = iter([s3_error("503 Slow Down", "SlowDown"), response(body=stats())])
    with submitter.reading_from(lambda call: next(answers)):
        outcome = submitter.submit(sqs_record(["stats/a.json"]))
    assert outcome.files == (1, 0, 0)


def test_content_encoding_is_left_alone(submitter: Submitter) -> None:
    """An object's Content-Encoding says nothing about what was uploaded: its first bytes do."""
    submitter.put("stats/a.json", gzip.compress(stats(m=1)), ContentEncoding="gzip")
    submitter.put("stats/b.json", stats(n=1), ContentEncoding="gzip")
    submitter.put("stats/c.json", gzip.compress(stats(o=1)))
    submitter.put("stats/d.json", gzip.compress(b" " * 11_000_000), ContentEncoding="gzip")
    keys = [f"stats/{letter}.json" for letter in "abcd"]
    outcome = submitter.submit(*map(submitter.message, keys))
    assert outcome.files == (3, 1, 0)
    assert "decompressed" in outcome.reasons[0]
    assert stored(submitter) == {(name, ()): [1.0] for name in "mno"}


def test_never_more_than_the_limit_is_read(submitter: Submitter) -> None:
    """An object far over the limit is refused by its length, its bytes stay with S3."""
    sent = []

    def endless(call: Call) -> Any:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n"
        for _ in range(5000):
            sent.append(1)
            yield b" " * 1_000_000

    with submitter.reading_from(bucket_of({"stats/a.json": endless})):
        outcome = submitter.submit(sqs_record(["stats/a.json"]))
    assert outcome.files == (0, 1, 0)
    assert "Split" in outcome.reasons[0]
    assert len(sent) < 30  # sockets' buffers


def test_file_at_the_limit_is_read(submitter: Submitter) -> None:
    """The limit itself is allowed; a byte more isn't."""
    limit = 10 * 1024 * 1024
    content = stats()
    files = {
        "stats/a.json": content + b" " * (limit - len(content)),
        "stats/b.json": content + b" " * (limit + 1 - len(content)),
    }
    with submitter.reading_from(bucket_of(files)):
        outcome = submitter.submit(sqs_record(["stats/a.json"]), sqs_record(["stats/b.json"]))
    assert outcome.files == (1, 1, 0)
    assert outcome.rejected[0].attributes["key"] == "stats/b.json"


def chunked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield an answer of S3's that doesn't tell its length."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def until_closed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield one that ends with its connection."""
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    yield from pieces
    raise ConnectionAbortedError


@pytest.mark.parametrize("told", [chunked, until_closed])
def test_object_without_a_length_is_read(submitter: Submitter, told: Any) -> None:
    """S3 tells it, what stands between may not; up to the limit, as any other object."""
    whole = stats(m=1)
    half = len(whole) // 2
    limit = 10 * 1024 * 1024
    sent = []

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            sent.append(1)
            yield b" " * 1_000_000

    objects: dict[str, bytes | Script] = {
        "stats/short": lambda call: told([whole[:half], whole[half:]]),
        "stats/limit": lambda call: told([stats(n=1).ljust(limit // 2), b" " * (limit // 2)]),
        "stats/over": lambda call: told([stats().ljust(limit), b" "]),
        "stats/endless": lambda call: told(endless()),
    }
    with submitter.reading_from(bucket_of(objects)):
        outcome = submitter.submit(*(sqs_record([key]) for key in objects))
    assert outcome.files == (2, 2, 0)
    assert stored(submitter) == {("m", ()): [1.0], ("n", ()): [1.0]}
    assert {message.attributes["key"] for message in outcome.rejected} == {
        "stats/over",
        "stats/endless",
    }
    assert all("Split" in reason for reason in outcome.reasons)
    assert len(sent) < 50  # the limit, and sockets' buffers twice


def test_large_object_waits_for_its_turn_without_a_connection(submitter: Submitter) -> None:
    """S3 drops a connection that nobody reads from: so it is closed, and asked for again later."""
    asked: Counter[str] = Counter()

    def dropped_at_first(call: Call) -> Any:
        asked[call.path] += 1
        whole = response(body=stats(age=len(asked)).ljust(300_000))
        if asked[call.path] == 1:
            yield whole[:100_000]
            raise ConnectionAbortedError
        yield whole

    keys = [f"stats/{n:02}" for n in range(100)]
    with submitter.reading_from(dropped_at_first) as s3:
        outcome = submitter.submit(*(sqs_record([key]) for key in keys))
    assert outcome.files == (100, 0, 0)
    assert set(asked.values()) == {2}
    assert s3.most_connections <= submitter.module.FETCH_THREADS + 1


def test_object_that_drips_costs_its_neighbours_little(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for no longer than any object may take, though it comes first."""

    def drips(call: Call) -> Any:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        while not call.stopping.wait(0.02):
            yield b" "
        raise ConnectionAbortedError

    monkeypatch.setattr(submitter.module, "FETCH_SECONDS", 1.0)
    objects: dict[str, bytes | Script] = {"stats/00": drips}
    objects |= {f"stats/{n:02}": stats(age=n) for n in range(1, 100)}
    with submitter.reading_from(bucket_of(objects)):
        outcome = submitter.submit(*(sqs_record([key]) for key in objects), context=Context(20))
    assert outcome.files == (99, 0, 1)
    assert outcome.retried == [0]
    assert outcome.log == [f"retried 1: S3 did not send the object in time: s3://{BUCKET}/stats/00"]
    assert outcome.summary["FetchMilliseconds"] < 6000


# --- Tags ---


@pytest.mark.parametrize(
    ("key", "tags"),
    [
        pytest.param("stats/nightly/a.json", ("job:nightly",), id="job"),
        pytest.param("stats/nightly/2026/01/a.json", ("job:nightly",), id="deep"),
        pytest.param("stats/My Job/a.json", ("job:my_job",), id="normalised"),
        pytest.param("stats/a.json", (), id="no-job"),
        pytest.param("elsewhere/nightly/a.json", (), id="other-prefix"),
    ],
)
def test_job_becomes_a_tag(submitter: Submitter, key: str, tags: tuple[str, ...]) -> None:
    """The first folder below the prefix is the job; a file directly below has none."""
    submitter.submit_files({key: stats()})
    assert stored(submitter) == {("m", tags): [1.0]}


# --- Refusals ---


def test_malformed_file_is_refused_whole(submitter: Submitter) -> None:
    """Nothing of it is sent; its message is kept with the reason, its neighbours go through."""
    bad = b'[{"timestamp": %d, "m": 1}, {"timestamp": 1}]' % time.time()
    files = {"stats/a.json": stats(n=1), "stats/b.json": bad, "stats/c.json": stats(o=1)}
    outcome = submitter.submit_files(files)
    assert outcome.files == (2, 1, 0)
    assert stored(submitter) == {("n", ()): [1.0], ("o", ()): [1.0]}
    [rejected] = outcome.rejected
    assert json.loads(rejected.body)["Records"][0]["s3"]["object"]["key"] == "stats/b.json"
    assert rejected.attributes["bucket"] == submitter.bucket
    assert rejected.attributes["key"] == "stats/b.json"
    reason = rejected.attributes["reason"]
    assert "object 2" in reason
    assert outcome.log == [f"refused s3://{submitter.bucket}/stats/b.json: {reason}"]


def test_too_old_file_is_refused(submitter: Submitter) -> None:
    """Datadog would drop it behind a 202."""
    now = time.time()
    outcome = submitter.submit_files(
        {"stats/old": stats(3700, now=now), "stats/new": stats(-700, now=now)}
    )
    assert outcome.files == (0, 2, 0)
    assert submitter.datadog.requests == []
    old, new = sorted(outcome.reasons)  # by their timestamps
    assert "s ahead" in new
    assert "s old" in old


@pytest.mark.parametrize("neighbours", [0, 1])
def test_file_that_ages_while_it_waits_is_refused(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch, neighbours: int
) -> None:
    """Good when read, too old when its turn to be posted came: it mustn't vanish behind a 202."""
    old = stats(3590, now=time.time()) + b"\n" + stats(later=1)  # of which one sample is fresh
    files = {"stats/old": old, "stats/new": stats(n=1)}
    submitter.put_all(files)
    clock, ahead = time.time, 0.0

    def unavailable_at_first(request: Any) -> Answer | None:
        nonlocal ahead
        first, ahead = not ahead, 60.0  # as if the pauses before the next one took so long
        return Answer(503) if first else None

    monkeypatch.setattr("time.time", lambda: clock() + ahead)
    submitter.datadog.clock = time.time
    submitter.datadog.respond = unavailable_at_first
    outcome = submitter.submit(*map(submitter.message, [*files][: 1 + neighbours]))
    assert submitter.datadog.dropped == []
    assert outcome.files == (neighbours, 1, 0)
    assert stored(submitter) == ({("n", ()): [1.0]} if neighbours else {})


def test_attributes_are_fit_for_sqs(submitter: Submitter) -> None:
    """A refusal that can never be sent would be a poison message of our own making."""
    hostile = "stats/\x00\x1b[2J\r\n\u2028'\"\ufffe\U0001f4a9" + "é" * 400
    body = notification([hostile])
    with submitter.reading_from(bucket_of({hostile: b"nonsense"})):
        outcome = submitter.submit(sqs_record(body=body))
    assert outcome.files == (0, 1, 0)
    [rejected] = outcome.rejected
    assert rejected.body == body
    assert rejected.attributes["bucket"] == BUCKET
    key = rejected.attributes["key"]
    assert "'\"" in key
    assert key.endswith("\U0001f4a9" + "é" * 400)
    for text in (*rejected.attributes.values(), *outcome.log):
        assert not set(text) & set("\x00\x1b\r\n\u2028\ufffe")
    [line] = outcome.log
    assert len(line.splitlines()) == 1


def test_reason_is_cut_to_a_kilobyte_on_a_character(submitter: Submitter) -> None:
    """It stays UTF-8, and one line."""
    keys = [f"stats/{'é' * 300}-{n}" for n in range(8)]
    body = notification(keys)
    with submitter.reading_from(bucket_of(dict.fromkeys(keys, MALFORMED))):
        outcome = submitter.submit(sqs_record(body=body))
    [reason] = outcome.reasons
    assert 900 < len(reason.encode()) <= 1024
    assert "\ufffd" not in reason


@pytest.mark.parametrize(
    ("files", "rest"),
    [
        pytest.param(12, "k" * 31, id="a-dozen"),
        pytest.param(5, "é" * 60, id="letters-of-two-bytes"),
    ],
)
def test_reason_names_each_of_several_files(submitter: Submitter, files: int, rest: str) -> None:
    """Their keys go before the reasons where there is no room for both."""
    keys = [f"stats/nightly/2026/01/01/{n:02}-{rest}" for n in range(files)]
    with submitter.reading_from(bucket_of(dict.fromkeys(keys, MALFORMED))):
        outcome = submitter.submit(sqs_record(keys))
    assert outcome.files == (0, files, 0)
    [reason] = outcome.reasons
    assert [key for key in keys if key not in reason] == []
    assert "not JSON" in reason
    assert len(reason.encode()) <= 1024


@pytest.mark.parametrize("name", ["{}", "{}-" + "é" * 100])
def test_reason_of_hundreds_of_files(submitter: Submitter, name: str) -> None:
    """Their number, and as many keys as there is room for."""
    keys = ["stats/" + name.format(n) for n in range(400)]
    records = [{"s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}} for key in keys]
    body = json.dumps({"Records": records}, ensure_ascii=False)
    with submitter.reading_from(bucket_of({})):
        outcome = submitter.submit(sqs_record(body=body))
    assert outcome.files == (0, 400, 0)
    [reason] = outcome.reasons
    assert reason.startswith(f"400 files: {keys[0]}, {keys[1]}")
    assert 900 < len(reason.encode()) <= 1024


@pytest.mark.parametrize("room", [3000, 1])
def test_message_stays_under_256_kib(submitter: Submitter, room: int) -> None:
    """Where the body leaves no room it goes without attributes, and the log has the reason."""
    submitter.put("stats/a.json", stats())
    body = notification(["stats/gone.json"], submitter.bucket)
    body = body[:-1] + " " * (262_144 - room - len(body)) + "}"
    outcome = submitter.submit(sqs_record(body=body))
    assert outcome.files == (0, 1, 0)
    [rejected] = outcome.rejected
    assert rejected.body == body
    if room == 3000:
        assert rejected.attributes["key"] == "stats/gone.json"
        assert len(outcome.log) == 1
    else:
        assert rejected.attributes == {}
        assert len(outcome.log) == 2
        assert any("gone" in line for line in outcome.log)


def test_refusal_that_cannot_be_kept_is_retried(submitter: Submitter) -> None:
    """Until the rejected queue is there again, the message stays where it is."""
    files = {"stats/a.json": MALFORMED, "stats/b.json": stats()}
    submitter.put_all(files)
    messages = [*map(submitter.message, files), submitter.message(*files)]
    submitter.set(REJECTED_QUEUE_URL=f"{submitter.moto}/123456789012/no-such-queue")
    outcome = submitter.submit(*messages)
    assert outcome.files == (2, 0, 2)
    assert outcome.retried == [0, 2]
    [line] = outcome.log
    assert "rejected queue" in line
    submitter.set(REJECTED_QUEUE_URL=submitter.rejected_url)
    outcome = submitter.submit(messages[0], messages[2])
    assert outcome.files == (1, 2, 0)
    assert len(outcome.rejected) == 2


def test_rejected_queue_out_of_reach(submitter: Submitter) -> None:
    """Nobody listens: retried, not an exception that fails the whole batch."""
    with ScriptedServer(bucket_of({})) as sqs:
        pass
    submitter.set(AWS_ENDPOINT_URL_SQS=sqs.url, REJECTED_QUEUE_URL=f"{sqs.url}/1/rejected")
    outcome = submitter.submit_files({"stats/a.json": MALFORMED, "stats/b.json": stats()})
    assert outcome.files == (1, 0, 1)
    assert outcome.retried == [0]


@pytest.mark.parametrize("answer", [b"", b"{}", b"<html>Sign in</html>", b'{"MessageId": ""}'])
def test_rejected_queue_that_takes_nothing_with_a_200(submitter: Submitter, answer: bytes) -> None:
    """Something between says that all is well: a message that SQS has, has an id."""
    with ScriptedServer(lambda call: response(body=answer)) as sqs:
        submitter.set(AWS_ENDPOINT_URL_SQS=sqs.url, REJECTED_QUEUE_URL=f"{sqs.url}/1/rejected")
        outcome = submitter.submit_files({"stats/a.json": MALFORMED, "stats/b.json": stats()})
    assert outcome.files == (1, 0, 1)
    assert outcome.retried == [0]
    assert "rejected queue" in outcome.log[0]


def test_rejected_queue_that_hangs(submitter: Submitter) -> None:
    """The batch is answered in time: what was submitted is, and the refused is retried."""

    def silent(call: Call) -> bytes:
        call.stopping.wait()
        raise ConnectionAbortedError

    context = Context(4)
    with ScriptedServer(silent) as sqs:
        submitter.set(AWS_ENDPOINT_URL_SQS=sqs.url, REJECTED_QUEUE_URL=f"{sqs.url}/1/rejected")
        files = {"stats/a.json": MALFORMED, "stats/b.json": stats()}
        submitter.put_all(files)
        outcome = submitter.submit(*map(submitter.message, files), context=context)
        assert context.get_remaining_time_in_millis() > 0
    assert outcome.files == (1, 0, 1)
    assert outcome.retried == [0]


def test_message_ends_as_the_worst_of_its_files(submitter: Submitter) -> None:
    """Retried over refused over submitted; its reason names each refused file."""
    bad = {"stats/bad.json": MALFORMED, "stats/worse.json": b""}
    objects: dict[str, bytes | Script] = {
        **bad,
        "stats/good.json": stats(),
        "stats/denied.json": lambda call: s3_error("403 Forbidden", "AccessDenied"),
    }
    with submitter.reading_from(bucket_of(objects)):
        outcome = submitter.submit(
            sqs_record(["stats/good.json", "stats/bad.json", "stats/worse.json"]),
            sqs_record(["stats/good.json", "stats/bad.json", "stats/denied.json"]),
            sqs_record(["stats/good.json"]),
        )
    assert outcome.files == (3, 3, 1)
    assert outcome.retried == [1]
    [reason] = outcome.reasons
    assert "stats/bad.json" in reason
    assert "stats/worse.json" in reason
    assert "stats/good.json" not in reason
    [rejected] = outcome.rejected
    assert rejected.attributes["key"] == "stats/bad.json"  # not the message's first


def test_books_of_a_batch_of_everything_balance(submitter: Submitter) -> None:
    """Every file is submitted, refused or waiting, and none of it twice or in silence."""
    good = {f"stats/good/{n:02}": stats(age=n, m=n, **{f"m{n}": n}) for n in range(30)}
    bad = {f"stats/bad/{n}": content for n, content in enumerate([b"", MALFORMED, stats(9999)])}
    poison = {"stats/poison/0": stats(poison=1), "stats/poison/1": stats(age=1, poison=1)}
    denied = partial(refuse, "403 Forbidden", "AccessDenied")
    trouble: dict[str, bytes | Script] = {"stats/no/0": denied, "stats/no/1": reset_in_body}
    keys = [*good, *bad, *poison, *trouble]

    def respond(request: Any) -> Answer | None:
        series = request.series or []
        if sum(len(each["points"]) for each in series) > 20:
            return Answer(413)
        return Answer(400) if any(each["metric"] == "poison" for each in series) else None

    submitter.datadog.respond = respond
    messages = [
        *(sqs_record([key]) for key in keys),
        sqs_record(["stats/good/00", "stats/good/01"]),  # notified twice
        sqs_record(["stats/gone"]),
        sqs_record(body='{"Service": "Amazon S3", "Event": "s3:TestEvent"}'),
        sqs_record(body="nonsense"),
    ]
    random.Random(1).shuffle(messages)
    with submitter.reading_from(bucket_of({**good, **bad, **poison, **trouble})):
        outcome = submitter.submit(*messages)

    def files(body: str) -> set[str]:
        return {
            f"s3://{BUCKET}/{record['s3']['object']['key']}"
            for record in json.loads(body)["Records"]
        }

    def points(content: bytes) -> list[Point]:
        values = json.loads(content)
        second = values.pop("timestamp")
        return [Point(name, ("job:good",), second, value) for name, value in values.items()]

    unreadable = [message for message in outcome.rejected if not message.attributes.get("key")]
    assert [message.body for message in unreadable] == ["nonsense"]
    written = {f"s3://{BUCKET}/{key}": points(content) for key, content in good.items()}
    written |= {f"s3://{BUCKET}/{key}": [] for key in [*bad, *poison, *trouble, "stats/gone"]}
    ledger = balance(
        written,
        submitter.datadog.points,
        {
            file: message.attributes["reason"]
            for message in outcome.rejected
            if message not in unreadable
            for file in files(message.body)
        },
        [file for n in outcome.retried for file in files(messages[n]["body"])],
    )
    waiting = {f"s3://{BUCKET}/{key}" for key in trouble}
    assert set(ledger.waiting) == waiting
    assert ledger.faults == [f"{file} still waits in the queue." for file in sorted(waiting)]
    assert len(ledger.refused) == 3 + 2 + 1
    assert outcome.files == (32, 7, 2)


# --- What it says ---


def test_summary_counts_collisions(submitter: Submitter) -> None:
    """Two producers, the same second and tags: Datadog keeps the last alone, so it is counted."""
    now = int(time.time())

    def file(**values: object) -> bytes:
        return json.dumps({"timestamp": now, **values}).encode()

    submitter.put_all(
        {
            "stats/job/a.json": file(m=1, n=1),
            "stats/job/b.json": file(m=2),
            "stats/job/c.json": file(m=3, tags=["its:own"]),
            "stats/other/d.json": file(m=4),
            "stats/job/e.json": file(M=5),
        }
    )
    keys = ["job/a.json", "job/b.json", "job/c.json", "other/d.json", "job/e.json", "job/a.json"]
    outcome = submitter.submit(*(submitter.message(f"stats/{key}") for key in keys))
    assert outcome.files == (6, 0, 0)
    assert outcome.summary["Collisions"] == 1


@pytest.mark.parametrize(
    ("remembered", "collisions"), [(100_000, 6), (10, 6), (9, 0)], ids=["all", "just", "bounded"]
)
def test_collisions_across_payloads(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch, remembered: int, collisions: int
) -> None:
    """However a batch is cut; but no more points are remembered than the memory is for."""
    import ddg_series_api

    monkeypatch.setattr(ddg_series_api, "MAX_PAYLOAD_POINTS", 4)
    monkeypatch.setattr(submitter.module, "MAX_COLLISION_POINTS", remembered)
    values = {f"m{n}": n for n in range(6)}
    # Payloads: m0-m3 of a; m4 and m5 of a; m0-m3 of b, when 6 are remembered; m4 and m5 of b
    outcome = submitter.submit_files({"stats/a": stats(**values), "stats/b": stats(**values)})
    assert outcome.files == (2, 0, 0)
    assert outcome.summary["Requests"] == 4
    assert outcome.summary["Collisions"] == collisions


def test_retries_with_one_reason_share_one_line(submitter: Submitter) -> None:
    """An hour's outage mustn't cost more in logs than in everything else."""
    submitter.datadog.respond = lambda request: Answer(503)
    files = {f"stats/{n:02}.json": stats(age=n) for n in range(25)}
    outcome = submitter.submit_files(files)
    assert outcome.files == (0, 0, 25)
    [line] = outcome.log
    assert "25" in line
    assert "503" in line
    assert [key in line for key in files] == [True] * 20 + [False] * 5


def test_each_retried_file_has_its_own_reason(submitter: Submitter) -> None:
    """What stopped the batch in the end isn't what is wrong with a file that S3 didn't give."""
    submitter.datadog.respond = lambda request: Answer(503)
    denied = partial(refuse, "403 Forbidden", "AccessDenied")
    with submitter.reading_from(bucket_of({"stats/a": denied, "stats/b": stats()})):
        outcome = submitter.submit(sqs_record(["stats/a"]), sqs_record(["stats/b"]))
    assert outcome.files == (0, 0, 2)
    ours, datadogs = sorted(outcome.log, key=lambda line: "503" in line)
    assert ("AccessDenied" in ours, "stats/a" in ours) == (True, True)
    assert ("503" in datadogs, "stats/b" in datadogs) == (True, True)


def test_each_refusal_has_one_line(submitter: Submitter) -> None:
    """With bucket, key and reason."""
    files = {"stats/a.json": b"", "stats/b.json": b"{}", "stats/c.json": b"[]"}
    outcome = submitter.submit_files(files)
    assert len(outcome.log) == 3
    reasons = {
        message.attributes["key"]: message.attributes["reason"] for message in outcome.rejected
    }
    for key, line in zip(files, outcome.log, strict=True):
        assert f"{submitter.bucket}/{key}" in line
        assert reasons[key] in line


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_outcomes_are_printed_whatever_the_log_level(submitter: Submitter, level: str) -> None:
    """A level must not hide what becomes of a file; and none lets a key out."""
    submitter.set(LOG_LEVEL=level, DATADOG_APP_KEY="secret-app-key")
    submitter.keys.append("secret-app-key")
    outcome = submitter.submit_files({"stats/a.json": stats(), "stats/b.json": MALFORMED})
    assert outcome.files == (1, 1, 0)
    assert any(line.startswith("refused") for line in outcome.log)


# Unicode's Bidi_Control: "a.json" may be read as something else where one of them stands before it
BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_hostile_names_break_no_line(submitter: Submitter) -> None:
    """Neither the summary nor a log line, and nothing steers a terminal."""
    keys = ['stats/\n{"_aws": {}}', "stats/\x1b[31m", "stats/\u0085\u2028x", "stats/\x9b1m"]
    keys.append(f"stats/{BIDIRECTIONAL}nosj.a")
    with submitter.reading_from(lambda call: s3_error("403 Forbidden", "AccessDenied")):
        outcome = submitter.submit(sqs_record(keys))
    assert outcome.files == (0, 0, 5)
    [line] = outcome.log
    assert line.isprintable() or "\ufffd" in line
    assert len(line.splitlines()) == 1
    assert not set(line) & set("\x1b\x9b\x85\u2028" + BIDIRECTIONAL)


@pytest.mark.parametrize(
    ("hostile", "messages", "files"),
    [
        pytest.param({"bucket": "x" * 300_000}, 1, (0, 1, 0), id="bucket"),
        pytest.param({"key": "x" * 20_000}, 25, (0, 0, 25), id="keys"),
        pytest.param({"key": "\U0001f4a9" * 5_000}, 25, (0, 0, 25), id="keys-of-four-bytes"),
    ],
)
def test_hostile_lengths_fit_a_log_line(
    submitter: Submitter, hostile: dict[str, str], messages: int, files: tuple[int, int, int]
) -> None:
    """CloudWatch takes 256 KB of a line; a bucket's name has 63 bytes, a key 1,024."""
    names = {"bucket": BUCKET, "key": "stats/a"} | hostile
    s3 = {"bucket": {"name": names["bucket"]}, "object": {"key": names["key"]}}
    body = json.dumps({"Records": [{"s3": s3}]}, ensure_ascii=False)
    with submitter.reading_from(lambda call: s3_error("400 Bad Request", "KeyTooLongError")):
        outcome = submitter.submit(*(sqs_record(body=body) for _ in range(messages)))
    assert outcome.files == files
    [line] = [line for line in outcome.log if line.startswith(("refused", "retried"))]
    assert [name[:1000] in line for name in hostile.values()] == [True]
    assert max(len(line.encode()) for line in outcome.log) < 262_144


def test_unexpected_error_is_retried_and_logged(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours in one file is that file's trouble alone, and its traceback is there."""
    import ddg_stats_file

    read = ddg_stats_file.read_stats_file

    def broken(content: bytes, **options: Any) -> Any:
        if b"poison" in content:
            raise ZeroDivisionError
        return read(content, **options)

    monkeypatch.setattr(ddg_stats_file, "read_stats_file", broken)
    outcome = submitter.submit_files({"stats/a.json": stats(), "stats/b.json": stats(poison=1)})
    assert outcome.files == (1, 0, 1)
    assert outcome.retried == [1]
    assert any(line.startswith("ERROR") for line in outcome.log)
    assert any("ZeroDivisionError" in line for line in outcome.log)


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_nothing_else_is_logged(
    submitter: Submitter, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    """Not by boto3, urllib3 or the datadog package either; and so no key, however much is asked."""
    caplog.set_level(level)
    submitter.set(DATADOG_APP_KEY="secret-app-key")
    submitter.keys.append("secret-app-key")
    outcome = submitter.submit_files({f"stats/{n}.json": stats(age=n) for n in range(40)})
    assert outcome.files == (40, 0, 0)
    assert outcome.log == []
