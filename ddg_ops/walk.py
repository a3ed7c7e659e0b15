"""A walk through the rejected or the dead-letter queue: each message once.

What a walk has received and not deleted is visible again when it ends. If it is killed, SQS makes
it visible after the visibility timeout.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, NamedTuple, Self

import click
from botocore.exceptions import BotoCoreError, ClientError

from ddg_ops.aws import time_at_aws
from ddg_ops.screen import FINE, UNABLE, Moment, Screen, count, moment, utc
from ddg_ops.stack import Stack, queue_name, reading_settings, stack_options
from ddg_outcomes import address
from ddg_s3_objects import File, find_files, job_folder, job_tag
from ddg_stats_file import normalise_tag

TEN = 10  # messages: SQS's limit for a request
RECEIVERS = 8  # polls in parallel; a round of them that are all empty is the end
WAIT_SECONDS = 1  # long polling: SQS then asks all its servers
STALE_ROUNDS = 6  # in a row with nothing new: the end can't be reached
MAX_HELD = 110_000  # SQS allows 120,000 messages in flight
VISIBILITY_SECONDS = 300  # or twice what the whole queue takes, by the pace so far
MAX_VISIBILITY_SECONDS = 43_200  # SQS
SHOWN_OBJECTS = 3  # of a message
SHOWN_JOBS = 10
ENDLESS = "Messages came again before all were read, or too many are in flight: use --limit"


class Message(NamedTuple):
    """A message of the rejected or the dead-letter queue."""

    message_id: str
    body: str
    sent: float  # epoch seconds
    reason: str  # or how to find it
    files: tuple[File, ...]
    job: str  # job:<job>, or "no job"

    @property
    def objects(self) -> list[File]:
        """The files that name an object."""
        return [file for file in self.files if file.bucket]

    @property
    def where(self) -> str:
        """The objects' addresses, or the message's ID if it names none."""
        names = map(address, self.objects[:SHOWN_OBJECTS])
        return ", ".join(names) or f"message {self.message_id}"

    def record(self) -> dict[str, Any]:
        """Return the message as JSON, to keep or to show."""
        shown = {"message_id": self.message_id, "sent": utc(self.sent), "reason": self.reason}
        return shown | {"body": self.body}


def read_message(received: Mapping[str, Any], prefix_of: Callable[[str], str]) -> Message:
    """Read a message as SQS delivers it; find its files as the submitter does."""
    files = find_files(received["Body"])
    job = ""
    for file in files[:1]:
        prefix = prefix_of(file.bucket)
        job = job_tag(job_folder(file.key, prefix) or job_folder(file.decoded_key, prefix))
    system = received.get("Attributes", {})
    sent = int(system.get("SentTimestamp", 0)) / 1000
    times = count(int(system.get("ApproximateReceiveCount", 1)), "time")
    hint = f"received {times}; find out why: ddg-ops tail --since {utc(sent)} --no-follow"
    reason = received.get("MessageAttributes", {}).get("reason", {}).get("StringValue", hint)
    return Message(
        message_id=received["MessageId"],
        body=received["Body"],
        sent=sent,
        reason=reason,
        files=tuple(files),
        job=job or "no job",
    )


class Selection(NamedTuple):
    """The options that choose messages."""

    job: str = ""  # its folder, or its tag
    reason: str = ""  # a part of it, in any case
    key: str = ""  # a part of it
    since: Moment | None = None
    limit: int | None = None

    def takes(self, message: Message) -> bool:
        return (
            (not self.job or message.job in (normalise_tag(self.job), job_tag(self.job)))
            and self.reason.lower() in message.reason.lower()
            and (not self.key or any(self.key in file.key for file in message.files))
            and (not self.since or message.sent >= self.since.seconds)
        )

    def __str__(self) -> str:
        """Return the options as they were typed."""
        typed = self._asdict() | {"since": self.since and self.since.text}
        return " ".join(f"--{name} {value}" for name, value in typed.items() if value)


EVERYTHING = Selection()


def on_queue(limit: int | None = None) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Declare the options that choose messages; hand the command a screen, a stack and a walk."""

    def declare(command: Callable[..., int]) -> Callable[..., int]:
        @click.option("--job", default="", help="Only this job's: nightly, or job:nightly.")
        @click.option("--key", default="", help="Only with this text in the key.")
        @click.option("--reason", default="", help="Only with this text in the reason.")
        @click.option(
            "--since", type=moment, metavar="TIME", help="Only sent since: 6h, 12:00 (UTC)."
        )
        @click.option("--limit", type=click.IntRange(1), default=limit, help="Stop after so many.")
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
    """The messages that are in a queue when the walk begins, each once."""

    def __init__(self, stack: Stack, url: str, wanted: Selection, screen: Screen) -> None:
        self._sqs = stack.aws.client("sqs")
        self._url, self._wanted = url, wanted
        self._prefix_of = reading_settings(stack.environment()).prefix_of
        self.name = queue_name(url)
        response = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        attributes = response["Attributes"]
        self._visible = int(attributes["ApproximateNumberOfMessages"])
        self._in_flight = int(attributes["ApproximateNumberOfMessagesNotVisible"])
        self.now = time_at_aws(response)
        self.taken = self.read = 0
        self.complete = False
        self._jobs: Counter[str] = Counter()  # of the messages read
        self._progress = screen.progress("messages", self._visible)
        self._threads = ThreadPoolExecutor(RECEIVERS)
        self._held: dict[str, str] = {}  # message ID -> receipt handle
        self._seen: set[str] = set()  # message IDs

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._advance = self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Make what hasn't been deleted visible again."""
        self._progress.__exit__(None, None, None)
        self._threads.shutdown(cancel_futures=True)  # polls that are running still add to _held
        entries = [
            {"Id": str(index % TEN), "ReceiptHandle": handle, "VisibilityTimeout": 0}
            for index, handle in enumerate(self._held.values())
        ]
        tens = [entries[start : start + TEN] for start in range(0, len(entries), TEN)]
        give_back = partial(self._sqs.change_message_visibility_batch, QueueUrl=self._url)
        try:
            with ThreadPoolExecutor(RECEIVERS) as threads:
                # An entry that fails was held for too long and is visible already.
                list(threads.map(lambda ten: give_back(Entries=ten), tens))
        except (BotoCoreError, ClientError):
            if kind is None:  # otherwise the first error is the one to report
                raise

    @property
    def _limited(self) -> bool:
        return self.taken == self._wanted.limit

    def wanted(self) -> Iterator[list[Message]]:
        """Yield the chosen messages, up to ten at a time."""
        limit = self._wanted.limit
        for messages in self._new_messages():
            self.read += len(messages)
            self._jobs.update(message.job for message in messages)
            self._advance(len(messages))
            chosen = [message for message in messages if self._wanted.takes(message)]
            chosen = chosen[: None if limit is None else limit - self.taken]
            self.taken += len(chosen)
            if chosen:
                yield chosen
            if self._limited:
                self.complete = True
                return

    def _new_messages(self) -> Iterator[list[Message]]:
        """Yield the messages not seen before, up to ten at a time."""
        stale = 0  # rounds
        while stale < STALE_ROUNDS and len(self._held) < MAX_HELD:
            stale += 1
            batches = list(self._threads.map(lambda _: self._receive(), range(RECEIVERS)))
            if not any(batches):
                self.complete = True
                return
            for received in batches:
                new = [each for each in received if each["MessageId"] not in self._seen]
                self._seen |= {each["MessageId"] for each in new}
                read = [read_message(each, self._prefix_of) for each in new]
                # What was sent later comes back from our own replay. AWS's time is in whole
                # seconds: the one in which the walk began still counts.
                messages = [message for message in read if message.sent < self.now + 1]
                if messages:
                    stale = 0
                    yield messages

    def _receive(self) -> list[Mapping[str, Any]]:
        # A message that becomes visible before the end would come twice.
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

    @property
    def problem(self) -> str:
        """Why the walk didn't reach the end; "" if it did."""
        share = min(1.0, self.read / max(self._visible, 1))
        told = f"The end of {self.name} wasn't reached: about {share:.0%} was read. {ENDLESS}"
        return "" if self.complete else told

    def report(
        self, screen: Screen, lines: Iterable[str], result: Mapping[str, Any], *, done: bool = True
    ) -> int:
        """Print what the walk read and chose, then a command's own lines; return the exit code."""
        text = f"{count(self.read, 'message')} in {self.name}"
        if self._limited:
            text = f"{count(self.taken, 'message')} of {self.name} ({self._wanted})"
        elif self.taken < self.read:
            text = f"{self.taken:,} of {text} ({self._wanted})"
        if self.read and not self.taken:
            jobs = (f"{job} ({n:,})" for job, n in self._jobs.most_common(SHOWN_JOBS))
            text += f". The jobs there: {', '.join(jobs)}"
        text += f". {self.problem}" if self.problem else ""
        if self._in_flight:
            text += f"; about {self._in_flight:,} more are in flight, held by another reader"
        screen.say(f"{text}.", "bold")
        for line in lines:
            screen.say(line)
        numbers = {
            "queue": self._url,
            "messages_read": self.read,
            "messages_chosen": self.taken,
            "complete": self.complete,
            "visible_by_sqs": self._visible,
            "in_flight_by_sqs": self._in_flight,
        }
        screen.result({**numbers, **result})
        return FINE if self.complete and done else UNABLE
