"""docs/settings.md has the variables and outputs of the Terraform files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STACK, DASHBOARD = (ROOT / "docs/settings.md").read_text().split("## The dashboard in Datadog")


def rows(folder: Path) -> Iterator[str]:
    """Yield the rows that the page needs for a root module."""
    text = (folder / "variables.tf").read_text() + (folder / "outputs.tf").read_text()
    for kind, name, block in re.findall(r'^(\w+) "(\w+)" {\n(.*?)^}', text, re.M | re.S):
        cells = [f"`{name}`"]
        if kind == "variable":
            default = re.search("^  default += (.*)$", block, re.M)
            value = f"`{default[1]}`" if default else "must be given"
            cells.append("none" if value == "`null`" else value)
        [description] = re.findall("^  description += (.*)$", block, re.M)
        yield f"| {' | '.join([*cells, json.loads(description)])} |"


@pytest.mark.parametrize(
    ("folder", "page"), [(ROOT, STACK), (ROOT / "dashboard", DASHBOARD)], ids=["stack", "dashboard"]
)
def test_page_has_a_row_for_each(folder: Path, page: str) -> None:
    """The assertion shows the row to paste."""
    written = [line for line in page.splitlines() if line.startswith("| `")]
    assert sorted(written) == sorted(rows(folder))
