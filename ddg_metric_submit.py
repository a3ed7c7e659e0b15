"""SQS -> S3 -> Datadog: submit the metrics of every stats file that a batch of messages names.

Each file that a message names has exactly one outcome (ddg_outcomes.py). It is retried unless it
is known to be submitted, refused, skipped or ignored.
"""

import gc
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import botocore.session
from botocore.exceptions import ClientError, ParamValidationError

import ddg_json_file
import ddg_outcomes
import ddg_s3_objects
import ddg_series_api
import ddg_settings
import ddg_stats_file
from ddg_faults import MAX_REASON_BYTES
from ddg_json_file import RetryError, StatsFileError
from ddg_outcomes import Ignored, Outcome, Outcomes, Refused, Retry, Skipped, Submitted, has
from ddg_s3_objects import File, Message, Service
from ddg_series_api import Answer, Call, Verdict, is_final, judge, judge_key
from ddg_settings import AWS_ERRORS, ApiKey, Batch, Clients, Settings
from ddg_stats_file import Sample

FETCH_SECONDS = 5.0  # a slow object doesn't cost the others more
PARSE_BYTES_PER_SECOND = 2_000_000  # for a nested file, with a sixth of a CPU (256 MB of memory)
MAX_EXTRA_REQUESTS = 64  # of a batch, beyond one for each payload
RETRY_PAUSES = (0.2, 0.8)  # seconds, for a batch: an outage costs it three requests
POST_SECONDS = 10.0  # Datadog usually answers in a tenth of a second
MIN_POST_SECONDS = 1.0  # don't start a POST with less time left
KEY_WAIT_SECONDS = 1.0  # how long the first POST waits for the check of the key
RESERVE_SECONDS = 1.0  # for the rejected queue and the response
PARSE_RESERVE_SECONDS = MIN_POST_SECONDS + 0.25  # for posting what has been parsed
READ_RESERVE_SECONDS = PARSE_RESERVE_SECONDS + 0.25  # for parsing what has been read
SHOWN_CHARACTERS = 400  # of a service's message in a reason
NO_TIME = "no time was left for it in this invocation"
WRONG_KEY = "The API key and DATADOG_HOST aren't of the same site, or the key is wrong. "

logger = logging.getLogger(__name__)
Entries = list[tuple[File, Sample]]  # a payload's, or a part's


@dataclass
class Budget:
    """What a batch may still ask of Datadog."""

    requests: int = MAX_EXTRA_REQUESTS
    pauses: list[float] = field(default_factory=lambda: list(RETRY_PAUSES))
    key_reads: int = 1

    def pause(self, seconds_left: float) -> bool:
        """Pause before the next attempt; return False if no pause or no time is left."""
        if not self.pauses or seconds_left <= sum(self.pauses):
            return False
        time.sleep(self.pauses.pop(0))
        return True

    def refresh(self, key: ApiKey, seconds_left: float) -> bool:
        """Read the key again, once in a batch; tell whether it has changed."""
        self.key_reads -= 1
        return self.key_reads >= 0 and key.refresh(seconds_left - MIN_POST_SECONDS)


@dataclass
class Posted:
    """The results of a batch's POSTs."""

    accepted: Counter[File] = field(default_factory=Counter)  # points answered with 202
    accepted_at: dict[File, float] = field(default_factory=dict)  # epoch seconds of the last 202
    alone: dict[File, Refused | Retry] = field(default_factory=dict)  # files judged on their own
    stopped: str = ""  # why posting stopped early

    def outcome(self, file: File, points: int | None) -> Outcome:
        """Return the outcome of a file with so many points; None: it wasn't read."""
        if file in self.alone:
            return self.alone[file]
        if points is None or self.accepted[file] != points:
            return Retry(self.stopped or NO_TIME)
        return Submitted(points, self.accepted_at[file])


