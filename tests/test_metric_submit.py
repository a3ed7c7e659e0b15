"""The submitter: what a batch names, what becomes of it, and what is said of it."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from local.datadog_server import Answer, Request
from tests.events import BUCKET, notification, s3_record, sqs_record, stats
from tests.scripted_server import Call, Objects, Script, bucket_of, response, s3_error
from tests.submitter import COUNTS, Submitter

MALFORMED = b'{"timestamp": '
DENIED: Script = lambda call: s3_error("403 Forbidden", "AccessDenied")  # noqa: E731  # a row


# --- The main job ---


def test_file_of_the_readme(submitter: Submitter) -> None:
    """The sample file, its timestamp of today: two gauges with the job's tag, and no host."""
    now = int(time.time())
    content = json.dumps({"timestamp": now, "sample.stats": 1231, "processed.data": 321}).encode()
    outcome = submitter.submit_from({"stats/nightly/2026/a.json": content})
    assert outcome.files == (1, 0, 0)
    assert (outcome.retried, outcome.rejected, outcome.log) == ([], [], [])
    [request] = submitter.datadog.requests
    assert request.series == [
        {"metric": name, "type": "gauge", "points": [[now, value]], "tags": ["job:nightly"]}
        for name, value in (("sample.stats", 1231), ("processed.data", 321))
    ]
    assert request.path == "/api/v1/series"
    assert request.headers["dd-api-key"] == "test-key"
    assert request.headers["content-encoding"] == "deflate"
    assert not request.headers.keys() & {"dd-application-key", "authorization"}
    assert [outcome.summary[name] for name in COUNTS] == [1, 0, 0, 0, 2, 1]
    assert outcome.summary["WireBytes"] == request.wire_bytes


def test_batch_takes_one_post(submitter: Submitter) -> None:
    """However many messages and records: one POST while it fits."""
    files = {f"stats/job/{n}.json": stats(age=n, m=n, n=n) for n in range(30)}
    keys = list(files)
    messages = [sqs_record(keys[n : n + 3]) for n in range(0, 30, 3)]
    outcome = submitter.submit_from(files, *messages)
    assert outcome.files == (30, 0, 0)
    assert outcome.summary["Points"] == 60
    assert len(submitter.datadog.requests) == outcome.summary["Requests"] == 1
    assert submitter.stored()["m", ("job:job",)] == list(range(29, -1, -1))


def test_redelivery_is_harmless(submitter: Submitter) -> None:
    """The same message again is the same points again, and the last write wins."""
    files = {"stats/job/a.json": stats(m=5)}
    submitter.submit_from(files)
    assert submitter.submit_from(files, *[sqs_record(files)] * 2).files == (2, 0, 0)
    assert submitter.stored() == {("m", ("job:job",)): [5.0]}


def test_job_becomes_a_tag(submitter: Submitter) -> None:
    """The first folder below the prefix is the job; a file directly below has none."""
    keys = ["nightly/a", "nightly/2026/01/a", "My Job/a", "a"]
    files = {f"stats/{key}": stats(age=n) for n, key in enumerate(keys)}
    submitter.submit_from({**files, "elsewhere/nightly/a": stats(age=4)})
    series = {("job:nightly",): [1.0] * 2, ("job:my_job",): [1.0], (): [1.0]}
    assert submitter.stored() == {("m", tags): values for tags, values in series.items()}


# --- Messages ---


@pytest.mark.parametrize("version", ["2.1", "2.6", "3.0"])
def test_every_record_of_every_version(submitter: Submitter, version: str) -> None:
    """A message may hold several records, and eventVersion grows."""
    files = {f"stats/job/{n}.json": stats(m=n, age=n) for n in range(3)}
    outcome = submitter.submit_from(files, sqs_record(body=notification(files, version=version)))
    assert outcome.files == (3, 0, 0)
    assert submitter.stored() == {("m", ("job:job",)): [2.0, 1.0, 0.0]}


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
    with submitter.reading_from(bucket_of({key: stats()})) as s3:
        assert submitter.submit(sqs_record([key])).files == (1, 0, 0)
    assert s3.calls == [f"GET /{BUCKET}/{key}"]


