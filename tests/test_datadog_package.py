"""What the `datadog` package really does: its traps, and the place the submitter plugs into.

Each test holds for datadog 0.56.0 and names the function whose behaviour it pins. One that fails
after an upgrade says which precaution of the submitter to look at again.
"""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import datadog as package
import pytest
import requests
from datadog import api
from datadog.api.api_client import APIClient
from datadog.api.exceptions import ApiError, ClientError, HttpBackoff, HTTPError, HttpTimeout
from datadog.api.format import format_points
from datadog.api.http_client import RequestClient
from datadog.api.metrics import Metric
from datadog.version import __version__
from urllib3.exceptions import ConnectTimeoutError, ProtocolError
from urllib3.util.retry import Retry

from local.datadog_server import MAX_WIRE_BYTES, Answer, DatadogServer, Request

NOW = int(time.time())
STATUSES = [200, 202, 204, 302, 400, 401, 403, 404, 408, 413, 429, 500, 503]

# datadog/api/__init__.py and datadog/api/api_client.py, class APIClient
API_DEFAULTS = {
    "_api_key": None,
    "_application_key": None,
    "_api_version": "v1",
    "_api_host": None,
    "_host_name": None,
    "_hostname_from_config": True,
    "_cacert": True,
    "_proxies": None,
    "_timeout": 60,
    "_max_timeouts": 3,
    "_max_retries": 3,
    "_backoff_period": 300,
    "_mute": True,
    "_return_raw_response": False,
}
CLIENT_DEFAULTS = {
    "_backoff_period": 300,
    "_max_timeouts": 3,
    "_backoff_timestamp": None,
    "_timeout_counter": 0,
    "_http_client": None,
}


def test_these_tests_are_about_the_version_that_is_shipped() -> None:
    """requirements.txt pins the same one."""
    assert __version__ == "0.56.0"


@pytest.fixture(autouse=True)
def fresh_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package keeps its settings and state in globals: start as after the first import."""
    for name, value in API_DEFAULTS.items():
        monkeypatch.setattr(api, name, value)
    for name, value in CLIENT_DEFAULTS.items():
        monkeypatch.setattr(APIClient, name, value)
    monkeypatch.setattr(RequestClient, "_session", None)
    yield
    if RequestClient._session is not None:
        RequestClient._session.close()


Initialize = Callable[..., None]


@pytest.fixture
def initialize(datadog: DatadogServer) -> Initialize:
    """Initialize the package for the local Datadog; a host name keeps it from running hostname."""

    def initialize(**options: Any) -> None:
        known = {"api_key": "test-key", "api_host": datadog.url, "host_name": "sandbox"}
        package.initialize(**(known | options))

    return initialize


def send(**options: Any) -> Any:
    """Send one point as simply as the package allows."""
    return Metric.send(metric="m", points=(NOW, 1), **options)


def sent(datadog: DatadogServer) -> list[dict[str, Any]]:
    """Return the series of the only request, which was right."""
    (request,) = datadog.requests
    assert request.series is not None
    return request.series


# 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429])
def test_trap_mute_returns_errors_in_place_of_raising(
    datadog: DatadogServer, initialize: Initialize, status: int
) -> None:
    """mute=True is the default, and APIClient.submit() then returns Datadog's refusal.

    datadog 0.56.0, api/__init__.py `_mute`; api/api_client.py, submit(), `except ApiError`.
    """
    datadog.respond = lambda request: Answer(status, b'{"errors": ["no"]}')
    initialize()
    assert send() == {"errors": ["no"]}

    initialize(mute=False)
    with pytest.raises(ApiError):
        send()


def test_trap_mute_returns_connection_errors_too(initialize: Initialize) -> None:
    """datadog 0.56.0, api/api_client.py, submit(), `except ClientError`."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    initialize(api_host=f"http://127.0.0.1:{port}")
    assert "Could not request POST" in send()["errors"]

    initialize(api_host=f"http://127.0.0.1:{port}", mute=False)
    with pytest.raises(ClientError):
        send()


