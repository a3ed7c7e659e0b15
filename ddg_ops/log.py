"""The submitter's log: reading its lines, and `tail`, which follows it."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from ddg_ops.screen import FINE, Command, Moment, Screen, moment, utc
from ddg_ops.stack import Stack, stack_options
from ddg_outcomes import printable

POLL_SECONDS = 2.0  # between reads; lines reach CloudWatch after some seconds
LATE_SECONDS = 60  # another stream's lines may arrive this much later
SUMMARY = (  # of a batch
    "{Submitted:>5} submitted {Refused:>4} refused {Retried:>4} retried {Points:>6} points "
    "{Requests:>3} requests {WireBytes:>7} B  fetch {FetchMilliseconds} ms  post "
    "{PostMilliseconds} ms  delay {DelayMilliseconds} ms"
)
PHRASE = re.compile("[A-Za-z0-9_./:-]+")  # the same in each line, and valid in a filter
MAX_PHRASE_CHARACTERS = 1_000  # a filter of CloudWatch's has at most 1,024
STYLES = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}


class Entry(NamedTuple):
    """An entry of the log: how `tail` shows it."""

    lines: list[str]
    style: str
    document: dict[str, Any]  # for --json


class Word(NamedTuple):
    """What the log or a queue says about a file."""

    state: str  # submitted, refused, retried, ignored, dead
    at: float  # epoch seconds
    reason: str


def log_events(stack: Stack, since: float, pattern: str = "") -> Iterator[dict[str, Any]]:
    """Yield the submitter's log events since a time (epoch seconds)."""
    pages = stack.aws.client("logs").get_paginator("filter_log_events")
    wanted = {"logGroupName": stack.log_group, "filterPattern": pattern}
    for page in pages.paginate(**wanted, startTime=int(1000 * since)):
        yield from page["events"]


def read_event(message: str) -> Entry | None:
    """Return the entry for a log event's message; None for Lambda's own events."""
    if message.startswith("submitted ["):
        files = json.loads(message.removeprefix("submitted "))
        return Entry([f"submitted {printable(file)}" for file in files], "", {"files": files})
    try:
        entry = json.loads(message)
    except ValueError:  # printed: a refusal, a retry
        named = message.startswith(("refused ", "retried "))
        return _line("WARNING" if named else "INFO", message.strip())
    if not isinstance(entry, dict):
        return None
    if "_aws" in entry and {"Submitted", "Refused", "Retried", "Points"} <= entry.keys():
        numbers = Counter({name: n for name, n in entry.items() if isinstance(n, int)})
        numbers["DelayMilliseconds"] = round(max(entry.get("DelayMilliseconds") or [0]))
        style = "" if numbers["Refused"] + numbers["Retried"] else "green"
        return Entry([SUMMARY.format_map(numbers)], style, numbers)
    if "message" in entry:
        trace = entry.get("stackTrace")
        text = f"{entry['message']} {trace}" if trace else str(entry["message"])
        return _line(str(entry.get("level", "INFO")), text)
    status = entry.get("record", {}).get("status", "success")
    if entry.get("type") == "platform.report" and status != "success":  # an invocation's end
        return _line("ERROR", f"the function ended with {status}")
    return None


def _line(level: str, text: str) -> Entry:
    style = "red" if text.startswith("refused ") else STYLES.get(level, "")
    return Entry([text], style, {"level": level, "text": text})


def words_about(stack: Stack, name: str, since: float) -> Iterator[Word]:
    """Yield what the log says about a file since a time.

    Args:
        name: the file's address as the log prints it.
        since: epoch seconds.
    """
    phrase = max(PHRASE.findall(name), key=len)[:MAX_PHRASE_CHARACTERS]
    listed = re.compile(rf"[:,] {re.escape(name)}(, s3://|, \.\.\.$|$)")
    for event in log_events(stack, since, f'"{phrase}"'):
        at, entry = event["timestamp"] / 1000, read_event(event["message"])
        for line in entry.lines if entry else ():
            state, _, rest = line.partition(" ")
            if line == f"submitted {name}":
                yield Word(state, at, "")
            elif line.startswith(f"refused {name}: "):
                yield Word(state, at, line.removeprefix(f"refused {name}: "))
            elif state != "submitted" and listed.search(line):
                yield Word(state, at, rest.partition(": ")[2].partition(": s3://")[0])


@click.command(cls=Command, examples=["", "--files", "--since 12:00 --no-follow"])
@click.option("--since", type=moment, default="10m", metavar="TIME", show_default=True)
@click.option("--files", is_flag=True, help="Show each submitted file too.")
@click.option("--no-follow", is_flag=True, help="Print what is there, and exit.")
@stack_options
@click.pass_obj
def tail(screen: Screen, stack: Stack, since: Moment, files: bool, no_follow: bool) -> int:
    """Follow the submitter's log: a line per batch, refusal and retry. Times are in UTC."""
    after = since.seconds
    printed: dict[tuple[str, str], float] = {}  # event -> its time: each is printed once
    while True:
        for event in log_events(stack, after):
            at, identity = event["timestamp"] / 1000, (event["logStreamName"], event["eventId"])
            entry = read_event(event["message"]) if identity not in printed else None
            printed[identity] = at
            if entry is not None and (files or "files" not in entry.document):
                for line in entry.lines:
                    screen.say(f"{utc(at)}  {line}", entry.style)
                screen.result({"at": at} | entry.document)
            after = max(after, at - LATE_SECONDS)
        if no_follow:
            return FINE
        printed = {identity: at for identity, at in printed.items() if at >= after - 1}
        time.sleep(POLL_SECONDS)
