"""The ledger campaign, short: faults of every kind, and every file is where it must be.

`make soak` is the long one. tests/test_campaign_bites.py shows that it would notice.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from local.campaign import sum_up, tables, tell_red
from local.faults import S3_TROUBLES, Kill, Lasting, all_strikes
from local.pages import DOCS, write_result
from tests.campaigns import FILES, HOURS, SEEDS, carry_out, short_campaign

pytestmark = pytest.mark.xdist_group("campaign")


@pytest.mark.parametrize("seed", SEEDS)
def test_books_add_up(seed: int) -> None:
    """No file is lost, none is in two places for no cause, no point has a wrong value."""
    outcome = short_campaign()[SEEDS.index(seed)]
    assert not outcome.faults, "\n".join(tell_red(outcome, FILES, HOURS))
    assert outcome.calm.files == FILES
    assert outcome.calm.waiting == 0


def test_faults_of_all_kinds_struck() -> None:
    """What a seed leaves out by chance another has; the long campaign leaves out none."""
    struck = {name for outcome in short_campaign() for name in outcome.struck}
    strikes = {name for strike in all_strikes("") for name in strike.names}
    missed = {*strikes, *S3_TROUBLES, *Lasting, *Kill} - struck
    assert len(missed) <= 5, missed


def test_function_ends_in_time() -> None:
    """Lambda never has to end it: it knows the time that it has left."""
    assert not any(outcome.struck[Kill.DEADLINE] for outcome in short_campaign())


def without_counts(story: list[str]) -> list[str]:
    """Return a story without how many requests each trouble struck: threads decide on a few."""
    return [line.partition("; ")[0] for line in story]


def test_seed_replays_exactly() -> None:
    """The plan, and invocation by invocation what came of it: a red seed can be looked into."""
    first, again = short_campaign()[0], carry_out(SEEDS[0])
    assert without_counts(again.story) == without_counts(first.story)
    assert again.calm == first.calm


def test_result_goes_into_the_page(tmp_path: Path) -> None:
    """Between its markers; the rest of the page stays."""
    begin, end = "<!-- campaign: begin -->", "<!-- campaign: end -->"
    page = tmp_path / "reliability.md"
    page.write_text(f"before\n{begin}\nNot run yet.\n{end}\nafter\n")
    write_result(page, "campaign", sum_up(short_campaign()), *tables(short_campaign()))
    written = page.read_text()
    assert written.startswith(f"before\n{begin}\n{len(SEEDS)} seeds of {FILES} files: ")
    assert f"| files | {len(SEEDS) * FILES:,} | {len(SEEDS) * FILES:,} |\n" in written
    assert written.endswith(f" |\n{end}\nafter\n")
    assert "Not run yet." not in written
    with pytest.raises(SystemExit, match="no place"):
        write_result(page, "bench", "result")


def test_pages_have_a_place_for_each_result() -> None:
    """`make bench`, `make simulate` and `make soak` write their tables themselves."""
    places = {
        "performance.md": ["bench"],
        "reliability.md": ["campaign"],
        "scaling.md": ["cost", "memory", "burst", "peak", "outages", "shortest", "compare"],
    }
    for page, names in places.items():
        found = re.findall("<!-- (.+): begin -->\n(?!<)", (DOCS / page).read_text())
        assert found == names
