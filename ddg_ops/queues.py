"""rejected and dead: list, show, replay, save and discard the messages of the two queues.

Messages are sent, or written with fsync, before they are deleted. After an interruption a message
may be in both places; submitting a file twice is harmless.

SQS's own redrive can neither choose nor foresee, and it refuses the rejected queue, to which the
submitter itself sends.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
from botocore.exceptions import ClientError, ParamValidationError

from ddg_ops.aws import Aws, is_missing
from ddg_ops.screen import Command, Screen, ago, count, utc
from ddg_ops.stack import Stack, foresee, make_batch, queue_name, reading_settings
from ddg_ops.walk import Message, Walk, on_queue
from ddg_outcomes import NOT_OURS, Ignored, Outcome, Refused, Retry
from ddg_s3_objects import REPLAYED, File

MAX_SEND_BYTES = 250_000  # SQS allows 262,144 in a call, with the mark of each message
MARK = {REPLAYED: {"DataType": "String", "StringValue": "1"}}  # keeps it out of the delay
SHOWN_CHARACTERS = 2_000  # of a file
MAX_GROUPS = 200  # bounds the memory and the output, if each file has a reason of its own
GOOD = "would be submitted"
DISCARDED = Path("discarded.jsonl")
TOO_OLD = re.compile(r"(?:[^:]+: )?(?:the timestamp|timestamp \d+) is \d+ s old, .*")
VARYING = re.compile(  # what differs between files with the same fault
    r"""
      \b(?:timestamp|line|column|byte|object|received)\ \d+ | \b\d+\ (?:s\ (?:old|ahead)|tags,)
    | the\ (?:string|number|tag)\ (?:"(?:[^"\\]|\\.)*"(?:\.{3})?|[^",:]+)
    | "tags":\ \["(?:[^"\\]|\\.)*"\] | --since\ \S+
    """,
    re.VERBOSE,
)

yes_option = click.option("--yes", is_flag=True, help="Do it.")


@dataclass
class Group:
    """Messages or files with the same title and kind of reason; reason and place of the first."""

    title: str
    reason: str
    where: str
    oldest: float = float("inf")  # epoch seconds
    newest: float = 0.0  # 0: without times
    count: int = 0


class Groups:
    """Groups by title and kind of reason, the largest first."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Group] = {}

    def add(self, title: str, reason: str, where: str, at: float = 0.0) -> None:
        """Count one more, from a time if that is known."""
        key = (title, VARYING.sub("_", reason))
        if key not in self._groups and len(self._groups) >= MAX_GROUPS:
            key, title, reason = ("", ""), "of other kinds", ""
        group = self._groups.setdefault(key, Group(title, reason, where))
        group.count += 1
        group.oldest, group.newest = min(group.oldest, at), max(group.newest, at)

    def add_messages(self, messages: Sequence[Message]) -> None:
        """Count messages by job and reason."""
        for each in messages:
            self.add(each.job, each.reason, each.where, each.sent)

    def __iter__(self) -> Iterator[Group]:
        return iter(sorted(self._groups.values(), key=lambda group: -group.count))

    def documents(self, title: str) -> list[dict[str, Any]]:
        """Return the groups as JSON, with a name for their title."""
        return [
            {"count": group.count, title: group.title, "reason": group.reason}
            | ({"oldest": utc(group.oldest), "newest": utc(group.newest)} if group.newest else {})
            | {"example": group.where}
            for group in self
        ]

    def say(self, screen: Screen, now: float = 0) -> None:
        """Print the groups, each with an example."""
        for group in self:
            screen.say(f"{group.count:>6,}  {group.title}", "bold")
            if group.reason:
                screen.say(f"        {group.reason}")
            if group.newest:
                times = dict.fromkeys((group.oldest, group.newest))
                screen.say(f"        {' to '.join(ago(each, now) for each in times)}", "dim")
            if group.reason:
                screen.say(f"        such as {group.where}", "dim")


# --- list, show ---


@click.command("list", cls=Command, examples=["", "--job nightly", "--since 6h"])
@on_queue()
def list_messages(screen: Screen, stack: Stack, walk: Walk) -> int:
    """List the messages by job and reason, with their number."""
    groups = Groups()
    with walk:
        for messages in walk.wanted():
            groups.add_messages(messages)
    groups.say(screen, walk.now)
    return walk.report(screen, [], {"groups": groups.documents("job")})


