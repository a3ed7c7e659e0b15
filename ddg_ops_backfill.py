"""Backfill: submit the files of a time span that are in the bucket, with the submitter's functions.

It touches no queue and changes no file. A point that Datadog has already is written over by itself,
so doing it twice, or while the submitter does it too, is harmless.
"""

import json
import os
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import ddg_metric_submit
from ddg_metric_submit import Outcome, Refused, Retry, Skipped, Submitted
from ddg_ops_queues import SHOWN_GROUPS, group_of
from ddg_ops_stack import (
    FINE,
    USAGE,
    WRONG,
    Screen,
    Stack,
    Stop,
    client,
    flush,
    function_environment,
    key_problem,
    local_batch,
    submitter_settings,
    utc,
)
from ddg_s3_objects import File
from ddg_series_api import count_points
from ddg_settings import Settings

MAX_CHUNK_FILES = 500  # ours: one POST's worth, and what is done again after an interruption
PAUSES = (5.0, 20.0, 60.0)  # ours, seconds: before trying again where nothing got on


@dataclass
class Checkpoint:
    """How far a backfill is, in a file: an interrupted one goes on where it was."""

    asked: dict[str, str]  # what makes it the same backfill, as it was typed
    since: float  # epoch seconds, what relative times meant when it began
    until: float
    after: str = ""  # this key and all before it are done
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def load(cls, file: Path, new: "Checkpoint") -> "Checkpoint":
        """Return the file's checkpoint if there is one, else the new one.

        Raises Stop for one of another backfill, whose place would otherwise be lost.
        """
        try:
            known = cls(**json.loads(file.read_text("utf-8")))
        except FileNotFoundError:
            return new
        except (ValueError, TypeError):
            raise Stop(
                f"{file} is no checkpoint. Name another: --checkpoint FILE.", USAGE
            ) from None
        if known.asked != new.asked:
            was = " ".join(f"--{name} {value}" for name, value in known.asked.items() if value)
            raise Stop(
                f"{file} is the checkpoint of another backfill ({was}). Finish that one, remove "
                "the file, or name another: --checkpoint FILE.",
                USAGE,
            )
        known.counts = Counter(known.counts)
        return known

    def save(self, file: Path) -> None:
        """Put it on the disk in one step."""
        new = file.with_name(f"{file.name}.new")
        with new.open("w", encoding="utf-8") as opened:
            json.dump(vars(self), opened)
            flush(opened)
        new.replace(file)


def backfill(stack: Stack, options: Namespace, screen: Screen) -> int:
    """Submit the files that came into the bucket in a time span; without --yes only read them."""
    settings = operator_settings(stack, options)
    prefix = stack.prefix if options.prefix is None else options.prefix
    if not prefix.startswith(stack.prefix):
        raise Stop(
            f"--prefix {prefix} isn't below {stack.prefix}, where the submitter takes files from. "
            f"Did you mean {stack.prefix}{prefix}?",
            USAGE,
        )
    since, since_text = options.since
    until, until_text = options.until
    asked = {
        "bucket": stack.bucket,
        "prefix": prefix,
        "since": since_text,
        "until": until_text,
        "max-age": str(settings.max_age),
    }
    file = Path(options.checkpoint)
    state = Checkpoint(asked, since, until)
    if options.yes:
        state = Checkpoint.load(file, state)
        if state.after:
            screen.note(f"Goes on after {state.after}, as {file} says; remove it to begin anew.")
    reasons: Counter[str] = Counter()
    chunk_files = max(1, min(MAX_CHUNK_FILES, int(options.rate)))
    keys = find_keys(stack.bucket, prefix, state)
    with screen.progress("files") as advance:
        while chunk := list(islice(keys, chunk_files)):
            started = time.monotonic()
            outcomes = submit(stack.bucket, chunk, settings, dry_run=not options.yes)
            reasons.update(group_of(o.reason) for o in outcomes if isinstance(o, Refused))
            state.counts.update(count(outcomes))
            state.after = chunk[-1]
            if options.yes:
                state.save(file)
            advance(len(chunk))
            time.sleep(max(0.0, len(chunk) / options.rate - (time.monotonic() - started)))
    if options.yes:
        file.unlink(missing_ok=True)
    report(stack, state, reasons, options, screen)
    return WRONG if state.counts["refused"] else FINE


