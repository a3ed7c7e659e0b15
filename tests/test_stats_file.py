from __future__ import annotations

import gzip
import json
import re
import signal
import tracemalloc
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ddg_stats_file
from ddg_stats_file import (
    LATEST_TIMESTAMP,
    MAX_AHEAD_SECONDS,
    MAX_FILE_BYTES,
    MAX_NAMES,
    MAX_OBJECTS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    Sample,
    StatsFileError,
    check_timestamp,
    job_tag,
    most_plain_bytes,
    normalise_tag,
    read_stats_file,
)
from local.datadog_server import DatadogServer, stored_tag
from tests.memory import memory_under
from tests.stats_files import (
    BAD,
    GOOD,
    MAX_AGE,
    NOW,
    SAMPLE,
    SAMPLE_READ,
    A,
    Bad,
    Good,
    examples,
    objects,
    rendered,
    with_tags,
    with_timestamp,
    zipped,
)

Points = dict[tuple[str, tuple[str, ...]], dict[int, float]]  # as the local Datadog keeps them


def read(content: bytes, *, tags: tuple[str, ...] = ()) -> list[Sample]:
    return read_stats_file(content, now=NOW, max_age=MAX_AGE, tags=tags)


def refusal(content: bytes, *, tags: tuple[str, ...] = ()) -> str:
    """Return the reason why a file is refused, once it is fit for every place that it goes to."""
    with pytest.raises(StatsFileError) as caught:
        read(content, tags=tags)
    reason = str(caught.value)
    assert reason.isascii()
    assert reason.isprintable()
    assert len(reason) < 1024  # what an SQS message attribute gets of it
    return reason


def points_of(samples: list[Sample]) -> Points:
    points: Points = {}
    for sample in samples:
        for metric, value in sample.values.items():
            points.setdefault((metric, sample.tags), {})[sample.timestamp] = float(value)
    return points


@contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Stop what takes longer than this of the processor; waiting for its turn isn't counted."""

    def stop(*_: object) -> None:
        pytest.fail(f"still at it after {seconds} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# The tables


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.id)
def test_good_file_is_read(row: Good) -> None:
    """A file of the contract's shapes is read, whole and as it says."""
    assert read(row.content) == row.samples


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.id)
def test_bad_file_is_refused_whole(row: Bad) -> None:
    """A bad file gives nothing but a reason, which says where and what is wrong."""
    reason = refusal(row.content)
    assert row.place in reason
    assert row.problem in reason


# Limits: the last file that is read, the first that is refused


def padded(size: int) -> bytes:
    return A.encode().ljust(size)


def with_name_in_header(size: int) -> bytes:
    """Return gzip of this size, nearly all of it the file name in its header."""
    start, rest = b"\x1f\x8b\x08\x08" + bytes(6), b"\0" + zipped(A.encode())[10:]
    return start + b"x" * (size - len(start) - len(rest)) + rest


def with_names(count: int, timestamp: int = NOW) -> bytes:
    """Return a line with this many metrics."""
    members = "".join(f', "n{n}": 1' for n in range(count))
    return f'{{"timestamp": {timestamp}{members}}}\n'.encode()


def with_objects(count: int) -> bytes:
    """Return one sample with empty objects in it; it counts as one, too."""
    members = "".join(f', "n{n}": {{}}' for n in range(count - 1))
    return f'{{"timestamp": {NOW}, "a": 1{members}}}'.encode()


