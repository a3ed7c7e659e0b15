"""validate: read stats files as the submitter would, on this machine."""

import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError

from ddg_json_file import MAX_FILE_BYTES, RetryError, StatsFileError, read_document
from ddg_metric_submit import parse
from ddg_ops.aws import Aws, explain
from ddg_ops.propose import propose as propose_for
from ddg_ops.screen import FINE, UNABLE, USAGE, WRONG, Command, Screen, Stop, count, utc
from ddg_ops.settings_file import SETTINGS_FILE, read_settings_file, submitter_environment
from ddg_ops.stack import STACK_HELP, aws_options, find_stack, reading_settings
from ddg_s3_objects import File, get_object, is_marker, job_folder
from ddg_series_api import GAUGE
from ddg_settings import Settings, read_metrics
from ddg_stats_file import MAX_MAPPED_SERIES, Sample

RECIPES = "docs/recipes.md"
SHOWN_SERIES = 20  # per good file; --json has all
SETTINGS = (
    "STATS_PREFIX",
    "BUCKETS",
    "CONSTANT_TAGS",
    "MAX_AGE_SECONDS",
    "JOBS",
    "METRICS",
    "METRIC_PREFIX",
)
EXAMPLES = [
    "--job nightly nightly.json",
    "--job nightly --propose nightly.json",
    "--max-age 0 fixtures/*.json",
    "s3://BUCKET/stats/nightly/1764000000.json",
    "- < nightly.json",
]

Point = dict[str, Any]
Metrics = Mapping[str, Mapping[str, Any]]  # from the settings file


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--job", default="", help="The folder that the file will be uploaded to.")
@click.option("--max-age", type=click.IntRange(0), help="Maximum age in seconds; 0: any age.")
@click.option("--propose", is_flag=True, help="Propose a mapping, and show its result.")
@click.option("--settings", "settings_file", help=f"The settings file, if not {SETTINGS_FILE}.")
@click.option("--stack", help=f"{STACK_HELP} Uses its settings.")
@aws_options
@click.pass_obj
def validate(
    screen: Screen,
    *,
    files: Sequence[str],
    job: str,
    max_age: int | None,
    propose: bool,
    settings_file: str | None,
    stack: str | None,
    profile: str | None,
    region: str | None,
) -> int:
    """Read stats files as the submitter would: the series that would arrive, or why not.

    A FILE is a path, s3://bucket/key, or - for standard input. The settings of jobs, metrics and
    tags come from the settings file in the current folder, if there is one, or from --stack. The
    submitter's environment variables, such as MAX_AGE_SECONDS, override the settings file.
    """
    for name in files:
        if name.startswith("s3://") and not re.match("s3://[^/]+/.", name):
            raise Stop(f"{name} names no object. Write s3://BUCKET/KEY.", USAGE)
    if stack and settings_file:
        raise Stop("--stack has settings of its own. Leave out --settings.", USAGE)
    aws, environment, metrics = find_settings(stack, settings_file, profile, region)
    wanted = {name: environment[name] for name in SETTINGS if name in environment}
    if max_age is not None or propose:  # a mapping is usually tried with an old file
        wanted["MAX_AGE_SECONDS"] = str(max_age or 0)
    settings = reading_settings(wanted)
    codes = {FINE}
    documents: list[dict[str, Any]] = []
    for name in files:
        document: dict[str, Any] = {"file": name, "ok": False}
        try:
            file, content = load(name, job, settings, aws)
            is_empty = is_marker(file, content)
            if propose and not is_empty:
                settings, document["mapping"] = propose_mapping(file, content, settings)
                entry = json.dumps({job or "NAME": {"mapping": document["mapping"]}})
                screen.say(f'"jobs": {entry}')
            samples = [] if is_empty else parse(file, content, settings, math.inf)
            points = flatten(samples, settings, metrics)
            series = {(point["metric"], point["tags"]): point for point in points}
            document |= {"ok": True, "points": points, "custom_metrics": len(series)}
            print_series(name, len(points), [*series.values()], screen)
        except (StatsFileError, RetryError) as error:
            codes.add(WRONG)
            document["reason"] = str(error)
            outcome = "refused" if isinstance(error, StatsFileError) else "retried"
            screen.say(f"{outcome}  {name}: {error}", "red")
        except (ClientError, BotoCoreError, OSError) as error:
            codes.add(UNABLE)
            why = error.strerror if isinstance(error, OSError) else explain(error)
            document["problem"] = f"can't be read: {why}"
            screen.say(f"unread   {name}: {why}", "bold red")
        documents.append(document)
    screen.result({"files": documents})
    return min(codes - {FINE}, default=FINE)