@click.command("show", cls=Command, examples=["--job nightly", "--key 1764000000 --limit 1"])
@on_queue(limit=5)
def show_messages(screen: Screen, stack: Stack, walk: Walk) -> int:
    """Show messages with their reasons and the beginnings of their files."""
    with walk:
        found = [message for messages in walk.wanted() for message in messages]
    shown: list[dict[str, Any]] = []
    for message in found:
        screen.say(message.where, "bold")
        screen.say(f"    message {message.message_id}, {ago(message.sent, walk.now)}", "dim")
        screen.say(f"    {message.reason}", "red")
        files = [
            {"bucket": file.bucket, "key": file.key, "beginning": read_beginning(stack.aws, file)}
            for file in message.objects
        ]
        for text in [file["beginning"] for file in files] or [message.body[:SHOWN_CHARACTERS]]:
            for line in text.expandtabs(4).splitlines():
                screen.say(f"    | {line}")
        shown.append(message.record() | {"job": message.job, "files": files})
    return walk.report(screen, [], {"messages": shown})


def open_object(aws: Aws, file: File) -> Any:
    """Return an object's body, and keep the key that S3 knows; None if there is no such object."""
    named = {"Bucket": file.bucket} | ({"VersionId": file.version} if file.version else {})
    for key in filter(None, (file.key, file.decoded_key)):
        try:
            body = aws.client("s3").get_object(Key=key, **named)["Body"]
        except (ParamValidationError, ClientError) as error:  # no object can have the first's name
            if isinstance(error, ClientError) and not is_missing(error):
                raise
        else:
            file.key = key
            return body
    return None


def read_beginning(aws: Aws, file: File) -> str:
    """Return a file's first characters, decompressed if it is gzip data."""
    body = open_object(aws, file)
    if body is None:
        return "(the file is gone)"
    with body:
        content: bytes = body.read(4 * SHOWN_CHARACTERS)
    with suppress(zlib.error):  # it isn't gzip data
        content = zlib.decompressobj(31).decompress(content, 4 * SHOWN_CHARACTERS)
    return content.decode("utf-8", "replace")[:SHOWN_CHARACTERS]


# --- replay ---


@click.command("replay", cls=Command, examples=["--job nightly", "--only-good --yes"])
@click.option("--only-good", is_flag=True, help="Only those that would be submitted now.")
@yes_option
@on_queue()
def replay_messages(screen: Screen, stack: Stack, walk: Walk, *, yes: bool, only_good: bool) -> int:
    """Send messages to the main queue again, then delete them here.

    Without --yes, only say what would happen to them.
    """
    if yes:
        stack.prove()
    settings = None if yes and not only_good else reading_settings(stack.environment())
    groups, sent, deleted = Groups(), 0, 0
    with walk:
        for messages in walk.wanted():
            chosen = messages
            if settings:
                files = [file for message in messages for file in message.files]
                outcomes = foresee(files, make_batch(stack.aws, settings))
                chosen = []
                for message in messages:
                    verdict, reason = settle([outcomes[file] for file in message.files])
                    groups.add(verdict, reason, message.where)
                    chosen += [message] if verdict == GOOD or not only_good else []
            if yes:
                accepted = send(stack, chosen)
                sent += len(accepted)
                deleted += walk.delete(accepted)
    groups.say(screen)
    kept, way = walk.taken - sent, f"from {walk.name} to {queue_name(stack.main_url)}"
    lines: list[str] = []
    if yes:
        lines.append(f"{sent:,} sent {way}, {deleted:,} deleted there, {kept:,} kept.")
        lines.append("Follow them: ddg-ops tail")
    elif walk.taken:
        lines.append(f"Nothing was sent. --yes sends {count(walk.taken, 'message')} {way}.")
        lines.append("--only-good leaves out what would be refused again.")
    result: dict[str, object] = {"dry_run": not yes, "sent": sent, "deleted": deleted, "kept": kept}
    done = not yes or (deleted == sent and (only_good or not kept))
    return walk.report(screen, lines, result | {"forecast": groups.documents("outcome")}, done=done)


