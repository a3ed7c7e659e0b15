"""The whole pipeline on this machine: python -m local.demo, or `make demo`.

Both functions run from their zips under Lambda's own runtime client. moto stands in for S3 and SQS
(and really sends the bucket's notifications), local.datadog_server for Datadog,
local.event_source for the event source mapping; nothing but loopback is used, and no account.
"""

import argparse
import gzip
import json
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote_plus, unquote_plus

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from local.chart import Metric, Sample, Timeline, draw_picture, draw_text
from local.datadog_server import Answer, Request
from local.event_source import Batch, failed_ids
from local.lambda_runtime import REGION, FunctionError
from local.ledger import Ledger, Point, balance
from local.pipeline import (
    BUCKET,
    GENERATOR_ZIP,
    SILENT_BUCKET,
    SUBMITTER_ZIP,
    WATCH_SECONDS,
    Pipeline,
    Schedule,
    Stack,
    run_pipeline,
)

ROOT = Path(__file__).resolve().parent.parent
GENERATED_TAGS = ("job:mock-datasource",)
GENERATED_METRICS = ("sample.stats", "processed.data")
JOBS = ("orders", "invoices", "clicks", "payments", "search")  # that a burst is of, at least
ACCEPTED = 202

BACKFILL_FILES = 20  # written by one invocation of the generator, a second each
QUEUE_DEPTH = 60  # moto's SQS takes the longer for each call the more messages it holds
DEPTH_EVERY = 20  # files of a burst between two looks at the depth
PROGRESS_FILES = 50  # of a burst between two lines of progress
NOTIFIED_FILES = 1000  # a larger burst is fed as constructed notifications
CONSTRUCTED_BATCH = 500  # messages
CONSTRUCTED_ROUNDS = 5  # deliveries of a constructed notification
JOB_FILES = 1000  # of one job, a second each: none is older than MAX_AGE_SECONDS
MAX_OUTAGE_SECONDS = 10.0  # what waits longer is received too often, and ends as a dead letter
QUIET_SECONDS = 30.0  # the queue has this long to run empty
SHOWN_FAULTS = 20
MAX_COLUMNS = 110  # of the report


# --- The story ---


