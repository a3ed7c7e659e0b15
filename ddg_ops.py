"""Operate the pipeline: check it, see what was refused, send it again, backfill.

Exit codes: 0 all is well; 1 something is wrong with the pipeline or with files; 2 the command line
is wrong; 3 it couldn't be told or done (no stack, credentials, permission, network); 130 Ctrl-C.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

import ddg_metric_submit
import ddg_ops_backfill
import ddg_ops_queues
import ddg_ops_watch
import ddg_s3_objects
import ddg_stats_file
from ddg_ops_stack import (
    FINE,
    INTERRUPTED,
    UNABLE,
    WRONG,
    Screen,
    Stop,
    client,
    explain,
    find_stack,
    parse_time,
    submitter_settings,
    use_profile,
    utc,
)
from ddg_s3_objects import File
from ddg_settings import Settings
from ddg_stats_file import Sample, StatsFileError

SHOWN_POINTS = 10  # ours: of a file that is good; --json has all
NO_LIMIT = 10**9  # messages


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; whatever goes wrong is one line on stderr."""
    options = build_parser().parse_args(arguments)
    screen = Screen(options.json)
    try:
        code: int = options.command(options, screen)
        return code
    except Stop as stop:
        problem, code = str(stop), stop.exit_code
    except (ClientError, BotoCoreError) as error:
        problem, code = explain(error), UNABLE
    except BrokenPipeError:  # `| head` has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNABLE
    except OSError as error:
        problem, code = f"{error.filename or 'a file'}: {error.strerror or error}.", UNABLE
    except KeyboardInterrupt:
        if options.command is tail:
            return FINE  # its usual end
        problem, code = "interrupted; nothing is lost. The same command goes on.", INTERRUPTED
    screen.note(f"ddg_ops.py: {problem}", "bold red")
    screen.result({"error": problem, "exit_code": code})
    return code


# --- The commands ---


def validate(options: argparse.Namespace, screen: Screen) -> int:
    """Read files as the submitter would, and print the points that would arrive, or the reason."""
    environment = {
        name: os.environ[name]
        for name in ("STATS_PREFIX", "CONSTANT_TAGS", "MAX_AGE_SECONDS")
        if name in os.environ
    }
    if options.max_age is not None:
        environment["MAX_AGE_SECONDS"] = str(options.max_age)
    settings = submitter_settings(environment)
    use_profile(options.profile, options.region)
    codes = {FINE}
    documents = []
    for name in options.files:
        document: dict[str, Any] = {"file": name, "ok": False}
        try:
            samples = read(name, options.job, settings)
        except StatsFileError as error:
            codes.add(WRONG)
            document["reason"] = str(error)
            screen.say(f"refused  {name}: {error}", "red")
        except (ClientError, BotoCoreError, OSError) as error:
            codes.add(UNABLE)
            why = error.strerror if isinstance(error, OSError) else explain(error)
            document["problem"] = f"can't be read: {why}"
            screen.say(f"unread   {name}: {why}", "bold red")
        else:
            document |= {"ok": True, "points": list(map(point_document, flatten(samples)))}
            print_points(name, samples, screen)
        documents.append(document)
    screen.result({"files": documents})
    return min(codes - {FINE}, default=FINE)


def read(name: str, job: str, settings: Settings) -> list[Sample]:
    """Return the samples of a file, of standard input (-) or of an object (s3://bucket/key)."""
    most = ddg_stats_file.MAX_FILE_BYTES + 1
    if name.startswith("s3://"):
        bucket, _, key = name.removeprefix("s3://").partition("/")
        content = ddg_s3_objects.get_object(client("s3"), File(bucket, key), most - 1) or b""
    else:
        key = f"{settings.stats_prefix}{job}/file" if job else f"{settings.stats_prefix}file"
        if name == "-":
            content = sys.stdin.buffer.read(most)
        else:
            with Path(name).open("rb") as file:
                content = file.read(most)
    return ddg_metric_submit.parse(key, content, settings)


Point = tuple[str, int, float, tuple[str, ...]]


def flatten(samples: Sequence[Sample]) -> list[Point]:
    """Return samples as single points: metric, epoch seconds, value, tags."""
    return [
        (metric, sample.timestamp, value, sample.tags)
        for sample in samples
        for metric, value in sample.values.items()
    ]


def point_document(point: Point) -> dict[str, Any]:
    """Return a point for a machine."""
    return dict(zip(("metric", "timestamp", "value", "tags"), point, strict=True))


def print_points(name: str, samples: Sequence[Sample], screen: Screen) -> None:
    """Print what would arrive of a good file."""
    points = flatten(samples)
    screen.say(f"ok       {name}: {len(points):,} point{'s' * (len(points) != 1)}", "green")
    for metric, timestamp, value, tags in points[:SHOWN_POINTS]:
        screen.say(f"         {utc(timestamp)}  {metric}{{{','.join(tags)}}} = {value}")
    if len(points) > SHOWN_POINTS:
        screen.say(f"         and {len(points) - SHOWN_POINTS:,} more; --json has all")


