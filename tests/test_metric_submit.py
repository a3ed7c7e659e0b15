"""The submitter: a batch, the outcomes of its files, the log and the CloudWatch metrics."""

import json
import logging
import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from local.datadog_server import Answer
from tests.events import BUCKET, notification, s3_record, sqs_record, stats
from tests.scripted_server import Objects, s3_error, sending
from tests.submitter import COUNTS, Submitter

MALFORMED = b'{"timestamp": '
KEY = "stats/a.json"
Json = dict[str, Any]
DENIED = s3_error("403 Forbidden", "AccessDenied")

# --- The main job ---


def test_file_of_the_readme(submitter: Submitter) -> None:
    """It becomes two gauges with the job's tag, and without a host."""
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
    """Its messages may have several records, any event version, and no attributes."""
    files = {f"stats/job/{n}.json": stats(age=n, m=n, n=n) for n in range(30)}
    keys = list(files)
    messages = [
        sqs_record(body=notification(keys[n : n + 3], version=f"{2 + n // 10}.{n % 10}"))
        for n in range(0, 30, 3)
    ]
    messages[0] = {name: messages[0][name] for name in ("messageId", "body")}
    outcome = submitter.submit_from(files, *messages)
    assert outcome.files == (30, 0, 0)
    assert outcome.summary["Points"] == 60
    assert len(submitter.datadog.requests) == outcome.summary["Requests"] == 1
    assert submitter.stored()["m", ("job:job",)] == list(range(29, -1, -1))


# --- Outcomes ---


def test_message_ends_as_the_worst_of_its_files(submitter: Submitter) -> None:
    """Retried comes before refused. A file is refused only when its whole message is."""
    good, bad, worse, no = (f"stats/{name}" for name in ("good", "bad", "worse", "no"))
    objects: Objects = {good: stats(), bad: MALFORMED, worse: b"{}", no: sending(DENIED)}
    settled = submitter.message(good, bad, worse)
    waiting = submitter.message(good, bad, no)
    outcome = submitter.submit_from(objects, settled, waiting, submitter.message(good))
    assert (outcome.files, outcome.retried) == ((3, 2, 2), [1])
    [rejected] = outcome.rejected
    assert rejected.body == settled["body"]
    assert rejected.attributes["reason"].startswith("stats/bad: not JSON: ")
    assert "; stats/worse: no " in rejected.attributes["reason"]
    assert rejected.attributes["key"] == bad  # not the first key of the message
    [line] = [line for line in outcome.log if "refused once" in line]
    assert line.startswith("retried 1: refused once its message is settled: not JSON: ")
    assert line.endswith(f": s3://{BUCKET}/{bad}")
    outcome = submitter.submit_from({**objects, no: stats()}, waiting)  # the redelivered message
    assert outcome.files == (2, 1, 0)
    assert [rejected.body for rejected in outcome.rejected] == [waiting["body"]]


# --- The log ---


@pytest.mark.parametrize("files", [20, 21])
def test_files_with_one_reason_share_one_line(submitter: Submitter, files: int) -> None:
    """It has twenty names at most, so the logs of an outage stay cheap."""
    submitter.datadog.respond = lambda request: Answer(503)
    keys = [f"stats/{n:02}.json" for n in range(files)]
    others = sqs_record(f"other/{n:02}" for n in range(files))
    outcome = submitter.submit_from(
        {key: stats() for key in keys}, *map(submitter.message, keys), others
    )
    retried, ignored = outcome.log
    assert retried.startswith(f"retried {files}: Datadog answered 503. ")
    assert ignored.startswith(f"ignored {files}: not a new object")
    assert [key in retried for key in keys] == [n < 20 for n in range(files)]
    assert retried.endswith(", ...") == ignored.endswith("/19, ...") == (files > 20)


