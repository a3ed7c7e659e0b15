"""The local Datadog, held against a client nobody here wrote and against Datadog's own tables."""

# Generated, and its constructors have no types:
# mypy: untyped-calls-exclude=datadog_api_client

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3
from datadog_api_client import ApiClient, Configuration
from datadog_api_client.exceptions import ApiException, ForbiddenException, NotFoundException
from datadog_api_client.v1.api.metrics_api import MetricsApi
from datadog_api_client.v1.model.distribution_point import DistributionPoint
from datadog_api_client.v1.model.distribution_points_payload import DistributionPointsPayload
from datadog_api_client.v1.model.distribution_points_series import DistributionPointsSeries
from datadog_api_client.v1.model.metric_content_encoding import MetricContentEncoding
from datadog_api_client.v1.model.metrics_payload import MetricsPayload
from datadog_api_client.v1.model.point import Point
from datadog_api_client.v1.model.series import Series

from local.datadog_server import (
    MAX_PLAIN_BYTES,
    Answer,
    DatadogServer,
    Refusal,
    Request,
    inflate,
    stored_metric,
    stored_tag,
)
from tests.memory import memory_under

Post = Callable[..., urllib3.BaseHTTPResponse]

NOW = 1_700_000_000  # the server's clock in these tests
KEY = {"DD-API-KEY": "test-key", "Content-Type": "application/json"}
DEFLATE = {"Content-Encoding": "deflate"}


@pytest.fixture
def datadog() -> Iterator[DatadogServer]:
    """A strict local Datadog at which it is always NOW."""
    with DatadogServer("test-key", clock=lambda: NOW) as server:
        yield server


@pytest.fixture
def second_client(datadog: DatadogServer) -> Iterator[ApiClient]:
    """Datadog's generated API client, with the right key."""
    with ApiClient(Configuration(host=datadog.url, api_key={"apiKeyAuth": "test-key"})) as client:
        yield client
        client.rest_client.pool_manager.clear()


@pytest.fixture
def post(datadog: DatadogServer) -> Iterator[Post]:
    """Send any request: what no client would send, too."""
    with urllib3.PoolManager(retries=False) as pool:

        def send(
            body: bytes | object,
            headers: dict[str, str] = KEY,
            *,
            method: str = "POST",
            path: str = "/api/v1/series",
            timeout: float = 10.0,
        ) -> urllib3.BaseHTTPResponse:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return pool.request(
                method, datadog.url + path, body=content, headers=headers, timeout=timeout
            )

        yield send


def connect(server: DatadogServer) -> http.client.HTTPConnection:
    """Return one connection to hold on to."""
    return http.client.HTTPConnection(server.url.removeprefix("http://"))


def payload(*points: list[float], metric: str = "m", **members: object) -> dict[str, object]:
    """Return a payload of one series, right but for what a test makes wrong."""
    return {"series": [{"metric": metric, "points": list(points or ([NOW, 1],)), **members}]}


def submit(client: ApiClient, *series: Series, encoding: str | None = None) -> Any:
    """Submit series as the second client does it."""
    chosen = {"content_encoding": MetricContentEncoding(encoding)} if encoding else {}
    return MetricsApi(client).submit_metrics(MetricsPayload(series=list(series)), **chosen)


# What is accepted


@pytest.mark.parametrize("encoding", [None, "deflate"])
def test_points_of_the_second_client_are_stored_as_sent(
    datadog: DatadogServer, second_client: ApiClient, encoding: str | None
) -> None:
    """Every number survives to the last bit, and tags and host are part of a series' identity."""
    values = [0.1, -3.0, 0.0, 1e308, 5e-324, 9007199254740993.0]
    points = [Point([float(NOW - second), value]) for second, value in enumerate(values)]

    answer = submit(
        second_client,
        Series("rows.read", points, type="gauge", tags=["job:etl", "env:prod"]),
        Series("Rows_2.read", points[:1], type="count", interval=10),
        Series("rows.read", points[:1], type="rate", host="web-1", tags=["job:etl", "env:prod"]),
        encoding=encoding,
    )

    assert answer.status == "ok"
    assert datadog.points == {
        ("rows.read", ("env:prod", "job:etl")): {NOW - s: value for s, value in enumerate(values)},
        ("Rows_2.read", ()): {NOW: 0.1},
        ("rows.read", ("env:prod", "host:web-1", "job:etl")): {NOW: 0.1},
    }
    (request,) = datadog.requests
    assert (request.method, request.path, request.status) == ("POST", "/api/v1/series", 202)
    assert request.headers.get("content-encoding") == encoding
    assert request.headers["content-type"] == "text/json"
    assert request.wire_bytes == int(request.headers["content-length"])
    assert request.series is not None
    assert [series["type"] for series in request.series] == ["gauge", "count", "rate"]
    assert request.at == NOW
    assert datadog.dropped == []


