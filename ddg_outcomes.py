"""The outcome of a file, what it means for its message, and how both are reported."""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ddg_faults import MAX_REASON_BYTES
from ddg_s3_objects import File, Message

MAX_MESSAGE_BYTES = 262_144  # SQS, body and attributes together (the lower of its two limits)
MAX_ADDRESS_CHARACTERS = 1200  # S3: a bucket name has up to 63 bytes, a key 1,024
SHOWN_KEYS = 20  # in a log line, to keep the logs of an outage cheap
MAX_METRIC_VALUES = 100  # in an array of CloudWatch's embedded metric format
MAX_LINE_BYTES = 200_000  # CloudWatch cuts an event at 256 KB
# CloudWatch's units, by the end of a metric's name; all others are counts
UNITS = ("Bytes", "Milliseconds")
NOT_OURS = "not a new object, or not below its bucket's prefix"

# SQS refuses these in a message (see SendMessage; excluding them compiles faster)
NOT_FOR_SQS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# What ends a line, controls a terminal, or changes the direction of text, and these
UNPRINTABLE = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)

logger = logging.getLogger("ddg_metric_submit")  # whose level LOG_LEVEL sets


class Submitted(NamedTuple):
    """Datadog has all points of the file."""

    points: int
    at: float  # epoch seconds of the last 202


class Refused(NamedTuple):
    """The file is refused for good; its message is in the rejected queue, with the reason."""

    reason: str


class Retry(NamedTuple):
    """The file stays in the queue: its message will be delivered again."""

    reason: str


class Skipped(NamedTuple):
    """The file is a marker and needs nothing."""


class Ignored(NamedTuple):
    """The object isn't a stats file: it isn't new, or not below its bucket's prefix."""


Outcome = Submitted | Refused | Retry | Skipped | Ignored
Outcomes = Mapping[File, Outcome]


@dataclass
class Statistics:
    """Counts and times of a batch, for its summary."""

    points: int = 0
    requests: int = 0
    wire_bytes: int = 0
    fetch_seconds: float = 0.0
    post_seconds: float = 0.0


def has(message: Message, outcomes: Outcomes, kind: type[Outcome]) -> bool:
    """Tell whether a file of a message has such an outcome."""
    return any(isinstance(outcomes[file], kind) for file in message.files)


def settle(message: Message, outcomes: Outcomes, trouble: str = "") -> dict[File, Outcome]:
    """Return the outcomes of a message's files; no file is refused before the message is kept.

    trouble: why the message couldn't be sent to the rejected queue, or "".
    """
    waits = trouble or has(message, outcomes, Retry)
    suffix = f"; couldn't send to the rejected queue: {trouble}" if trouble else ""
    settled = {file: outcomes[file] for file in message.files}
    for file, outcome in settled.items():
        if waits and isinstance(outcome, Refused):
            reason = f"refused once its message is settled: {outcome.reason}{suffix}"
            settled[file] = Retry(reason)
    return settled


def rejected_message(message: Message, outcomes: Outcomes) -> dict[str, Any]:
    """Return a message for the rejected queue: its body, with the reason as an attribute."""
    refused = [
        (file, o.reason) for file in message.files if isinstance(o := outcomes[file], Refused)
    ]
    first, reason = refused[0]
    if len(message.files) > 1:
        reasons = "; ".join(f"{file.key}: {why}".removeprefix(": ") for file, why in refused)
        if len(reasons.encode()) > MAX_REASON_BYTES:  # name each file, if not each reason
            keys = ", ".join(file.key for file, _ in refused)
            reasons = f"{len(refused)} files: {keys}: {reason}"
        reason = reasons
    texts = {"reason": printable(reason).encode()[:MAX_REASON_BYTES].decode(errors="ignore")}
    if first.bucket:
        texts |= {"bucket": printable(first.bucket), "key": printable(first.key)}
    body = NOT_FOR_SQS.sub("\N{REPLACEMENT CHARACTER}", message.body) or "(empty)"
    if len((body + "".join(f"{name}String{text}" for name, text in texts.items())).encode()) > (
        MAX_MESSAGE_BYTES
    ):
        logger.warning("message %s is kept without its reason: no room", message.message_id)
        texts = {}
    attributes = {name: {"DataType": "String", "StringValue": text} for name, text in texts.items()}
    return {"MessageBody": body, "MessageAttributes": attributes}


# --- Log lines ---


