"""Datadog's series API: samples cut into payloads that it takes, and the POST of one.

Samples come with an owner each, the file that they are of; those of an owner side by side.
"""

import json
import logging
import threading
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import requests
import urllib3
from datadog import initialize
from datadog.api.api_client import APIClient
from datadog.api.metrics import Metric

from ddg_stats_file import Sample

MAX_PAYLOAD_BYTES = 5_242_880  # Datadog series API v2, decompressed; v1 takes more, not reliably
MAX_PAYLOAD_POINTS = 50_000  # ours, to bound the memory: of short series the bytes hold more
MAX_WIRE_BYTES = 512_000  # Datadog series API v2, compressed
MAX_ANSWER_BYTES = 64 * 1024  # ours: more of an answer isn't read

logging.getLogger("datadog.api").setLevel(logging.ERROR)  # it tells each request at INFO
session = requests.Session()  # its connections survive from POST to POST

Owner = TypeVar("Owner", bound=Hashable)
Series = set[tuple[str, tuple[str, ...]]]  # (metric, tags)


class Answer(NamedTuple):
    """What came of a POST, in the shape that the package takes from an HTTP client."""

    status_code: int  # 0: none came
    text: str  # the body's beginning, or why none came
    wire_bytes: int = 0  # sent; 0: it was too large to be sent
    content: bytes = b""  # never the body: the package would make errors, or success, of it
    headers: Mapping[str, str] = {}


def pack(samples: Iterable[tuple[Owner, Sample]]) -> Iterator[list[tuple[Owner, Sample]]]:
    """Cut samples into payloads of MAX_PAYLOAD_BYTES of JSON and MAX_PAYLOAD_POINTS at most.

    An owner's samples go together where one payload takes them: a file in two could be refused
    for the second when Datadog has the first.
    """
    payload: list[tuple[Owner, Sample]] = []
    series: Series = set()
    first = size = count = 0  # first: where in the payload the owner at hand begins
    for owner, sample in samples:
        if not payload or payload[-1][0] != owner:
            first = len(payload)
        fitting, taken = fit(sample, size, count, series)
        if first and fitting < len(sample.values):
            yield payload[:first]
            payload, series = payload[first:], set()
            first = size = count = 0
            for _, kept in payload:
                fitting, taken = fit(kept, size, count, series)
                size, count = size + taken, count + fitting
            fitting, taken = fit(sample, size, count, series)
        while fitting < len(sample.values):
            part, sample = cut(sample, max(fitting, not payload))  # one at least, so that it ends
            yield [*payload, (owner, part)] if part.values else payload
            payload, series = [], set()
            first = size = count = 0
            fitting, taken = fit(sample, size, count, series)
        if sample.values:
            payload.append((owner, sample))
        size, count = size + taken, count + fitting
    if payload:
        yield payload


def fit(sample: Sample, size: int, count: int, series: Series) -> tuple[int, int]:
    """Add a sample to a payload's series; return how many of its points fit, and their bytes.

    size, count: what the payload has of bytes and points.
    """
    series_bytes = len(json.dumps(sample.tags)) + EMPTY_SERIES_BYTES
    taken = 0
    for fitting, (metric, value) in enumerate(sample.values.items()):
        taken += len(f"[{sample.timestamp}, {float(value)}], ")
        if (metric, sample.tags) not in series:
            series.add((metric, sample.tags))
            taken += len(metric) + series_bytes
        if size + taken > MAX_PAYLOAD_BYTES or count + fitting == MAX_PAYLOAD_POINTS:
            return fitting, taken
    return len(sample.values), taken


def cut(sample: Sample, count: int) -> tuple[Sample, Sample]:
    """Return a sample's first points, and the others."""
    points = list(sample.values.items())
    first, others = dict(points[:count]), dict(points[count:])
    return sample._replace(values=first), sample._replace(values=others)