def lambda_handler(event: Mapping[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
    """Submit every stats file that a batch of messages names; return what to retry.

    Args:
        event: a batch of up to 10,000 SQS messages about S3 objects.
        context: Lambda's; it knows the time left and the function's name.

    Raises:
        ValueError: an environment variable is missing or malformed, or the secret can't be read;
            the batch stays in the queue.
    """
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS
    settings = ddg_settings.read_settings(os.environ)
    batch = Batch(settings, lambda_clients(settings), deadline, ddg_outcomes.Statistics())
    messages = ddg_s3_objects.read_messages(event)
    files = [file for message in messages for file in message.files]
    submitted = submit_files(files, batch)
    outcomes = keep_refused(messages, submitted, batch)
    ddg_outcomes.print_outcomes(messages, outcomes, submitted=settings.log_files)
    jobs = {file: find_job(file, settings) for file in files}
    watched = {file: job for file, job in jobs.items() if settings.job(job).watched}
    ddg_outcomes.print_summary(outcomes, watched, batch.statistics, context.function_name)
    retried = [message.message_id for message in messages if has(message, outcomes, Retry)]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in retried]}


def find_job(file: File, settings: Settings) -> str:
    """Return a file's job, its folder as written; "" for none."""
    return ddg_s3_objects.job_folder(file.key, settings.prefix_of(file.bucket))


@cache
def lambda_clients(settings: Settings) -> Clients:
    """Make the clients once, at an execution environment's first invocation."""
    for library in ("botocore", "urllib3", "datadog.api"):  # they log each request at INFO
        logging.getLogger(library).setLevel(logging.ERROR)
    logger.setLevel(settings.log_level)
    session = botocore.session.get_session()
    # Nothing here needs parsed dates, and parsing them takes a sixth of a GET's CPU time.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    clients = ddg_settings.make_clients(settings, session)
    gc.freeze()  # never collect what is here now: looking at it takes 10 ms
    return clients


# --- Files -> samples ---


def submit_files(files: Sequence[File], batch: Batch) -> dict[File, Outcome]:
    """Submit files and return the outcome of each."""
    outcomes: dict[File, Outcome] = {}
    points: dict[File, int] = {}

    def readable() -> Iterator[tuple[File, list[Sample]]]:
        for file, read in read_files(files, batch):
            if isinstance(read, list):
                points[file] = ddg_series_api.count_points(read)
                yield file, read
            else:
                outcomes[file] = read
            del read  # otherwise it stays in memory while the next file is read

    question = ask_about_key(batch) if files else None
    payloads = ddg_series_api.pack(readable(), ddg_settings.read_metrics(batch.settings.metrics))
    posted = post_payloads(payloads, question, batch)
    return {file: outcomes.get(file, posted.outcome(file, points.get(file))) for file in files}


def read_files(
    files: Sequence[File], batch: Batch
) -> Iterator[tuple[File, list[Sample] | Outcome]]:
    """Yield the samples of each file, or its outcome if it has none. A dry run stops here."""
    wanted = []
    for file in files:
        if file.fault:
            yield file, Refused(file.fault)
        elif not file.created or not file.is_below(batch.settings.prefix_of(file.bucket)):
            yield file, Ignored()
        elif ddg_s3_objects.is_marker(file):
            yield file, Skipped()
        else:
            wanted.append(file)
    latest = batch.deadline - READ_RESERVE_SECONDS
    for file, fetched in ddg_s3_objects.fetch_ahead(wanted, batch.clients.s3, latest):
        yield file, read_file(file, fetched, batch) if fetched else Retry(NO_TIME)


def read_file(file: File, fetched: "Future[bytes | None]", batch: Batch) -> list[Sample] | Outcome:
    """Return the samples of a file that is being fetched, or its outcome if it has none."""
    try:
        content = receive(file, fetched, batch)
        if ddg_s3_objects.is_marker(file, content):
            return Skipped()
        size = ddg_json_file.most_plain_bytes(content)
        if batch.seconds_left() < PARSE_RESERVE_SECONDS + size / PARSE_BYTES_PER_SECOND:
            return Retry(NO_TIME)
        return parse(file, content, batch.settings, batch.deadline)
    except RetryError as error:
        return Retry(str(error))
    except (StatsFileError, ParamValidationError) as error:
        return Refused(str(error)[:MAX_REASON_BYTES])
    except TimeoutError:
        return Retry("S3 did not send the object in time")
    except ClientError as error:
        if ddg_s3_objects.is_missing(error):
            return Refused("the object is gone. Keep files until they are submitted.")
        return Retry(why_unread(error, file))
    except AWS_ERRORS as error:
        return Retry(f"S3 can't be read ({type(error).__name__})")
    except Exception as error:  # one file mustn't cost the others
        logger.exception("unexpected: a bug of this function's")
        return Retry(f"unexpected {type(error).__name__}, see the traceback")


