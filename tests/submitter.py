"""The submitter for the tests: its input, and all of its output."""

import gc
import importlib
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import boto3
import botocore.session
import datadog.api
import pytest

from local.datadog_server import DatadogServer
from tests.events import Context, sqs_event, sqs_record
from tests.scripted_server import Call, Objects, Script, ScriptedServer, bucket_of, response

API_KEY = "test-key"  # the fixture `datadog` accepts it
COUNTS = ("Submitted", "Refused", "Retried", "Ignored", "Points", "Requests")
UNITS = dict.fromkeys(COUNTS, "Count") | {"WireBytes": "Bytes"}
UNITS |= dict.fromkeys(("FetchMilliseconds", "PostMilliseconds"), "Milliseconds")
WORDS = ("refused ", "retried ", "ignored ", "submitted ", "{")  # how a line may begin
# What ends a line, controls a terminal, or changes the direction of text
CONTROL_CHARACTERS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Rejected(NamedTuple):
    """One message of the rejected queue."""

    body: str
    attributes: dict[str, str]


class Outcome(NamedTuple):
    """All results of one batch."""

    retried: list[int]  # indexes of the batch's messages
    rejected: list[Rejected]
    summary: dict[str, Any]  # the EMF line
    log: list[str]  # the lines printed, then "WARNING the message" for each one logged

    @property
    def files(self) -> tuple[int, int, int]:
        """Files submitted, refused and retried."""
        return self.summary["Submitted"], self.summary["Refused"], self.summary["Retried"]

    @property
    def reasons(self) -> list[str]:
        return [message.attributes.get("reason", "") for message in self.rejected]


class Clock:
    """The time that the functions see. It passes without waiting."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.pauses: list[float] = []  # in the handler's thread; botocore pauses in others
        self._wall = self._monotonic = 0.0
        wall, monotonic = time.time, time.monotonic
        patch.setattr("time.time", lambda: wall() + self._wall)
        patch.setattr("time.monotonic", lambda: monotonic() + self._monotonic)
        patch.setattr("time.sleep", self._sleep)

    def spend(self, seconds: float) -> None:
        self._wall += seconds
        self._monotonic += seconds

    def freeze(self, seconds: float) -> None:
        """Let time pass as it does between two invocations, while the process is frozen."""
        self._wall += seconds

    def _sleep(self, seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():
            self.pauses.append(seconds)
            self.spend(seconds)


def cold_start(module: str = "ddg_metric_submit") -> ModuleType:
    """Import a function again, as a new execution environment does."""
    for name in ("_api_key", "_application_key", "_api_host"):  # globals of the package
        setattr(datadog.api, name, None)
    for name in [name for name in sys.modules if name.startswith("ddg_")]:
        del sys.modules[name]
    imported = importlib.import_module(module)
    gc.unfreeze()  # objects of earlier cold starts in this process
    return imported


make_client = botocore.session.Session.create_client
clients: dict[tuple[str, ...], Any] = {}


def kept_client(session: botocore.session.Session, service: str, *rest: Any, **options: Any) -> Any:
    """Make a client, or return the one made with the same options: making one takes 60 ms."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    config = vars(options["config"]) if options.get("config") else None
    circumstances = (service, *map(repr, (rest, options | {"config": config}, variables)))
    if circumstances not in clients:
        clients[circumstances] = make_client(session, service, *rest, **options)
    return clients[circumstances]


@cache
def aws(service: str, endpoint: str) -> Any:
    """Return the tests' own client."""
    return boto3.client(service, endpoint_url=endpoint, region_name="us-east-1")  # type: ignore[call-overload]  # any service


@cache
def queue_url(name: str, endpoint: str) -> str:
    """Make a queue, once: each batch leaves it empty."""
    url: str = aws("sqs", endpoint).create_queue(QueueName=name)["QueueUrl"]
    return url


