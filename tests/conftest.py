"""Real parts for the tests: a strict local Datadog, moto's AWS, and no network beyond."""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.datadog_server import DatadogServer
from tests.scripted_server import ScriptedServer
from tests.submitter import API_KEY, Submitter
from tests.zips import make_zips

# If a shell runs the tests in the background, they and their children would ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)

SETTINGS = (
    *("AWS_", "DATADOG_", "DD_", "DDG_", "STATS_", "BUCKETS", "CONSTANT_TAGS", "JOBS", "LOG_"),
    *("MAX_AGE_SECONDS", "METRIC", "REJECTED_QUEUE_URL"),
)
TEST_ENVIRONMENT = {
    **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing"),
    **dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull),
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's settings, credentials and proxies out of the tests."""
    for name in tuple(os.environ):
        if name.startswith(SETTINGS) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    for name, value in TEST_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    """Undo a test's cold starts: other tests must see each class once."""
    kept = {name: module for name, module in sys.modules.items() if name.startswith("ddg_")}
    yield
    for name in [name for name in sys.modules if name.startswith("ddg_")]:
        del sys.modules[name]
    sys.modules.update(kept)


def no_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Fail a test that connects to, or looks up, anything but loopback."""
    match event, arguments:
        case ("socket.connect" | "socket.sendto", (_, (host, *_))):
            pass
        case ("socket.getaddrinfo" | "socket.gethostbyname", (host, *_)):
            pass
        case _:
            return
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    if name not in ("localhost", "::1") and not re.fullmatch(r"127(\.\d{1,3}){3}", name):
        pytest.fail(f"the tests have no network but loopback, and this one wants {name}")


sys.addaudithook(no_network)


@pytest.fixture
def datadog() -> Iterator[DatadogServer]:
    """A strict local Datadog that accepts one key; its clock is the test's."""
    with DatadogServer(API_KEY, clock=lambda: time.time()) as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The URL of moto's server, which is every AWS service."""
    from moto.server import ThreadedMotoServer  # importing it takes a second

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the zips of both functions."""
    folder = tmp_path_factory.mktemp("zips")
    make_zips(folder)
    return folder


@pytest.fixture(scope="session")
def scripted_s3() -> Iterator[ScriptedServer]:
    """A server for what moto's S3 can't do."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def submitter(
    moto: str,
    scripted_s3: ScriptedServer,
    datadog: DatadogServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Submitter:
    """The submitter in a new execution environment."""
    return Submitter(moto, scripted_s3, datadog, monkeypatch, capsys, caplog)
