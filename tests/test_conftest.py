"""The guards that every test runs under."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

USERS_OWN = {
    "DATADOG_API_KEY": "a real one",
    "AWS_PROFILE": "production",
    "STATS_PREFIX": "elsewhere/",
    "CONSTANT_TAGS": "env:prod",
    "https_proxy": "http://127.0.0.1:1",
}


@pytest.fixture(autouse=True, scope="module")
def users_environment() -> Iterator[None]:
    """Whoever runs the tests has a life of their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in USERS_OWN.items():
            patch.setenv(name, value)
        yield


def test_the_users_environment_stays_outside() -> None:
    """No key, region or proxy of theirs reaches a test, and AWS credentials are made up."""
    assert USERS_OWN.keys() & os.environ.keys() == set()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "testing"


@pytest.mark.parametrize("call", [socket.socket.connect, socket.socket.connect_ex])
def test_connecting_beyond_loopback_fails_the_test(call: Callable[..., object]) -> None:
    """With an error that no `except Exception` takes for the network's."""
    with socket.socket() as connection, pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"):
        call(connection, ("192.0.2.1", 80))
    assert not issubclass(pytest.fail.Exception, Exception)


def test_looking_up_a_name_fails_the_test() -> None:
    """A look-up is traffic too."""
    with pytest.raises(pytest.fail.Exception, match=r"example\.com"):
        socket.getaddrinfo("example.com", 443)
    assert socket.getaddrinfo("localhost", 80)
