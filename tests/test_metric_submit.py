"""The submitter: a batch, the outcomes of its files, and the log."""

import json
import logging
import time
from concurrent.futures import Future
from typing import Any

import pytest

from local.datadog_server import Answer
from tests.events import BUCKET, notification, sqs_record, stats
from tests.scripted_server import Objects, s3_error, sending
from tests.submitter import COUNTS, Submitter

MALFORMED = b'{"timestamp": '
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
