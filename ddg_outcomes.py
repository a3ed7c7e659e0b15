"""What becomes of a file: its outcome, its message's fate, and how both are told."""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ddg_s3_objects import File, Message

MAX_MESSAGE_BYTES = 262_144  # SQS, body and attributes together (the lower of its two limits)
MAX_REASON_BYTES = 1024  # on a message of the rejected queue
MAX_ADDRESS_CHARACTERS = 1200  # S3: a bucket's name has 63, a key 1,024 bytes; more is hostile
SHOWN_KEYS = 20  # a log line: an hour's outage mustn't cost more in logs than in all else
MAX_METRIC_VALUES = 100  # of an array in CloudWatch's embedded metric format
MAX_LINE_BYTES = 200_000  # CloudWatch takes 256 KB as one event, and cuts what is longer
UNITS = ("Bytes", "Milliseconds")  # CloudWatch's, for metrics that end so; the others are counts
NOT_OURS = "not a new object, or not below its bucket's prefix"

# SQS takes none of these in a message (SendMessage reference has the others: that takes re 4 ms)
NOT_FOR_SQS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# What would end a line, steer a terminal, or turn the direction of what follows
CONTROL_CHARACTERS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

logger = logging.getLogger("ddg_metric_submit")  # whose level LOG_LEVEL sets


class Submitted(NamedTuple):
    """Datadog has all points of a file."""

    points: int
    at: float  # epoch seconds of the last of its 202s


class Refused(NamedTuple):
    """A file is refused for good."""

    reason: str


class Retry(NamedTuple):
    """A file's message is to be delivered again."""

    reason: str


class Skipped(NamedTuple):
    """A file needs nothing: it is a marker."""


class Ignored(NamedTuple):
    """An object is no stats file: it isn't new, or not below its bucket's prefix."""


Outcome = Submitted | Refused | Retry | Skipped | Ignored
Outcomes = Mapping[File, Outcome]


@dataclass
class Statistics:
    """What a batch took, for its summary."""

    points: int = 0
    requests: int = 0
    wire_bytes: int = 0
    fetch_seconds: float = 0.0
    post_seconds: float = 0.0


def has(message: Message, outcomes: Outcomes, kind: type[Outcome]) -> bool:
    """Tell whether a file of a message has such an outcome."""
    return any(isinstance(outcomes[file], kind) for file in message.files)


def settle(message: Message, outcomes: Outcomes, trouble: str = "") -> dict[File, Outcome]:
    """Return the outcomes of a message's files: none is refused until the message is kept.

    trouble: why the message isn't in the rejected queue though it should be, or "".
    """

    def unsettled(outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Refused):
            return outcome
        suffix = f"; the rejected queue takes nothing: {trouble}" if trouble else ""
        return Retry(f"refused once its message is settled: {outcome.reason}{suffix}")

    waits = trouble or has(message, outcomes, Retry)
    return {file: unsettled(outcomes[file]) if waits else outcomes[file] for file in message.files}


def rejected_message(message: Message, outcomes: Outcomes) -> dict[str, Any]:
    """Return a message for the rejected queue: the body as it came, the reason beside it."""
    refused = [
        (file, o.reason) for file in message.files if isinstance(o := outcomes[file], Refused)
    ]
    first, reason = refused[0]
    if len(message.files) > 1:
        reasons = "; ".join(f"{file.key}: {why}".removeprefix(": ") for file, why in refused)
        if len(reasons.encode()) > MAX_REASON_BYTES:  # each is to be named
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
    """Return a text fit for a log line and an SQS attribute: one line, never empty."""
    text = CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text)
    return NOT_FOR_SQS.sub("\N{REPLACEMENT CHARACTER}", text) or "(empty)"


def address(file: File) -> str:
    """Return where an object is, fit for a log line."""
    return printable(f"s3://{file.bucket}/{file.key}"[:MAX_ADDRESS_CHARACTERS])


