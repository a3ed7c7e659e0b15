"""The contract with the jobs: which files are read, with which samples, and which are refused."""

from __future__ import annotations

import gzip
import json
import re
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ddg_json_file
import ddg_s3_objects
import ddg_stats_file
from ddg_json_file import MAX_FILE_BYTES, MAX_NAMES, StatsFileError
from ddg_stats_file import (
    MAX_TAGS,
    Sample,
    normalise_tag,
    read_stats_file,
)
from local.datadog_server import stored_metric, stored_tag
from tests import stats_files as files
from tests.memory import memory_under
from tests.stats_files import BAD, GOOD, MAX_AGE, NOW, SAMPLE, A, Bad, Good, examples, read, refusal

Points = dict[tuple[str, tuple[str, ...]], dict[int, float]]  # as in the local Datadog


def stored(samples: list[Sample]) -> Points:
    """Return what Datadog keeps of samples that were sent as JSON."""
    points: Points = {}
    for sample in samples:
        tags = tuple(sorted(map(stored_tag, sample.tags)))
        for metric, value in json.loads(json.dumps(sample.values)).items():
            points.setdefault((stored_metric(metric), tags), {})[sample.timestamp] = float(value)
    return points


# The tables


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.id)
def test_good_file_is_read(row: Good) -> None:
    """All its samples are read."""
    assert read(files.content(row)) == row.samples


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.id)
def test_bad_file_is_refused_whole(row: Bad) -> None:
    """The reason says where and what is wrong."""
    reason = refusal(files.content(row))
    assert row.place in reason
    assert row.problem in reason


@examples
@given(st.from_regex(r"[A-Za-z][A-Za-z_.]{0,7}", fullmatch=True))
def test_name_is_accepted_if_datadog_keeps_it(metric: str) -> None:
    """Datadog would store any other under another name, and overwrite that one's values."""
    content = files.name(metric).encode()
    if stored_metric(metric) == metric:
        assert read(content) == [(NOW, (), {metric: 1})]
    else:
        assert "would be rewritten by Datadog" in refusal(content)


# Limits: the largest file that is read, the smallest that is refused


def padded(size: int) -> bytes:
    return A.encode().ljust(size)


def with_name_in_header(size: int) -> bytes:
    """Return a gzip file of this size, most of it the file name in its header."""
    start, rest = b"\x1f\x8b\x08\x08" + bytes(6), b"\0" + files.zipped(A.encode())[10:]
    return start + b"x" * (size - len(start) - len(rest)) + rest


def with_names(count: int, timestamp: int = NOW) -> bytes:
    """Return a line with this many metrics."""
    members = "".join(f', "n{n}": 1' for n in range(count))
    return f'{{"timestamp": {timestamp}{members}}}\n'.encode()


def with_objects(count: int) -> bytes:
    """Return one sample with this many objects and lists, including itself and its tags."""
    members = "".join(f', "n{n}": {{}}' for n in range(count - 2))
    return f'{{"timestamp": {NOW}, "a": 1, "tags": []{members}}}'.encode()


@pytest.mark.parametrize(
    ("make", "limit", "problem"),
    [
        pytest.param(padded, MAX_FILE_BYTES, "over 10,485,760 bytes.", id="plain"),
        pytest.param(with_name_in_header, MAX_FILE_BYTES, "over 10,485,760 bytes.", id="gzip"),
        pytest.param(
            lambda size: files.zipped(padded(size)),
            MAX_FILE_BYTES,
            "bytes decompressed.",
            id="inflated",
        ),
        pytest.param(
            lambda size: files.zipped(padded(100), b" " * (size - 101), b" "),
            MAX_FILE_BYTES,
            "over 10,485,760 bytes decompressed.",
            id="inflated-members",
        ),
        pytest.param(
            with_objects,
            ddg_json_file.MAX_OBJECTS,
            "more than 350,000 objects and lists.",
            id="objects",
        ),
        pytest.param(
            lambda count: with_names(1) + with_names(count, NOW - 1),
            MAX_NAMES,
            "line 2: more than 50,000 different metric names",
            id="names",
        ),
    ],
)
def test_limit_is_exact(make: Callable[[int], bytes], limit: int, problem: str) -> None:
    """A file at the limit is read; for one over it, the reason names the limit."""
    assert read(make(limit))
    assert problem in refusal(make(limit + 1))