@pytest.mark.parametrize(
    ("make_last", "make_first_refused", "problem"),
    [
        pytest.param(
            lambda: padded(MAX_FILE_BYTES),
            lambda: padded(MAX_FILE_BYTES + 1),
            "over 10,485,760 bytes.",
            id="bytes-plain",
        ),
        pytest.param(
            lambda: with_name_in_header(MAX_FILE_BYTES),
            lambda: with_name_in_header(MAX_FILE_BYTES + 1),
            "over 10,485,760 bytes.",
            id="bytes-compressed",
        ),
        pytest.param(
            lambda: zipped(padded(MAX_FILE_BYTES)),
            lambda: zipped(padded(MAX_FILE_BYTES + 1)),
            "over 10,485,760 bytes decompressed.",
            id="bytes-decompressed",
        ),
        pytest.param(
            lambda: zipped(padded(100), b" " * (MAX_FILE_BYTES - 100)),
            lambda: zipped(padded(100), b" " * (MAX_FILE_BYTES - 100), b" "),
            "over 10,485,760 bytes decompressed.",
            id="bytes-decompressed-of-members",
        ),
        pytest.param(
            lambda: with_objects(MAX_OBJECTS - 1)[:-1] + b', "tags": []}',
            lambda: with_objects(MAX_OBJECTS)[:-1] + b', "tags": []}',
            "more than 350,000 objects and lists.",
            id="objects-and-lists",
        ),
        pytest.param(
            lambda: with_names(MAX_NAMES) + with_names(MAX_NAMES, NOW - 1),
            lambda: with_names(1) + with_names(MAX_NAMES + 1, NOW - 1),
            "line 2: more than 50,000 different metric names",
            id="names",
        ),
    ],
)
def test_limit(
    make_last: Callable[[], bytes], make_first_refused: Callable[[], bytes], problem: str
) -> None:
    """A limit is exact; of the file beyond it the reason says what is too much."""
    assert read(make_last())
    assert problem in refusal(make_first_refused())


@pytest.mark.parametrize(
    ("timestamp", "now", "max_age", "problem"),
    [
        pytest.param(NOW + 600, NOW, MAX_AGE, None, id="latest"),
        pytest.param(NOW + 600, NOW - 0.5, MAX_AGE, "s ahead", id="ahead-by-half-a-second"),
        pytest.param(NOW + 601, NOW, MAX_AGE, "601 s ahead", id="ahead-by-a-second"),
        pytest.param(NOW + 601, NOW, 0, "601 s ahead", id="ahead-without-age-limit"),
        pytest.param(NOW - 3600, NOW, MAX_AGE, None, id="oldest"),
        pytest.param(NOW - 3600, NOW + 0.5, MAX_AGE, "s old", id="old-by-half-a-second"),
        pytest.param(NOW - 3601, NOW, MAX_AGE, "3601 s old", id="old-by-a-second"),
        pytest.param(NOW - 60, NOW, 60, None, id="oldest-of-another-limit"),
        pytest.param(NOW - 61, NOW, 60, "older than 60 s", id="older-than-another-limit"),
        pytest.param(0, NOW, 0, None, id="1970-without-age-limit"),
        pytest.param(LATEST_TIMESTAMP - 1, LATEST_TIMESTAMP, MAX_AGE, None, id="year-5138"),
        pytest.param(
            LATEST_TIMESTAMP, LATEST_TIMESTAMP, MAX_AGE, "milliseconds?", id="beyond-year-5138"
        ),
    ],
)
def test_window(timestamp: int, now: float, max_age: int, problem: str | None) -> None:
    """What Datadog would drop behind a 202 is refused, to the second."""
    content = with_timestamp(str(timestamp)).encode()
    if problem is None:
        assert read_stats_file(content, now=now, max_age=max_age) == [(timestamp, (), {"a": 1})]
    else:
        with pytest.raises(StatsFileError, match=re.escape(problem)):
            read_stats_file(content, now=now, max_age=max_age)


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        pytest.param("1575839611.9", NOW + MAX_AHEAD_SECONDS, id="latest"),
        pytest.param("1575835411.9", NOW - MAX_AGE, id="oldest"),
    ],
)
def test_fraction_is_cut_off_before_the_window(written: str, read_as: int) -> None:
    """The second that is sent is the one that is looked at."""
    assert read(with_timestamp(written).encode()) == [(read_as, (), {"a": 1})]


def test_window_of_a_sample_already_read() -> None:
    """A sample may have waited since it was read: the same rule tells when it is too old."""
    check_timestamp(NOW, NOW + MAX_AGE, MAX_AGE)
    with pytest.raises(StatsFileError, match=f"timestamp {NOW} is 3601 s old"):
        check_timestamp(NOW, NOW + MAX_AGE + 1, MAX_AGE)


# gzip

SAMPLE_GZIP = zipped(SAMPLE)


