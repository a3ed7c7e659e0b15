"""Which files are read at once, and which one object after the other.

Either way they mean the same (tests/test_stats_file.py); at once is several times faster.
"""

from __future__ import annotations

import json

import pytest

import ddg_stats_file
from tests.stats_files import NOW

FLAT = {"timestamp": NOW, "a": 1, "b": 2.5}
TAGGED = {"timestamp": NOW, "tags": ["env:prod", "team:data:x", "plain"], "a": 1}


def lines(*objects: object) -> str:
    """Return JSON Lines."""
    return "\n".join(map(json.dumps, objects))


@pytest.fixture
def read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tell what is read one object after the other."""
    read: list[str] = []

    def reader(text: str, *_: object) -> list[ddg_stats_file.Sample]:
        read.append(text)
        return []

    monkeypatch.setattr(ddg_stats_file, "_read_one_by_one", reader)
    return read


def read(text: str) -> list[ddg_stats_file.Sample]:
    """Read a file of now."""
    return ddg_stats_file.read_stats_file(text.encode(), now=NOW, max_age=3600)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps(FLAT), id="object"),
        pytest.param(json.dumps([FLAT, FLAT | {"timestamp": NOW - 1}]), id="array"),
        pytest.param(lines(FLAT, FLAT | {"timestamp": NOW - 1.5}), id="lines"),
        pytest.param(
            lines({"timestamp": NOW, "a": 1}, {"timestamp": NOW, "b": 1}), id="one-second"
        ),
        pytest.param(json.dumps(TAGGED), id="tags-with-colons"),
        pytest.param(lines(FLAT, TAGGED), id="tags-of-one-object"),
        pytest.param(json.dumps(FLAT | {"tags": []}), id="no-tags"),
        pytest.param(json.dumps(FLAT | {"tags": None}), id="null-tags"),
        pytest.param(json.dumps({"timestamp": NOW, "a": 1.7e308, "b": -0.0}), id="extremes"),
    ],
)
def test_flat_files_are_read_at_once(text: str, read_one_by_one: list[str]) -> None:
    """Nearly every file is one."""
    assert read(text)
    assert read_one_by_one == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f'{{"timestamp": {NOW}, "\\u0061": 1}}', id="escape"),
        pytest.param(json.dumps(FLAT | {"c": {"d": 1}}), id="nested"),
        pytest.param(json.dumps(FLAT | {"c": None}), id="null"),
        pytest.param(f'{{"timestamp": {NOW}, "a": 1, "a": 1}}', id="twice"),
        pytest.param(json.dumps([]), id="nothing"),
        pytest.param(json.dumps({"timestamp": NOW}), id="no-metric"),
        pytest.param(lines(FLAT, FLAT), id="two-values"),
        pytest.param(json.dumps(FLAT | {"c": True}), id="boolean"),
        pytest.param(json.dumps(FLAT | {"1c": 1}), id="name"),
        pytest.param(f'{{"timestamp": {NOW}, "a": NaN}}', id="nan"),
        pytest.param(json.dumps(FLAT | {"timestamp": NOW - 4000}), id="too-old"),
        pytest.param(lines(FLAT, FLAT | {"timestamp": NOW + 601}), id="too-new"),
    ],
)
def test_others_are_read_one_by_one(text: str, read_one_by_one: list[str]) -> None:
    """Allowed or not."""
    assert read(text) == []
    assert read_one_by_one == [text]


@pytest.mark.parametrize(("names", "at_once"), [(2, True), (3, True), (4, False)])
def test_so_many_names_are_read_at_once(
    monkeypatch: pytest.MonkeyPatch, read_one_by_one: list[str], names: int, at_once: bool
) -> None:
    """As many as a file may have."""
    monkeypatch.setattr(ddg_stats_file, "MAX_NAMES", 3)
    text = json.dumps({"timestamp": NOW} | {f"m{n}": n for n in range(names)})
    assert bool(read(text)) == at_once
    assert bool(read_one_by_one) != at_once
