"""A trial's books: where every file is in the end, from what others hold and not by hearsay.

Each delivery of a file ends as submitted, refused or retried; each file is submitted, refused or
waiting. Where it is two of these, one of CAUSES must be on record.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from local.faults import SERIES_LIMIT, File, Notification, Plan
from local.ledger import Point, Stored

TWICE = "S3 notified twice"
UNACKNOWLEDGED = "a POST was accepted, its answer lost or its message not acknowledged"
UNACKNOWLEDGED_REFUSAL = "the refusal was kept, its message not acknowledged"
NEIGHBOUR = "the message carries a refused neighbour"
CUT = "one payload doesn't take it, and what the last had was refused, or too old by then"
CAUSES = (TWICE, UNACKNOWLEDGED, UNACKNOWLEDGED_REFUSAL, NEIGHBOUR, CUT)


@dataclass(eq=False)
class Message:
    """One message of the queue."""

    message_id: str
    notification: Notification
    receives: int = 0

    def __post_init__(self) -> None:
        self.body, self.keys = self.notification.body, self.notification.keys
        self.strange = self.notification.strange
        self.visible = self.notification.at  # Unix seconds, by the trial's clock


class Rejected(NamedTuple):
    """One message of the rejected queue."""

    at: float  # Unix seconds, by the trial's clock
    body: str
    attributes: Mapping[str, str]


@dataclass(eq=False)
class Record:
    """What was noted of one invocation."""

    number: int
    at: float  # Unix seconds, by the trial's clock
    plan: Plan
    messages: Sequence[Message]
    strikes: list[str] = field(default_factory=list)
    stored: dict[str, set[Point]] = field(default_factory=lambda: defaultdict(set))  # by file
    told: dict[str, set[Point]] = field(default_factory=lambda: defaultdict(set))  # with a 202
    kept: dict[str, str] = field(default_factory=dict)  # body -> reason, in the rejected queue
    confirmed: set[str] = field(default_factory=set)  # bodies that are, and it was told so
    ended: bool = False  # by itself: it wasn't killed
    failed: set[str] = field(default_factory=set)  # ids of messages that stay in the queue
    summary: Mapping[str, int] = field(default_factory=dict)  # the line of metrics


class Evidence(NamedTuple):
    """All that the books are closed from."""

    files: Mapping[str, File]  # by key
    max_age: float  # seconds
    messages: Sequence[Message]  # all that there ever were
    records: Sequence[Record]
    stored: Stored  # what Datadog has
    rejected: Sequence[Rejected]
    waiting: Sequence[Message]  # in the queue and in the dead-letter queue


@dataclass
class Books:
    """Every file by where it is, why some are in two places, and what doesn't add up."""

    files: int = 0
    submitted: int = 0  # those in two places are counted in both
    refused: int = 0
    waiting: int = 0
    both: Counter[str] = field(default_factory=Counter)  # files by cause
    faults: list[str] = field(default_factory=list)


def close_books(evidence: Evidence) -> Books:
    """Settle every file, message and delivery."""
    books = Books(files=len(evidence.files))
    kept = {
        Point(metric, tags, second, value)
        for (metric, tags), series in evidence.stored.items()
        for second, value in series.items()
    }
    refused, carried = sort_rejected(evidence, books.faults)
    waiting = {key for message in evidence.waiting for key in message.keys}
    notified = Counter(key for message in evidence.messages for key in message.keys)
    for key, file in evidence.files.items():
        here = kept.intersection(file.points)
        submitted = bool(file.points) and len(here) == len(file.points)
        books.submitted += submitted
        books.refused += key in refused
        books.waiting += key in waiting
        if not (submitted or key in refused or key in waiting):
            had = f"Datadog has {len(here)} of its {len(file.points)} points"
            books.faults.append(f"{key!r} is lost: not submitted, not refused, not waiting; {had}")
        if submitted and key in carried:
            books.both[NEIGHBOUR] += 1
        if bool(here) + (key in refused) + (key in waiting) > 1:
            causes = [TWICE] if notified[key] > 1 else []
            causes += find_unacknowledged(key, evidence.records)
            causes += [CUT] if was_cut(key, file, evidence.records) else []
            books.both.update(causes)
            if not causes:
                places = f"Datadog {len(here)}, refused {key in refused}, waiting {key in waiting}"
                books.faults.append(f"{key!r} is in two places for no cause: {places}")
    known: set[Point] = set().union(*(file.points for file in evidence.files.values()))
    books.faults += [f"Datadog has {point}, and no file does" for point in sorted(kept - known)]
    for record in evidence.records:
        books.faults += check_deliveries(record, evidence.files)
    return books