def with_object(**changes: object) -> str:
    """Return a notification whose one record's object is changed."""
    record = s3_record("stats/a.json")
    record["s3"]["object"] |= changes
    return json.dumps({"Records": [record]})


def test_slash_may_come_encoded(submitter: Submitter) -> None:
    """S3 leaves / as it is; other senders of the same notification encode it."""
    message = sqs_record(body=with_object(key="stats%2Fjob%2Fa+b.json"))
    assert submitter.submit_from({"stats/job/a b.json": stats()}, message).files == (1, 0, 0)


def with_s3(part: str) -> str:
    """Return a notification whose one record has this in place of what S3 writes of the object."""
    return f'{{"Records": [{{"s3": {part}}}]}}'


UNREADABLE = {
    "empty": "",
    "no-json": "hello",
    "null": "null",
    "string": '"Records"',
    "list": "[]",
    "huge-number": "1" * 5000,
    "deep": "[" * 100_000,
    "no-records": "{}",
    "other-event": '{"Event": "s3:Other"}',
    "records-null": '{"Records": null}',
    "records-empty": '{"Records": []}',
    "records-object": '{"Records": {"s3": {}}}',
    "record-null": '{"Records": [null]}',
    "s3-null": with_s3("null"),
    "bucket-string": with_s3('{"bucket": "b", "object": {"key": "k"}}'),
    "name-number": with_s3('{"bucket": {"name": 1}, "object": {"key": "stats/k"}}'),
    "name-null": with_s3('{"bucket": {"name": null}, "object": {"key": "stats/k"}}'),
    "name-empty": with_s3('{"bucket": {"name": ""}, "object": {"key": "k"}}'),
    "name-impossible": with_s3('{"bucket": {"name": "a/b"}, "object": {"key": "stats/k"}}'),
    "name-surrogate": json.dumps({"Records": [s3_record("stats/k", bucket="\ud800")]}),
    "key-number": with_object(key=5),
    "key-empty": with_object(key=""),
    "key-surrogate": with_object(key="stats/\ud800.json"),
    "from-nowhere": json.dumps({"detail": {"bucket": {"name": "b"}, "object": {"key": "k"}}}),
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in UNREADABLE.items()])
def test_unreadable_message_is_refused(submitter: Submitter, body: str) -> None:
    """Its body is kept, and its neighbour goes through."""
    files = {"stats/job/a.json": stats()}
    outcome = submitter.submit_from(files, sqs_record(body=body), sqs_record(files))
    assert outcome.files == (1, 1, 0)
    assert outcome.retried == []
    [rejected] = outcome.rejected
    assert rejected.body == (body or "(empty)")
    assert len(rejected.attributes["reason"]) > 20


def test_unreadable_record_leaves_its_neighbours(submitter: Submitter) -> None:
    """What a message does name is submitted; the message is kept for what it doesn't."""
    body = json.dumps({"Records": [{}, s3_record("stats/job/a.json")]})
    outcome = submitter.submit_from({"stats/job/a.json": stats()}, sqs_record(body=body))
    assert outcome.files == (1, 1, 0)
    [rejected] = outcome.rejected
    assert rejected.body == body
    assert rejected.attributes.keys() == {"reason"}
    assert rejected.attributes["reason"].startswith("the message names no object")


def test_attributes_of_a_message_may_be_missing(submitter: Submitter) -> None:
    """Nothing but an id and a body is asked of a message."""
    files = {"stats/job/a.json": stats()}
    message = {name: sqs_record(files)[name] for name in ("messageId", "body")}
    assert submitter.submit_from(files, message).files == (1, 0, 0)


# --- The books ---