def test_last_write_wins(datadog: DatadogServer, second_client: ApiClient) -> None:
    """One value a second for a metric, its tags in any order and case, and a host (FACTS of v1)."""
    for value, tags in ((1.0, ["job:etl", "env:prod"]), (2.0, ["ENV:prod", "job:etl", "job:etl"])):
        submit(second_client, Series("m", [Point([NOW + value / 4, value])], tags=tags))
    submit(second_client, Series("m", [Point([NOW, 3.0]), Point([NOW, 4.0])]))

    assert datadog.points == {("m", ("env:prod", "job:etl")): {NOW: 2.0}, ("m", ()): {NOW: 4.0}}


def test_requests_side_by_side_are_all_stored(datadog: DatadogServer, post: Post) -> None:
    """Nothing is lost between threads."""
    with ThreadPoolExecutor(8) as threads:
        bodies = (payload([NOW - number, number]) for number in range(200))
        answers = list(threads.map(post, bodies))

    assert {answer.status for answer in answers} == {202}
    assert datadog.points == {("m", ()): {NOW - number: float(number) for number in range(200)}}
    assert len(datadog.requests) == 200


@pytest.mark.parametrize(
    ("query", "key", "status", "body"),
    [
        pytest.param("", "test-key", 200, {"valid": True}, id="header"),
        pytest.param("?api_key=test-key", "", 200, {"valid": True}, id="query"),
        pytest.param("", "wrong", 403, {"errors": ["Forbidden"]}, id="wrong"),
        pytest.param("?api_key=wrong", "", 403, {"errors": ["Forbidden"]}, id="wrong-query"),
        pytest.param("", "", 403, {"errors": ["Forbidden"]}, id="missing"),
    ],
)
def test_key_can_be_validated(
    datadog: DatadogServer, post: Post, query: str, key: str, status: int, body: object
) -> None:
    """GET /api/v1/validate (docs: api/latest/authentication); no POST is counted for it."""
    datadog.respond = lambda request: Answer(503)
    answer = post(b"", {"DD-API-KEY": key}, method="GET", path=f"/api/v1/validate{query}")

    assert (answer.status, answer.json()) == (status, body)
    assert (len(datadog.validations), datadog.requests) == (1, [])


def test_validation_can_be_anything(datadog: DatadogServer, post: Post) -> None:
    """`respond_validate` is to /api/v1/validate what `respond` is to the rest."""
    datadog.respond_validate = lambda request: Answer(200, b'{"valid": false}')

    assert post(b"", method="GET", path="/api/v1/validate").json() == {"valid": False}
    assert post(payload()).status == 202


# What is dropped behind a 202


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [
        pytest.param(-3600, True, id="an-hour-old"),
        pytest.param(-3601, False, id="older"),
        pytest.param(600, True, id="10-minutes-ahead"),
        pytest.param(601, False, id="further-ahead"),
        pytest.param(1_000 * NOW, False, id="milliseconds"),
    ],
)
def test_window(datadog: DatadogServer, second_client: ApiClient, seconds: int, kept: bool) -> None:
    """Older than 1 h or over 10 min ahead: 202, and gone (docs: submit-metrics, v1)."""
    series = Series("m", [Point([float(NOW + seconds), 1.0]), Point([float(NOW), 2.0])])

    assert submit(second_client, series).status == "ok"

    assert datadog.points == {("m", ()): {NOW: 2.0} | ({NOW + seconds: 1.0} if kept else {})}
    assert [point.timestamp for point in datadog.dropped] == ([] if kept else [NOW + seconds])


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        pytest.param({"metric": "123"}, "metric name without a letter", id="no-letter"),
        pytest.param({"tags": [f"t{i}" for i in range(101)]}, "more than 100 tags", id="101-tags"),
    ],
)
def test_series_that_the_intake_drops(
    datadog: DatadogServer, post: Post, series: dict[str, Any], reason: str
) -> None:
    """The rest of the payload is kept (datadog-agent, normalize.go; saluki, capture.rs)."""
    good = payload(tags=[f"t{i}" for i in range(100)])
    good["series"] += payload(**{"metric": "m", **series})["series"]  # type: ignore[operator]  # lists

    assert post(good).status == 202

    assert [(metric, len(tags)) for metric, tags in datadog.points] == [("m", 100)]
    assert [point.reason for point in datadog.dropped] == [reason]


