"""Good and bad stats files, for the tests of the parser and of the schema.

Each file is read at NOW, the second of the contract's sample, with a maximum age of MAX_AGE. Files
that are large or need another time are in test_stats_file.py.
"""

from __future__ import annotations

import gzip
import json
from typing import NamedTuple

import pytest
from hypothesis import settings

from ddg_json_file import StatsFileError
from ddg_stats_file import MAX_DEPTH, MAX_TAGS, Sample, read_stats_file

NOW = 1575839011
MAX_AGE = 3600

Samples = list[tuple[int, tuple[str, ...], dict[str, float]]]


class Good(NamedTuple):
    """An accepted file, and the samples that are read from it."""

    id: str
    file: str | bytes  # text is encoded as UTF-8
    read: Samples | dict[str, float] | tuple[str, ...]  # values at NOW, or the tags of a = 1

    @property
    def samples(self) -> Samples:
        match self.read:
            case dict(values):
                return [(NOW, (), values)]
            case tuple(tags):
                return [(NOW, tags, {"a": 1})]
            case _:
                return self.read


class Bad(NamedTuple):
    """A refused file, and the parts of the reason that say where and what is wrong."""

    id: str
    file: str | bytes
    place: str
    problem: str


def content(row: Good | Bad) -> bytes:
    """Return the bytes of a row's file."""
    return row.file.encode() if isinstance(row.file, str) else row.file


def read(content: bytes, *, tags: tuple[str, ...] = ()) -> list[Sample]:
    return read_stats_file(content, now=NOW, max_age=MAX_AGE, tags=tags)


def refusal(content: bytes, *, tags: tuple[str, ...] = ()) -> str:
    """Return the reason why a file is refused; check that it fits a log and a message."""
    with pytest.raises(StatsFileError) as caught:
        read(content, tags=tags)
    reason = str(caught.value)
    assert reason.isascii()
    assert reason.isprintable()
    assert len(reason) <= 1024  # the limit of the SQS message attribute
    return reason


def at_now(members: str) -> str:
    """Return a file of one object at NOW; its other members are JSON."""
    return f'{{"timestamp": 1575839011, {members}}}'


def at(timestamp: str) -> str:
    """Return a file of one object; the timestamp is JSON."""
    return f'{{"timestamp": {timestamp}, "a": 1}}'


def at_time(time: str) -> str:
    """Return a file of one object; the timestamp is the inside of a JSON string."""
    return at(f'"{time}"')


def value(value: str) -> str:
    """Return a file of one metric; its value is JSON."""
    return at_now(f'"a": {value}')


def name(name: str) -> str:
    """Return a file of one metric; its name is the inside of a JSON string."""
    return at_now(f'"{name}": 1')


def tagged(*tags: object) -> str:
    """Return a file of one object with these tags."""
    return at_now(f'"tags": {json.dumps(tags)}, "a": 1')


def nested(depth: int, inside: str = "1") -> str:
    """Return JSON of nested objects, with something innermost."""
    return '{"a": ' * depth + inside + "}" * depth


def zipped(*members: bytes) -> bytes:
    """Return a gzip file with these members, always the same bytes."""
    return b"".join(gzip.compress(member, mtime=0) for member in members)


SAMPLE = b'{"timestamp": 1575839011, "sample.stats": 1231, "processed.data": 321}'
SAMPLE_READ: dict[str, float] = {"sample.stats": 1231, "processed.data": 321}
A = '{"timestamp": 1575839011, "a": 1}'
A_READ: dict[str, float] = {"a": 1}
B = '{"timestamp": 1575839012, "b": 2}'
AB_READ: Samples = [(NOW, (), {"a": 1}), (NOW + 1, (), {"b": 2})]
PRETTY = '{\n  "timestamp": 1575839011,\n  "a": 1\n}\n'
LONGEST = "a" * 200  # the longest name that Datadog keeps whole
HALF_NAME = "a" * 100
HIGH, LOW = "\ud83d", "\udc28"  # halves of a character
ALL_TAGS = [f"t{n:03}" for n in range(MAX_TAGS)]
END = f"byte {len(zipped(SAMPLE))}"  # of the gzip data

# The same examples in each run: a test that fails at times isn't believed
examples = settings(deadline=None, derandomize=True, max_examples=100)

