"""What a person types and sees: help, lines of text, progress, numbers and times."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

FINE, WRONG, USAGE, UNABLE, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes, see `ddg-ops --help`
POSITIVE = click.FloatRange(0, min_open=True)
HANDBOOK = "docs/operations.md"
HISTORICAL = "Also points over an hour old; the metrics need Historical Metrics Ingestion."
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Command(click.Command):
    """A command with examples in its help."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples unwrapped, ready to copy."""
        lines = (f"  {ctx.command_path} {line}".rstrip() + "\n" for line in self._examples)
        formatter.write("\nExamples:\n" + "".join(lines))


class Stop(Exception):
    """Ends a command with one line: what is wrong, where, and what to do."""

    def __init__(self, message: str, exit_code: int = UNABLE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Finding(NamedTuple):
    """What `check` found out about one part."""

    state: Literal["ok", "FAILED", "unknown", "note"]
    text: str
    fix: str = ""  # what to do, unless it is ok


class Lines(Console):
    """A console that leaves a broken pipe to the command line; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that rich is handling


class Screen:
    """Prints lines for a person or, with --json, one document for a machine."""

    def __init__(self, as_json: bool) -> None:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a terminal may lack a character
        self._as_json = as_json
        self._out = Lines(highlight=False, soft_wrap=True)
        self._err = Lines(highlight=False, soft_wrap=True, stderr=True)

    def say(self, text: str, style: str = "") -> None:
        """Print a line, unless the output is JSON."""
        if not self._as_json:
            self._out.print(Text(clean(text), style))

    def note(self, text: str, style: str = "") -> None:
        """Print a line on stderr."""
        with suppress(OSError):  # nobody reads it
            self._err.print(Text(clean(text), style))

    def result(self, document: object) -> None:
        """Print a document, if the output is JSON."""
        if self._as_json:
            print(json.dumps(document), flush=True)

    def fail(self, problem: str, exit_code: int) -> None:
        """Print why a command ended."""
        self.note(f"ddg-ops: {problem}", "bold red")
        with suppress(OSError):
            self.result({"error": problem, "exit_code": exit_code})

    @contextmanager
    def progress(self, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show a bar on a terminal; yield a function that advances it by a number."""
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._err,
            transient=True,
            disable=not self._err.is_terminal,
            redirect_stdout=False,  # otherwise rich sends stdout to stderr
        ) as bar:
            task = bar.add_task(unit, total=total)
            yield lambda number: bar.advance(task, number)


def clean(text: str) -> str:
    """Replace what isn't printable: no key or reason controls the terminal or adds a line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def count(number: int, word: str) -> str:
    """Return a number with its noun: 1 message, 2,000 messages."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def age(seconds: float) -> str:
    """Return a duration in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def utc(seconds: float) -> str:
    """Return epoch seconds as a date and time, which --since takes."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(seconds: float, now: float) -> str:
    """Return epoch seconds as a date and time with the age."""
    return f"{utc(seconds)} ({age(now - seconds)} ago)"


class Moment(NamedTuple):
    """A point in time, and how it was typed."""

    seconds: float  # epoch
    text: str


def moment(text: str) -> Moment:
    """Read a time from the command line, in UTC. A clock time is the last one before now."""
    now = datetime.now(UTC)
    try:
        if text == "now":
            at = now
        elif span := re.fullmatch("([0-9]{1,6})([smhd])", text):
            at = now - timedelta(**{UNITS[span[2]]: int(span[1])})
        elif re.fullmatch("[0-9]{1,2}:[0-9]{2}", text):
            at = datetime.combine(now, time.fromisoformat(text.zfill(5)), UTC)
            at -= timedelta(days=at > now)
        else:
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return Moment(at.timestamp(), text)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} isn't a time: 30m, 6h, 2d (ago), 12:00, 2025-11-24T12:00, now; in UTC."
        ) from None
