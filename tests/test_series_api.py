"""Datadog's series API: how samples are cut into payloads, and a POST that comes too late."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ddg_series_api
from ddg_stats_file import Sample
from local.datadog_server import DatadogServer
from tests.stats_files import NOW, examples

METRICS = [f"metric{n}" for n in range(6)]
POINT_BYTES = len(f"[{NOW}, 1.0], ")
SERIES_BYTES = ddg_series_api.EMPTY_SERIES_BYTES + len(METRICS[0]) + len("[]")  # no tags

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
    files=st.lists(st.lists(st.integers(1, 6), max_size=3), max_size=8),
    most=st.integers(1, 9),
    limit=st.sampled_from(["points", "bytes"]),
)
def test_a_file_is_cut_only_where_no_payload_takes_it(
    files: list[list[int]], most: int, limit: str
) -> None:
    """Nothing is lost, doubled or moved; payloads are full up to the next file, or the next point.

    files: the points of each of a file's samples.
    """
    samples = [
        (f"file-{n}", Sample(NOW + k, (), dict.fromkeys(METRICS[:size], 1)))
        for n, sizes in enumerate(files)
        for k, size in enumerate(sizes)
    ]

    def takes(payload: Points) -> bool:
        if limit == "points":
            return len(payload) <= most
        series = {metric for _, _, metric, _ in payload}
        return POINT_BYTES * len(payload) + SERIES_BYTES * len(series) <= most * POINT_BYTES + 200

    with pytest.MonkeyPatch.context() as patch:
        if limit == "points":
            patch.setattr(ddg_series_api, "MAX_PAYLOAD_POINTS", most)
        else:
            patch.setattr(ddg_series_api, "MAX_PAYLOAD_BYTES", most * POINT_BYTES + 200)
        payloads = [points(payload) for payload in ddg_series_api.pack(samples)]
    everything = points(samples)
    assert [point for payload in payloads for point in payload] == everything
    assert all(payload and takes(payload) for payload in payloads)
    for payload, following in pairwise(payloads):
        owner = following[0][0]
        whole = [point for point in everything if point[0] == owner]
        if payload[-1][0] != owner:  # the next file whole, or as much of it as a payload takes
            assert not takes(payload + whole)
        else:
            assert not takes(whole), "a file was cut that one payload takes"
            assert not takes(payload + following[:1])
            assert {point[0] for point in payload} == {owner}


def test_point_larger_than_a_payload_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't be by the contract; if it were, cutting would still end."""
    monkeypatch.setattr(ddg_series_api, "MAX_PAYLOAD_BYTES", 10)
    samples = [("file", Sample(NOW, (), {"m1": 1, "m2": 2})), ("other", Sample(NOW, (), {"m": 3}))]
    payloads = [points(payload) for payload in ddg_series_api.pack(samples)]
    assert payloads == [[point] for point in points(samples)]


@pytest.mark.parametrize(("spare", "payloads"), [(0, 1), (-1, 2)])
def test_payload_is_as_large_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, spare: int, payloads: int
) -> None:
    """Its points and its series counted to the byte."""
    needed = 3 * POINT_BYTES + 2 * SERIES_BYTES
    monkeypatch.setattr(ddg_series_api, "MAX_PAYLOAD_BYTES", needed + spare)
    first, second = Sample(NOW, (), {"metric0": 1}), Sample(NOW, (), {"metric0": 1, "metric1": 2})
    assert len(list(ddg_series_api.pack([("a", first), ("b", second)]))) == payloads


@pytest.mark.parametrize(
    ("owners", "halves"),
    [("a", []), ("ab", ["a", "b"]), ("abab", ["aa", "bb"]), ("aabccd", ["aab", "ccd"])],
)
def test_halves_by_owners_leave_files_whole(owners: str, halves: list[str]) -> None:
    """Whatever their sizes; a single one has none."""
    payload = [(owner, Sample(NOW, (), {"m": 1})) for owner in owners]
    halved = ddg_series_api.halve_owners(payload)
    assert ["".join(owner for owner, _ in half) for half in halved] == halves


@pytest.mark.parametrize(
    ("sizes", "halves"),
    [
        ([1], []),
        ([5], [[2], [3]]),
        ([1, 1], [[1], [1]]),
        ([2, 1, 1, 3], [[2, 1], [1, 3]]),
        ([1, 1, 1, 1, 1, 1], [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_halves_by_points_are_of_a_size(sizes: list[int], halves: list[list[int]]) -> None:
    """By samples, and one sample by its points; a single one has none, and none is lost."""
    payload = [
        ("file", Sample(NOW, (f"n:{n}",), dict.fromkeys(METRICS[:size], 1)))
        for n, size in enumerate(sizes)
    ]
    halved = ddg_series_api.halve_points(payload)
    assert [[len(sample.values) for _, sample in half] for half in halved] == halves
    if halved:
        assert [each for half in halved for each in points(half)] == points(payload)


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
