"""The short campaign: a few seeds, carried out once for all tests about it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from local.faults import Schedule, draw_schedule
from local.trial import SOURCE, Outcome, Trial

SEEDS = range(1, 6)
FILES, HOURS = 100, 1.5  # a seed


def schedule(seed: int) -> Schedule:
    """Return what is written and what strikes in a seed."""
    return draw_schedule(seed, FILES, HOURS)


def carry_out(seed: int, source: Path = SOURCE) -> Outcome:
    """Return what becomes of a seed with the functions of a folder."""
    return Trial(schedule(seed), source).run()


@cache
def short_campaign() -> list[Outcome]:
    """Return what becomes of all seeds."""
    return [carry_out(seed) for seed in SEEDS]
