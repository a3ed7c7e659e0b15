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


KEYS = ["", " ", "hidden value", "hidden\n", "\thidden", "hid\x7fden", "hid\u00a0den"]
HOSTS = """api.datadoghq.eu ftp://api.datadoghq.eu https:// https://user:password@api.datadoghq.eu
    http://[ http://[::1 http://::1:8126 https://api.datadoghq.eu:port https://a.example/b"""
JOBS = """[] x 3 { {"a":1} {"a":{"mapping":1}} {"a":{"mapping":null}} {"a":{"watched":1}}
    eyJhIjp7fX0= H4sIAAAAAAAA H4sI"""
METRICS = """[] {"a":[]} {"a":{"type":"rate"}} {"a":{"type":"distribution"}} {"a":{"interval":60}}
    {"a":{"type":["count"]}}"""
MALFORMED: dict[str, list[Any]] = {
    "DATADOG_API_KEY": [None, *KEYS],
    "DATADOG_APP_KEY": KEYS,
    "DATADOG_HOST": ["", "https://a.example\n", "https://api datadoghq.eu", *HOSTS.split()],
    "REJECTED_QUEUE_URL": [None, "", "rejected", "https://sqs.example.com/1/my queue"],
    "MAX_AGE_SECONDS": ["", "-1", "1.5", "1h", "1_000", "٣", "10000000000", " 60"],
    "LOG_LEVEL": ["", "LOUD", "20"],
    "BUCKETS": ["[]", "{", '{"a": 1}', '{"a": null}', '"a"', "3", "[" * 100_000],
    "JOBS": JOBS.split(),
    "METRICS": METRICS.split()
    + [
        f'{{"a": {{"type": "count", "interval": {interval}}}}}'
        for interval in ("0", "1.5", "true", '"60"', "31536001")
    ],
    "METRIC_PREFIX": ["9x.", "_a", ".", "a_.", "a__", "é", " ", "a" * 200],
    "LOG_FILES": ["", "1", "True"],
    "CONSTANT_TAGS": [",", "env:prod,,team:data", "env:prod,", "123", "env:prod,!!!"],
}


@pytest.mark.parametrize(
    ("variable", "value"), [(name, value) for name, values in MALFORMED.items() for value in values]
)
def test_malformed_variable_is_named(
    submitter: Submitter, variable: str, value: str | None
) -> None:
    """At the first invocation, which does nothing; no key is shown. None: it is missing."""
    submitter.keys = ["hid", "test-key"]
    submitter.environment.delenv(variable, raising=False)
    submitter.set(**({} if value is None else {variable: value}))
    problem = f"{variable} is {'missing' if value is None else 'malformed'}: "
    with pytest.raises(ValueError, match=problem) as raised:
        submitter.submit(sqs_record(FILES))
    submitter.check_secrecy("".join(traceback.format_exception(raised.value)), repr(raised.value))
    assert submitter.datadog.requests + submitter.datadog.validations == []


def test_settings_show_no_key(submitter: Submitter) -> None:
    """Whatever prints them, a traceback of somebody's or a debugger."""
    submitter.set(DATADOG_APP_KEY="secret-app-key")
    settings = submitter.module.read_settings(os.environ)
    assert "key" not in f"{settings!r} {settings}"


def test_import_does_nothing() -> None:
    """It reads no setting, opens no connection, runs no program: a start can fail at none."""
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


# --- Datadog's address ---


def test_host_defaults_to_us1(submitter: Submitter, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://api.datadoghq.com, over TLS that is verified."""
    sent: dict[str, Any] = {}

    def send(self: object, method: str, url: str, **options: Any) -> Any:
        sent[f"{method} {url}"] = options["verify"]
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "request", send)  # the tests have no network
    submitter.environment.delenv("DATADOG_HOST")
    submitter.set(DD_SITE="datadoghq.eu", DD_API_KEY="no", DD_HOSTNAME="h")  # change nothing
    assert submitter.submit_from(FILES).files == (0, 0, 1)
    assert sent == {
        "GET https://api.datadoghq.com/api/v1/validate": True,
        "POST https://api.datadoghq.com/api/v1/series": True,
    }


# --- Tags and ages ---


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ("", ("job:job",)),
        ("Env:My Prod!", ("env:my_prod", "job:job")),  # normalised
        ("env:prod, team:data ", ("env:prod", "job:job", "team:data")),
        ("job:job,x,x", ("job:job", "x")),  # each once
    ],
)
def test_constant_tags(submitter: Submitter, value: str, tags: tuple[str, ...]) -> None:
    """Every series carries them."""
    submitter.set(CONSTANT_TAGS=value)
    submitter.submit_from(FILES)
    assert list(submitter.datadog.points) == [("m", tags)]


@pytest.mark.parametrize(
    ("max_age", "age", "files"),
    [
        (None, 3500, (1, 0, 0)),
        (None, 3700, (0, 1, 0)),
        ("60", 50, (1, 0, 0)),
        ("60", 70, (0, 1, 0)),
        ("0", 1_000_000, (1, 0, 0)),
        ("0", -700, (0, 1, 0)),  # ahead, which Datadog never takes
        ("9999999999", 1_000_000, (1, 0, 0)),
    ],
)
def test_max_age(
    submitter: Submitter, max_age: str | None, age: int, files: tuple[int, int, int]
) -> None:
    """An hour by default; 0 is for metrics with Historical Metrics Ingestion."""
    if max_age is not None:
        submitter.set(MAX_AGE_SECONDS=max_age)
    assert submitter.submit_from({"stats/a.json": stats(age, now=time.time())}).files == files