# What is rewritten


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        # datadog-agent, pkg/util/metricname/normalize_test.go, "mirrors testMetricNames in dd-go"
        ("MyMetric.Count", "MyMetric.Count"),
        ("n_o_i_n_d_e_x.pct_aggr.1234", "n_o_i_n_d_e_x.pct_aggr.1234"),
        ("foo...bar", "foo...bar"),
        ("foo.bar.", "foo.bar."),
        ("test*&(*._-_Metrictastic*(*)(  wut_?", "test.Metrictastic_wut"),
        ("?does.this.work?", "does.this.work"),
        ("5-2 arsenal over spurs", "arsenal_over_spurs"),
        ("multiple-norm-1", "multiple_norm_1"),
        ("a$.b", "a.b"),
        ("a_.b", "a.b"),
        ("a._b", "a.b"),
        ("a__b", "a_b"),
        ("a_", "a"),
        ("a_.", "a."),
        ("a___..b", "a..b"),
        ("__init__.metric", "init.metric"),
        ("1app.requests", "app.requests"),
        ("café.requests", "caf.requests"),
        ("🍣.metric", "metric"),
        ("123", ""),
        ("_", ""),
        # docs: what-best-practices-are-recommended-for-naming-metrics-and-tags
        pytest.param("a" * 200, "a" * 200, id="200"),
        pytest.param("a" * 201, "a" * 200, id="201"),
        pytest.param("a" * 199 + "_b", "a" * 199, id="cut-behind-an-underscore"),
    ],
)
def test_metric_names_are_rewritten(sent: str, kept: str) -> None:
    """The agent "submits metric names verbatim; the backend rewrites them on ingest"."""
    assert stored_metric(sent) == kept
    assert stored_metric(kept) == kept


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        # datadog-agent, pkg/util/metricname/tagname_test.go
        ("kube_namespace", "kube_namespace"),
        ("a/b-c.d", "a/b-c.d"),
        ("foo_-_bar", "foo_-_bar"),
        ("KUBE_NS", "kube_ns"),
        ("foo  bar", "foo_bar"),
        ("foo_(bar_+_baz)", "foo_bar_baz"),
        ("foo_*", "foo"),
        ("a._b", "a._b"),
        ("5-2 tags", "tags"),
        ("...tag", "tag"),
        ("_tag", "tag"),
        ("CAFÉ", "café"),
        ("Straße", "straße"),
        ("tag🍣end", "tag_end"),
        ("127.0.0.0", ""),
        ("1.2-3/4", ""),
        ("", ""),
        # datadog-agent, pkg/trace/traceutil/normalize/normalize_test.go
        ("Test Conversion Of Weird !@#$%^&**() Characters", "test_conversion_of_weird_characters"),
        ("Data🐨dog🐶 繋がっ⛰てて", "data_dog_繋がっ_てて"),
        ("ünicöde:metäl", "ünicöde:metäl"),
        ("fun:ky__tag/1", "fun:ky_tag/1"),
        ("---fun:k####y_ta@#g/1_@@#", "fun:k_y_ta_g/1"),
        # Go's unicode.ToLower and unicode.IsDigit
        ("ΓΣ", "γσ"),  # noqa: RUF001 # Greek it is
        ("İ", "i"),
        ("a²٣", "a_٣"),
        # docs: what-best-practices-are-recommended-for-naming-metrics-and-tags
        ("My Job", "my_job"),
        pytest.param("a" * 201, "a" * 200, id="201"),
        pytest.param("a" * 199 + " b", "a" * 199, id="cut-behind-an-underscore"),
    ],
)
def test_tags_are_normalised(sent: str, kept: str) -> None:
    """Lower case, from the first letter on, all else one underscore, none at the end."""
    assert stored_tag(sent) == kept
    assert stored_tag(kept) == kept


