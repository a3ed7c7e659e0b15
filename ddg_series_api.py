"""Datadog's API: samples packed into payloads, the two requests, and what their answers mean.

Each sample comes with its owner, which is its file.
"""

import contextvars
import json
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import requests
import urllib3
from datadog import initialize
from datadog.api.api_client import APIClient
from datadog.api.metrics import Metric

from ddg_stats_file import Sample

MAX_PAYLOAD_BYTES = 5_242_880  # Datadog series API v2, decompressed; v1 is less reliable above it
MAX_PAYLOAD_POINTS = 50_000  # bounds the memory: with short series, more would fit the bytes
MAX_WIRE_BYTES = 512_000  # Datadog series API v2, compressed
MAX_ANSWER_BYTES = 64 * 1024  # the rest of a response isn't read
PART_BYTES = MAX_PAYLOAD_BYTES // 200  # of a file too large for one payload: small gaps remain

Owner = TypeVar("Owner", bound=Hashable)
Series = tuple[str, tuple[str, ...]]  # metric, tags


class MetricType(NamedTuple):
    """How Datadog treats a metric's points."""

    type: str = "gauge"  # or count
    interval: int | None = None  # seconds that a count covers


GAUGE = MetricType()
MetricTypes = Mapping[str, MetricType]  # by metric name; all others are gauges


# --- Samples -> payloads ---


class Payload(Generic[Owner]):
    """Samples for one POST, each with its owner; an owner's samples are adjacent."""

    def __init__(self, types: MetricTypes) -> None:
        self.entries: list[tuple[Owner, Sample]] = []
        self._types = types
        self._series: set[Series] = set()
        self._points = self._bytes = 0

    def add(self, owner: Owner, samples: Sequence[Sample]) -> bool:
        """Add an owner's samples; return False, and add none, if they don't all fit."""
        points = self._points + count_points(samples)
        if points > MAX_PAYLOAD_POINTS:
            return False
        series: set[Series] = set()
        size = self._bytes
        for sample in samples:
            tags_bytes = len(json.dumps(sample.tags))
            for metric, value in sample.values.items():
                size += len(f"[{sample.timestamp}, {float(value)}], ")
                one = (metric, sample.tags)
                if one not in self._series and one not in series:
                    series.add(one)
                    size += tags_bytes + len(metric) + empty_bytes(self._types.get(metric, GAUGE))
        if size > MAX_PAYLOAD_BYTES:
            return False
        self._series |= series
        self._points, self._bytes = points, size
        self.entries += [(owner, sample) for sample in samples]
        return True


def count_points(samples: Iterable[Sample]) -> int:
    """Return the number of points in samples."""
    return sum(len(sample.values) for sample in samples)


def pack(
    files: Iterable[tuple[Owner, list[Sample]]], types: MetricTypes
) -> Iterator[list[tuple[Owner, Sample]]]:
    """Pack files into as few payloads as possible.

    A file's samples go together where one payload takes them: a file in two could be refused
    for the second when Datadog has the first.
    """
    payload = Payload[Owner](types)
    for owner, samples in files:
        if not payload.add(owner, samples):
            if payload.entries:
                yield payload.entries
            payload = Payload(types)
            for part in [] if payload.add(owner, samples) else cut(samples):
                if not payload.add(owner, part):
                    yield payload.entries
                    payload = Payload(types)
                    payload.add(owner, part)
        del samples  # otherwise they stay in memory while the next file is read
    if payload.entries:
        yield payload.entries