GOOD = [
    # Shape: one object, an array of objects, or one object per line
    Good("sample-of-the-contract", SAMPLE, SAMPLE_READ),
    Good("object-over-several-lines", PRETTY, A_READ),
    Good("array", f"[{A}, {B}]", AB_READ),
    Good("lines-with-blank-ones", f"\n \n{A}\n\n\t\r\n{B}\n\n", AB_READ),
    # Encodings, recognised by the first bytes
    Good("byte-order-mark", b"\xef\xbb\xbf" + SAMPLE, SAMPLE_READ),
    Good("utf-16-little-endian", b"\xff\xfe" + A.encode("utf-16-le"), A_READ),
    Good("utf-16-big-endian", b"\xfe\xff" + f"{A}\r\n{B}".encode("utf-16-be"), AB_READ),
    Good("gzip-members-of-a-line", zipped(f"{A}\n".encode(), B.encode()), AB_READ),
    Good("gzip-padded-to-a-tape-block", zipped(SAMPLE).ljust(512, b"\0"), SAMPLE_READ),
    # str.splitlines ends lines at these, JSON Lines doesn't
    Good(
        "line-separators-within-strings",
        at_now('"tags": ["x\u2028y\u2029z\x85"], "a": 1') + "\n" + B,
        [(NOW, ("x_y_z",), {"a": 1}), AB_READ[1]],
    ),
    # timestamp: epoch seconds, or RFC 3339 with a zone
    Good("timestamp-is-truncated", at("1575839011.999"), A_READ),
    Good("timestamp-latest", at("1575839611.9"), [(NOW + 600, (), {"a": 1})]),
    Good("timestamp-oldest", at("1575835411"), [(NOW - 3600, (), {"a": 1})]),
    Good("time-in-lower-case-is-truncated", at_time("2019-12-08t21:03:31.999z"), A_READ),
    Good("time-with-an-offset", at_time("2019-12-08T22:33:31+01:30"), A_READ),
    Good("time-with-the-largest-offset", at_time("2019-12-07T21:04:31.5-23:59"), A_READ),
    # tags: an optional list of strings or object of scalars, for all metrics of the object
    Good("tags", tagged("team:data", "env:prod"), ("env:prod", "team:data")),
    Good(
        "tags-normalised",
        tagged("My Prod!", "my PROD", "1. x:\xc4\U0001f428x"),
        ("my_prod", "x:\xe4_x"),
    ),
    Good("tags-as-many-as-allowed", tagged(*ALL_TAGS), tuple(ALL_TAGS)),
    Good(
        "tags-of-an-object",
        at_now('"tags": {"Status": "OK!", "y": true, "n": false, "z": null, "d": ""}, "a": 1'),
        ("d:", "n:false", "status:ok", "y:true"),
    ),
    Good(
        "tags-of-numbers",
        at_now('"a": 1, "tags": {"a": 1.50, "b": 1e16, "c": -0.0, "i": 3}'),
        ("a:1.5", "b:1e_16", "c:-0.0", "i:3"),
    ),
    Good(
        "tags-alike-in-list-and-object",
        tagged("b:1") + "\n" + at_now('"c": 1, "tags": {"b": 1}'),
        [(NOW, ("b:1",), {"a": 1, "c": 1})],
    ),
    # Nested objects flatten with dots, null is skipped
    Good(
        "nested",
        at_now('"rows": {"read": 5, "by": {"day.mon": 7}}, "a": 1'),
        {"rows.read": 5, "rows.by.day.mon": 7, "a": 1},
    ),
    Good("nested-as-deep-as-allowed", value(nested(MAX_DEPTH - 1)), {".".join("a" * MAX_DEPTH): 1}),
    Good("nested-timestamp-is-a-metric", value('{"timestamp": 1}'), {"a.timestamp": 1}),
    Good("null", at_now('"a": 1, "b": null, "rows": {"c": null}'), A_READ),
    Good("null-beside-the-same-name-nested", at_now('"r.x": null, "r": {"x": 1}'), {"r.x": 1}),
    # A number is a gauge
    Good(
        "numbers",
        at_now('"a": 0, "b": -1, "c": 0.1, "d": 1E3, "e": -2.5e-3, "f": 5e-324, "g": -0.0'),
        {"a": 0, "b": -1, "c": 0.1, "d": 1000.0, "e": -0.0025, "f": 5e-324, "g": -0.0},
    ),
    Good("float-at-the-limit", value("-1.7976931348623157e308"), {"a": -1.7976931348623157e308}),
    # Names that Datadog keeps as they are
    Good("name-of-every-kind-of-character", name("Z_9.0a_b."), {"Z_9.0a_b.": 1}),
    Good("name-of-200-characters", name(LONGEST), {LONGEST: 1}),
    # Several objects of the same second
    Good(
        "same-second-and-metric-other-tags",
        "\n".join([tagged("x"), tagged("y"), tagged("x", "y"), A]),
        [(NOW, tags, {"a": 1}) for tags in (("x",), ("y",), ("x", "y"), ())],
    ),
]


