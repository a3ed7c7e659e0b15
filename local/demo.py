"""The whole pipeline on this machine: python -m local.demo, or `make demo`.

Both functions run from their zips under Lambda's own runtime client. moto stands in for S3 and SQS
and sends the bucket's notifications; local.datadog_server stands in for Datadog,
local.event_source for the event source mapping. It needs no account and no network but loopback.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from local.chart import draw_picture
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
from local.samples import File, bad_files, burst_files, good_files

GENERATED_TAGS = ("job:mock-datasource",)
GENERATED_METRICS = ("sample.stats", "processed.data")

BACKFILL_FILES = 20  # written by one invocation of the generator, a second apart
QUEUE_DEPTH = 20  # moto's SQS gets slower with every message that it holds
NOTIFIED_FILES = 500  # a larger burst is fed as constructed notifications
MAX_OUTAGE_SECONDS = 10.0  # a file that waits longer is received too often: a dead letter
QUIET_SECONDS = 30.0  # in which the queue has to run empty
SHOWN_FAULTS = 20

Written = dict[str, Sequence[Point]]  # s3://bucket/key -> its points


class Story:
    """What happens to the pipeline, told while it happens."""

    def __init__(self, pipeline: Pipeline, console: Console) -> None:
        self.pipeline, self.console = pipeline, console
        self.written: Written = {}  # without the generator's files
        self.outage = (0.0, 0.0)  # when it began and ended, Unix seconds

    def tell(self, name: str, text: str) -> None:
        """Print a line."""
        self.console.print(Text.assemble((f"{name:<14}", "bold"), text))

    def play(self, burst: int, outage_seconds: float) -> None:
        """Write good and bad files and a burst, and break Datadog for some seconds."""
        pipeline, started = self.pipeline, time.time()
        good, (cut_short, of_2019) = good_files(int(started)), bad_files(int(started))
        with pipeline.event_source():
            self.tell("Generator", f"{BACKFILL_FILES} files at once, then one a second")
            pipeline.generator.invoke({"files": BACKFILL_FILES})
            with pipeline.schedule():
                self.tell("Other shapes", ", ".join(file.what for file in good))
                self.write(good)
                self.tell("A bad file", cut_short.what)
                self.write([cut_short])
                self.write_burst(burst)
                self.tell("A bad file", of_2019.what)
                self.write([of_2019])
                time.sleep(max(started + outage_seconds - time.time(), outage_seconds / 2))
                self.break_datadog(outage_seconds)
                self.wait_until_empty()
                late = time.time() - self.outage[1]
                self.tell("", f"the last of them arrived {late:.1f} s after the outage")
                time.sleep(max(0.0, outage_seconds - late))
            self.wait_until_empty()

    def write(self, files: Sequence[File], beside: str = "") -> None:
        """Put files into the stack's bucket or the one beside it; note what should arrive."""
        own = self.pipeline.stack.bucket
        for file in files:
            bucket, key = own.name + beside, PREFIX + file.key
            self.written[f"s3://{bucket}/{key}"] = file.points
            own.meta.client.put_object(Bucket=bucket, Key=key, Body=file.body)

    def write_burst(self, count: int) -> None:
        """Write the burst no faster than the queue empties.

        A large one goes to a bucket without notifications; each message then names many files.
        """
        stack, constructed = self.pipeline.stack, count > NOTIFIED_FILES
        chunk, most, beside = (500, 0, "-silent") if constructed else (50, QUEUE_DEPTH, "")
        told = "as constructed notifications" if constructed else "of several jobs"
        self.tell("Burst", f"{count:,} files {told}")
        if constructed:
            stack.bucket.meta.client.create_bucket(Bucket=stack.bucket.name + beside)
        files = list(burst_files(count, int(time.time())))
        with self.console.status("") as progress:
            for start in range(0, count, chunk):
                progress.update(f"{start:,} of {count:,} files")
                some = files[start : start + chunk]
                self.write(some, beside)
                if constructed:
                    body = notification(stack.bucket.name + beside, some)
                    stack.queue.send_message(MessageBody=body)
                while self.pipeline.depth() > most:
                    time.sleep(WATCH_SECONDS)
        self.wait_until_empty()

    def break_datadog(self, seconds: float) -> None:
        """Let Datadog answer 503 for some seconds."""
        datadog, began = self.pipeline.datadog, time.time()
        unavailable = Answer(503, b"<html>Service Unavailable</html>")
        self.tell("Outage", f"Datadog answers 503 for {seconds:g} s")
        datadog.respond = datadog.respond_validate = lambda _: unavailable
        time.sleep(seconds)
        self.tell("Recovery", f"{self.pipeline.depth()} files wait in the queue")
        datadog.respond = datadog.respond_validate = None
        self.outage = (began, time.time())

    def wait_until_empty(self) -> None:
        """Wait until the queue holds no message, visible or in flight; give up after a while."""
        deadline = time.monotonic() + QUIET_SECONDS
        while self.pipeline.depth() and time.monotonic() < deadline:
            time.sleep(WATCH_SECONDS)


