"""A deployed stack on moto for the tests of ddg-ops, and a way to run its commands."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.loaders import create_loader
from click.testing import CliRunner

import ddg_metric_submit
import ddg_outcomes
from ddg_ops import backfill, canary, log, walk
from ddg_ops.cli import cli
from local.datadog_server import DatadogServer
from local.event_source import sqs_record
from tests.events import tell_of_eventbridge

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
        """The output of a command with --json."""
        return json.loads(self.out)


@cache
def clients(moto: str, region: str) -> dict[str, Any]:
    """Return the tests' own clients, made once: that takes longer than all their calls."""
    make: Any = boto3.Session("testing", "testing", region_name=region).client
    services = ["s3", "sqs", "lambda", "iam", "logs", "cloudwatch", "sns", "events"]
    return {name: make(name, endpoint_url=moto) for name in (*services, "secretsmanager")}


# The commands make new clients, but needn't read botocore's megabytes of JSON each time.
shared_loader = cache(create_loader)


def backend(service: str, region: str) -> Any:
    """Return moto's own state."""
    from moto.backends import get_backend  # a second to import

    return get_backend(service)[ACCOUNT][region]  # type: ignore[call-overload]


class StackOnMoto:
    """A stack as main.tf makes it, as far as the commands look."""

    def __init__(
        self, moto: str, datadog: DatadogServer, patch: pytest.MonkeyPatch, region: str = REGION
    ) -> None:
        self.name = f"ops-{next(numbers)}"
        self.moto, self.datadog, self.patch, self.region = moto, datadog, patch, region
        self.aws = clients(moto, region)
        self.bucket = f"{self.name}-{ACCOUNT}-{region}"
        self.function = f"{self.name}-metric-submit"
        self.main_url, self.rejected_url, self.dead_letter_url = (
            self.aws["sqs"].create_queue(QueueName=f"{self.name}-{queue}")["QueueUrl"]
            for queue in ("stats", "rejected", "dead-letter")
        )
        self.main_arn = f"arn:aws:sqs:{region}:{ACCOUNT}:{self.name}-stats"
        target = f"arn:aws:sqs:{region}:{ACCOUNT}:{self.name}-dead-letter"
        redrive = json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": 20})
        self.aws["sqs"].set_queue_attributes(
            QueueUrl=self.main_url, Attributes={"RedrivePolicy": redrive}
        )
        self.create_bucket(self.bucket)
        self.notify()
        self.admitted: list[str] = []  # by the main queue's policy
        self.admit(f"arn:aws:s3:::{self.bucket}")
        self.environment = {
            "DATADOG_API_KEY": KEY,
            "DATADOG_HOST": datadog.url,
            "STATS_PREFIX": "stats/",
            "REJECTED_QUEUE_URL": self.rejected_url,
            "CONSTANT_TAGS": "env:test",
            "MAX_AGE_SECONDS": "3600",
        }
        self.create_function(self.function)
        self.map_queue("ReportBatchItemFailures")
        self.log_stream = {"logGroupName": f"/aws/lambda/{self.function}", "logStreamName": "1"}
        self.aws["logs"].create_log_group(logGroupName=self.log_stream["logGroupName"])
        self.aws["logs"].create_log_stream(**self.log_stream)
        for alarm in ALARMS:
            self.aws["cloudwatch"].put_metric_alarm(
                AlarmName=f"{self.name}-{alarm}",
                AlarmDescription=f"First do this about {alarm}.",
                Namespace="AWS/SQS",
                MetricName="any",
                Period=60,
                EvaluationPeriods=1,
                Statistic="Maximum",
                Threshold=0,
                ComparisonOperator="GreaterThanThreshold",
            )
        self.topic = self.aws["sns"].create_topic(Name=f"{self.name}-alarms")["TopicArn"]
        self.pager: str = self.aws["sns"].subscribe(
            TopicArn=self.topic, Protocol="email", Endpoint="a@example.com"
        )["SubscriptionArn"]
        self.urls = {
            "stats": self.main_url,
            "dead_letter": self.dead_letter_url,
            "rejected": self.rejected_url,
        }
        self.outputs: dict[str, dict[str, Any]] = {
            "bucket": {"value": self.bucket},
            "prefix": {"value": "stats/"},
            "queue_urls": {"value": self.urls},
            "function_names": {"value": {"metric_submit": self.function}},
            "alarm_names": {"value": [f"{self.name}-{alarm}" for alarm in ALARMS]},
            "alarm_topic_arn": {"value": self.topic},
        }

    def run(self, line: str, *words: str) -> Result:
        """Type a command line about the stack."""
        Path("outputs.json").write_text(json.dumps(self.outputs))
        return run(line, *words, "--stack", "outputs.json")

    def findings(self, *arguments: str) -> dict[str, list[dict[str, Any]]]:
        """Return what check finds, by part."""
        parts: dict[str, list[dict[str, Any]]] = {}
        for finding in self.run("check --json", *arguments).document["findings"]:
            parts.setdefault(finding["part"], []).append(finding)
        return parts

    # --- Buckets ---

    def create_bucket(self, bucket: str) -> None:
        place = {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        self.aws["s3"].create_bucket(Bucket=bucket, **(place if self.region != REGION else {}))

    def admit(self, *arns: str) -> None:
        """Let the main queue's policy admit buckets or topics."""
        self.admitted += arns
        statement = {"Condition": {"ArnEquals": {"aws:SourceArn": self.admitted}}}
        self.aws["sqs"].set_queue_attributes(
            QueueUrl=self.main_url, Attributes={"Policy": json.dumps({"Statement": [statement]})}
        )

    def connect(self, way: str, prefix: str = "etl/stats/") -> str:
        """Take files from another bucket, by eventbridge, sns or s3; return its name."""
        bucket = self.other = f"{self.name}-by-{way}"
        self.create_bucket(bucket)
        buckets = json.loads(self.environment.get("BUCKETS", "{}")) | {bucket: prefix}
        self.set_environment(BUCKETS=json.dumps(buckets))
        if way == "eventbridge":
            self.aws["s3"].put_bucket_notification_configuration(
                Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
            )
            self.put_rule(bucket, prefix)
            target = {"Id": "stats", "Arn": self.main_arn}
            self.aws["events"].put_targets(Rule=bucket, Targets=[target])
        elif way == "sns":
            topic = self.aws["sns"].create_topic(Name=bucket)["TopicArn"]
            self.admit(topic)
            self.subscription: str = self.aws["sns"].subscribe(
                TopicArn=topic,
                Protocol="sqs",
                Endpoint=self.main_arn,
                Attributes={"RawMessageDelivery": "true"},
            )["SubscriptionArn"]
            self.notify(bucket=bucket, prefix="", topic=topic)
        else:
            self.notify(bucket=bucket, prefix=prefix)
        return bucket

    def put_rule(self, bucket: str, prefix: str) -> None:
        """Write the rule for a bucket; it has the bucket's name."""
        detail = {"bucket": {"name": [bucket]}, "object": {"key": [{"prefix": prefix}]}}
        pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": detail}
        self.aws["events"].put_rule(Name=bucket, EventPattern=json.dumps(pattern))

    def notify(self, prefix: str = "stats/", bucket: str = "", topic: str = "") -> None:
        """Have a bucket notify the main queue, or a topic."""
        kind, rules = "Topic" if topic else "Queue", [{"Name": "prefix", "Value": prefix}]
        told = {f"{kind}Arn": topic or self.main_arn, "Events": ["s3:ObjectCreated:*"]}
        filters: dict[str, Any] = {"Filter": {"Key": {"FilterRules": rules}}} if prefix else {}
        self.aws["s3"].put_bucket_notification_configuration(
            Bucket=bucket or self.bucket,
            NotificationConfiguration={f"{kind}Configurations": [told | filters]},
        )
        self.take(self.main_url)  # S3's test event

    def disown(self) -> None:
        """Be a stack with create_bucket = false."""
        self.outputs |= {"bucket": {"value": None}, "prefix": {"value": None}}
        self.admitted.pop(0)
        self.admit()

    def put(self, key: str, content: object, bucket: str = "") -> None:
        """Write a file; an object becomes JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.aws["s3"].put_object(Bucket=bucket or self.bucket, Key=key, Body=body)

    def age(self, key: str, seconds: float) -> None:
        """Make a file of the stack's own bucket older."""
        backend("s3", "aws").get_object(self.bucket, key).last_modified -= timedelta(0, seconds)

    # --- Functions, alarms and metrics ---

    def create_function(self, name: str) -> None:
        """Make a function with the submitter's environment."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("x.py", "")
        role = self.aws["iam"].create_role(
            RoleName=name, AssumeRolePolicyDocument='{"Version": "2012-10-17"}'
        )
        self.aws["lambda"].create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=role["Role"]["Arn"],
            Handler="x.lambda_handler",
            Code={"ZipFile": content.getvalue()},
            Environment={"Variables": self.environment},
        )

    def generate(self, made: str = "") -> None:
        """Have a generator, made now or at a time, and its schedule."""
        name = f"{self.name}-mock-datasource"
        self.create_function(name)
        self.aws["events"].put_rule(Name=name, ScheduleExpression="rate(1 minute)")
        made = made or time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", time.gmtime())
        backend("lambda", self.region).get_function(name).last_modified = made
        self.outputs["function_names"]["value"]["mock_datasource"] = name

    def map_queue(self, *responses: str) -> None:
        """Map the main queue to the submitter."""
        self.mapping: str = self.aws["lambda"].create_event_source_mapping(
            EventSourceArn=self.main_arn,
            FunctionName=self.function,
            FunctionResponseTypes=responses,
        )["UUID"]
        # Otherwise moto would take the queue's messages, to run the function in Docker.
        self.queue(self.main_url).lambda_event_source_mappings.clear()

    def set_environment(self, **changes: str) -> None:
        """Change the function's environment; an empty value removes a variable."""
        self.environment |= changes
        variables = {name: value for name, value in self.environment.items() if value}
        self.aws["lambda"].update_function_configuration(
            FunctionName=self.function, Environment={"Variables": variables}
        )

    def alarm(self, alarm: str, state: str) -> None:
        self.aws["cloudwatch"].set_alarm_state(
            AlarmName=f"{self.name}-{alarm}", StateValue=state, StateReason="a test"
        )

    def metric(self, namespace: str, name: str, value: float, **dimensions: str) -> None:
        """Put a value into CloudWatch."""
        named = [{"Name": key, "Value": text} for key, text in dimensions.items()]
        data = {"MetricName": name, "Dimensions": named, "Value": value}
        self.aws["cloudwatch"].put_metric_data(Namespace=namespace, MetricData=[data])

    # --- Queues ---

    def reject(self, key: str, reason: str, body: str | None = None) -> None:
        """Put a message into the rejected queue, as the submitter does."""
        texts = {"reason": reason, "bucket": self.bucket, "key": key}
        self.aws["sqs"].send_message(
            QueueUrl=self.rejected_url,
            MessageBody=body or notification(self.bucket, key),
            MessageAttributes={
                name: {"DataType": "String", "StringValue": ddg_outcomes.printable(text)}
                for name, text in texts.items()
            },
        )

    def queue(self, url: str) -> Any:
        """Return moto's own queue."""
        return backend("sqs", self.region).queues[url.rsplit("/", 1)[-1]]

    def bodies(self, url: str) -> list[str]:
        """Return the bodies of a queue's visible messages; they stay visible."""
        return sorted(message.body for message in self.queue(url).messages)

    def everything(self, url: str) -> set[str]:
        """Return the bodies of a queue's messages, invisible ones too."""
        return {message.body for message in self.queue(url)._messages}

    def purge(self, url: str) -> None:
        """Empty a queue, of invisible messages too."""
        self.queue(url)._messages.clear()

    def send_all(self, url: str, bodies: Iterable[str]) -> None:
        """Put messages into a queue."""
        for body in bodies:
            self.aws["sqs"].send_message(QueueUrl=url, MessageBody=body)

    def take(self, url: str) -> list[dict[str, Any]]:
        """Take all visible messages out of a queue."""
        taken: list[dict[str, Any]] = []
        receive = {"QueueUrl": url, "MaxNumberOfMessages": 10, "AttributeNames": ["All"]}
        while batch := self.aws["sqs"].receive_message(**receive).get("Messages"):
            for message in batch:
                self.aws["sqs"].delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            taken += batch
        return taken

    # --- The submitter ---

    def log(self, *lines: str, at: float | None = None) -> None:
        """Write lines into the function's log."""
        now = time.time() if at is None else at
        events = [{"timestamp": int(1000 * now), "message": line} for line in lines]
        self.aws["logs"].put_log_events(**self.log_stream, logEvents=events)

    def submit(self) -> None:
        """Run the submitter on the main queue's messages, as Lambda does; keep its log."""
        records = [sqs_record(message, self.main_arn) for message in self.take(self.main_url)]
        printed = io.StringIO()
        context = SimpleNamespace(
            function_name=self.function, get_remaining_time_in_millis=lambda: 30_000
        )
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            for name, value in self.environment.items():
                patch.setenv(name, value)
            ddg_metric_submit.lambda_clients.cache_clear()
            ddg_metric_submit.lambda_handler({"Records": records}, context)
        self.log(*printed.getvalue().splitlines())


SPECIAL = {"Enabled": False, "NotificationConfiguration": {}, "Ids": ["stats"]}  # no texts
Action = Callable[[StackOnMoto], object]


def do(what: str, stack: StackOnMoto, actions: Mapping[str, Action]) -> None:
    """Take an action, change the environment (NAME=value), or call AWS (service call A=1)."""
    name, _, value = what.format(stack).partition("=")
    if what in actions:
        actions[what](stack)
    elif " " not in what:
        stack.set_environment(**{name: value})
    else:
        service, operation, *pairs = what.format(stack).split()
        parameters: dict[str, Any] = dict(pair.split("=", 1) for pair in pairs)
        parameters |= {name: SPECIAL[name] for name in SPECIAL if name in parameters}
        getattr(stack.aws[service], operation)(**parameters)


def on_sleep(patch: pytest.MonkeyPatch, module: Any, action: Callable[[], object]) -> None:
    """Take an action each time that a command waits."""
    clock = vars(time) | {"sleep": lambda seconds: action()}
    patch.setattr(module, "time", SimpleNamespace(**clock))


def terraform(script: str, patch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for terraform on the PATH."""
    Path("terraform").write_text(f"#!/bin/sh\n{script}\n")
    Path("terraform").chmod(0o755)
    patch.setenv("PATH", f"{Path.cwd()}:/usr/bin:/bin")


def notification(bucket: str, *keys: str) -> str:
    """Return S3's notification of files."""
    records = [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}} for key in keys]
    return json.dumps({"Records": records})


