"""The submitter: its environment."""

import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.events import sqs_record, stats
from tests.submitter import Submitter

ROOT = Path(__file__).parent.parent
FILES = {"stats/job/a.json": stats(m=1)}
KEYS = ["", "hidden value", "hidden\n", "hid\x7fden", "hid\u00a0den"]
HOSTS = """api.datadoghq.eu ftp://api.datadoghq.eu https:// https://user:password@api.datadoghq.eu
    http://[::1 http://::1:8126 https://api.datadoghq.eu:port https://a.example/b"""
JOBS = """[] x { {"a":1} {"a":{"mapping":null}} {"a":{"watched":1}} eyJhIjp7fX0= H4sIAAAAAAAA"""
METRICS = """[] {"a":{"type":"rate"}} {"a":{"type":["count"]}} {"a":{"interval":60}}"""
MALFORMED: dict[str, list[Any]] = {
    "DATADOG_API_KEY": [None, *KEYS],
    "DATADOG_APP_KEY": ["", "hidden value"],
    "DATADOG_HOST": ["", "https://a.example\n", "https://api datadoghq.eu", *HOSTS.split()],
    "REJECTED_QUEUE_URL": [None, "rejected", "https://sqs.example.com/1/my queue"],
    "MAX_AGE_SECONDS": ["", "-1", "1h", "٣", "10000000000"],
    "LOG_LEVEL": ["LOUD", "20"],
    "BUCKETS": ["[]", "{", '{"a": null}', "[" * 100_000],
    "JOBS": JOBS.split(),
    "METRICS": METRICS.split()
    + [
        f'{{"a": {{"type": "count", "interval": {interval}}}}}'
        for interval in ("0", "1.5", "true", "31536001")
    ],
    "METRIC_PREFIX": ["9x.", "a_.", "a__", "a" * 200],
    "LOG_FILES": ["", "True"],
    "CONSTANT_TAGS": ["env:prod,,team:data", "env:prod,!!!"],
}


@pytest.mark.parametrize(
    ("variable", "value"), [(name, value) for name, values in MALFORMED.items() for value in values]
)
def test_malformed_variable_is_named(
    submitter: Submitter, variable: str, value: str | None
) -> None:
    """The first invocation fails, sends nothing and shows no key. None: it is missing."""
    submitter.keys = ["hid", "test-key"]
    submitter.environment.delenv(variable, raising=False)
    submitter.set(**({} if value is None else {variable: value}))
    problem = f"{variable} is {'missing' if value is None else 'malformed'}: "
    with pytest.raises(ValueError, match=problem) as raised:
        submitter.submit(sqs_record(FILES))
    submitter.check_secrecy("".join(traceback.format_exception(raised.value)), repr(raised.value))
    assert submitter.datadog.requests + submitter.datadog.validations == []


def test_settings_show_no_key(submitter: Submitter) -> None:
    submitter.set(DATADOG_APP_KEY="secret-app-key")
    settings = submitter.module.ddg_settings.read_settings(os.environ)
    assert "key" not in f"{settings!r} {settings}"


def test_import_does_nothing() -> None:
    """It reads no setting, opens no connection, and runs no program."""
    code = """
import logging, os, sys, threading
class Watched(type(os.environ)):
    def __getitem__(self, name):
        if name in {NAMES}:
            raise SystemExit(f"{name} was read")
        return super().__getitem__(name)
os.environ.__class__ = Watched
def watch(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "subprocess", "os.system")):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(watch)
import ddg_metric_submit, ddg_mock_datasource
assert threading.active_count() == 1
"""
    environment = {"PATH": os.environ["PATH"], "DATADOG_API_KEY": "", "LOG_LEVEL": "LOUD"}
    names = {*MALFORMED, "DATADOG_API_KEY_SECRET_ARN", "STATS_PREFIX", "AWS_ENDPOINT_URL"}
    command = [sys.executable, "-c", code.replace("{NAMES}", f"{names}")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_host_defaults_to_us1(submitter: Submitter, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS is verified, and variables of other programs change nothing."""
    sent: dict[str, Any] = {}

    def send(self: object, method: str, url: str, **options: Any) -> Any:
        sent[f"{method} {url}"] = options["verify"]
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "request", send)  # the tests have no network
    submitter.environment.delenv("DATADOG_HOST")
    submitter.set(DD_SITE="datadoghq.eu", DD_API_KEY="no", DD_HOSTNAME="h")
    assert submitter.submit_from(FILES).files == (0, 0, 1)
    assert sent == {
        "GET https://api.datadoghq.com/api/v1/validate": True,
        "POST https://api.datadoghq.com/api/v1/series": True,
    }


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ("", ("job:job",)),
        ("Env:My Prod!", ("env:my_prod", "job:job")),  # normalised
        ("env:prod, team:data ", ("env:prod", "job:job", "team:data")),
        ("job:job,x,x", ("job:job", "x")),  # each once
    ],
)
def test_every_series_has_the_constant_tags(
    submitter: Submitter, value: str, tags: tuple[str, ...]
) -> None:
    submitter.set(CONSTANT_TAGS=value)
    submitter.submit_from(FILES)
    assert list(submitter.datadog.points) == [("m", tags)]


@pytest.mark.parametrize(
    ("max_age", "age", "files"),
    [
        (None, 3500, (1, 0, 0)),
        (None, 3700, (0, 1, 0)),
        ("0", 1_000_000, (1, 0, 0)),
        ("9999999999", 1_000_000, (1, 0, 0)),
    ],
)
def test_max_age(
    submitter: Submitter, max_age: str | None, age: int, files: tuple[int, int, int]
) -> None:
    """It is an hour by default; 0 is for metrics with Historical Metrics Ingestion."""
    if max_age is not None:
        submitter.set(MAX_AGE_SECONDS=max_age)
    assert submitter.submit_from({"stats/a.json": stats(age, now=time.time())}).files == files
