"""docs/limits.md has the limits of the code."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def documented() -> dict[str, dict[str, list[float]]]:
    """Return module -> constant -> numbers of the page."""
    page = (ROOT / "docs/limits.md").read_text()
    sections = re.findall(r"^## [^\n]*`(\w+)\.py`\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    row = re.compile(r"^\| `(\w+)` \| ([\d., ]+) \|", re.M)
    return {
        module: {
            name: [float(each.replace(",", "")) for each in value.split(", ")]
            for name, value in row.findall(rows)
        }
        for module, rows in sections
    }


@pytest.mark.parametrize("module", documented())
def test_page_has_each_limit(module: str) -> None:
    own = re.findall(r"^([A-Z][A-Z_]+) = ", (ROOT / f"{module}.py").read_text(), re.M)
    values = {name: vars(importlib.import_module(module))[name] for name in own}
    several = {
        name: [*each] if isinstance(each, tuple) else [each] for name, each in values.items()
    }
    numbers = {
        name: each
        for name, each in several.items()
        if all(isinstance(number, int | float) for number in each)
    }
    assert documented()[module] == numbers
