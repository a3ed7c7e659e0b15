"""What comes in: the objects that a batch of SQS messages names, and their bytes from S3."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from urllib.parse import unquote, unquote_plus

import botocore.session  # boto3 only adds 20 ms of imports that nothing here needs
from botocore.config import Config
from botocore.exceptions import ClientError

import ddg_json_file
import ddg_stats_file

FETCH_THREADS = 32  # objects fetched in parallel: boto3 takes 1 ms of CPU for a GET of 20 ms
FETCH_AHEAD = 2 * FETCH_THREADS  # objects fetched before they are parsed; it bounds the memory
SMALL_BYTES = 256 * 1024  # larger objects are read one at a time, which bounds the memory
CONNECT_SECONDS = 2  # to connect to AWS
READ_SECONDS = 5  # between two bytes of a response
AWS_ATTEMPTS = 3  # attempts for each request: botocore retries throttled and broken ones
REPLAYED = "replayed"  # message attribute that the operator's command sets on what it puts back
NO_OBJECT = "the message names no object. Let only S3, SNS and EventBridge send to this queue."
UNCONFIRMED = "SNS asks to confirm a subscription. Let the stack subscribe to the topic."

MALFORMED = (ValueError, KeyError, TypeError, AttributeError)  # JSON of another shape
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False)
class File:
    """One object named by one message; compared by identity, since two messages may name it."""

    bucket: str
    key: str  # as the message has it; decoded if that is the one S3 knows
    receive_count: int = 1  # how often SQS has delivered the message, including this time
    fault: str = ""  # why it is refused without reading the object
    decoded_key: str = ""  # set if the key may have been encoded
    version: str = ""  # which version to read; "" is the newest
    created: bool = True  # False: it was removed, tagged, restored, ...
    event_time: float | None = None  # epoch seconds; None if unknown, or if the delay doesn't count
    last_modified: str = ""  # an HTTP date, set when the object is read

    def is_below(self, prefix: str) -> bool:
        """Tell whether the key, raw or decoded, is below a prefix."""
        return self.key.startswith(prefix) or self.decoded_key.startswith(prefix)


class Message(NamedTuple):
    """One SQS message of a batch."""

    message_id: str
    body: str
    files: tuple[File, ...]  # none for S3's test event


class Service:
    """The client of an AWS service with its own threads: if it hangs, the others don't wait."""

    def __init__(self, session: botocore.session.Session, name: str, threads: int) -> None:
        self._session, self._name, self._number = session, name, threads
        self._threads = ThreadPoolExecutor(threads)

    @cached_property
    def client(self) -> Any:
        """Make the client when it is first needed, and keep it with its connections."""
        config = Config(
            user_agent="ddg-metric-submit",  # otherwise botocore builds a long one for each request
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": AWS_ATTEMPTS},
            max_pool_connections=self._number,
        )
        return self._session.create_client(self._name, config=config)

    def start(
        self, call: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> "Future[T]":
        """Start a call with the client in a thread."""
        return self._threads.submit(call, self.client, *args, **kwargs)

    def result(self, future: "Future[T]", seconds: float) -> T:
        """Wait for a call's result; raise TimeoutError after that many seconds."""
        try:
            return future.result(max(seconds, 0))
        except TimeoutError:
            if not future.cancel():  # a thread that hangs is left behind and replaced
                self._threads = ThreadPoolExecutor(self._number)
            raise


# --- Event -> messages -> files ---


def read_messages(event: Mapping[str, Any]) -> list[Message]:
    """Return a batch's messages, the most often received first, so that none starves.

    Messages that the operator's command has put back don't count for the delay.
    """

    def receive_count(record: Mapping[str, Any]) -> int:
        return int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))

    messages = []
    for record in sorted(event["Records"], key=receive_count, reverse=True):
        files = tuple(find_files(record["body"], receive_count(record)))
        if REPLAYED in record.get("messageAttributes", {}):
            for file in files:
                file.event_time = None
        messages.append(Message(record["messageId"], record["body"], files))
    return messages


def find_files(body: str, receive_count: int = 1) -> list[File]:
    """Return a file for each object that a body names; none for S3's test event.

    The body is an S3 notification or an EventBridge event, on its own or in an SNS envelope.
    """
    nameless = File("", "", receive_count, NO_OBJECT)
    try:
        told = json.loads(body)
        if told.get("Type") == "Notification":  # SNS's envelope
            told = json.loads(told["Message"])
        if told.get("Event") == "s3:TestEvent":  # S3 sends it when a notification is set up
            return []
        if told.get("Type") == "SubscriptionConfirmation":
            return [File("", "", receive_count, UNCONFIRMED)]
        is_event = told.get("source") == "aws.s3"
        records = [told] if is_event else list(told["Records"])
    except (*MALFORMED, RecursionError):
        return [nameless]
    files = [find_file(record, receive_count, is_event=is_event) for record in records]
    return [file for file in files if file] + [nameless] * (not files or None in files)


