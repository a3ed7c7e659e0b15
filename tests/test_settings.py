"""docs/settings.md has the variables and outputs of the Terraform files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STACK, DASHBOARD = (ROOT / "docs/settings.md").read_text().split("## The dashboard in Datadog")


def read_blocks(folder: Path, kind: str) -> dict[str, str]:
    """Return the text of each variable or output of a root module."""
    text = (folder / f"{kind}s.tf").read_text()
    return dict(re.findall(rf'^{kind} "(\w+)" {{\n(.*?)^}}', text, re.MULTILINE | re.DOTALL))


def attributes(block: str, name: str) -> list[str]:
    """Return the values that an attribute has in a block, as they are written."""
    return re.findall(rf"^ +{name} += (.*)$", block, re.MULTILINE)


def rows(folder: Path) -> Iterator[str]:
    """Yield the rows that the page needs for a root module."""
    for name, block in read_blocks(folder, "variable").items():
        default = [f"`{value}`" for value in attributes(block, "default")] or ["must be given"]
        yield f"| `{name}` | {default[0].replace('`null`', 'none')} | {description(block)} |"
    for name, block in read_blocks(folder, "output").items():
        yield f"| `{name}` | {description(block)} |"


def description(block: str) -> str:
    [text] = attributes(block, "description")
    return str(json.loads(text))


@pytest.mark.parametrize(
    ("folder", "page"), [(ROOT, STACK), (ROOT / "dashboard", DASHBOARD)], ids=["stack", "dashboard"]
)
def test_page_has_a_row_for_each(folder: Path, page: str) -> None:
    """The assertion shows the row to paste."""
    written = [line for line in page.splitlines() if line.startswith("| `")]
    assert sorted(written) == sorted(rows(folder))