class Submitter:
    """The handler with its bucket, rejected queue, Datadog and clock."""

    def __init__(
        self,
        moto: str,
        scripted_s3: ScriptedServer,
        datadog: DatadogServer,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self.datadog = datadog
        self.environment = monkeypatch
        self.moto = moto
        self._scripted_s3 = scripted_s3
        self._capsys, self._caplog = capsys, caplog
        caplog.set_level(logging.ERROR, "werkzeug")  # moto's server runs in this process
        caplog.set_level(logging.INFO)  # of the root: every library
        self.rejected_url = queue_url("rejected", moto)
        self.keys = [API_KEY]  # must never be shown
        self.set(
            AWS_ENDPOINT_URL=moto,
            DATADOG_API_KEY=API_KEY,
            DATADOG_HOST=datadog.url,
            LOG_FILES="false",
            REJECTED_QUEUE_URL=self.rejected_url,
        )
        monkeypatch.setattr(botocore.session.Session, "create_client", kept_client)
        self.clock = Clock(monkeypatch)
        self.restart()

    def restart(self) -> None:
        self.module = cold_start()

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.environment.setenv(name, value)

    def shrink_payloads(self) -> None:
        """Limit payloads to a twentieth: 64 series of a bulky file."""
        for name in ("MAX_PAYLOAD_BYTES", "MAX_WIRE_BYTES"):
            module = self.module.ddg_series_api
            self.environment.setattr(module, name, getattr(module, name) // 20)

    def message(self, *keys: str, receive_count: int | None = 1) -> dict[str, Any]:
        return sqs_record(keys, receive_count=receive_count)

    def submit(self, *messages: Mapping[str, Any], context: Context | None = None) -> Outcome:
        """Invoke the handler with a batch, and check what holds for every batch."""
        self._capsys.readouterr()
        self._caplog.clear()
        answer = self.module.lambda_handler(sqs_event(messages), context or Context())
        printed, errors = self._capsys.readouterr()
        rejected = list(self._take_rejected())
        assert answer.keys() == {"batchItemFailures"}
        ids = [message["messageId"] for message in messages]
        retried = [ids.index(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]]
        self.check_secrecy(printed, errors, self._caplog.text, repr(answer), repr(rejected))
        strangers = {record.name for record in self._caplog.records}
        assert all(name.startswith("ddg_") for name in strangers), self._caplog.text
        assert errors == ""
        *lines, line = printed.splitlines()
        summary = json.loads(line)
        for each in (line, *(each for each in lines if each.startswith("{"))):
            check_emf(json.loads(each))
        # A message is retried or rejected, never both
        assert len(set(retried)) == len(retried)
        done = {message["body"] for i, message in enumerate(messages) if i not in retried}
        kept = {body for body, _ in rejected if body != "(empty)" and "\ufffd" not in body}
        assert kept <= done
        # The lines account for each refusal and each retry
        assert sum(line.startswith("refused ") for line in lines) == summary["Refused"]
        counts = [int(line.split()[1].strip(":")) for line in lines if line.startswith("retried ")]
        assert sum(counts) == summary["Retried"]
        log = [f"{record.levelname} {record.getMessage()}" for record in self._caplog.records]
        assert all(line.startswith(WORDS) for line in lines)
        texts = [text for _, attributes in rejected for text in attributes.values()]
        for text in (*lines, *log, *texts):
            assert not CONTROL_CHARACTERS.search(text), text
        return Outcome(sorted(retried), rejected, summary, lines + log)

    def submit_from(self, objects: Objects, *messages: Any, **options: Any) -> Outcome:
        """Submit objects of a scripted S3, by default with a message for each."""
        with self.reading_from(bucket_of(objects)):
            return self.submit(*(messages or map(self.message, objects)), **options)

    @contextmanager
    def reading_from(self, script: Script) -> Iterator[ScriptedServer]:
        """Replace moto's S3 by a script."""
        with self._scripted_s3.playing(script) as s3:
            self.set(AWS_ENDPOINT_URL_S3=s3.url)
            yield s3

    @contextmanager
    def posting_to(self, script: Script) -> Iterator[ScriptedServer]:
        """Replace the local Datadog by a script, which accepts any key."""

        def answer(call: Call) -> bytes | Iterable[bytes]:
            valid = response(body=b'{"valid": true}')
            return valid if call.path == "/api/v1/validate" else script(call)

        with ScriptedServer(answer) as server:
            self.set(DATADOG_HOST=server.url)
            yield server

    @contextmanager
    def rejecting_to(self, script: Script) -> Iterator[None]:
        """Replace moto's SQS by a script."""
        with ScriptedServer(script) as sqs:
            self.set(AWS_ENDPOINT_URL_SQS=sqs.url, REJECTED_QUEUE_URL=f"{sqs.url}/1/rejected")
            yield

    def check_secrecy(self, *texts: str) -> None:
        for key in self.keys:
            assert not any(key in text for text in texts)

    def stored(self) -> dict[tuple[str, tuple[str, ...]], list[float]]:
        """Return Datadog's points: metric and tags -> values by time."""
        return {
            series: [value for _, value in sorted(points.items())]
            for series, points in self.datadog.points.items()
        }

    def _take_rejected(self) -> Iterator[Rejected]:
        sqs = aws("sqs", self.moto)
        while messages := sqs.receive_message(
            QueueUrl=self.rejected_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            for each in messages:
                texts = {k: v["StringValue"] for k, v in each.get("MessageAttributes", {}).items()}
                yield Rejected(each["Body"], texts)
                sqs.delete_message(QueueUrl=self.rejected_url, ReceiptHandle=each["ReceiptHandle"])


def check_emf(line: Mapping[str, Any]) -> None:
    """Fail if CloudWatch would make other metrics of a line, or none.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    dimensions, units = ["FunctionName"], UNITS
    if "Job" in line:
        dimensions, units = ["FunctionName", "Job"], {"Submitted": "Count", "Refused": "Count"}
    if "DelayMilliseconds" in line:
        units = units | {"DelayMilliseconds": "Milliseconds"}
    metrics = [{"Name": name, "Unit": units[name]} for name in line if name in units]
    directive = {"Namespace": "DatadogStats", "Dimensions": [dimensions], "Metrics": metrics}
    written = {"Timestamp": int(line["_aws"]["Timestamp"]), "CloudWatchMetrics": [directive]}
    assert line["_aws"] == written
    assert line.keys() == {"_aws", *dimensions, *units}
    assert line["FunctionName"] == Context.function_name
    assert all(0 < len(line[name]) <= 1024 and line[name].isascii() for name in dimensions)
    for name in units:
        values = line[name] if isinstance(line[name], list) else [line[name]]
        assert 1 <= len(values) <= 100
        assert all(type(value) is int and value >= 0 for value in values)
    assert len(line.get("DelayMilliseconds", [])) <= line["Submitted"]
