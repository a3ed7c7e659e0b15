"""The rejected and the dead-letter queue: see what is in them, save it, send it again, drop it.

No message leaves a queue before it is safe elsewhere: it is sent (or written, with fsync) first and
deleted then. Interrupted between the two it is in both places, and a file that is submitted twice
is harmless. What a command has received and not deleted it gives back at its end; had it no time
for that, SQS does after VISIBILITY_SECONDS.

SQS's own redrive wouldn't do: it takes only dead-letter queues of other queues, and the submitter
sends to the rejected one itself (StartMessageMoveTask reference). Nor can it choose or foresee.
"""

import json
import re
import shutil
import zlib
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

import ddg_metric_submit
import ddg_s3_objects
import ddg_stats_file
from ddg_metric_submit import Refused, Retry
from ddg_ops_stack import (
    FINE,
    UNABLE,
    Screen,
    Stack,
    age,
    client,
    flush,
    function_environment,
    local_batch,
    queue_name,
    submitter_settings,
    sync,
    time_at_aws,
    utc,
)
from ddg_settings import Settings

VISIBILITY_SECONDS = 300  # ours: 10,000 messages are looked through in a tenth of it
WAIT_SECONDS = 1  # long polling: SQS then asks all its servers, and says empty only when it is
TEN = 10  # messages; SQS gives, takes and deletes no more in one call
MAX_SEND_BYTES = 262_144  # SQS, the bodies of one call together
SHOWN_GROUPS = 30  # ours
SHOWN_OBJECTS = 3  # ours: of a message that names more
SHOWN_CHARACTERS = 2_000  # ours: of a file


class Message(NamedTuple):
    """A message of the rejected or the dead-letter queue."""

    message_id: str
    receipt_handle: str
    body: str  # S3's notification, as it came
    sent: float  # epoch seconds; in the dead-letter queue: when S3 sent it
    receive_count: int
    reason: str  # "" where none is kept with it
    objects: tuple[tuple[str, str], ...]  # (bucket, key)
    job: str  # job:<job>; "" where there is none

    @property
    def where(self) -> str:
        """The objects' addresses; the message's id where it names none."""
        names = [f"s3://{bucket}/{key}" for bucket, key in self.objects[:SHOWN_OBJECTS]]
        more = ", ..." if len(self.objects) > SHOWN_OBJECTS else ""
        return ", ".join(names) + more or f"message {self.message_id}"


class Selection(NamedTuple):
    """Which messages a command is about."""

    job: str  # job:<job>, as it is in Datadog; "" is any
    reason: str  # a part of it
    key: str  # a part of one
    before: float  # epoch seconds: what was sent later comes back from our own replay
    limit: int

    def takes(self, message: Message) -> bool:
        return (
            self.job in ("", message.job)
            and self.reason.lower() in message.reason.lower()
            and (not self.key or any(self.key in key for _, key in message.objects))
            and message.sent < self.before
        )


