"""ddg_ops.propose: the mappings that it proposes, and that the submitter accepts them."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import pytest

from ddg_json_file import StatsFileError
from ddg_mapping import compile_mapping, map_document
from ddg_ops.propose import propose
from ddg_stats_file import read_stats_file

LAST_MODIFIED = "Mon, 09 Dec 2019 21:03:31 GMT"
T = "2019-12-08T21:03:31Z"
DEEP: Any = 1
for _ in range(5000):
    DEEP = {"a": DEEP}
PROPOSALS: list[tuple[Any, str | None]] = [
    ({"a": 1, "b": {"c": 2, "note": "x"}, "d": [1], "e": None}, "numbers(@)"),
    (
        {"n": 1, "m": 2, "started_at": T, "finished_at": T, "until": T, "state": "ok", "run": "12"},
        "merge(numbers(@), {timestamp: finished_at, tags: {state: state}})",
    ),
    # Two numbers are times: only the one in seconds becomes the timestamp
    ({"created": 1575839011.5, "sent_at": 1575839011000, "n": 1}, "{timestamp: created, n: n}"),
    (
        {"at": T, "tests": [{"name": "a", "s": 1.5}, {"name": "b", "s": 2, "skipped": 1}]},
        "tests[*].merge(numbers(@), {timestamp: root().at, tags: {name: name}})",
    ),
    ([{"name": "a", "s": None}, {"name": "b", "s": 2}, "end"], "[?s].{tags: {name: name}, s: s}"),
    ([{"at": T, "n": 1}, {"at": "2019-12-08T21:03:32Z", "n": 2}], "[*].{timestamp: at, n: n}"),
    # Rows with the same tags and second: the last row only
    (
        [{"kind": "step", "n": 1}, {"kind": "step", "n": 2}, "x"],
        "[?n] | [-1].{tags: {kind: kind}, n: n}",
    ),
    # Names that are data
    (
        {"counts": {"All leads": 1, "Mine (open)": 2}},
        "items(counts)[*].{tags: {name: [0]}, counts: [1]}",
    ),
    (
        {"a/b.ts": {"lines": 1}, "a/c.ts": {"lines": 2, "p(95)": 3}},
        'items(@)[*].{tags: {name: [0]}, lines: [1].lines, p_95: maybe([1]."p(95)")}',
    ),
    (
        {"x1": {"state": "ok", "n": 1}, "x2": {"state": "ok", "n": 2}},
        "items(@)[*].{tags: {name: [0], state: [1].state}, n: [1].n}",
    ),
    # Invalid metric names, and names that are taken
    (
        {"p(95)": 1, "p-95": 2, "200": 3, "rows.read": 5},
        '{p_95: "p(95)", p_95_2: "p-95", n200: "200", "rows.read": "rows.read"}',
    ),
    ({"tags": 4, "n": 1}, "{tags_2: tags, n: n}"),
    ({"a.b": 1, "a": {"b": 2}}, '{"a.b": "a.b", "a.b_2": a.b}'),
    ({"n": 1, "x" * 100: {"y" * 100: 1}}, "{n: n}"),
    (
        {"s": 1, "steps": [{"name": "a", "s": 1}, {"name": "b", "s": 2}]},
        "[{s: s}, steps[*].{tags: {name: name}, steps: {s: s}}][]",
    ),
    # Over 1,000 series: the last row only
    (
        {"n": 1, "runs": [{"name": f"r{n}", "s": n} for n in range(1000)]},
        "[{n: n}, runs[-1].{tags: {name: name}, runs: {s: s}}][]",
    ),
    ({"x": [1, 2], "y": "z", "b": True, "nan": math.nan}, None),
    ("z", None),
    (DEEP, None),
]


@pytest.mark.parametrize(("document", "expression"), PROPOSALS)
def test_proposal(document: Any, expression: str | None) -> None:
    assert propose_for(document) == expression


def propose_for(document: Any) -> str | None:
    """Propose a mapping that the submitter accepts for a document."""

    def accepts(expression: str) -> bool:
        try:
            read_stats_file(
                json.dumps(document).encode(),
                now=2e10,
                max_age=0,
                mapping=partial(map_document, compile_mapping(expression), math.inf),
                last_modified=LAST_MODIFIED,
            )
        except StatsFileError:
            return False
        return True

    proposed = propose(document, accepts)
    assert proposed is None or accepts(proposed)
    return proposed


WORDS = "a|b|A|a.b|a_2|p(95)|200|_x_||timestamp|tags|created_at|job|name|größe|two words"
