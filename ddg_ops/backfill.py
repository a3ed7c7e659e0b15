"""backfill: submit a bucket's files of a time span, with the submitter's functions.

It touches no queue and changes no file. A point that Datadog already has overwrites itself, so it
is harmless to backfill twice, or while the submitter is running.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import click

from ddg_metric_submit import submit_files
from ddg_ops.canary import judge_datadog
from ddg_ops.queues import TOO_OLD, Groups, yes_option
from ddg_ops.screen import (
    FINE,
    HISTORICAL,
    POSITIVE,
    USAGE,
    WRONG,
    Command,
    Moment,
    Screen,
    Stop,
    count,
    moment,
    utc,
)
from ddg_ops.stack import (
    WINDOW_SECONDS,
    Stack,
    foresee,
    make_batch,
    reading_settings,
    stack_options,
    within_window,
)
from ddg_outcomes import Outcome, Refused, Retry, Submitted, address
from ddg_s3_objects import File
from ddg_settings import Settings

MAX_CHUNK_FILES = 500  # fit into one POST
# Seconds before the next try if a try gets no file through. The first one is immediate, because a
# file is refused only at its second 400.
PAUSES = (0.0, 5.0, 20.0, 60.0)
DATADOG_SECONDS = 10.0
EXAMPLES = [
    "--since 50m",
    "--since 50m --yes",
    "--since 2025-11-22 --until 2025-11-24 --prefix stats/nightly/ --historical --yes",
]
OWN_KEYS = ("DATADOG_API_KEY", "DATADOG_APP_KEY", "DATADOG_API_KEY_SECRET_ARN")


@click.command(cls=Command, examples=EXAMPLES)
@click.option("--since", type=moment, required=True, metavar="TIME", help="Uploaded since then.")
@click.option("--until", type=moment, default="now", metavar="TIME", show_default=True)
@click.option("--bucket", default="", help="Default: the stack's own, or its only one.")
@click.option("--prefix", help="Only keys that begin with it; default: the bucket's prefix.")
@click.option(
    "--after", default="", metavar="KEY", help="Only keys after this one: continue there."
)
@click.option("--historical", is_flag=True, help=HISTORICAL)
@click.option(
    "--rate", type=POSITIVE, default=100.0, metavar="FILES", show_default=True, help="A second."
)
@yes_option
@stack_options
@click.pass_obj
def backfill(
    screen: Screen,
    stack: Stack,
    *,
    since: Moment,
    until: Moment,
    bucket: str,
    prefix: str | None,
    after: str,
    historical: bool,
    rate: float,
    yes: bool,
) -> int:
    """Submit a bucket's files of a time span from this machine.

    Set DATADOG_API_KEY to your own key. Without --yes, only read the files and say what would
    happen to them. Times are 30m, 6h, 2d (ago), 12:00, 2025-11-24T12:00, in UTC.
    """
    check_span(since, until)
    settings = operator_settings(stack, historical=historical)
    bucket = stack.choose_bucket(settings, bucket)
    base = stack.prefix_of(bucket, settings)
    prefix = base if prefix is None else prefix
    if not prefix.startswith(base):
        problem = f"--prefix {prefix} isn't below {base}, where the submitter's files are."
        raise Stop(f"{problem} Did you mean {base}{prefix}?", USAGE)
    if yes:
        prove_key(stack, settings)
    counts, groups, done = Counter[str](), Groups(), after
    found = find_files(stack, bucket, prefix, after)
    wanted = (each for each in found if since.seconds <= each[1] <= until.seconds)
    with screen.progress("files") as advance, ExitStack() as unfinished:

        @unfinished.callback
        def say_how_to_continue() -> None:
            if done:
                screen.note(f"To continue: --after '{done}'")

        while chunk := dict(islice(wanted, max(1, min(MAX_CHUNK_FILES, int(rate))))):
            started = time.monotonic()
            outcomes = submit(stack, [*chunk], settings, dry_run=not yes)
            note_outcomes(outcomes, counts, groups)
            counts["old"] += sum(came < time.time() - WINDOW_SECONDS for came in chunk.values())
            done = [*chunk][-1].key
            advance(len(chunk))
            time.sleep(max(0.0, len(chunk) / rate - (time.monotonic() - started)))
        unfinished.pop_all()
    asked = {"bucket": bucket, "prefix": prefix, "historical": historical, "dry_run": not yes}
    report(
        asked | {"since": utc(since.seconds), "until": utc(until.seconds)}, counts, groups, screen
    )
    return WRONG if counts["refused"] or counts["skipped"] else FINE


def check_span(since: Moment, until: Moment) -> None:
    """Raise Stop for a span that can have no files."""
    for name, each in (("since", since), ("until", until)):
        if each.seconds > time.time():
            raise Stop(f"--{name} {each.text} is in the future; times are UTC.", USAGE)
    if until.seconds < since.seconds:
        raise Stop(f"--until {until.text} is before --since {since.text}.", USAGE)


def operator_settings(stack: Stack, *, historical: bool) -> Settings:
    """Return the deployed submitter's settings with the operator's own key."""
    known = {name: value for name, value in stack.environment().items() if name not in OWN_KEYS}
    own = {name: os.environ.get(name) for name in ("DATADOG_API_KEY", "DATADOG_HOST")}
    settings = reading_settings(known | {name: value for name, value in own.items() if value})
    return within_window(settings, historical=historical)


def prove_key(stack: Stack, settings: Settings) -> None:
    """Raise Stop unless the operator has a key, and Datadog accepts it."""
    if not os.environ.get("DATADOG_API_KEY"):
        raise Stop(
            f"no key. Set DATADOG_API_KEY to one that {settings.api_host} accepts. There is no "
            "option for it, because lists of processes show options.",
            USAGE,
        )
    datadog = stack.aws.submitter(settings).datadog
    answer = datadog.validate(settings.api_key, DATADOG_SECONDS).wait(DATADOG_SECONDS)
    if (finding := judge_datadog(settings.api_host, answer)).fix:
        raise Stop(f"nothing was sent: {finding.text}. {finding.fix}")


def find_files(stack: Stack, bucket: str, prefix: str, after: str) -> Iterator[tuple[File, float]]:
    """Yield the files after a key, in S3's order, with their Last-Modified in epoch seconds."""
    pages = stack.aws.client("s3").get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=bucket, Prefix=prefix, StartAfter=after):
        for each in page.get("Contents", []):
            yield File(bucket, each["Key"]), each["LastModified"].timestamp()


