"""stats.schema.json: it says the same as the parser, as far as a schema can."""

from __future__ import annotations

import gzip
import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ddg_stats_file import LATEST_TIMESTAMP, MAX_TAGS, StatsFileError, read_stats_file
from tests.stats_files import BAD, GOOD, MAX_AGE, NOW, Bad, Good, content, examples, objects

SCHEMA = json.loads(Path(__file__).parent.parent.joinpath("stats.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)

# The bad rows that the schema lets pass, and why. What it comes to refuse has to leave this list.
BEYOND_THE_SCHEMA = {
    "what is no JSON is no document": """
        text  text-in-line-3  name-without-quotes
        comma-after-the-last-member  comment
        number-with-leading-zero number-of-another-script
        control-character-in-a-string object-cut string-cut
        bracket-too-many two-objects-in-a-line two-objects-in-line-2 lines-ended-by-commas
        lines-ended-by-cr lines-ended-by-separators objects-over-several-lines
        object-over-lines-2-to-5 line-with-bad-json byte-order-mark-in-line-2
        white-space-not-of-json  zeros-at-the-end no-bytes white-space-alone
        byte-order-mark-alone timestamp-nan value-nan  value-minus-infinity
        nested-too-deep-to-decode
    """,
    "it is given text, and knows neither UTF-8 nor gzip": """
        utf-16 utf-16-without-mark latin-1 not-utf-8-after-a-mark surrogate-in-utf-8 character-cut
        gzip-of-latin-1 gzip-in-gzip gzip-magic-alone gzip-cut-in-the-checksum gzip-cut-in-member-2
        gzip-checksum gzip-length  gzip-method gzip-member-2 gzip-then-text
        gzip-then-line-feed gzip-then-half-a-magic gzip-then-zeros-and-text gzip-of-nothing
    """,
    "it doesn't know whether a document is a line": "array-then-an-object",
    "it has no clock": """
        timestamp-ahead timestamp-too-old timestamp-zero timestamp-too-old-in-line-2
        timestamp-ahead-in-object-2
    """,
    "of a name that stands twice it is given the last": """
        name-twice name-twice-once-null name-twice-once-escaped name-twice-in-line-2
        name-twice-nested name-twice-by-objects timestamp-twice tags-twice
    """,
    "it looks at one name at a time, never at joined ones": """
        name-twice-nested-first  name-twice-nested-both
        name-of-201-once-joined
    """,
    "it compares no objects with each other": """
        two-values-in-an-array two-values-in-lines two-values-among-others two-values-once-nested
        two-values-once-truncated two-values-by-order
    """,
    "it doesn't count how deep it is": """
        nested-too-deep nested-around-nothing nested-in-line-2
    """,
    "its patterns are read in too many ways for surrogates and letters of any script": """
        surrogate-in-a-name-of-null surrogate-in-a-name-of-objects surrogate-in-a-nested-name
        surrogate-in-a-tag surrogates-in-wrong-order  tag-of-a-picture
    """,
    "before a last line feed, too, Python's patterns find the end ($); others don't": """
        name-with-line-feed
    """,
}


def documents(content: bytes) -> list[Any]:
    """Return the JSON documents of a file, as a schema's user would read it; none where it is none.

    A document is what json.loads takes whole, else each line.
    """
    try:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
        try:
            return [load(text)]
        except ValueError:
            return [load(line) for line in text.split("\n") if line.strip()]
    except (ValueError, OSError, EOFError, zlib.error, RecursionError):
        return []


def load(text: str) -> Any:
    """Decode JSON strictly, but integers of any length, which Python's int() stops at."""

    def integer(digits: str) -> float:
        return int(digits) if len(digits) <= sys.int_info.default_max_str_digits else math.inf

    def refuse(name: str) -> object:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_int=integer, parse_constant=refuse)


def is_accepted(value: object, *, now: float, max_age: int) -> bool:
    try:
        return bool(read_stats_file(json.dumps(value).encode(), now=now, max_age=max_age))
    except StatsFileError:
        return False


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.id)
def test_good_file_is_valid(row: Good) -> None:
    """What the parser accepts, the schema accepts."""
    values = documents(content(row))
    assert values
    assert [list(VALIDATOR.iter_errors(value)) for value in values] == [[]] * len(values)


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.id)
def test_bad_file_is_invalid(row: Bad) -> None:
    """What the parser refuses, the schema refuses where it can, and the list is exact."""
    valid = all(map(VALIDATOR.is_valid, documents(content(row))))
    listed = [reason for reason, ids in BEYOND_THE_SCHEMA.items() if row.id in ids.split()]
    assert len(listed) == valid


def test_list_names_rows_alone() -> None:
    """No row that was renamed or removed stays behind."""
    listed = {each for ids in BEYOND_THE_SCHEMA.values() for each in ids.split()}
    assert listed <= {row.id for row in BAD}


@examples
@given(st.lists(objects, min_size=1, max_size=3))
def test_accepted_objects_are_valid(values: list[Any]) -> None:
    """Whatever has to do with several names and objects, the schema leaves to the parser."""
    if is_accepted(values, now=NOW, max_age=MAX_AGE):
        assert VALIDATOR.is_valid(values)


# Values of all kinds, in which nothing is for the parser alone to see: no name holds a dot or comes
# twice, tags are ASCII, lists hold one object, and at the latest of all seconds none lies ahead.
names = st.sampled_from(["timestamp", "tags", "", "9", "a b", "é", "_", "a", "A", "x_1", "b9"])
names |= st.sampled_from(["a__b", "_a", "a_"])
texts = st.text(st.characters(max_codepoint=127), max_size=4)
numbers = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([10**308, 10**309, -(10**308), -(10**309)]),
)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(numbers, numbers, st.none(), st.booleans(), texts),
    lambda inner: st.lists(inner, max_size=1) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
timestamps = st.sampled_from([0, NOW, NOW + 0.5, LATEST_TIMESTAMP - 1, -0.5])
timestamps |= st.sampled_from([LATEST_TIMESTAMP, -1, "0", None, True, []])
tags = st.none() | st.lists(texts.map("t{}".format), max_size=2)
members = st.fixed_dictionaries(
    {"timestamp": timestamps},
    optional={"a": numbers, "b": numbers | values, "9": st.none() | values, "tags": tags | values},
)


@examples
@given(members | st.lists(members, max_size=1) | values)
def test_schema_and_parser_agree(value: object) -> None:
    """Where nothing is for the parser alone to see, the schema says what the parser says."""
    assert VALIDATOR.is_valid(value) == is_accepted(value, now=LATEST_TIMESTAMP, max_age=0)


@pytest.mark.parametrize("example", SCHEMA["examples"])
def test_examples_are_good_but_old(example: object) -> None:
    """The examples show the shape; as the note beside them says, their date is past."""
    Draft202012Validator.check_schema(SCHEMA)
    assert VALIDATOR.is_valid(example)
    assert is_accepted(example, now=NOW, max_age=MAX_AGE)
    assert not is_accepted(example, now=NOW + 2 * MAX_AGE, max_age=MAX_AGE)
    assert "`date +%s`" in SCHEMA["$comment"]


def test_limits_are_those_of_the_parser() -> None:
    """A limit that is changed in one place is changed in the other; the rows tell of names."""
    sample, metric = SCHEMA["$defs"]["sample"], SCHEMA["$defs"]["metric"]
    assert sample["properties"]["timestamp"]["exclusiveMaximum"] == LATEST_TIMESTAMP
    assert sample["properties"]["tags"]["maxItems"] == MAX_TAGS
    assert metric["maximum"] == -metric["minimum"] == sys.float_info.max
