"""where: what became of a file. It never receives from the stats queue: that would hide files."""

from collections.abc import Sequence
from typing import Any

import click

from ddg_ops.log import Word, words_about
from ddg_ops.screen import FINE, UNABLE, WRONG, Command, Moment, Screen, ago, count, moment, utc
from ddg_ops.stack import Stack, reading_settings, stack_options
from ddg_ops.walk import EVERYTHING, Message, Walk
from ddg_outcomes import address
from ddg_s3_objects import File, is_marker
from ddg_settings import Settings

LOOK_BACK_SECONDS = 86_400  # into the log, where no object says since when
CLOCK_SECONDS = 2.0  # S3's times are in whole seconds
EXAMPLES = ["stats/nightly/1764000000.json", "s3://acme-data/etl/stats/a.json --since 2d"]
CODES = {"submitted": FINE, "marker": FINE, "not yet": UNABLE, "unknown": UNABLE}  # else WRONG
STYLES = {FINE: "green", UNABLE: "yellow", WRONG: "red"}
NOT_BELOW = "it isn't below {}, where files are taken from"
NOT_KEPT = "(Its message isn't in the rejected queue any more.)"
NOT_THERE = "no such object, and the log doesn't name it; --since looks further back"
NOT_LOGGED = "neither refused nor retried; with log_files = false the log says no more"
NOT_YET = "nobody has taken it: about {} in {}. If it stays so: ddg-ops check"


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--bucket", default="", help="Default: the stack's own, or its only one.")
@click.option(
    "--since", type=moment, metavar="TIME", help="In the log; default: Last-Modified, or 1d."
)
@stack_options
@click.pass_obj
def where(
    screen: Screen, stack: Stack, *, keys: Sequence[str], bucket: str, since: Moment | None
) -> int:
    """Say what became of files: submitted, refused, retried, dead, ignored, or not yet taken.

    A KEY may be s3://bucket/key. The exit code is 0 when all are submitted.
    """
    settings = reading_settings(stack.environment())
    files = [name_file(stack, settings, key, bucket) for key in keys]
    rejected, now = find_messages(stack, stack.rejected_url, screen)
    dead, _ = find_messages(stack, stack.dead_letter_url, screen)
    codes, documents = {FINE}, []
    for file in files:
        versions = list_versions(stack, file)
        came = versions[0]["came"] if versions else now - LOOK_BACK_SECONDS
        words = list(words_about(stack, address(file), since.seconds if since else came))
        word = words[-1] if words else None
        # A message of before the newest version isn't of that.
        refused, given_up = (
            message if message and message.sent > came - CLOCK_SECONDS else None
            for message in (rejected.get(address(file)), dead.get(address(file)))
        )
        if given_up and not (word and word.state == "submitted"):
            word = Word("dead", given_up.sent, given_up.reason)
        elif refused and not word:
            word = Word("refused", refused.sent, refused.reason)
        elif word and word.state == "refused" and not refused:
            word = word._replace(reason=f"{word.reason} {NOT_KEPT}")
        state, text = tell(stack, settings, file, bool(versions), word)
        codes.add(CODES.get(state, WRONG))
        screen.say(f"{state:<11}{address(file)}", STYLES[CODES.get(state, WRONG)])
        for line in (text, describe(versions, now)):
            screen.say(f"{'':11}{line}")
        document = {"bucket": file.bucket, "key": file.key, "state": state, "text": text}
        documents.append(document | {"versions": versions})
    screen.result({"files": documents})
    return WRONG if WRONG in codes else max(codes)


def name_file(stack: Stack, settings: Settings, key: str, bucket: str) -> File:
    """Return the file that is meant; Stop where its bucket isn't the stack's."""
    if key.startswith("s3://"):
        bucket, _, key = key.removeprefix("s3://").partition("/")
    return File(stack.choose_bucket(settings, bucket), key)


def find_messages(stack: Stack, url: str, screen: Screen) -> tuple[dict[str, Message], float]:
    """Return a queue's messages by the files that they name, and the time at AWS."""
    found: dict[str, Message] = {}
    with Walk(stack, url, EVERYTHING, screen) as walk:
        for messages in walk.wanted():
            found |= {address(file): each for each in messages for file in each.objects}
    if walk.problem:
        screen.note(f"Incomplete: {walk.problem}.")
    return found, walk.now


def list_versions(stack: Stack, file: File) -> list[dict[str, Any]]:
    """Return an object's versions, the newest first; none where there is no such object now."""
    answer = stack.aws.client("s3").list_object_versions(Bucket=file.bucket, Prefix=file.key)
    its_own = [each for each in answer.get("Versions", []) if each["Key"] == file.key]
    return [
        {
            "version": each["VersionId"],
            "came": each["LastModified"].timestamp(),
            "bytes": each["Size"],
        }
        for each in (its_own if any(each["IsLatest"] for each in its_own) else ())
    ]


def tell(
    stack: Stack, settings: Settings, file: File, is_there: bool, word: Word | None
) -> tuple[str, str]:
    """Return what became of a file, in a word and in a line."""
    if word:
        return word.state, f"at {utc(word.at)}{f': {word.reason}' if word.reason else ''}"
    prefix = stack.prefix_of(file.bucket, settings)
    if not file.is_below(prefix):
        return "ignored", NOT_BELOW.format(prefix)
    if is_marker(file):
        return "marker", "its name is a marker's: nothing is to be done"
    if not is_there:
        return "unknown", NOT_THERE
    if not settings.log_files:
        return "unknown", NOT_LOGGED
    name, waiting = stack.waiting(stack.main_url)
    return "not yet", NOT_YET.format(count(waiting, "message"), name)


def describe(versions: Sequence[Any], now: float) -> str:
    """Return which versions of an object there are."""
    if not versions:
        return "the object isn't there now"
    newest = f"{versions[0]['bytes']:,} B, {ago(versions[0]['came'], now)}"
    return f"{count(len(versions), 'version')} there, the newest: {newest}"
