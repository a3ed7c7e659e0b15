"""Datadog's series API: how samples are cut into payloads, and a POST that comes too late."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ddg_series_api
from ddg_stats_file import Sample
from local.datadog_server import DatadogServer
from tests.stats_files import NOW, examples

Points = list[tuple[str, int, str, float]]  # owner, second, metric, value


def points(samples: list[tuple[str, Sample]]) -> Points:
    """Return the points of samples in their order."""
    return [
        (owner, sample.timestamp, metric, value)
        for owner, sample in samples
        for metric, value in sample.values.items()
    ]


@examples
@given(
    sizes=st.lists(st.integers(1, 12), max_size=8),
    most=st.integers(1, 9),
)
def test_payloads_are_cut_at_the_points_limit(sizes: list[int], most: int) -> None:
    """As few as may be, wherever in a sample the cut falls; nothing is lost, doubled or moved."""
    samples = [
        (f"file-{n}", Sample(NOW + n, ("job:a",), {f"m{m}": m for m in range(size)}))
        for n, size in enumerate(sizes)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddg_series_api, "MAX_PAYLOAD_POINTS", most)
        payloads = [points(payload) for payload in ddg_series_api.pack(samples)]
    assert [point for payload in payloads for point in payload] == points(samples)
    assert all(len(payload) == most for payload in payloads[:-1])
    assert all(0 < len(payload) <= most for payload in payloads)


def test_payload_holds_fifty_thousand_points() -> None:
    """Short series take few bytes of JSON, but memory all the same."""
    values: dict[str, float] = {f"m{n}": n for n in range(17_000)}
    samples = [("file", Sample(NOW + n, (), values)) for n in range(3)]
    payloads = [points(payload) for payload in ddg_series_api.pack(samples)]
    assert [len(payload) for payload in payloads] == [50_000, 1_000]


def test_post_whose_time_ran_out_is_not_sent(datadog: DatadogServer) -> None:
    """Its caller has gone on, and would send the same points again."""
    before = set(threading.enumerate())
    answer = ddg_series_api.post(
        [ddg_series_api.one_series("m", [], [(NOW, 1)])],
        api_key="test-key",
        app_key=None,
        host=datadog.url,
        seconds=0.0,
    )
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert (answer.status_code, answer.wire_bytes) == (0, 0)
    assert datadog.requests == []
