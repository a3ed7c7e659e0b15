"""What comes in: the objects that a batch of SQS messages names, and their bytes from S3."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from urllib.parse import unquote_plus

import botocore.session  # boto3 is this and 20 ms of imports that nothing here needs
from botocore.config import Config

import ddg_stats_file

FETCH_THREADS = 32  # objects fetched side by side: boto3 takes 1 ms of CPU for a GET of 20 ms
FETCH_AHEAD = 2 * FETCH_THREADS  # objects fetched before they are parsed, to bound the memory
SMALL_BYTES = 256 * 1024  # larger objects are read one at a time, to bound the memory
CONNECT_SECONDS = 2  # a connection to AWS
READ_SECONDS = 5  # between two bytes of an answer
AWS_ATTEMPTS = 3  # tries a request: botocore tries again where it is throttled or cut off

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class File:
    """One object that one message names; equal to itself alone, as two messages may name it."""

    bucket: str
    key: str
    receive_count: int = 1  # how often SQS has delivered its message, this time included
    fault: str = ""  # why it is refused without a look at the object

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
    """Return a batch's messages, those received most often first: so a stubborn batch ends."""

    def receive_count(record: Mapping[str, Any]) -> int:
        return int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))

    return [
        Message(
            record["messageId"],
            record["body"],
            tuple(find_files(record["body"], receive_count(record))),
        )
        for record in sorted(event["Records"], key=receive_count, reverse=True)
    ]


def find_files(body: str, receive_count: int = 1) -> list[File]:
    """Return a file for each object that an S3 notification names, of whatever version."""
    try:
        notification = json.loads(body)
        if notification.get("Event") == "s3:TestEvent":  # S3 sends one when it is set up
            return []
        files = [find_file(record, receive_count) for record in notification["Records"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        files = []
    named = [file for file in files if file]
    if not files or None in files:
        fault = "the message names no object. Let S3 alone, not SNS, send to this queue."
        named.append(File("", "", receive_count, fault))
    return named


def find_file(record: Any, receive_count: int) -> File | None:
    """Return the object that one record names, its key decoded; None where it names none."""
    try:
        bucket = record["s3"]["bucket"]["name"]
        key = unquote_plus(record["s3"]["object"]["key"])
        (bucket + key).encode()  # half a character is in no name
        return File(bucket, key, receive_count)
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
        return None


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


def get_object(client: Any, file: File, most: int) -> bytes | None:
    """Return an object's bytes; None, and nothing of it is read, where there are more than most."""
    answer = client.get_object(Bucket=file.bucket, Key=file.key)
    body, length = answer["Body"], answer.get("ContentLength")
    if length is not None and length <= most:
        return bytes(body.read())
    if length is None and most == ddg_stats_file.MAX_FILE_BYTES:
        return bytes(body.read(most + 1))
    body.close()
    if length is not None and length > ddg_stats_file.MAX_FILE_BYTES:
        raise ddg_stats_file.too_large()
    return None
