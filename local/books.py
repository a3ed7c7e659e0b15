"""What became of each file of the local run, by the queue's messages and the submitter's log."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddg_outcomes import where
from ddg_s3_objects import Message, find_files, read_messages

SUBMITTED, REFUSED, IGNORED, WAITING = OUTCOMES = ("submitted", "refused", "ignored", "waiting")
NEEDS_NOTHING = "not below its bucket's prefix, or a marker"


@dataclass
class Entry:
    """A file that somebody wrote; written again, or sent again, it begins anew."""

    name: str  # s3://bucket/key
    at: float  # when S3 told of it, epoch seconds
    outcome: str = WAITING
    reason: str = ""  # why it is refused or waits
    seconds: float | None = None  # from then to its outcome
    tries: int = 0
    beginning: str = ""  # of the content, where it is refused


@dataclass
class Books:
    """Every file by its outcome; only so many of those that are settled are kept."""

    keep: int
    files: dict[str, Entry] = field(default_factory=dict)  # the oldest first
    counts: Counter[str] = field(default_factory=Counter)  # of all there ever were, by outcome
    changes: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, None] = {}  # ids of messages, the oldest first

    def arrive(self, message_id: str, body: str, at: float) -> None:
        """Enter the files of a message that is in the queue."""
        with self._lock:
            if message_id not in self._seen:
                self._seen[message_id] = None
                for file in find_files(body):
                    self._begin(where(file, Message(message_id, body, ())), at)

    def _begin(self, name: str, at: float) -> Entry:
        entry = self.files.get(name)
        if entry is None or entry.outcome != WAITING:
            if entry:
                self.counts[entry.outcome] -= 1
                del self.files[name]
            self.counts[WAITING] += 1
            self.changes += 1
            entry = self.files[name] = Entry(name, at)
        return entry

    def settle(self, event: Mapping[str, Any], failed: set[str], log: Sequence[str]) -> list[Entry]:
        """Enter what a batch came to; return the entries of its files.

        failed: ids of the messages that stay in the queue. log: what the submitter printed.
        """
        told = {line for line in log if line.startswith("submitted [")}
        submitted = {name for line in told for name in json.loads(line.partition(" ")[2])}
        sent = {
            record["messageId"]: int(record["attributes"]["SentTimestamp"]) / 1000
            for record in event["Records"]
        }
        settled = []
        with self._lock:
            for message in read_messages(event):
                for file in message.files:
                    name, raw = where(file, message), f"s3://{file.bucket}/{file.key}"
                    entry = self._begin(name, sent[message.message_id])
                    entry.tries = file.receive_count
                    if message.message_id in failed:
                        entry.reason = find_reason(name, log)
                    else:
                        self._end(entry, raw in submitted, log)
                    settled.append(entry)
                self._seen[message.message_id] = None
            self.changes += 1
        return settled

    def _end(self, entry: Entry, submitted: bool, log: Sequence[str]) -> None:
        refused = f"refused {entry.name}: "
        reasons = [line.removeprefix(refused) for line in log if line.startswith(refused)]
        if submitted:
            entry.outcome, entry.reason = SUBMITTED, ""
        elif reasons:
            entry.outcome, entry.reason = REFUSED, reasons[-1]
        else:
            entry.outcome, entry.reason = IGNORED, NEEDS_NOTHING
        entry.seconds = max(0.0, time.time() - entry.at)
        self.counts[WAITING] -= 1
        self.counts[entry.outcome] += 1

    def latest(self, most: int, *outcomes: str) -> list[Entry]:
        """Return the latest files, the newest first, of some outcomes or of all."""
        with self._lock:
            entries = reversed(list(self.files.values()))
        chosen = (entry for entry in entries if not outcomes or entry.outcome in outcomes)
        return [entry for entry, _ in zip(chosen, range(most), strict=False)]

    def forget(self) -> Iterator[str]:
        """Forget the oldest settled files beyond those to be kept, and yield their names."""
        with self._lock:
            settled = [name for name, entry in self.files.items() if entry.outcome != WAITING]
            old = settled[: max(0, len(settled) - self.keep)]
            for name in old:
                del self.files[name]
            for message_id in list(self._seen)[: -self.keep]:
                del self._seen[message_id]
        yield from old


def find_reason(name: str, log: Sequence[str]) -> str:
    """Return why a file is retried; a line names the first files of each reason."""
    lines = [match[1] for line in log if (match := re.match(r"retried \d+: (.*)", line))]
    naming = [line for line in lines if name in line] or lines or ["it isn't said why"]
    return re.split(r": (?:s3://|message )", naming[0])[0]
