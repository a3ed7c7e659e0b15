"""A deployed stack on moto for the tests of ddg_ops.py, and a way to run its commands."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.loaders import create_loader

import ddg_metric_submit
import ddg_ops
import ddg_ops_backfill
import ddg_ops_queues
import ddg_ops_stack
import ddg_ops_watch
from local.datadog_server import DatadogServer
from local.event_source import sqs_record

KEY = "test-key"
ACCOUNT, REGION = "123456789012", "us-east-1"
ALARMS = ("files-rejected", "dead-letters", "files-waiting")
numbers = itertools.count()


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The output, of a command with --json."""
        return json.loads(self.out)


Run = Callable[..., Result]


@cache
def clients(moto: str) -> dict[str, Any]:
    """Return the tests' own clients; making them takes longer than all that they do."""
    make: Any = boto3.Session("testing", "testing", region_name=REGION).client
    services = ("s3", "sqs", "lambda", "iam", "logs", "cloudwatch", "sns", "secretsmanager")
    return {service: make(service, endpoint_url=moto) for service in services}


# The commands make their clients anew, but needn't read botocore's megabytes of JSON each time.
shared_loader = cache(create_loader)


class StackOnMoto:
    """A stack as main.tf makes it, as far as the commands look."""

    def __init__(self, moto: str, datadog_url: str) -> None:
        self.name = f"ops-{next(numbers)}"
        self.aws = clients(moto)
        self.bucket = f"{self.name}-{ACCOUNT}-{REGION}"
        self.function = f"{self.name}-metric-submit"
        self.log_group = f"/aws/lambda/{self.function}"
        self.main_url = self._queue("stats")
        self.rejected_url = self._queue("rejected")
        self.dead_letter_url = self._queue("dead-letter")
        self.main_arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.name}-stats"
        self.aws["s3"].create_bucket(Bucket=self.bucket)
        self.notify()
        self.environment = {
            "DATADOG_API_KEY": KEY,
            "DATADOG_HOST": datadog_url,
            "STATS_PREFIX": "stats/",
            "REJECTED_QUEUE_URL": self.rejected_url,
            "CONSTANT_TAGS": "env:test",
            "MAX_AGE_SECONDS": "3600",
        }
        self._create_function()
        self.aws["logs"].create_log_group(logGroupName=self.log_group)
        self.aws["logs"].create_log_stream(logGroupName=self.log_group, logStreamName="1")
        for alarm in ALARMS:
            self.aws["cloudwatch"].put_metric_alarm(
                AlarmName=f"{self.name}-{alarm}",
                AlarmDescription=f"First do this about {alarm}.",
                Namespace="AWS/SQS",
                MetricName="of no matter",
                Period=60,
                EvaluationPeriods=1,
                Statistic="Maximum",
                Threshold=0,
                ComparisonOperator="GreaterThanThreshold",
            )
            self.alarm(alarm, "OK")
        topic = self.aws["sns"].create_topic(Name=f"{self.name}-alarms")["TopicArn"]
        self.aws["sns"].subscribe(TopicArn=topic, Protocol="email", Endpoint="a@example.com")
        self.outputs: dict[str, dict[str, Any]] = {
            "bucket": {"value": self.bucket},
            "prefix": {"value": "stats/"},
            "queue_urls": {
                "value": {
                    "stats": self.main_url,
                    "dead_letter": self.dead_letter_url,
                    "rejected": self.rejected_url,
                }
            },
            "function_names": {"value": {"metric_submit": self.function}},
            "log_groups": {"value": {"metric_submit": self.log_group}},
            "alarm_names": {"value": [f"{self.name}-{alarm}" for alarm in ALARMS]},
            "alarm_topic_arn": {"value": topic},
        }

    def _queue(self, name: str) -> str:
        url: str = self.aws["sqs"].create_queue(QueueName=f"{self.name}-{name}")["QueueUrl"]
        return url

    def _create_function(self) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("x.py", "")
        role = self.aws["iam"].create_role(
            RoleName=self.function, AssumeRolePolicyDocument='{"Version": "2012-10-17"}'
        )
        self.aws["lambda"].create_function(
            FunctionName=self.function,
            Runtime="python3.13",
            Role=role["Role"]["Arn"],
            Handler="x.lambda_handler",
            Code={"ZipFile": content.getvalue()},
            Environment={"Variables": self.environment},
        )
        self.mapping: str = self.aws["lambda"].create_event_source_mapping(
            EventSourceArn=self.main_arn,
            FunctionName=self.function,
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )["UUID"]
        self.quiet()

    def quiet(self) -> None:
        """Keep moto from taking the main queue's messages itself, to run the function in Docker."""
        self.queue(self.main_url).lambda_event_source_mappings.clear()

    def notify(self, prefix: str = "stats/") -> None:
        """Have the bucket notify the main queue."""
        rule = {"Name": "prefix", "Value": prefix}
        queue = {
            "QueueArn": self.main_arn,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [rule]}},
        }
        self.aws["s3"].put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={"QueueConfigurations": [queue]}
        )
        self.take(self.main_url)  # S3's test event

    def set_environment(self, **changes: str) -> None:
        """Change the function's environment; an empty value takes a variable out."""
        self.environment |= changes
        variables = {name: value for name, value in self.environment.items() if value}
        self.aws["lambda"].update_function_configuration(
            FunctionName=self.function, Environment={"Variables": variables}
        )

    def alarm(self, alarm: str, state: str) -> None:
        """Switch an alarm."""
        self.aws["cloudwatch"].set_alarm_state(
            AlarmName=f"{self.name}-{alarm}", StateValue=state, StateReason="a test"
        )

    def metric(self, namespace: str, name: str, value: float, **dimensions: str) -> None:
        """Have CloudWatch know a value."""
        named = [{"Name": key, "Value": text} for key, text in dimensions.items()]
        data = {"MetricName": name, "Dimensions": named, "Value": value}
        self.aws["cloudwatch"].put_metric_data(Namespace=namespace, MetricData=[data])

    def put(self, key: str, content: object) -> None:
        """Write a file; an object becomes JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.aws["s3"].put_object(Bucket=self.bucket, Key=key, Body=body)

    def reject(self, key: str, reason: str, body: str | None = None) -> None:
        """Put a message into the rejected queue, as the submitter does."""
        texts = {"reason": reason, "bucket": self.bucket, "key": key}
        self.aws["sqs"].send_message(
            QueueUrl=self.rejected_url,
            MessageBody=body or notification(self.bucket, key),
            MessageAttributes={
                name: {"DataType": "String", "StringValue": ddg_metric_submit.printable(text)}
                for name, text in texts.items()
            },
        )

    def bodies(self, url: str) -> list[str]:
        """Return the bodies of a queue's visible messages; they stay visible."""
        messages = []
        while (
            batch := self.aws["sqs"]
            .receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            .get("Messages")
        ):
            messages += batch
        for message in messages:
            self.aws["sqs"].change_message_visibility(
                QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
            )
        return sorted(message["Body"] for message in messages)

    def queue(self, url: str) -> Any:
        """Return moto's own queue."""
        from moto.backends import get_backend  # a second to import

        return get_backend("sqs")[ACCOUNT][REGION].queues[url.rsplit("/", 1)[-1]]

    def everything(self, url: str) -> set[str]:
        """Return the bodies of a queue's messages, invisible ones too."""
        return {message.body for message in self.queue(url)._messages}

    def purge(self, url: str) -> None:
        """Empty a queue, invisible messages too."""
        self.queue(url)._messages.clear()

    def send_all(self, url: str, bodies: Iterable[str]) -> None:
        """Put messages into a queue."""
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        for start in range(0, len(entries), 10):
            self.aws["sqs"].send_message_batch(QueueUrl=url, Entries=entries[start : start + 10])

    def take(self, url: str) -> list[dict[str, Any]]:
        """Take all visible messages out of a queue."""
        taken = []
        while (
            batch := self.aws["sqs"]
            .receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"])
            .get("Messages")
        ):
            for message in batch:
                self.aws["sqs"].delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            taken += batch
        return taken

    def log(self, *lines: str, at: float | None = None) -> None:
        """Write lines into the function's log."""
        now = time.time() if at is None else at
        events = [{"timestamp": int(1000 * now), "message": line} for line in lines]
        self.aws["logs"].put_log_events(
            logGroupName=self.log_group, logStreamName="1", logEvents=events
        )

    def submit(self) -> None:
        """Run the submitter on what waits in the main queue, as Lambda does; keep its log."""
        records = [sqs_record(message, self.main_arn) for message in self.take(self.main_url)]
        printed, logged = io.StringIO(), Logged()
        logger = logging.getLogger("ddg_metric_submit")
        context = SimpleNamespace(
            function_name=self.function, get_remaining_time_in_millis=lambda: 30_000
        )
        logger.addHandler(logged)
        try:
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
                for name, value in self.environment.items():
                    patch.setenv(name, value)
                ddg_metric_submit.lambda_clients.cache_clear()
                ddg_metric_submit.lambda_handler({"Records": records}, context)
        finally:
            logger.removeHandler(logged)
        self.log(*logged.lines, *printed.getvalue().splitlines())