class Narrator:
    """Says what goes on: a line that changes on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def scene(self, name: str, text: str) -> Iterator[Callable[[str], None]]:
        """Tell a scene while it plays; calling what is yielded tells how far it has come."""
        lines = [text]
        if not self._console.is_terminal:
            self._console.print(scene_line(" ", name, text))
            yield lambda text: self._console.print(scene_line(" ", "", text))
            return
        with self._console.status(scene_line("", name, text)) as status:

            def tell(text: str) -> None:
                lines.append(text)
                status.update(scene_line("", name, text))

            yield tell
        self._console.print(scene_line("✓", name, lines[-1]))


def scene_line(mark: str, name: str, text: str) -> Text:
    """Return a line of the story."""
    return Text.assemble((mark, "green"), " " * bool(mark), (f"{name:<14}", "bold"), text)


class File(NamedTuple):
    """A file that somebody writes, and what shall become of it."""

    what: str
    key: str
    body: bytes
    points: Sequence[Point]  # none: it shall be refused


class Story(NamedTuple):
    """What was done; what became of it is for others to say."""

    written: Mapping[str, Sequence[Point]]  # by hand: s3://bucket/key -> its points
    unfinished: set[str]  # files whose constructed notification was never dealt with
    outage: tuple[float, float]  # Unix seconds


def play(pipeline: Pipeline, burst: int, outage_seconds: float, narrator: Narrator) -> Story:
    """Let happen to the pipeline what happens to pipelines."""
    written: dict[str, Sequence[Point]] = {}
    unfinished: set[str] = set()

    def write(files: Sequence[File]) -> None:
        for file in files:
            written[pipeline.stack.put(file.key, file.body)] = file.points

    with pipeline.event_source():
        with narrator.scene("Generator", f"{BACKFILL_FILES} files at once, then one a second"):
            pipeline.generator.invoke({"files": BACKFILL_FILES})
        with Schedule(pipeline.generator.invoke):
            started = time.monotonic()
            files = good_files(int(time.time()))
            with narrator.scene("Other shapes", ", ".join(file.what for file in files)):
                write(files)
            with narrator.scene("A bad file", "cut short"):
                write([cut_short(int(time.time()))])
            if burst > NOTIFIED_FILES:
                feed_burst(pipeline, burst, written, unfinished, narrator)
            else:
                write_burst(pipeline, burst, written, narrator)
            with narrator.scene("A bad file", "of 2019"):
                write([of_2019()])
                lasted = time.monotonic() - started
                time.sleep(max(outage_seconds - lasted, outage_seconds / 2))
            outage = break_datadog(pipeline, outage_seconds, narrator)
            with narrator.scene("Recovery", "Datadog is back; what waited comes again") as tell:
                wait_until_empty(pipeline)
                late = time.time() - outage[1]
                tell(f"the last file that waited has arrived, {late:.1f} s after the outage")
                time.sleep(max(0.0, outage_seconds - late))
        wait_until_empty(pipeline)
    return Story(written, unfinished, outage)


def good_files(now: int) -> list[File]:
    """Return a file of each shape that the contract allows, with what Datadog shall make of it."""
    lines = [{"timestamp": now - second, "pages": 40 + second} for second in range(3)]
    return [
        File(
            "an array",
            "stats/report/array.json",
            json.dumps(
                [
                    {"timestamp": now - 1, "report.rows": 1200},
                    {"timestamp": now, "report.rows": 1260},
                ]
            ).encode(),
            [
                Point("report.rows", ("job:report",), now - 1, 1200),
                Point("report.rows", ("job:report",), now, 1260),
            ],
        ),
        File(
            "JSON Lines",
            "stats/crawler/lines.jsonl",
            "\n".join(json.dumps(line) for line in lines).encode(),
            [Point("pages", ("job:crawler",), now - second, 40 + second) for second in range(3)],
        ),
        File(
            "gzip",
            "stats/warehouse/2019 + later.json.gz",
            gzip.compress(json.dumps({"timestamp": now, "load": 0.75}).encode()),
            [Point("load", ("job:warehouse",), now, 0.75)],
        ),
        File(
            "nested",
            "stats/import/nested.json",
            json.dumps({"timestamp": now, "rows": {"read": 5, "bad": None, "kept": 4}}).encode(),
            [
                Point("rows.read", ("job:import",), now, 5),
                Point("rows.kept", ("job:import",), now, 4),
            ],
        ),
        File(
            "tagged",
            "stats/My Job/tagged.json",
            json.dumps({"timestamp": now, "tags": ["Env:Demo", "team:data"], "runs": 1}).encode(),
            [Point("runs", ("env:demo", "job:my_job", "team:data"), now, 1)],
        ),
    ]


def cut_short(now: int) -> File:
    """Return a file whose writer was interrupted."""
    whole = json.dumps({"timestamp": now, "sample.stats": 1231, "processed.data": 321})
    return File("cut short", "stats/report/cut-short.json", whole[:-8].encode(), [])


def of_2019() -> File:
    """Return a file that Datadog would answer 202, and drop."""
    old = {"timestamp": 1575839011, "sample.stats": 1231, "processed.data": 321}
    return File("of 2019", "stats/report/of-2019.json", json.dumps(old).encode(), [])


def burst_files(count: int, now: int) -> Iterator[File]:
    """Yield files of several jobs, each job's a second apart and none in the future."""
    chance = random.Random(count)
    jobs = [*JOBS, *(f"job-{number}" for number in range(len(JOBS), -(-count // JOB_FILES)))]
    for number in range(count):
        age, job = divmod(number, len(jobs))
        metrics = {"rows.read": chance.randint(900, 1100), "seconds": round(chance.random(), 3)}
        body = {"timestamp": now - age, **metrics}
        yield File(
            "burst",
            f"stats/{jobs[job]}/{now}/{number:06}.json",
            json.dumps(body).encode(),
            [
                Point(metric, (f"job:{jobs[job]}",), now - age, value)
                for metric, value in metrics.items()
            ],
        )


def write_burst(
    pipeline: Pipeline, count: int, written: dict[str, Sequence[Point]], narrator: Narrator
) -> None:
    """Write the burst no faster than the queue empties: moto's SQS isn't made for depth."""
    with narrator.scene("Burst", f"{count:,} files of {len(JOBS)} jobs") as tell:
        for number, file in enumerate(burst_files(count, int(time.time())), start=1):
            written[pipeline.stack.put(file.key, file.body)] = file.points
            if number % DEPTH_EVERY == 0:
                while pipeline.depth() > QUEUE_DEPTH:
                    time.sleep(WATCH_SECONDS)
            if number % PROGRESS_FILES == 0:
                tell(f"{number:,} of {count:,} files written")
        wait_until_empty(pipeline)


def feed_burst(
    pipeline: Pipeline,
    count: int,
    written: dict[str, Sequence[Point]],
    unfinished: set[str],
    narrator: Narrator,
) -> None:
    """Write the burst to a silent bucket, and hand its notifications to the submitter directly."""
    text = f"{count:,} files, as constructed notifications: moto's SQS is too slow for that many"
    with narrator.scene("Burst", text) as tell:
        files, fed = burst_files(count, int(time.time())), 0
        while chunk := list(islice(files, CONSTRUCTED_BATCH)):
            addresses = {}
            for file in chunk:
                address = pipeline.stack.put(file.key, file.body, SILENT_BUCKET)
                written[address] = file.points
                addresses[str(uuid.uuid4())] = address
            unfinished |= feed(pipeline, addresses)
            fed += len(chunk)
            tell(f"{fed:,} of {text}")


def feed(pipeline: Pipeline, addresses: Mapping[str, str]) -> set[str]:
    """Hand files to the submitter, as the event source would; return those it never finished.

    addresses are the files by the ids of their messages.
    """
    left = dict(addresses)
    for delivery in range(1, CONSTRUCTED_ROUNDS + 1):
        records = [constructed_record(*item, delivery) for item in left.items()]
        failed = failed_ids(pipeline.submitter.invoke({"Records": records}), list(left))
        pipeline.note(Batch(len(left), len(failed)))
        left = {message_id: left[message_id] for message_id in failed}
        if not left:
            break
    return set(left.values())


def constructed_record(message_id: str, address: str, delivery: int) -> dict[str, Any]:
    """Return the SQS record of a notification that S3 would have sent."""
    bucket, key = split_address(address)
    notification = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key, safe="/")}},
    }
    return {
        "messageId": message_id,
        "receiptHandle": message_id,
        "body": json.dumps({"Records": [notification]}),
        "attributes": {"ApproximateReceiveCount": str(delivery)},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "awsRegion": REGION,
    }


