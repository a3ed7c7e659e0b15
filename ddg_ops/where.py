"""where: what became of a file.

It never receives from the stats queue, because that would hide files from the submitter.
"""

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

LOOK_BACK_SECONDS = 86_400  # in the log, if there is no object
CLOCK_SECONDS = 2.0  # S3's times are in whole seconds
EXAMPLES = ["stats/nightly/1764000000.json", "s3://acme-data/etl/stats/a.json --since 2d"]
CODES = {"submitted": FINE, "marker": FINE, "not yet": UNABLE, "unknown": UNABLE}  # else WRONG
STYLES = {FINE: "green", UNABLE: "yellow", WRONG: "red"}


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--bucket", default="", help="Default: the stack's own, or its only one.")
@click.option(
    "--since",
    type=moment,
    metavar="TIME",
    help="Search the log since then; default: the upload.",
)
@stack_options
@click.pass_obj
def where(
    screen: Screen, stack: Stack, *, keys: Sequence[str], bucket: str, since: Moment | None
) -> int:
    """Tell whether files are submitted, refused, retried, dead, ignored or still waiting.

    A KEY may be s3://bucket/key. The exit code is 0 if all are submitted.
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
        # An older message is about an older version.
        refused, given_up = (
            message if message and message.sent > came - CLOCK_SECONDS else None
            for message in (rejected.get(address(file)), dead.get(address(file)))
        )
        if given_up and not (word and word.state == "submitted"):
            word = Word("dead", given_up.sent, given_up.reason)
        elif refused and not word:
            word = Word("refused", refused.sent, refused.reason)
        elif word and word.state == "refused" and not refused:
            reason = f"{word.reason} (Its message is no longer in the rejected queue.)"
            word = word._replace(reason=reason)
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
    """Return the named file. Raises Stop if the stack doesn't use its bucket."""
    if key.startswith("s3://"):
        bucket, _, key = key.removeprefix("s3://").partition("/")
    return File(stack.choose_bucket(settings, bucket), key)


def find_messages(stack: Stack, url: str, screen: Screen) -> tuple[dict[str, Message], float]:
    """Return a queue's messages by file, and AWS's time."""
    found: dict[str, Message] = {}
    with Walk(stack, url, EVERYTHING, screen) as walk:
        for messages in walk.wanted():
            found |= {address(file): each for each in messages for file in each.objects}
    if walk.problem:
        screen.note(f"Incomplete: {walk.problem}.")
    return found, walk.now


def list_versions(stack: Stack, file: File) -> list[dict[str, Any]]:
    """Return an object's versions, newest first; [] if there is no such object now."""
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
    """Return what became of a file: a word, and an explanation."""
    if word:
        return word.state, f"at {utc(word.at)}{f': {word.reason}' if word.reason else ''}"
    prefix = stack.prefix_of(file.bucket, settings)
    if not file.is_below(prefix):
        return "ignored", f"it isn't below the prefix {prefix}"
    if is_marker(file):
        return "marker", "a marker, which the submitter skips"
    if not is_there:
        return (
            "unknown",
            "no such object, and the log doesn't name it. --since searches further back",
        )
    if not settings.log_files:
        return "unknown", "neither refused nor retried; with log_files = false the log has no more"
    name, waiting = stack.waiting(stack.main_url)
    text = f"not submitted yet: about {count(waiting, 'message')} in {name}"
    return "not yet", f"{text}. If it stays there: ddg-ops check"


def describe(versions: Sequence[Any], now: float) -> str:
    """Describe an object's versions."""
    if not versions:
        return "the object doesn't exist now"
    newest = f"{versions[0]['bytes']:,} B, {ago(versions[0]['came'], now)}"
    return f"{count(len(versions), 'version')} there, the newest: {newest}"