def test_truncated_gzip_is_refused() -> None:
    """Wherever an upload broke off, nothing of the file is sent."""
    problems = {0: "the file is empty", 1: "line 1 column 1."}
    for length in range(len(SAMPLE_GZIP)):
        assert problems.get(length, "ends too early") in refusal(SAMPLE_GZIP[:length]), length


def test_damaged_gzip_gives_no_wrong_point() -> None:
    """A damaged byte is noticed, or was of no importance, such as the time in the header."""
    for position in range(len(SAMPLE_GZIP)):
        damaged = bytearray(SAMPLE_GZIP)
        damaged[position] ^= 0xFF
        try:
            samples = read(bytes(damaged))
        except StatsFileError:
            continue
        assert samples == SAMPLE_READ, position


def bomb(megabytes: int) -> bytes:
    """Return one gzip member of white space, a thousandth of its size."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(b" " * 2**20) + deflate.flush(zlib.Z_FULL_FLUSH)
    return zipped(b"")[:10] + block * megabytes + deflate.flush() + bytes(8)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(bomb(300), id="one-member"),
        pytest.param(zipped(b" " * 2**20) * 300, id="many-members"),
        pytest.param(SAMPLE_GZIP + bomb(300), id="after-a-sample"),
    ],
)
def test_gzip_bomb_costs_bounded_memory(content: bytes) -> None:
    """Of 300 MB no more than the limit is ever decompressed (held twice while it grows)."""
    assert len(content) < MAX_FILE_BYTES / 10
    with memory_under(3 * MAX_FILE_BYTES):
        assert "over 10,485,760 bytes decompressed" in refusal(content)


def wide(objects: int, names: int, *, same: bool = False) -> bytes:
    """Return an array of objects with so many names each; each its own, or all the same."""
    lines = (
        with_names(names, NOW - n).replace(b'"n', b'"n' if same else b'"n%d_' % n).strip()
        for n in range(objects)
    )
    return b"[" + b",".join(lines) + b"]"


@pytest.mark.parametrize("content", [wide(1, 650_000), wide(20, 32_000), wide(600, 1_000)])
def test_far_too_many_names_cost_bounded_memory(content: bytes) -> None:
    """Each takes 200 bytes once it is decoded, so they are counted before."""
    assert len(content) < MAX_FILE_BYTES
    with memory_under(4 * MAX_FILE_BYTES):
        assert "more than 50,000 different metric names" in refusal(content)


NAMES = 200  # in place of MAX_NAMES, for speed
WITHIN = with_names(NAMES).partition(b", ")[2].rstrip()
NESTED = b'{"timestamp": %d, "tags": ["x:\\"y\\""], "in": {%s}\n' % (NOW, WITHIN)
TAGS = (b", ".join(b'"x:%d"' % (99 * n + tag) for tag in range(99)) for n in range(5))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(wide(3, NAMES, same=True), id="same-names"),
        pytest.param(NESTED + NESTED.replace(b"x:", b"z:"), id="nested-names"),
        pytest.param(
            with_names(150) + with_names(150, NOW - 1).replace(b'":', b'" :'), id="spaces"
        ),
        pytest.param(with_names(1)[:-2] + b', "tags": ["x%s"]}' % (b":" * 500), id="colons"),
        pytest.param(
            b"".join(
                b'{"timestamp": %d, "tags": [%s], "m": 1, "n": 2}\n' % (NOW, tags) for tags in TAGS
            ),
            id="tags",
        ),
    ],
)
def test_names_are_counted_once_each(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else is: neither what holds them, nor the timestamp and the tags."""
    monkeypatch.setattr(ddg_stats_file, "MAX_NAMES", NAMES)
    assert read(content)


@pytest.mark.parametrize(
    ("content", "most"),
    [
        pytest.param(b"{}", 2, id="plain"),
        pytest.param(b"{" * 20_000_000, MAX_FILE_BYTES, id="plain-and-large"),
        pytest.param(zipped(b""), 1032 * len(zipped(b"")), id="gzip"),
        pytest.param(bomb(20), MAX_FILE_BYTES, id="gzip-and-large"),
    ],
)
def test_most_bytes_of_a_file(content: bytes, most: int) -> None:
    """Never fewer than it has, up to the limit."""
    assert most_plain_bytes(content) == most