def submit(
    stack: Stack, files: Sequence[File], settings: Settings, *, dry_run: bool
) -> dict[File, Outcome]:
    """Submit files, or only read them; return the outcome of each. None is a Retry.

    Raises Stop if S3 or Datadog accept none of them after all PAUSES.
    """
    done: dict[File, Outcome] = {}
    left = list(files)
    pauses = iter(PAUSES)
    while left:
        batch = make_batch(stack.aws, settings)
        outcomes = foresee(left, batch) if dry_run else submit_files(left, batch)
        retried = {file: o.reason for file, o in outcomes.items() if isinstance(o, Retry)}
        done |= {file: outcome for file, outcome in outcomes.items() if file not in retried}
        if len(retried) == len(left):
            pause = next(pauses, None)
            if pause is None:
                raise Stop(f"stopped at {address(left[0])}: {retried[left[0]]}")
            time.sleep(pause)
        left = [File(file.bucket, file.key, receive_count=2) for file in retried]
    return done


def note_outcomes(outcomes: Mapping[File, Outcome], counts: Counter[str], groups: Groups) -> None:
    """Count files by outcome, and the points submitted. Markers don't count."""
    for file, outcome in outcomes.items():
        match outcome:
            case Submitted(points):
                counts["submitted"] += 1
                counts["points"] += points
            case Refused(reason):
                kind = "skipped" if TOO_OLD.fullmatch(reason) else "refused"
                counts[kind] += 1
                groups.add(kind, reason, address(file))


def report(
    asked: Mapping[str, Any], counts: Mapping[str, int], groups: Groups, screen: Screen
) -> None:
    """Print what was refused and why, and a summary."""
    groups.say(screen)
    numbers = {name: counts[name] for name in ("submitted", "points", "skipped", "refused", "old")}
    found = counts["submitted"] + counts["refused"] + counts["skipped"]
    would = "would be " if asked["dry_run"] else ""
    screen.say(
        f"backfill of s3://{asked['bucket']}/{asked['prefix']}, uploaded {asked['since']} to "
        f"{asked['until']}: {found:,} found, {counts['submitted']:,} {would}submitted "
        f"({count(counts['points'], 'point')}), {counts['skipped']:,} {would}skipped as too old, "
        f"{counts['refused']:,} {would}refused."
        f"{' Nothing was sent: that takes --yes.' if asked['dry_run'] else ''}"
    )
    if counts["old"]:
        way = "You chose --historical" if asked["historical"] else "--historical sends them"
        screen.say(
            f"{count(counts['old'], 'file')} came over an hour ago, by Last-Modified. {way}; "
            "Datadog keeps their points only for metrics with Historical Metrics Ingestion, and "
            "silently drops others.",
            "yellow",
        )
    screen.result({**asked, **numbers, "found": found, "reasons": groups.documents("outcome")})
