"""The submitter's log: what a person wants to see of it, and `tail`, which follows it."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from ddg_ops.command import Command
from ddg_ops.screen import FINE, Moment, Screen, moment
from ddg_ops.stack import Stack, stack_options

POLL_SECONDS = 2.0  # between two looks into the log; CloudWatch has lines after some seconds
LATE_SECONDS = 60  # a line of another stream may come that much after later ones
SUMMARY = (  # a batch's, in one line
    "{Submitted:>5} submitted {Refused:>4} refused {Retried:>4} retried {Points:>6} points "
    "{Requests:>3} requests {WireBytes:>7} B  fetch {FetchMilliseconds} ms  post "
    "{PostMilliseconds} ms"
)
LAMBDAS_OWN = ("START ", "END ", "REPORT ", "INIT_START ", "EXTENSION ")
STYLES = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}


class Line(NamedTuple):
    """A line of the log that a person wants to see."""

    level: str  # WARNING, ERROR, ...
    text: str


Entry = dict[str, Any] | Line  # a batch's summary, or a line


def log_events(stack: Stack, since: float, pattern: str = "") -> Iterator[dict[str, Any]]:
    """Yield the submitter's log from a moment on (epoch seconds)."""
    pages = stack.aws.client("logs").get_paginator("filter_log_events")
    start = int(1000 * since)
    for page in pages.paginate(
        logGroupName=stack.log_group, startTime=start, filterPattern=pattern
    ):
        yield from page["events"]


def read_event(message: str) -> Entry | None:
    """Return a batch's summary, a line to show, or None for what only Lambda cares for."""
    try:
        entry = json.loads(message)
    except ValueError:
        return read_plain(message.strip())
    if not isinstance(entry, dict):
        return None
    if "_aws" in entry and {"Submitted", "Refused", "Retried", "Points"} <= entry.keys():
        return entry
    if "message" in entry:
        trace = entry.get("stackTrace")
        text = f"{entry['message']} {trace}" if trace else str(entry["message"])
        return Line(str(entry.get("level", "INFO")), text)
    if entry.get("type") == "platform.report":  # an invocation's end
        status = entry["record"].get("status", "success")
        return Line("ERROR", f"the function ended with {status}") if status != "success" else None
    return None


def read_plain(message: str) -> Line | None:
    """Return a line that isn't JSON: the text format's, `[LEVEL] time request text`."""
    if not message or message.startswith(LAMBDAS_OWN):
        return None
    if message.startswith("["):
        level, _, text = message[1:].partition("]")
        return Line(level, text.split("\t")[-1])
    if message.startswith(("refused ", "retried ")):
        return Line("WARNING", message)
    return Line("ERROR" if "Task timed out" in message else "INFO", message)


@click.command(cls=Command, examples=["", "--since 12:00 --no-follow"])
@click.option("--since", type=moment, default="10m", metavar="TIME", show_default=True)
@click.option("--no-follow", is_flag=True, help="Print what is there, and end.")
@stack_options
@click.pass_obj
def tail(screen: Screen, stack: Stack, since: Moment, no_follow: bool) -> int:
    """Follow the submitter's batches, a line each; refusals and retries with reasons."""
    after = since.seconds
    printed: dict[tuple[str, str, int], None] = {}  # ids, to print what is read twice once
    while True:
        for event in log_events(stack, after):
            identity = (event["logStreamName"], event["eventId"], event["timestamp"])
            entry = read_event(event["message"]) if identity not in printed else None
            printed[identity] = None
            if entry is not None:
                print_entry(event["timestamp"] / 1000, entry, screen)
            after = max(after, event["timestamp"] / 1000 - LATE_SECONDS)
        if no_follow:
            return FINE
        printed = {each: None for each in printed if each[2] >= 1000 * (after - 1)}
        time.sleep(POLL_SECONDS)


def print_entry(at: float, entry: Entry, screen: Screen) -> None:
    """Print an entry of the log in one line."""
    when = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
    if isinstance(entry, Line):
        style = "red" if entry.text.startswith("refused ") else STYLES.get(entry.level, "")
        screen.say(f"{when}  {entry.text}", style)
        screen.result({"at": at, "level": entry.level, "text": entry.text})
    else:
        numbers = {name: value for name, value in entry.items() if isinstance(value, int)}
        line = SUMMARY.format_map(Counter(numbers))
        screen.say(f"{when}  {line}", "" if numbers["Refused"] + numbers["Retried"] else "green")
        screen.result({"at": at} | numbers)