# Tags

# Of github.com/DataDog/datadog-agent (1085c69), pkg/trace/traceutil/normalize_test.go
AGENT_TAGS = [
    ("#test_starting_hash", "test_starting_hash"),
    ("TestCAPSandSuch", "testcapsandsuch"),
    ("Test Conversion Of Weird !@#$%^&**() Characters", "test_conversion_of_weird_characters"),
    ("$#weird_starting", "weird_starting"),
    ("allowed:c0l0ns", "allowed:c0l0ns"),
    ("1love", "love"),
    ("ünicöde", "ünicöde"),
    ("ünicöde:metäl", "ünicöde:metäl"),
    ("Data🐨dog🐶 繋がっ⛰てて", "data_dog_繋がっ_てて"),
    (" spaces   ", "spaces"),
    (" #hashtag!@#spaces #__<>#  ", "hashtag_spaces"),
    ("_foo", "foo"),
    ("contiguous_____underscores", "contiguous_underscores"),
    ("foo_", "foo"),
    ("\u017fodd_\u017fcase\u017f", "\u017fodd_\u017fcase\u017f"),
    ("", ""),
    (" ", ""),
    ("ok", "ok"),
    ("™Ö™Ö™™Ö™", "ö_ö_ö"),
    ("AlsO:ök", "also:ök"),
    ("___trim", "trim"),
    ("fun:ky__tag/1", "fun:ky_tag/1"),
    ("fun:ky@tag/2", "fun:ky_tag/2"),
    ("fun:ky@@@tag/3", "fun:ky_tag/3"),
    ("tag:1/2.3", "tag:1/2.3"),
    ("---fun:k####y_ta@#g/1_@@#", "fun:k_y_ta_g/1"),
    ("AlsO:œ#@ö))œk", "also:œ_ö_œk"),
    ("a" * 888, "a" * 200),
    ("a\ufffd", "a"),
    ("a\ufffd\ufffd", "a"),
    ("a\ufffd\ufffdb", "a_b"),
    ("A" + "0" * 197 + " " + "0" * 12, "a" + "0" * 197 + "_0"),
]

# The agent keeps a colon in front, for tags of traces; Datadog's documentation wants a letter there
# (getting_started/tagging), and so does the agent of its intake (pkg/util/metricname/tagname.go).
COLON_TAGS = [
    (":testing", "testing"),
    (":::test", "test"),
    (":still_ok", "still_ok"),
    ("12.:trim@", "trim"),
    ("12.:trim@@", "trim"),
]

OUR_TAGS = [
    ("env:prod", "env:prod"),
    ("Env:PROD", "env:prod"),
    ("a_-_:./b", "a_-_:./b"),  # an underscore beside another sign stays
    ("a" * 199 + "!b", "a" * 199),  # what ends in _ once cut ends one character earlier
    ("_" * 500 + "a", "a"),
    ("²³¼a²", "a"),  # no decimal digits
    ("x٣", "x٣"),  # a decimal digit of another script
    ("a\x00\n\u2028b", "a_b"),
    # Letter by letter, as Go does it; str.lower() looks at the neighbours of the one ...
    ("ΟΔΟΣ", "οδοσ"),
    # ... and makes two characters of the other
    ("İstanbul", "istanbul"),
]


@pytest.mark.parametrize(("written", "sent"), AGENT_TAGS + COLON_TAGS + OUR_TAGS)
def test_tag_is_normalised_as_datadog_does(written: str, sent: str) -> None:
    """A tag is sent as it will be shown, so that a collision is seen before it happens."""
    assert normalise_tag(written) == sent


@examples
@given(st.text(max_size=30) | st.text("aZé_: -.1/İΣςſ🐨²٣", max_size=30), st.integers(1, 20))
def test_tag_once_normalised_stays(part: str, times: int) -> None:
    """Datadog finds nothing to change in a tag that is sent; the local one has rules of its own."""
    tag = part * times
    sent = normalise_tag(tag)
    assert sent == normalise_tag(sent) == stored_tag(tag)
    assert len(sent) <= MAX_TAG_CHARACTERS


