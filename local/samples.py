"""Files of all shapes, good and bad, for the demo and the page's buttons."""

import gzip
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from local.ledger import Point

JOB_FILES = 1000  # of one job in a burst, a second apart: none is older than MAX_AGE_SECONDS
MIN_JOBS = 5  # of a burst
# A job whose files another tool writes, with the mapping that reads them
MAPPED = {"mapped-sample": "{timestamp: at, models: length(results), seconds: elapsed_time}"}


class File(NamedTuple):
    """A file to be written, and what should arrive."""

    what: str
    key: str  # below the prefix
    body: bytes
    points: Sequence[Point]  # none: the file must be refused


def sample(what: str, key: str, body: object, metrics: Mapping[str, Any]) -> File:
    """Return a file; metrics: metric -> second -> value. A body that isn't bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    tags = (f"job:{key.partition('/')[0]}",)
    points = [Point(name, tags, *each) for name in metrics for each in metrics[name].items()]
    return File(what, key, content, points)


def good_files(now: int) -> list[File]:
    """Return a file of each shape that the contract allows."""
    array = {now - 1: 1200, now: 1260}
    rows = [{"timestamp": second, "rows": number} for second, number in array.items()]
    pages = {now - age: 40 + age for age in range(3)}
    lines = [json.dumps({"timestamp": second, "pages": n}) for second, n in pages.items()]
    zipped = gzip.compress(json.dumps({"timestamp": now, "load": 0.75}).encode())
    read, seconds = random.randint(900, 1100), round(random.uniform(3, 5), 2)
    nested = {"timestamp": now, "rows": {"read": read, "bad": None, "kept": read - 4}}
    mapped = {"at": now, "elapsed_time": seconds, "results": [{"status": "success"}] * 3}
    counted = {"rows.read": {now: read}, "rows.kept": {now: read - 4}}
    took = {"models": {now: 3}, "seconds": {now: seconds}}
    return [
        sample("an array", "report/array.json", rows, {"rows": array}),
        sample("JSON Lines", "crawler/lines.jsonl", "\n".join(lines).encode(), {"pages": pages}),
        sample("gzip", "warehouse/2019 + later.json.gz", zipped, {"load": {now: 0.75}}),
        sample("nested", "import/nested.json", nested, counted),
        sample("mapped", "mapped-sample/run_results.json", mapped, took),
    ]


def bad_files(now: int) -> list[File]:
    """Return a file that is cut short, and one so old that Datadog would drop its points."""
    cut_short = json.dumps({"timestamp": now, "sample.stats": 1231, "processed.data": 321})
    of_2019 = {"timestamp": 1575839011, "sample.stats": 1231, "processed.data": 321}
    return [
        sample("cut short", "report/cut-short.json", cut_short[:-8].encode(), {}),
        sample("of 2019", "report/of-2019.json", of_2019, {}),
    ]


def burst_files(count: int, now: int) -> Iterator[File]:
    """Yield files of several jobs; those of a job are a second apart, none in the future."""
    chance = random.Random(count)
    jobs = max(MIN_JOBS, -(-count // JOB_FILES))
    for number in range(count):
        age, job = divmod(number, jobs)
        metrics = {"rows.read": chance.randint(900, 1100), "seconds": round(chance.random(), 3)}
        key = f"job-{job}/{now}/{number:06}.json"
        expected = {name: {now - age: value} for name, value in metrics.items()}
        yield sample("burst", key, {"timestamp": now - age, **metrics}, expected)
