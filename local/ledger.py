"""The demo's ledger: what was written against what arrived, without asking the submitter.

Written files are in the buckets, submitted ones in Datadog with the right values, refused ones in
the rejected queue, and waiting ones in the queue or its dead-letter queue.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """One number, as it should be in Datadog."""

    metric: str
    tags: tuple[str, ...]  # sorted
    second: int  # Unix
    value: float


Stored = Mapping[tuple[str, tuple[str, ...]], Mapping[int, float]]  # DatadogServer.points


class Ledger(NamedTuple):
    """Every file (s3://bucket/key) by its outcome, and the contradictions."""

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
    """Find the outcome of every written file; a file without a proper one is a fault.

    written: the points of each file; none for a bad file, which must be refused.
    """
    kept = {
        Point(metric, tags, second, value)
        for (metric, tags), series in stored.items()
        for second, value in series.items()
    }
    waits, submitted, still, faults = {*waiting}, [], [], []
    for file, points in written.items():
        here = kept.intersection(points)
        if file in refused:
            if points:
                faults.append(f"{file} is a good file, but was refused: {refused[file]}")
            if here:
                faults.append(f"{file} was refused, but {len(here)} of its points arrived.")
        elif points and len(here) == len(points):
            submitted.append(file)
        elif file in waits:
            still.append(file)
            faults.append(f"{file} still waits in the queue.")
        else:
            faults.append(f"{file} is lost: Datadog has {len(here)} of its {len(points)} points.")
    strangers = sorted((refused.keys() | waits) - written.keys())
    faults += [f"{file} is in a queue, but was never written." for file in strangers]
    faults += [
        f"Datadog has {point.metric} = {point.value} at {point.second}, but no file does."
        for point in sorted(kept.difference(*written.values()))
    ]
    return Ledger(submitted, refused, still, faults)
