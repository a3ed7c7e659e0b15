"""Markdown tables between the markers of a page: <!-- name: begin --> and <!-- name: end -->."""

from collections.abc import Sequence
from pathlib import Path


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, len(head) * ["---"], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def write_between(page: Path, name: str, text: str) -> None:
    """Replace what is between a page's markers of that name."""
    before, begin, rest = page.read_text().partition(f"<!-- {name}: begin -->\n")
    _, end, after = rest.partition(f"\n<!-- {name}: end -->")
    page.write_text(before + begin + text + end + after)