def operator_settings(stack: Stack, options: Namespace) -> Settings:
    """Return the deployed submitter's settings, but with the operator's own key."""
    environment = function_environment(stack.function)
    for name in ("DATADOG_API_KEY", "DATADOG_APP_KEY", "DATADOG_API_KEY_SECRET_ARN"):
        environment.pop(name, None)
    for name in ("DATADOG_API_KEY", "DATADOG_HOST"):
        if os.environ.get(name):
            environment[name] = os.environ[name]
    if options.max_age is not None:
        environment["MAX_AGE_SECONDS"] = str(options.max_age)
    settings = submitter_settings(environment)
    if options.yes:
        if "DATADOG_API_KEY" not in environment:
            raise Stop(
                f"no key. Set DATADOG_API_KEY to one that {settings.api_host} takes; it "
                "is read from the environment alone, so that no list of processes shows it.",
                USAGE,
            )
        if problem := key_problem(settings.api_host, settings.api_key):
            raise Stop(problem)
    return settings


def find_keys(bucket: str, prefix: str, state: Checkpoint) -> Iterator[str]:
    """Yield the keys of the span that aren't done, in S3's order, which a checkpoint relies on."""
    start = {"StartAfter": state.after} if state.after else {}
    pages = (
        client("s3")
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket, Prefix=prefix, **start)
    )
    for page in pages:
        for each in page.get("Contents", []):
            if state.since <= each["LastModified"].timestamp() <= state.until:
                yield each["Key"]


def submit(bucket: str, keys: Sequence[str], settings: Settings, *, dry_run: bool) -> list[Outcome]:
    """Submit files, or only read them; return an outcome for each, none of them a retry.

    Raises Stop where S3 or Datadog take none of them any more, after all PAUSES.
    """
    done: list[Outcome] = []
    left = [File(bucket, key) for key in keys]
    pauses = iter(PAUSES)
    while left:
        batch = local_batch(settings)
        if dry_run:
            outcomes = {
                file: Submitted(count_points(read)) if isinstance(read, list) else read
                for file, read in ddg_metric_submit.read_files(left, batch)
            }
        else:
            outcomes = ddg_metric_submit.submit_files(left, batch)
        finished = [o for o in outcomes.values() if not isinstance(o, Retry)]
        done += finished
        retried = {file: o for file, o in outcomes.items() if isinstance(o, Retry)}
        if retried and not finished:
            pause = next(pauses, None)
            if pause is None:
                file, outcome = next(iter(retried.items()))
                raise Stop(
                    f"stopped at {ddg_metric_submit.address(file)}: {outcome.reason} What is done "
                    "is kept; the same command goes on from here."
                )
            time.sleep(pause)
        # A file that Datadog answered 400 is sent once more, and refused then.
        left = [File(bucket, file.key, receive_count=2) for file in retried]
    return done


def count(outcomes: Iterable[Outcome]) -> Counter[str]:
    """Count files by their outcome, and the points submitted."""
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        match outcome:
            case Submitted(points):
                counts["submitted"] += 1
                counts["points"] += points
            case Refused():
                counts["refused"] += 1
            case Retry() | Skipped():
                pass  # a marker is no file
    return counts


def report(
    stack: Stack, state: Checkpoint, reasons: Counter[str], options: Namespace, screen: Screen
) -> None:
    """Say what was refused and why, and the whole in a line."""
    for reason, number in reasons.most_common(SHOWN_GROUPS):
        screen.say(f"{number:>6,}  refused: {reason}", "yellow")
    counts = state.counts
    found = counts["submitted"] + counts["refused"]
    would = "" if options.yes else "would be "
    screen.say(
        f"backfill of s3://{stack.bucket}/{state.asked['prefix']}, files that came "
        f"{utc(state.since)} to {utc(state.until)}: {found:,} found, {counts['submitted']:,} "
        f"{would}submitted ({counts['points']:,} points), {counts['refused']:,} {would}refused."
        f"{'' if options.yes else ' Nothing was sent: that takes --yes.'}"
    )
    screen.result(
        {
            "bucket": stack.bucket,
            "prefix": state.asked["prefix"],
            "since": utc(state.since),
            "until": utc(state.until),
            "dry_run": not options.yes,
            "found": found,
            "submitted": counts["submitted"],
            "points": counts["points"],
            "refused": counts["refused"],
            "reasons": dict(reasons),
        }
    )