class Visit:
    """A walk through a queue that sees each message once; give-back at its end, come what may."""

    def __init__(self, stack: Stack, url: str, options: Namespace, screen: Screen) -> None:
        self.queue = look_at(url)
        self._wanted = selection(options, self.queue)
        self._prefix = stack.prefix
        self._progress = screen.progress("messages", self.queue.visible)
        self._call = {"QueueUrl": url}
        self._sqs = client("sqs")
        self._seen: set[str] = set()  # message ids
        self._held: dict[str, str] = {}  # message id -> the receipt handle to give it back with

    def __enter__(self) -> Self:
        self._advance = self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Make visible what hasn't been deleted."""
        self._progress.__exit__(None, None, None)
        try:
            self._give_back()
        except (BotoCoreError, ClientError):
            if kind is None:  # else the first error is the one to tell
                raise

    def _give_back(self) -> None:
        handles = list(self._held.values())
        for start in range(0, len(handles), TEN):
            entries = [
                {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for index, handle in enumerate(handles[start : start + TEN])
            ]
            # One that fails was too long in hand, and is visible already.
            self._sqs.change_message_visibility_batch(**self._call, Entries=entries)

    def wanted(self) -> Iterator[list[Message]]:
        """Yield the messages that were asked for, up to ten at a time."""
        left = self._wanted.limit
        for messages in self._tens():
            chosen = [message for message in messages if self._wanted.takes(message)][:left]
            left -= len(chosen)
            if chosen:
                yield chosen
            self._advance(len(messages))
            if not left:
                return

    def _tens(self) -> Iterator[list[Message]]:
        """Yield the messages, up to ten at a time, until SQS has no more to give."""
        while True:
            response = self._sqs.receive_message(
                **self._call,
                MaxNumberOfMessages=TEN,
                VisibilityTimeout=VISIBILITY_SECONDS,
                WaitTimeSeconds=WAIT_SECONDS,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
                MessageAttributeNames=["All"],
            )
            received = response.get("Messages", [])
            if not received:
                return
            self._held |= {each["MessageId"]: each["ReceiptHandle"] for each in received}
            new = [each for each in received if each["MessageId"] not in self._seen]
            self._seen |= {each["MessageId"] for each in new}
            yield [read_message(each, self._prefix) for each in new]

    def delete(self, messages: Sequence[Message]) -> int:
        """Delete up to ten messages; return how many SQS has deleted."""
        entries = [
            {"Id": str(index), "ReceiptHandle": message.receipt_handle}
            for index, message in enumerate(messages)
        ]
        if not entries:
            return 0
        response = self._sqs.delete_message_batch(**self._call, Entries=entries)
        deleted = [messages[int(entry["Id"])] for entry in response.get("Successful", [])]
        for message in deleted:
            self._held.pop(message.message_id, None)
        return len(deleted)


def read_message(received: Mapping[str, Any], prefix: str) -> Message:
    """Return a received message, what it names read with the submitter's own eyes."""
    attributes = {
        name: value.get("StringValue", "")
        for name, value in received.get("MessageAttributes", {}).items()
    }
    files = ddg_s3_objects.find_files(received["Body"])
    objects = tuple((each.bucket, each.key) for each in files if each.bucket)
    system = received.get("Attributes", {})
    return Message(
        received["MessageId"],
        received["ReceiptHandle"],
        received["Body"],
        int(system.get("SentTimestamp", 0)) / 1000,
        int(system.get("ApproximateReceiveCount", 1)),
        attributes.get("reason", ""),
        objects,
        ddg_stats_file.job_tag(objects[0][1], prefix) if objects else "",
    )


class Queue(NamedTuple):
    """One of the two queues, as it was when the command began."""

    url: str
    visible: int  # messages, approximately
    in_flight: int  # likewise: received by someone, and neither deleted nor visible again
    retention: int  # seconds
    now: float  # epoch seconds, by AWS's clock

    def describe(self) -> str:
        """Say how far the counts can be trusted."""
        flying = f" {self.in_flight:,} more are in someone's hands." if self.in_flight else ""
        return (
            f"Counts of SQS are approximate: it says {self.visible:,}.{flying} Each message was "
            f"received with a visibility timeout of {VISIBILITY_SECONDS} s and then given back."
        )


def look_at(url: str) -> Queue:
    """Return a queue's state."""
    response = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    attributes = response["Attributes"]
    return Queue(
        url,
        int(attributes["ApproximateNumberOfMessages"]),
        int(attributes["ApproximateNumberOfMessagesNotVisible"]),
        int(attributes.get("MessageRetentionPeriod", 1_209_600)),
        time_at_aws(response),
    )


def selection(options: Namespace, queue: Queue) -> Selection:
    """Return which messages the command line asks for."""
    job = ddg_stats_file.normalise_tag(f"job:{options.job}") if options.job else ""
    # AWS's clock comes in whole seconds: the second in which the command began is still in.
    return Selection(job, options.reason, options.key, queue.now + 1, options.limit)


# --- list, show ---


def group_of(reason: str) -> str:
    """Return a reason without numbers and values: the same trouble in many files is one."""
    reason = re.sub(r'(the string )"(?:[^"\\]|\\.)*"', r'\1"..."', reason)
    return re.sub(r"\d+(?:[.,]\d+)*", "N", reason)


class Group:
    """Messages of the same job with the same reason."""

    def __init__(self, example: Message) -> None:
        self.example = example._replace(body="")
        self.count = 0
        self.oldest = self.newest = example.sent

    def add(self, message: Message) -> None:
        """Count one more."""
        self.count += 1
        self.oldest, self.newest = min(self.oldest, message.sent), max(self.newest, message.sent)


def list_messages(stack: Stack, url: str, options: Namespace, screen: Screen) -> int:
    """Say what is in a queue, grouped by job and reason."""
    groups: dict[tuple[str, str], Group] = {}
    with Visit(stack, url, options, screen) as visit:
        for messages in visit.wanted():
            for message in messages:
                kind = (message.job, group_of(message.reason))
                groups.setdefault(kind, Group(message)).add(message)
    queue = visit.queue
    ordered = sorted(groups.values(), key=lambda group: -group.count)
    total = sum(group.count for group in ordered)
    for group in ordered[:SHOWN_GROUPS]:
        example = group.example
        screen.say(f"{group.count:>6,}  {example.job or 'no job'}", "bold")
        screen.say(f"        {example.reason or no_reason(example)}")
        since = f"{age(queue.now - group.oldest)} to {age(queue.now - group.newest)} ago"
        screen.say(f"        {since}; such as {example.where}", "dim")
    if len(ordered) > SHOWN_GROUPS:
        screen.say(f"and {len(ordered) - SHOWN_GROUPS:,} more groups; --json has all, --job fewer")
    if ordered:
        oldest = min(group.oldest for group in ordered)
        screen.say(
            f"{total:,} messages in {queue_name(url)}; "
            f"SQS deletes the oldest in {age(oldest + queue.retention - queue.now)}."
        )
    else:
        screen.say(f"Nothing to see in {queue_name(url)}.", "green")
    screen.say(queue.describe(), "dim")
    screen.result(
        {
            "queue": url,
            "messages": total,
            "approximate": True,
            "visible_by_sqs": queue.visible,
            "in_flight_by_sqs": queue.in_flight,
            "visibility_timeout_seconds": VISIBILITY_SECONDS,
            "groups": [
                {
                    "count": group.count,
                    "job": group.example.job,
                    "reason": group.example.reason,
                    "oldest": utc(group.oldest),
                    "newest": utc(group.newest),
                    "example": group.example.where,
                }
                for group in ordered
            ],
        }
    )
    return FINE


def no_reason(message: Message) -> str:
    """Say where to look for the reason of a message that has none on it."""
    return f"received {message.receive_count} times; the log has the reasons: ddg_ops.py tail"


def show_messages(stack: Stack, url: str, options: Namespace, screen: Screen) -> int:
    """Print messages with their reasons and the files that they name."""
    with Visit(stack, url, options, screen) as visit:
        tens = list(visit.wanted())
    shown: list[dict[str, Any]] = []
    for message in [message for messages in tens for message in messages]:
        files = [
            {"bucket": bucket, "key": key, "beginning": read_beginning(bucket, key)}
            for bucket, key in message.objects
        ]
        screen.say(message.where, "bold")
        screen.say(f"    message {message.message_id}, sent {utc(message.sent)}", "dim")
        screen.say(f"    {message.reason or no_reason(message)}", "red")
        for text in [file["beginning"] for file in files] or [message.body[:SHOWN_CHARACTERS]]:
            for line in text.expandtabs(4).splitlines():
                screen.say(f"    | {line}")
        shown.append(record(message) | {"job": message.job, "files": files})
    if shown:
        screen.say(
            f"{len(shown):,} shown, --limit {options.limit}. {visit.queue.describe()}", "dim"
        )
    else:
        screen.say(f"No such message in {queue_name(url)}.")
    screen.result({"queue": url, "messages": shown})
    return FINE


def open_object(bucket: str, key: str) -> Any:
    """Return an object's body; None where there is no such object (any more)."""
    try:
        return client("s3").get_object(Bucket=bucket, Key=key)["Body"]
    except ParamValidationError:
        return None  # no object can have that name
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchBucket"):
            return None
        raise


def read_beginning(bucket: str, key: str) -> str:
    """Return the first characters of a file, decompressed where it is gzip.

    The bound holds for what is read and for what comes out of it.
    """
    body = open_object(bucket, key)
    if body is None:
        return "(the file is gone)"
    with body:
        content: bytes = body.read(4 * SHOWN_CHARACTERS)
    if content.startswith(b"\x1f\x8b"):
        try:
            inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            content = inflater.decompress(content, 4 * SHOWN_CHARACTERS)
        except zlib.error as error:
            return f"(broken gzip data: {error})"
    text = content.decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


# --- replay ---


def replay_messages(stack: Stack, url: str, options: Namespace, screen: Screen) -> int:
    """Send messages to the main queue again, then delete them here; without --yes a forecast."""
    settings = None
    if options.only_good or not options.yes:
        settings = submitter_settings(function_environment(stack.function))
    forecast: Counter[str] = Counter()
    sent = deleted = kept = 0
    with Visit(stack, url, options, screen) as visit:
        for messages in visit.wanted():
            good = messages
            if settings:
                outcomes = [foresee(message, settings) for message in messages]
                forecast.update(map(group_of, outcomes))
                if options.only_good:
                    good = [each for each, o in zip(messages, outcomes, strict=True) if o == GOOD]
                    kept += len(messages) - len(good)
            if options.yes:
                accepted = send(stack.main_url, good)
                sent += len(accepted)
                kept += len(good) - len(accepted)
                deleted += visit.delete(accepted)
    for outcome, count in forecast.most_common(SHOWN_GROUPS):
        screen.say(f"{count:>6,}  {outcome}", "green" if outcome == GOOD else "yellow")
    total = forecast[GOOD] if options.only_good else sum(forecast.values())
    if options.yes:
        screen.say(
            f"{sent:,} sent to {queue_name(stack.main_url)} and {deleted:,} deleted from "
            f"{queue_name(url)}; {kept:,} kept. Watch them: ddg_ops.py tail"
        )
    else:
        screen.say(
            f"Nothing was sent. With --yes {total:,} go from {queue_name(url)} to "
            f"{queue_name(stack.main_url)}; --only-good leaves out what would be refused again."
            if forecast
            else f"No such message in {queue_name(url)}."
        )
    screen.result(
        {
            "queue": url,
            "dry_run": not options.yes,
            "found": sum(forecast.values()) if settings else sent + kept,
            "sent": sent,
            "deleted": deleted,
            "kept": kept,
            "forecast": dict(forecast),
        }
    )
    return FINE if deleted == sent and (options.only_good or not kept) else UNABLE


GOOD = "would be submitted"


def foresee(message: Message, settings: Settings) -> str:
    """Say what the submitter would make of a message's files now."""
    files = ddg_s3_objects.find_files(message.body)
    outcomes = [o for _, o in ddg_metric_submit.read_files(files, local_batch(settings))]
    for outcome in outcomes:
        match outcome:
            case Refused(reason):
                return f"would be refused again: {reason}"
            case Retry(reason):
                return f"can't be read now: {reason}"
    return GOOD


def send(url: str, messages: Sequence[Message]) -> list[Message]:
    """Send up to ten messages' bodies to a queue; return those that SQS has."""
    accepted: list[Message] = []
    for part in parts(messages):
        entries = [
            {"Id": str(index), "MessageBody": message.body} for index, message in enumerate(part)
        ]
        response = client("sqs").send_message_batch(QueueUrl=url, Entries=entries)
        accepted += [part[int(entry["Id"])] for entry in response.get("Successful", [])]
    return accepted


def parts(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Cut messages into parts that SQS takes in one call."""
    part: list[Message] = []
    size = 0
    for message in messages:
        body_bytes = len(message.body.encode())
        if part and size + body_bytes > MAX_SEND_BYTES:
            yield part
            part, size = [], 0
        part.append(message)
        size += body_bytes
    if part:
        yield part


# --- save, discard ---


def save_messages(stack: Stack, url: str, options: Namespace, screen: Screen) -> int:
    """Write messages and the files that they name to a folder; with --delete --yes delete them."""
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    saved = deleted = 0
    with Visit(stack, url, options, screen) as visit:
        for messages in visit.wanted():
            for message in messages:
                save(message, folder)
                saved += 1
            sync(folder)
            if options.delete and options.yes:
                deleted += visit.delete(messages)
    screen.say(f"{saved:,} saved in {folder}: the message as <id>.json, its files beside it.")
    if options.delete and not options.yes:
        screen.say(f"Nothing was deleted. With --yes they are deleted from {queue_name(url)}.")
    elif options.delete:
        screen.say(f"{deleted:,} deleted from {queue_name(url)}.")
    screen.result({"queue": url, "folder": str(folder), "saved": saved, "deleted": deleted})
    return FINE if deleted in (0, saved) else UNABLE


def save(message: Message, folder: Path) -> None:
    """Write a message and its files, all of it on the disk when this returns."""
    name = re.sub("[^A-Za-z0-9-]", "_", message.message_id)
    files = []
    for number, (bucket, key) in enumerate(message.objects, 1):
        # Of a key only harmless characters get into a name: ../ is no way out of the folder.
        file = f"{name}-{number}-{re.sub('[^A-Za-z0-9._-]', '_', key)[-80:]}"
        body = open_object(bucket, key)
        if body is None:
            files.append({"bucket": bucket, "key": key, "file": None})  # gone
            continue
        with body, (folder / file).open("wb") as saved:
            shutil.copyfileobj(body, saved)
            flush(saved)
        files.append({"bucket": bucket, "key": key, "file": file})
    with (folder / f"{name}.json").open("w", encoding="utf-8") as note:
        json.dump(record(message) | {"files": files}, note, indent=1)
        flush(note)


def record(message: Message) -> dict[str, Any]:
    """Return all that is to be kept of a message."""
    return {
        "message_id": message.message_id,
        "sent": utc(message.sent),
        "reason": message.reason,
        "body": message.body,
    }


def discard_messages(stack: Stack, url: str, options: Namespace, screen: Screen) -> int:
    """Delete messages, a line of each in a file first; without --yes say which."""
    found = deleted = 0
    examples: dict[str, int] = {}
    with Visit(stack, url, options, screen) as visit:
        for messages in visit.wanted():
            found += len(messages)
            for message in messages:
                kind = f"{message.job or 'no job'}: {group_of(message.reason)}"
                examples[kind] = examples.get(kind, 0) + 1
            if options.yes:
                with Path(options.note).open("a", encoding="utf-8") as note:
                    note.writelines(json.dumps(record(each)) + "\n" for each in messages)
                    flush(note)
                sync(Path(options.note).parent)
                deleted += visit.delete(messages)
    for kind, count in Counter(examples).most_common(SHOWN_GROUPS):
        screen.say(f"{count:>6,}  {kind}")
    if options.yes:
        screen.say(
            f"{deleted:,} deleted from {queue_name(url)}; {options.note} holds their bodies."
        )
    else:
        screen.say(f"Nothing was deleted. With --yes {found:,} are deleted from {queue_name(url)}.")
    screen.result({"queue": url, "dry_run": not options.yes, "found": found, "deleted": deleted})
    return FINE if not options.yes or deleted == found else UNABLE
