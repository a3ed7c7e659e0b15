"""The outcome of each file of the local run, from the queue's messages and the submitter's log."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddg_outcomes import where
from ddg_s3_objects import Message, find_files, read_messages

SUBMITTED, REFUSED, IGNORED, WAITING = OUTCOMES = ("submitted", "refused", "ignored", "waiting")
NEEDS_NOTHING = "not below its bucket's prefix, or a marker"


@dataclass
class Entry:
    """A file that somebody wrote. If it is written or sent again, a new entry replaces it."""

    name: str  # s3://bucket/key
    message_id: str  # of its notification
    at: float  # when S3 notified the queue, epoch seconds
    outcome: str = WAITING
    reason: str = ""  # why it is refused or waits
    seconds: float | None = None  # from the notification to the outcome
    tries: int = 0
    beginning: str = ""  # of the content, if it is refused


Batch = list[tuple[Entry, str, str]]  # with the message's ID, and the name as it is in the log


class Books:
    """Every file by its outcome; only the last settled ones are kept."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.files: dict[str, Entry] = {}  # the oldest first
        self.counts: Counter[str] = Counter()  # by outcome, forgotten files included
        self.changes = time.time_ns()  # grows with each change; another number after a restart
        self._lock = threading.Lock()

    def look(self, queue: Any) -> None:
        """Enter the files whose messages are visible in a queue (moto's own object)."""
        with self._lock:  # so that no batch with them is settled in between
            for each in queue.messages:
                message = Message(each.id, each.body, ())
                for file in find_files(each.body):
                    self._enter(where(file, message), each.id, each.sent_timestamp / 1000)

    def receive(self, event: Mapping[str, Any]) -> Batch:
        """Enter the files of a batch, and return them."""
        sent = {each["messageId"]: each["attributes"]["SentTimestamp"] for each in event["Records"]}
        batch: Batch = []
        with self._lock:
            for message in read_messages(event):
                for file in message.files:
                    at = int(sent[message.message_id]) / 1000
                    entry = self._enter(where(file, message), message.message_id, at)
                    entry.tries = file.receive_count
                    batch.append((entry, message.message_id, f"s3://{file.bucket}/{file.key}"))
        return batch

    def _enter(self, name: str, message_id: str, at: float) -> Entry:
        entry = self.files.get(name)
        # A settled message may be visible again for a moment, until it is deleted.
        if entry is None or (entry.outcome != WAITING and entry.message_id != message_id):
            if entry:
                self.counts[self.files.pop(name).outcome] -= 1
            self.counts[WAITING] += 1
            self.changes += 1
            entry = self.files[name] = Entry(name, message_id, at)
        return entry

    def settle(self, batch: Batch, failed: set[str], log: Sequence[str]) -> None:
        """Enter the outcomes of a batch.

        failed: IDs of the messages that stay in the queue. log: what the submitter printed.
        """
        lists = [line.partition(" ")[2] for line in log if line.startswith("submitted [")]
        submitted = {name for names in lists for name in json.loads(names)}
        with self._lock:
            for entry, message_id, address in batch:
                refused = f"refused {entry.name}: "
                reasons = [line.removeprefix(refused) for line in log if line.startswith(refused)]
                self.counts[entry.outcome] -= 1
                if message_id in failed:
                    entry.outcome, entry.reason = WAITING, find_reason(entry.name, log)
                elif address in submitted:
                    entry.outcome, entry.reason = SUBMITTED, ""
                elif reasons:
                    entry.outcome, entry.reason = REFUSED, reasons[-1]
                else:
                    entry.outcome, entry.reason = IGNORED, NEEDS_NOTHING
                self.counts[entry.outcome] += 1
                waits = entry.outcome == WAITING
                entry.seconds = None if waits else max(0.0, time.time() - entry.at)
            self.changes += 1

    def latest(self, most: int, *outcomes: str) -> list[Entry]:
        """Return the latest files, the newest first, of these outcomes or of all."""
        with self._lock:
            entries = [e for e in self.files.values() if not outcomes or e.outcome in outcomes]
        return entries[: -most - 1 : -1]

    def forget(self) -> list[str]:
        """Forget the oldest settled files beyond those to be kept; return their names."""
        with self._lock:
            settled = [name for name, entry in self.files.items() if entry.outcome != WAITING]
            old = settled[: max(0, len(settled) - self.keep)]
            for name in old:
                del self.files[name]
        return old


def find_reason(name: str, log: Sequence[str]) -> str:
    """Return why a file is retried; a line names only the first files of its reason."""
    lines = [match[1] for line in log if (match := re.match(r"retried \d+: (.*)", line))]
    naming = [line for line in lines if name in line] or lines or ["the log has no reason"]
    return re.split(r": (?:s3://|message )", naming[0])[0]