UNQUOTED = "write it without the quotes"
TOO_LARGE = "is not a number, or too large for a float"
REWRITTEN = "would be rewritten by Datadog"
TWICE = "appears twice"
TWO_VALUES = "two values for the same second and tags"
HALF = "half a character (a lone surrogate)"
OBJECT = "expected an object"
NO_ZONE = "a time without a zone (Z, or an offset such as +02:00)"
NO_TIME = "not an RFC 3339 time"
MANY = "1" + "".join(f', "{tag}": 1' for tag in ALL_TAGS[1:])
NO_TIMES = ["now", "2019-12-08T21:03Z", "2019-12-08T24:00:00Z", "2019-12-08T21:60:31Z"]
NO_TIMES += ["2019-12-08T21:03:31+0100", "2019-12-08T21:03:31+24:00", "2019-12-08T21:03:31Z\\n"]
NO_TIMES += ["\u0662019-12-08T21:03:31Z"]
OBJECT_TAGS = at_now('"tags": {"a": "x", "b": %s}, "a": 1')
STRINGS = "write a string"
ON_A_LINE = "more than one value on a line"
FOLLOWS = "something follows the gzip data"
NOTHING_LEFT = "nothing is left of the tag "

BAD = [
    # Not JSON
    Bad("text-in-line-3", "\n\n  hello", "line 3 column 3.", "Expecting value"),
    Bad("two-objects-in-a-line", A + B, "line 1 column 34.", ON_A_LINE),
    Bad("objects-over-several-lines", PRETTY + PRETTY, "line 1 column 1.", "than one line"),
    Bad("line-with-bad-json", f"{B}\noops\n{A}", "line 2 column 1.", "Expecting value"),
    Bad("array-then-an-object", f"[{A}]\n{B}", "line 2 column 1.", "something follows the array"),
    Bad("white-space-not-of-json", f"\x0c{A}", "line 1 column 1.", "Expecting value"),
    # Not UTF-8
    Bad("utf-16-cut", A.encode("utf-16")[:-1], "byte 66 ", "is not UTF-16"),
    Bad("latin-1-after-a-mark", b'\xef\xbb\xbf{"\xe4": 1}', "byte 5 ", "is not UTF-8"),
    Bad("gzip-of-latin-1", zipped(b'{"\xe4": 1}'), "byte 2 ", "is not UTF-8"),
    # Truncated or broken gzip
    Bad("gzip-checksum", zipped(SAMPLE)[:-8] + bytes(8), "byte 0 ", "incorrect data check"),
    Bad("gzip-member-2", zipped(SAMPLE, b"\n")[:-8] + bytes(8), END, "incorrect data check"),
    Bad("gzip-then-half-a-magic", zipped(SAMPLE) + b"\x1f", END, FOLLOWS),
    Bad("gzip-then-zeros-and-text", zipped(SAMPLE) + bytes(9) + b"x", "the gzip data", FOLLOWS),
    # Empty
    Bad("white-space-alone", " \r\n\t\n", "the file", "is empty"),
    Bad("gzip-of-nothing", zipped(b"", b"\n") + b"\0", "the file", "is empty"),
    Bad("array-of-nothing", "[ ]", "in the file", "no object"),
    # Nesting beyond MAX_DEPTH
    Bad("nested-too-deep", value(nested(MAX_DEPTH)), '"a.a.a.a.', "nested deeper than 32"),
    Bad("nested-around-nothing", value(f'1, "b": {nested(32, "{}")}'), '"b.a.a', "deeper than 32"),
    Bad("nested-too-deep-to-decode", f'{A}\n{{"b": {"[" * 200_000}', "line 2", "nested too deep"),
    # timestamp
    Bad("timestamp-string", at('"1575839011"'), '"timestamp" is the string "1575839011"', UNQUOTED),
    Bad("timestamp-null", at("null"), 'no "timestamp"', "add one in epoch seconds"),
    Bad("timestamp-negative", at("-1"), "number -1, ", "not in epoch seconds"),
    Bad("timestamp-of-82-digits", at("9" * 82), f"{'9' * 82}, ", "not in epoch"),
    Bad("timestamp-of-83-digits", at("9" * 83), f"{'9' * 80}..., ", "not in epoch"),
    Bad("timestamp-nan", at("NaN"), "the number NaN", "not in epoch seconds"),
    Bad("timestamp-ahead", at("1575839612"), "1575839612", "601 s ahead"),
    Bad("timestamp-too-old", at("1575835410"), "1575835410", "3601 s old"),
    Bad("time-without-a-zone", at_time("2019-12-08T21:03:31"), '"timestamp"', NO_ZONE),
    Bad("time-with-a-space", at_time("2019-12-08 21:03:31Z"), '"timestamp"', "instead of T"),
    Bad("time-of-a-leap-second", at_time("2016-12-31T23:59:60Z"), '"timestamp"', "leap second"),
    Bad("time-of-no-day", at_time("2019-02-29T00:00:00Z"), '"timestamp"', "doesn't exist"),
    Bad("time-before-1970", at_time("1969-12-31T23:59:59.9Z"), '"timestamp"', "before 1970"),
    Bad("time-after-5138", at_time("5138-11-16T09:46:40Z"), '"timestamp"', "after 5138"),
    *(
        Bad(f"time-{time}", at_time(time), '"timestamp" is the string', NO_TIME)
        for time in NO_TIMES
    ),
    # A value that isn't a number, or not one that a float can hold
    Bad("value-true-of-a-known-name", f"{A}\n{value('true')}", 'line 2: "a"', "is a boolean"),
    Bad("value-nan", value("NaN"), '"a"', TOO_LARGE),
    Bad("value-of-5000-digits", value("-" + "1" * 5000), '"a"', TOO_LARGE),
    Bad("value-of-400-digits-later", f"{A}\n{value('1' * 400)}", 'line 2: "a"', TOO_LARGE),
    # The same name twice
    Bad("name-twice-in-line-2", f"{B}\n" + at_now('"a": 1, "a": 1'), "near line 2", TWICE),
    Bad("name-twice-by-objects", at_now('"r": {}, "r": {"a": 1}'), '"r"', TWICE),
    Bad("name-twice-nested-first", at_now('"a": {"b": 1}, "a.b": 1'), '"a.b"', TWICE),
    # Two values for the same metric, tags and second
    Bad("two-values-in-an-array", f"[{A}, {B}, {A}]", 'object 3 of the array: "a"', TWO_VALUES),
    Bad("two-values-once-truncated", f"[{A}, {at('1575839011.9')}]", "object 2 ", TWO_VALUES),
    Bad("two-values-by-order", f"{tagged('x', 'y')}\n{tagged('y', 'x')}", "line 2: ", TWO_VALUES),
    # Metric names that Datadog would rewrite or cut
    Bad("name-with-umlaut", name("\xe4"), r'"\u00e4"', REWRITTEN),
    Bad("name-with-line-feed", name(r"a\n"), r'"a\n"', REWRITTEN),
    Bad("name-of-201-characters", name(LONGEST + "a"), f'{"a" * 80}"', REWRITTEN),
    Bad("name-of-201-once-joined", at_now(f'"{HALF_NAME}": {{"{HALF_NAME}": 1}}'), "aa", REWRITTEN),
    Bad("name-of-81-escapes", name("\xe9" * 81), "\\u00e9" * 13 + "\\...", REWRITTEN),
    # Lone surrogates
    Bad("surrogate-last", name(r"a\udfff"), r'"a\udfff"', HALF),
    Bad("surrogate-in-a-name-of-null", at_now('"a": 1, "\\udc28": null'), r'"\udc28"', HALF),
    Bad("surrogates-in-wrong-order", tagged(f"x:{LOW}{HIGH}"), r'"x:\udc28\ud83d"', HALF),
    # Tags
    Bad("tag-of-an-object-list", OBJECT_TAGS % "[]", 'tag "b" in "tags"', f"a list: {STRINGS}"),
    Bad("tags-of-an-object-too-many", OBJECT_TAGS % MANY, "101 tags", "more than 100"),
    Bad("tag-of-a-picture", tagged("\U0001f428"), r'"\ud83d\udc28"', NOTHING_LEFT),
    Bad("tags-one-too-many", tagged(*ALL_TAGS, "x"), "101 tags", "more than 100"),
    # No metric at all
    Bad("timestamp-alone", '{"timestamp": 1575839011}', "besides the timestamp", "no metric"),
    # No object
    Bad("array-in-an-array", f"[[{A}]]", f"object 1 of the array: {OBJECT}", "got a list"),
    Bad("scalar-in-line-2", f"{A}\n5\n{B}", f"line 2: {OBJECT}", "got the number 5"),
]
