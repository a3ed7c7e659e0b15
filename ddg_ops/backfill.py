"""backfill: submit the files of a time span that are in the bucket, by the submitter's functions.

It touches no queue and changes no file. A point that Datadog has already is written over by itself,
so doing it twice, or while the submitter does it too, is harmless.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import click

from ddg_metric_submit import submit_files
from ddg_ops.canary import judge_datadog
from ddg_ops.queues import TOO_OLD, Groups, safely, yes_option
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

MAX_CHUNK_FILES = 500  # one POST's worth, and what is done again after an interruption
# Seconds, before trying again where nothing got on. At once first: a file that Datadog answers 400
# is sent once more, and refused then.
PAUSES = (0.0, 5.0, 20.0, 60.0)
DATADOG_SECONDS = 10.0
EXAMPLES = [
    "--since 50m",
    "--since 50m --yes",
    "--since 2025-11-22 --until 2025-11-24 --prefix stats/nightly/ --historical --yes",
]
OWN_KEYS = ("DATADOG_API_KEY", "DATADOG_APP_KEY", "DATADOG_API_KEY_SECRET_ARN")


@dataclass
class Checkpoint:
    """How far a backfill is, in a file: an interrupted one goes on where it was."""

    asked: dict[str, str]  # what makes it the same backfill, as it was typed
    since: float  # epoch seconds, what relative times meant when it began
    until: float
    after: str = ""  # this key and all before it are done
    counts: Counter[str] = field(default_factory=Counter)

    def load(self, file: Path) -> "Checkpoint":
        """Return the file's checkpoint, or where there is none this new one.

        Raises Stop for one of another backfill, whose place would otherwise be lost.
        """
        try:
            known = Checkpoint(**json.loads(file.read_text("utf-8")))
            known.counts = Counter(known.counts)
            was = " ".join(f"--{name} {value}" for name, value in known.asked.items() if value)
        except FileNotFoundError:
            return self
        except (ValueError, TypeError, AttributeError):
            raise Stop(f"{file} is no checkpoint. Name another: --checkpoint.", USAGE) from None
        if known.asked != self.asked:
            way = f"Finish that one, remove {file}, or name another: --checkpoint FILE."
            raise Stop(f"{file} is the checkpoint of another backfill ({was}). {way}", USAGE)
        return known

    def save(self, file: Path) -> None:
        """Put it on the disk in one step."""
        new = file.with_name(f"{file.name}.new")
        with safely(new, "w") as opened:
            json.dump(vars(self), opened)
        new.replace(file)


@click.command(cls=Command, examples=EXAMPLES)
@click.option("--since", type=moment, required=True, metavar="TIME", help="Came at or after.")
@click.option("--until", type=moment, default="now", metavar="TIME", show_default=True)
@click.option("--bucket", default="", help="Default: the stack's own, or its only one.")
@click.option("--prefix", help="Only keys that begin so; default: the bucket's prefix.")
@click.option("--historical", is_flag=True, help=HISTORICAL)
@click.option("--rate", type=POSITIVE, default=100.0, metavar="FILES", show_default=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), default="ddg_backfill.checkpoint")
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
    historical: bool,
    rate: float,
    checkpoint: Path,
    yes: bool,
) -> int:
    """Submit the files of a time span that are in the bucket, so many a second.

    From here, with your own key in DATADOG_API_KEY. Without --yes it only reads them. Times are
    30m, 6h, 2d (ago), 12:00, 2025-11-24T12:00, in UTC. An interrupted one goes on where its
    checkpoint is (ddg_backfill.checkpoint).
    """
    check_span(since, until)
    settings = operator_settings(stack, historical=historical)
    bucket = stack.choose_bucket(settings, bucket)
    base = stack.prefix_of(bucket, settings)
    prefix = base if prefix is None else prefix
    if not prefix.startswith(base):
        problem = f"--prefix {prefix} isn't below {base}, which the submitter reads."
        raise Stop(f"{problem} Did you mean {base}{prefix}?", USAGE)
    if yes:
        prove_key(stack, settings)
    asked = {"bucket": bucket, "prefix": prefix, "since": since.text, "until": until.text}
    asked["historical"] = "yes" if historical else ""
    state = Checkpoint(asked, since.seconds, until.seconds)
    if yes:
        state = state.load(checkpoint)
    if state.after:
        screen.note(f"Goes on after {state.after}, as {checkpoint} says; remove it to begin anew.")
    groups, keys = Groups(), find_keys(stack, state)
    with screen.progress("files") as advance:
        while chunk := list(islice(keys, max(1, min(MAX_CHUNK_FILES, int(rate))))):
            started = time.monotonic()
            files = [File(bucket, key) for key in chunk]
            outcomes = submit(stack, files, settings, dry_run=not yes)
            note_outcomes(outcomes, state.counts, groups)
            state.after = chunk[-1]
            if yes:
                state.save(checkpoint)
            advance(len(chunk))
            time.sleep(max(0.0, len(chunk) / rate - (time.monotonic() - started)))
    if yes:
        checkpoint.unlink(missing_ok=True)
    report(state, groups, screen, dry_run=not yes)
    return WRONG if state.counts["refused"] or state.counts["skipped"] else FINE


def check_span(since: Moment, until: Moment) -> None:
    """Raise Stop for a span in which no file can have come."""
    for name, each in (("since", since), ("until", until)):
        if each.seconds > time.time():
            raise Stop(f"--{name} {each.text} is in the future; times are UTC.", USAGE)
    if until.seconds < since.seconds:
        raise Stop(f"--until {until.text} is before --since {since.text}.", USAGE)


def operator_settings(stack: Stack, *, historical: bool) -> Settings:
    """Return the deployed submitter's settings, but with the operator's own key."""
    known = {name: value for name, value in stack.environment().items() if name not in OWN_KEYS}
    own = {name: os.environ.get(name) for name in ("DATADOG_API_KEY", "DATADOG_HOST")}
    settings = reading_settings(known | {name: value for name, value in own.items() if value})
    return within_window(settings, historical=historical)


def prove_key(stack: Stack, settings: Settings) -> None:
    """Raise Stop unless there is a key of the operator's and Datadog takes it."""
    if not os.environ.get("DATADOG_API_KEY"):
        raise Stop(
            f"no key. Set DATADOG_API_KEY to one that {settings.api_host} takes; it is read from "
            "the environment alone, so that no list of processes shows it.",
            USAGE,
        )
    datadog = stack.aws.submitter(settings).datadog
    answer = datadog.validate(settings.api_key, DATADOG_SECONDS).wait(DATADOG_SECONDS)
    if (finding := judge_datadog(settings.api_host, answer)).fix:
        raise Stop(f"nothing was sent: {finding.text}. {finding.fix}")