@pytest.mark.parametrize(
    ("key", "prefix", "tag"),
    [
        pytest.param("stats/etl/a.json", "stats/", "job:etl", id="first-folder"),
        pytest.param("stats/etl/2019/12/08/a.json", "stats/", "job:etl", id="folders-below"),
        pytest.param("stats/etl/", "stats/", "job:etl", id="folder-itself"),
        pytest.param("stats/a.json", "stats/", "", id="directly-below-the-prefix"),
        pytest.param("stats/", "stats/", "", id="prefix-itself"),
        pytest.param("stats/My Job/a.json", "stats/", "job:my_job", id="normalised"),
        pytest.param("stats/42/a.json", "stats/", "job:42", id="digits"),
        pytest.param("stats/ÄÖ/a.json", "stats/", "job:äö", id="letters-of-any-script"),
        pytest.param("stats/a:b/x.json", "stats/", "job:a:b", id="colon"),
        pytest.param("stats/stats/a.json", "stats/", "job:stats", id="folder-named-as-the-prefix"),
        pytest.param(f"stats/{'x' * 300}/a.json", "stats/", f"job:{'x' * 196}", id="cut"),
        pytest.param("in/team/etl/a.json", "in/team/", "job:etl", id="longer-prefix"),
        pytest.param("etl/a.json", "", "job:etl", id="no-prefix"),
        pytest.param("a.json", "", "", id="no-prefix-no-folder"),
        pytest.param("stats/etl/a.json", "stats", "job:etl", id="prefix-without-slash"),
        pytest.param("stats//etl/a.json", "stats/", "job:etl", id="slash-too-many"),
        pytest.param("stats//a.json", "stats/", "", id="slash-too-many-no-folder"),
        pytest.param("other/etl/a.json", "stats/", "", id="not-below-the-prefix"),
        pytest.param("stats/_/a.json", "stats/", "", id="nothing-left"),
        pytest.param("stats/!!!/a.json", "stats/", "", id="nothing-left-of-several"),
    ],
)
def test_job_tag(key: str, prefix: str, tag: str) -> None:
    """The job is the first folder below the prefix, normalised as any tag."""
    assert job_tag(key, prefix) == tag


def test_shared_tags_join_those_of_the_file() -> None:
    """Tags of the job and the deployment are on every sample, each tag once."""
    content = f"{with_tags(['X', 'env:prod'])}\n{A}".encode()
    assert read(content, tags=("job:etl", "env:prod")) == [
        (NOW, ("env:prod", "job:etl", "x"), {"a": 1}),
        (NOW, ("env:prod", "job:etl"), {"a": 1}),
    ]


def test_shared_tags_count_when_values_collide() -> None:
    """Objects that differ only in a tag that all have anyway overwrite each other."""
    content = f"{with_tags(['job:etl'])}\n{A}".encode()
    assert 'line 2: "a" has two values' in refusal(content, tags=("job:etl",))


def test_shared_tags_count_in_the_limit() -> None:
    """Datadog drops a series with more than MAX_TAGS behind a 202, whoever gave them."""
    content = with_tags([f"t{n}" for n in range(MAX_TAGS - 1)]).encode()
    assert len(read(content, tags=("job:etl",))[0].tags) == MAX_TAGS
    assert f"more than {MAX_TAGS}" in refusal(content, tags=("job:etl", "env:prod"))


# Time and memory


def test_long_tags_are_not_kept() -> None:
    """A function that stays warm for days doesn't fill up with the tags of bad files."""
    tracemalloc.start()
    try:
        for n in range(10):
            normalise_tag(f"{n}{'x' * 2**20}")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 2**20


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
        pytest.param(lambda: zipped(b"") * 500_000, "the file is empty", id="gzip-members"),
        pytest.param(
            lambda: b'{"timestamp": ' + b"1" * 10_000_000 + b"}", '"timestamp"', id="digits"
        ),
        pytest.param(lambda: b"[" * MAX_OBJECTS, "nested deeper", id="brackets"),
        pytest.param(lambda: A.encode() + b"\n" * 10_000_000 + b"x", "line 10000001", id="lines"),
    ],
)
def test_hostile_file_is_refused_in_time(make: Callable[[], bytes], problem: str) -> None:
    """No file of ten megabytes takes more than a few seconds, whatever is in it."""
    content = make()
    assert len(content) <= MAX_FILE_BYTES
    with processor_time(8):
        assert problem in refusal(content)


