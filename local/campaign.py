"""The ledger campaign: every file's whereabouts add up, whatever strikes.

python -m local.campaign --files 10000 --seeds 20    the soak; its result goes into the docs
python -m local.campaign --files 150 --hours 2 --seed 7    one seed alone, told in full
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from local.audit import CAUSES, Books
from local.faults import draw_schedule
from local.pages import DOCS, make_table, write_result
from local.trial import Outcome, Trial

PAGE = DOCS / "reliability.md"
HOURS = 4.0  # of the trial's clock
SHOWN_FAULTS = 20


def run_seed(seed: int, files: int, hours: float) -> Outcome:
    """Carry out one seed; what the function printed stays here."""
    gc.collect()  # the environments of the seed before refer to themselves, and hold connections
    return Trial(draw_schedule(seed, files, hours)).run()._replace(printed="", rejected=())


def run_seeds(seeds: Sequence[int], files: int, hours: float, jobs: int) -> Iterator[Outcome]:
    """Carry out seeds side by side, and yield what became of each as it ends."""
    with multiprocessing.Pool(jobs) as pool:  # whose end ends what still runs
        yield from pool.imap_unordered(partial(run_seed, files=files, hours=hours), seeds)


def summarise(outcome: Outcome) -> str:
    """Return a seed in a line."""
    books = outcome.calm
    return (
        f"seed {outcome.seed}: {books.files} files, {sum(outcome.struck.values())} faults struck; "
        f"{books.submitted} submitted, {books.refused} refused, "
        f"{len(outcome.faults) or 'nothing'} amiss"
    )


def tell_red(outcome: Outcome, files: int, hours: float) -> Iterator[str]:
    """Yield all that there is to say of a seed whose books don't add up."""
    yield from outcome.story
    yield from outcome.faults[:SHOWN_FAULTS]
    yield f"{len(outcome.faults)} things don't add up. The same again:"
    yield f"python -m local.campaign --files {files} --hours {hours:g} --seed {outcome.seed}"


def fault_rows(outcomes: Iterable[Outcome]) -> list[tuple[str, str]]:
    """Return how often each fault struck."""
    struck: Counter[str] = sum((outcome.struck for outcome in outcomes), Counter())
    return [(str(name), f"{struck[name]:,}") for name in sorted(struck)]


def outcome_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, str, str]]:
    """Return where the files were, when the storm ended and after the calm."""

    def row(name: str, count: str) -> tuple[str, str, str]:
        storm = sum(getattr(outcome.storm, count) for outcome in outcomes)
        calm = sum(getattr(outcome.calm, count) for outcome in outcomes)
        return name, f"{storm:,}", f"{calm:,}"

    def both(books: Iterable[Books], cause: str) -> str:
        return f"{sum(each.both[cause] for each in books):,}"

    storms, calms = [each.storm for each in outcomes], [each.calm for each in outcomes]
    return [
        row("files", "files"),
        row("submitted", "submitted"),
        row("refused", "refused"),
        row("waiting, in the queue or the dead-letter queue", "waiting"),
        *((f"in two: {cause}", both(storms, cause), both(calms, cause)) for cause in CAUSES),
    ]


def tables(outcomes: Sequence[Outcome]) -> tuple[Table, Table]:
    """Return where the files were, and what struck."""
    return (
        make_table(("files", "when the storm ended", "after the calm"), outcome_rows(outcomes)),
        make_table(("fault", "struck"), fault_rows(outcomes)),
    )


def sum_up(outcomes: Sequence[Outcome]) -> str:
    """Return the result in a sentence."""
    invocations, requests, points = (
        sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("invocations", "requests", "points")
    )
    return (
        f"{len(outcomes)} seeds of {outcomes[0].calm.files:,} files: {invocations:,} invocations, "
        f"{requests:,} POSTs, {points:,} points in Datadog. No file was in no place, none in two "
        "for no cause, and no point had a wrong value."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the campaign; returns 1 if anything doesn't add up."""
    parser = argparse.ArgumentParser("python -m local.campaign", description=main.__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="a seed; default: %(default)s")
    parser.add_argument("--hours", type=float, default=HOURS, help="that a seed's storm lasts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="seeds side by side")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=int, default=20, help="that many; their result is kept")
    which.add_argument("--seed", type=int, help="this one alone, and its story")
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if options.seed is not None:
        outcome = run_seed(options.seed, options.files, options.hours)
        console.print("\n".join(outcome.story))
        console.print("\n".join([*outcome.faults, summarise(outcome)]))
        return 1 if outcome.faults else 0
    started = time.monotonic()
    outcomes: list[Outcome] = []
    seeds = range(1, options.seeds + 1)
    columns = TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("seeds", total=len(seeds))
        for outcome in run_seeds(seeds, options.files, options.hours, options.jobs):
            if outcome.faults:
                console.print("\n".join(tell_red(outcome, options.files, options.hours)))
                return 1
            outcomes.append(outcome)
            progress.advance(bar)
            console.print(f"{time.monotonic() - started:5.0f} s  {summarise(outcome)}")
    where, struck = tables(outcomes)
    console.print(struck, where)
    write_result(PAGE, "campaign", sum_up(outcomes), where, struck)
    console.print(f"written into {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