def break_datadog(pipeline: Pipeline, seconds: float, narrator: Narrator) -> tuple[float, float]:
    """Let Datadog answer 503 for some seconds; return when that began and ended."""
    unavailable = Answer(503, b"<html>Service Unavailable</html>")
    with narrator.scene("Outage", f"Datadog answers 503 for {seconds:g} s") as tell:
        began = time.time()
        pipeline.datadog.respond = pipeline.datadog.respond_validate = lambda _: unavailable
        time.sleep(seconds)
        waiting = pipeline.depth()
        pipeline.datadog.respond = pipeline.datadog.respond_validate = None
        ended = time.time()
        tell(f"Datadog answered 503 for {seconds:g} s; {waiting} files wait in the queue")
    return began, ended


def wait_until_empty(pipeline: Pipeline) -> None:
    """Wait until no message is in the queue, nor in anybody's hands; give up after a while."""
    deadline = time.monotonic() + QUIET_SECONDS
    while pipeline.depth() and time.monotonic() < deadline:
        time.sleep(WATCH_SECONDS)


# --- The books ---


class Outcome(NamedTuple):
    """What is found when all is quiet."""

    ledger: Ledger
    refused_at: Sequence[float]  # Unix seconds
    posts: Sequence[Request]


def settle(pipeline: Pipeline, story: Story) -> Outcome:
    """Hold what lies in the buckets against what lies in Datadog and in the queues."""
    stack = pipeline.stack
    written = {file: story.written.get(file, ()) for file in list_files(stack)}
    for file in written.keys() - story.written.keys():
        written[file] = generated_points(stack, file)
    rejected = stack.take_all(stack.rejected_url)
    waiting = [*stack.take_all(stack.queue_url), *stack.take_all(stack.dead_letter_url)]
    ledger = balance(
        {**story.written, **written},
        pipeline.datadog.points,
        {
            file: message["MessageAttributes"]["reason"]["StringValue"]
            for message in rejected
            for file in named_files(message)
        },
        story.unfinished.union(*map(named_files, waiting)),
    )
    return Outcome(
        ledger,
        [int(message["Attributes"]["SentTimestamp"]) / 1000 for message in rejected],
        list(pipeline.datadog.requests),
    )


