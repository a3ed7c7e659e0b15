"""stats.schema.json agrees with the parser as far as a schema can."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ddg_json_file import StatsFileError, read_values
from ddg_stats_file import LATEST_TIMESTAMP, MAX_TAGS, read_stats_file
from tests import stats_files as files
from tests.stats_files import BAD, GOOD, MAX_AGE, NOW, Good, examples

SCHEMA = json.loads(Path(__file__).parent.parent.joinpath("stats.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)

# Part of a reason, and how many bad rows with it the schema accepts. It has no clock, and doesn't
# compare objects or joined names, or count the depth. Validators read patterns too differently for
# surrogates and for letters of any script.
BEYOND_THE_SCHEMA = {
    files.HALF: 2,
    files.TWICE: 1,
    files.TWO_VALUES: 3,
    files.REWRITTEN: 2,  # one before a last line feed, where $ matches in Python
    files.NO_TIME: 1,  # the same
    files.NOTHING_LEFT: 1,
    "doesn't exist": 1,
    "before 1970": 1,
    "after 5138": 1,
    "deeper": 2,
    "not in epoch seconds": 1,  # NaN, which isn't JSON
    files.TOO_LARGE: 1,  # the same
    "s ahead": 1,
    "s old": 1,
}


def documents(content: bytes) -> list[Any]:
    """Return the array, the lines or the single value of a file; [] if it isn't JSON."""
    try:
        place, numbered = read_values(content)
        values = [value for _, value in numbered]
        return [values] if "array" in place else values
    except StatsFileError:
        return []


def is_accepted(value: object, *, now: float = NOW, max_age: int = MAX_AGE) -> bool:
    try:
        return bool(read_stats_file(json.dumps(value).encode(), now=now, max_age=max_age))
    except StatsFileError:
        return False


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.id)
def test_schema_accepts_what_the_parser_accepts(row: Good) -> None:
    values = documents(files.content(row))
    assert values
    assert [list(VALIDATOR.iter_errors(value)) for value in values] == [[]] * len(values)


def test_schema_refuses_what_the_parser_refuses_with_known_exceptions() -> None:
    passed: Counter[str] = Counter()
    for row in BAD:
        values = documents(files.content(row))
        if values and all(map(VALIDATOR.is_valid, values)):
            passed[next((each for each in BEYOND_THE_SCHEMA if each in row.problem), row.id)] += 1
    assert passed == BEYOND_THE_SCHEMA


# Values of all kinds, without anything that only the parser checks: no name has a dot or appears
# twice, tags are ASCII, lists have one object, and no timestamp is ahead of the latest one.
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
timestamps |= st.sampled_from(["2019-12-08T21:03:31.5+01:00", "2019-12-08T21:03:31", "1970-01-01"])
tags: st.SearchStrategy[Any] = st.none() | st.lists(texts.map("t{}".format), max_size=2)
tags |= st.dictionaries(texts.map("t{}".format), st.none() | st.booleans() | numbers | texts)
members = st.fixed_dictionaries(
    {"timestamp": timestamps},
    optional={"a": numbers, "b": numbers | values, "9": st.none() | values, "tags": tags | values},
)


@examples
@given(members | st.lists(members, max_size=1) | values)
def test_schema_and_parser_agree(value: object) -> None:
    assert VALIDATOR.is_valid(value) == is_accepted(value, now=LATEST_TIMESTAMP, max_age=0)


@pytest.mark.parametrize("example", SCHEMA["examples"])
def test_examples_are_good_but_old(example: object) -> None:
    """They have the right shape, but a date in the past, as the note says."""
    Draft202012Validator.check_schema(SCHEMA)
    assert VALIDATOR.is_valid(example)
    assert is_accepted(example)
    assert not is_accepted(example, now=NOW + 2 * MAX_AGE)
    assert "`date +%s`" in SCHEMA["$comment"]


def test_limits_are_those_of_the_parser() -> None:
    """The tables cover the names."""
    sample, metric = SCHEMA["$defs"]["sample"], SCHEMA["$defs"]["metric"]
    assert sample["properties"]["timestamp"]["exclusiveMaximum"] == LATEST_TIMESTAMP
    assert sample["properties"]["tags"]["maxItems"] == MAX_TAGS
    assert metric["maximum"] == -metric["minimum"] == sys.float_info.max