def sort_rejected(evidence: Evidence, faults: list[str]) -> tuple[set[str], set[str]]:
    """Return the files that are refused, and those whose message is kept because of another."""
    refused: set[str] = set()
    carried: set[str] = set()
    messages = {message.body: message for message in evidence.messages}
    for rejected in evidence.rejected:
        message = messages.get(rejected.body)
        reason = rejected.attributes.get("reason", "")
        if message is None:
            faults.append(f"the rejected queue holds a body that nobody sent: {rejected.body!r}")
            continue
        if not reason:
            faults.append(f"the rejected queue holds {message.message_id} without a reason")
        named = [key for key in message.keys if names(reason, key, message)]
        if len(message.keys) == 1 and plain(rejected.attributes.get("key", "")) != plain(named[0]):
            faults.append(f"the rejected queue holds {named[0]!r} without its key")
        if message.keys and not named:
            faults.append(f"the reason of {message.keys} names none of them: {reason}")
        for key in named:
            if not may_be_refused(evidence.files[key], rejected.at, evidence.max_age):
                faults.append(f"{key!r} is a good file, and was refused: {reason}")
        refused.update(named)
        carried.update(message.keys)
    left = {message.message_id for message in evidence.waiting}
    bodies = {rejected.body for rejected in evidence.rejected}
    for message in evidence.messages:
        if message.strange and message.body not in bodies and message.message_id not in left:
            faults.append(f"a strange message is lost: {message.body!r}")
    return refused, carried - refused


def plain(text: str) -> str:
    """Return a text's letters and digits: what is left of it wherever it is shown."""
    return "".join(filter(str.isalnum, text))


def may_be_refused(file: File, now: float, max_age: float) -> bool:
    """Tell whether a file is bad, or has become so by now."""
    if not file.points or file.poisonous or file.deleted <= now:
        return True
    return now - min(point.second for point in file.points) > max_age


def find_unacknowledged(key: str, records: Sequence[Record]) -> Iterator[str]:
    """Yield the causes that lie in lost answers, and in messages that were left in the queue."""
    unheard = any(record.stored.get(key, set()) > record.told.get(key, set()) for record in records)
    left = [
        (record, message)
        for record in records
        for message in record.messages
        if key in message.keys and message.message_id in record.failed
    ]
    if unheard or any(record.stored.get(key) for record, _ in left):
        yield UNACKNOWLEDGED
    if any(message.body in record.kept for record, message in left):
        yield UNACKNOWLEDGED_REFUSAL


def was_cut(key: str, file: File, records: Sequence[Record]) -> bool:
    """Tell whether one invocation submitted a part of a file that has to be cut, and refused it."""
    series = {(point.metric, point.tags) for point in file.points}
    return len(series) > SERIES_LIMIT and any(
        0 < len(record.stored[key]) < len(file.points)
        for record in records
        for message in record.messages
        if key in message.keys and message.body in record.kept
    )


def check_deliveries(record: Record, files: Mapping[str, File]) -> Iterator[str]:
    """Yield what is wrong with the way one invocation dealt with its messages."""
    where = f"invocation {record.number}"
    named = Counter(key for message in record.messages for key in message.keys)
    submitted = {
        key for key in named if files[key].points and record.told[key] >= {*files[key].points}
    }
    submitted_alone = {key for key in submitted if named[key] == 1}  # not by another message
    for message in record.messages:
        reason = record.kept.get(message.body)
        refused = {key for key in message.keys if reason and names(reason, key, message)}
        if message.message_id not in record.failed:
            for key in {*message.keys} - submitted - refused:
                yield f"{where} acknowledged {key!r}, neither submitted nor refused"
            if message.strange and not reason:
                yield f"{where} acknowledged a strange message: {message.body!r}"
        elif record.ended and message.body in record.confirmed:
            yield f"{where} left {message.keys} in the queue, kept as refused"
        elif record.ended and not message.strange and submitted_alone.issuperset(message.keys):
            yield f"{where} left {message.keys} in the queue, submitted"
    if record.ended and max(named.values(), default=1) == 1:
        counted = [record.summary[name] for name in ("Submitted", "Refused", "Retried")]
        strange = sum(message.strange for message in record.messages)
        if counted[0] != len(submitted) or sum(counted) != len(named) + strange:
            yield f"{where} submitted {len(submitted)} of {len(named)} files, and counted {counted}"


def names(reason: str, key: str, message: Message) -> bool:
    """Tell whether this is the reason of that file of the message."""
    return len(message.keys) == 1 or plain(key) in plain(reason)
