"""Results in the pages of docs: the tables that a run printed, between a page's markers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

DOCS = Path(__file__).resolve().parent.parent / "docs"


def make_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table whose first column is words and whose others are numbers, on the right."""
    table = Table()
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def write_result(page: Path, name: str, *parts: str | Table) -> None:
    """Put sentences and tables between a page's markers `<!-- name: begin -->` and `... end -->`.

    Raises SystemExit where the page has no such markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, marker, after = rest.partition(end)
    if not marker:
        raise SystemExit(f"{page} has no place for the result: {begin} and {end}")
    texts = [part if isinstance(part, str) else "\n".join(markdown(part)) for part in parts]
    result = "\n".join([begin, "\n\n".join(texts), end])
    page.write_text(before + result + after, encoding="utf-8")


def markdown(table: Table) -> Iterator[str]:
    """Yield a table's lines in Markdown."""
    yield f"| {' | '.join(str(column.header) for column in table.columns)} |"
    yield f"|{'|'.join('---:' if c.justify == 'right' else '---' for c in table.columns)}|"
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        yield f"| {' | '.join(Text.from_markup(str(cell)).plain for cell in cells)} |"
