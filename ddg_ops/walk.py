"""A walk through the rejected or the dead-letter queue, in which each message is seen once.

What it has received and not deleted it gives back at its end; had it no time for that, SQS does
after the visibility timeout. No message leaves a queue before it is safe elsewhere.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, NamedTuple, Self

import click
from botocore.exceptions import BotoCoreError, ClientError

import ddg_s3_objects
import ddg_stats_file
from ddg_ops.aws import time_at_aws
from ddg_ops.screen import Moment, Screen, Stop, count, moment, utc
from ddg_ops.stack import Stack, queue_name, reading_settings, stack_options
from ddg_outcomes import address
from ddg_s3_objects import File

TEN = 10  # messages; SQS gives and deletes no more in one call
RECEIVERS = 8  # side by side
WAIT_SECONDS = 1  # long polling: SQS then asks all its servers, and says empty only when it is
EMPTY_POLLS = 3  # in a row: that is the end
STALE_POLLS = 50  # in a row with nothing new, though not empty: the end can't be reached
MAX_HELD = 110_000  # SQS has at most 120,000 messages of a queue in flight
VISIBILITY_SECONDS = 300  # or twice what the whole will take, by the pace so far
MAX_VISIBILITY_SECONDS = 43_200  # SQS
SHOWN_OBJECTS = 3  # of a message that names more
SHOWN_JOBS = 10
ENDLESS = "Messages come again before all are read, or too many are in hand: try later, or --limit"


class Message(NamedTuple):
    """A message of the rejected or the dead-letter queue."""

    message_id: str
    body: str  # S3's notification, as it came
    sent: float  # epoch seconds; in the dead-letter queue: when S3 sent it
    reason: str  # where none is kept with it: where to look for it
    files: tuple[File, ...]
    job: str  # job:<job>, or "no job"

    @property
    def objects(self) -> list[File]:
        """The files that are named."""
        return [file for file in self.files if file.bucket]

    @property
    def where(self) -> str:
        """The objects' addresses; the message's id where it names none."""
        names = [address(file) for file in self.objects]
        more = ", ..." if len(names) > SHOWN_OBJECTS else ""
        return ", ".join(names[:SHOWN_OBJECTS]) + more or f"message {self.message_id}"

    def record(self) -> dict[str, Any]:
        """Return all that is to be kept of it."""
        shown = {"message_id": self.message_id, "sent": utc(self.sent), "reason": self.reason}
        return shown | {"body": self.body}


def read_job(file: File, prefix: str) -> str:
    """Return the job's tag, of the key as it was told where that is below the prefix."""
    encoded = file.decoded_key and not file.key.startswith(prefix)
    key = file.decoded_key if encoded else file.key
    return ddg_s3_objects.job_tag(ddg_s3_objects.job_folder(key, prefix))


def read_message(received: Mapping[str, Any], prefix_of: Callable[[str], str]) -> Message:
    """Return a received message, what it names read with the submitter's own eyes."""
    files = ddg_s3_objects.find_files(received["Body"])
    job = read_job(files[0], prefix_of(files[0].bucket)) if files else ""
    system = received.get("Attributes", {})
    sent = int(system.get("SentTimestamp", 0)) / 1000
    times = count(int(system.get("ApproximateReceiveCount", 1)), "time")
    way = f"ddg-ops tail --since {utc(sent)} --no-follow"
    reason = received.get("MessageAttributes", {}).get("reason", {}).get("StringValue", "")
    return Message(
        message_id=received["MessageId"],
        body=received["Body"],
        sent=sent,
        reason=reason or f"received {times}; the log says why: {way}",
        files=tuple(files),
        job=job or "no job",
    )


