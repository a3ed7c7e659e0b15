"""SQS -> S3 -> Datadog: submit the metrics of every stats file that a batch of messages names.

Each delivery of a file ends in exactly one of
  submitted: Datadog answered 202 for all its points;
  refused:   for good; its message is kept in the rejected queue, with the reason on it;
  retried:   its message stays in the queue and comes again.
Whatever isn't known to be one of the first two is the third.
"""

import gc
import json
import logging
import os
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote_plus

import botocore.session  # boto3 is this and 20 ms of imports that nothing here needs
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from urllib3.exceptions import HTTPError

import ddg_series_api
import ddg_stats_file
from ddg_series_api import Answer
from ddg_stats_file import Sample, StatsFileError

FETCH_THREADS = 32  # ours: boto3 takes 1 ms of CPU for a GET that S3 answers in 20 ms
KEEP_THREADS = 8  # ours, for the other services: more would only keep each other from the CPU
FETCH_AHEAD = 2 * FETCH_THREADS  # ours: objects fetched before they are parsed, to bound the memory
SMALL_BYTES = 256 * 1024  # ours: larger objects are read one at a time, likewise
CONNECT_SECONDS = 2  # ours, a request to AWS
READ_SECONDS = 5  # ours, likewise: between two bytes
AWS_ATTEMPTS = 3  # ours, likewise: botocore tries again where it is throttled or cut off
FETCH_SECONDS = 5.0  # ours: one object that S3 is slow with doesn't cost its neighbours more
PARSE_BYTES_PER_SECOND = 2_000_000  # ours: a nested file, with a sixth of a CPU (256 MB of memory)
MAX_COLLISION_POINTS = 100_000  # ours: as many points are remembered, to bound the memory
MAX_EXTRA_REQUESTS = 64  # ours: a batch's requests beyond one a payload, whatever Datadog answers
RETRY_PAUSES = (0.2, 0.8)  # ours, seconds, a batch: so an outage costs it three requests
RETRY_AT_ONCE = {0, 408, *range(500, 600)}  # 0 is no answer; a 429 asks for more than our pauses
POST_SECONDS = 10.0  # ours: Datadog answers in a tenth of a second
MIN_POST_SECONDS = 1.0  # ours: with less no POST is started
RESERVE_SECONDS = 1.0  # ours: kept for the rejected queue and the answer
PARSE_RESERVE_SECONDS = MIN_POST_SECONDS + 0.25  # ours: kept for posting what has been parsed
READ_RESERVE_SECONDS = PARSE_RESERVE_SECONDS + 0.25  # ours: kept for parsing what has been read
MAX_MESSAGE_BYTES = 262_144  # SQS, body and attributes together (the lower of its two limits)
MAX_REASON_BYTES = 1024  # ours
SHOWN_CHARACTERS = 400  # ours: of what others say in a reason
MAX_ADDRESS_CHARACTERS = 1200  # S3: a bucket's name has 63, a key 1,024 bytes; more is hostile
NO_TIME = "no time was left for it in this invocation"
SHOWN_KEYS = 20  # ours: an hour's outage mustn't cost more in logs than in everything else

# SQS takes none of these in a message (SendMessage reference has the others: that takes re 4 ms)
NOT_FOR_SQS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# What would end a line, steer a terminal, or turn the direction of what follows
CONTROL_CHARACTERS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

for library in ("botocore", "urllib3"):
    logging.getLogger(library).setLevel(logging.ERROR)  # else each request is told at INFO
logger = logging.getLogger(__name__)
Service = Literal["s3", "sqs", "secretsmanager"]
AWS_ERRORS = (BotoCoreError, ClientError, HTTPError)  # the last where an answer breaks off
T = TypeVar("T")
gc.freeze()  # what is imported stays: to look through it for garbage took 10 ms of a cold start


class Settings(NamedTuple):
    """The environment, checked."""

    api_key: str  # empty where the secret has it
    api_key_secret_arn: str
    app_key: str | None
    api_host: str
    stats_prefix: str
    rejected_queue_url: str
    constant_tags: frozenset[str]  # normalised
    max_age: int  # seconds; 0 means no limit
    log_level: str

    def __repr__(self) -> str:
        return "Settings(...)"  # keys are among them