# 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429])
def test_trap_an_empty_refusal_looks_like_success(
    datadog: DatadogServer, initialize: Initialize, status: int
) -> None:
    """Not even mute=False raises: without a body there is no "errors" in it. Only the status tells.

    datadog 0.56.0, api/http_client.py, RequestClient.request() lets these statuses pass, and
    api/api_client.py, submit() looks at the content alone. return_raw_response adds the answer.
    """
    datadog.respond = lambda request: Answer(status, b"")
    initialize(mute=False)
    assert send() is None

    initialize(mute=False, return_raw_response=True)
    formatted, answer = send()
    assert formatted is None
    assert answer.status_code == status


# 3


def test_trap_an_accepted_payload_with_an_empty_list_of_errors_raises(
    datadog: DatadogServer, initialize: Initialize
) -> None:
    """The series v2 API answers so. datadog 0.56.0, api/api_client.py, submit(), `"errors" in`."""
    datadog.respond = lambda request: Answer(202, b'{"errors": []}', accept=True)
    initialize(mute=False)

    with pytest.raises(ApiError):
        send()
    assert datadog.points == {("m", ("host:sandbox",)): {NOW: 1.0}}


def test_trap_html_raises_a_bare_value_error(
    datadog: DatadogServer, initialize: Initialize
) -> None:
    """datadog 0.56.0, api/api_client.py, submit(), "Invalid JSON response"; muted or not."""
    datadog.respond = lambda request: Answer(202, b"<html>", accept=True)
    initialize()

    with pytest.raises(ValueError, match="Invalid JSON response") as raised:
        send()
    assert type(raised.value) is ValueError
    assert len(datadog.points) == 1


# 4


@pytest.mark.parametrize("status", [402, 408, 413, 500, 502, 503, 504])
def test_trap_other_statuses_raise_an_error_without_a_status(
    datadog: DatadogServer, initialize: Initialize, status: int
) -> None:
    """The number is in the message alone, Retry-After is lost, and mute doesn't hold it back.

    datadog 0.56.0, api/http_client.py, RequestClient.request(); api/exceptions.py, HTTPError.
    """
    datadog.respond = lambda request: Answer(status, b"{}", {"Retry-After": "7"})
    initialize()

    with pytest.raises(HTTPError, match=f"bad HTTP response code: {status} ") as raised:
        send()
    assert vars(raised.value) == {}


# 5


