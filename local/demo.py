"""The whole pipeline on this machine: python -m local.demo, or `make demo`.

Both functions run from their zips under Lambda's own runtime client. moto stands in for S3 and SQS
(and really sends the bucket's notifications), local.datadog_server for Datadog,
local.event_source for the event source mapping; nothing but loopback is used, and no account.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from local.chart import Sample, Timeline, draw_picture
from local.datadog_server import Answer
from local.lambda_runtime import FunctionError
from local.ledger import Ledger, Point, balance
from local.pipeline import (
    PREFIX,
    ROOT,
    WATCH_SECONDS,
    Pipeline,
    parse_options,
    run_pipeline,
    take_all,
)
from local.samples import JOBS, File, bad_files, burst_files, good_files

GENERATED_TAGS = ("job:mock-datasource",)
GENERATED_METRICS = ("sample.stats", "processed.data")
ACCEPTED = 202

BACKFILL_FILES = 20  # written by one invocation of the generator, a second each
QUEUE_DEPTH = 20  # moto's SQS takes the longer for each call the more messages it holds
CHUNK_FILES = 50  # of a burst, between two looks at the depth
NOTIFIED_FILES = 500  # a larger burst is fed as constructed notifications
CONSTRUCTED_CHUNK_FILES = 500  # named by one notification
JOB_FILES = 1000  # of one job, a second each: none is older than MAX_AGE_SECONDS
MAX_OUTAGE_SECONDS = 10.0  # what waits longer is received too often, and ends as a dead letter
QUIET_SECONDS = 30.0  # the queue has this long to run empty
SHOWN_FAULTS = 20


# --- The story ---


def scene_line(mark: str, name: str, text: str) -> Text:
    """Return a line of the story."""
    return Text.assemble((mark, "green"), " " * bool(mark), (f"{name:<14}", "bold"), text)


@contextmanager
def scene(console: Console, name: str, text: str) -> Iterator[Callable[[str], None]]:
    """Tell a scene while it plays; calling what is yielded tells how far it has come.

    On a terminal that is a line that changes, elsewhere a line each time.
    """
    if not console.is_terminal:
        console.print(scene_line(" ", name, text))
        yield lambda text: console.print(scene_line(" ", "", text))
        return
    with console.status(scene_line("", name, text)) as status:
        yield lambda text: status.update(scene_line("", name, text))
    console.print(Text("✓", "green"), status.status)


Written = dict[str, Sequence[Point]]  # s3://bucket/key -> its points


def play(
    pipeline: Pipeline, burst: int, outage_seconds: float, console: Console
) -> tuple[Written, tuple[float, float]]:
    """Let happen to the pipeline what happens to pipelines.

    Returns the files that were written by hand, and when Datadog's outage began and ended.
    """
    bucket = pipeline.stack.bucket
    written: Written = {}
    with pipeline.event_source():
        with scene(console, "Generator", f"{BACKFILL_FILES} files at once, then one a second"):
            pipeline.generator.invoke({"files": BACKFILL_FILES})
        with pipeline.schedule():
            started = time.monotonic()
            files = good_files(int(time.time()))
            with scene(console, "Other shapes", ", ".join(file.what for file in files)):
                write(bucket, files, written)
            cut_short, of_2019 = bad_files(int(time.time()))
            with scene(console, "A bad file", cut_short.what):
                write(bucket, [cut_short], written)
            write_burst(pipeline, burst, written, console)
            with scene(console, "A bad file", of_2019.what):
                write(bucket, [of_2019], written)
                lasted = time.monotonic() - started
                time.sleep(max(outage_seconds - lasted, outage_seconds / 2))
            outage = break_datadog(pipeline, outage_seconds, console)
            with scene(console, "Recovery", "Datadog is back; what waited comes again") as tell:
                wait_until_empty(pipeline)
                late = time.time() - outage[1]
                tell(f"the last file that waited has arrived, {late:.1f} s after the outage")
                time.sleep(max(0.0, outage_seconds - late))
        wait_until_empty(pipeline)
    return written, outage


def write(bucket: Any, files: Sequence[File], written: Written) -> None:
    """Put files into a bucket and note what shall become of them."""
    for file in files:
        written[f"s3://{bucket.name}/{PREFIX}{file.key}"] = file.points
        bucket.put_object(Key=PREFIX + file.key, Body=file.body)


def write_burst(pipeline: Pipeline, count: int, written: Written, console: Console) -> None:
    """Write the burst no faster than the queue empties: moto's SQS isn't made for depth.

    A large one goes to a bucket that is silent, and each message names many of its files.
    """
    stack, constructed = pipeline.stack, count > NOTIFIED_FILES
    bucket = stack.silent_bucket if constructed else stack.bucket
    told = "as constructed notifications" if constructed else f"of {len(JOBS)} jobs"
    text = f"{count:,} files, {told}" if constructed else f"{count:,} files {told}"
    files, done = burst_files(count, int(time.time())), 0
    with scene(console, "Burst", text) as tell:
        while chunk := list(islice(files, CONSTRUCTED_CHUNK_FILES if constructed else CHUNK_FILES)):
            write(bucket, chunk, written)
            if constructed:
                stack.queue.send_message(MessageBody=notification(bucket.name, chunk))
            while pipeline.depth() > (0 if constructed else QUEUE_DEPTH):
                time.sleep(WATCH_SECONDS)
            done += len(chunk)
            tell(f"{done:,} of {text}")
        wait_until_empty(pipeline)


def notification(bucket: str, files: Sequence[File]) -> str:
    """Return what S3 would have sent, in one message."""
    records = [
        {"s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(PREFIX + file.key)}}}
        for file in files
    ]
    return json.dumps({"Records": records})


def break_datadog(pipeline: Pipeline, seconds: float, console: Console) -> tuple[float, float]:
    """Let Datadog answer 503 for some seconds; return when that began and ended."""
    unavailable = Answer(503, b"<html>Service Unavailable</html>")
    datadog = pipeline.datadog
    with scene(console, "Outage", f"Datadog answers 503 for {seconds:g} s") as tell:
        began = time.time()
        datadog.respond = datadog.respond_validate = lambda _: unavailable
        time.sleep(seconds)
        waiting = pipeline.depth()
        datadog.respond = datadog.respond_validate = None
        tell(f"Datadog answered 503 for {seconds:g} s; {waiting} files wait in the queue")
        return began, time.time()


def wait_until_empty(pipeline: Pipeline) -> None:
    """Wait until no message is in the queue, nor in anybody's hands; give up after a while."""
    deadline = time.monotonic() + QUIET_SECONDS
    while pipeline.depth() and time.monotonic() < deadline:
        time.sleep(WATCH_SECONDS)


