"""The limits that docs/limits.md tells are those of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/limits.md"


def told() -> dict[str, dict[str, list[float]]]:
    """Return module -> constant -> its numbers, as the page has them."""
    sections = re.findall(r"^## [^\n]*`(\w+)\.py`\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    row = re.compile(r"^\| `(\w+)` \| ([\d., ]+) \|", re.M)
    return {
        module: {
            name: [float(each.replace(",", "")) for each in value.split(", ")]
            for name, value in row.findall(rows)
        }
        for module, rows in sections
    }


@pytest.mark.parametrize("module", told())
def test_limits_are_those_of_the_page(module: str) -> None:
    """Whoever changes one changes the page as well; none is left out."""
    names = vars(importlib.import_module(module))
    numbers = {
        name: list(value) if isinstance(value, tuple) else [value]
        for name, value in names.items()
        if re.fullmatch("[A-Z][A-Z_]+", name) and isinstance(value, int | float | tuple)
    }
    for no_limit in ("EMPTY_SERIES_BYTES", "AWS_ERRORS"):
        numbers.pop(no_limit, None)
    assert told()[module] == numbers
