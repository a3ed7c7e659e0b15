"""Datadog's series API: how files are packed into payloads, and what its answers mean."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ddg_series_api
from ddg_series_api import Answer, Verdict, judge
from ddg_stats_file import Sample
from tests.stats_files import NOW, examples

VERDICTS = {
    Verdict.ACCEPT: [202],
    Verdict.SPLIT: [400, 413],
    Verdict.READ_KEY: [401, 403],
    Verdict.AGAIN: [0, 408, *range(500, 600)],
}


@pytest.mark.parametrize("verdict", Verdict)
def test_verdict_of_each_status(verdict: Verdict) -> None:
    """All that isn't in the table stops the batch: what it means is unknown, and nothing is lost."""
    listed = {status for statuses in VERDICTS.values() for status in statuses}
    statuses = VERDICTS.get(verdict, [*{*range(1000)} - listed])
    assert {judge(Answer(status, "whatever", 7)) for status in statuses} == {verdict}


Point = tuple[str, int, str]  # owner, second, metric


@examples
@given(
    files=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), max_size=8),
    most=st.integers(1, 9),
)
def test_a_file_is_cut_only_where_no_payload_takes_it(files: list[list[int]], most: int) -> None:
    """Nothing is lost, doubled or moved; and a payload ends only where the next file doesn't fit.

    files: the points of each of a file's samples.
    """
    made = [
        (f"file-{n}", [Sample(NOW + k, (), {f"m{m}": 1 for m in range(sizes[k])}) for k in range(len(sizes))])
        for n, sizes in enumerate(files)
    ]
    points = [(owner, s.timestamp, m) for owner, samples in made for s in samples for m in s.values]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddg_series_api, "MAX_PAYLOAD_POINTS", most)
        payloads = [
            [(owner, sample.timestamp, metric) for owner, sample in payload for metric in sample.values]
            for payload in ddg_series_api.pack(made)
        ]
    assert [point for payload in payloads for point in payload] == points
    assert all(0 < len(payload) <= most for payload in payloads)
    for payload, following in pairwise(payloads):
        owner = following[0][0]
        size = sum(point[0] == owner for point in points)
        if payload[-1][0] == owner:
            assert size > most, "a file was cut that one payload takes"
        else:
            assert len(payload) + size > most, "a file was put off that the payload takes"


@pytest.mark.parametrize("points", [20_000, 50_000])
def test_payload_holds_fifty_thousand_points(points: int) -> None:
    """Short series take few bytes of JSON, but memory all the same."""
    seconds = points // 10_000
    samples = [Sample(NOW + n, (), {f"m{n}": n for n in range(10_000)}) for n in range(seconds)]
    payloads = [*ddg_series_api.pack([("a", samples), ("b", samples[:1])])]
    assert len(payloads) == (2 if points == 50_000 else 1)
    assert all(len(json.dumps(payload)) < 5_242_880 for payload in payloads)