def printable(text: str) -> str:
    """Make a text fit for a log line and an SQS attribute: one line, never empty."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text) or "(empty)"


def address(file: File) -> str:
    """Return an object's address, fit for a log line."""
    return printable(f"s3://{file.bucket}/{file.key}"[:MAX_ADDRESS_CHARACTERS])


def where(file: File, message: Message) -> str:
    """Return an object's address, or the message's ID if it names no object."""
    return address(file) if file.bucket else f"message {message.message_id}"


def print_outcomes(messages: Iterable[Message], outcomes: Outcomes, *, submitted: bool) -> None:
    """Print a line for each refusal, for each reason to retry, and for what is ignored.

    LOG_LEVEL doesn't matter. `submitted`: print which objects are submitted, too.
    """
    alike: dict[tuple[str, str], list[tuple[File, Message]]] = {}  # printed in one line
    for message in messages:
        for file in message.files:
            match outcomes[file]:
                case Refused(reason):
                    print(f"refused {where(file, message)}: {printable(reason)}")
                case Retry(reason):
                    alike.setdefault(("retried", reason), []).append((file, message))
                case Ignored():
                    alike.setdefault(("ignored", NOT_OURS), []).append((file, message))
    for (word, reason), named in alike.items():
        names = ", ".join(where(*each) for each in named[:SHOWN_KEYS])
        more = ", ..." if len(named) > SHOWN_KEYS else ""
        print(f"{word} {len(named)}: {printable(reason)}: {names}{more}")
    if submitted:
        print_submitted(file for file in outcomes if isinstance(outcomes[file], Submitted))


def print_submitted(files: Iterable[File]) -> None:
    """Print `submitted` and a JSON list of objects, on as many lines as CloudWatch needs."""
    line = ""
    for name in (json.dumps(f"s3://{file.bucket}/{file.key}") for file in files):
        if line and len(line) + len(name) > MAX_LINE_BYTES:
            print(f"submitted [{line}]")
            line = ""
        line += f", {name}" if line else name
    if line:
        print(f"submitted [{line}]")


def print_summary(
    outcomes: Outcomes, watched: Mapping[File, str], statistics: Statistics, function_name: str
) -> None:
    """Print the metrics of each watched job with files in the batch, then the batch's.

    The batch's include zeros, but no delay if nothing was submitted. watched: file -> job.
    """
    counts: dict[str, Counter[type[Outcome]]] = {}
    for file, job in watched.items():
        counts.setdefault(job, Counter())[type(outcomes[file])] += 1
    for job, count in counts.items():
        values = {"Submitted": count[Submitted], "Refused": count[Refused]}
        print_metrics({"FunctionName": function_name, "Job": job}, values)
    total = Counter(type(outcome) for outcome in outcomes.values())
    metrics: dict[str, object] = {
        "Submitted": total[Submitted],
        "Refused": total[Refused],
        "Retried": total[Retry],
        "Ignored": total[Ignored],
        "Points": statistics.points,
        "Requests": statistics.requests,
        "WireBytes": statistics.wire_bytes,
        "FetchMilliseconds": round(1000 * statistics.fetch_seconds),
        "PostMilliseconds": round(1000 * statistics.post_seconds),
    }
    if delays := read_delays(outcomes):
        metrics["DelayMilliseconds"] = delays
    print_metrics({"FunctionName": function_name}, metrics)


def read_delays(outcomes: Outcomes) -> list[int]:
    """Return the sorted milliseconds from S3's event to Datadog's 202 for the files submitted.

    If there are too many for one metric: evenly spaced ones, including the largest.
    """
    delays = sorted(
        max(0, round(1000 * (outcome.at - file.event_time)))
        for file, outcome in outcomes.items()
        if isinstance(outcome, Submitted) and file.event_time is not None
    )
    shown = min(len(delays), MAX_METRIC_VALUES)
    return [delays[(rank + 1) * len(delays) // shown - 1] for rank in range(shown)]


def print_metrics(dimensions: Mapping[str, str], values: Mapping[str, object]) -> None:
    """Print a line of CloudWatch's embedded metric format.

    It goes to stdout as it is: CloudWatch doesn't read metrics from a wrapped line.
    """
    units = {name: unit for name in values for unit in UNITS if name.endswith(unit)}
    metrics = [{"Name": name, "Unit": units.get(name, "Count")} for name in values]
    directive = {"Namespace": "DatadogStats", "Dimensions": [[*dimensions]], "Metrics": metrics}
    emf = {"Timestamp": int(1000 * time.time()), "CloudWatchMetrics": [directive]}
    print(json.dumps({"_aws": emf, **dimensions, **values}), flush=True)