def notification(bucket: str, files: Sequence[File]) -> str:
    """Return one message that names all the files, as S3 would send it."""
    records = [
        {"s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(PREFIX + file.key)}}}
        for file in files
    ]
    return json.dumps({"Records": records})


# --- The ledger ---


def settle(pipeline: Pipeline, written: Written) -> tuple[Ledger, list[float]]:
    """Compare what is in the buckets with what is in Datadog and in the queues.

    Adds the generator's files to `written`. Returns the ledger, and when each file was refused.
    """
    stack = pipeline.stack
    for file in stack.bucket.objects.all():
        address = f"s3://{file.bucket_name}/{file.key}"
        if address not in written:  # the generator's
            body = json.loads(file.get()["Body"].read())
            second = body.pop("timestamp")
            written[address] = [Point(m, GENERATED_TAGS, second, v) for m, v in body.items()]
    rejected = take_all(stack.rejected)
    refused = {
        file: message.message_attributes["reason"]["StringValue"]
        for message in rejected
        for file in named_files(message)
    }
    left = take_all(stack.queue) + take_all(stack.dead_letters)
    waiting = [file for message in left for file in named_files(message)]
    refused_at = [int(message.attributes["SentTimestamp"]) / 1000 for message in rejected]
    return balance(written, pipeline.datadog.points, refused, waiting), refused_at


def named_files(message: Any) -> list[str]:
    """Return the files that a message names; none for S3's test event."""
    return [
        f"s3://{record['s3']['bucket']['name']}/{unquote_plus(record['s3']['object']['key'])}"
        for record in json.loads(message.body).get("Records", [])
    ]


def print_report(console: Console, pipeline: Pipeline, written: int, ledger: Ledger) -> None:
    """Print the ledger, and each refused file with its reason."""
    requests = pipeline.datadog.requests
    statuses = Counter(request.status for request in requests)
    answers = ", ".join(f"{count:,} x {status}" for status, count in statuses.most_common())
    points = sum(map(len, pipeline.datadog.points.values()))
    table = Table("", "", "", show_header=False, title="Ledger", title_justify="left")
    table.columns[1].justify, table.columns[1].style = "right", "bold"
    rows = [
        ("files written", written, "in the buckets"),
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
        console.print(Text.assemble(("wrong   ", "bold red"), fault))
    if len(ledger.faults) > SHOWN_FAULTS:
        console.print(f"        and {len(ledger.faults) - SHOWN_FAULTS:,} more")


# --- The command ---


def run(options: argparse.Namespace, console: Console) -> int:
    """Play the story and report; return 0 if the ledger adds up, else 1."""
    with run_pipeline(options.zips) as pipeline:
        story = Story(pipeline, console)
        story.tell("Stand-ins", "moto for S3 and SQS, a strict local server for Datadog")
        story.play(options.burst, options.outage)
        ledger, refused_at = settle(pipeline, story.written)
    written, datadog = len(story.written), pipeline.datadog
    print_report(console, pipeline, written, ledger)
    stored = {m: datadog.points.get((m, GENERATED_TAGS), {}) for m in GENERATED_METRICS}
    if all(stored.values()):
        end = "it doesn't add up" if ledger.faults else "nothing lost"
        title = f"{written:,} files, {len(ledger.refused)} bad, an outage of Datadog: {end}"
        posts = [(request.at, request.status or 0) for request in datadog.requests]
        draw_picture(options.chart, title, stored, story.outage, posts, refused_at)
        console.print(f"\nThe generator's numbers as a picture: {options.chart}", soft_wrap=True)
    else:
        console.print("No picture: Datadog has nothing from the generator.", style="bold red")
    return 1 if ledger.faults else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if its ledger adds up, 1 if not, 130 if it was interrupted."""
    parser = argparse.ArgumentParser("python -m local.demo", description=__doc__)
    burst = f"files of the burst; S3 doesn't notify the queue of more than {NOTIFIED_FILES:,}"
    parser.add_argument("--burst", type=int, default=500, help=burst)
    outage = "for how many seconds Datadog answers 503"
    parser.add_argument("--outage", type=float, default=4.0, help=outage)
    parser.add_argument("--chart", type=Path, default=ROOT / "demo.png", help="the picture")
    options = parse_options(parser, arguments)
    if options.burst < 1 or not 0 < options.outage <= MAX_OUTAGE_SECONDS:
        parser.error(f"use a burst of 1 or more, an outage of up to {MAX_OUTAGE_SECONDS:g} s.")
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
