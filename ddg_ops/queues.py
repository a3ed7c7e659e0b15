"""rejected and dead: see what is in the two queues, send it again, save it, drop it.

It is sent (or written, with fsync) first and deleted then. Interrupted between the two it is in
both places, and a file that is submitted twice is harmless.

SQS's own redrive wouldn't do: it takes only dead-letter queues of other queues, and the submitter
sends to the rejected one itself (StartMessageMoveTask reference). Nor can it choose or foresee.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
from botocore.exceptions import ClientError, ParamValidationError

from ddg_ops.aws import Aws, is_missing
from ddg_ops.reasons import Groups
from ddg_ops.screen import FINE, UNABLE, Command, Screen, age, ago, count
from ddg_ops.stack import Stack, foresee, make_batch, queue_name, reading_settings
from ddg_ops.walk import Message, Walk, on_queue
from ddg_outcomes import NOT_OURS, Ignored, Outcome, Refused, Retry
from ddg_s3_objects import REPLAYED, File

MAX_SEND_BYTES = 262_144  # SQS, the bodies of one call together
# So the submitter leaves the wait here out of DelayMilliseconds
MARK = {REPLAYED: {"DataType": "String", "StringValue": "1"}}
MARK_BYTES = len(f"{REPLAYED}String1")
SHOWN_CHARACTERS = 2_000  # of a file
GOOD = "would be submitted"

yes_option = click.option("--yes", is_flag=True, help="Do it.")


@click.command("list", cls=Command, examples=["", "--job nightly", "--since 6h"])
@on_queue()
def list_messages(screen: Screen, stack: Stack, walk: Walk) -> int:
    """Say what is in the queue, counted by job and reason."""
    groups = Groups()
    with walk:
        for messages in walk.wanted():
            for each in messages:
                groups.add(each.job, each.reason, each.where, each.sent)
    groups.say(screen, walk.now)
    walk.describe(screen)
    if walk.taken:
        left = min(group.oldest for group in groups) + walk.retention - walk.now
        screen.say(f"SQS deletes the oldest of them in {age(left)}.")
    screen.result(walk.document() | {"groups": [group.document("job") for group in groups]})
    return FINE if walk.complete else UNABLE


@click.command("show", cls=Command, examples=["--job nightly", "--key 1764000000 --limit 1"])
@on_queue(limit=5)
def show_messages(screen: Screen, stack: Stack, walk: Walk) -> int:
    """Print messages with their reasons, and the files' own beginnings."""
    with walk:
        found = [message for messages in walk.wanted() for message in messages]
    shown: list[dict[str, Any]] = []
    for message in found:
        texts = [read_beginning(stack.aws, file) for file in message.objects]
        screen.say(message.where, "bold")
        screen.say(f"    message {message.message_id}, {ago(message.sent, walk.now)}", "dim")
        screen.say(f"    {message.reason}", "red")
        for text in texts or [message.body[:SHOWN_CHARACTERS]]:
            for line in text.expandtabs(4).splitlines():
                screen.say(f"    | {line}")
        files = [
            {"bucket": file.bucket, "key": file.key, "beginning": text}
            for file, text in zip(message.objects, texts, strict=True)
        ]
        shown.append(message.record() | {"job": message.job, "files": files})
    walk.describe(screen)
    screen.result(walk.document() | {"messages": shown})
    return FINE if walk.complete else UNABLE


def open_object(aws: Aws, file: File) -> Any:
    """Return an object's body, and note by which key; None where there is no such object."""
    named = {"Bucket": file.bucket} | ({"VersionId": file.version} if file.version else {})
    for key in filter(None, (file.key, file.decoded_key)):
        try:
            body = aws.client("s3").get_object(Key=key, **named)["Body"]
        except (ParamValidationError, ClientError) as error:  # no object can have that name, or has
            if isinstance(error, ClientError) and not is_missing(error):
                raise
        else:
            file.key = key
            return body
    return None


def read_beginning(aws: Aws, file: File) -> str:
    """Return a file's first characters, decompressed where it is gzip, both within a bound."""
    body = open_object(aws, file)
    if body is None:
        return "(the file is gone)"
    with body:
        content: bytes = body.read(4 * SHOWN_CHARACTERS)
    if content.startswith(b"\x1f\x8b"):
        try:
            content = zlib.decompressobj(31).decompress(content, 4 * SHOWN_CHARACTERS)
        except zlib.error as error:
            return f"(broken gzip data: {error})"
    text = content.decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