def list_files(stack: Stack) -> Iterator[str]:
    """Yield all that lies in the buckets."""
    for bucket in (BUCKET, SILENT_BUCKET):
        for page in stack.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", []):
                yield f"s3://{bucket}/{entry['Key']}"


def generated_points(stack: Stack, file: str) -> list[Point]:
    """Return the points of a file that the generator wrote: flat, and without tags."""
    bucket, key = split_address(file)
    body = json.loads(stack.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    second = body.pop("timestamp")
    return [Point(metric, GENERATED_TAGS, second, value) for metric, value in body.items()]


def named_files(message: Mapping[str, Any]) -> list[str]:
    """Return the files that a queue's message is about: none for S3's test event."""
    return [
        f"s3://{record['s3']['bucket']['name']}/{unquote_plus(record['s3']['object']['key'])}"
        for record in json.loads(message["Body"]).get("Records", [])
    ]


def split_address(file: str) -> tuple[str, str]:
    """Return bucket and key of s3://bucket/key."""
    bucket, _, key = file.removeprefix("s3://").partition("/")
    return bucket, key


def timeline(pipeline: Pipeline, story: Story, outcome: Outcome) -> Timeline:
    """Return the generator's two metrics as Datadog has them, and when it got each point."""
    arrived: dict[tuple[str, int], float] = {}
    for request in outcome.posts:
        for series in request.series or [] if request.status == ACCEPTED else []:
            for second, _ in series["points"]:
                arrived.setdefault((series["metric"], int(second)), request.at)
    metrics = []
    for metric in GENERATED_METRICS:
        stored = pipeline.datadog.points.get((metric, GENERATED_TAGS), {})
        samples = [
            Sample(second, value, arrived[metric, second])
            for second, value in sorted(stored.items())
        ]
        metrics.append(Metric(metric, samples))
    ledger = outcome.ledger
    bad = f"{len(ledger.refused)} bad ones and " if ledger.refused else ""
    end = "it doesn't add up" if ledger.faults else "nothing lost"
    return Timeline(
        f"{len(ledger.written):,} files, {bad}an outage of Datadog: {end}",
        metrics,
        story.outage,
        [(request.at, request.status or 0) for request in outcome.posts],
        outcome.refused_at,
    )


# --- The report ---


def print_report(console: Console, pipeline: Pipeline, outcome: Outcome) -> None:
    """Print the ledger, and each refused file with its reason."""
    ledger = outcome.ledger
    statuses = Counter(request.status for request in outcome.posts)
    answers = ", ".join(f"{count:,} x {status}" for status, count in statuses.most_common())
    points = sum(len(series) for series in pipeline.datadog.points.values())
    table = Table(show_header=False, title="Ledger", title_justify="left")
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column()
    table.add_row("files written", f"{len(ledger.written):,}", "in the buckets")
    table.add_row("= submitted", f"{len(ledger.submitted):,}", "Datadog has every point of them")
    table.add_row("+ refused", f"{len(ledger.refused):,}", "in the rejected queue, with a reason")
    table.add_row("+ waiting", f"{len(ledger.waiting):,}", "in the queue or its dead-letter queue")
    table.add_section()
    table.add_row("points", f"{points:,}", "stored by Datadog")
    table.add_row("requests", f"{len(outcome.posts):,}", f"POST /api/v1/series: {answers}")
    wire_bytes = sum(request.wire_bytes for request in outcome.posts)
    table.add_row("bytes", f"{wire_bytes:,}", "on the wire, deflated")
    table.add_row("retried", f"{pipeline.retried:,}", "messages that came again")
    console.print(table)
    for file, reason in ledger.refused.items():
        console.print(Text.assemble("\nrefused ", (file, "yellow")))
        console.print(Padding(Text(reason), (0, 0, 0, 8)))
    for fault in ledger.faults[:SHOWN_FAULTS]:
        console.print(Text.assemble(("missing ", "bold red"), fault))
    if len(ledger.faults) > SHOWN_FAULTS:
        console.print(f"        and {len(ledger.faults) - SHOWN_FAULTS:,} more")


def print_chart(console: Console, graph: Timeline, path: Path) -> None:
    """Print the graph, and write it as a picture."""
    if not all(metric.samples for metric in graph.metrics):
        console.print("No graph: Datadog has nothing from the generator.", style="bold red")
        return
    columns = min(console.width, MAX_COLUMNS)
    console.print()
    console.print(Text.from_ansi(draw_text(graph, columns)), no_wrap=True)
    draw_picture(graph, path)
    console.print(f"\nThe same as a picture: {path}")


# --- The command ---


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; what is missing on this machine ends the program."""
    parser = argparse.ArgumentParser(
        prog="python -m local.demo", description=__doc__.partition("\n\n")[2]
    )
    parser.add_argument(
        "--burst",
        type=int,
        default=500,
        metavar="FILES",
        help="size of the burst (default: %(default)s); of more than "
        f"{NOTIFIED_FILES:,} the notifications are constructed",
    )
    parser.add_argument(
        "--outage",
        type=float,
        default=4.0,
        metavar="SECONDS",
        help="how long Datadog answers 503 (default: %(default)s)",
    )
    parser.add_argument(
        "--chart",
        type=Path,
        default=ROOT / "demo.png",
        metavar="FILE",
        help="where the picture goes (default: demo.png beside the README)",
    )
    parser.add_argument(
        "--zips",
        type=Path,
        default=ROOT,
        metavar="FOLDER",
        help="where zipper.sh left the two zips (default: beside it)",
    )
    parser.add_argument(
        "--packages",
        type=Path,
        default=Path(sys.prefix, "lambda-runtime"),
        metavar="FOLDER",
        help="where awslambdaric and boto3 are installed (default: lambda-runtime in .venv)",
    )
    options = parser.parse_args(arguments)
    if options.burst < 1 or not 0 < options.outage <= MAX_OUTAGE_SECONDS:
        parser.error(f"a burst needs a file, an outage up to {MAX_OUTAGE_SECONDS:g} seconds.")
    needed = [
        (options.zips / SUBMITTER_ZIP, "./zipper.sh makes it"),
        (options.zips / GENERATOR_ZIP, "./zipper.sh makes it"),
        (options.packages / "awslambdaric", "`make demo` installs it"),
    ]
    for path, remedy in needed:
        if not path.exists():
            parser.error(f"{path} isn't there: {remedy}.")
    return options


def keep_to_loopback() -> None:
    """Take from the environment what could lead boto3 elsewhere."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"


def end_in_order(_number: int, _frame: FrameType | None) -> NoReturn:
    """On a signal, unwind: every part is a context manager, and ends itself."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # a second Ctrl-C would leave things behind
    raise KeyboardInterrupt


def run(options: argparse.Namespace, console: Console) -> int:
    """Play the story, print what came of it; return 0 if the ledger adds up, else 1."""
    narrator = Narrator(console)
    stand_ins = "moto for S3 and SQS, a strict local Datadog; the functions are those of the zips"
    console.print(scene_line(" ", "Stand-ins", stand_ins))
    with run_pipeline(options.zips, options.packages) as pipeline:
        story = play(pipeline, options.burst, options.outage, narrator)
        outcome = settle(pipeline, story)
    print_report(console, pipeline, outcome)
    print_chart(console, timeline(pipeline, story, outcome), options.chart)
    return 1 if outcome.ledger.faults else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if its ledger adds up, 1 if not, 130 if it was interrupted."""
    options = parse_arguments(arguments)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, end_in_order)
    keep_to_loopback()
    width = None if sys.stdout.isatty() else MAX_COLUMNS  # rich would assume 80
    console = Console(highlight=False, width=width)
    try:
        return run(options, console)
    except KeyboardInterrupt:
        console.print("Interrupted; nothing is left running.")
        return 130
    except FunctionError as error:
        failure = Text.assemble(("A function failed: ", "bold red"), str(error))
        console.print(failure, soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