class Logged(logging.Handler):
    """Lines as Lambda's JSON format has them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        entry = {"level": record.levelname, "message": record.getMessage(), "requestId": "1"}
        self.lines.append(json.dumps(entry))


def notification(bucket: str, *keys: str) -> str:
    """Return S3's notification of files."""
    records = [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}} for key in keys]
    return json.dumps({"Records": records})


def stats(**metrics: object) -> dict[str, object]:
    """Return a stats file of now."""
    return {"timestamp": int(time.time())} | metrics


def make_stack(
    moto: str, datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StackOnMoto]:
    """A fixture's function: a stack, and commands that neither wait nor keep clients."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setattr("botocore.session.create_loader", shared_loader)
    monkeypatch.setattr(ddg_ops_queues, "WAIT_SECONDS", 0)
    monkeypatch.setattr(ddg_ops_watch, "POLL_SECONDS", 0)
    monkeypatch.setattr(ddg_ops_backfill, "PAUSES", ())
    ddg_ops_stack.use_profile(None, None)
    yield StackOnMoto(moto, datadog.url)
    ddg_ops_stack.use_profile(None, None)


def make_run(
    stack: StackOnMoto,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Run:
    """A fixture's function: what runs a command line against the stack."""
    # A test's commands share their clients: making them takes longer than all that they do.
    monkeypatch.setattr(ddg_ops_stack, "use_profile", lambda profile, region: None)
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps(stack.outputs))

    def run_it(*arguments: str) -> Result:
        capsys.readouterr()
        try:
            code = ddg_ops.main([*arguments, "--stack", str(outputs)])
        except SystemExit as exit_:
            code = int(str(exit_.code))
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run_it
