"""The submitter: its CloudWatch metrics, and the log line of submitted files."""

import json
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

from tests.events import s3_record, sqs_record, stats
from tests.scripted_server import s3_error, sending
from tests.submitter import Submitter

KEY = "stats/a.json"
Json = dict[str, Any]


def event_time(submitter: Submitter, seconds_ago: float, zone: timezone = UTC) -> str:
    """Return an event's time in S3's format, by the submitter's clock."""
    now = datetime.fromtimestamp(submitter.module.time.time(), UTC)
    told = (now - timedelta(seconds=seconds_ago)).astimezone(zone)
    return told.isoformat(timespec="milliseconds").replace("+00:00", "Z")


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


# --- Delay ---


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
    told = [name for line in lines for name in json.loads(line.removeprefix("submitted "))]
    assert told == [f"s3://stats-bucket/{key}" for key in objects]