def find_keys(stack: Stack, state: Checkpoint) -> Iterator[str]:
    """Yield the keys of the span that aren't done, in S3's order, which a checkpoint relies on."""
    pages = stack.aws.client("s3").get_paginator("list_objects_v2")
    below = {"Bucket": state.asked["bucket"], "Prefix": state.asked["prefix"]}
    for page in pages.paginate(**below, **({"StartAfter": state.after} if state.after else {})):
        for each in page.get("Contents", []):
            came = each["LastModified"].timestamp()
            if state.since <= came <= state.until:
                state.counts["old"] += came < time.time() - WINDOW_SECONDS
                yield each["Key"]


def submit(
    stack: Stack, files: Sequence[File], settings: Settings, *, dry_run: bool
) -> dict[File, Outcome]:
    """Submit files, or only read them; return the outcome of each, none of them a retry.

    Raises Stop where S3 or Datadog take none of them any more, after all PAUSES.
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
                where, why = address(left[0]), retried[left[0]]
                way = "What is done is kept; the same command goes on from here."
                raise Stop(f"stopped at {where}: {why} {way}")
            time.sleep(pause)
        left = [File(file.bucket, file.key, receive_count=2) for file in retried]
    return done


def note_outcomes(outcomes: Mapping[File, Outcome], counts: Counter[str], groups: Groups) -> None:
    """Count files by their outcome, and the points submitted; a marker is no file."""
    for file, outcome in outcomes.items():
        match outcome:
            case Submitted(points):
                counts["submitted"] += 1
                counts["points"] += points
            case Refused(reason):
                kind = "skipped" if TOO_OLD.fullmatch(reason) else "refused"
                counts[kind] += 1
                groups.add(kind, reason, address(file))


def report(state: Checkpoint, groups: Groups, screen: Screen, *, dry_run: bool) -> None:
    """Say what was refused and why, and the whole in a line."""
    groups.say(screen)
    counts, asked = state.counts, state.asked
    found = counts["submitted"] + counts["refused"] + counts["skipped"]
    span, would = (utc(state.since), utc(state.until)), "would be " if dry_run else ""
    screen.say(
        f"backfill of s3://{asked['bucket']}/{asked['prefix']}, files that came {span[0]} to "
        f"{span[1]}: {found:,} found, {counts['submitted']:,} {would}submitted "
        f"({count(counts['points'], 'point')}), {counts['skipped']:,} {would}skipped as too old, "
        f"{counts['refused']:,} {would}refused."
        f"{' Nothing was sent: that takes --yes.' if dry_run else ''}"
    )
    if counts["old"]:
        way = "You chose --historical" if asked["historical"] else "--historical sends them"
        screen.say(
            f"{count(counts['old'], 'file')} came over an hour ago, by Last-Modified. {way}; "
            "Datadog keeps their points only for metrics with Historical Metrics Ingestion, and "
            "silently drops others.",
            "yellow",
        )
    numbers = {name: counts[name] for name in ("submitted", "points", "skipped", "refused", "old")}
    document = asked | dict(zip(("since", "until"), span, strict=True))
    reasons = groups.documents("outcome")
    screen.result(document | numbers | {"found": found, "dry_run": dry_run, "reasons": reasons})