def test_a_rewritten_name_shows(datadog: DatadogServer, second_client: ApiClient) -> None:
    """A test that sends a name Datadog doesn't keep finds another name stored."""
    submit(second_client, Series("rows-read", [Point([NOW, 1.0])], tags=["My Job", "1"]))

    assert datadog.points == {("rows_read", ("my_job",)): {NOW: 1.0}}


# What is refused


@pytest.mark.parametrize("key", ["wrong", "TEST-KEY", "test-key2"])
def test_second_client_with_a_wrong_key_is_forbidden(
    datadog: DatadogServer, second_client: ApiClient, key: str
) -> None:
    """403, with the body recorded in github.com/DataDog/dd-trace-py, tests/llmobs."""
    second_client.configuration.api_key = {"apiKeyAuth": key}

    with pytest.raises(ForbiddenException) as refused:
        submit(second_client, Series("m", [Point([NOW, 1.0])]))

    assert refused.value.body == {"status": "error", "code": 403, "errors": ["Forbidden"]}
    assert datadog.points == {}
    assert [(request.series, request.status) for request in datadog.requests] == [(None, 403)]


def test_missing_key_is_forbidden(datadog: DatadogServer, post: Post) -> None:
    """403 (docs: submit-metrics, "Authentication error"); only the header counts."""
    headers = {"Content-Type": "application/json"}
    answer = post(payload(), headers, path="/api/v1/series?api_key=test-key")

    assert answer.status == 403
    assert datadog.points == {}


def test_second_client_on_another_path_finds_nothing(
    datadog: DatadogServer, second_client: ApiClient
) -> None:
    """Only /api/v1/series takes series here; the client's distribution points go elsewhere."""
    series = DistributionPointsSeries("m", [DistributionPoint([float(NOW), [1.0]])])

    with pytest.raises(NotFoundException) as refused:
        MetricsApi(second_client).submit_distribution_points(DistributionPointsPayload([series]))

    assert refused.value.body["errors"] == ["Not found"]
    assert datadog.requests[0].path == "/api/v1/distribution_points"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/v1/series/", 404),
        ("POST", "/api/v2/series", 404),
        ("GET", "/api/v1/series", 405),
        ("PUT", "/api/v1/series", 405),
        ("POST", "/api/v1/validate", 405),
    ],
)
def test_wrong_path_and_method(
    datadog: DatadogServer, post: Post, method: str, path: str, status: int
) -> None:
    """404 and 405 (RFC 9110, 15.5.5 and 15.5.6), whatever the body."""
    assert post(payload(), method=method, path=path).status == status
    assert datadog.points == {}