def cut(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Yield a file's samples in parts that are much smaller than a payload."""
    for sample in samples:
        points = list(sample.values.items())
        # A name has up to 200 characters; everything else but the tags takes about 100.
        count = max(1, PART_BYTES // (300 + len(json.dumps(sample.tags))))
        for start in range(0, len(points), count):
            yield [sample._replace(values=dict(points[start : start + count]))]


def halve(
    entries: Sequence[tuple[Owner, Sample]], *, within_owner: bool
) -> list[list[tuple[Owner, Sample]]]:
    """Split a payload in two by owners; return nothing if that isn't possible.

    within_owner: split a single owner's samples, and a single sample's points, too.
    """
    owners = list(dict.fromkeys(owner for owner, _ in entries))
    if len(owners) == 1 and not within_owner:
        return []
    first = set(owners[: len(owners) // 2])
    if middle := sum(owner in first for owner, _ in entries) or len(entries) // 2:
        return [list(entries[:middle]), list(entries[middle:])]
    [(owner, sample)] = entries
    points = list(sample.values.items())
    middle = len(points) // 2
    halves = [points[:middle], points[middle:]] if middle else []
    return [[(owner, sample._replace(values=dict(half)))] for half in halves]


def build_series(samples: Iterable[Sample], types: MetricTypes) -> list[dict[str, Any]]:
    """Return samples in the API's shape, grouped by series."""
    points: dict[Series, list[tuple[int, float]]] = {}
    for sample in samples:
        for metric, value in sample.values.items():
            points.setdefault((metric, sample.tags), []).append((sample.timestamp, value))
    return [
        one_series(metric, tags, series, types.get(metric, GAUGE))
        for (metric, tags), series in points.items()
    ]


def one_series(
    metric: str,
    tags: Sequence[str],
    points: Sequence[tuple[int, float]],
    metric_type: MetricType,
) -> dict[str, Any]:
    """Return one series in the API's shape. No host: each sandbox would be billed as one."""
    kind, interval = metric_type
    series = {"metric": metric, "type": kind, "points": points, "tags": tags}
    return series | ({"interval": interval} if interval else {})


@cache
def empty_bytes(metric_type: MetricType) -> int:
    """Return the bytes that a series takes besides its name, points and tags."""
    return len(json.dumps(one_series("", [], [], metric_type))) + len(", ")


# --- Answers -> verdicts ---


class Answer(NamedTuple):
    """The response to a request, in the shape that the datadog package expects."""

    status_code: int  # 0: no response
    text: str  # the beginning of the body, or why there is no response
    wire_bytes: int = 0  # sent; 0: the body was too large to send
    content: bytes = b""  # never the body: the package would interpret it
    headers: Mapping[str, str] = {}


class Verdict(Enum):
    """What to do with a payload after a response."""

    ACCEPT = "all of its points are in Datadog"
    SPLIT = "a part of it is at fault: post its halves"
    READ_KEY = "read the key again, and post it once more with another one"
    AGAIN = "post it again after a pause"
    STOP = "post nothing more of this batch: it is retried"


def judge(answer: Answer) -> Verdict:
    """Return what to do after a POST. A 429 stops: it asks for longer pauses than ours."""
    match answer.status_code:
        case 202:  # no other 2xx is documented
            return Verdict.ACCEPT
        case 400 | 413:
            return Verdict.SPLIT
        case 401 | 403:
            return Verdict.READ_KEY
        case status if status in (0, 408) or 500 <= status < 600:
            return Verdict.AGAIN
    return Verdict.STOP


def is_final(answer: Answer, receive_count: int) -> bool:
    """Tell whether a 400 or 413 for a single file or point refuses it for good.

    Datadog and the proxies before it answer 400 at times, so the message must have been delivered
    before, and a 400 must name errors (DataDog/datadog-agent 12130).
    """
    errors = read_member(answer, "errors")
    named = isinstance(errors, list) and bool(errors)
    return receive_count > 1 and (answer.status_code == 413 or named)


def judge_key(answer: Answer) -> bool | None:
    """Return whether Datadog accepts the key, judging by `validate`; None if it doesn't say."""
    if answer.status_code in (401, 403):
        return False
    valid = read_member(answer, "valid") if answer.status_code == 200 else None
    return valid if isinstance(valid, bool) else None


def read_member(answer: Answer, name: str) -> Any:
    """Return a member of a body; None if the body lacks it, is cut, or isn't JSON."""
    try:
        return json.loads(answer.text)[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


# --- Requests -> answers ---


class Call:
    """A request in progress, and its response so far."""

    def __init__(self, api_key: str, app_key: str | None, seconds: float) -> None:
        self.answer = Answer(0, "timed out")
        self.heard = threading.Event()
        self.deadline = time.monotonic() + seconds
        self._keys = [api_key, *filter(None, [app_key])]

    def wait(self, seconds: float) -> Answer:
        """Return the response, or as much of it as has arrived within the seconds."""
        self.heard.wait(max(seconds, 0))
        return self.answer

    def hide_keys(self, body: bytes) -> str:
        """Return a body's text without the keys: a proxy may quote the request."""
        text = body.decode(errors="replace")
        for key in self._keys:
            text = text.replace(key, "<key>")
        if len(body) > MAX_ANSWER_BYTES:  # it may end within a key
            text = text[: -max(map(len, self._keys))] + "..."  # and this makes sure it isn't JSON
        return text


current_call: contextvars.ContextVar[Call] = contextvars.ContextVar("current_call")


class SeriesApi:
    """Datadog's API at one host, through the datadog package.

    The package's own HTTP client takes some errors for success, follows redirects with the key,
    and is silent for 300 s after three timeouts. This class replaces that client.
    """

    def __init__(self, host: str, app_key: str | None) -> None:
        self._host, self._app_key = host, app_key
        self._session = requests.Session()  # it keeps its connections
        self._session.auth = lambda request: request  # otherwise ~/.netrc would be sent to Datadog
        APIClient._http_client = self  # type: ignore[assignment]  # a class there, of which request() alone is used

    def post(self, series: list[dict[str, Any]], api_key: str, seconds: float) -> Answer:
        """POST series and wait for Datadog's response."""
        call = self._start(
            lambda: Metric.send(series, attach_host_name=False, compress_payload=True),
            api_key,
            seconds,
        )
        return call.wait(seconds)

    def validate(self, api_key: str, seconds: float) -> Call:
        """Start asking whether Datadog accepts the key; `judge_key` reads the response."""
        return self._start(lambda: APIClient.submit("GET", "validate"), api_key, seconds)

    def _start(self, send: Callable[[], object], api_key: str, seconds: float) -> Call:
        """Send a request in a thread: a socket's timeout is for each read, not for the whole."""
        initialize(
            api_key=api_key,
            app_key=self._app_key,
            api_host=self._host,
            host_name="unused",  # otherwise it runs `hostname`
            mute=False,
            return_raw_response=True,
            timeout=seconds,
        )
        call = Call(api_key, self._app_key, seconds)

        def run() -> None:
            current_call.set(call)
            try:
                send()
            finally:
                call.heard.set()

        threading.Thread(target=run, daemon=True).start()
        return call

    def request(
        self, headers: Mapping[str, str], data: bytes | None, max_retries: int, **options: Any
    ) -> Answer:
        """Make one HTTP request for the package, on behalf of the thread's current call."""
        call, size = current_call.get(), len(data or b"")
        options["timeout"] = call.deadline - time.monotonic()
        if size > MAX_WIRE_BYTES:
            call.answer = Answer(413, f"over {MAX_WIRE_BYTES} bytes, not sent")
        elif options["timeout"] > 0:  # otherwise compressing took too long, and nobody waits
            call.answer = Answer(0, "timed out", size)
            self._exchange(call, {**headers, "Accept-Encoding": "identity"}, data, options)
        return call.answer

    def _exchange(
        self, call: Call, headers: Mapping[str, str], data: bytes | None, options: Any
    ) -> None:
        size = call.answer.wire_bytes
        try:
            response = self._session.request(
                headers=headers, data=data, allow_redirects=False, stream=True, **options
            )
        except requests.Timeout:
            return
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # Errors of requests are told by name; others come from REQUESTS_CA_BUNDLE and say so.
            vague = isinstance(error, requests.RequestException)
            call.answer = Answer(0, type(error).__name__ if vague else str(error), size)
            return
        call.answer = Answer(response.status_code, "", size)
        if response.status_code == 202:
            call.heard.set()  # that is enough, whatever happens to the body
        try:
            body = b""
            with response:  # only a read past the end notices a body cut short
                while piece := response.raw.read(MAX_ANSWER_BYTES + 1 - len(body)):
                    body += piece
        except (urllib3.exceptions.HTTPError, OSError):
            return  # the status is known
        call.answer = call.answer._replace(text=call.hide_keys(body))
