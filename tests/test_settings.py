"""docs/settings.md tells of each variable and output what the Terraform files say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest

ROOT = Path(__file__).resolve().parent.parent
STACK, DASHBOARD = (ROOT / "docs/settings.md").read_text().split("## The dashboard in Datadog")


def read_blocks(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return a root's variables or outputs by name."""
    blocks = hcl2.loads((folder / f"{kind}s.tf").read_text())[kind]
    return {json.loads(name): block for one in blocks for name, block in one.items()}


def default_of(block: dict[str, Any]) -> str:
    """Return a variable's default as a table shows it."""
    if "default" not in block:
        return "must be given"
    value = block["default"]
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def rows(folder: Path) -> Iterator[str]:
    """Yield the rows that a page has for a root."""
    for name, block in read_blocks(folder, "variable").items():
        yield f"| `{name}` | {default_of(block)} | {json.loads(block['description'])} |"
    for name, block in read_blocks(folder, "output").items():
        yield f"| `{name}` | {json.loads(block['description'])} |"


@pytest.mark.parametrize(
    ("folder", "page"),
    [pytest.param(ROOT, STACK, id="stack"), pytest.param(ROOT / "dashboard", DASHBOARD, id="dash")],
)
def test_page_has_a_row_for_each(folder: Path, page: str) -> None:
    """Where one is off, the assertion shows the row to paste."""
    told = [line for line in page.splitlines() if line.startswith("| `")]
    assert sorted(told) == sorted(rows(folder))