def find_file(record: Any, receive_count: int, *, is_event: bool) -> File | None:
    """Return the object that S3's record or EventBridge's event names; None: it names none.

    The key is form-encoded in a record. In events that were captured it is as it is, but some
    senders percent-encode it.
    """
    created = True
    try:
        if is_event:
            created = (record.get("detail-type") or "Object Created") == "Object Created"
            told, version, at = record["detail"], "version-id", record.get("time")
        else:
            told, version, at = record["s3"], "versionId", record.get("eventTime")
            created = (record.get("eventName") or "ObjectCreated:").startswith("ObjectCreated:")
        key, version = told["object"]["key"], told["object"].get(version)
        file = File(
            told["bucket"]["name"],
            key if is_event else unquote_plus(key),
            receive_count,
            decoded_key=unquote(key) if is_event else "",
            version="" if version in (None, "null") else version,
            created=created,
            event_time=read_time(at),
        )
        (file.bucket + file.key + file.version).encode()  # S3 can't have a name that fails here
        if file.bucket and file.key:
            return file
    except MALFORMED:
        pass
    return File("", "", receive_count, created=False) if is_event and not created else None


def read_time(text: Any) -> float | None:
    """Return an event's time in epoch seconds; None if it has none."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None


def job_folder(key: str, prefix: str) -> str:
    """Return the job: the first folder below the prefix, "" if there is none."""
    if not key.startswith(prefix):
        return ""
    folder, slash, _ = key.removeprefix(prefix).lstrip("/").partition("/")
    return folder if slash else ""


def job_tag(folder: str) -> str:
    """Return `job:<job>` as Datadog normalises it; "" if nothing is left of the job's name."""
    tag = ddg_stats_file.normalise_tag(f"job:{folder}")
    return "" if tag == "job:" else tag


def is_marker(file: File, content: bytes | None = None) -> bool:
    """Tell whether a file is a marker: by its name, and by its content once that is read.

    Spark's committers write JSON into _SUCCESS. Hadoop's other markers are empty, and so are the
    "folders" made in the S3 console.
    """
    name = file.key.rpartition("/")[2]
    empty_marker = name[:1] in ("", "_", ".") or name.endswith("_$folder$")
    return name == "_SUCCESS" or (content == b"" and empty_marker)


# --- Files -> objects ---


def fetch_ahead(
    files: Sequence[File], s3: Service, latest: float
) -> Iterator[tuple[File, "Future[bytes | None] | None"]]:
    """Fetch objects in parallel, a bounded number of them ahead of the caller.

    latest: of time.monotonic(); what hasn't been started by then comes without a fetch (None).
    """
    running: deque[tuple[File, Future[bytes | None]]] = deque()
    waiting = deque(files)
    try:
        while waiting and time.monotonic() <= latest:
            file = waiting.popleft()
            running.append((file, s3.start(get_object, file, SMALL_BYTES)))
            if len(running) == FETCH_AHEAD:
                yield running.popleft()
        while running:
            yield running.popleft()
    finally:
        for _, fetched in running:
            fetched.cancel()
    for file in waiting:
        yield file, None


def is_missing(error: ClientError) -> bool:
    """Tell whether S3 has no such object: it answers 404 to callers who may list the bucket."""
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status == 404 and error.response["Error"].get("Code") != "NoSuchBucket"


def get_object(client: Any, file: File, most: int) -> bytes | None:
    """Return an object's bytes; None, without reading any, if there are more than `most`."""
    named = {"Bucket": file.bucket} | ({"VersionId": file.version} if file.version else {})
    try:
        answer = client.get_object(Key=file.key, **named)
    except ClientError as error:
        if file.decoded_key in ("", file.key) or not is_missing(error):
            raise
        answer = client.get_object(Key=file.decoded_key, **named)
        file.key = file.decoded_key
    file.last_modified = answer["ResponseMetadata"]["HTTPHeaders"].get("last-modified", "")
    body, length = answer["Body"], answer.get("ContentLength")
    if length is not None and length <= most:
        return bytes(body.read())
    if length is None and most == ddg_json_file.MAX_FILE_BYTES:
        return bytes(body.read(most + 1))
    body.close()
    if length is not None and length > ddg_json_file.MAX_FILE_BYTES:
        raise ddg_json_file.too_large()
    return None
