"""The guards of all tests: a clean environment, and no network."""

import os
import socket
from collections.abc import Iterator

import pytest

USERS_OWN = ("DATADOG_API_KEY", "AWS_PROFILE", "JOBS", "CONSTANT_TAGS", "https_proxy")


@pytest.fixture(autouse=True, scope="module")
def users_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in USERS_OWN:
            patch.setenv(name, "a user's own")
        yield


def test_environment_of_the_user_is_hidden() -> None:
    assert not {*USERS_OWN} & os.environ.keys()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "testing"


def test_traffic_beyond_loopback_fails_the_test() -> None:
    """No `except Exception` hides it."""
    assert not issubclass(pytest.fail.Exception, Exception)
    refused = pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1")
    with socket.socket() as connection, refused:
        connection.connect(("192.0.2.1", 80))
    with pytest.raises(pytest.fail.Exception, match=r"example\.com"):
        socket.getaddrinfo("example.com", 443)
