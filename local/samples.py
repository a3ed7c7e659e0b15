"""Files of all shapes, good and bad, for the demo and the page's buttons."""

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from local.ledger import Point

JOBS = ("orders", "invoices", "clicks", "payments", "search")  # that a burst is of, at least
JOB_FILES = 1000  # of one job, a second each: none is older than MAX_AGE_SECONDS
# A tool's own output, and the job in whose folder it is mapped
MAPPED = {"mapped-sample": "{timestamp: at, models: length(results), seconds: elapsed_time}"}


class File(NamedTuple):
    """A file that somebody writes, and what shall become of it."""

    what: str
    key: str  # below the prefix
    body: bytes
    points: Sequence[Point]  # none: it shall be refused


def good_files(now: int) -> list[File]:
    """Return a file of each shape that the contract allows, with what Datadog shall make of it."""
    array = [{"timestamp": now - 1, "rows": 1200}, {"timestamp": now, "rows": 1260}]
    lines = [json.dumps({"timestamp": now - age, "pages": 40 + age}) for age in range(3)]
    read, seconds = random.randint(900, 1100), round(random.uniform(3, 5), 2)
    nested = {"timestamp": now, "rows": {"read": read, "bad": None, "kept": read - 4}}
    mapped = {"at": now, "elapsed_time": seconds, "results": [{"status": "success"}] * 3}
    tagged = {"timestamp": now, "tags": ["Env:Demo", "team:data"], "runs": 1}
    return [
        File(
            "an array",
            "report/array.json",
            json.dumps(array).encode(),
            [Point("rows", ("job:report",), row["timestamp"], row["rows"]) for row in array],
        ),
        File(
            "JSON Lines",
            "crawler/lines.jsonl",
            "\n".join(lines).encode(),
            [Point("pages", ("job:crawler",), now - age, 40 + age) for age in range(3)],
        ),
        File(
            "gzip",
            "warehouse/2019 + later.json.gz",
            gzip.compress(json.dumps({"timestamp": now, "load": 0.75}).encode()),
            [Point("load", ("job:warehouse",), now, 0.75)],
        ),
        File(
            "nested",
            "import/nested.json",
            json.dumps(nested).encode(),
            [
                Point(f"rows.{name}", ("job:import",), now, n)
                for name, n in (("read", read), ("kept", read - 4))
            ],
        ),
        File(
            "tagged",
            "My Job/tagged.json",
            json.dumps(tagged).encode(),
            [Point("runs", ("env:demo", "job:my_job", "team:data"), now, 1)],
        ),
        File(
            "mapped",
            "mapped-sample/run_results.json",
            json.dumps(mapped).encode(),
            [
                Point(name, ("job:mapped-sample",), now, n)
                for name, n in (("models", 3), ("seconds", seconds))
            ],
        ),
    ]


def bad_files(now: int) -> list[File]:
    """Return a file whose writer was interrupted, and one that Datadog would drop behind a 202."""
    cut_short, of_2019 = (
        json.dumps({"timestamp": second, "sample.stats": 1231, "processed.data": 321}).encode()
        for second in (now, 1575839011)
    )
    return [
        File("cut short", "report/cut-short.json", cut_short[:-8], []),
        File("of 2019", "report/of-2019.json", of_2019, []),
    ]


def burst_files(count: int, now: int) -> Iterator[File]:
    """Yield files of several jobs, each job's a second apart and none in the future."""
    chance = random.Random(count)
    jobs = [*JOBS, *(f"job-{number}" for number in range(len(JOBS), -(-count // JOB_FILES)))]
    for number in range(count):
        age, job = divmod(number, len(jobs))
        metrics = {"rows.read": chance.randint(900, 1100), "seconds": round(chance.random(), 3)}
        yield File(
            "burst",
            f"{jobs[job]}/{now}/{number:06}.json",
            json.dumps({"timestamp": now - age, **metrics}).encode(),
            [
                Point(metric, (f"job:{jobs[job]}",), now - age, value)
                for metric, value in metrics.items()
            ],
        )
