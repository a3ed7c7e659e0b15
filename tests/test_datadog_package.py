"""Traps of the `datadog` package 0.56.0, and its place for another HTTP client.

If a test fails after an upgrade, look at the submitter's workaround again.
"""

import json
import time
import types
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import datadog as package
import pytest
from datadog import api
from datadog.api.api_client import APIClient
from datadog.api.exceptions import ApiError, HTTPError
from datadog.api.metrics import Metric

from local.datadog_server import Answer, DatadogServer

NOW = int(time.time())
Initialize = Callable[..., None]


@pytest.fixture
def initialize(datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch) -> Initialize:
    """Return a function that initializes the package as it is after its import."""
    known = {"_mute": True, "_return_raw_response": False, "_host_name": None}
    for name, value in (known | {"_application_key": None}).items():
        monkeypatch.setattr(api, name, value)
    monkeypatch.setattr(APIClient, "_http_client", None)
    return partial(
        package.initialize, api_key="test-key", api_host=datadog.url, host_name="sandbox"
    )


def send(**options: Any) -> Any:
    """Send one point."""
    return Metric.send(metric="m", points=(NOW, 1), **options)


@pytest.mark.parametrize(
    ("status", "body", "muted", "unmuted"),
    [
        (202, b'{"errors": []}', {"errors": []}, ApiError),  # accepted, and raised
        (403, b'{"errors": ["no"]}', {"errors": ["no"]}, ApiError),  # refused, and returned
        (403, b"", None, None),  # refused, and looks accepted
        (503, b"{}", HTTPError, HTTPError),  # its message alone has the status
    ],
)
def test_answers_are_misread(
    datadog: DatadogServer,
    initialize: Initialize,
    status: int,
    body: bytes,
    muted: Any,
    unmuted: Any,
) -> None:
    """mute=True is the default."""
    datadog.respond = lambda request: Answer(status, body)
    for options, expected in (({}, muted), ({"mute": False}, unmuted)):
        initialize(**options)
        if isinstance(expected, type):
            with pytest.raises(expected) as raised:
                send()
            assert vars(raised.value) == {}
        else:
            assert send() == expected


@pytest.mark.parametrize("status", [202, 403, 503])
def test_answer_of_another_client_is_returned(
    initialize: Initialize, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """An answer without content causes no error, whatever its status is."""
    answer = types.SimpleNamespace(status_code=status, content=b"", headers={})
    client = mock.Mock(request=mock.Mock(return_value=answer))
    monkeypatch.setattr(APIClient, "_http_client", client)
    initialize(api_host="https://api.datadoghq.com/", timeout=7, return_raw_response=True)
    assert send(attach_host_name=False) == (None, answer)
    assert APIClient.submit("GET", "validate") == (None, answer)
    key, url = {"DD-API-KEY": "test-key"}, "https://api.datadoghq.com/api/v1"
    common = {"params": {}, "timeout": 7, "max_retries": 3, "proxies": None, "verify": True}
    post = {
        "method": "POST",
        "url": f"{url}/series",
        "headers": key | {"Content-Type": "application/json"},
        "data": json.dumps({"series": [{"metric": "m", "points": [[NOW, 1.0]]}]}),
    }
    question = {"method": "GET", "url": f"{url}/validate", "headers": key, "data": None}
    assert client.request.mock_calls == [mock.call(**common | each) for each in (post, question)]
