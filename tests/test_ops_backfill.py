"""ddg-ops backfill."""

from __future__ import annotations

import itertools
import re
import time
from types import SimpleNamespace

import pytest

from ddg_ops import backfill
from local.datadog_server import Answer, DatadogServer, Request
from tests.interrupted import CUT_OFF, every_interruption
from tests.operated import KEY, Result, StackOnMoto, make_stack, stats

stack = pytest.fixture(make_stack)
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def own_key(monkeypatch: Patch) -> None:
    """Set the operator's own key."""
    monkeypatch.setenv("DATADOG_API_KEY", KEY)


def put_files(stack: StackOnMoto, number: int) -> set[int]:
    """Upload files without notifying the submitter; return their timestamps."""
    now = int(time.time())
    for age in range(number):
        stack.put(f"stats/etl/{age}.json", {"timestamp": now - age, "rows": age})
    stack.purge(stack.main_url)
    return {now - age for age in range(number)}


def arrived(datadog: DatadogServer) -> set[int]:
    """Return the timestamps of the files' points at Datadog."""
    return set(datadog.points.get(("rows", ("env:test", "job:etl")), {}))


def test_backfill(stack: StackOnMoto) -> None:
    """A dry run needs no key. With --yes the points arrive with the submitter's tags, and a second
    backfill changes nothing. Only files of the span and below the prefix count."""
    timestamps = put_files(stack, 3)
    stack.put("stats/other/bad", b"{")
    stack.put("stats/etl/_SUCCESS", b"")
    stack.put("elsewhere/1.json", stats(rows=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATADOG_API_KEY")
        result = stack.run("backfill --since 1h")
    assert result.code == 1
    assert f"backfill of s3://{stack.bucket}/stats/, uploaded " in result.out
    assert (
        "4 found, 3 would be submitted (3 points), 0 would be skipped as too old, "
        "1 would be refused. Nothing was sent: that takes --yes." in result.out
    )
    assert "     1  refused\n        not JSON" in result.out
    assert stack.datadog.requests == []
    assert stack.run("backfill --since 1h --until 59m --json").document["found"] == 0
    for _ in range(2):
        result = stack.run("backfill --since 1h --prefix stats/etl/ --yes")
        assert result.code == 0
        assert "3 found, 3 submitted (3 points), 0 skipped as too old, 0 refused." in result.out
        assert arrived(stack.datadog) == timestamps


@pytest.mark.parametrize(
    ("options", "key", "code", "problem"),
    [
        ("--since 1h --prefix etl/", "", 2, "Did you mean stats/etl/?"),
        ("--since 1h --until 2h", "", 2, "--until 2h is before --since 1h."),
        ("--since 2999-01-01", "", 2, "--since 2999-01-01 is in the future"),
        ("--since 1h --until 2999-01-01", "", 2, "--until 2999-01-01 is in the future"),
        ("--since 1h --yes", "", 2, "no key. Set DATADOG_API_KEY"),
        ("--since 1h --yes", "wrong-key", 3, "refuses the API key (403)"),
        ("--since 1h --yes", "unknown", 3, "answered 503, which doesn't tell"),
    ],
)
def test_backfill_with_wrong_options_or_key(
    options: str, key: str, code: int, problem: str, stack: StackOnMoto
) -> None:
    """One line says why, before anything is read. The function's own key isn't used."""
    stack.patch.setenv("DATADOG_API_KEY", key)
    stack.datadog.respond_validate = lambda request: Answer(503) if key == "unknown" else None
    result = stack.run("backfill", *options.split())
    assert (result.code, problem in result.err, result.out) == (code, True, "")
    assert (not key or key not in result.err, stack.datadog.requests) == (True, [])


@pytest.mark.parametrize("max_age", ["3600", "0", "86400"])
def test_backfill_of_old_files(max_age: str, stack: StackOnMoto) -> None:
    """Files that Datadog would silently drop are skipped, except with --historical."""
    stack.set_environment(MAX_AGE_SECONDS=max_age)
    old = int(time.time()) - 7200
    stack.put("stats/etl/old.json", {"timestamp": old, "rows": 1})
    stack.put("stats/etl/new.json", stats(rows=1))
    result = stack.run("backfill --since 1h --yes")
    assert result.code == 1
    assert "2 found, 1 submitted (1 point), 1 skipped as too old, 0 refused." in result.out
    assert f"timestamp {old} is 720" in result.out
    assert stack.run("backfill --since 1h --historical --yes").code == 0
    assert [point.timestamp for point in stack.datadog.dropped] == [old]  # it has no history
    stack.patch.setattr(backfill, "WINDOW_SECONDS", -5)
    dry = stack.run("backfill --since 1h --historical")
    assert "2 files came over an hour ago, by Last-Modified. You chose --historical" in dry.out


@pytest.mark.parametrize("times", [1, 2])
def test_backfill_retries_a_400_once(times: int, stack: StackOnMoto) -> None:
    """One 400 may be Datadog's fault. The second one refuses the file, and submits the others."""
    put_files(stack, 3)
    bad = f'{{"errors": ["{KEY} no"]}}'.encode()
    seen = itertools.count()

    def respond(request: Request) -> Answer | None:
        points = [point[1] for series in request.series or [] for point in series["points"]]
        if 1.0 not in points or (len(points) == 1 and next(seen) >= times):
            return None
        return Answer(400, bad)

    stack.datadog.respond = respond
    result = stack.run("backfill --since 1h --yes")
    refused = times - 1
    assert result.code == refused
    assert f"3 found, {3 - refused} submitted" in result.out
    assert ("Datadog answered 400." in result.out) is bool(refused)
    assert KEY not in result.out


def test_backfill_stops_at_an_outage_and_continues(stack: StackOnMoto) -> None:
    """It retries through a short outage. After a long one, --after submits the rest."""
    timestamps = put_files(stack, 6)
    stack.patch.setattr(backfill, "MAX_CHUNK_FILES", 2)
    seen = itertools.count()
    stack.datadog.respond = lambda request: Answer(429) if next(seen) in (0, 3, 4) else None
    stopped = stack.run("backfill --since 1h --yes")
    assert stopped.code == 3
    assert "stopped at s3://" in stopped.err
    assert "Datadog answered 429." in stopped.err
    assert "To continue: --after 'stats/etl/3.json'" in stopped.err
    assert len(arrived(stack.datadog)) == 4
    again = stack.run("backfill --since 1h --yes --after stats/etl/3.json")
    assert "2 found, 2 submitted (2 points)" in again.out
    assert arrived(stack.datadog) == timestamps


@pytest.mark.filterwarnings(CUT_OFF)
def test_backfill_is_whole_after_any_interruption(stack: StackOnMoto) -> None:
    """After any interruption, --after sends the rest and nothing twice."""
    stack.patch.setattr(backfill, "MAX_CHUNK_FILES", 2)
    timestamps = put_files(stack, 4)
    command = ("backfill", "--since", "1h", "--yes")
    results: list[Result] = []

    def interrupted() -> Result:
        results.append(stack.run(*command))
        return results[-1]

    def finish() -> None:
        after = re.findall(r"--after '(stats/etl/(\d).json)'", results[-1].err)
        done = int(after[0][1]) + 1 if after else 0
        stack.datadog.requests.clear()
        stack.run(*command, *(("--after", after[0][0]) if after else ()))
        assert arrived(stack.datadog) == timestamps
        assert len(stack.datadog.requests) == (4 - done) / 2
        stack.datadog.points.clear()

    steps = every_interruption(interrupted, lambda: None, finish, dead=False)
    assert steps >= 2 * 8  # settings, list, four gets, two POSTs


def test_backfill_keeps_its_rate(stack: StackOnMoto) -> None:
    """The pauses between chunks keep it at --rate files per second."""
    put_files(stack, 6)
    slept: list[float] = []
    stack.patch.setattr(backfill, "time", SimpleNamespace(**vars(time) | {"sleep": slept.append}))
    stack.run("backfill --since 1h --yes --rate 2")
    assert len(slept) == 3
    assert 2 < sum(slept) <= 3
