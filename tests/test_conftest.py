"""The guards that every test runs under."""

import os
import socket
from collections.abc import Iterator

import pytest

USERS_OWN = {"DATADOG_API_KEY": "a real one", "AWS_PROFILE": "production", "JOBS": "{}"}
USERS_OWN |= {"CONSTANT_TAGS": "env:prod", "https_proxy": "http://127.0.0.1:1", "STATS_PREFIX": "x"}


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


def test_traffic_beyond_loopback_fails_the_test() -> None:
    """A look-up too; with an error that no `except Exception` takes for the network's."""
    assert not issubclass(pytest.fail.Exception, Exception)
    for call in (socket.socket.connect, socket.socket.connect_ex):
        refused = pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1")
        with socket.socket() as connection, refused:
            call(connection, ("192.0.2.1", 80))
    with pytest.raises(pytest.fail.Exception, match=r"example\.com"):
        socket.getaddrinfo("example.com", 443)
    assert socket.getaddrinfo("localhost", 80)