def test_trap_three_timeouts_silence_a_warm_process_for_300_seconds(
    datadog: DatadogServer, initialize: Initialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And initialize(max_timeouts=...) has no effect: APIClient copied the number at import.

    datadog 0.56.0, api/api_client.py, APIClient._max_timeouts, _should_submit(). The state is in
    APIClient._timeout_counter and _backoff_timestamp.
    """
    now = [time.time()]
    clock = types.SimpleNamespace(time=lambda: now[0])
    monkeypatch.setattr("datadog.api.api_client.time", clock)
    arrived = threading.Semaphore(0)

    def delay(request: Request) -> Answer:
        arrived.release()
        return Answer(delay=60.0)

    datadog.respond = delay
    initialize(timeout=0.05, max_timeouts=100)
    for count in (1, 2, 3):
        with pytest.raises(HttpTimeout):
            send()
        assert arrived.acquire(timeout=10)
        assert APIClient._timeout_counter == count

    datadog.respond = None  # Datadog is well again
    for seconds in (0, 1, 298):
        now[0] += seconds
        with pytest.raises(HttpBackoff):
            send()
    assert len(datadog.requests) == 3

    now[0] += 2
    assert send() == {"status": "ok"}


def test_trap_resetting_the_state_ends_the_silence(
    datadog: DatadogServer, initialize: Initialize
) -> None:
    """datadog 0.56.0, api/api_client.py, _should_submit() looks at these two and nothing else."""
    APIClient._timeout_counter, APIClient._backoff_timestamp = 3, time.time()
    initialize()
    with pytest.raises(HttpBackoff):
        send()

    APIClient._timeout_counter, APIClient._backoff_timestamp = 0, None
    assert send() == {"status": "ok"}


# 6


def test_trap_a_connect_timeout_is_no_timeout(initialize: Initialize) -> None:
    """It is a ClientError, muted like one, and isn't counted.

    datadog 0.56.0, api/http_client.py, RequestClient.request(): requests' ConnectTimeout is a
    ConnectionError as well as a Timeout, and that clause comes first.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        # Linux takes one connection more than the backlog; for the next one there is no place.
        with socket.create_connection(address):
            initialize(api_host=f"http://127.0.0.1:{address[1]}", timeout=0.05, mute=False)
            with pytest.raises(ClientError, match="timed out"):
                send()
    assert APIClient._timeout_counter == 0


# 7


@pytest.mark.parametrize(
    ("host_name", "options", "host"),
    [
        pytest.param("sandbox", {}, "sandbox", id="by-default"),
        pytest.param("", {}, "found-out", id="host_name-empty"),
        pytest.param("sandbox", {"attach_host_name": False}, None, id="attach_host_name-false"),
    ],
)
def test_trap_every_sandbox_becomes_a_host(
    datadog: DatadogServer,
    initialize: Initialize,
    monkeypatch: pytest.MonkeyPatch,
    host_name: str,
    options: dict[str, bool],
    host: str | None,
) -> None:
    """A host is part of a point's identity, so that a redelivery would no longer overwrite it.

    datadog 0.56.0, api/metrics.py, Metric.send(attach_host_name=True); __init__.py, initialize():
    `host_name or api._host_name or get_hostname(...)`, so that "" finds out a name.
    """
    monkeypatch.setattr(package, "get_hostname", lambda _: "found-out")
    initialize(host_name=host_name)
    send(**options)

    assert sent(datadog)[0].get("host") == host
    assert list(datadog.points) == [("m", (f"host:{host}",) if host else ())]


# 8


@pytest.mark.parametrize(("host_name", "runs"), [(None, 1), ("sandbox", 0)])
def test_trap_initialize_runs_hostname(
    initialize: Initialize, monkeypatch: pytest.MonkeyPatch, host_name: str | None, runs: int
) -> None:
    """A process more in every cold start, unless there is a host_name.

    datadog 0.56.0, __init__.py, initialize(); util/hostname.py, get_hostname().
    """
    commands: list[list[str]] = []

    def popen(command: list[str], **_: object) -> None:
        commands.append(command)
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "Popen", popen)
    initialize(host_name=host_name)

    assert commands == runs * [["/bin/hostname", "-f"]]


# 9


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        pytest.param({}, "https://api.datadoghq.com", id="default"),
        pytest.param({"DD_SITE": "datadoghq.eu"}, "https://api.datadoghq.com", id="DD_SITE"),
        pytest.param({"DD_HOST": "https://x"}, "https://api.datadoghq.com", id="DD_HOST"),
        pytest.param({"DATADOG_HOST": "https://x"}, "https://x", id="DATADOG_HOST"),
    ],
)
def test_trap_the_site_is_ignored(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], host: str
) -> None:
    """Only `api_host` and DATADOG_HOST count: datadog 0.56.0, __init__.py, initialize()."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    package.initialize(host_name="sandbox")

    assert api._api_host == host


def test_trap_keys_come_from_the_environment(
    datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that isn't given is taken from there: datadog 0.56.0, __init__.py, initialize()."""
    monkeypatch.setenv("DATADOG_API_KEY", "test-key")
    monkeypatch.setenv("DATADOG_APP_KEY", "app-key")
    package.initialize(host_name="sandbox", api_host=datadog.url)

    assert send() == {"status": "ok"}
    assert datadog.requests[0].headers["dd-application-key"] == "app-key"


# 10


@pytest.mark.parametrize(
    ("points", "stored"),
    [
        pytest.param([NOW, 5], [("now", float(NOW)), ("now", 5.0)], id="a-list-is-two-values"),
        pytest.param((NOW, "123"), [(NOW, [1.0, 2.0, 3.0])], id="a-string-is-its-digits"),
        pytest.param((NOW, True), [(NOW, 1.0)], id="true-is-1"),
    ],
)
def test_trap_points_are_reinterpreted(
    monkeypatch: pytest.MonkeyPatch, points: object, stored: list[tuple[object, object]]
) -> None:
    """datadog 0.56.0, api/format.py, format_points()."""
    monkeypatch.setattr("datadog.api.format.time", types.SimpleNamespace(time=lambda: "now"))

    assert format_points(points) == stored


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_trap_nan_becomes_invalid_json(
    datadog: DatadogServer, initialize: Initialize, value: float
) -> None:
    """And one such point costs the whole payload: datadog 0.56.0, api/api_client.py, json.dumps."""
    initialize()
    answer = Metric.send(
        metrics=[{"metric": "m", "points": [(NOW, 1)]}, {"metric": "m", "points": [(NOW, value)]}]
    )

    assert "not plain JSON" in answer["errors"][0]
    assert datadog.points == {}