@dataclass(eq=False)
class Delivery:
    """One object that one message names, and what becomes of it."""

    bucket: str
    key: str
    refused: str = ""  # the reason
    retried: str = ""  # the reason
    points: int | None = None  # None until the file has been read
    accepted: int = 0  # points that Datadog answered 202 for

    @property
    def outcome(self) -> str:
        if self.refused and not self.retried:
            return "Refused"
        return "Submitted" if self.accepted == self.points else "Retried"


@dataclass
class Message:
    """One SQS message of the batch."""

    message_id: str
    body: str
    receive_count: int
    deliveries: list[Delivery] = field(default_factory=list)  # none for S3's test event

    def has(self, outcome: str) -> bool:
        return any(delivery.outcome == outcome for delivery in self.deliveries)


class Batch(NamedTuple):
    """What every step knows of the invocation."""

    settings: Settings
    context: Any
    totals: Counter[str]

    def seconds_left(self) -> float:
        return float(self.context.get_remaining_time_in_millis()) / 1000 - RESERVE_SECONDS


# Samples with the file that each is of
Payload = list[tuple[Delivery, Sample]]


def lambda_handler(event: Mapping[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
    """Submit every stats file that a batch of S3 notifications names; return what to retry.

    Args:
        event: SQS's batch of up to 10,000 messages, each an S3 notification.
        context: Lambda's; asked for the time left and the function's name.

    Raises:
        ValueError: an environment variable is missing or malformed; the batch stays in the queue.
    """
    batch = Batch(read_settings(os.environ), context, Counter())
    logger.setLevel(batch.settings.log_level)
    api_key(batch)  # a secret that can't be read fails here
    messages = read_messages(event)
    deliveries = [delivery for message in messages for delivery in message.deliveries]
    samples = read_files(deliveries, batch)
    stopped = post_payloads(ddg_series_api.pack(samples), batch)
    for delivery in deliveries:
        if delivery.outcome == "Retried":
            delivery.retried = delivery.retried or stopped or NO_TIME
    keep_refused(messages, batch)
    print_outcomes(messages)
    print_summary(deliveries, batch)
    retried = [message.message_id for message in messages if message.has("Retried")]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in retried]}


# --- Settings and clients ---


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the environment, checked; a ValueError names the variable that is wrong."""

    def checked(name: str, pattern: str, needed: str, default: str | None = None) -> str:
        value = environ.get(name, default)
        if value is None or not re.fullmatch(pattern, value, re.ASCII):
            # The value isn't shown: it may be a key.
            raise ValueError(f"{name} is {'missing' if value is None else 'malformed'}: {needed}")
        return value

    key = "a Datadog key, without white space or control characters"
    secret_arn = environ.get("DATADOG_API_KEY_SECRET_ARN", "")
    constant_tags = environ.get("CONSTANT_TAGS", "")
    tags = frozenset(map(ddg_stats_file.normalise_tag, constant_tags.split(",")))
    if constant_tags and "" in tags:
        raise ValueError("CONSTANT_TAGS is malformed: tags with commas between, env:prod,team:data")
    return Settings(
        api_key="" if secret_arn else checked("DATADOG_API_KEY", "[!-~]+", key),
        api_key_secret_arn=secret_arn,
        app_key=checked("DATADOG_APP_KEY", "[!-~]+", key) if "DATADOG_APP_KEY" in environ else None,
        api_host=checked(
            "DATADOG_HOST",
            r"https?://([\w.-]+|\[[\da-fA-F:]+\])(:\d{1,5})?/?",
            "the address of your site's API, such as https://api.datadoghq.eu",
            "https://api.datadoghq.com",
        ),
        stats_prefix=environ.get("STATS_PREFIX", "stats/"),
        rejected_queue_url=checked("REJECTED_QUEUE_URL", r"https?://\S+", "an SQS queue's URL"),
        constant_tags=tags - {""},
        max_age=int(checked("MAX_AGE_SECONDS", r"\d{1,10}", "seconds, 0 for no limit", "3600")),
        log_level=checked(
            "LOG_LEVEL", "(?i:DEBUG|INFO|WARNING|ERROR|CRITICAL)", "a level of logging's", "INFO"
        ).upper(),
    )


def api_key(batch: "Batch") -> str:
    """Return the API key; where it is in a secret, that is read at a cold start alone."""
    arn = batch.settings.api_key_secret_arn
    if not arn:
        return batch.settings.api_key
    try:
        reading = threads("secretsmanager").submit(secret_api_key, arn)
        return wait_for(reading, batch.seconds_left() - MIN_POST_SECONDS)
    except (*AWS_ERRORS, TimeoutError) as error:
        raise ValueError(
            f"DATADOG_API_KEY_SECRET_ARN can't be read: {type(error).__name__}. "
            "Look at the role's policy and at the secret's region."
        ) from None


@cache
def secret_api_key(arn: str) -> str:
    """Read the API key from Secrets Manager: plain, or JSON with an "api_key"."""
    secret = aws_client("secretsmanager").get_secret_value(SecretId=arn).get("SecretString", "")
    try:
        key = json.loads(secret)["api_key"] if secret.lstrip().startswith("{") else secret
        if re.fullmatch("[!-~]+", key.strip()):
            return str(key.strip())
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # told below, without the value
    raise ValueError('DATADOG_API_KEY_SECRET_ARN: the secret is no key and no {"api_key": ...}')


@cache
def aws_client(service: Service) -> Any:
    """Make a client where it is first needed, and keep it and its connections."""
    session = botocore.session.get_session()
    # Nothing here reads a date, and making one of Last-Modified is a sixth of a GET's CPU time.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    config = Config(
        user_agent="ddg-metric-submit",  # else boto3 puts a long one together for each request
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": AWS_ATTEMPTS},
        max_pool_connections=FETCH_THREADS,
    )
    return session.create_client(service, config=config)


@cache
def threads(service: Service) -> ThreadPoolExecutor:
    """Make the threads that wait for a service once; where one hangs no other waits with it."""
    return ThreadPoolExecutor(FETCH_THREADS if service == "s3" else KEEP_THREADS)


@cache
def reader() -> ThreadPoolExecutor:
    """Make the one thread for large bodies: a thread's heap keeps the size of what it has read."""
    return ThreadPoolExecutor(1)