# --- The books ---


def settle(pipeline: Pipeline, written: Written) -> tuple[Ledger, list[float]]:
    """Hold what lies in the buckets against what lies in Datadog and in the queues.

    Returns the ledger, and when each file was refused.
    """
    stack = pipeline.stack
    for file in stack.bucket.objects.all():
        address = f"s3://{file.bucket_name}/{file.key}"
        if address not in written:  # by hand: the generator's, flat and without tags
            body = json.loads(file.get()["Body"].read())
            second = body.pop("timestamp")
            written[address] = [Point(m, GENERATED_TAGS, second, v) for m, v in body.items()]
    rejected = take_all(stack.rejected)
    refused = {
        file: message.message_attributes["reason"]["StringValue"]
        for message in rejected
        for file in named_files(message)
    }
    waiting = take_all(stack.queue) + take_all(stack.dead_letters)
    ledger = balance(
        written, pipeline.datadog.points, refused, set().union(*map(named_files, waiting))
    )
    return ledger, [int(message.attributes["SentTimestamp"]) / 1000 for message in rejected]


def named_files(message: Any) -> list[str]:
    """Return the files that a queue's message is about: none for S3's test event."""
    return [
        f"s3://{record['s3']['bucket']['name']}/{unquote_plus(record['s3']['object']['key'])}"
        for record in json.loads(message.body).get("Records", [])
    ]


