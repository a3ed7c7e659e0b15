"""The contract with the jobs: which files are read, as which samples, and which are refused."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ddg_json_file
import ddg_s3_objects
from ddg_json_file import MAX_FILE_BYTES, MAX_NAMES, MAX_OBJECTS, StatsFileError
from ddg_stats_file import MAX_TAG_CHARACTERS, MAX_TAGS, normalise_tag, read_stats_file
from local.datadog_server import stored_metric, stored_tag
from tests import stats_files as files
from tests.memory import memory_under
from tests.stats_files import BAD, GOOD, MAX_AGE, NOW, SAMPLE, A, Bad, Good, examples, read, refusal

# --- The tables ---


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.id)
def test_good_file_is_read(row: Good) -> None:
    assert read(files.content(row)) == row.samples


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.id)
def test_bad_file_is_refused(row: Bad) -> None:
    """The reason says what is wrong, and where."""
    reason = refusal(files.content(row))
    assert row.place in reason
    assert row.problem in reason


@examples
@given(st.text("aB_.", max_size=7).map("a".__add__))
def test_name_is_accepted_if_datadog_keeps_it(metric: str) -> None:
    """Datadog would store another name, and overwrite that metric's values."""
    content = files.name(metric).encode()
    if stored_metric(metric) == metric:
        assert read(content) == [(NOW, (), {metric: 1})]
    else:
        assert "would be rewritten by Datadog" in refusal(content)


# --- Limits ---


def padded(size: int) -> bytes:
    return A.encode().ljust(size)


def with_name_in_header(size: int) -> bytes:
    """Return a gzip file of this size; its header holds a long file name."""
    start, rest = b"\x1f\x8b\x08\x08" + bytes(6), b"\0" + files.zipped(A.encode())[10:]
    return start + b"x" * (size - len(start) - len(rest)) + rest


def inflated(size: int) -> bytes:
    """Return a gzip file of three members with this size when decompressed."""
    return files.zipped(padded(100), b" " * (size - 101), b" ")


def with_names(count: int, timestamp: int = NOW) -> bytes:
    """Return a line with this many metrics."""
    members = "".join(f', "n{n}": 1' for n in range(count))
    return f'{{"timestamp": {timestamp}{members}}}\n'.encode()


def with_objects(count: int) -> bytes:
    """Return one sample with this many objects and lists, including itself and its tags."""
    members = "".join(f', "n{n}": {{}}' for n in range(count - 2))
    return f'{{"timestamp": {NOW}, "a": 1, "tags": []{members}}}'.encode()


def with_another_name(count: int) -> bytes:
    return with_names(1) + with_names(count, NOW - 1)


LIMITS: dict[str, tuple[Callable[[int], bytes], int, str]] = {
    "plain": (padded, MAX_FILE_BYTES, "over 10,485,760 bytes."),
    "gzip": (with_name_in_header, MAX_FILE_BYTES, "over 10,485,760 bytes."),
    "inflated": (inflated, MAX_FILE_BYTES, "over 10,485,760 bytes decompressed."),
    "objects": (with_objects, MAX_OBJECTS, "more than 350,000 objects and lists."),
    "names": (with_another_name, MAX_NAMES, "line 2: more than 50,000 different metric names"),
}


@pytest.mark.parametrize(("make", "limit", "problem"), LIMITS.values(), ids=LIMITS)
def test_limit_is_exact(make: Callable[[int], bytes], limit: int, problem: str) -> None:
    """A file at the limit is read; for one over it, the reason names the limit."""
    assert read(make(limit))
    assert problem in refusal(make(limit + 1))


@pytest.mark.parametrize(
    ("timestamp", "now", "max_age", "problem"),
    [
        (NOW + 600, NOW - 0.5, MAX_AGE, "600 s ahead"),
        (NOW - 3600, NOW + 0.5, MAX_AGE, "3600 s old"),
        (NOW - 61, NOW, 60, "older than 60 s"),
    ],
)
def test_window_is_exact(timestamp: int, now: float, max_age: int, problem: str) -> None:
    """Datadog would answer 202 and drop the point. A max_age of 0 means any age."""
    content = files.at(str(timestamp)).encode()
    with pytest.raises(StatsFileError, match=re.escape(problem)):
        read_stats_file(content, now=now, max_age=max_age)
    assert read_stats_file(content, now=timestamp, max_age=1)
    assert read_stats_file(files.at("0").encode(), now=now, max_age=0)


