"""Files packed into payloads for Datadog's series API."""

from itertools import pairwise

import pytest

import ddg_series_api
from ddg_stats_file import Sample
from tests.stats_files import NOW

FILES = {
    "full": [[50]],
    "moved-whole": [[10, 10, 10], [10, 20], [1]],
    "large-sample": [[1], [60]],
    "large-file-among-others": [[10], [30, 30, 30], [10], [40]],
    "larger-yet": [[130], [45], [5], [1]],
}


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_file_is_cut_only_if_no_payload_takes_it(
    files: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points keep their order, and a payload ends if the next file doesn't fit.

    files: the points of each file's samples, in tens.
    """
    monkeypatch.setattr(ddg_series_api, "MAX_PAYLOAD_POINTS", most := 500)  # instead of 50,000
    made = [
        (
            f"file-{n}",
            [
                Sample(NOW + k, (), {f"m{m}": m for m in range(10 * size)})
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
    assert all(0 < len(payload) <= most for payload in payloads)
    sizes = {f"file-{n}": 10 * sum(each) for n, each in enumerate(files)}
    for payload, following in pairwise(payloads):
        size = sizes[following[0][0]]
        if payload[-1][0] == following[0][0]:
            assert size > most, "a payload would take the file"
        else:
            assert len(payload) + size > most, "the file would fit"