def check(options: argparse.Namespace, screen: Screen) -> int:
    """Ask every part of the stack whether it is well."""
    return ddg_ops_watch.check(stack_of(options), options, screen)


def tail(options: argparse.Namespace, screen: Screen) -> int:
    """Follow the submitter's log."""
    return ddg_ops_watch.tail(stack_of(options), options, screen)


def backfill(options: argparse.Namespace, screen: Screen) -> int:
    """Submit files that are in the bucket."""
    return ddg_ops_backfill.backfill(stack_of(options), options, screen)


def on_queue(options: argparse.Namespace, screen: Screen) -> int:
    """Do something with the rejected or the dead-letter queue."""
    stack = stack_of(options)
    url = stack.rejected_url if options.queue == "rejected" else stack.dead_letter_url
    code: int = options.action(stack, url, options, screen)
    return code


def stack_of(options: argparse.Namespace) -> Any:
    """Return the stack that the command line, the environment or Terraform names."""
    named = options.stack or os.environ.get("DDG_STACK") or None
    return find_stack(named, options.profile, options.region)


# --- The command line ---


def moment(text: str) -> tuple[float, str]:
    """Return a point in time, and how it was typed."""
    try:
        return parse_time(text), text
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: 30m, 6h, 2d (ago), 12:00, 2025-11-24T12:00, now; in UTC"
        ) from None


def positive(text: str) -> float:
    """Return a number above 0."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def whole(text: str) -> int:
    """Return an integer that isn't negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} isn't a whole number from 0 on")
    return int(text)


Subparsers = Any  # argparse has no public name for it


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command line."""
    top = argparse.ArgumentParser(
        "ddg_ops.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=examples("validate nightly.json", "check --canary", "rejected list", "tail"),
        parents=[common_options()],
        allow_abbrev=False,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    add_validate(commands)
    add_check(commands)
    add_queue(
        commands, "rejected", "what was refused for good: see it, send it again, save it, drop it"
    )
    add_queue(
        commands, "dead", "what couldn't be submitted in time: the same for the dead-letter queue"
    )
    add_backfill(commands)
    add_tail(commands)
    return top


def common_options(default: Any = None) -> argparse.ArgumentParser:
    """Return the options of every command; they stand before it or after it."""
    parent = argparse.ArgumentParser(add_help=False, argument_default=default)
    group = parent.add_argument_group("for every command")
    group.add_argument(
        "--stack",
        metavar="NAME|FILE",
        help="a stack's name, or a file that `terraform output -json` wrote; "
        "default: DDG_STACK, then `terraform output` in this folder",
    )
    group.add_argument("--profile", metavar="NAME", help="AWS profile; default: your usual one")
    group.add_argument("--region", metavar="CODE", help="AWS region; default: the stack's")
    group.add_argument(
        "--json",
        action="store_true",
        default=False if default is None else default,
        help="one JSON document (tail: one a line) in place of text",
    )
    return parent


def examples(*lines: str) -> str:
    """Return the end of a help page."""
    return "examples:\n" + "\n".join(f"  .venv/bin/python ddg_ops.py {line}" for line in lines)


def add_command(
    commands: Subparsers,
    name: str,
    command: Callable[[argparse.Namespace, Screen], int],
    description: str,
    *lines: str,
) -> argparse.ArgumentParser:
    """Add a command with its help, examples included."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=description,
        description=description[:1].upper() + description[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=examples(*lines),
        parents=[common_options(argparse.SUPPRESS)],
        allow_abbrev=False,
    )
    parser.set_defaults(command=command)
    return parser


MAX_AGE_HELP = "seconds a timestamp may be old; 0: any age, with Historical Metrics Ingestion"


