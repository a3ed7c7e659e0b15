"""Datadog's series API: how files are packed into payloads, and what its answers mean."""

from itertools import pairwise

import pytest

import ddg_series_api
from ddg_series_api import Answer, Verdict, judge
from ddg_stats_file import Sample
from tests.stats_files import NOW

STATUSES = {
    Verdict.ACCEPT: {202},
    Verdict.SPLIT: {400, 413},
    Verdict.READ_KEY: {401, 403},
    Verdict.AGAIN: {0, 408, *range(500, 600)},
}
STATUSES[Verdict.STOP] = {*range(1000)} - set().union(*STATUSES.values())


@pytest.mark.parametrize("verdict", Verdict)
def test_verdict_of_each_status(verdict: Verdict) -> None:
    """Whatever isn't known to mean something else stops the batch, and nothing is lost."""
    statuses = {status for status in range(1000) if judge(Answer(status, "{}", 7)) is verdict}
    assert statuses == STATUSES[verdict]


MOST = 50  # thousand points a payload: short series take few bytes of JSON, but memory all the same


@pytest.mark.parametrize(
    "files",
    [
        pytest.param([[50]], id="full"),
        pytest.param([[20], [20], [20]], id="two-and-one"),
        pytest.param([[10, 10, 10], [10, 20], [1]], id="put-off-whole"),
        pytest.param([[1], [60]], id="large-sample"),
        pytest.param([[10], [30, 30, 30], [10], [40]], id="large-file-among-others"),
        pytest.param([[130], [45], [5], [1]], id="larger-yet"),
    ],
)
def test_a_file_is_cut_only_where_no_payload_takes_it(files: list[list[int]]) -> None:
    """Nothing is lost, doubled or moved; and a payload ends where the next file doesn't fit.

    files: the points of each file's samples, in thousands.
    """
    made = [
        (
            f"file-{n}",
            [
                Sample(NOW + k, (), {f"m{m}": m for m in range(1000 * size)})
                for k, size in enumerate(sizes)
            ],
        )
        for n, sizes in enumerate(files)
    ]
    points = [(owner, s.timestamp, m) for owner, samples in made for s in samples for m in s.values]
    payloads = [
        [(owner, sample.timestamp, metric) for owner, sample in payload for metric in sample.values]
        for payload in ddg_series_api.pack(made, {})
    ]
    assert [point for payload in payloads for point in payload] == points
    assert all(0 < len(payload) <= 1000 * MOST for payload in payloads)
    sizes = {f"file-{n}": sum(each) for n, each in enumerate(files)}
    for payload, following in pairwise(payloads):
        size = sizes[following[0][0]]
        if payload[-1][0] == following[0][0]:
            assert size > MOST, "a file was cut that one payload takes"
        else:
            assert len(payload) + 1000 * size > 1000 * MOST, "a file was put off that fits"
