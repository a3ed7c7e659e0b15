"""rejected send: upload saved and edited files again, under new keys."""

import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

import click

from ddg_json_file import RetryError, StatsFileError
from ddg_metric_submit import parse
from ddg_ops.queues import GOOD, Groups, yes_option
from ddg_ops.screen import FINE, HISTORICAL, UNABLE, USAGE, WRONG, Command, Screen, Stop, count
from ddg_ops.stack import BATCH_SECONDS, Stack, reading_settings, stack_options, within_window
from ddg_ops.walk import EVERYTHING, Walk
from ddg_s3_objects import File
from ddg_settings import Settings

KEPT_CHARACTERS = 100  # of a key's last part, in the new one
SENT = ".sent"  # suffix of a note whose files are uploaded


class Kept(NamedTuple):
    """A saved message, with its files as they are now."""

    note: Path
    message_id: str
    files: list[tuple[File, Path]]  # with new keys, and their paths
    reason: str  # why it can't be sent; "" if it can


@click.command("send", cls=Command, examples=["FOLDER", "FOLDER --yes"])
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--historical", is_flag=True, help=HISTORICAL)
@yes_option
@stack_options
@click.pass_obj
def send_files(screen: Screen, stack: Stack, *, folder: Path, historical: bool, yes: bool) -> int:
    """Upload files that `rejected save` wrote and you edited, then delete their old messages.

    The files get new keys below the same job. Those that would be refused are left alone. Without
    --yes, only say what would be sent.
    """
    if yes:
        stack.prove()
    settings = reading_settings(stack.environment())
    if not historical:  # otherwise the submitter's own limit applies
        settings = within_window(settings, historical=False)
    kept = list(read_folder(folder, stack, settings))
    if not kept:
        raise Stop(f"{folder} has nothing to send. First: ddg-ops rejected save {folder}", USAGE)
    groups, good = Groups(), {each.message_id: each for each in kept if not each.reason}
    for each in kept:
        groups.add("would be refused" if each.reason else GOOD, each.reason, str(each.note))
    groups.say(screen)
    deleted, complete = 0, True
    if yes and good:
        s3 = stack.aws.client("s3")
        for file, path in (named for each in good.values() for named in each.files):
            s3.put_object(Bucket=file.bucket, Key=file.key, Body=path.read_bytes())
        with Walk(stack, stack.rejected_url, EVERYTHING, screen) as walk:
            for messages in walk.wanted():
                deleted += walk.delete([each for each in messages if each.message_id in good])
        complete = walk.complete
        for each in good.values() if complete else ():
            each.note.rename(f"{each.note}{SENT}")
        screen.say(f"{count(len(good), 'message')} sent, {deleted:,} deleted from {walk.name}.")
    elif good:
        screen.say(f"Nothing was sent. --yes sends {count(len(good), 'message')}.")
    reasons = groups.documents("outcome")
    result = {"dry_run": not yes, "sent": len(good) * yes, "deleted": deleted, "reasons": reasons}
    screen.result(result | {"keys": [file.key for each in good.values() for file, _ in each.files]})
    return WRONG if len(good) < len(kept) else FINE if complete else UNABLE


def read_folder(folder: Path, stack: Stack, settings: Settings) -> Iterator[Kept]:
    """Yield the saved messages of a folder that aren't sent yet."""
    for note in sorted(folder.glob("*.json")):
        try:
            known = json.loads(note.read_text("utf-8"))
            message_id, entries = known["message_id"], known["files"]
        except (ValueError, LookupError, TypeError):
            continue  # it is a stats file
        files: list[tuple[File, Path]] = []
        reason = "" if entries else "the message names no object"
        for number, entry in enumerate(entries, 1):
            bucket = stack.choose_bucket(settings, entry["bucket"])
            above, slash, name = entry["key"].rpartition("/")
            # Always the same key, so sending twice is harmless.
            key = f"{above}{slash}{message_id}-{number}-{name[-KEPT_CHARACTERS:]}"
            file = File(bucket, key, last_modified=formatdate(usegmt=True))
            try:
                path = folder / Path(entry["file"]).name
                parse(file, path.read_bytes(), settings, time.monotonic() + BATCH_SECONDS)
                files.append((file, path))
            except (StatsFileError, RetryError) as error:
                reason = reason or str(error)
            except (OSError, TypeError):  # TypeError: there was none when it was saved
                reason = reason or "the file isn't there"
        yield Kept(note, message_id, files, reason)
