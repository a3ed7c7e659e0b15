"""The local Datadog behaves as the real one is documented to."""

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from local.datadog_server import DatadogServer, stored_metric, stored_tag

NOW = 1_700_000_000  # the server's clock in these tests
HEADERS = {"DD-API-KEY": "test-key", "Content-Type": "application/json"}
DEFLATE = {"Content-Encoding": "deflate"}


@pytest.fixture
def datadog() -> Iterator[DatadogServer]:
    """A strict local Datadog whose clock always shows NOW."""
    with DatadogServer("test-key", clock=lambda: NOW) as server:
        yield server


def payload(*series: dict[str, Any]) -> bytes:
    """Return a payload of good series, with these members replaced."""
    right = {"metric": "m", "points": [[NOW, 1]]}
    return json.dumps({"series": [right | members for members in series or [{}]]}).encode()


def post(datadog: DatadogServer, body: bytes, **headers: str) -> urllib3.BaseHTTPResponse:
    """Post to the series API."""
    url, headers = f"{datadog.url}/api/v1/series", HEADERS | headers
    return urllib3.request("POST", url, body=body, headers=headers, retries=False)


def test_last_write_wins(datadog: DatadogServer) -> None:
    """One value a second for a metric, its tags in any order and case, and a host."""
    body = payload(
        {"tags": ["job:etl", "env:prod"]},
        {"tags": ["ENV:prod", "job:etl", "job:etl"], "points": [[NOW + 0.5, 2]]},
        {"host": "web-1", "points": [[NOW, 3], [NOW, 4], [NOW - 1, 0.1]]},
    )
    answer = post(datadog, body)
    assert (answer.status, answer.json()) == (202, {"status": "ok"})
    assert datadog.points == {
        ("m", ("env:prod", "job:etl")): {NOW: 2.0},
        ("m", ("host:web-1",)): {NOW: 4.0, NOW - 1: 0.1},
    }


DROPPED: dict[str, dict[str, Any]] = {  # api; datadog-agent, normalize.go; saluki, capture.rs
    "outside the window": {"points": [[NOW - 3601, 1]]},
    "timestamp outside": {"points": [[NOW + 601, 1]]},
    "without a letter": {"metric": "123"},
    "more than 100 tags": {"tags": [f"t{i}" for i in range(101)]},
}


@pytest.mark.parametrize(("reason", "series"), DROPPED.items(), ids=DROPPED)
def test_dropped_behind_a_202(datadog: DatadogServer, reason: str, series: dict[str, Any]) -> None:
    """Its neighbour, just within the limits, is stored."""
    good = {"tags": [f"t{i}" for i in range(100)], "points": [[NOW - 3600, 1], [NOW + 600, 1]]}
    assert post(datadog, payload(good, series)).status == 202
    assert [(len(tags), len(points)) for (_, tags), points in datadog.points.items()] == [(100, 2)]
    [dropped] = datadog.dropped
    assert reason in dropped.reason


METRICS = {  # datadog-agent, pkg/util/metricname/normalize_test.go, "mirrors ... dd-go"
    "n_o_i_n_d_e_x.Pct..1234.": "n_o_i_n_d_e_x.Pct..1234.",
    "test*&(*._-_Metrictastic*(*)(  wut_?": "test.Metrictastic_wut",
    "a__b_": "a_b",
    "__init__.metric": "init.metric",
    "café.requests": "caf.requests",
    "a" * 199 + "_b": "a" * 199,
}
TAGS = {  # datadog-agent, pkg/util/metricname/tagname_test.go; pkg/trace/traceutil/normalize
    "KUBE/ns-c.d": "kube/ns-c.d",
    "a._b": "a._b",
    "127.0.0.0": "",
    "Data🐨dog🐶 繋がっ⛰てて": "data_dog_繋がっ_てて",
    "---fun:k####y_ta@#g/1_@@#": "fun:k_y_ta_g/1",
    "ΓΣİa²٣ß": "γσia_٣ß",  # noqa: RUF001 # Greek it is: Go's unicode.ToLower, unicode.IsDigit
    "a" * 199 + " b": "a" * 199,
}


@pytest.mark.parametrize(("sent", "kept"), METRICS.items())
def test_metric_names_are_rewritten(sent: str, kept: str) -> None:
    """The agent "submits metric names verbatim; the backend rewrites them on ingest"."""
    assert stored_metric(sent) == stored_metric(kept) == kept


@pytest.mark.parametrize(("sent", "kept"), TAGS.items())
def test_tags_are_normalised(sent: str, kept: str) -> None:
    """Lower case, from the first letter on, all else one underscore, none at the end."""
    assert stored_tag(sent) == stored_tag(kept) == kept


REQUESTS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "wrong key": (403, payload(), {"DD-API-KEY": "TEST-KEY"}),
    "type of content": (400, payload(), {"Content-Type": "text/plain"}),
    "gzip": (400, payload(), {"Content-Encoding": "gzip"}),
    "zlib": (202, zlib.compress(payload()), DEFLATE),
    "raw deflate": (400, zlib.compress(payload())[2:-4], DEFLATE),
    "cut off": (400, zlib.compress(payload())[:-1], DEFLATE),
    # api: at most 3,200,000 bytes, and less than 62,914,560 decompressed
    "large": (202, payload().ljust(3_200_000), {}),
    "too large": (413, payload().ljust(3_200_001), {}),
    "bomb": (413, zlib.compress(payload().ljust(62_914_560), 1), DEFLATE),
    # datadog-api-client, v1/model/series.py
    "not JSON": (400, b'{"series": [', {}),
    "array": (400, b"[]", {}),
    "no name": (400, payload({"metric": ""}), {}),
    "no points": (400, payload({"points": []}), {}),
    "text": (400, payload({"points": [[NOW, "1"]]}), {}),
    "boolean": (400, payload({"points": [[NOW, True]]}), {}),
    "NaN": (400, payload({"points": [[NOW, float("nan")]]}), {}),
    "beyond 64 bits": (400, payload().replace(b"1]", b"1e999]"), {}),
    "tags": (400, payload({"tags": None}), {}),
    "type": (400, payload({"type": "distribution"}), {}),
}


@pytest.mark.parametrize(("status", "body", "headers"), REQUESTS.values(), ids=REQUESTS)
def test_request(datadog: DatadogServer, status: int, body: bytes, headers: dict[str, str]) -> None:
    """Nothing of a rejected request is stored."""
    assert post(datadog, body, **headers).status == status
    assert len(datadog.points) == (status == 202)