@pytest.mark.parametrize(
    "series",
    [
        pytest.param(Series("m", [Point([NOW, 1.0])], type="histogram"), id="type"),
        pytest.param(Series("m", [Point([NOW, None])]), id="null"),
        pytest.param(Series("m", [Point([NOW, float("nan")])]), id="nan"),
        pytest.param(Series("m", [Point([NOW, float("inf")])]), id="infinity"),
        pytest.param(Series("m", []), id="no-points"),
        pytest.param(Series("", [Point([NOW, 1.0])]), id="no-name"),
    ],
)
def test_second_client_with_a_wrong_body_is_refused_whole(
    datadog: DatadogServer, second_client: ApiClient, series: Series
) -> None:
    """400 "Bad Request", and nothing of the payload is kept (docs: submit-metrics, v1)."""
    with pytest.raises(ApiException) as refused:
        submit(second_client, Series("good", [Point([NOW, 1.0])]), series)

    assert refused.value.status == 400
    assert refused.value.body["errors"] != []
    assert datadog.points == {}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(b"", "not plain JSON", id="empty"),
        pytest.param(b'{"series": [', "not plain JSON", id="cut-off"),
        pytest.param(b"\xff" + json.dumps(payload()).encode(), "not plain JSON", id="not-utf-8"),
        pytest.param(json.dumps(payload()).encode("utf-16"), "not plain JSON", id="utf-16"),
        pytest.param(payload(interval=float("nan")), "not plain JSON", id="nan"),
        pytest.param(b"[" * 100_000, "not plain JSON", id="nested"),
        pytest.param(b"[]", 'must be {"series"', id="array"),
        pytest.param(b"{}", 'must be {"series"', id="no-series"),
        pytest.param({"series": {}}, 'must be {"series"', id="series-object"),
        pytest.param({"series": ["m"]}, "series[0]: must be an object", id="series-string"),
        pytest.param({"series": [{"points": [[NOW, 1]]}]}, "metric must", id="no-metric"),
        pytest.param(payload(metric=1), "metric must", id="metric-number"),  # type: ignore[arg-type]  # wrong
        pytest.param({"series": [{"metric": "m"}]}, "points must", id="no-points"),
        pytest.param(payload([NOW]), "points must", id="timestamp-only"),
        pytest.param(payload([NOW, 1, 2]), "points must", id="three-numbers"),
        pytest.param({"series": [{"metric": "m", "points": [NOW, 1]}]}, "points must", id="flat"),
        pytest.param(payload([NOW, "1"]), "points must", id="string"),  # type: ignore[list-item]  # wrong
        pytest.param(payload([str(NOW), 1]), "points must", id="timestamp-string"),  # type: ignore[list-item]  # wrong
        pytest.param(payload([NOW, True]), "points must", id="boolean"),
        pytest.param(payload([NOW, [1, 2]]), "points must", id="distribution"),  # type: ignore[list-item]  # wrong
        pytest.param(payload([NOW, 10**400]), "points must", id="huge-integer"),
        pytest.param(
            json.dumps(payload([NOW, 1])).replace("1]", "1e999]").encode(),
            "points must",
            id="1e999",
        ),
        pytest.param(payload(tags="job:etl"), "tags must", id="tags-string"),
        pytest.param(payload(tags=["job:etl", 1]), "tags must", id="tag-number"),
        pytest.param(payload(tags=None), "tags must", id="tags-null"),
        pytest.param(payload(host=None), "host a string", id="host-null"),
        pytest.param(payload(type="distribution"), "type must", id="type"),
        pytest.param(payload(type=["gauge"]), "type must", id="type-list"),
    ],
)
def test_wrong_bodies(datadog: DatadogServer, post: Post, body: object, error: str) -> None:
    """400 with what is wrong; the shapes are those of datadog-api-client, v1/model/series.py."""
    answer = post(body)

    assert answer.status == 400
    assert error in answer.json()["errors"][0]
    assert datadog.points == {}
    assert datadog.requests[0].series is None


def test_second_client_with_gzip_is_refused(
    datadog: DatadogServer, second_client: ApiClient
) -> None:
    """v1 documents deflate; gzip, though datadog-api-client offers it, was reported refused."""
    with pytest.raises(ApiException) as refused:
        submit(second_client, Series("m", [Point([NOW, 1.0])]), encoding="gzip")

    assert refused.value.status == 400
    assert refused.value.body["errors"] == ["Content-Encoding gzip is not supported"]
    assert datadog.points == {}


RIGHT = json.dumps(payload()).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(zlib.compress(RIGHT), 202, id="zlib"),
        pytest.param(RIGHT, 400, id="plain"),
        pytest.param(zlib.compress(RIGHT)[:-1], 400, id="cut-off"),
        pytest.param(zlib.compress(RIGHT) + b"x", 400, id="trailing"),
        pytest.param(zlib.compress(RIGHT)[2:-4], 400, id="without-zlib-header"),
        pytest.param(zlib.compress(b"x"), 400, id="not-json"),
    ],
)
def test_deflate_is_one_whole_zlib_stream(post: Post, body: bytes, status: int) -> None:
    """RFC 9110, 8.4.1.2: the deflate coding is the zlib format, and atlassian/gostatsd#127."""
    assert post(body, KEY | DEFLATE).status == status


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 202),
        ("application/json; charset=utf-8", 202),
        ("text/json", 202),
        ("text/plain", 400),
        ("application/x-www-form-urlencoded", 400),
        ("", 400),
    ],
)
def test_content_type(post: Post, content_type: str, status: int) -> None:
    """JSON alone; 400 for others is what saluki's intake answers (http/datadog/metrics.rs)."""
    assert post(payload(), KEY | {"Content-Type": content_type}).status == status


# Sizes


@pytest.mark.parametrize(("size", "status"), [(3_200_000, 202), (3_200_001, 413)])
def test_largest_payload_on_the_wire(
    datadog: DatadogServer, post: Post, size: int, status: int
) -> None:
    """v1: "maximum payload size is 3.2 megabytes (3200000 bytes)" (docs: submit-metrics)."""
    answer = post(RIGHT.ljust(size))

    assert answer.status == status
    assert len(datadog.points) == (status == 202)
    assert datadog.requests[0].wire_bytes == size