def halve_owners(payload: Sequence[tuple[Owner, Sample]]) -> list[list[tuple[Owner, Sample]]]:
    """Return a payload's two halves by owners; nothing for a single owner."""
    owners = list(dict.fromkeys(owner for owner, _ in payload))
    first = set(owners[: len(owners) // 2])
    halves = (
        [entry for entry in payload if entry[0] in first],
        [entry for entry in payload if entry[0] not in first],
    )
    return list(halves) if first else []


def halve_points(payload: Sequence[tuple[Owner, Sample]]) -> list[list[tuple[Owner, Sample]]]:
    """Return a payload's two halves by samples, or a sample's by points; nothing for one point."""
    if len(payload) > 1:
        middle = len(payload) // 2
        return [list(payload[:middle]), list(payload[middle:])]
    owner, sample = payload[0]
    middle = len(sample.values) // 2
    return [[(owner, half)] for half in cut(sample, middle)] if middle else []


def build_series(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Return samples as the API takes them, the points of a series side by side."""
    points: dict[tuple[str, tuple[str, ...]], list[tuple[int, float]]] = {}
    for sample in samples:
        for metric, value in sample.values.items():
            points.setdefault((metric, sample.tags), []).append((sample.timestamp, value))
    return [one_series(metric, tags, series) for (metric, tags), series in points.items()]


def one_series(
    metric: str, tags: Sequence[str], points: Sequence[tuple[int, float]]
) -> dict[str, Any]:
    """Return one series as the API takes it. No host: a sandbox's would be billed for each."""
    return {"metric": metric, "type": "gauge", "points": points, "tags": tags}


EMPTY_SERIES_BYTES = len(json.dumps(one_series("", [], []))) + len(", ")


def post(
    series: list[dict[str, Any]], *, api_key: str, app_key: str | None, host: str, seconds: float
) -> Answer:
    """POST series through the datadog package; return what Datadog answers within the seconds.

    The package's own HTTP client takes some errors for success, follows redirects with the key,
    and is silent for 300 s after three timeouts. This one stands where it keeps place for another.
    """
    answers = [Answer(0, "timed out")]  # the last one counts
    heard = threading.Event()
    deadline = time.monotonic() + seconds

    def request(
        headers: Mapping[str, str], data: bytes, max_retries: int, **options: Any
    ) -> Answer:
        if threading.current_thread() is not thread:  # an earlier POST's, which took too long
            return Answer(0, "timed out")
        options["timeout"] = deadline - time.monotonic()
        if len(data) > MAX_WIRE_BYTES:
            answers.append(Answer(413, f"over {MAX_WIRE_BYTES} bytes, not sent"))
        elif options["timeout"] > 0:  # else deflating took it all, and nobody waits any longer
            exchange({**headers, "Accept-Encoding": "identity"}, data, options)
        return answers[-1]

    def exchange(headers: Mapping[str, str], data: bytes, options: Mapping[str, Any]) -> None:
        answers.append(Answer(0, "timed out", len(data)))
        try:
            response = session.request(
                headers=headers, data=data, allow_redirects=False, stream=True, **options
            )
            answers.append(Answer(response.status_code, "", len(data)))
            if response.status_code == 202:
                heard.set()  # that counts, whatever becomes of the body
            with response:
                body = response.raw.read(MAX_ANSWER_BYTES)
        except requests.Timeout:
            pass
        except requests.RequestException as error:
            answers.append(Answer(0, type(error).__name__, len(data)))
        except (urllib3.exceptions.HTTPError, OSError):
            pass
        else:
            text, keys = body.decode(errors="replace"), [api_key, *filter(None, [app_key])]
            for key in keys:
                text = text.replace(key, "<key>")  # a proxy may show the request
            if len(body) == MAX_ANSWER_BYTES:  # and its end be the beginning of a key
                text = text[: -max(map(len, keys))]
            answers.append(answers[-1]._replace(text=text))

    def send() -> None:
        try:
            Metric.send(series, attach_host_name=False, compress_payload=True)
        finally:
            heard.set()

    # In a thread, because sockets' timeouts are for each read and not for all of them together
    thread = threading.Thread(target=send, daemon=True)
    APIClient._http_client = SimpleNamespace(request=request)  # type: ignore[assignment]  # a class there, of which this alone is used
    initialize(
        api_key=api_key,
        app_key=app_key,
        api_host=host,
        host_name="unused",  # else it runs `hostname`
        mute=False,
        return_raw_response=True,
        timeout=seconds,
    )
    thread.start()
    heard.wait(seconds)
    return answers[-1]
