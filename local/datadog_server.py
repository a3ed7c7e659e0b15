"""A strict local Datadog: it stores, rejects and drops what the real one does. Its sources:

api     https://docs.datadoghq.com/api/latest/metrics/submit-metrics/, v1
naming  https://docs.datadoghq.com/developers/guide/what-best-practices-are-recommended-for-naming-metrics-and-tags/
agent   github.com/DataDog/datadog-agent, pkg/util/metricname: ports of the intake's rules
saluki  github.com/DataDog/saluki, test/antithesis/intake/src: Datadog's stand-in for the intake
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

SERIES, VALIDATE, QUERY = "/api/v1/series", "/api/v1/validate", "/api/v1/query"
ROUTES = {("POST", SERIES), ("GET", VALIDATE), ("GET", QUERY)}
MAX_WIRE_BYTES = 3_200_000  # api: "maximum payload size is 3.2 megabytes (3200000 bytes)"
MAX_PLAIN_BYTES = 62_914_560  # api: decompressed "less than 62 megabytes (62914560 bytes)"
MAX_AGE = 3600  # seconds; api: "cannot be ... more than one hour in the past"
MAX_AHEAD = 600  # seconds; api: "cannot be more than ten minutes in the future"
MAX_CHARACTERS = 200  # naming; in agent 350 for metrics (drops longer ones), bytes for tags
MAX_TAGS = 100  # saluki, capture.rs: drops a series with more, keeps the others of its payload
KEPT_REQUESTS = 100  # by forget()
CONTENT_TYPES = ("application/json", "text/json")  # of Datadog's two Python clients


@dataclass(frozen=True)
class Answer:
    """A response that a test or the demo sends instead of the honest one."""

    status: int = 202
    body: bytes = b'{"status": "ok"}'
    headers: Mapping[str, str] = field(default_factory=dict)  # added to its own, or replacing them
    accept: bool = False  # store the points first, whatever the status
    reset: bool = False  # close the connection instead of answering
    delay: float = 0.0  # seconds before the status line
    body_delay: float = 0.0  # seconds between headers and body


@dataclass
class Request:
    """One request as the server saw it."""

    path: str
    query: Mapping[str, str]
    headers: dict[str, str]  # names in lower case
    wire_bytes: int  # of the body
    at: float  # Unix seconds, by the server's clock
    series: list[dict[str, Any]] | None = None  # as sent; None if Datadog would reject it
    status: int | None = None  # of the response; None before it, and after a reset


class Dropped(NamedTuple):
    """A point that Datadog drops although it answers 202."""

    metric: str
    timestamp: float
    reason: str


class Rejected(Exception):
    """Datadog rejects the request with this response (api: APIErrorResponse)."""

    def __init__(self, status: int, error: str) -> None:
        self.answer = Answer(status, json.dumps({"errors": [error]}).encode())


def stored_metric(name: str) -> str:
    """Return the name that Datadog stores, or "" if it stores none (agent, normalize.go)."""
    name = re.sub(r"^[^A-Za-z]+", "", name)
    name = re.sub(r"[^A-Za-z0-9.]+", "_", name)
    return re.sub(r"_?\._?", ".", name)[:MAX_CHARACTERS].rstrip("_")


def stored_tag(tag: str) -> str:
    """Return the tag that Datadog stores, or "" if it stores none (naming; agent, tagname.go)."""
    kept = ""
    for character in tag:
        # One by one, as in Go: str.lower() makes two of "İ", and looks beside "Σ".
        character = character.lower()[0]
        if character.isalpha() or (kept and (character.isdecimal() or character in "-:./")):
            kept += character
        elif kept and not kept.endswith("_"):
            kept += "_"
    return kept[:MAX_CHARACTERS].rstrip("_")


def read_series(body: bytes, encoding: str | None) -> list[dict[str, Any]]:
    """Return the series of a payload, after checking its shape (api: MetricsPayload)."""
    try:
        if encoding == "deflate":
            inflater = zlib.decompressobj()
            body = inflater.decompress(body, MAX_PLAIN_BYTES)
            if len(body) == MAX_PLAIN_BYTES:
                raise Rejected(413, "Payload too large")
            if not inflater.eof or inflater.unused_data:
                raise ValueError("not exactly one stream")
        elif encoding:  # gzip is refused by one report
            raise ValueError(f"Content-Encoding {encoding} is not supported")
        payload = json.loads(body.decode(), parse_constant=int)  # int("NaN") is a ValueError
    except (zlib.error, ValueError, RecursionError) as error:
        raise Rejected(400, f"Payload is not {encoding or 'plain'} JSON: {error}") from None
    series_list = payload.get("series") if isinstance(payload, dict) else None
    if not isinstance(series_list, list):
        raise Rejected(400, 'Payload must be {"series": [...]}')
    for index, series in enumerate(series_list):
        if not is_series(series):
            raise Rejected(400, f"series[{index}] is malformed")
    return series_list


def is_series(series: object) -> bool:
    """Tell whether the shape of a series is right (api: Series)."""
    if not isinstance(series, dict):
        return False
    metric, points = series.get("metric"), series.get("points")
    host, tags = series.get("host", ""), series.get("tags", [])
    return (
        bool(metric)
        and isinstance(tags, list)
        and all(isinstance(text, str) for text in (metric, host, *tags))
        and isinstance(points, list)
        and points != []
        and all(map(is_point, points))
        and series.get("type", "") in ("", "count", "gauge", "rate")  # api: "Valid types are"
    )


def is_point(point: object) -> bool:
    """Tell whether this is [timestamp, value], two JSON numbers that fit 64 bits (api: Point)."""
    return isinstance(point, list) and [
        type(number) in (int, float) and abs(number) <= sys.float_info.max for number in point
    ] == [True, True]


@dataclass(eq=False)
class DatadogServer:
    """Datadog on a port of 127.0.0.1, in a thread: `with DatadogServer("key") as datadog:`."""

    api_key: str
    _: KW_ONLY
    app_key: str = "test-app-key"  # also needed for a query
    clock: Callable[[], float] = time.time  # Unix seconds; decides which points are too old
    respond: Callable[[Request], Answer | None] | None = None  # None: answers honestly
    respond_validate: Callable[[Request], Answer | None] | None = None  # to GET /api/v1/validate
    requests: list[Request] = field(default_factory=list)  # without validations and queries
    validations: list[Request] = field(default_factory=list)
    points: dict[tuple[str, tuple[str, ...]], dict[int, float]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)  # of each metric, as sent last

    def __post_init__(self) -> None:
        self.stopping = threading.Event()
        self._http = _HTTPServer(("127.0.0.1", 0), _Handler)
        self._http.datadog = self
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> DatadogServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Free the port, end all delays, and answer no more requests."""
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def forget(self, before: float) -> None:
        """Drop points of earlier seconds, and all except the last requests."""
        for series, values in list(self.points.items()):
            for second in [second for second in list(values) if second < before]:
                del values[second]
            if not values:
                del self.points[series]
        for requests in (self.requests, self.validations):
            del requests[:-KEPT_REQUESTS]
        self.dropped.clear()

    def take(self, method: str, request: Request, body: bytes) -> Answer:
        """Record a request, store its points if it is accepted, and return the response."""
        try:
            answer = self._check(method, request, body)
        except Rejected as rejected:
            answer = rejected.answer
        if request.path == QUERY:
            return answer
        validates = request.path == VALIDATE
        (self.validations if validates else self.requests).append(request)
        respond = self.respond_validate if validates else self.respond
        asked = respond(request) if respond else None
        if asked is None or asked.accept:
            for series in request.series or []:
                self._store(series, request.at)
        return asked or answer

    def _check(self, method: str, request: Request, body: bytes) -> Answer:
        """Return the honest response; checks in saluki's order (http/datadog/metrics.rs)."""
        if (method, request.path) not in ROUTES:
            raise Rejected(404, "Not found")
        keys, headers = [request.headers.get("dd-api-key")], request.headers
        if request.path == VALIDATE:
            keys.append(request.query.get("api_key"))
        if self.api_key not in keys:  # api: 403, "Authentication error"
            raise Rejected(403, "Forbidden")
        if request.path == VALIDATE:
            return Answer(200, b'{"valid": true}')
        if request.path == QUERY:
            return self._query(request.query, headers.get("dd-application-key"))
        if headers.get("content-type", "").partition(";")[0].strip() not in CONTENT_TYPES:
            raise Rejected(400, f"Content-Type must be one of {', '.join(CONTENT_TYPES)}")
        if len(body) > MAX_WIRE_BYTES:
            raise Rejected(413, "Payload too large")
        request.series = read_series(body, headers.get("content-encoding"))
        return Answer()

    def _query(self, asked: Mapping[str, str], app_key: str | None) -> Answer:
        """Return the points of one metric with some tags (api: Query timeseries points)."""
        if app_key != self.app_key:
            raise Rejected(403, "Forbidden")
        begin, end, query = int(asked["from"]), int(asked["to"]), asked["query"]
        named = re.fullmatch(r"(?:avg|max|min|sum):([A-Za-z0-9_.]+)\{([^{}]+)\}", query)
        if not named:
            raise Rejected(400, "this Datadog only reads avg|max|min|sum:METRIC{TAG,...}")
        scope = set(named[2].split(",")) - {"*"}
        pointlist = [
            [1000 * timestamp, value]
            for (metric, tags), points in self.points.items()
            if metric == named[1] and scope <= set(tags)
            for timestamp, value in sorted(points.items())
            if begin <= timestamp <= end
        ]
        found = {"metric": named[1], "scope": named[2], "interval": 1, "pointlist": pointlist}
        answer = {"status": "ok", "query": query, "series": [found] if pointlist else []}
        return Answer(200, json.dumps(answer).encode())

    def _store(self, series: Mapping[str, Any], now: float) -> None:
        """Store what Datadog stores: the last value for each metric, tags and second."""
        metric, sent = stored_metric(series["metric"]), series.get("tags", [])
        self.types[metric] = series.get("type") or "gauge"
        kept = {stored_tag(tag) for tag in sent} - {""}
        if series.get("host"):  # saluki, capture.rs: part of the identity, as a tag
            kept.add(f"host:{series['host']}")
        tags = tuple(sorted(kept))
        for timestamp, value in series["points"]:
            if not metric:  # agent, normalize.go: "dropped by the intake"
                reason = "metric name without a letter"
            elif len(sent) > MAX_TAGS:
                reason = f"more than {MAX_TAGS} tags"
            elif not now - MAX_AGE <= timestamp <= now + MAX_AHEAD:
                reason = "timestamp outside the window"
            else:
                self.points.setdefault((metric, tags), {})[int(timestamp)] = float(value)
                continue
            self.dropped.append(Dropped(series["metric"], timestamp, reason))


class _HTTPServer(ThreadingHTTPServer):
    datadog: DatadogServer
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, except closed connections."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):  # werkzeug's can't keep a connection, as Datadog does
    server: _HTTPServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a response in one packet: 0.8 ms, not 88
    disable_nagle_algorithm = True

    def exchange(self) -> None:
        """Answer a request, or close the connection."""
        datadog = self.server.datadog
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(path, dict(parse_qsl(query)), headers, len(body), datadog.clock())
        if datadog.stopping.is_set():
            raise ConnectionAbortedError
        answer = datadog.take(self.command, request, body)
        datadog.stopping.wait(answer.delay)
        if answer.reset:
            raise ConnectionResetError
        request.status = answer.status
        self.send_response(answer.status)
        own = {"Content-Type": "application/json", "Content-Length": str(len(answer.body))}
        for name, value in {**own, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.body_delay:
            self.wfile.flush()
            datadog.stopping.wait(answer.body_delay)
        if answer.status not in (204, 304):  # a client would take a body for the next response
            self.wfile.write(answer.body)

    do_GET = do_POST = exchange

    def log_message(self, *_: object) -> None:
        """Log nothing: DatadogServer.requests has everything."""
