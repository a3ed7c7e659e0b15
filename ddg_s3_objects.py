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

import botocore.session  # boto3 is this and 20 ms of imports that nothing here needs
from botocore.config import Config
from botocore.exceptions import ClientError

import ddg_json_file
import ddg_stats_file

FETCH_THREADS = 32  # objects fetched side by side: boto3 takes 1 ms of CPU for a GET of 20 ms
FETCH_AHEAD = 2 * FETCH_THREADS  # objects fetched before they are parsed, to bound the memory
SMALL_BYTES = 256 * 1024  # larger objects are read one at a time, to bound the memory
CONNECT_SECONDS = 2  # a connection to AWS
READ_SECONDS = 5  # between two bytes of an answer
AWS_ATTEMPTS = 3  # tries a request: botocore tries again where it is throttled or cut off
REPLAYED = "replayed"  # the attribute of a message that the operator's command has put back
NO_OBJECT = "the message names no object. Let only S3, SNS and EventBridge send to this queue."
UNCONFIRMED = "SNS asks to confirm a subscription. Let the stack subscribe to the topic."

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False)
class File:
    """One object that one message names; equal to itself alone, as two messages may name it."""

    bucket: str
    key: str  # as it was told, until S3 is found to have it decoded
    receive_count: int = 1  # how often SQS has delivered its message, this time included
    fault: str = ""  # why it is refused without a look at the object
    decoded_key: str = ""  # where the key may have been encoded
    version: str = ""  # which one to read; the newest where none is told
    created: bool = True  # or it was removed, tagged, restored, ...
    event_time: float | None = None  # epoch seconds; None where it is unknown, or tells no delay
    last_modified: str = ""  # as S3 writes it, an HTTP date, once the object has been read

    def is_below(self, prefix: str) -> bool:
        """Tell whether the key, as it was told or decoded, is below a prefix."""
        return self.key.startswith(prefix) or self.decoded_key.startswith(prefix)

    @property
    def name(self) -> str:
        """Return what stands behind the key's last slash."""
        return self.key.rpartition("/")[2]


class Message(NamedTuple):
    """One SQS message of a batch."""

    message_id: str
    body: str
    files: tuple[File, ...]  # none for S3's test event


