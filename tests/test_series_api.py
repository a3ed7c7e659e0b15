"""Datadog's series API: how samples are cut into payloads, and a POST that comes too late."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Iterator
from itertools import islice, pairwise
from types import SimpleNamespace

import pytest
from datadog import api
from hypothesis import given
from hypothesis import strategies as st

import ddg_series_api
from ddg_stats_file import Sample
from local.datadog_server import Answer, DatadogServer, Request
from tests.scripted_server import Call, ScriptedServer
from tests.stats_files import NOW, examples

METRICS = [f"metric{n}" for n in range(6)]
POINT_BYTES = len(f"[{NOW}, 1.0], ")
SERIES_BYTES = len(json.dumps(ddg_series_api.one_series(METRICS[0], (), []))) + len(", ")
SERIES_BYTES += len("[]")  # the tags' brackets are counted twice

Points = list[tuple[str, int, str, float]]  # owner, second, metric, value


def pack(samples: list[tuple[str, Sample]]) -> list[Points]:
    """Return the points of each payload; of so many payloads at most, should they never end."""
    return [points(payload) for payload in islice(ddg_series_api.pack(samples), 1000)]


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
        payloads = pack(samples)
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
    payloads = pack(samples)
    assert payloads == [[point] for point in points(samples)]


@pytest.mark.parametrize(("spare", "payloads"), [(0, 1), (-1, 2)])
def test_payload_is_as_large_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, spare: int, payloads: int
) -> None:
    """Its points and its series counted to the byte."""
    needed = 3 * POINT_BYTES + 2 * SERIES_BYTES
    monkeypatch.setattr(ddg_series_api, "MAX_PAYLOAD_BYTES", needed + spare)
    first, second = Sample(NOW, (), {"metric0": 1}), Sample(NOW, (), {"metric0": 1, "metric1": 2})
    assert len(pack([("a", first), ("b", second)])) == payloads


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
    payloads = pack(samples)
    assert [len(payload) for payload in payloads] == [50_000, 1_000]


def post_one(url: str, seconds: float) -> ddg_series_api.Answer:
    """POST a point."""
    series = [ddg_series_api.one_series("m", [], [(int(time.time()), 1)])]
    return ddg_series_api.post(series, api_key="test-key", app_key=None, host=url, seconds=seconds)


def test_post_whose_time_ran_out_is_not_sent(
    datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller has gone on, and would send the same points again."""
    monkeypatch.setattr(ddg_series_api, "time", SimpleNamespace(monotonic=lambda: 5.0))
    before = set(threading.enumerate())
    answer = post_one(datadog.url, 0.0)
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert (answer.status_code, answer.wire_bytes) == (0, 0)
    assert datadog.requests == []


def test_post_with_little_time_is_sent(datadog: DatadogServer) -> None:
    """How little is too little is the caller's to say."""
    assert post_one(datadog.url, 0.9).status_code == 202


def test_post_without_an_answer_timed_out() -> None:
    """It was sent, for all that is known."""

    def silent(call: Call) -> bytes:
        call.stopping.wait()
        raise ConnectionAbortedError

    with ScriptedServer(silent) as server:
        before = set(threading.enumerate())
        answer = post_one(server.url, 0.3)
        left = set(threading.enumerate()) - before
        assert all(thread.daemon for thread in left), "it would keep the process alive"
    assert answer[:2] == (0, "timed out")
    assert answer.wire_bytes > 0


def test_late_post_is_not_sent_in_place_of_the_next(
    datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was deflated too slowly, and given up. What it would be answered isn't the next one's."""
    compress, slow, go_on = zlib.compress, list[threading.Thread](), threading.Event()

    def compress_slowly(data: bytes) -> bytes:
        if not slow:
            slow.append(threading.current_thread())
            go_on.wait()
        return compress(data)

    def while_the_next_is_asked(request: Request) -> Answer | None:
        if len(datadog.requests) > 1:
            return None
        go_on.set()
        slow[0].join()
        return Answer(503)

    monkeypatch.setattr("zlib.compress", compress_slowly)
    datadog.respond = while_the_next_is_asked
    assert post_one(datadog.url, 0.2).status_code == 0
    assert post_one(datadog.url, 5.0).status_code == 503
    assert len(datadog.requests) == 1


@pytest.mark.parametrize("cut_off", [1, 30, 31])
def test_a_part_of_a_key_is_not_repeated(datadog: DatadogServer, cut_off: int) -> None:
    """An answer may show the request, and what is read of it may end within a key."""
    key = "0123456789abcdef0123456789abcdef"
    padding = "." * (ddg_series_api.MAX_ANSWER_BYTES - len(key) + cut_off)
    datadog.respond = lambda request: Answer(503, (padding + key + "more").encode())
    series = [ddg_series_api.one_series("m", [], [(int(time.time()), 1)])]
    answer = ddg_series_api.post(
        series, api_key="short", app_key=key, host=datadog.url, seconds=5.0
    )
    assert key[:1] not in answer.text
    assert len(answer.text) >= len(padding) - len(key)


def test_package_is_told_to_hide_and_to_read_nothing(datadog: DatadogServer) -> None:
    """Neither an exception nor an answer's body is its business."""
    api._mute, api._return_raw_response = True, False
    post_one(datadog.url, 5.0)
    assert (api._mute, api._return_raw_response) == (False, True)


@pytest.mark.parametrize("spare", [0, -1])
def test_post_is_sent_up_to_the_wire_limit(
    datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    """To the byte; else it is as if Datadog had answered 413."""
    size = post_one(datadog.url, 5.0).wire_bytes
    datadog.requests.clear()
    monkeypatch.setattr(ddg_series_api, "MAX_WIRE_BYTES", size + spare)
    answer = post_one(datadog.url, 5.0)
    assert (answer.status_code, answer.wire_bytes) == ((413, 0) if spare else (202, size))
    assert len(datadog.requests) == (not spare)


@pytest.mark.parametrize(("status", "text"), [("202 Accepted", ""), ("503 Unavailable", "down")])
def test_body_of_an_error_is_waited_for(status: str, text: str) -> None:
    """It may say why. A 202 counts at once, whatever becomes of its body."""

    def slow_body(call: Call) -> Iterator[bytes]:
        yield f"HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\n".encode()
        if not text:
            call.stopping.wait()
        call.stopping.wait(0.1)
        yield b"down"

    started = time.monotonic()
    with ScriptedServer(slow_body) as server:
        answer = post_one(server.url, 8.0)
    assert answer[:2] == (int(status[:3]), text)
    assert time.monotonic() - started < 6, "the whole time was waited for"