def reject(stack: StackOnMoto, *keys: str, reason: str = "not JSON") -> list[str]:
    """Put a message for each key into the rejected queue; return their bodies."""
    for key in keys:
        stack.reject(key, reason)
    return sorted(notification(stack.bucket, key) for key in keys)


def stats(**metrics: object) -> dict[str, object]:
    """Return a stats file of now."""
    return {"timestamp": int(time.time())} | metrics


def make_stack(
    moto: str, datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> StackOnMoto:
    """Make a stack, and commands that don't wait, in a folder of the test's: a fixture."""
    monkeypatch.chdir(tmp_path)
    tell_of_eventbridge()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setattr("botocore.session.create_loader", shared_loader)
    monkeypatch.setattr(walk, "WAIT_SECONDS", 0)
    monkeypatch.setattr(walk, "RECEIVERS", 2)
    for module in (canary, log):
        monkeypatch.setattr(module, "POLL_SECONDS", 0)
    monkeypatch.setattr(backfill, "PAUSES", (0.0,))
    return StackOnMoto(moto, datadog, monkeypatch)


def run(line: str, *words: str, text: str | None = None) -> Result:
    """Type a command line, and words that may hold a space."""
    result = CliRunner().invoke(cli, [*line.split(), *words], input=text, catch_exceptions=False)
    return Result(result.exit_code, result.stdout, result.stderr)
