"""What a person sees and types: help, lines that nothing steers, progress, numbers and times."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, Literal, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

FINE, WRONG, USAGE, UNABLE, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes; `ddg-ops --help` has them
POSITIVE = click.FloatRange(0, min_open=True)
HANDBOOK = "docs/operations.md"
HISTORICAL = "Points of over an hour ago too: only metrics with Historical Metrics Ingestion."


class Command(click.Command):
    """A command whose help ends with lines to type; of each what stands behind its name."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are: wrapped they couldn't be copied."""
        lines = (f"  {ctx.command_path} {line}".rstrip() + "\n" for line in self._examples)
        formatter.write("\nExamples:\n" + "".join(lines))


class Stop(Exception):
    """The end of a command: a line that says what is wrong, where, and what to do."""

    def __init__(self, text: str, exit_code: int = UNABLE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Finding(NamedTuple):
    """What was found of one part."""

    state: Literal["ok", "FAILED", "unknown", "note"]
    text: str
    fix: str = ""  # what to do, where it isn't ok


class Lines(Console):
    """A console that leaves it to the command line what a reader's leaving means."""

    def on_broken_pipe(self) -> None:
        """Go on with the BrokenPipeError: rich would exit with 1, which says that files are bad."""
        raise  # rich calls this where one is being handled


class Screen:
    """Lines for a person, or with --json one document for a machine."""

    def __init__(self, as_json: bool) -> None:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a terminal may lack a character
        self._as_json = as_json
        self._out = Lines(highlight=False, soft_wrap=True)
        self._err = Lines(highlight=False, soft_wrap=True, stderr=True)

    def say(self, text: str, style: str = "") -> None:
        """Print a line, unless a machine reads."""
        if not self._as_json:
            self._out.print(Text(clean(text), style))

    def note(self, text: str, style: str = "") -> None:
        """Print a line beside the output."""
        with suppress(OSError):  # nobody is there to hear of it
            self._err.print(Text(clean(text), style))

    def result(self, document: object) -> None:
        """Print a document, if a machine reads; in ASCII, so that nothing in it steers either."""
        if self._as_json:
            print(json.dumps(document), flush=True)

    def fail(self, problem: str, exit_code: int) -> None:
        """Print how a command ended."""
        self.note(f"ddg-ops: {problem}", "bold red")
        with suppress(OSError):
            self.result({"error": problem, "exit_code": exit_code})

    def close(self) -> None:
        """Leave output that nobody takes: Python would try again at its end, and complain."""
        with suppress(OSError, ValueError):  # ValueError: a stream without a descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @contextmanager
    def progress(self, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Yield what is called with the number done; on a terminal it moves a bar."""
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._err,
            transient=True,
            disable=not self._err.is_terminal,
            redirect_stdout=False,  # it would end up on this console, whatever it was sent to
        ) as bar:
            task = bar.add_task(unit, total=total)
            yield lambda number: bar.advance(task, number)


def clean(text: str) -> str:
    """Return a text that can't steer a terminal: one line, whatever a key or a reason holds."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def count(number: int, word: str) -> str:
    """Return a number of things: 1 message, 2,000 messages."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def age(seconds: float) -> str:
    """Return a span in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def utc(seconds: float) -> str:
    """Return epoch seconds as a date and time, as --since takes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(seconds: float, now: float) -> str:
    """Return epoch seconds as a date and time, with the age."""
    return f"{utc(seconds)} ({age(now - seconds)} ago)"


class Moment(NamedTuple):
    """A point in time, and how it was typed."""

    seconds: float  # epoch
    text: str


def moment(text: str) -> Moment:
    """Return a time of the command line."""
    try:
        return Moment(parse_time(text), text)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time: 30m, 6h, 2d (ago), 12:00, 2025-11-24T12:00, now; in UTC"
        ) from None


def parse_time(text: str) -> float:
    """Return epoch seconds: of 30m, 6h, 2d ago; of 12:00, the last one; of a date; of now. In UTC.

    Raises ValueError or OverflowError for anything else.
    """
    now = datetime.now(UTC)
    if text == "now":
        return now.timestamp()
    if span := re.fullmatch("([0-9]{1,6})([smhd])", text):
        return now.timestamp() - int(span[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[span[2]]
    if re.fullmatch("[0-9]{9,11}", text):
        return float(text)
    if re.fullmatch("[0-9]{1,2}:[0-9]{2}", text):
        today = datetime.combine(now, time_of_day.fromisoformat(text.zfill(5)), UTC)
        return (today if today <= now else today - timedelta(days=1)).timestamp()
    date = datetime.fromisoformat(text)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
