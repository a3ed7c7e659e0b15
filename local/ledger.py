"""The demo's books: compare what was written with what arrived, from independent sources.

Written files are in the buckets, submitted ones in Datadog with the right values, refused ones in
the rejected queue, and waiting ones in the queue or its dead-letter queue. The submitter itself is
never asked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """One number, as it should be in Datadog."""

    metric: str
    tags: tuple[str, ...]  # sorted
    second: int  # Unix
    value: float


Stored = Mapping[tuple[str, tuple[str, ...]], Mapping[int, float]]  # DatadogServer.points


class Ledger(NamedTuple):
    """Every file by its outcome, and the contradictions."""

    written: Sequence[str]  # s3://bucket/key
    submitted: Sequence[str]
    refused: Mapping[str, str]  # file -> reason
    waiting: Sequence[str]
    faults: Sequence[str]


def balance(
    written: Mapping[str, Sequence[Point]],
    stored: Stored,
    refused: Mapping[str, str],
    waiting: Iterable[str],
) -> Ledger:
    """Find the outcome of every written file: submitted, refused or waiting; else it is a fault.

    `written` has the points of each file; a file without points is bad, and must be refused.
    """
    kept = {
        Point(metric, tags, second, value)
        for (metric, tags), series in stored.items()
        for second, value in series.items()
    }
    waiting_files = set(waiting)
    arrived = [file for file, points in written.items() if points and kept.issuperset(points)]
    settled = refused.keys() | set(arrived)
    return Ledger(
        written=list(written),
        submitted=[file for file in arrived if file not in refused],
        refused=dict(refused),
        waiting=[file for file in written if file in waiting_files - settled],
        faults=list(find_faults(written, kept, refused, waiting_files)),
    )


def find_faults(
    written: Mapping[str, Sequence[Point]],
    kept: set[Point],
    refused: Mapping[str, str],
    waiting: set[str],
) -> Iterator[str]:
    """Yield a sentence for each contradiction."""
    for file, points in written.items():
        here = kept.intersection(points)
        if file in refused:
            if points:
                yield f"{file} is a good file, but was refused: {refused[file]}"
            if here:
                yield f"{file} was refused, but {len(here)} of its points were submitted."
        elif not points or len(here) < len(points):
            if file in waiting:
                yield f"{file} still waits in the queue."
            elif points:
                yield f"{file} is lost: Datadog has {len(here)} of its {len(points)} points."
            else:
                yield f"{file} is a bad file, but is neither refused nor waiting."
    for file in sorted((refused.keys() | waiting) - written.keys()):
        yield f"{file} is in a queue, but was never written."
    for point in sorted(kept.difference(*written.values())):
        yield f"Datadog has {point.metric} = {point.value} at {point.second}, but no file does."