@pytest.mark.parametrize(("size", "status"), [(62_914_559, 202), (62_914_560, 413)])
def test_largest_payload_decompressed(post: Post, size: int, status: int) -> None:
    """v1: "a decompressed size of less than 62 megabytes (62914560 bytes)"."""
    assert post(zlib.compress(RIGHT.ljust(size), 1), KEY | DEFLATE).status == status


def test_a_bomb_costs_bounded_memory() -> None:
    """A gigabyte in a megabyte is given up at the limit."""
    compressor = zlib.compressobj()
    start = compressor.compress(bytes(10**7)) + compressor.flush(zlib.Z_FULL_FLUSH)
    again = compressor.compress(bytes(10**7)) + compressor.flush(zlib.Z_FULL_FLUSH)

    with memory_under(3 * MAX_PLAIN_BYTES), pytest.raises(Refusal):
        inflate(start + 99 * again)


# Faults


@pytest.mark.parametrize("accept", [False, True], ids=["before-accepting", "after-accepting"])
@pytest.mark.parametrize("status", [202, 302, 400, 403, 429, 500, 503])
def test_status_fault(datadog: DatadogServer, post: Post, status: int, accept: bool) -> None:
    """Any answer to any request, and whether the points were taken is another matter."""
    datadog.respond = lambda request: Answer(
        status, b"{}", {"Retry-After": "7", "Content-Type": "x/y"}, accept=accept
    )
    answer = post(payload())

    assert (answer.status, answer.data) == (status, b"{}")
    assert (answer.headers["Retry-After"], answer.headers["Content-Type"]) == ("7", "x/y")
    assert datadog.points == ({("m", ()): {NOW: 1.0}} if accept else {})
    assert datadog.requests[0].status == status