def settle(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """Return a message's forecast and its reason: nothing is refused while a file is retried."""
    for kind, verdict in ((Retry, "can't be read now"), (Refused, "would be refused again")):
        for outcome in outcomes:
            if isinstance(outcome, kind):
                return verdict, outcome.reason
    if outcomes and all(isinstance(outcome, Ignored) for outcome in outcomes):
        return "would be ignored", NOT_OURS
    return GOOD, ""


def send(stack: Stack, messages: Sequence[Message]) -> list[Message]:
    """Send up to ten messages to the main queue; return those that SQS accepts."""
    sqs = stack.aws.client("sqs")
    fits = sum(len(message.body.encode()) for message in messages) <= MAX_SEND_BYTES
    accepted: list[Message] = []
    for part in [messages] if fits and messages else [[message] for message in messages]:
        entries = [
            {"Id": str(number), "MessageBody": message.body, "MessageAttributes": MARK}
            for number, message in enumerate(part)
        ]
        answer = sqs.send_message_batch(QueueUrl=stack.main_url, Entries=entries)
        accepted += [part[int(entry["Id"])] for entry in answer.get("Successful", [])]
    return accepted


# --- save, discard ---


@click.command("save", cls=Command, examples=["FOLDER", "FOLDER --delete --yes"])
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--delete", is_flag=True, help="Delete messages once they are saved.")
@yes_option
@on_queue()
def save_messages(
    screen: Screen, stack: Stack, walk: Walk, *, folder: Path, delete: bool, yes: bool
) -> int:
    """Write messages and their files to a folder; with --delete --yes, then delete the messages."""
    if delete and yes:
        stack.prove()
    folder.mkdir(parents=True, exist_ok=True)
    deleted = 0
    with walk:
        for messages in walk.wanted():
            for message in messages:
                save(stack.aws, message, folder)
            deleted += walk.delete(messages) if delete and yes else 0
    lines = [f"{walk.taken:,} saved in {folder}: each message as <id>.json, with its files."]
    if delete:
        lines.append(f"{deleted:,} deleted from {walk.name}{'' if yes else ': that takes --yes'}.")
    result = {"folder": str(folder), "saved": walk.taken, "deleted": deleted}
    return walk.report(screen, lines, result, done=deleted in (0, walk.taken))


def save(aws: Aws, message: Message, folder: Path) -> None:
    """Write a message and its files; all are on the disk when this returns."""
    name = re.sub("[^A-Za-z0-9-]", "_", message.message_id)
    files = []
    for number, file in enumerate(message.objects, 1):
        # Only harmless characters of the key: ../ can't leave the folder.
        beside = f"{name}-{number}-{re.sub('[^A-Za-z0-9._-]', '_', file.key)[-80:]}"
        body = open_object(aws, file)
        files.append({"bucket": file.bucket, "key": file.key, "file": beside if body else None})
        if body:
            with body, safely(folder / beside, "wb") as saved:
                shutil.copyfileobj(body, saved)
    with safely(folder / f"{name}.json", "w") as note:
        json.dump(message.record() | {"files": files}, note, indent=1)


@click.command("discard", cls=Command, examples=["--job nightly", "--job nightly --yes"])
@yes_option
@on_queue()
def discard_messages(screen: Screen, stack: Stack, walk: Walk, *, yes: bool) -> int:
    """Write messages to discarded.jsonl, then delete them. Without --yes, only list them."""
    if yes:
        stack.prove()
    groups, deleted = Groups(), 0
    with walk:
        for messages in walk.wanted():
            groups.add_messages(messages)
            if yes:
                with safely(DISCARDED, "a") as opened:
                    opened.writelines(json.dumps(each.record()) + "\n" for each in messages)
                deleted += walk.delete(messages)
    groups.say(screen, walk.now)
    lines = [f"Nothing was deleted. --yes deletes {count(walk.taken, 'message')}."]
    if yes:
        lines = [f"{deleted:,} deleted from {walk.name}; {DISCARDED} keeps them."]
    result = {"dry_run": not yes, "deleted": deleted}
    return walk.report(screen, lines, result, done=not yes or deleted == walk.taken)


@contextmanager
def safely(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Open a file to write, and sync it and its folder at the end: it survives a power cut."""
    with path.open(mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


COMMANDS = [list_messages, show_messages, replay_messages, save_messages, discard_messages]