def test_message_ends_as_the_worst_of_its_files(submitter: Submitter) -> None:
    """Retried over refused over submitted. A file is refused when its message is, not before."""
    good, bad, worse, denied = (f"stats/{name}" for name in ("good", "bad", "worse", "denied"))
    objects: Objects = {good: stats(), bad: MALFORMED, worse: b"{}", denied: DENIED}
    settled = submitter.message(good, bad, worse)
    waiting = submitter.message(good, bad, denied)
    outcome = submitter.submit_from(objects, settled, waiting, submitter.message(good))
    assert outcome.files == (3, 2, 2)
    assert outcome.retried == [1]
    [rejected] = outcome.rejected
    assert rejected.body == settled["body"]
    assert rejected.attributes["reason"].startswith("stats/bad: not JSON: ")
    assert "; stats/worse: no " in rejected.attributes["reason"]
    assert rejected.attributes["key"] == bad  # not the message's first
    [line] = [line for line in outcome.log if "refused once" in line]
    assert line.startswith("retried 1: refused once its message is settled: not JSON: ")
    assert line.endswith(f": s3://{BUCKET}/{bad}")


def test_refusal_is_settled_with_its_message(submitter: Submitter) -> None:
    """When the denied neighbour is there in the end, the bad file is refused and kept."""
    message = submitter.message("stats/bad", "stats/denied")
    objects: Objects = {"stats/bad": MALFORMED, "stats/denied": DENIED}
    assert submitter.submit_from(objects, message).files == (0, 0, 2)
    outcome = submitter.submit_from({**objects, "stats/denied": stats()}, message)
    assert outcome.files == (1, 1, 0)
    assert [rejected.body for rejected in outcome.rejected] == [message["body"]]


def test_books_of_a_batch_of_everything_balance(submitter: Submitter) -> None:
    """Every file is submitted, refused or waiting, and none of it twice or in silence."""
    good = {f"stats/good/{n:02}": stats(age=n, m=n, **{f"m{n}": n}) for n in range(30)}
    bad = {f"stats/bad/{n}": content for n, content in enumerate([b"", MALFORMED, stats(9999)])}
    poison = {f"stats/poison/{n}": stats(age=n, poison=1) for n in range(2)}
    trouble: Objects = {"stats/no/0": DENIED, "stats/no/1": lambda call: b""}
    markers = {"stats/good/_SUCCESS": b"{}", "stats/good/": b""}

    def respond(request: Request) -> Answer | None:
        series = request.series or []
        if sum(len(each["points"]) for each in series) > 20:
            return Answer(413)
        poisonous = any(each["metric"] == "poison" for each in series)
        return Answer(400, b'{"errors": ["poison"]}') if poisonous else None

    submitter.datadog.respond = respond
    messages = [
        *(sqs_record([key], receive_count=2) for key in [*good, *bad, *poison, *trouble, *markers]),
        sqs_record(["stats/good/00", "stats/good/01"]),  # notified twice
        sqs_record(["stats/gone"]),
        sqs_record(["stats/poison/0", "stats/bad/0"]),  # delivered for the first time
        sqs_record(body='{"Service": "Amazon S3", "Event": "s3:TestEvent"}'),
        sqs_record(body="nonsense"),
    ]
    random.Random(1).shuffle(messages)
    outcome = submitter.submit_from({**good, **bad, **poison, **trouble, **markers}, *messages)
    assert outcome.files == (30 + 2, 3 + 2 + 2, 2 + 2)
    assert outcome.summary["Points"] == 2 * 32
    expected = {("m", ("job:good",)): [*range(29, -1, -1)]}
    assert submitter.stored() == expected | {(f"m{n}", ("job:good",)): [n] for n in range(30)}

    def keys(bodies: list[str]) -> list[str]:
        names = [json.loads(body)["Records"] for body in bodies if body != "nonsense"]
        return sorted(each["s3"]["object"]["key"] for records in names for each in records)

    rejected = [message.body for message in outcome.rejected]
    assert rejected.count("nonsense") == 1
    assert keys(rejected) == sorted([*bad, *poison, "stats/gone"])
    waiting = keys([messages[n]["body"] for n in outcome.retried])
    assert waiting == sorted([*trouble, "stats/poison/0", "stats/bad/0"])


# --- What it says ---