def test_trap_no_metrics_is_a_key_error(initialize: Initialize) -> None:
    """datadog 0.56.0, api/metrics.py, Metric.send(): `if metrics`, else a single one is wanted."""
    initialize()

    with pytest.raises(KeyError, match="'points' parameter is required"):
        Metric.send(metrics=[])


# 11


def test_trap_the_timeout_is_a_minute(
    initialize: Initialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than most functions live: datadog 0.56.0, api/__init__.py, `_timeout`."""
    timeouts = []

    def request(*_: object, timeout: float, **__: object) -> None:
        timeouts.append(timeout)
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "request", request)
    initialize()
    send()

    assert timeouts == [60]


def retries(url: str) -> Retry:
    """Return how often the package's session tries again at a URL."""
    assert RequestClient._session is not None
    retry: Retry = RequestClient._session.get_adapter(url).max_retries
    return retry


def test_trap_max_retries_never_looks_at_the_status(
    datadog: DatadogServer, initialize: Initialize
) -> None:
    """It is for connecting alone, whatever Datadog answers, and for https alone.

    datadog 0.56.0, api/http_client.py, RequestClient.request(): HTTPAdapter(max_retries) has no
    status in its Retry, and urllib3 tries no POST again that may have arrived.
    """
    datadog.respond = lambda request: Answer(503, b"{}", {"Retry-After": "0"})
    initialize(max_retries=5)
    with pytest.raises(HTTPError):
        send()
    assert len(datadog.requests) == 1
    assert retries(datadog.url).total == 0

    retry = retries("https://api.datadoghq.com")
    assert not retry.is_retry("POST", 503, has_retry_after=True)
    assert retry.increment("POST", "/", error=ConnectTimeoutError()).total == 4
    with pytest.raises(ProtocolError):
        retry.increment("POST", "/", error=ProtocolError())


def test_trap_max_retries_is_fixed_at_the_first_request(initialize: Initialize) -> None:
    """datadog 0.56.0, api/http_client.py, RequestClient.request(): `if cls._session is None`."""
    for max_retries in (5, 0):
        initialize(max_retries=max_retries)
        send()
        assert retries("https://api.datadoghq.com").total == 5


# 12


def test_trap_a_payload_is_never_split(datadog: DatadogServer, initialize: Initialize) -> None:
    """Over Datadog's limit it is refused whole: datadog 0.56.0, api/metrics.py, Metric.send()."""
    initialize()
    with pytest.raises(HTTPError, match="413"):
        Metric.send(metric="m", points=[(NOW, number) for number in range(200_000)])

    (request,) = datadog.requests
    assert request.wire_bytes > MAX_WIRE_BYTES
    assert datadog.points == {}


@pytest.mark.parametrize(
    ("options", "encoding"),
    [
        pytest.param({}, None, id="by-default"),
        pytest.param({"compress_payload": True}, "deflate", id="compress_payload"),
    ],
)
def test_trap_compression_is_off(
    datadog: DatadogServer, initialize: Initialize, options: dict[str, bool], encoding: str | None
) -> None:
    """datadog 0.56.0, api/metrics.py, Metric.send(compress_payload=False)."""
    initialize()
    send(**options)

    assert sent(datadog)[0]["metric"] == "m"
    assert datadog.requests[0].headers.get("content-encoding") == encoding


# 13


def test_trap_without_requests_it_posts_and_then_dies(datadog: DatadogServer) -> None:
    """So a retry posts again: `requests` has to be in the zip.

    datadog 0.56.0, api/http_client.py, resolve_http_client() takes Urllib3Client then, whose
    answers have a `status`, and api/api_client.py, submit() reads `status_code`.
    """
    script = f"""
import sys
sys.modules["requests"] = None  # importing it raises ImportError
import datadog
datadog.initialize(api_key="test-key", api_host="{datadog.url}", host_name="sandbox")
for attempt in (1, 2):
    try:
        datadog.api.Metric.send(metric="m", points=({NOW}, attempt), attach_host_name=False)
    except AttributeError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert run.stdout == 2 * "'HTTPResponse' object has no attribute 'status_code'\n"
    assert [request.status for request in datadog.requests] == [202, 202]
    assert datadog.points == {("m", ()): {NOW: 2.0}}


# 14


def test_trap_the_callers_dicts_are_changed(datadog: DatadogServer, initialize: Initialize) -> None:
    """What is sent a second time isn't what was built.

    datadog 0.56.0, api/metrics.py, Metric.send() rewrites points and metric_type;
    api/api_client.py, submit() adds host.
    """
    metrics = [{"metric": "m", "points": (NOW, 1), "metric_type": "gauge"}]
    initialize()
    Metric.send(metrics=metrics)

    assert metrics == [
        {"metric": "m", "points": [(NOW, 1.0)], "type": "gauge", "host": "sandbox"},
    ]


# Beyond the list


def test_trap_the_key_follows_a_redirect(datadog: DatadogServer, initialize: Initialize) -> None:
    """To whatever host the answer names: requests takes only Authorization away on such a way.

    datadog 0.56.0, api/http_client.py, RequestClient.request() leaves allow_redirects on.
    """
    with DatadogServer("another") as elsewhere:
        location = {"Location": f"{elsewhere.url}/api/v1/series"}
        datadog.respond = lambda request: Answer(307, b"", location)
        initialize()
        send()

        assert elsewhere.requests[0].headers["dd-api-key"] == "test-key"


# The place for another HTTP client


class PluggedClient:
    """An HTTP client that sends nothing, and keeps what it was asked."""

    def __init__(self, status: int, content: bytes = b"") -> None:
        self.answer = types.SimpleNamespace(status_code=status, content=content, headers={})
        self.asked: list[dict[str, Any]] = []

    def request(self, **arguments: Any) -> Any:
        self.asked.append(arguments)
        return self.answer


@pytest.mark.parametrize("status", STATUSES)
def test_a_plugged_client_has_its_answer_handed_through(
    initialize: Initialize, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """An answer without content comes back whole, whatever its status: nothing raised or hidden.

    datadog 0.56.0, api/api_client.py, APIClient._http_client ("Plugged HTTP client"), submit().
    """
    client = PluggedClient(status)
    monkeypatch.setattr(APIClient, "_http_client", client)
    initialize(return_raw_response=True)

    assert send() == (None, client.answer)
    assert len(client.asked) == 1


def test_what_a_plugged_client_is_asked(
    initialize: Initialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keywords, a ready body, the key in a header: datadog 0.56.0, api/api_client.py, submit()."""
    client = PluggedClient(202)
    monkeypatch.setattr(APIClient, "_http_client", client)
    initialize(api_host="https://api.datadoghq.com/", timeout=7, max_retries=0, cacert="ca.pem")
    send(attach_host_name=False)

    assert client.asked == [
        {
            "method": "POST",
            "url": "https://api.datadoghq.com/api/v1/series",
            "headers": {"DD-API-KEY": "test-key", "Content-Type": "application/json"},
            "params": {},
            "data": json.dumps({"series": [{"metric": "m", "points": [[NOW, 1.0]]}]}),
            "timeout": 7,
            "max_retries": 0,
            "proxies": None,
            "verify": "ca.pem",
        }
    ]


def test_what_a_plugged_client_raises_comes_through(
    initialize: Initialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Muted or not, where it is none of the package's errors; and it counts as no timeout.

    datadog 0.56.0, api/api_client.py, submit() catches HttpTimeout, ClientError and ApiError.
    """

    class Unreachable(Exception):
        pass

    class Failing:
        def request(self, **_: object) -> None:
            raise Unreachable

    monkeypatch.setattr(APIClient, "_http_client", Failing())
    initialize()
    for _ in range(4):
        with pytest.raises(Unreachable):
            send()
    assert APIClient._timeout_counter == 0