@pytest.mark.parametrize(
    ("timestamp", "now", "max_age", "problem"),
    [
        (NOW + 600, NOW - 0.5, MAX_AGE, "600 s ahead"),
        (NOW + 601, NOW, 0, "601 s ahead"),
        (NOW - 3600, NOW + 0.5, MAX_AGE, "3600 s old"),
        (NOW - 61, NOW, 60, "older than 60 s"),
    ],
)
def test_window_is_exact(timestamp: int, now: float, max_age: int, problem: str) -> None:
    """Datadog would drop the point behind a 202. A max_age of 0 means any age."""
    content = files.at(str(timestamp)).encode()
    with pytest.raises(StatsFileError, match=re.escape(problem)):
        read_stats_file(content, now=now, max_age=max_age)
    assert read_stats_file(content, now=timestamp, max_age=1)
    assert read_stats_file(files.at("0").encode(), now=now, max_age=0)


# gzip

SAMPLE_GZIP = files.zipped(SAMPLE)


def test_truncated_gzip_is_refused() -> None:
    """Wherever an upload was cut off, nothing of the file is read."""
    problems = {0: "the file is empty", 1: "line 1 column 1."}
    for length in range(len(SAMPLE_GZIP)):
        assert problems.get(length, "ends too early") in refusal(SAMPLE_GZIP[:length]), length


def test_damaged_gzip_gives_no_wrong_point() -> None:
    """A damaged byte is noticed, or doesn't matter, such as the time in the header."""
    for position in range(len(SAMPLE_GZIP)):
        damaged = bytearray(SAMPLE_GZIP)
        damaged[position] ^= 0xFF
        try:
            samples = read(bytes(damaged))
        except StatsFileError:
            continue
        assert samples == read(SAMPLE), position


def bomb(megabytes: int) -> bytes:
    """Return a gzip member of white space, a thousand times as large when decompressed."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(b" " * 2**20) + deflate.flush(zlib.Z_FULL_FLUSH)
    return files.zipped(b"")[:10] + block * megabytes + deflate.flush() + bytes(8)


def wide(objects: int, names: int, *, same: bool = False) -> bytes:
    """Return an array of objects with this many names each, all different or all the same."""
    lines = (
        with_names(names, NOW - n).replace(b'"n', b'"n' if same else b'"n%d_' % n).strip()
        for n in range(objects)
    )
    return b"[" + b",".join(lines) + b"]"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(bomb(300), "bytes decompressed", id="bomb"),
        pytest.param(SAMPLE_GZIP + bomb(300), "bytes decompressed", id="bomb-after-a-sample"),
        pytest.param(wide(1, 650_000), "different metric names", id="names-of-an-object"),
        pytest.param(wide(600, 1_000), "different metric names", id="names-of-many-objects"),
    ],
)
def test_hostile_file_costs_bounded_memory(content: bytes, problem: str) -> None:
    """Of 300 MB only the limit is decompressed, and names are counted before decoding."""
    assert len(content) < MAX_FILE_BYTES
    with memory_under(4 * MAX_FILE_BYTES):
        assert problem in refusal(content)


def faulty(name: str, members: int) -> bytes:
    """Return an array whose first object has this many faults, below one name."""
    faults = ", ".join(f'"{n}": ""' for n in range(members))
    others = ", {}" * (members // 99)  # to be allowed as many names
    return f'[{{"timestamp": {NOW}, "{name}": {{{faults}}}}}{others}]'.encode()


NAMES = 200  # instead of MAX_NAMES, for speed
WITHIN = with_names(NAMES).partition(b", ")[2].rstrip()
NESTED = b'{"timestamp": %d, "tags": ["x:\\"y\\""], "in": {%s}\n' % (NOW, WITHIN)
TAGGED = [
    files.tagged(*(f"x:{99 * n + tag}" for tag in range(99))).replace('"a"', '"a": 2, "b"')
    for n in range(5)
]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(wide(3, NAMES, same=True), id="same-names"),
        pytest.param(NESTED + NESTED.replace(b"x:", b"z:"), id="nested-names"),
        pytest.param(
            with_names(150) + with_names(150, NOW - 1).replace(b'":', b'" :'), id="spaces"
        ),
        pytest.param(files.tagged("x" + ":" * 500).encode(), id="colons"),
        pytest.param("\n".join(TAGGED).encode(), id="tags"),
    ],
)
def test_names_are_counted_once_each(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of objects, timestamp and tags aren't counted."""
    monkeypatch.setattr(ddg_json_file, "MAX_NAMES", NAMES)
    assert read(content)