@pytest.mark.parametrize("files", [19, 20, 21])
def test_retries_with_one_reason_share_one_line(submitter: Submitter, files: int) -> None:
    """Of twenty names: an hour's outage mustn't cost more in logs than in everything else."""
    submitter.datadog.respond = lambda request: Answer(503)
    keys = [f"stats/{n:02}.json" for n in range(files)]
    outcome = submitter.submit_from({key: stats() for key in keys})
    [line] = outcome.log
    assert line.startswith(f"retried {files}: Datadog answered 503. ")
    assert [key in line for key in keys] == [n < 20 for n in range(files)]
    assert line.endswith(", ...") == (files > 20)


@pytest.mark.parametrize("level", ["DEBUG", "Info", "WARNING", "error", "CRITICAL"])
def test_outcomes_are_printed_whatever_the_log_level(
    submitter: Submitter, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    """And but for a line a POST at DEBUG, nothing else is, by no library; so no key gets out."""
    caplog.set_level(logging.DEBUG)
    submitter.set(LOG_LEVEL=level, DATADOG_APP_KEY="secret-app-key")
    submitter.keys.append("secret-app-key")
    files = {f"stats/{n}.json": stats(age=n) for n in range(40)}
    outcome = submitter.submit_from(files | {"stats/bad.json": MALFORMED})
    assert outcome.files == (40, 1, 0)
    told = [line for line in outcome.log if not line.startswith("DEBUG POST of ")]
    assert [line.split()[0] for line in told] == ["refused"]


# Unicode's Bidi_Control: "a.json" may be read as something else where one of them stands before it
BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_hostile_names_break_no_line(submitter: Submitter) -> None:
    """Neither the summary nor a log line, and nothing steers a terminal."""
    keys = ['stats/\n{"_aws": {}}', "stats/\x1b[31m", "stats/\u0085\u2028x", "stats/\x9b1m"]
    keys.append(f"stats/{BIDIRECTIONAL}nosj.a")
    [line] = submitter.submit_from(dict.fromkeys(keys, DENIED), sqs_record(keys)).log
    assert line.startswith("retried 5: ")
    assert len(line.splitlines()) == 1
    assert not set(line) & set("\x1b\x9b\x85\u2028" + BIDIRECTIONAL)


@pytest.mark.parametrize(
    ("hostile", "messages", "files"),
    [
        pytest.param({"bucket": "x" * 300_000}, 1, (0, 1, 0), id="bucket"),
        pytest.param({"key": "stats/" + "x" * 20_000}, 25, (0, 0, 25), id="keys"),
        pytest.param({"key": "stats/" + "\U0001f4a9" * 5_000}, 25, (0, 0, 25), id="four-bytes"),
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


def test_milliseconds_are_told(submitter: Submitter) -> None:
    """Those that S3 and Datadog were waited for, each by itself; the summary has the time."""

    def slowly(call: Call) -> bytes:
        call.stopping.wait(0.2)
        return response(body=stats())

    submitter.datadog.respond = lambda request: Answer(404, delay=0.6)
    outcome = submitter.submit_from({"stats/a": slowly})
    assert 0.18 <= outcome.summary["FetchMilliseconds"] / 1000 < 0.6
    assert 0.58 <= outcome.summary["PostMilliseconds"] / 1000 < 5
    assert abs(outcome.summary["_aws"]["Timestamp"] / 1000 - time.time()) < 5


def test_unexpected_error_is_retried_and_logged(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in one file is that file's trouble alone, and its traceback is there."""
    import ddg_stats_file

    def broken(read: Callable[..., Any], content: bytes, **options: Any) -> Any:
        if b"poison" in content:
            raise ZeroDivisionError
        return read(content, **options)

    read = partial(broken, ddg_stats_file.read_stats_file)
    monkeypatch.setattr(ddg_stats_file, "read_stats_file", read)
    outcome = submitter.submit_from({"stats/a.json": stats(), "stats/b.json": stats(poison=1)})
    assert outcome.files == (1, 0, 1)
    assert outcome.retried == [1]
    assert any(line.startswith("ERROR") for line in outcome.log)
    assert any("ZeroDivisionError" in line for line in outcome.log)