@pytest.mark.parametrize("accept", [False, True], ids=["before-accepting", "after-accepting"])
def test_reset_fault(
    datadog: DatadogServer, post: Post, accept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The connection ends without an answer or a word; the next request is served."""
    datadog.respond = lambda request: Answer(reset=True, accept=accept)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        post(payload())

    assert datadog.points == ({("m", ()): {NOW: 1.0}} if accept else {})
    assert datadog.requests[0].status is None
    assert capsys.readouterr().err == ""
    datadog.respond = None
    assert post(payload()).status == 202


@pytest.mark.parametrize("accept", [False, True], ids=["before-accepting", "after-accepting"])
@pytest.mark.parametrize("fault", ["delay", "body_delay"])
def test_slow_faults(
    datadog: DatadogServer,
    post: Post,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    accept: bool,
) -> None:
    """Slow headers or a slow body: a client that doesn't wait knows nothing of the points."""
    taken = threading.Event()
    wait = datadog.stopping.wait

    def note_and_wait(seconds: float) -> bool:
        taken.set()
        return wait(seconds)

    monkeypatch.setattr(datadog.stopping, "wait", note_and_wait)
    datadog.respond = lambda request: Answer(accept=accept, **{fault: 60.0})  # type: ignore[arg-type]  # floats
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        post(payload(), timeout=0.1)

    assert taken.wait(10)
    assert datadog.points == ({("m", ()): {NOW: 1.0}} if accept else {})


def test_headers_come_before_a_slow_body(datadog: DatadogServer) -> None:
    """Only the body is late."""
    datadog.respond = lambda request: Answer(body_delay=60.0)
    connection = connect(datadog)
    connection.request("POST", "/api/v1/series", RIGHT, KEY)
    answer = connection.getresponse()

    assert answer.status == 202
    datadog.stop()
    assert answer.read() == b'{"status": "ok"}'
    connection.close()


def test_html_fault(datadog: DatadogServer, post: Post) -> None:
    """What a proxy in between answers."""
    html = b"<html>Bad Gateway</html>"
    datadog.respond = lambda request: Answer(502, html, {"Content-Type": "text/html"})
    answer = post(payload())

    assert (answer.status, answer.headers["Content-Type"]) == (502, "text/html")
    assert answer.data == html


def test_faults_can_depend_on_the_request(datadog: DatadogServer, post: Post) -> None:
    """`respond` sees the series, and None from it means: take this one honestly."""

    def refuse_poison(request: Request) -> Answer | None:
        poisoned = any(series["metric"] == "poison" for series in request.series or [])
        return Answer(400) if poisoned else None

    datadog.respond = refuse_poison
    statuses = [post(payload(metric=metric)).status for metric in ("m", "poison")]

    assert statuses == [202, 400]
    assert datadog.points == {("m", ()): {NOW: 1.0}}


def test_an_error_in_a_fault_shows(
    datadog: DatadogServer, post: Post, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test whose `respond` is broken is told so."""
    datadog.respond = lambda request: Answer(request.headers["no-such-header"])  # type: ignore[arg-type]  # raises
    with pytest.raises(urllib3.exceptions.ProtocolError):
        post(payload())

    assert "KeyError: 'no-such-header'" in capsys.readouterr().err


def test_a_refused_request_is_never_accepted(datadog: DatadogServer, post: Post) -> None:
    """Even a fault with `accept` has no points where Datadog would have refused them."""
    datadog.respond = lambda request: Answer(accept=True)

    assert post(payload(), KEY | {"DD-API-KEY": "wrong"}).status == 202
    assert datadog.points == {}


# The server itself


def test_connections_are_kept(datadog: DatadogServer) -> None:
    """One connection serves many requests."""
    connection = connect(datadog)
    for _ in range(3):
        connection.request("POST", "/api/v1/series", RIGHT, KEY)
        assert connection.getresponse().read() == b'{"status": "ok"}'
        assert connection.sock is not None
    connection.close()


@pytest.mark.parametrize(
    ("method", "status", "body"),
    [
        ("POST", 202, b'{"status": "ok"}'),
        ("HEAD", 202, b""),
        ("POST", 204, b""),
        ("POST", 304, b""),
    ],
)
def test_answers_that_have_no_body(
    datadog: DatadogServer, method: str, status: int, body: bytes
) -> None:
    """RFC 9110, 6.4.1: a body there would be taken for the start of the next answer."""
    datadog.respond = lambda request: Answer(status)
    connection = connect(datadog)
    connection.connect()
    connection.sock.sendall(f"{method} / HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    with connection.sock.makefile("rb") as answer:
        assert answer.read().partition(b"\r\n\r\n")[2] == body
    connection.close()


def test_a_stopped_server_answers_no_more() -> None:
    """Not on a connection that is still open either: an outage is an outage."""
    with DatadogServer("test-key", clock=lambda: NOW) as server:
        connection = connect(server)
        connection.request("POST", "/api/v1/series", RIGHT, KEY)
        assert connection.getresponse().read() == b'{"status": "ok"}'

    connection.request("POST", "/api/v1/series", RIGHT, KEY)
    with pytest.raises(ConnectionError):
        connection.getresponse()
    connection.close()
    assert len(server.requests) == 1


def test_stopping_ends_a_delay(datadog: DatadogServer, post: Post) -> None:
    """A test that ends waits for nobody."""
    arrived = threading.Event()

    def delay(request: Request) -> Answer:
        arrived.set()
        return Answer(delay=60.0)

    datadog.respond = delay
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(post, payload())
        assert arrived.wait(10)
        datadog.stop()
        assert answer.result(10).status == 202


def test_latency_delays_every_answer() -> None:
    """Datadog's own 50 ms, say."""
    with DatadogServer("test-key", latency=0.05) as server:
        start = time.monotonic()
        assert urllib3.request("GET", server.url + "/api/v1/validate").status == 403
        assert time.monotonic() - start >= 0.05


def test_command() -> None:
    """`python -m local.datadog_server` says where it is, and each accepted request in a line."""
    command = [sys.executable, "-u", "-m", "local.datadog_server", "--port", "0"]
    with subprocess.Popen(
        [*command, "--api-key", "test-key"],
        stdout=subprocess.PIPE,
        text=True,
        # Tests that run in a shell's background ignore Ctrl-C, as would what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip().removeprefix("DATADOG_HOST=")
            answers = [
                urllib3.request("POST", url + "/api/v1/series", body=RIGHT, headers=headers)
                for headers in ({}, KEY)
            ]
            line = process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)

    assert [answer.status for answer in answers] == [403, 202]
    assert line == f"1 series, {len(RIGHT)} bytes\n"
    assert process.returncode == 0
