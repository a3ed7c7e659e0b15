"""validate: read stats files as the submitter would, on this machine."""

import math
import os
import re
import sys
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError

from ddg_json_file import MAX_FILE_BYTES, StatsFileError
from ddg_metric_submit import parse
from ddg_ops.aws import Aws, explain
from ddg_ops.screen import FINE, UNABLE, USAGE, WRONG, Command, Screen, Stop, count, utc
from ddg_ops.stack import STACK_HELP, aws_options, find_stack, reading_settings
from ddg_s3_objects import File, get_object, is_marker
from ddg_settings import Settings
from ddg_stats_file import Sample

SHOWN_POINTS = 10  # of a file that is good; --json has all
SETTINGS = ("STATS_PREFIX", "BUCKETS", "CONSTANT_TAGS", "MAX_AGE_SECONDS")
EXAMPLES = [
    "nightly.json --job nightly",
    "--max-age 0 fixtures/*.json",
    "s3://BUCKET/stats/nightly/1764000000.json",
    "- < nightly.json",
]


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--job", default="", help="The folder that the file will be put into.")
@click.option("--max-age", type=click.IntRange(0), help="Seconds, 0: any age (MAX_AGE_SECONDS).")
@click.option("--stack", help=f"{STACK_HELP} Its settings count then.")
@aws_options
@click.pass_obj
def validate(
    screen: Screen,
    *,
    files: Sequence[str],
    job: str,
    max_age: int | None,
    stack: str | None,
    profile: str | None,
    region: str | None,
) -> int:
    """Read stats files as the submitter would: the points that would arrive, or why not.

    A FILE is a path, s3://bucket/key, or - for standard input. STATS_PREFIX, BUCKETS,
    CONSTANT_TAGS and MAX_AGE_SECONDS are read from the environment, where no --stack is given.
    """
    for name in files:
        if name.startswith("s3://") and not re.match("s3://[^/]+/.", name):
            raise Stop(f"{name} names no object. Write s3://BUCKET/KEY.", USAGE)
    found = find_stack(stack, profile, region) if stack else None
    aws = found.aws if found else Aws(profile, region)
    environment = found.environment() if found else os.environ
    wanted = {name: environment[name] for name in SETTINGS if name in environment}
    if max_age is not None:
        wanted["MAX_AGE_SECONDS"] = str(max_age)
    settings = reading_settings(wanted)
    codes = {FINE}
    documents: list[dict[str, Any]] = []
    for name in files:
        document: dict[str, Any] = {"file": name, "ok": False}
        try:
            points = flatten(read(name, job, settings, aws))
            document |= {"ok": True, "points": points}
            print_points(name, points, screen)
        except StatsFileError as error:
            codes.add(WRONG)
            document["reason"] = str(error)
            screen.say(f"refused  {name}: {error}", "red")
        except (ClientError, BotoCoreError, OSError) as error:
            codes.add(UNABLE)
            why = error.strerror if isinstance(error, OSError) else explain(error)
            document["problem"] = f"can't be read: {why}"
            screen.say(f"unread   {name}: {why}", "bold red")
        documents.append(document)
    screen.result({"files": documents})
    return min(codes - {FINE}, default=FINE)


def read(name: str, job: str, settings: Settings, aws: Aws) -> list[Sample]:
    """Return the samples of a file, of standard input (-) or of an object; none of a marker."""
    if name.startswith("s3://"):
        bucket, _, key = name.removeprefix("s3://").partition("/")
        file = File(bucket, key)
        content = get_object(aws.client("s3"), file, MAX_FILE_BYTES) or b""
    else:
        key = f"{settings.stats_prefix}{f'{job}/' if job else ''}{Path(name).name}"
        file = File("", key, last_modified=formatdate(usegmt=True))  # as if it were uploaded now
        if name == "-":
            content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(name).open("rb") as opened:
                content = opened.read(MAX_FILE_BYTES + 1)
    return [] if is_marker(file, content) else parse(file, content, settings, math.inf)


def flatten(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return samples as single points."""
    return [
        {"metric": metric, "timestamp": each.timestamp, "value": value, "tags": each.tags}
        for each in samples
        for metric, value in each.values.items()
    ]


def print_points(name: str, points: Sequence[dict[str, Any]], screen: Screen) -> None:
    """Print what would arrive of a good file, or that it is a marker."""
    found = count(len(points), "point") if points else "a marker, which the submitter passes over"
    screen.say(f"ok       {name}: {found}", "green")
    for point in points[:SHOWN_POINTS]:
        series = f"{point['metric']}{{{','.join(point['tags'])}}}"
        screen.say(f"         {utc(point['timestamp'])}  {series} = {point['value']}")
    if len(points) > SHOWN_POINTS:
        screen.say(f"         and {len(points) - SHOWN_POINTS:,} more; --json has all")