def why_unread(error: ClientError, file: File) -> str:
    """Return an S3 error as a reason, with the same words for each object."""
    told = error.response["Error"]
    reason = told.get("Code") or str(error.response["ResponseMetadata"]["HTTPStatusCode"])
    if reason == "AccessDenied":  # its message names kms:Decrypt if that is denied
        words = told.get("Message", "").replace(f"{file.bucket}/{file.key}", f"{file.bucket}/...")
        reason = f"{reason}: {words}"
    return f"S3 answered {reason[:SHOWN_CHARACTERS]}. Look at the role's policy and S3's state."


def receive(file: File, fetched: "Future[bytes | None]", batch: Batch) -> bytes:
    """Return the bytes of an object that is being fetched; fetch a large one now."""
    started = time.monotonic()

    def wait(service: Service, future: "Future[bytes | None]") -> bytes | None:
        seconds = min(FETCH_SECONDS, batch.seconds_left() - READ_RESERVE_SECONDS)
        return service.result(future, seconds)

    large, most = batch.clients.large, ddg_json_file.MAX_FILE_BYTES
    try:
        content = wait(batch.clients.s3, fetched)
        if content is None:
            content = wait(large, large.start(ddg_s3_objects.get_object, file, most))
        return content or b""
    finally:
        batch.statistics.fetch_seconds += time.monotonic() - started


def parse(file: File, content: bytes, settings: Settings, deadline: float) -> list[Sample]:
    """Return a stats file's samples with all their tags, including the job's.

    Raises:
        StatsFileError: the file is refused. RetryError: it can't be read now.
    """
    folder = find_job(file, settings)
    job_tag = ddg_s3_objects.job_tag(folder)
    return ddg_stats_file.read_stats_file(
        content,
        now=time.time(),
        max_age=settings.max_age,
        tags=settings.constant_tags | ({job_tag} - {""}),
        prefix=settings.metric_prefix,
        mapping=load_mapping(settings.job(folder).mapping, deadline),
        last_modified=file.last_modified,
    )


def load_mapping(expression: str, deadline: float) -> ddg_stats_file.Mapping | None:
    """Return a function that applies a mapping, "" is none; raise RetryError if it is wrong."""
    if not expression:
        return None
    import ddg_mapping  # only jobs with a mapping pay for importing jmespath

    return partial(ddg_mapping.map_document, ddg_mapping.compile_mapping(expression), deadline)


# --- Samples -> payloads -> outcomes ---


def post_payloads(payloads: Iterator[Entries], question: Call | None, batch: Batch) -> Posted:
    """Post payloads, unless Datadog has said that the key isn't valid."""
    posted, budget = Posted(), Budget()
    for payload in payloads:
        if question and is_key_refused(question, budget, batch):
            posted.stopped = why(Answer(403, ""))
            deque(payloads, maxlen=0)  # read the other files: some may be refused
        else:
            posted.stopped = post_payload(payload, posted, budget, batch)
        if posted.stopped:
            break
        question = None
        del payload  # otherwise it stays in memory while the next one is read
    return posted


def ask_about_key(batch: Batch) -> Call | None:
    """Start checking the key unless it was valid recently: v1 answers 202 to any key."""
    key = batch.clients.key
    if not key.value:
        key.refresh(batch.seconds_left() - MIN_POST_SECONDS)
    known = key.is_valid(time.time())
    return None if known else batch.clients.datadog.validate(key.value, POST_SECONDS)


def is_key_refused(question: Call, budget: Budget, batch: Batch) -> bool:
    """Tell whether Datadog says no to the key, and to a new one if the secret has changed."""
    key = batch.clients.key
    seconds = min(KEY_WAIT_SECONDS, batch.seconds_left() - PARSE_RESERVE_SECONDS)
    valid = judge_key(question.wait(seconds))
    if valid is False and budget.refresh(key, batch.seconds_left()):
        valid = judge_key(batch.clients.datadog.validate(key.value, seconds).wait(seconds))
    if valid:
        key.valid_at = time.time()
    return valid is False