# --- gzip ---

SAMPLE_GZIP = files.zipped(SAMPLE)


def test_truncated_gzip_is_refused() -> None:
    problems = {0: "the file is empty", 1: "line 1 column 1."}
    for length in range(len(SAMPLE_GZIP)):
        assert problems.get(length, "ends too early") in refusal(SAMPLE_GZIP[:length]), length


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


HOSTILE = {
    "bomb": (SAMPLE_GZIP + bomb(300), "bytes decompressed"),
    "names": (wide(600, 1_000), "different metric names"),
}


@pytest.mark.parametrize(("content", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_file_costs_bounded_memory(content: bytes, problem: str) -> None:
    """Decompressing stops at the limit, and names are counted before they are decoded."""
    assert len(content) < MAX_FILE_BYTES
    with memory_under(4 * MAX_FILE_BYTES):
        assert problem in refusal(content)


NAMES = 200  # instead of MAX_NAMES, for speed
WITHIN = with_names(NAMES).partition(b", ")[2].rstrip()
NESTED = b'{"timestamp": %d, "tags": ["x:\\"y\\""], "in": {%s}\n' % (NOW, WITHIN)
TAGGED = [
    files.tagged(*(f"x:{99 * n + tag}" for tag in range(99))).replace('"a"', '"a": 2, "b"')
    for n in range(5)
]
COUNTED = {
    "same": wide(3, NAMES, same=True),
    "nested": NESTED + NESTED.replace(b"x:", b"z:"),
    "with-spaces": with_names(150) + with_names(150, NOW - 1).replace(b'":', b'" :'),
    "beside-colons": files.tagged("x" + ":" * 500).encode(),
    "beside-tags": "\n".join(TAGGED).encode(),
}


@pytest.mark.parametrize("content", COUNTED.values(), ids=COUNTED)
def test_each_metric_name_counts_once(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of objects, timestamp and tags don't count."""
    monkeypatch.setattr(ddg_json_file, "MAX_NAMES", NAMES)
    assert read(content)


# --- Tags ---

# Of github.com/DataDog/datadog-agent (1085c69), pkg/trace/traceutil/normalize_test.go
AGENT_TAGS = {
    "Test Conversion Of Weird !@#$%^&**() Characters": "test_conversion_of_weird_characters",
    "Data🐨dog🐶 繋がっ⛰てて": "data_dog_繋がっ_てて",
    "\u017fodd_\u017fcase\u017f": "\u017fodd_\u017fcase\u017f",
    "": "",
    "---fun:k####y_ta@#g/1_@@#": "fun:k_y_ta_g/1",
    "a" * 888: "a" * 200,
    # For traces the agent keeps a colon in front. Datadog's documentation (getting_started/tagging)
    # and the port of its intake (pkg/util/metricname/tagname.go) require a letter
    ":::test": "test",
    "a_-_:./b": "a_-_:./b",  # an underscore next to another sign stays
    "a" * 199 + "!b": "a" * 199,  # a tag that ends in _ once it is cut is one shorter
    "!" * 1_998 + "abcd": "ab",  # only ten times the length is looked at
    "²³¼a²": "a",  # no decimal digits
    "a\x00\n\u2028b": "a_b",
    # Letter by letter, as in Go: str.lower() looks at the neighbours of "Σ" ...
    "ΟΔΟΣ": "οδοσ",
    "İstanbul": "istanbul",  # ... and makes two characters of "İ"
}


@pytest.mark.parametrize(("written", "sent"), AGENT_TAGS.items())
def test_tag_is_normalised_as_in_datadog(written: str, sent: str) -> None:
    """Otherwise two tags could become one in Datadog, and their points overwrite each other."""
    assert normalise_tag(written) == sent


@examples
@given(st.text(max_size=30) | st.text("aZé_: -.1/İΣςſ🐨²٣", max_size=30), st.integers(1, 20))
def test_normalised_tag_stays_the_same(part: str, times: int) -> None:
    """Datadog has nothing to change; the local Datadog has its own implementation."""
    tag = part * times
    sent = normalise_tag(tag)
    assert sent == normalise_tag(sent) == stored_tag(tag)
    assert len(sent) <= MAX_TAG_CHARACTERS


@pytest.mark.parametrize(
    ("key", "prefix", "tag"),
    [
        ("stats/My Job/a.json", "stats/", "job:my_job"),
        ("stats/a.json", "stats/", ""),  # without a folder
        (f"stats/{'x' * 300}/a.json", "stats/", f"job:{'x' * 196}"),
        ("etl/a.json", "", "job:etl"),
        ("stats/etl/a.json", "stats", "job:etl"),
        ("stats//etl/a.json", "stats/", "job:etl"),
        ("other/etl/a.json", "stats/", ""),
        ("stats/_!/a.json", "stats/", ""),  # normalised to nothing
    ],
)
def test_job_tag(key: str, prefix: str, tag: str) -> None:
    """The job is the first folder below the prefix, normalised like any tag."""
    assert ddg_s3_objects.job_tag(ddg_s3_objects.job_folder(key, prefix)) == tag


def test_shared_tags_count_for_collisions_and_the_limit() -> None:
    """Objects that differ only in a shared tag collide; Datadog drops a series with too many."""
    collision = f"{files.tagged('job:etl')}\n{A}".encode()
    assert 'line 2: "a" has two values' in refusal(collision, tags=("job:etl",))
    content = files.tagged(*(f"t{n}" for n in range(MAX_TAGS - 1))).encode()
    assert len(read(content, tags=("job:etl",))[0].tags) == MAX_TAGS
    assert f"more than {MAX_TAGS}" in refusal(content, tags=("job:etl", "env:prod"))


# --- Time ---


def faulty(name: str, members: int) -> bytes:
    """Return an array whose first object has this many faults, below one name."""
    faults = ", ".join(f'"{n}": ""' for n in range(members))
    others = ", {}" * (members // 99)  # to be allowed as many names
    return f'[{{"timestamp": {NOW}, "{name}": {{{faults}}}}}{others}]'.encode()


SLOW: dict[str, tuple[Callable[[], bytes], str]] = {
    "names-and-no-end": (
        lambda: with_names(600_000)[:-2] + b', "' + b'\\"' * 1_000_000,
        "different metric names",
    ),
    "gzip-members": (lambda: files.zipped(b"") * 500_000, "the file is empty"),
    "zeros-between": (lambda: (SAMPLE_GZIP + b"\0") * 10**5 + b"x", "follows the gzip"),
    "name": (lambda: files.name("a" + "_." * 5_000_000).encode(), "rewritten"),
    "long-names": (partial(faulty, "n" * 8_000_000, 100_000), "; and 99992 more"),
    "tags": (partial(faulty, "tags", 700_000), "700000 tags"),
    "brackets": (lambda: b"[" * 350_000, "nested too deep"),
    "lines": (lambda: A.encode() + b"\n" * 10_000_000 + b"x", "line 10000001"),
}


@pytest.mark.parametrize(("make", "problem"), SLOW.values(), ids=SLOW)
def test_hostile_file_is_refused_in_time(make: Callable[[], bytes], problem: str) -> None:
    """No file of 10 MB takes more than a few seconds."""
    content = make()
    assert len(content) <= 1.01 * MAX_FILE_BYTES
    started = time.process_time()
    assert problem in refusal(content)
    assert time.process_time() - started < 8


# --- Reasons ---


@pytest.mark.parametrize(
    ("members", "faults"),
    [
        pytest.param(
            '"status": "ok", "timestamp": 5e11, "b": {"ok": true, "l": []}, "rows": "-5"',
            '"status" is the string "ok": drop it, or make it a tag: "tags": ["status:ok"]; '
            '"timestamp" is the number 500000000000.0, not in epoch seconds (milliseconds?): write '
            "epoch seconds, as `date +%s` prints, or a time such as 2019-12-08T21:03:31Z; "
            '"b.ok" is a boolean: write 1 or 0, drop it, or make it a tag: "tags": ["b.ok:true"]; '
            '"b.l" is a list: drop it, or map it; '
            '"rows" is the string "-5": write it without the quotes, or drop it',
            id="values",
        ),
        pytest.param(
            '"end": "2019-12-08T21:03:31Z", "at": "2019-12-08 21:03:31", "a": 1',
            'no "timestamp": add one in epoch seconds, as `date +%s` prints; '
            '"end" is the string "2019-12-08T21:03:31Z": rename it to "timestamp", or map it; '
            '"at" is the string "2019-12-08 21:03:31": add its zone, rename it to "timestamp", or '
            "map it",
            id="times",
        ),
        pytest.param(
            '"timestamp": 1575839011, "end": "2019-12-08T21:03:31+01:00"',
            '"end" is the string "2019-12-08T21:03:31+"...: drop it, rename it to "timestamp", or '
            "map it",
            id="time-beside-the-timestamp",
        ),
        pytest.param(
            '"timestamp": 1575839011, "a": "x2345678901234567890", "b": "x2345678901234567890+", '
            f'"c": "", "d": "\\u0007", "{"e" * 110}": "x"',
            '"a" is the string "x2345678901234567890": drop it, or make it a tag: "tags": '
            '["a:x2345678901234567890"]; '
            '"b" is the string "x2345678901234567890"...: drop it, or make it a tag; '
            '"c" is the string "": drop it; '
            '"d" is the string "\\u0007": drop it, or make it a tag; '
            f'"{"e" * 80}"... is the string "x": drop it, or make it a tag',
            id="strings",
        ),
        pytest.param(
            '"timestamp": 1575839011, "a-b": 1, "9a": true, "b c": "x", "_-": 1e400',
            'metric name "a-b" would be rewritten by Datadog: write "a_b"; '
            '"9a" is a boolean: write 1 or 0, drop it, or make it a tag: "tags": ["9a:true"]; '
            'metric name "9a" would be rewritten by Datadog: write "a"; '
            '"b c" is the string "x": drop it, or make it a tag: "tags": ["b c:x"]; '
            '"_-" is not a number, or too large for a float: leave it out, or write null; '
            'metric name "_-" would be rewritten by Datadog: start with a letter; '
            "use A-Z, a-z, 0-9, _ and . only, with no _ at the end, next to another _ or next to a "
            "dot; at most 200 characters",
            id="names",
        ),
        pytest.param(
            '"tags": [1, "!", {"env": "prod"}], "timestamp": true',
            'tag 1 in "tags" is the number 1: write a string, such as "env:prod"; '
            'tag 3 in "tags" is an object: write a string, such as "env:prod"; '
            'nothing is left of the tag "!" after Datadog normalises it: start it with a letter; '
            '"timestamp" is a boolean, not an RFC 3339 time: write epoch seconds, as `date '
            "+%s` prints, or a time such as 2019-12-08T21:03:31Z; "
            "no metric besides the timestamp: write at least one, "
            'such as {"timestamp": <epoch seconds>, "processed.data": 321}',
            id="tags-and-no-metric",
        ),
    ],
)
def test_reason_lists_all_faults_of_an_object(members: str, faults: str) -> None:
    """They come in the file's order, and only from its first bad object."""
    assert refusal(f"{{{members}}}".encode()) == faults
    assert refusal(f'{A}\n{{{members}}}\n{{"a": "x"}}'.encode()) == f"line 2: {faults}"


@pytest.mark.parametrize(
    ("value", "listed"),
    [
        pytest.param('"x"', 10, id="ten"),
        pytest.param('"' + r"\ud83d\udc28" * 20 + '"', 7, id="as-many-as-fit"),
    ],
)
def test_reason_is_bounded(value: str, listed: int) -> None:
    """Faults that don't fit are counted."""
    members = ", ".join(f'"n{n}": {value}' for n in range(30))
    reason = refusal(f"[{A}, {files.at_now(members)}]".encode())
    assert re.findall(r'"n(\d+)" is the string ', reason) == [*map(str, range(listed))]
    assert reason.endswith(f"; and {30 - listed} more")