@pytest.mark.parametrize("level", ["DEBUG", "error", "CRITICAL"])
def test_outcomes_are_printed_at_any_log_level(
    submitter: Submitter, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    """DEBUG adds a line for each POST. Libraries say nothing, so they show no key."""
    caplog.set_level(logging.DEBUG)
    submitter.set(LOG_LEVEL=level, DATADOG_APP_KEY="secret-app-key")
    submitter.keys.append("secret-app-key")
    files = {f"stats/{n}.json": stats(age=n) for n in range(40)}
    outcome = submitter.submit_from(files | {"stats/bad.json": MALFORMED})
    assert outcome.files == (40, 1, 0)
    posts = ["DEBUG"] if level == "DEBUG" else []
    assert [line.split()[0] for line in outcome.log] == ["refused", *posts]


@pytest.mark.parametrize(
    ("hostile", "messages", "files"),
    [
        ({"bucket": "x" * 300_000}, 1, (0, 1, 0)),
        ({"key": "stats/" + "\U0001f4a9" * 5_000}, 25, (0, 0, 25)),
    ],
    ids=["bucket", "keys"],
)
def test_hostile_lengths_fit_a_log_line(
    submitter: Submitter, hostile: dict[str, str], messages: int, files: tuple[int, int, int]
) -> None:
    """CloudWatch cuts a line at 256 KB. A bucket's name has 63 bytes, a key has 1,024."""
    names = {"bucket": BUCKET, "key": "stats/a"} | hostile
    s3 = {"bucket": {"name": names["bucket"]}, "object": {"key": names["key"]}}
    body = json.dumps({"Records": [{"s3": s3}]}, ensure_ascii=False)
    with submitter.reading_from(sending(s3_error("400 Bad Request", "KeyTooLongError"))):
        outcome = submitter.submit(*(sqs_record(body=body) for _ in range(messages)))
    assert outcome.files == files
    [line] = [line for line in outcome.log if line.startswith(("refused", "retried"))]
    assert [name[:1000] in line for name in hostile.values()] == [True]
    assert max(len(line.encode()) for line in outcome.log) < 262_144


def test_summary_has_the_time_that_s3_and_datadog_took(submitter: Submitter) -> None:
    wait = Future.result

    def wait_longer(future: Any, timeout: float | None = None) -> Any:
        submitter.clock.spend(2)
        return wait(future, timeout)

    submitter.environment.setattr(Future, "result", wait_longer)
    submitter.datadog.respond = lambda request: submitter.clock.spend(7)
    outcome = submitter.submit_from({"stats/a": stats()})
    assert 2000 <= outcome.summary["FetchMilliseconds"] < 4000
    assert 7000 <= outcome.summary["PostMilliseconds"] < 9000
    assert abs(outcome.summary["_aws"]["Timestamp"] / 1000 - time.time()) < 5


def test_unexpected_error_is_retried_and_logged(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other files are submitted, and the log has a traceback."""
    import ddg_stats_file

    read = ddg_stats_file.read_stats_file

    def broken(content: bytes, **options: Any) -> Any:
        if b"poison" in content:
            raise ZeroDivisionError
        return read(content, **options)

    monkeypatch.setattr(ddg_stats_file, "read_stats_file", broken)
    outcome = submitter.submit_from({"stats/a.json": stats(), "stats/b.json": stats(poison=1)})
    assert (outcome.files, outcome.retried) == ((1, 0, 1), [1])
    assert any(line.startswith("ERROR") for line in outcome.log)
    assert any("ZeroDivisionError" in line for line in outcome.log)


# --- Delays ---


def event_time(submitter: Submitter, seconds_ago: float, zone: timezone = UTC) -> str:
    """Return an event's time in S3's format, by the submitter's clock."""
    now = datetime.fromtimestamp(submitter.module.time.time(), UTC)
    moment = (now - timedelta(seconds=seconds_ago)).astimezone(zone)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def s3_event(moment: object, key: str = KEY) -> Json:
    return sqs_record(body=json.dumps({"Records": [s3_record(key) | {"eventTime": moment}]}))


def bridge_event(moment: object) -> Json:
    named = {"bucket": {"name": "stats-bucket"}, "object": {"key": KEY}}
    return sqs_record(body=json.dumps({"source": "aws.s3", "time": moment, "detail": named}))


def delays(submitter: Submitter, *messages: Json, seconds: float = 0.0) -> list[int]:
    """Return the delays of a batch if Datadog takes so long to answer."""
    submitter.datadog.respond = lambda request: submitter.clock.spend(seconds)
    outcome = submitter.submit_from({KEY: stats()}, *messages)
    assert outcome.files == (len(messages), 0, 0)
    return list(outcome.summary.get("DelayMilliseconds", []))


def test_delay_is_the_time_from_the_event_to_the_202(submitter: Submitter) -> None:
    """Zones are respected. An event in the future has no delay."""
    times = [event_time(submitter, each) for each in (60, 2, -100)]
    times.append(event_time(submitter, 9, timezone(timedelta(hours=2))))
    messages = [*map(s3_event, times), bridge_event(event_time(submitter, 30))]
    found = delays(submitter, *messages, seconds=20)
    for measured, wanted in zip(found, [0, 22_000, 29_000, 50_000, 80_000], strict=True):
        assert wanted <= measured <= wanted + 5000 * (wanted > 0)


def test_event_without_a_time_has_no_delay(submitter: Submitter) -> None:
    """An event's time needs a zone."""
    times: list[object] = [None, "yesterday", 5, "2026-01-01T00:00:00"]
    messages = [*map(s3_event, times), *map(bridge_event, times), sqs_record([KEY])]
    assert delays(submitter, *messages) == []


def test_replayed_message_has_no_delay(submitter: Submitter) -> None:
    """It has waited for the operator. The delay of a redelivered message counts."""
    old = event_time(submitter, 500)
    replayed = s3_event(old)
    replayed["messageAttributes"] = {"replayed": {"stringValue": "1", "dataType": "String"}}
    again = s3_event(old)
    again["attributes"]["ApproximateReceiveCount"] = "3"
    [delay] = delays(submitter, replayed, again)
    assert delay >= 500_000


def test_summary_has_a_hundred_delays_at_most(submitter: Submitter) -> None:
    """They are evenly spaced, and include the largest one."""
    ages = [event_time(submitter, each) for each in range(250)]
    found = delays(submitter, *map(s3_event, ages))
    assert len(found) == 100
    assert found == sorted(found)
    assert found[-1] >= 249_000
    gaps = {round((b - a) / 1000) for a, b in pairwise(found)}
    assert gaps == {2, 3}
    assert "DelayMilliseconds" not in submitter.submit_from({}, s3_event(ages[0])).summary


# --- Watched jobs ---


def test_each_watched_job_in_a_batch_has_its_own_metrics(submitter: Submitter) -> None:
    watched = {"watched": True}
    submitter.set(JOBS=json.dumps({"good": watched, "late": watched, "a b": watched, "no": {}}))
    trouble = s3_error("503 Slow Down", "SlowDown")
    objects = {f"stats/good/{n}": stats(n) for n in range(3)} | {"stats/no/x": stats()}
    objects |= {"stats/good/bad": b"x", "stats/a b/bad": b"x"}
    outcome = submitter.submit_from({**objects, "stats/late/a": sending(trouble)})
    lines = [json.loads(line) for line in outcome.log if line.startswith('{"_aws"')]
    counts = {line["Job"]: (line["Submitted"], line["Refused"]) for line in lines}
    assert counts == {"good": (3, 1), "a b": (0, 1), "late": (0, 0)}


# --- Submitted files ---


def test_submitted_files_are_listed(submitter: Submitter) -> None:
    """The names in the list are complete, whatever their characters."""
    names = ["a.json", "a b+c.json", 'quote".json', "täglich/ü.json", "line\nfeed", "\u202e.json"]
    objects = {f"stats/{name}": stats(n) for n, name in enumerate(names)}
    submitter.set(LOG_FILES="true")
    outcome = submitter.submit_from({**objects, "stats/bad": b"x"})
    [line] = [line for line in outcome.log if line.startswith("submitted ")]
    assert line.isascii()
    assert json.loads(line[len("submitted ") :]) == [f"s3://stats-bucket/{k}" for k in objects]
    assert not any("submitted" in line for line in submitter.submit_from({KEY: b"x"}).log)


def test_long_lists_take_several_lines(submitter: Submitter) -> None:
    """CloudWatch cuts a line of over 256 KB."""
    objects = {f"stats/{'k' * 1000}/{n}": stats(n) for n in range(400)}
    submitter.set(LOG_FILES="true")
    lines = [each for each in submitter.submit_from(objects).log if each.startswith("submitted ")]
    assert len(lines) == 3
    assert all(len(line) < 256 * 1024 for line in lines)
    listed = [name for line in lines for name in json.loads(line.removeprefix("submitted "))]
    assert listed == [f"s3://stats-bucket/{key}" for key in objects]