class Selection(NamedTuple):
    """Which messages a command is about."""

    job: str  # as the folder is called, or as the tag in Datadog
    reason: str  # a part of it, in any case
    key: str  # a part of one
    since: Moment | None
    limit: int | None

    def takes(self, message: Message) -> bool:
        jobs = [ddg_stats_file.normalise_tag(job) for job in (self.job, f"job:{self.job}")]
        return (
            (not self.job or message.job in jobs)
            and self.reason.lower() in message.reason.lower()
            and (not self.key or any(self.key in file.key for file in message.files))
            and (not self.since or message.sent >= self.since.seconds)
        )

    def __str__(self) -> str:
        """Return the options as they were typed; "" without any."""
        typed = self._asdict() | {"since": self.since and self.since.text}
        given = {name: value for name, value in typed.items() if value not in ("", None)}
        return " ".join(f"--{name} {value}" for name, value in given.items())


EVERYTHING = Selection("", "", "", None, None)


def on_queue(limit: int | None = None) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Declare the options that choose messages; hand the command a screen, a stack and a walk."""

    def declare(command: Callable[..., int]) -> Callable[..., int]:
        @click.option("--job", default="", help="Of this job alone: nightly, or job:nightly.")
        @click.option("--key", default="", help="With this in the key.")
        @click.option("--reason", default="", help="With this in the reason.")
        @click.option("--since", type=moment, metavar="TIME", help="Sent since 6h, 12:00 (UTC).")
        @click.option("--limit", type=click.IntRange(0), default=limit, help="So many at most.")
        @stack_options
        @wraps(command)
        def with_walk(stack: Stack, **options: Any) -> int:
            context = click.get_current_context()
            wanted = Selection(**{name: options.pop(name) for name in Selection._fields})
            rejected = context.parent and context.parent.info_name == "rejected"
            url = stack.rejected_url if rejected else stack.dead_letter_url
            return command(context.obj, stack, Walk(stack, url, wanted, context.obj), **options)

        return with_walk

    return declare


class Walk:
    """The messages of a queue that were there when it began, each once."""

    def __init__(self, stack: Stack, url: str, wanted: Selection, screen: Screen) -> None:
        self._sqs = stack.aws.client("sqs")
        self._url, self._wanted = url, wanted
        try:
            self._prefix_of = reading_settings(stack.environment()).prefix_of
        except (ClientError, Stop):  # a queue can be read without its function
            self._prefix_of = lambda bucket: stack.prefix
        self.name = queue_name(url)
        response = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        attributes = response["Attributes"]
        self._visible = int(attributes["ApproximateNumberOfMessages"])
        self._in_flight = int(attributes["ApproximateNumberOfMessagesNotVisible"])
        self.retention = int(attributes.get("MessageRetentionPeriod", 1_209_600))
        self.now = time_at_aws(response)
        self.taken = self.read = 0
        self.complete = self._limited = False
        self._jobs: Counter[str] = Counter()  # of what was read
        self._progress = screen.progress("messages", self._visible)
        self._threads = ThreadPoolExecutor(RECEIVERS)
        self._held: dict[str, str] = {}  # message id -> the receipt handle to give it back with
        self._seen: set[str] = set()
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._advance = self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Make visible what hasn't been deleted."""
        self._progress.__exit__(None, None, None)
        self._threads.shutdown(cancel_futures=True)  # what they still receive is held then
        entries = [
            {"Id": str(index % TEN), "ReceiptHandle": handle, "VisibilityTimeout": 0}
            for index, handle in enumerate(self._held.values())
        ]
        tens = [entries[start : start + TEN] for start in range(0, len(entries), TEN)]
        give_back = partial(self._sqs.change_message_visibility_batch, QueueUrl=self._url)
        try:
            with ThreadPoolExecutor(RECEIVERS) as threads:
                # One that fails was too long in hand, and is visible already.
                list(threads.map(lambda ten: give_back(Entries=ten), tens))
        except (BotoCoreError, ClientError):
            if kind is None:  # else the first error is the one to tell
                raise

    def wanted(self) -> Iterator[list[Message]]:
        """Yield the messages that were asked for, up to ten at a time."""
        left = math.inf if self._wanted.limit is None else self._wanted.limit
        for messages in self._tens() if left else ():
            self.read += len(messages)
            self._jobs.update(message.job for message in messages)
            chosen = [message for message in messages if self._wanted.takes(message)]
            chosen = chosen[: int(min(left, TEN))]
            left -= len(chosen)
            self.taken += len(chosen)
            if chosen:
                yield chosen
            self._advance(len(messages))
            if not left:
                break
        self._limited = not left
        self.complete |= self._limited

    def _tens(self) -> Iterator[list[Message]]:
        """Yield new messages, up to ten at a time, until SQS has no more to give."""
        empty = stale = 0  # polls in a row
        polls: set[Future[list[Mapping[str, Any]]]] = set()
        receivers = min(RECEIVERS, max(EMPTY_POLLS, self._visible // TEN))
        while True:
            self.complete = empty >= EMPTY_POLLS
            if not self.complete and stale < STALE_POLLS and len(self._held) < MAX_HELD:
                missing = range(receivers - len(polls))
                polls |= {self._threads.submit(self._receive) for _ in missing}
            if not polls:
                return
            done, polls = futures.wait(polls, return_when=futures.FIRST_COMPLETED)
            for received in [poll.result() for poll in done]:
                new = [each for each in received if each["MessageId"] not in self._seen]
                self._seen |= {each["MessageId"] for each in new}
                # What was sent later comes back from our own replay. AWS's clock comes in whole
                # seconds: the one in which the walk began is still in.
                read = [read_message(each, self._prefix_of) for each in new]
                messages = [message for message in read if message.sent < self.now + 1]
                empty = 0 if received else empty + 1
                stale = 0 if messages else stale + bool(received)
                if messages:
                    yield messages

    def _receive(self) -> list[Mapping[str, Any]]:
        # A message that is visible again before the end would come twice.
        pace = (time.monotonic() - self._started) / max(len(self._seen), 1)
        whole = max(VISIBILITY_SECONDS, math.ceil(2 * pace * self._visible))
        response = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=TEN,
            VisibilityTimeout=min(whole, MAX_VISIBILITY_SECONDS),
            WaitTimeSeconds=WAIT_SECONDS,
            MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            MessageAttributeNames=["All"],
        )
        received: list[Mapping[str, Any]] = response.get("Messages", [])
        self._held.update({each["MessageId"]: each["ReceiptHandle"] for each in received})
        return received

    def delete(self, messages: Sequence[Message]) -> int:
        """Delete up to ten messages; return how many SQS has deleted."""
        entries = [
            {"Id": str(index), "ReceiptHandle": self._held[message.message_id]}
            for index, message in enumerate(messages)
        ]
        if not entries:
            return 0
        response = self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
        deleted = [messages[int(entry["Id"])] for entry in response.get("Successful", [])]
        for message in deleted:
            del self._held[message.message_id]
        return len(deleted)

    def describe(self, screen: Screen) -> None:
        """Say what was there and what of it was chosen, and how far that can be trusted."""
        text = f"{count(self.read, 'message')} in {self.name}"
        if self._limited:
            text = f"{count(self.taken, 'message')} of {self.name}, by {self._wanted}"
        elif self.taken < self.read:
            text = f"{self.taken:,} of {text}, by {self._wanted}"
        if self.read and not self.taken:
            jobs = ", ".join(f"{job} ({n:,})" for job, n in self._jobs.most_common(SHOWN_JOBS))
            text += f". There are: {jobs}{', ...' if len(self._jobs) > SHOWN_JOBS else ''}"
        text += f". {self.problem}" if self.problem else ""
        if self._in_flight:
            text += f"; others have about {self._in_flight:,} in their hands"
        screen.say(f"{text}.", "bold")

    @property
    def problem(self) -> str:
        """Why not all was read; "" where all was."""
        share = min(1.0, self.read / max(self._visible, 1))
        told = f"The end of {self.name} wasn't reached: about {share:.0%} was read. {ENDLESS}"
        return "" if self.complete else told

    def document(self) -> dict[str, Any]:
        """Return the same for a machine."""
        return {
            "queue": self._url,
            "messages_read": self.read,
            "messages_chosen": self.taken,
            "complete": self.complete,
            "visible_by_sqs": self._visible,
            "in_flight_by_sqs": self._in_flight,
        }