def timeline(
    pipeline: Pipeline, outage: tuple[float, float], ledger: Ledger, refused_at: Sequence[float]
) -> Timeline:
    """Return the generator's two metrics as Datadog has them, and when it got each point."""
    datadog, ended = pipeline.datadog, outage[1]
    in_time = {
        (series["metric"], int(second))
        for request in datadog.requests
        if request.status == ACCEPTED and request.at < ended
        for series in request.series or []
        for second, _ in series["points"]
    }
    metrics = {
        metric: [
            Sample(second, value, late=second < ended and (metric, second) not in in_time)
            for second, value in sorted(datadog.points.get((metric, GENERATED_TAGS), {}).items())
        ]
        for metric in GENERATED_METRICS
    }
    bad = f"{len(ledger.refused)} bad ones and " if ledger.refused else ""
    end = "it doesn't add up" if ledger.faults else "nothing lost"
    title = f"{len(ledger.written):,} files, {bad}an outage of Datadog: {end}"
    posts = [(request.at, request.status or 0) for request in datadog.requests]
    return Timeline(title, metrics, outage, posts, refused_at)


# --- The report ---


def print_report(console: Console, pipeline: Pipeline, ledger: Ledger) -> None:
    """Print the ledger, and each refused file with its reason."""
    requests = pipeline.datadog.requests
    statuses = Counter(request.status for request in requests)
    answers = ", ".join(f"{count:,} x {status}" for status, count in statuses.most_common())
    points = sum(map(len, pipeline.datadog.points.values()))
    table = Table("", "", "", show_header=False, title="Ledger", title_justify="left")
    table.columns[1].justify, table.columns[1].style = "right", "bold"
    rows = [
        ("files written", len(ledger.written), "in the buckets"),
        ("= submitted", len(ledger.submitted), "Datadog has every point of them"),
        ("+ refused", len(ledger.refused), "in the rejected queue, with a reason"),
        ("+ waiting", len(ledger.waiting), "in the queue or its dead-letter queue"),
        ("points", points, "stored by Datadog"),
        ("requests", len(requests), f"POST /api/v1/series: {answers}"),
        ("bytes", sum(request.wire_bytes for request in requests), "on the wire, deflated"),
        ("retried", pipeline.retried, "messages that came again"),
    ]
    for name, number, meaning in rows:
        table.add_row(name, f"{number:,}", meaning, end_section=name == "+ waiting")
    console.print(table)
    for file, reason in ledger.refused.items():
        console.print(Text.assemble("\nrefused ", (file, "yellow")))
        console.print(Padding(Text(reason), (0, 0, 0, 8)))
    for fault in ledger.faults[:SHOWN_FAULTS]:
        console.print(Text.assemble(("missing ", "bold red"), fault))
    if len(ledger.faults) > SHOWN_FAULTS:
        console.print(f"        and {len(ledger.faults) - SHOWN_FAULTS:,} more")


# --- The command ---


def run(options: argparse.Namespace, console: Console) -> int:
    """Play the story, print what came of it; return 0 if the ledger adds up, else 1."""
    stand_ins = "moto is S3 and SQS, Datadog a strict local server"
    console.print(scene_line(" ", "Stand-ins", stand_ins))
    with run_pipeline(options.zips, options.packages) as pipeline:
        written, outage = play(pipeline, options.burst, options.outage, console)
        ledger, refused_at = settle(pipeline, written)
    print_report(console, pipeline, ledger)
    graph = timeline(pipeline, outage, ledger, refused_at)
    if all(graph.metrics.values()):
        draw_picture(graph, options.chart)
        console.print(f"\nThe generator's numbers as a picture: {options.chart}", soft_wrap=True)
    else:
        console.print("No picture: Datadog has nothing from the generator.", style="bold red")
    return 1 if ledger.faults else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if its ledger adds up, 1 if not, 130 if it was interrupted."""
    parser = argparse.ArgumentParser("python -m local.demo", description=__doc__)
    burst = f"files of the burst; over {NOTIFIED_FILES:,} are not notified by S3"
    parser.add_argument("--burst", type=int, default=500, help=burst)
    outage = "how many seconds Datadog answers 503"
    parser.add_argument("--outage", type=float, default=4.0, help=outage)
    parser.add_argument("--chart", type=Path, default=ROOT / "demo.png", help="the picture")
    options = parse_options(parser, arguments)
    if options.burst < 1 or not 0 < options.outage <= MAX_OUTAGE_SECONDS:
        parser.error(f"a burst needs a file, an outage up to {MAX_OUTAGE_SECONDS:g} seconds.")
    console = Console(highlight=False)
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