def post_payload(payload: Entries, posted: Posted, budget: Budget, batch: Batch) -> str:
    """Post a payload, in parts if Datadog refuses the whole; return why to stop, or ""."""
    trouble = ""
    budget.requests += 1
    parts = [payload]
    while parts:
        part = drop_old(parts.pop(), posted, batch.settings.max_age)
        if not part:
            continue
        if batch.seconds_left() < MIN_POST_SECONDS:
            return trouble or NO_TIME
        if budget.requests <= 0:
            return f"{MAX_EXTRA_REQUESTS} requests more than payloads are the limit of a batch"
        answer = post(part, batch)
        budget.requests -= answer.wire_bytes > 0
        match judge(answer):
            case Verdict.ACCEPT:
                for file, sample in part:
                    posted.accepted[file] += len(sample.values)
                    posted.accepted_at[file] = time.time()
                    batch.statistics.points += len(sample.values)
            case Verdict.SPLIT:
                budget.requests += not answer.wire_bytes  # too large to send: one payload more
                parts += split(part, answer, posted)
            case Verdict.READ_KEY if budget.refresh(batch.clients.key, batch.seconds_left()):
                parts.append(part)
            case Verdict.AGAIN if budget.pause(batch.seconds_left()):
                trouble = why(answer)
                parts.append(part)
            case _:
                return why(answer)
    return ""


def drop_old(part: Entries, posted: Posted, max_age: int) -> Entries:
    """Return what can still be sent: points age while they wait. Mapped files show no value."""
    now = time.time()
    for file, sample in part:
        try:
            ddg_stats_file.check_timestamp(sample.timestamp, now, max_age, show_values=False)
        except StatsFileError as error:
            posted.alone[file] = Refused(str(error))
    return [entry for entry in part if entry[0] not in posted.alone]


def split(part: Entries, answer: Answer, posted: Posted) -> list[Entries]:
    """Return the halves to post instead of a part; none if a single file is at fault."""
    halves = ddg_series_api.halve(part, within_owner=answer.status_code == 413)
    if not halves:
        file = part[0][0]
        final = is_final(answer, file.receive_count)
        posted.alone[file] = (Refused if final else Retry)(why(answer))
    return halves[::-1]  # the last part is posted first


def post(part: Entries, batch: Batch) -> Answer:
    """POST a part of a payload and count it."""
    started = time.monotonic()
    types = ddg_settings.read_metrics(batch.settings.metrics)
    series = ddg_series_api.build_series((sample for _, sample in part), types)
    seconds = min(POST_SECONDS, batch.seconds_left())
    answer = batch.clients.datadog.post(series, batch.clients.key.value, seconds)
    batch.statistics.post_seconds += time.monotonic() - started
    batch.statistics.requests += answer.wire_bytes > 0
    batch.statistics.wire_bytes += answer.wire_bytes
    logger.debug("POST of %d samples: %s", len(part), answer)
    return answer


def why(answer: Answer) -> str:
    """Return a response other than 202 as a reason, with the same words for each file."""
    if answer.status_code == 0:
        return f"no answer from Datadog: {answer.text}"
    hint = WRONG_KEY if answer.status_code in (401, 403) else ""
    return f"Datadog answered {answer.status_code}. {hint}{answer.text[:SHOWN_CHARACTERS]}"


# --- Outcomes -> messages ---


def keep_refused(messages: Iterable[Message], outcomes: Outcomes, batch: Batch) -> Outcomes:
    """Send refused messages to the rejected queue; return the settled outcomes."""
    sqs, url = batch.clients.sqs, batch.settings.rejected_queue_url
    sends = {
        message: sqs.start(keep, url, message, outcomes)
        for message in messages
        if has(message, outcomes, Refused) and not has(message, outcomes, Retry)
    }
    troubles: dict[Message, str] = {}
    for message, send in sends.items():
        try:
            troubles[message] = sqs.result(send, batch.seconds_left() + RESERVE_SECONDS / 2)
        except TimeoutError:
            troubles[message] = "no answer in time"
    return {
        file: outcome
        for message in messages
        for file, outcome in ddg_outcomes.settle(
            message, outcomes, troubles.get(message, "")
        ).items()
    }


def keep(sqs: Any, url: str, message: Message, outcomes: Outcomes) -> str:
    """Send a message to the rejected queue; return why it failed, or ""."""
    try:
        answer = sqs.send_message(QueueUrl=url, **ddg_outcomes.rejected_message(message, outcomes))
    except AWS_ERRORS as error:
        return type(error).__name__
    return "" if answer.get("MessageId") else "it doesn't say that it has the message"
