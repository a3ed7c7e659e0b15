"""Stats files, good and bad: the rows that the parser and the schema are both held to.

Every row is read at NOW, the second of the contract's sample, with files up to MAX_AGE old.
What takes megabytes, or another clock, is in test_stats_file.py.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from ddg_stats_file import MAX_DEPTH, MAX_TAGS

NOW = 1575839011
MAX_AGE = 3600

Samples = list[tuple[int, tuple[str, ...], dict[str, float]]]


class Good(NamedTuple):
    """A file that is accepted, and what is read from it."""

    id: str
    file: str | bytes  # text stands for its UTF-8
    samples: Samples

    @property
    def content(self) -> bytes:
        return as_bytes(self.file)


class Bad(NamedTuple):
    """A file that is refused, and the parts of the reason that tell where and what is wrong."""

    id: str
    file: str | bytes
    place: str
    problem: str

    @property
    def content(self) -> bytes:
        return as_bytes(self.file)


def as_bytes(file: str | bytes) -> bytes:
    return file.encode() if isinstance(file, str) else file


def with_timestamp(timestamp: str) -> str:
    """Return a file of one object; the timestamp is JSON."""
    return f'{{"timestamp": {timestamp}, "a": 1}}'


def with_value(value: str) -> str:
    """Return a file of one object; the value is JSON."""
    return f'{{"timestamp": {NOW}, "a": {value}}}'


def with_name(name: str) -> str:
    """Return a file of one object; the name is written as JSON writes it within quotes."""
    return f'{{"timestamp": {NOW}, "{name}": 1}}'


def with_tags(tags: object) -> str:
    """Return a file of one object; JSON is made of the tags."""
    return f'{{"timestamp": {NOW}, "tags": {json.dumps(tags)}, "a": 1}}'


def nested(depth: int, inside: str = "1") -> str:
    """Return JSON of as many objects, one in the other, with something innermost."""
    return '{"a": ' * depth + inside + "}" * depth


def zipped(*members: bytes) -> bytes:
    """Return a gzip file of as many members, the same whenever it is made."""
    return b"".join(gzip.compress(member, mtime=0) for member in members)


def zipped_with_name(content: bytes) -> bytes:
    """Return a gzip file that holds a file name, a comment and a checksum of its header."""
    header = b"\x1f\x8b\x08\x1a\0\0\0\0\0\xff" + b"stats.json\0" + b"hourly\0"
    checksum = (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header + checksum + zipped(content)[10:]


SAMPLE = b'{"timestamp": 1575839011, "sample.stats": 1231, "processed.data": 321}'
SAMPLE_READ: Samples = [(NOW, (), {"sample.stats": 1231, "processed.data": 321})]
A = '{"timestamp": 1575839011, "a": 1}'
A_READ: Samples = [(NOW, (), {"a": 1})]
B = '{"timestamp": 1575839012, "b": 2}'
AB_READ: Samples = [(NOW, (), {"a": 1}), (NOW + 1, (), {"b": 2})]
PRETTY = '{\n  "timestamp": 1575839011,\n  "a": 1\n}\n'
HALF_A_CHARACTER = "x\ud83d"
LONGEST = "a" * 200  # the longest name that Datadog keeps whole
PARTS = "a" * 100, "b" * 99  # likewise, once a dot has joined them


# Good or bad alike: each row fails in one way alone, these in many

# The same examples whenever they are run: a test that fails now and then is believed by nobody.
examples = settings(deadline=None, derandomize=True, max_examples=100)

# Names that Datadog's agent, too, takes to be stored as they are (pkg/util/metricname/normalize.go:
# an underscore stands between letters or digits); short and few, so that some come twice.
names = st.sampled_from(["a", "a.b", "b", "x_1", "Rows", "Rows.read"]) | st.from_regex(
    r"[A-Za-z][A-Za-z0-9]{0,3}(?:[._][A-Za-z0-9]{1,3}){0,2}", fullmatch=True
)
numbers = st.integers(-(10**308), 10**308) | st.floats(allow_nan=False, allow_infinity=False)
members = st.dictionaries(
    names.filter(lambda name: name not in ("timestamp", "tags")),
    st.recursive(
        st.one_of(numbers, numbers, st.none()),
        lambda inner: st.dictionaries(names, inner, max_size=3),
        max_leaves=4,
    ),
    min_size=1,
    max_size=4,
)
timestamps = st.integers(NOW - 3600, NOW + 600) | st.floats(NOW - 3600, NOW + 600)
timestamps |= st.sampled_from([NOW, NOW + 0.5, NOW + 1])
tags = st.lists(st.text(max_size=10).map("T{}".format), max_size=3)
tags |= st.sampled_from([None, [], ["x"], ["X!"], ["y", "x"], ["!"]])
objects = st.builds(
    lambda timestamp, tags, members: {"timestamp": timestamp, "tags": tags, **members},
    timestamps,
    tags,
    members,
)


@st.composite
def rendered(draw: st.DrawFn, values: list[Any]) -> bytes:
    """Write objects in any of the ways that the contract allows."""
    options: dict[str, Any] = {"ensure_ascii": draw(st.booleans())}
    layout = draw(st.sampled_from(["array", "lines", "object"]))
    if layout == "lines" or (layout == "object" and len(values) > 1):
        end = draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n\t\r\n"]))
        text = "".join(json.dumps(value, **options) + end for value in values)
    else:
        options["indent"] = draw(st.sampled_from([None, 2]))
        text = json.dumps(values[0] if layout == "object" else values, **options)
    content = draw(st.sampled_from(["", "\ufeff"])).encode() + text.encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=3)))
    if not cuts:
        return content
    return zipped(*(content[i:j] for i, j in zip([0, *cuts], [*cuts, None], strict=True)))


GOOD = [
    # Shape: one object, an array of them, or a line each
    Good("sample-of-the-contract", SAMPLE, SAMPLE_READ),
    Good("object-over-several-lines", PRETTY, A_READ),
    Good("timestamp-last", '{"a": 1, "timestamp": 1575839011}', A_READ),
    Good("white-space-of-json", f"\r\n\t {A} \t\r\n", A_READ),
    Good("array", f"[{A}, {B}]", AB_READ),
    Good("array-of-one", f"[{A}]", A_READ),
    Good("array-over-several-lines", f"[\n  {PRETTY},\n  {B}\n]\n", AB_READ),
    Good("lines", f"{A}\n{B}\n", AB_READ),
    Good("lines-without-last-line-feed", f"{A}\n{B}", AB_READ),
    Good("lines-ended-by-crlf", f"{A}\r\n{B}\r\n", AB_READ),
    Good("lines-with-blank-ones", f"\n \n{A}\n\n\t\r\n{B}\n\n", AB_READ),
    Good("line-alone", f"{A}\n", A_READ),
    # Encodings: told by the first bytes
    Good("byte-order-mark", b"\xef\xbb\xbf" + SAMPLE, SAMPLE_READ),
    Good("byte-order-mark-before-lines", f"\ufeff{A}\n{B}", AB_READ),
    Good("gzip", zipped(SAMPLE), SAMPLE_READ),
    Good("gzip-of-a-byte-order-mark", zipped(b"\xef\xbb\xbf" + SAMPLE), SAMPLE_READ),
    Good("gzip-with-name-and-comment", zipped_with_name(SAMPLE), SAMPLE_READ),
    Good("gzip-stored", gzip.compress(SAMPLE, 0, mtime=0), SAMPLE_READ),
    Good("gzip-members-of-a-line", zipped(f"{A}\n".encode(), B.encode()), AB_READ),
    Good("gzip-members-cut-anywhere", zipped(SAMPLE[:30], b"", SAMPLE[30:]), SAMPLE_READ),
    # str.splitlines would end lines at these, JSON Lines doesn't
    Good(
        "line-separators-within-strings",
        '{"timestamp": 1575839011, "tags": ["x\u2028y\u2029z\x85"], "a": 1}\n' + B,
        [(NOW, ("x_y_z",), {"a": 1}), (NOW + 1, (), {"b": 2})],
    ),
    # timestamp: epoch seconds
    Good("timestamp-as-float", with_timestamp("1575839011.0"), A_READ),
    Good("timestamp-is-truncated", with_timestamp("1575839011.999"), A_READ),
    Good("timestamp-with-exponent", with_timestamp("1.575839011e9"), A_READ),
    Good("timestamp-latest", with_timestamp("1575839611"), [(NOW + 600, (), {"a": 1})]),
    Good("timestamp-oldest", with_timestamp("1575835411"), [(NOW - 3600, (), {"a": 1})]),
    # tags: an optional list of strings, for all metrics of the object
    Good(
        "tags",
        '{"timestamp": 1575839011, "tags": ["team:data", "env:prod"], "a": 1, "b": 2}',
        [(NOW, ("env:prod", "team:data"), {"a": 1, "b": 2})],
    ),
    Good("tags-empty", with_tags([]), A_READ),
    Good("tags-null", with_tags(None), A_READ),
    Good(
        "tags-are-normalised",
        with_tags(["Env:My Prod!", "1. stage:\xc4\U0001f428x"]),
        [(NOW, ("env:my_prod", "stage:\xe4_x"), {"a": 1})],
    ),
    Good("tags-that-become-one", with_tags(["x", "X", "x!"]), [(NOW, ("x",), {"a": 1})]),
    Good(
        "tags-as-many-as-allowed",
        with_tags([f"t{n:03}" for n in range(MAX_TAGS)]),
        [(NOW, tuple(f"t{n:03}" for n in range(MAX_TAGS)), {"a": 1})],
    ),
    # Nested objects flatten with dots, null is skipped
    Good(
        "nested",
        '{"timestamp": 1575839011, "rows": {"read": 5, "by": {"day.mon": 7}}, "a": 1}',
        [(NOW, (), {"rows.read": 5, "rows.by.day.mon": 7, "a": 1})],
    ),
    Good(
        "nested-as-deep-as-allowed",
        f'{{"timestamp": 1575839011, "a": {nested(MAX_DEPTH - 1)}}}',
        [(NOW, (), {".".join("a" * MAX_DEPTH): 1})],
    ),
    Good(
        "nested-names-may-start-with-digits",
        '{"timestamp": 1575839011, "p": {"99": 1, "": 2}}',
        [(NOW, (), {"p.99": 1, "p.": 2})],
    ),
    Good(
        "nested-timestamp-and-tags-are-metrics",
        '{"timestamp": 1575839011, "last": {"timestamp": 1, "tags": 2}}',
        [(NOW, (), {"last.timestamp": 1, "last.tags": 2})],
    ),
    Good("nested-nothing", '{"timestamp": 1575839011, "a": 1, "rows": {"x": {}}}', A_READ),
    Good("null", '{"timestamp": 1575839011, "a": 1, "b": null, "rows": {"c": null}}', A_READ),
    Good("null-under-any-name", '{"timestamp": 1575839011, "a": 1, "9 \\u00fc": null}', A_READ),
    Good(
        "null-beside-the-same-name-nested",
        '{"timestamp": 1575839011, "r.x": null, "r": {"x": 1}}',
        [(NOW, (), {"r.x": 1})],
    ),
    # A number is a gauge
    Good(
        "numbers",
        '{"timestamp": 1575839011, "a": 0, "b": -1, "c": 0.1, "d": 1E3, "e": -2.5e-3, "f": 5e-324}',
        [(NOW, (), {"a": 0, "b": -1, "c": 0.1, "d": 1000.0, "e": -0.0025, "f": 5e-324})],
    ),
    Good(
        "zeros-with-a-sign",
        '{"timestamp": 1575839011, "a": -0, "b": -0.0}',
        [(NOW, (), {"a": 0, "b": -0.0})],
    ),
    Good("integer-beyond-64-bits", with_value(f"{2**64 + 1}"), [(NOW, (), {"a": 2**64 + 1})]),
    Good("integer-of-309-digits", with_value("-1" + "0" * 308), [(NOW, (), {"a": -(10**308)})]),
    Good(
        "float-at-the-limit",
        '{"timestamp": 1575839011, "a": 1.7976931348623157e308, "b": -1.7976931348623157e308}',
        [(NOW, (), {"a": 1.7976931348623157e308, "b": -1.7976931348623157e308})],
    ),
    # Names that Datadog keeps as they are
    Good(
        "name-of-every-kind-of-character",
        '{"timestamp": 1575839011, "Zz_9.0a": 1, "z": 2}',
        [(NOW, (), {"Zz_9.0a": 1, "z": 2})],
    ),
    Good(
        "names-that-differ-in-case",
        '{"timestamp": 1575839011, "a": 1, "A": 2, "Timestamp": 3}',
        [(NOW, (), {"a": 1, "A": 2, "Timestamp": 3})],
    ),
    Good("name-with-escapes", '{"\\u0074imestamp": 1575839011, "\\u0061": 1}', A_READ),
    Good("name-of-200-characters", with_name(LONGEST), [(NOW, (), {LONGEST: 1})]),
    Good(
        "name-of-200-characters-once-joined",
        f'{{"timestamp": 1575839011, "{PARTS[0]}": {{"{PARTS[1]}": 1}}}}',
        [(NOW, (), {".".join(PARTS): 1})],
    ),
    # Several objects of the same second
    Good(
        "same-second-other-metric",
        '[{"timestamp": 1575839011, "a": 1}, {"timestamp": 1575839011.5, "b": 2}]',
        [(NOW, (), {"a": 1, "b": 2})],
    ),
    Good(
        "same-second-and-metric-other-tags",
        '{"timestamp": 1575839011, "tags": ["x"], "a": 1}\n'
        '{"timestamp": 1575839011, "tags": ["y"], "a": 2}\n'
        '{"timestamp": 1575839011, "tags": ["x", "y"], "a": 3}\n'
        '{"timestamp": 1575839011, "a": 4}\n',
        [
            (NOW, ("x",), {"a": 1}),
            (NOW, ("y",), {"a": 2}),
            (NOW, ("x", "y"), {"a": 3}),
            (NOW, (), {"a": 4}),
        ],
    ),
    Good(
        "same-metric-other-second",
        '[{"timestamp": 1575839011, "a": 1}, {"timestamp": 1575839010, "a": 1}]',
        [(NOW, (), {"a": 1}), (NOW - 1, (), {"a": 1})],
    ),
]


NO_NUMBER = "A metric needs a JSON number"
TOO_LARGE = "too large for a float"
REWRITTEN = "would be rewritten by Datadog"
TWICE = "Write each name once"
TWO_VALUES = "two values for the same second and tags"
HALF = "half a character (a lone surrogate)"

BAD = [
    # Not JSON
    Bad("text", "hello", "line 1 column 1.", "Expecting value"),
    Bad(
        "comma-separated-values",
        "timestamp,a\n1575839011,1\n",
        "line 1 column 1.",
        "Expecting value",
    ),
    Bad("quotes-of-python", "{'timestamp': 1575839011}", "line 1 column 2.", "property name"),
    Bad("name-without-quotes", "{timestamp: 1575839011}", "line 1 column 2.", "property name"),
    Bad(
        "comma-after-the-last-member",
        '{"timestamp": 1575839011, "a": 1,}',
        "line 1 column",
        "Write one object",
    ),
    Bad("comma-after-the-last-element", f"[{A},]", "line 1 column", "Write one object"),
    Bad(
        "comment", f"{A} // of the last hour", "line 1 column 35.", "more than one value in a line"
    ),
    Bad("true-of-python", with_value("True"), "line 1 column 32.", "Expecting value"),
    Bad("number-with-leading-zero", with_value("01"), "line 1 column 33.", "','"),
    Bad("number-with-plus", with_value("+1"), "line 1 column 32.", "Expecting value"),
    Bad("number-without-first-digit", with_value(".5"), "line 1 column 32.", "Expecting value"),
    Bad("number-without-last-digit", with_value("1."), "line 1 column 33.", "','"),
    Bad("number-in-hexadecimal", with_value("0x10"), "line 1 column 33.", "','"),
    Bad("number-with-thousands", with_value("1_000"), "line 1 column 33.", "','"),
    Bad("number-of-another-script", with_value("\u0661"), "line 1 column 32.", "Expecting value"),
    Bad(
        "control-character-in-a-string", with_name("a\tb"), "line 1 column 29.", "control character"
    ),
    Bad("escape-that-json-lacks", with_name(r"a\x41"), "line 1 column 29.", "escape"),
    Bad("object-cut", '{"timestamp": 1575839011,\n "a": 1', "line 2 column 8.", "','"),
    Bad("string-cut", '{"timestamp": 1575839011,\n "a', "line 2 column 2.", "Unterminated string"),
    Bad("array-cut", f"[\n{A}", "line 2 column 34.", "','"),
    Bad("brace-too-many", A + "}", "line 1 column 34.", "more than one value in a line"),
    Bad("bracket-too-many", f"[{A}]]", "line 1 column 36.", "something follows the array"),
    Bad("two-objects-in-a-line", A + B, "line 1 column 34.", "more than one value in a line"),
    Bad(
        "two-objects-in-line-2",
        f"{B}\n{A} {A}",
        "line 2 column 35.",
        "more than one value in a line",
    ),
    Bad(
        "lines-ended-by-commas", f"{A},\n{B}", "line 1 column 34.", "more than one value in a line"
    ),
    Bad("lines-ended-by-cr", f"{A}\r{B}", "line 1 column 35.", "more than one value in a line"),
    Bad("lines-ended-by-separators", f"{A}\u2028{B}", "line 1 column 34.", "more than one value"),
    Bad("objects-over-several-lines", PRETTY + PRETTY, "line 1 column 1.", "each takes one line"),
    Bad("object-over-lines-2-to-5", f"{B}\n{PRETTY}", "line 2 column 1.", "each takes one line"),
    Bad("line-with-bad-json", f"{B}\noops\n{A}", "line 2 column 1.", "Expecting value"),
    Bad("array-then-an-object", f"[{A}]\n{B}", "line 2 column 1.", "something follows the array"),
    Bad("arrays-in-lines", f"[{A}]\n[{B}]", "line 2 column 1.", "something follows the array"),
    Bad("byte-order-mark-in-line-2", f"{A}\n\ufeff{B}", "line 2 column 1.", "Expecting value"),
    Bad("byte-order-mark-twice", f"\ufeff\ufeff{A}", "line 1 column 1.", "Expecting value"),
    Bad("white-space-not-of-json", f"\x0c{A}", "line 1 column 1.", "Expecting value"),
    Bad("no-break-space", f"\xa0{A}", "line 1 column 1.", "Expecting value"),
    Bad("null-bytes-at-the-end", A + "\0\0", "line 1 column 34.", "more than one value in a line"),
    # Not UTF-8
    Bad("utf-16", A.encode("utf-16"), "byte 0 ", "is not UTF-8"),
    Bad("utf-16-without-mark", A.encode("utf-16-le"), "line 1 column 2.", "property name"),
    Bad("utf-32-big-endian", b"\0\0\xfe\xff" + A.encode("utf-32-be"), "byte 2 ", "is not UTF-8"),
    Bad("latin-1", b'{"timestamp": 1575839011, "\xe4": 1}', "byte 27 ", "is not UTF-8"),
    Bad("not-utf-8-after-a-mark", b'\xef\xbb\xbf{"\xff', "byte 5 ", "is not UTF-8"),
    Bad("longer-form-of-utf-8", b'{"\xc0\xaf": 1}', "byte 2 ", "is not UTF-8"),
    Bad("surrogate-in-utf-8", b'{"\xed\xa0\x80": 1}', "byte 2 ", "is not UTF-8"),
    Bad("character-cut", A.encode() + b"\n\xe2\x82", "byte 34 ", "is not UTF-8"),
    Bad("gzip-of-latin-1", zipped(b'{"\xe4": 1}'), "byte 2 ", "is not UTF-8"),
    Bad("gzip-in-gzip", zipped(zipped(SAMPLE)), "byte 1 ", "is not UTF-8"),
    Bad("zlib", zlib.compress(SAMPLE), "byte 1 ", "is not UTF-8"),
    # Truncated or broken gzip
    Bad("gzip-magic-alone", b"\x1f\x8b", "the gzip data", "ends too early"),
    Bad("gzip-cut-in-the-checksum", zipped(SAMPLE)[:-1], "the gzip data", "ends too early"),
    Bad("gzip-cut-in-member-2", zipped(SAMPLE, b"\n")[:-9], "the gzip data", "ends too early"),
    Bad("gzip-checksum", zipped(SAMPLE)[:-8] + bytes(8), "byte 0 ", "incorrect data check"),
    Bad("gzip-length", zipped(SAMPLE)[:-4] + bytes(4), "byte 0 ", "incorrect length check"),
    Bad("gzip-block", zipped(SAMPLE)[:10] + b"\xff" * 9, "byte 0 ", "invalid block type"),
    Bad("gzip-method", b"\x1f\x8b\x07" + zipped(SAMPLE)[3:], "byte 0 ", "unknown compression"),
    Bad(
        "gzip-checksum-in-member-2",
        zipped(SAMPLE, b"\n")[:-8] + bytes(8),
        f"byte {len(zipped(SAMPLE))} ",
        "incorrect data check",
    ),
    Bad(
        "gzip-then-text",
        zipped(SAMPLE) + SAMPLE,
        f"byte {len(zipped(SAMPLE))}",
        "something follows the gzip data",
    ),
    Bad(
        "gzip-then-line-feed",
        zipped(SAMPLE) + b"\n",
        f"byte {len(zipped(SAMPLE))}",
        "something follows the gzip data",
    ),
    Bad(
        "gzip-then-zeros",
        zipped(SAMPLE) + bytes(512),
        f"byte {len(zipped(SAMPLE))}",
        "something follows the gzip data",
    ),
    Bad(
        "gzip-then-half-a-magic",
        zipped(SAMPLE) + b"\x1f",
        f"byte {len(zipped(SAMPLE))}",
        "something follows the gzip data",
    ),
    # Empty
    Bad("no-bytes", b"", "the file", "is empty"),
    Bad("white-space-alone", " \r\n\t\n", "the file", "is empty"),
    Bad("byte-order-mark-alone", "\ufeff", "the file", "is empty"),
    Bad("gzip-of-nothing", zipped(b""), "the file", "is empty"),
    Bad("gzip-members-of-nothing", zipped(b"", b"\n"), "the file", "is empty"),
    Bad("array-of-nothing", "[ ]", "in the file", "no object"),
    # Nesting beyond MAX_DEPTH
    Bad(
        "nested-too-deep",
        f'{{"timestamp": 1575839011, "b": 1, "deep": {nested(MAX_DEPTH)}}}',
        '"deep.a.a.a.',
        f"nested deeper than {MAX_DEPTH}",
    ),
    Bad(
        "nested-too-deep-around-nothing",
        f'{{"timestamp": 1575839011, "b": 1, "deep": {nested(MAX_DEPTH - 1, "{}")}}}',
        '"deep.a.a.a.',
        f"nested deeper than {MAX_DEPTH}",
    ),
    Bad(
        "nested-too-deep-in-line-2",
        f'{A}\n{{"timestamp": 1575839011, "b": {nested(MAX_DEPTH)}}}',
        "line 2: ",
        f"nested deeper than {MAX_DEPTH}",
    ),
    Bad(
        "nested-too-deep-for-the-decoder",
        f'{A}\n{{"timestamp": 1575839011, "b": {"[" * 200_000}',
        "line 2",
        f"nested deeper than {MAX_DEPTH}",
    ),
    # timestamp
    Bad("timestamp-missing", '{"a": 1}', '"timestamp"', "Add one in epoch seconds"),
    Bad("timestamp-missing-in-an-object", "{}", '"timestamp"', "Add one in epoch seconds"),
    Bad("timestamp-nested-alone", '{"a": {"timestamp": 1575839011}}', '"timestamp"', "Add one"),
    Bad("timestamp-in-capitals", '{"TIMESTAMP": 1575839011}', '"timestamp"', "Add one"),
    Bad("timestamp-null", with_timestamp("null"), '"timestamp"', "Add one in epoch seconds"),
    Bad("timestamp-string", with_timestamp('"1575839011"'), '"timestamp"', "string"),
    Bad("timestamp-date", with_timestamp('"2019-12-08T21:03:31Z"'), '"timestamp"', "string"),
    Bad("timestamp-true", with_timestamp("true"), '"timestamp"', "a boolean"),
    Bad("timestamp-list", with_timestamp("[1575839011]"), '"timestamp"', "a list"),
    Bad("timestamp-object", with_timestamp('{"s": 1575839011}'), '"timestamp"', "an object"),
    Bad("timestamp-milliseconds", with_timestamp("1575839011000"), "1575839011000", "millisec"),
    Bad(
        "timestamp-milliseconds-float", with_timestamp("1.575839011e12"), '"timestamp"', "millisec"
    ),
    Bad("timestamp-nanoseconds", with_timestamp("1575839011000000000"), '"timestamp"', "seconds"),
    Bad("timestamp-negative", with_timestamp("-1"), '"timestamp" -1', "not in epoch seconds"),
    Bad("timestamp-1e999", with_timestamp("1e999"), '"timestamp"', "not in epoch seconds"),
    Bad("timestamp-of-400-digits", with_timestamp("9" * 400), '"timestamp" 9', "not in epoch"),
    Bad("timestamp-of-5000-digits", with_timestamp("9" * 5000), '"timestamp"', "not in epoch"),
    Bad("timestamp-nan", with_timestamp("NaN"), "timestamp", "NaN is not in epoch seconds"),
    Bad("timestamp-ahead", with_timestamp("1575839612"), "1575839612", "601 s ahead"),
    Bad("timestamp-too-old", with_timestamp("1575835410"), "1575835410", "3601 s old"),
    Bad("timestamp-zero", with_timestamp("0"), "timestamp 0", "1575839011 s old"),
    Bad("timestamp-too-old-in-line-2", f"{A}\n{with_timestamp('9')}", "line 2: ", "s old"),
    Bad("timestamp-ahead-in-object-2", f"[{A}, {with_timestamp('2e9')}]", "object 2 ", "s ahead"),
    # A value that is no number, or none that a float can hold
    Bad("value-true", with_value("true"), '"a"', f"a boolean. {NO_NUMBER}"),
    Bad("value-false", with_value("false"), '"a"', f"a boolean. {NO_NUMBER}"),
    Bad("value-string", with_value('"12"'), '"a"', f'the string "12". {NO_NUMBER}'),
    Bad("value-empty-string", with_value('""'), '"a"', f'the string "". {NO_NUMBER}'),
    Bad("value-list", with_value("[1, 2]"), '"a"', f"a list. {NO_NUMBER}"),
    Bad("value-empty-list", with_value("[]"), '"a"', f"a list. {NO_NUMBER}"),
    Bad("value-list-nested", with_value('{"tags": ["x"]}'), '"a.tags"', f"a list. {NO_NUMBER}"),
    Bad("value-true-nested", with_value('{"b": {"c": true}}'), '"a.b.c"', NO_NUMBER),
    Bad("value-nan", with_value("NaN"), '"a"', "is no number, or too large for a float"),
    Bad("value-infinity", with_value("Infinity"), '"a"', "is no number, or too large for a float"),
    Bad(
        "value-minus-infinity",
        with_value("-Infinity"),
        '"a"',
        "is no number, or too large for a float",
    ),
    Bad("value-nan-in-line-3", f"{A}\n{B}\n{with_value('NaN')}", "line 3", '"a" is no number'),
    Bad("value-1e999", with_value("1e999"), '"a"', TOO_LARGE),
    Bad("value-minus-1e999", with_value("-1e999"), '"a"', TOO_LARGE),
    Bad("value-1e999-nested", with_value('{"b": 1e999}'), '"a.b"', TOO_LARGE),
    Bad("value-1e999-of-a-known-name", f"{A}\n{with_value('1e999')}", 'line 2: "a"', TOO_LARGE),
    Bad("value-of-400-digits", with_value("1" * 400), '"a"', TOO_LARGE),
    Bad("value-of-400-digits-negative", with_value("-" + "1" * 400), '"a"', TOO_LARGE),
    Bad("value-of-400-digits-in-line-2", f"{A}\n{with_value('1' * 400)}", "line 2: ", TOO_LARGE),
    Bad("value-of-5000-digits", with_value("1" * 5000), '"a"', TOO_LARGE),
    Bad("value-of-5000-digits-negative", with_value("-" + "1" * 5000), '"a"', TOO_LARGE),
    Bad("value-of-5000-digits-in-line-2", f"{A}\n{with_value('1' * 5000)}", "line 2", TOO_LARGE),
    # The same name twice
    Bad("name-twice", '{"timestamp": 1575839011, "a": 1, "a": 1}', '"a"', TWICE),
    Bad("name-twice-once-null", '{"timestamp": 1575839011, "a": null, "a": 1}', '"a"', TWICE),
    Bad("name-twice-once-escaped", '{"timestamp": 1575839011, "a": 1, "\\u0061": 2}', '"a"', TWICE),
    Bad("name-twice-in-line-2", f'{B}\n{{"timestamp": 1, "a": 1, "a": 1}}', "near line 2", TWICE),
    Bad("name-twice-nested", with_value('{"b": 1, "c": 2, "b": 3}'), '"b"', TWICE),
    Bad("name-twice-by-objects", '{"timestamp": 1575839011, "r": {}, "r": {"a": 1}}', '"r"', TWICE),
    Bad(
        "name-twice-nested-first",
        '{"timestamp": 1575839011, "a": {"b": 1}, "a.b": 1}',
        '"a.b"',
        TWICE,
    ),
    Bad(
        "name-twice-nested-last",
        '{"timestamp": 1575839011, "a.b": 1, "a": {"b": 2}}',
        '"a.b"',
        TWICE,
    ),
    Bad(
        "name-twice-nested-both",
        '{"timestamp": 1575839011, "a": {"b": {"c": 1}, "b.c": 2}}',
        '"a.b.c"',
        TWICE,
    ),
    Bad(
        "timestamp-twice", '{"timestamp": 1, "timestamp": 1575839011, "a": 1}', '"timestamp"', TWICE
    ),
    Bad("tags-twice", '{"timestamp": 1575839011, "tags": [], "tags": [], "a": 1}', '"tags"', TWICE),
    # Two values for the same metric, tags and second
    Bad("two-values-in-an-array", f"[{A}, {B}, {A}]", 'object 3 of the array: "a"', TWO_VALUES),
    Bad("two-values-in-lines", f"{A}\n\n{A}", 'line 3: "a"', TWO_VALUES),
    Bad(
        "two-values-among-others",
        f'{A}\n{{"timestamp": 1575839011, "b": 1, "a": 1}}',
        '"a"',
        TWO_VALUES,
    ),
    Bad(
        "two-values-once-nested",
        f'{with_name("r.x")}\n{{"timestamp": 1575839011, "r": {{"x": 2}}}}',
        'line 2: "r.x"',
        TWO_VALUES,
    ),
    Bad(
        "two-values-once-truncated",
        f'[{A}, {{"timestamp": 1575839011.9, "a": 2}}]',
        "object 2 ",
        TWO_VALUES,
    ),
    Bad(
        "two-values-tags-in-other-order",
        f"{with_tags(['x', 'y'])}\n{with_tags(['y', 'x'])}",
        "line 2: ",
        TWO_VALUES,
    ),
    Bad(
        "two-values-tags-once-normalised",
        f"{with_tags(['My X'])}\n{with_tags(['my_x', 'MY_X'])}",
        "line 2: ",
        TWO_VALUES,
    ),
    # Metric names that Datadog would rewrite or cut
    Bad("name-empty", with_name(""), '""', REWRITTEN),
    Bad("name-starts-with-digit", with_name("9a"), '"9a"', REWRITTEN),
    Bad("name-starts-with-underscore", with_name("_a"), '"_a"', REWRITTEN),
    Bad("name-starts-with-dot", with_name(".a"), '".a"', REWRITTEN),
    Bad("name-with-dash", with_name("a-b"), '"a-b"', REWRITTEN),
    Bad("name-with-space", with_name("a b"), '"a b"', REWRITTEN),
    Bad("name-with-slash", with_name("a/b"), '"a/b"', REWRITTEN),
    Bad("name-with-colon", with_name("a:b"), '"a:b"', REWRITTEN),
    Bad("name-with-umlaut", with_name("\xe4"), r'"\u00e4"', REWRITTEN),
    Bad("name-with-digit-of-another-script", with_name("a\u0661"), r'"a\u0661"', REWRITTEN),
    Bad("name-with-line-feed", with_name(r"a\n"), r'"a\n"', REWRITTEN),
    Bad("name-with-escape-sequence", with_name(r"\u001b[31ma"), r'"\u001b[31ma"', REWRITTEN),
    Bad("name-of-201-characters", with_name(LONGEST + "a"), '"aaaaaaaa', REWRITTEN),
    Bad(
        "name-of-201-characters-once-joined",
        f'{{"timestamp": 1575839011, "a{PARTS[0]}": {{"{PARTS[1]}": 1}}}}',
        '"aaaaaaaa',
        REWRITTEN,
    ),
    Bad("name-of-100000-characters", with_name("x" * 100_000), '"xxxxxxxx', REWRITTEN),
    Bad("name-nested-with-dash", with_value('{"b-c": 1}'), '"a.b-c"', REWRITTEN),
    Bad(
        "name-nested-under-a-digit", '{"timestamp": 1575839011, "9": {"a": 1}}', '"9.a"', REWRITTEN
    ),
    Bad("name-nested-under-nothing", '{"timestamp": 1575839011, "": {"a": 1}}', '".a"', REWRITTEN),
    Bad(
        "name-with-dash-in-line-2",
        f"{A}\n{with_name('a-b')}",
        'line 2: metric name "a-b"',
        REWRITTEN,
    ),
    # Lone surrogates
    Bad("surrogate-in-a-name", with_name(r"a\ud83d"), r'"a\ud83d"', HALF),
    Bad(
        "surrogate-in-a-name-of-null",
        '{"timestamp": 1575839011, "a": 1, "\\udc28": null}',
        r'"\udc28"',
        HALF,
    ),
    Bad(
        "surrogate-in-a-name-of-objects",
        '{"timestamp": 1575839011, "a": 1, "\\udc28": {}}',
        r'"\udc28"',
        HALF,
    ),
    Bad("surrogate-in-a-nested-name", with_value('{"b": 1, "\\ud83d": null}'), r'"\ud83d"', HALF),
    Bad("surrogate-in-a-tag", with_tags(["x:\ud83d"]), r'"x:\ud83d"', HALF),
    Bad("surrogates-in-wrong-order", with_tags(["x:\udc28\ud83d"]), r'"x:\udc28\ud83d"', HALF),
    Bad(
        "surrogate-in-object-2",
        f"[{A}, {with_tags([HALF_A_CHARACTER])}]",
        "object 2 of the array: ",
        HALF,
    ),
    # Tags
    Bad("tags-string", with_tags("x"), '"tags"', "Write a list of strings"),
    Bad("tags-object", with_tags({"env": "prod"}), '"tags"', "Write a list of strings"),
    Bad("tags-number", with_tags(1), '"tags"', "Write a list of strings"),
    Bad("tags-true", with_tags(True), '"tags"', "Write a list of strings"),
    Bad("tag-number", with_tags(["x", 1]), '"tags"', "holds a number. Write a list of strings"),
    Bad("tag-true", with_tags([True]), '"tags"', "holds a boolean. Write a list of strings"),
    Bad("tag-null", with_tags([None]), '"tags"', "holds null. Write a list of strings"),
    Bad("tag-list", with_tags([["x"]]), '"tags"', "holds a list. Write a list of strings"),
    Bad("tag-object", with_tags([{}]), '"tags"', "holds an object. Write a list of strings"),
    Bad("tag-empty", with_tags([""]), 'tag ""', "nothing is left of"),
    Bad("tag-of-spaces", with_tags(["x", "  "]), 'tag "  "', "nothing is left of"),
    Bad("tag-of-digits", with_tags(["2019"]), 'tag "2019"', "nothing is left of"),
    Bad("tag-of-signs", with_tags(["_-:./"]), 'tag "_-:./"', "nothing is left of"),
    Bad("tag-of-a-picture", with_tags(["\U0001f428"]), r'tag "\ud83d\udc28"', "nothing is left of"),
    Bad("tag-empty-in-line-2", f"{A}\n{with_tags([''])}", "line 2: ", 'nothing is left of tag ""'),
    Bad(
        "tags-one-too-many",
        with_tags([f"t{n:03}" for n in range(MAX_TAGS + 1)]),
        "101 tags",
        f"more than {MAX_TAGS}",
    ),
    # No metric at all
    Bad("timestamp-alone", f'{{"timestamp": {NOW}}}', "beside the timestamp", "no metric"),
    Bad(
        "tags-alone",
        '{"timestamp": 1575839011, "tags": ["x"]}',
        "beside the timestamp",
        "no metric",
    ),
    Bad("null-alone", with_value("null"), "beside the timestamp", "no metric"),
    Bad("nested-nothing-alone", with_value('{"b": {}}'), "beside the timestamp", "no metric"),
    Bad("timestamp-alone-in-line-2", A + '\n{"timestamp": 1575839011}', "line 2: ", "no metric"),
    # A scalar
    Bad("scalar-number", "1575839011", "stands where an object must", "a number"),
    Bad("scalar-string", '"a"', "stands where an object must", 'the string "a"'),
    Bad("scalar-true", "true", "stands where an object must", "a boolean"),
    Bad("scalar-null", "null", "stands where an object must", "null"),
    # An array or lines with one bad element
    Bad("scalars-in-an-array", "[1, 2]", "object 1 of the array: ", "a number stands where"),
    Bad("scalar-last-in-an-array", f"[{A}, {B}, null]", "object 3 of the array: ", "null stands"),
    Bad("array-in-an-array", f"[[{A}]]", "object 1 of the array: ", "a list stands where"),
    Bad("scalar-in-line-2", f"{A}\n5\n{B}", "line 2: ", "a number stands where an object must"),
    Bad("string-in-line-4", f'{A}\n\n\n"x"', "line 4: ", "the string"),
    Bad("array-in-line-2", f"{A}\n[{B}]", "line 2: ", "a list stands where an object must"),
    Bad("empty-array-in-line-2", f"{A}\n[]", "line 2: ", "a list stands where an object must"),
    Bad("bad-value-in-line-3", f"\n{A}\n{with_value('true')}", 'line 3: "a"', "a boolean"),
    Bad(
        "bad-value-in-object-2",
        f"[{A}, {with_value('true')}]",
        'object 2 of the array: "a"',
        "a boolean",
    ),
]