@pytest.mark.parametrize(
    ("content", "most"),
    [
        pytest.param(b"{}", 2, id="plain"),
        pytest.param(files.zipped(b""), 1032 * len(files.zipped(b"")), id="gzip"),
        pytest.param(bomb(20), MAX_FILE_BYTES, id="gzip-and-large"),
    ],
)
def test_most_plain_bytes(content: bytes, most: int) -> None:
    """At least as many as the file has, up to the limit."""
    assert ddg_json_file.most_plain_bytes(content) == most


# Tags

# Of github.com/DataDog/datadog-agent (1085c69), pkg/trace/traceutil/normalize_test.go
AGENT_TAGS = {
    "#test_starting_hash": "test_starting_hash",
    "TestCAPSandSuch": "testcapsandsuch",
    "Test Conversion Of Weird !@#$%^&**() Characters": "test_conversion_of_weird_characters",
    "1love": "love",
    "ünicöde:metäl": "ünicöde:metäl",
    "Data🐨dog🐶 繋がっ⛰てて": "data_dog_繋がっ_てて",
    " #hashtag!@#spaces #__<>#  ": "hashtag_spaces",
    "contiguous_____underscores": "contiguous_underscores",
    "\u017fodd_\u017fcase\u017f": "\u017fodd_\u017fcase\u017f",
    "": "",
    "™Ö™Ö™™Ö™": "ö_ö_ö",
    "fun:ky@@@tag/3": "fun:ky_tag/3",
    "---fun:k####y_ta@#g/1_@@#": "fun:k_y_ta_g/1",
    "a" * 888: "a" * 200,
    "a\ufffd\ufffdb": "a_b",
    "A" + "0" * 197 + " " + "0" * 12: "a" + "0" * 197 + "_0",
    # For traces the agent keeps a colon in front. Datadog's documentation (getting_started/tagging)
    # and the port of its intake (pkg/util/metricname/tagname.go) require a letter
    ":::test": "test",
    "12.:trim@": "trim",
    # Rows of our own
    "Env:PROD": "env:prod",
    "a_-_:./b": "a_-_:./b",  # an underscore next to another sign stays
    "a" * 199 + "!b": "a" * 199,  # a tag that ends in _ once it is cut is one shorter
    "!" * 1_998 + "abcd": "ab",  # only ten times the length is looked at
    "²³¼a²": "a",  # no decimal digits
    "x٣": "x٣",  # a decimal digit of another script
    "a\x00\n\u2028b": "a_b",
    # Letter by letter, as in Go: str.lower() looks at the neighbours of "Σ" ...
    "ΟΔΟΣ": "οδοσ",
    "İstanbul": "istanbul",  # ... and makes two characters of "İ"
}