def add_validate(commands: Subparsers) -> None:
    """Add validate."""
    parser = add_command(
        commands,
        "validate",
        validate,
        "read stats files as the submitter would, on your machine: the points, or why not",
        "validate nightly.json --job nightly",
        "validate --max-age 0 fixtures/*.json",
        "validate s3://BUCKET/stats/nightly/1764000000.json",
        "validate - < nightly.json",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a path, s3://bucket/key, or -")
    parser.add_argument("--job", default="", help="the folder that the file will be put into")
    parser.add_argument("--max-age", type=whole, metavar="SECONDS", help=MAX_AGE_HELP)


def add_check(commands: Subparsers) -> None:
    """Add check."""
    parser = add_command(
        commands,
        "check",
        check,
        "is the pipeline healthy, end to end? a fix for each part that isn't",
        "check",
        "check --canary",
        "check --stack ddg-stats --region eu-central-1 --json",
    )
    parser.add_argument(
        "--canary",
        action="store_true",
        help="put a file below <prefix>canary/ and follow it (makes ddg.canary{job:canary})",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=120.0,
        metavar="SECONDS",
        help="how long to follow the canary; default: 120",
    )


def add_queue(commands: Subparsers, queue: str, description: str) -> None:
    """Add the commands of a queue."""
    parser = commands.add_parser(
        queue,
        help=description,
        description=description[:1].upper() + description[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=examples(f"{queue} list", f"{queue} show --job nightly", f"{queue} replay --yes"),
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def add(
        name: str, action: Callable[..., int], text: str, *lines: str, limit: int = NO_LIMIT
    ) -> argparse.ArgumentParser:
        lines = tuple(f"{queue} {name}{line}" for line in lines)
        added = add_command(actions, name, on_queue, text, *lines)
        added.set_defaults(action=action, queue=queue)
        group = added.add_argument_group("which messages; all by default")
        group.add_argument("--job", default="", help="of this job alone")
        group.add_argument("--key", default="", metavar="TEXT", help="with this in the key")
        group.add_argument(
            "--reason", default="", metavar="TEXT", help="with this in the reason, in any case"
        )
        group.add_argument("--limit", type=whole, default=limit, help="so many at most")
        return added

    add(
        "list",
        ddg_ops_queues.list_messages,
        "what is in the queue, counted by job and reason",
        "",
        " --job nightly",
    )
    add(
        "show",
        ddg_ops_queues.show_messages,
        "messages with their reasons, and the files' own beginnings",
        " --job nightly",
        " --key 1764000000 --limit 1",
        limit=5,
    )
    replay = add(
        "replay",
        ddg_ops_queues.replay_messages,
        "send messages to the main queue again; without --yes say what would become of them",
        " --job nightly",
        " --job nightly --yes",
        " --only-good --yes",
    )
    replay.add_argument("--yes", action="store_true", help="do it")
    replay.add_argument(
        "--only-good", action="store_true", help="those alone that would be submitted now"
    )
    save = add(
        "save",
        ddg_ops_queues.save_messages,
        "write messages and their files to a folder",
        f" {queue}-files",
        f" {queue}-files --delete --yes",
    )
    save.add_argument("folder", metavar="FOLDER", help="made where it isn't there")
    save.add_argument("--delete", action="store_true", help="then delete what is safely written")
    save.add_argument("--yes", action="store_true", help="do delete it")
    discard = add(
        "discard",
        ddg_ops_queues.discard_messages,
        "delete messages; without --yes say which",
        " --job nightly",
        " --job nightly --yes",
    )
    discard.add_argument("--yes", action="store_true", help="do it")
    discard.add_argument(
        "--note",
        default="discarded.jsonl",
        metavar="FILE",
        help="a line for each message is added to it first; default: discarded.jsonl",
    )


def add_backfill(commands: Subparsers) -> None:
    """Add backfill."""
    parser = add_command(
        commands,
        "backfill",
        backfill,
        "submit the files of a time span that are in the bucket, from here, with your own key "
        "in DATADOG_API_KEY; without --yes only read them",
        "backfill --since 50m",
        "backfill --since 50m --yes",
        "backfill --since 2025-11-22 --until 2025-11-24 --prefix stats/nightly/ --max-age 0 --yes",
    )
    times = "30m, 6h, 2d (ago), 12:00, 2025-11-24T12:00; UTC"
    parser.add_argument(
        "--since", type=moment, required=True, metavar="TIME", help=f"came at or after: {times}"
    )
    parser.add_argument(
        "--until", type=moment, default="now", metavar="TIME", help="came at or before; now"
    )
    parser.add_argument("--prefix", help="only keys that begin so; default: the stack's prefix")
    parser.add_argument("--max-age", type=whole, metavar="SECONDS", help=MAX_AGE_HELP)
    parser.add_argument(
        "--rate", type=positive, default=100.0, metavar="FILES", help="a second; default: 100"
    )
    parser.add_argument(
        "--checkpoint",
        default="ddg_backfill.checkpoint",
        metavar="FILE",
        help="where an interrupted one goes on; default: ddg_backfill.checkpoint",
    )
    parser.add_argument("--yes", action="store_true", help="do it")


def add_tail(commands: Subparsers) -> None:
    """Add tail."""
    parser = add_command(
        commands,
        "tail",
        tail,
        "the submitter's batches as they come, a line each; refusals and retries with reasons",
        "tail",
        "tail --since 12:00 --no-follow",
    )
    parser.add_argument(
        "--since", type=moment, default="10m", metavar="TIME", help="30m, 12:00 (UTC); default: 10m"
    )
    parser.add_argument(
        "--no-follow", dest="follow", action="store_false", help="print what is there, and end"
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # gives back what is in hand
    sys.exit(main())
