"""The submitter's small parts, where only a look at one of them alone tells right from wrong."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

import ddg_metric_submit
import ddg_series_api
from ddg_series_api import Answer
from tests.events import Context

SETTINGS = ddg_metric_submit.read_settings(
    {"DATADOG_API_KEY": "test-key", "REJECTED_QUEUE_URL": "http://sqs.example.com/1/rejected"}
)


def test_seconds_left_are_without_the_reserve() -> None:
    """Lambda tells milliseconds."""
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 30_000)
    assert ddg_metric_submit.Batch(SETTINGS, context, Counter()).seconds_left() == 29.0


@pytest.mark.parametrize(("seconds", "waited"), [(2.5, 2.5), (0.5, 0.5), (0.0, 0.0), (-3.0, 0.0)])
def test_a_thread_is_waited_for_no_longer_than_asked(seconds: float, waited: float) -> None:
    """Nor for a time that is over."""
    asked: list[float] = []
    future: Any = SimpleNamespace(result=asked.append)
    ddg_metric_submit.wait_for(future, seconds)
    assert asked == [waited]


def test_threads_are_kept_until_one_hangs() -> None:
    """They serve all invocations; with one that hangs all are left behind, and its place."""
    kept = ddg_metric_submit.threads(), ddg_metric_submit.reader()
    assert (ddg_metric_submit.threads(), ddg_metric_submit.reader()) == kept
    hanging: Future[None] = Future()
    with pytest.raises(TimeoutError):
        ddg_metric_submit.wait_for(hanging, 0)
    assert hanging.cancelled()
    assert ddg_metric_submit.threads() is not kept[0]
    assert ddg_metric_submit.reader() is not kept[1]


@pytest.mark.parametrize(
    ("counts", "order"),
    [
        pytest.param([None, 1], [0, 1], id="not-told-counts-as-one"),
        pytest.param([1, None], [0, 1], id="whichever-comes-first"),
        pytest.param([1, 3, 2, 3], [1, 3, 2, 0], id="most-often-first"),
    ],
)
def test_messages_received_most_often_go_first(counts: list[int | None], order: list[int]) -> None:
    """SQS tells with each how often that is."""
    records = [
        {"messageId": str(place), "body": "{}"}
        | ({"attributes": {"ApproximateReceiveCount": str(count)}} if count else {})
        for place, count in enumerate(counts)
    ]
    messages = ddg_metric_submit.read_messages({"Records": records})
    assert [int(message.message_id) for message in messages] == order


def test_time_for_s3_leaves_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object is waited for until what is read could no longer be parsed."""
    asked: list[float] = []

    def wait_for(future: Future[Any], seconds: float) -> bytes:
        asked.append(seconds)
        raise TimeoutError

    monkeypatch.setattr(ddg_metric_submit, "wait_for", wait_for)
    monkeypatch.setattr(ddg_metric_submit, "aws_client", lambda service: None)
    for seconds in (30, 4):
        batch = ddg_metric_submit.Batch(SETTINGS, Context(seconds), Counter())
        delivery = ddg_metric_submit.Delivery("bucket", "stats/a.json")
        assert list(ddg_metric_submit.read_files([delivery], batch)) == []
        assert delivery.retried
    # Of 4 seconds 1 is kept for the answer, 1.5 for parsing and posting
    assert asked == [5.0, pytest.approx(1.5, abs=0.1)]


def test_milliseconds_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fetching and of posting, in the summary."""
    ticks = iter([5.0, 7.25, 10.0, 12.5])
    monkeypatch.setattr(
        ddg_metric_submit, "time", SimpleNamespace(monotonic=lambda: next(ticks), time=time.time)
    )
    monkeypatch.setattr(ddg_metric_submit, "wait_for", lambda future, seconds: b"{")
    monkeypatch.setattr(ddg_metric_submit, "aws_client", lambda service: None)
    monkeypatch.setattr(ddg_series_api, "post", lambda *_, **__: Answer(202, "", 7))
    batch = ddg_metric_submit.Batch(SETTINGS, Context(30), Counter())
    delivery = ddg_metric_submit.Delivery("bucket", "stats/a.json")
    assert list(ddg_metric_submit.read_files([delivery], batch)) == []
    ddg_metric_submit.post([], batch, 10)
    assert batch.totals == {
        "FetchMilliseconds": 2250,
        "PostMilliseconds": 2500,
        "Requests": 1,
        "WireBytes": 7,
    }