@click.command("replay", cls=Command, examples=["--job nightly", "--only-good --yes"])
@click.option("--only-good", is_flag=True, help="Those alone that would be submitted now.")
@yes_option
@on_queue()
def replay_messages(screen: Screen, stack: Stack, walk: Walk, *, yes: bool, only_good: bool) -> int:
    """Send messages to the main queue again, then delete them here.

    Without --yes it says what would become of them.
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
    walk.describe(screen)
    kept, way = walk.taken - sent, f"from {walk.name} to {queue_name(stack.main_url)}"
    if yes:
        screen.say(f"{sent:,} sent {way}, {deleted:,} deleted there, {kept:,} kept.")
        screen.say("What becomes of them: ddg-ops tail")
    elif walk.taken:
        screen.say(f"Nothing was sent. With --yes {count(walk.taken, 'message')} would go {way}.")
        screen.say("--only-good leaves out what would be refused again.")
    result = {"dry_run": not yes, "sent": sent, "deleted": deleted, "kept": kept}
    forecast = [group.document("outcome") for group in groups]
    screen.result(walk.document() | result | {"forecast": forecast})
    done = not yes or (deleted == sent and (only_good or not kept))
    return FINE if done and walk.complete else UNABLE


def settle(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """Say what becomes of a message by its files: none is refused while one is retried."""
    for kind, verdict in ((Retry, "can't be read now"), (Refused, "would be refused again")):
        for outcome in outcomes:
            if isinstance(outcome, kind):
                return verdict, outcome.reason
    if outcomes and all(isinstance(outcome, Ignored) for outcome in outcomes):
        return "would be ignored", NOT_OURS
    return GOOD, ""


def send(stack: Stack, messages: Sequence[Message]) -> list[Message]:
    """Send up to ten messages' bodies to the main queue; return those that SQS has."""
    sqs = stack.aws.client("sqs")
    size = sum(len(message.body.encode()) + MARK_BYTES for message in messages)
    accepted: list[Message] = []
    for part in [messages] if 0 < size <= MAX_SEND_BYTES else [[message] for message in messages]:
        entries: list[dict[str, Any]] = []
        for number, message in enumerate(part):
            entries.append({"Id": str(number), "MessageBody": message.body})
            if len(message.body.encode()) + MARK_BYTES <= MAX_SEND_BYTES:
                entries[-1]["MessageAttributes"] = MARK
        answer = sqs.send_message_batch(QueueUrl=stack.main_url, Entries=entries)
        accepted += [part[int(entry["Id"])] for entry in answer.get("Successful", [])]
    return accepted


@click.command("save", cls=Command, examples=["FOLDER", "FOLDER --delete --yes"])
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--delete", is_flag=True, help="Then delete what is safely written.")
@yes_option
@on_queue()
def save_messages(
    screen: Screen, stack: Stack, walk: Walk, *, folder: Path, delete: bool, yes: bool
) -> int:
    """Write messages and their files to a folder, which is made where it isn't there.

    With --delete --yes they are deleted from the queue then.
    """
    if delete and yes:
        stack.prove()
    folder.mkdir(parents=True, exist_ok=True)
    deleted = 0
    with walk:
        for messages in walk.wanted():
            for message in messages:
                save(stack.aws, message, folder)
            deleted += walk.delete(messages) if delete and yes else 0
    walk.describe(screen)
    screen.say(f"{walk.taken:,} saved in {folder}: the message as <id>.json, its files beside it.")
    if delete:
        screen.say(f"{deleted:,} deleted from {walk.name}{'' if yes else '; that takes --yes'}.")
    result = {"folder": str(folder), "saved": walk.taken, "deleted": deleted}
    screen.result(walk.document() | result)
    return FINE if walk.complete and deleted in (0, walk.taken) else UNABLE


def save(aws: Aws, message: Message, folder: Path) -> None:
    """Write a message and its files, all of it on the disk when this returns."""
    name = re.sub("[^A-Za-z0-9-]", "_", message.message_id)
    files = []
    for number, file in enumerate(message.objects, 1):
        # Of a key only harmless characters get into a name: ../ is no way out of the folder.
        beside = f"{name}-{number}-{re.sub('[^A-Za-z0-9._-]', '_', file.key)[-80:]}"
        body = open_object(aws, file)
        files.append({"bucket": file.bucket, "key": file.key, "file": beside if body else None})
        if body:
            with body, safely(folder / beside, "wb") as saved:
                shutil.copyfileobj(body, saved)
    with safely(folder / f"{name}.json", "w") as note:
        json.dump(message.record() | {"files": files}, note, indent=1)


@click.command("discard", cls=Command, examples=["--job nightly", "--job nightly --yes"])
@click.option(
    "--note", type=click.Path(path_type=Path), default="discarded.jsonl", help="Kept here."
)
@yes_option
@on_queue()
def discard_messages(screen: Screen, stack: Stack, walk: Walk, *, yes: bool, note: Path) -> int:
    """Delete messages, a line of each in a file first (--note, discarded.jsonl).

    Without --yes it says which.
    """
    if yes:
        stack.prove()
    groups, deleted = Groups(), 0
    with walk:
        for messages in walk.wanted():
            for each in messages:
                groups.add(each.job, each.reason, each.where, each.sent)
            if yes:
                with safely(note, "a") as opened:
                    opened.writelines(json.dumps(each.record()) + "\n" for each in messages)
                deleted += walk.delete(messages)
    groups.say(screen, walk.now)
    walk.describe(screen)
    if yes:
        screen.say(f"{deleted:,} deleted from {walk.name}; {note} holds their bodies.")
    elif walk.taken:
        screen.say(f"Nothing was deleted. With --yes {count(walk.taken, 'message')} would be.")
    screen.result(walk.document() | {"dry_run": not yes, "deleted": deleted})
    return FINE if walk.complete and (not yes or deleted == walk.taken) else UNABLE


@contextmanager
def safely(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Open a file to write; at the end it outlives a power cut, its name too."""
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