class Service:
    """The client of one AWS service, and its threads: where they hang, no other service waits."""

    def __init__(self, session: botocore.session.Session, name: str, threads: int) -> None:
        self._session, self._name, self._number = session, name, threads
        self._threads = ThreadPoolExecutor(threads)

    @cached_property
    def client(self) -> Any:
        """Make the client where it is first needed, and keep it and its connections."""
        config = Config(
            user_agent="ddg-metric-submit",  # else botocore builds a long one for each request
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": AWS_ATTEMPTS},
            max_pool_connections=self._number,
        )
        return self._session.create_client(self._name, config=config)

    def start(
        self, call: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> "Future[T]":
        """Let a thread make a call with the client."""
        return self._threads.submit(call, self.client, *args, **kwargs)

    def result(self, future: "Future[T]", seconds: float) -> T:
        """Return a call's result; TimeoutError after that many seconds."""
        try:
            return future.result(max(seconds, 0))
        except TimeoutError:
            self.abandon(future)
            raise

    def abandon(self, future: "Future[T]") -> None:
        """Give a call up: a thread that hangs is left behind, and its place with it."""
        if not future.cancel():
            self._threads = ThreadPoolExecutor(self._number)


# --- Event -> messages -> files ---


def read_messages(event: Mapping[str, Any]) -> list[Message]:
    """Return a batch's messages, those received most often first: so a stubborn batch ends.

    What the operator's command has put back says so: its files were on their way for long enough.
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

    The body is S3's notification or EventBridge's event, by itself or in SNS's envelope.
    """
    files: list[File | None] = []
    try:
        told = json.loads(body)
        if told.get("Type") == "Notification":  # SNS's envelope
            told = json.loads(told["Message"])
        if told.get("Event") == "s3:TestEvent":  # S3 sends one when it is set up
            return []
        if told.get("Type") == "SubscriptionConfirmation":
            return [File("", "", receive_count, UNCONFIRMED)]
        if told.get("source") == "aws.s3":
            files = [find_event_file(told, receive_count)]
        else:
            files = [find_record_file(record, receive_count) for record in told["Records"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # it names none
    named = [file for file in files if file]
    if not files or None in files:
        named.append(File("", "", receive_count, NO_OBJECT))
    return named


def find_record_file(record: Any, receive_count: int) -> File | None:
    """Return the object that a record of S3's names, its key a form's field; None if it's none."""
    try:
        bucket, named = record["s3"]["bucket"]["name"], record["s3"]["object"]
        event = record.get("eventName") or "ObjectCreated:"
        file = File(
            bucket,
            unquote_plus(named["key"]),
            receive_count,
            version=known(named.get("versionId")),
            created=event.startswith("ObjectCreated:"),
            event_time=read_time(record.get("eventTime")),
        )
        return checked(file)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def find_event_file(event: Mapping[str, Any], receive_count: int) -> File | None:
    """Return the object that an event of EventBridge's names; None if it's none.

    Its key is bare in captured events, and percent-encoded in some.
    """
    created = (event.get("detail-type") or "Object Created") == "Object Created"
    try:
        bucket, named = event["detail"]["bucket"]["name"], event["detail"]["object"]
        file = File(
            bucket,
            named["key"],
            receive_count,
            decoded_key=unquote(named["key"]),
            version=known(named.get("version-id")),
            created=created,
            event_time=read_time(event.get("time")),
        )
        return checked(file)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None if created else File("", "", receive_count, created=False)


def read_time(text: Any) -> float | None:
    """Return an event's time in epoch seconds; None where it tells none."""
    try:
        time_told = datetime.fromisoformat(text)
        return time_told.timestamp() if time_told.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None


def known(version: Any) -> Any:
    """Return a version that is told; "" for what stands for none."""
    return "" if version in (None, "null") else version


def checked(file: File) -> File:
    """Return a file; an error where S3 has no such names: empty, or with half a character."""
    if not (file.bucket and file.key):
        raise ValueError
    (file.bucket + file.key + file.version).encode()
    return file


def job_folder(key: str, prefix: str) -> str:
    """Return the job, the first folder below the prefix; "" for a key in no folder there."""
    if not key.startswith(prefix):
        return ""
    folder, slash, _ = key.removeprefix(prefix).lstrip("/").partition("/")
    return folder if slash else ""


def job_tag(folder: str) -> str:
    """Return `job:<job>` as Datadog normalises it; "" where nothing is left of the job."""
    tag = ddg_stats_file.normalise_tag(f"job:{folder}")
    return "" if tag == "job:" else tag


def is_marker(file: File, content: bytes | None = None) -> bool:
    """Tell a marker from a stats file, by its name before it is read and then by its content.

    Spark's committers write JSON into _SUCCESS; Hadoop's other markers are empty, and so are the
    "folders" that people make in S3's console.
    """
    name = file.name
    empty_marker = name[:1] in ("", "_", ".") or name.endswith("_$folder$")
    return name == "_SUCCESS" or (content == b"" and empty_marker)


# --- Files -> objects ---


def fetch_ahead(
    files: Sequence[File], s3: Service, latest: float
) -> Iterator[tuple[File, "Future[bytes | None] | None"]]:
    """Fetch objects side by side, a bounded number of them ahead of what has been asked for.

    latest: of time.monotonic(); what is not begun by then comes without a fetch (None).
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
    """Tell whether S3 has no such object: whoever may list the bucket gets a 404 for that."""
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status == 404 and error.response["Error"].get("Code") != "NoSuchBucket"


def get_object(client: Any, file: File, most: int) -> bytes | None:
    """Return an object's bytes; None, and nothing of it is read, where there are more than most."""
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