def wait_for(future: "Future[T]", seconds: float) -> T:
    """Return a thread's result; TimeoutError after that many seconds."""
    try:
        return future.result(max(seconds, 0))
    except TimeoutError:
        future.cancel()
        threads.cache_clear()  # a thread that hangs is left behind, and its place with it
        reader.cache_clear()
        raise


# --- Event -> references ---


def read_messages(event: Mapping[str, Any]) -> list[Message]:
    """Return a batch's messages, those received most often first: so a stubborn batch ends."""
    messages = [
        Message(
            record["messageId"],
            record["body"],
            int(record.get("attributes", {}).get("ApproximateReceiveCount", 1)),
            find_references(record["body"]),
        )
        for record in event["Records"]
    ]
    return sorted(messages, key=lambda message: -message.receive_count)


def find_references(body: str) -> list[Delivery]:
    """Return a delivery for each object that an S3 notification names, of whatever version."""
    try:
        notification = json.loads(body)
        if notification.get("Event") == "s3:TestEvent":  # S3 sends one when it is set up
            return []
        named = [find_reference(record) for record in notification["Records"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        named = []
    deliveries = [delivery for delivery in named if delivery]
    if not named or None in named:
        reason = "the message names no object. Let S3 alone, not SNS, send to this queue."
        deliveries.append(Delivery("", "", refused=reason))
    return deliveries


def find_reference(record: Any) -> Delivery | None:
    """Return a delivery for the object that one record names, its key decoded."""
    try:
        bucket = record["s3"]["bucket"]["name"]
        key = unquote_plus(record["s3"]["object"]["key"])
        (bucket + key).encode()  # half a character is in no name
        return Delivery(bucket, key)
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
        return None


# --- References -> objects -> samples ---


def read_files(deliveries: Sequence[Delivery], batch: Batch) -> Iterator[tuple[Delivery, Sample]]:
    """Yield the samples of all files in their order; a delivery that has none says why."""

    def wait(future: "Future[T]") -> T:
        started = time.monotonic()
        try:
            seconds = min(FETCH_SECONDS, batch.seconds_left() - READ_RESERVE_SECONDS)
            return wait_for(future, seconds)
        finally:
            batch.totals["FetchMilliseconds"] += round(1000 * (time.monotonic() - started))

    for delivery, fetched in fetch_ahead([d for d in deliveries if not d.refused], batch):
        try:
            content = wait(fetched)
            if content is None:  # a large object, to be read now
                most = ddg_stats_file.MAX_FILE_BYTES
                content = wait(reader().submit(get_object, aws_client("s3"), delivery, most))
            size = ddg_stats_file.most_plain_bytes(content)
            needed = PARSE_RESERVE_SECONDS + size / PARSE_BYTES_PER_SECOND
            if batch.seconds_left() < needed:
                continue  # it is retried, as whatever isn't known to be submitted or refused
            samples = read_file(delivery.key, content, batch.settings)
            delivery.points = sum(len(sample.values) for sample in samples)
        except (StatsFileError, ParamValidationError) as error:
            delivery.refused = str(error)[:MAX_REASON_BYTES]
        except TimeoutError:
            delivery.retried = "S3 did not send the object in time"
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            code = (error.response["Error"].get("Code") or str(status))[:SHOWN_CHARACTERS]
            if status == 404 and code != "NoSuchBucket":
                delivery.refused = "the object is gone. Keep files until they are submitted."
            else:
                delivery.retried = f"S3 answered {code}. Look at the role's policy and S3's state."
        except AWS_ERRORS as error:
            delivery.retried = f"S3 can't be read ({type(error).__name__})"
        except Exception as error:  # one file's trouble isn't its neighbours'
            logger.exception("unexpected: a bug of this function's")
            delivery.retried = f"unexpected {type(error).__name__}, see the traceback"
        else:
            del content  # it and its samples would stay while the next file is read
            samples.reverse()
            while samples:
                yield delivery, samples.pop()


def fetch_ahead(
    deliveries: Sequence[Delivery], batch: Batch
) -> Iterator[tuple[Delivery, "Future[Any]"]]:
    """Fetch objects side by side, a bounded number of them ahead of what has been asked for."""
    running: deque[tuple[Delivery, Future[Any]]] = deque()
    s3 = aws_client("s3") if deliveries else None
    try:
        for delivery in deliveries:
            if batch.seconds_left() < READ_RESERVE_SECONDS:
                break
            fetched = threads("s3").submit(get_object, s3, delivery, SMALL_BYTES)
            running.append((delivery, fetched))
            if len(running) == FETCH_AHEAD:
                yield running.popleft()
        while running:
            yield running.popleft()
    finally:
        for _, fetched in running:
            fetched.cancel()


def get_object(s3: Any, delivery: Delivery, most: int) -> bytes | None:
    """Return an object's bytes; None, and nothing of it is read, where there are more than most."""
    answer = s3.get_object(Bucket=delivery.bucket, Key=delivery.key)
    body, length = answer["Body"], answer.get("ContentLength")
    if length is not None and length <= most:
        return bytes(body.read())
    if length is None and most == ddg_stats_file.MAX_FILE_BYTES:
        return bytes(body.read(most + 1))
    body.close()
    if length is not None and length > ddg_stats_file.MAX_FILE_BYTES:
        raise ddg_stats_file.too_large()
    return None


def read_file(key: str, content: bytes, settings: Settings) -> list[Sample]:
    """Return a file's samples with all their tags; none for a "folder" made in S3's console."""
    if not content and key.endswith("/"):
        return []
    job = ddg_stats_file.job_tag(key, settings.stats_prefix)
    tags = settings.constant_tags | ({job} if job else set())
    return ddg_stats_file.read_stats_file(
        content, now=time.time(), max_age=settings.max_age, tags=tags
    )


# --- Payloads -> outcomes ---


def post_payloads(payloads: Iterable[Payload], batch: Batch) -> str:
    """Post payloads, in parts where Datadog refuses the whole; return why it ended early, or ""."""
    allowed = MAX_EXTRA_REQUESTS
    pauses = list(RETRY_PAUSES)
    reread = not batch.settings.api_key_secret_arn
    trouble = ""
    owners: Owners = {}
    for payload in payloads:
        batch.totals["Collisions"] += count_collisions(payload, owners)
        allowed += 1
        parts, payload = [payload], []  # else it would stay while the next one is made
        while parts:
            part = without_refused(parts.pop(), batch.settings.max_age)
            if not part:
                continue
            seconds = min(POST_SECONDS, batch.seconds_left())
            if seconds < MIN_POST_SECONDS:
                return trouble or NO_TIME
            if batch.totals["Requests"] >= allowed:
                return f"{MAX_EXTRA_REQUESTS} requests more than payloads are the limit of a batch"
            answer = post(part, batch, seconds)
            if answer.status_code == 202:
                for delivery, sample in part:
                    delivery.accepted += len(sample.values)
                continue
            reason = why(answer)
            if answer.status_code in (400, 413):
                halves = ddg_series_api.halve_owners(part)  # one bad file spoils all files' answer
                if not halves and answer.status_code == 413:
                    halves = ddg_series_api.halve_points(part)
                if not halves:
                    part[0][0].refused = reason
                allowed += not answer.wire_bytes  # it was too large to be sent: a payload more
                parts += reversed(halves)
            elif answer.status_code in (401, 403) and not reread:
                reread = True
                wrong_key = api_key(batch)
                secret_api_key.cache_clear()
                if api_key(batch) == wrong_key:
                    return reason
                parts.append(part)
            elif (
                answer.status_code in RETRY_AT_ONCE
                and pauses
                and batch.seconds_left() > sum(pauses)
            ):
                trouble = reason
                time.sleep(pauses.pop(0))
                parts.append(part)
            else:
                return reason
        part = []
    return ""


def without_refused(payload: Payload, max_age: int) -> Payload:
    """Return what is still to be sent: time passes, and a point ages out while it waits."""
    now = time.time()
    for delivery, sample in payload:
        try:
            ddg_stats_file.check_timestamp(sample.timestamp, now, max_age)
        except StatsFileError as error:
            delivery.refused = str(error)
    return [entry for entry in payload if not entry[0].refused]


# The hash of metric and tags, which are too long to keep -> second -> its first file's address
Owners = dict[int, dict[int, str]]


def count_collisions(payload: Payload, owners: Owners) -> int:
    """Count points of which an earlier file has one with the same metric, tags and second."""
    points = sum(len(sample.values) for _, sample in payload)
    if points + sum(map(len, owners.values())) > MAX_COLLISION_POINTS:
        owners.clear()
    collisions = 0
    for delivery, sample in payload:
        owner = address(delivery)
        for metric in sample.values:
            seconds = owners.setdefault(hash((metric, sample.tags)), {})
            collisions += seconds.setdefault(sample.timestamp, owner) != owner
    return collisions


def post(payload: Payload, batch: Batch, seconds: float) -> Answer:
    """POST a payload, and count it."""
    settings = batch.settings
    started = time.monotonic()
    answer = ddg_series_api.post(
        ddg_series_api.build_series(sample for _, sample in payload),
        api_key=api_key(batch),
        app_key=settings.app_key,
        host=settings.api_host,
        seconds=seconds,
    )
    batch.totals["PostMilliseconds"] += round(1000 * (time.monotonic() - started))
    batch.totals["Requests"] += answer.wire_bytes > 0
    batch.totals["WireBytes"] += answer.wire_bytes
    logger.debug("POST of %d samples: %s", len(payload), answer)
    return answer


def why(answer: Answer) -> str:
    """Return an answer other than 202 as a reason, the same for the same trouble."""
    if answer.status_code == 0:
        return f"no answer from Datadog: {answer.text}"
    if answer.status_code in (401, 403):
        hint = "The API key and DATADOG_HOST aren't of the same site, or the key is wrong. "
    else:
        hint = ""
    return f"Datadog answered {answer.status_code}. {hint}{answer.text[:SHOWN_CHARACTERS]}"


def keep_refused(messages: Iterable[Message], batch: Batch) -> None:
    """Send each message that ends as refused to the rejected queue; where that fails, retry it."""
    refused = [m for m in messages if m.has("Refused") and not m.has("Retried")]
    if not refused:
        return
    sqs, url = aws_client("sqs"), batch.settings.rejected_queue_url
    sends = [threads("sqs").submit(keep, sqs, url, message) for message in refused]
    futures.wait(sends, max(batch.seconds_left() + RESERVE_SECONDS / 2, 0))
    for message, send in zip(refused, sends, strict=True):
        in_time = not send.cancel() and send.done()
        trouble = send.result() if in_time else "no answer in time"
        if trouble:
            for delivery in message.deliveries:
                if delivery.refused:
                    delivery.retried = f"the rejected queue takes nothing: {trouble}"
    if not all(send.done() for send in sends):
        threads.cache_clear()  # a thread that hangs is left behind, and its place with it


def keep(sqs: Any, url: str, message: Message) -> str:
    """Send a message to the rejected queue; return why that failed, or ""."""
    try:
        answer = sqs.send_message(QueueUrl=url, **rejected_message(message))
    except AWS_ERRORS as error:
        return type(error).__name__
    return "" if answer.get("MessageId") else "it doesn't say that it has the message"


def rejected_message(message: Message) -> dict[str, Any]:
    """Return a message for the rejected queue: the body as it came, the reason beside it."""
    refused = [delivery for delivery in message.deliveries if delivery.refused]
    reason = "; ".join(f"{each.key}: {each.refused}".removeprefix(": ") for each in refused)
    if len(message.deliveries) == 1:
        reason = refused[0].refused
    elif len(reason.encode()) > MAX_REASON_BYTES:  # each is to be named
        keys = ", ".join(each.key for each in refused)
        reason = f"{len(refused)} files: {keys}: {refused[0].refused}"
    texts = {"reason": printable(reason).encode()[:MAX_REASON_BYTES].decode(errors="ignore")}
    if refused[0].bucket:
        texts |= {"bucket": printable(refused[0].bucket), "key": printable(refused[0].key)}
    body = NOT_FOR_SQS.sub("\N{REPLACEMENT CHARACTER}", message.body) or "(empty)"
    if len((body + "".join(f"{name}String{text}" for name, text in texts.items())).encode()) > (
        MAX_MESSAGE_BYTES
    ):
        logger.warning("message %s is kept without its reason: no room", message.message_id)
        texts = {}
    attributes = {name: {"DataType": "String", "StringValue": text} for name, text in texts.items()}
    return {"MessageBody": body, "MessageAttributes": attributes}


def printable(text: str) -> str:
    """Return a text fit for a log line and an SQS attribute: one line, never empty."""
    text = CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text)
    return NOT_FOR_SQS.sub("\N{REPLACEMENT CHARACTER}", text) or "(empty)"


def address(delivery: Delivery) -> str:
    """Return where an object is, fit for a log line."""
    return printable(f"s3://{delivery.bucket}/{delivery.key}"[:MAX_ADDRESS_CHARACTERS])


def print_outcomes(messages: Iterable[Message]) -> None:
    """Print a line for each refusal, and one for each reason to retry, whatever the LOG_LEVEL."""
    retried: dict[str, list[Delivery]] = {}
    for message in messages:
        for delivery in message.deliveries:
            if delivery.outcome == "Refused":
                where = address(delivery) if delivery.bucket else f"message {message.message_id}"
                print(f"refused {where}: {printable(delivery.refused)}")
            elif delivery.outcome == "Retried":
                retried.setdefault(delivery.retried, []).append(delivery)
    for reason, deliveries in retried.items():
        names = ", ".join(map(address, deliveries[:SHOWN_KEYS]))
        more = ", ..." if len(deliveries) > SHOWN_KEYS else ""
        print(f"retried {len(deliveries)}: {printable(reason)}: {names}{more}")


def print_summary(deliveries: Iterable[Delivery], batch: Batch) -> None:
    """Print the batch as one line of CloudWatch's embedded metric format, zeros too.

    Raw on stdout: CloudWatch makes metrics of a line only while nothing wraps it.
    """
    files = Counter(delivery.outcome for delivery in deliveries if delivery.points != 0)
    points = Counter(Points=sum(delivery.accepted for delivery in deliveries))
    values = files + points + batch.totals
    metrics = [{"Name": name, "Unit": unit} for name, unit in SUMMARY_UNITS.items()]
    emf = {
        "Timestamp": int(1000 * time.time()),
        "CloudWatchMetrics": [
            {"Namespace": "DatadogStats", "Dimensions": [["FunctionName"]], "Metrics": metrics}
        ],
    }
    summary = {"_aws": emf, "FunctionName": batch.context.function_name}
    print(json.dumps(summary | {name: values[name] for name in SUMMARY_UNITS}), flush=True)


SUMMARY_UNITS = {
    "Submitted": "Count",
    "Refused": "Count",
    "Retried": "Count",
    "Points": "Count",
    "Collisions": "Count",
    "Requests": "Count",
    "WireBytes": "Bytes",
    "FetchMilliseconds": "Milliseconds",
    "PostMilliseconds": "Milliseconds",
}


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    aws_client("s3")  # while Lambda gives a whole core: it gives an invocation a third of one