# Any file

CONTENTS = [row.content for row in GOOD] + [row.content for row in BAD]


@st.composite
def edited(draw: st.DrawFn) -> bytes:
    """Return a row of the tables with some of its bytes replaced: nearly a stats file."""
    content = draw(st.sampled_from(CONTENTS))
    start = draw(st.integers(0, len(content)))
    end = start + draw(st.integers(0, 8))
    inserted = draw(st.binary(max_size=4) | st.sampled_from([*map(bytes, b'{}[],:"\\\n19-.e')]))
    return content[:start] + inserted + content[end:]


def written_as_json(value: object) -> bytes:
    return json.dumps(value).encode()


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=8,
)
any_bytes = st.one_of(
    st.binary(max_size=200),
    edited(),
    json_values.map(written_as_json),
    st.fixed_dictionaries({"timestamp": st.just(NOW), "a": json_values}).map(written_as_json),
)


@examples
@given(any_bytes | any_bytes.map(gzip.compress))
def test_any_bytes_are_samples_or_a_reason(content: bytes) -> None:
    """Whatever arrives, nothing but StatsFileError comes of it."""
    try:
        samples = read(content)
    except StatsFileError:
        assert refusal(content)
    else:
        assert samples
        assert all(sample.values for sample in samples)


def leaves(members: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in members.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{below}", number) for below, number in leaves(value))
        elif value is not None:
            yield name, value


def expected_points(values: list[dict[str, Any]]) -> Points | None:
    """Return the points of objects whose every part is good; None where together they aren't."""
    points: Points = {}
    for members in values:
        second = int(members["timestamp"])
        tags = tuple(sorted({stored_tag(tag) for tag in members["tags"] or ()}))
        metrics = list(
            leaves({name: members[name] for name in members.keys() - {"timestamp", "tags"}})
        )
        if not metrics or "" in tags:
            return None
        for metric, value in metrics:
            series = points.setdefault((metric, tags), {})
            if second in series:
                return None
            series[second] = float(value)
    return points


# What is accepted arrives


@pytest.fixture(scope="module")
def datadog() -> Iterator[DatadogServer]:
    """A strict local Datadog at the second of the sample."""
    with DatadogServer("test-key", clock=lambda: NOW) as server:
        yield server


def stored_points(datadog: DatadogServer, samples: list[Sample]) -> Points:
    """Send samples as gauges; return what Datadog has of them then."""
    series = [
        {
            "metric": metric,
            "type": "gauge",
            "points": [[sample.timestamp, value]],
            "tags": sample.tags,
        }
        for sample in samples
        for metric, value in sample.values.items()
    ]
    datadog.points.clear()
    request = urllib.request.Request(  # noqa: S310 - to http://127.0.0.1
        f"{datadog.url}/api/v1/series",
        zlib.compress(json.dumps({"series": series}).encode()),
        {
            "Content-Type": "application/json",
            "Content-Encoding": "deflate",
            "DD-API-KEY": "test-key",
        },
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - likewise
        assert answer.status == 202
    assert not datadog.dropped
    return datadog.points


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.id)
def test_good_file_arrives(datadog: DatadogServer, row: Good) -> None:
    """Datadog keeps each point that was read, under the name and the tags that were read."""
    samples = read(row.content)
    assert stored_points(datadog, samples) == points_of(samples)


@examples
@given(st.data(), st.lists(objects, min_size=1, max_size=3))
def test_points_are_those_of_a_simpler_reader_and_arrive(
    datadog: DatadogServer, data: st.DataObject, values: list[dict[str, Any]]
) -> None:
    """However objects are written to a file, each of their points is in Datadog, or it is refused.

    No point is lost, renamed or changed on its way through JSON, twice.
    """
    content = data.draw(rendered(values))
    expected = expected_points(values)
    if expected is None:
        assert refusal(content)
    else:
        samples = read(content)
        assert points_of(samples) == expected
        assert stored_points(datadog, samples) == expected