@pytest.mark.parametrize(("written", "sent"), AGENT_TAGS.items())
def test_tag_is_normalised_as_in_datadog(written: str, sent: str) -> None:
    """A tag is sent as Datadog stores it, so that a collision is noticed before."""
    assert normalise_tag(written) == sent


@examples
@given(st.text(max_size=30) | st.text("aZé_: -.1/İΣςſ🐨²٣", max_size=30), st.integers(1, 20))
def test_normalised_tag_stays_the_same(part: str, times: int) -> None:
    """Datadog has nothing to change; the local one has its own implementation."""
    tag = part * times
    sent = normalise_tag(tag)
    assert sent == normalise_tag(sent) == stored_tag(tag)
    assert len(sent) <= ddg_stats_file.MAX_TAG_CHARACTERS


@pytest.mark.parametrize(
    ("key", "prefix", "tag"),
    [
        pytest.param("stats/etl/a.json", "stats/", "job:etl", id="first-folder"),
        pytest.param("stats/a.json", "stats/", "", id="directly-below-the-prefix"),
        pytest.param("stats/My Job/a.json", "stats/", "job:my_job", id="normalised"),
        pytest.param(f"stats/{'x' * 300}/a.json", "stats/", f"job:{'x' * 196}", id="cut"),
        pytest.param("etl/a.json", "", "job:etl", id="no-prefix"),
        pytest.param("stats/etl/a.json", "stats", "job:etl", id="prefix-without-slash"),
        pytest.param("stats//etl/a.json", "stats/", "job:etl", id="slash-too-many"),
        pytest.param("other/etl/a.json", "stats/", "", id="not-below-the-prefix"),
        pytest.param("stats/_!/a.json", "stats/", "", id="nothing-left"),
    ],
)
def test_job_tag(key: str, prefix: str, tag: str) -> None:
    """The job is the first folder below the prefix, normalised like any tag."""
    assert ddg_s3_objects.job_tag(ddg_s3_objects.job_folder(key, prefix)) == tag


def test_shared_tags_are_on_every_sample() -> None:
    """Tags of the job and the deployment are added to the file's, without duplicates."""
    content = files.lines(files.tagged("X", "env:prod"), A).encode()
    assert read(content, tags=("job:etl", "env:prod")) == [
        (NOW, ("env:prod", "job:etl", "x"), {"a": 1}),
        (NOW, ("env:prod", "job:etl"), {"a": 1}),
    ]


def test_shared_tags_count_for_collisions_and_the_limit() -> None:
    """Objects that differ only in a shared tag collide; Datadog drops a series with too many."""
    collision = files.lines(files.tagged("job:etl"), A).encode()
    assert 'line 2: "a" has two values' in refusal(collision, tags=("job:etl",))
    content = files.tagged(*(f"t{n}" for n in range(MAX_TAGS - 1))).encode()
    assert len(read(content, tags=("job:etl",))[0].tags) == MAX_TAGS
    assert f"more than {MAX_TAGS}" in refusal(content, tags=("job:etl", "env:prod"))


# Time and memory


@contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Fail after this much processor time; waiting for the processor isn't counted."""

    def stop(*_: object) -> None:
        pytest.fail(f"not done after {seconds} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda: with_names(650_000), "different metric names", id="names"),
        pytest.param(
            lambda: with_names(600_000)[:-2] + b', "' + b'\\"' * 1_000_000,
            "different metric names",
            id="names-and-no-end",
        ),
        pytest.param(
            lambda: b"{" + b'"n": 1, ' * 60_000 + b'"' + b'\\"' * 4_000_000, "not JSON", id="string"
        ),
        pytest.param(lambda: files.zipped(b"") * 500_000, "the file is empty", id="gzip-members"),
        pytest.param(lambda: SAMPLE_GZIP + bytes(10**7) + b"x", "follows the gzip", id="zeros"),
        pytest.param(
            lambda: (SAMPLE_GZIP + b"\0") * 10**5 + b"x", "follows the gzip", id="zeros-between"
        ),
        pytest.param(lambda: files.name("a" + "_." * 5_000_000).encode(), "rewritten", id="name"),
        pytest.param(lambda: faulty("a", 700_000), "; and 699990 more", id="faults"),
        pytest.param(lambda: faulty("n" * 4_000_000, 400_000), "more", id="long-names"),
        pytest.param(lambda: faulty("tags", 700_000), "700000 tags", id="tags"),
        pytest.param(lambda: b"[" * 350_000, "nested too deep", id="brackets"),
        pytest.param(lambda: A.encode() + b"\n" * 10_000_000 + b"x", "line 10000001", id="lines"),
    ],
)
def test_hostile_file_is_refused_in_time(make: Callable[[], bytes], problem: str) -> None:
    """No file of 10 MB takes more than a few seconds."""
    content = make()
    assert len(content) <= 1.01 * MAX_FILE_BYTES
    with processor_time(8):
        assert problem in refusal(content)


# Any file


@st.composite
def edited(draw: st.DrawFn) -> bytes:
    """Return a file of the tables with some bytes replaced: nearly a stats file."""
    file = draw(st.sampled_from([*map(files.content, GOOD), *map(files.content, BAD)]))
    start = draw(st.integers(0, len(file)))
    end = start + draw(st.integers(0, 8))
    inserted = draw(st.binary(max_size=4) | st.sampled_from([*map(bytes, b'{}[],:"\\\n19-.e')]))
    return file[:start] + inserted + file[end:]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=8,
)
documents = json_values | st.fixed_dictionaries({"timestamp": st.just(NOW), "a": json_values})
any_bytes = st.binary(max_size=200) | edited() | documents.map(lambda v: json.dumps(v).encode())


@examples
@given(any_bytes | any_bytes.map(gzip.compress))
def test_any_bytes_give_samples_or_a_reason(content: bytes) -> None:
    """No bytes raise anything but StatsFileError."""
    try:
        samples = read(content)
    except StatsFileError:
        assert refusal(content)
    else:
        assert samples
        assert all(sample.values for sample in samples)


def leaves(members: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for metric, value in members.items():
        if isinstance(value, dict):
            yield from ((f"{metric}.{below}", number) for below, number in leaves(value))
        elif value is not None:
            yield metric, value


def expected_points(values: list[dict[str, Any]]) -> Points | None:
    """Return the points of objects, read in a simpler way; None if anything is bad."""
    points: Points = {}
    for members in values:
        timestamp, tags = members["timestamp"], members["tags"] or []
        if isinstance(timestamp, str):
            timestamp = datetime.fromisoformat(timestamp).timestamp()
        if isinstance(tags, dict):
            tags = [
                f"{name}:{str(tag).lower() if isinstance(tag, bool) else tag}"
                for name, tag in tags.items()
                if tag is not None
            ]
        tags = tuple(sorted(set(map(stored_tag, tags))))
        rest = {name: members[name] for name in members.keys() - {"timestamp", "tags"}}
        metrics = list(leaves(rest))
        if not metrics or "" in tags or any(stored_metric(name) != name for name, _ in metrics):
            return None
        for metric, value in metrics:
            series = points.setdefault((metric, tags), {})
            if int(timestamp) in series:
                return None
            series[int(timestamp)] = float(value)
    return points


@examples
@given(st.data(), st.lists(files.objects, min_size=1, max_size=3))
def test_points_equal_those_of_a_simpler_reader(
    data: st.DataObject, values: list[dict[str, Any]]
) -> None:
    """Each point of a file is stored, or the file is refused, however its objects are written.

    No point is lost, renamed or changed when it is written as JSON twice.
    """
    file = data.draw(files.rendered(values))
    expected = expected_points(values)
    if expected is None:
        assert refusal(file)
    else:
        assert stored(read(file)) == expected