def where(file: File, message: Message) -> str:
    """Return where an object is; or the message, where that names none."""
    return address(file) if file.bucket else f"message {message.message_id}"


def print_outcomes(messages: Iterable[Message], outcomes: Outcomes, *, submitted: bool) -> None:
    """Print a line for each refusal, one for each reason to retry, and one for what is ignored.

    They are printed whatever the LOG_LEVEL; with `submitted` so are the objects submitted.
    """
    alike: dict[tuple[str, str], list[tuple[File, Message]]] = {}  # told in one line
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
        print_submitted(
            file for file, outcome in outcomes.items() if isinstance(outcome, Submitted)
        )


def print_submitted(files: Iterable[File]) -> None:
    """Print `submitted` and a JSON list of objects, in as many lines as CloudWatch takes them."""
    line: list[str] = []
    size = 0
    for name in (json.dumps(f"s3://{file.bucket}/{file.key}") for file in files):
        if line and size + len(name) > MAX_LINE_BYTES:
            print(f"submitted [{', '.join(line)}]")
            line, size = [], 0
        line.append(name)
        size += len(name) + len(", ")
    if line:
        print(f"submitted [{', '.join(line)}]")


def print_jobs(outcomes: Outcomes, jobs: Mapping[File, str], function_name: str) -> None:
    """Print a line of metrics for each watched job that has files in the batch.

    jobs: of the files that are of a watched job.
    """
    counts: dict[str, Counter[type[Outcome]]] = {}
    for file, job in jobs.items():
        counts.setdefault(job, Counter())[type(outcomes[file])] += 1
    for job, count in counts.items():
        values = {"Submitted": count[Submitted], "Refused": count[Refused]}
        print_metrics({"FunctionName": function_name, "Job": job}, values)


def print_summary(outcomes: Outcomes, statistics: Statistics, function_name: str) -> None:
    """Print a batch's metrics, zeros too; but no delay where nothing has been submitted."""
    counts = Counter(type(outcome) for outcome in outcomes.values())
    values = {
        "Submitted": counts[Submitted],
        "Refused": counts[Refused],
        "Retried": counts[Retry],
        "Ignored": counts[Ignored],
        "Points": statistics.points,
        "Requests": statistics.requests,
        "WireBytes": statistics.wire_bytes,
        "FetchMilliseconds": round(1000 * statistics.fetch_seconds),
        "PostMilliseconds": round(1000 * statistics.post_seconds),
    }
    delays = read_delays(outcomes)
    print_metrics(
        {"FunctionName": function_name}, values | ({"DelayMilliseconds": delays} if delays else {})
    )


def read_delays(outcomes: Outcomes) -> list[int]:
    """Return the milliseconds from S3's event to Datadog's 202 of the files submitted, sorted.

    Of more than an array of metrics takes, evenly spaced ones, the largest among them.
    """
    delays = sorted(
        max(0, round(1000 * (outcome.at - file.event_time)))
        for file, outcome in outcomes.items()
        if isinstance(outcome, Submitted) and file.event_time is not None
    )
    shown = min(len(delays), MAX_METRIC_VALUES)
    return [delays[(rank + 1) * len(delays) // shown - 1] for rank in range(shown)]


def print_metrics(dimensions: Mapping[str, str], values: Mapping[str, int | list[int]]) -> None:
    """Print a line of CloudWatch's embedded metric format.

    Raw on stdout: CloudWatch makes metrics of a line only while nothing wraps it.
    """
    units = {name: unit for name in values for unit in UNITS if name.endswith(unit)}
    metrics = [{"Name": name, "Unit": units.get(name, "Count")} for name in values]
    directive = {"Namespace": "DatadogStats", "Dimensions": [[*dimensions]], "Metrics": metrics}
    emf = {"Timestamp": int(1000 * time.time()), "CloudWatchMetrics": [directive]}
    print(json.dumps({"_aws": emf, **dimensions, **values}), flush=True)