def find_settings(
    stack: str | None, settings_file: str | None, profile: str | None, region: str | None
) -> tuple[Aws, dict[str, str], Metrics]:
    """Return the session, the submitter's environment and the metrics of the settings file."""
    if stack:
        found = find_stack(stack, profile, region)
        return found.aws, found.environment(), {}
    aws = Aws(profile, region)
    if not settings_file and not Path(SETTINGS_FILE).exists():
        return aws, dict(os.environ), {}
    try:
        variables = read_settings_file(Path(settings_file or SETTINGS_FILE))
    except ValueError as error:
        raise Stop(f"{error}.", USAGE) from None
    return aws, submitter_environment(variables) | os.environ, variables["metrics"]


def load(name: str, job: str, settings: Settings, aws: Aws) -> tuple[File, bytes]:
    """Return a file, standard input (-) or an object, as the submitter would get it."""
    if name.startswith("s3://"):
        bucket, _, key = name.removeprefix("s3://").partition("/")
        file = File(bucket, key)
        return file, get_object(aws.client("s3"), file, MAX_FILE_BYTES) or b""
    key = f"{settings.stats_prefix}{f'{job}/' if job else ''}{Path(name).name}"
    file = File("", key, last_modified=formatdate(usegmt=True))  # as if it were uploaded now
    if name == "-":
        return file, sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    with Path(name).open("rb") as opened:
        return file, opened.read(MAX_FILE_BYTES + 1)


def propose_mapping(file: File, content: bytes, settings: Settings) -> tuple[Settings, str]:
    """Return settings with a proposed mapping for a file's job, and the mapping.

    Raises StatsFileError if there is none.
    """
    folder = job_folder(file.key, settings.prefix_of(file.bucket))

    def mapped(mapping: str) -> Settings:
        return settings._replace(jobs=json.dumps({folder: {"mapping": mapping}}))

    def accepts(mapping: str) -> bool:
        try:
            parse(file, content, mapped(mapping), math.inf)
        except StatsFileError:
            return False
        return True

    mapping = propose_for(read_document(content), accepts)
    if not mapping:
        raise StatsFileError(
            "no mapping can be proposed: the file has no numbers, or only lists of numbers, or "
            f"they would make more than {MAX_MAPPED_SERIES:,} series. See {RECIPES}."
        )
    return mapped(mapping), mapping


def flatten(samples: Sequence[Sample], settings: Settings, metrics: Metrics) -> list[Point]:
    """Return samples as single points, with the type and unit of their metrics."""
    types = read_metrics(settings.metrics)
    return [
        {"metric": metric, "timestamp": each.timestamp, "value": value, "tags": each.tags}
        | types.get(metric, GAUGE)._asdict()
        | {name: metrics.get(metric, {}).get(name) for name in ("unit", "per_unit")}
        for each in samples
        for metric, value in each.values.items()
    ]


def print_series(name: str, points: int, series: Sequence[Point], screen: Screen) -> None:
    """Print the last point of each series that would arrive, or that the file is a marker."""
    found = f"{count(points, 'point')}, {count(len(series), 'custom metric')}"
    if not points:
        found = "a marker, which the submitter skips"
    screen.say(f"ok       {name}: {found}", "green")
    for point in series[:SHOWN_SERIES]:
        kind = point["type"] + (f" of {point['interval']} s" if point["interval"] else "")
        unit = "/".join(filter(None, (point["unit"], point["per_unit"])))
        details = ", ".join(filter(None, (kind, unit)))
        shown = f"{point['metric']}{{{','.join(point['tags'])}}} = {point['value']}"
        screen.say(f"         {utc(point['timestamp'])}  {shown}  ({details})")
    if len(series) > SHOWN_SERIES:
        screen.say(f"         and {len(series) - SHOWN_SERIES:,} more; --json has all")
