"""The pipeline on this machine until Ctrl-C, for your own uploads: `make local`.

S3 and SQS are moto's, both functions run from their zips, and Datadog is a strict local server. The
stack's settings file applies. A page shows what arrives.
"""

import argparse
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
from moto.backends import get_backend
from moto.core.model_instances import reset_model_data
from rich.console import Console

from ddg_ops.settings_file import SETTINGS_FILE, read_settings_file, submitter_environment
from ddg_settings import AWS_ERRORS, read_settings
from local.books import REFUSED, Books
from local.datadog_server import Answer
from local.lambda_runtime import ACCOUNT, REGION, FunctionError
from local.page import serve
from local.pipeline import API_KEY, ROOT, Pipeline, parse_options, run_pipeline
from local.samples import File

PORT = 8123  # of the page; S3 and SQS are on the next one
KEPT_FILES = 10_000
KEPT_SECONDS = 3600.0  # points
KEPT_REFUSALS = 1000  # moto's SQS gets slower with every message that it holds
KEPT_LINES = 20_000  # of the submitter's log
TIDY_SECONDS = 5.0
DEFAULT_SETTINGS = ROOT / SETTINGS_FILE
UNUSED = {"DATADOG_API_KEY": "unused", "REJECTED_QUEUE_URL": "https://unused"}
MAX_RECEIVE_COUNT = 20  # as in the stack, but 3 s apart: the stack's hour is a minute here
BEGINNING_BYTES = 400

TYPE = """
S3 and SQS are at {endpoint}. In another shell:

  unset AWS_PROFILE AWS_SESSION_TOKEN
  export AWS_ENDPOINT_URL={endpoint} NO_PROXY=127.0.0.1
  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
  export AWS_DEFAULT_REGION={region}
  export DATADOG_API_KEY={key}

  echo "{{\\"timestamp\\": $(date +%s), \\"my.first.metric\\": 42}}" |
    aws s3 cp - "s3://{bucket}/{prefix}my-job/$(date +%s).json"

The same in Python:

  import boto3, json, time, uuid
  body = json.dumps({{"timestamp": int(time.time()), "my.first.metric": 42}})
  key = f"{prefix}my-job/{{uuid.uuid4()}}.json"
  boto3.client("s3").put_object(Bucket="{bucket}", Key=key, Body=body)

The operator's command works here, too; for example:

  .venv/bin/ddg-ops rejected list --stack {outputs}
"""


class Live:
    """The running pipeline, as the page shows it and its buttons use it."""

    def __init__(self, pipeline: Pipeline, variables: Mapping[str, Any]) -> None:
        self.pipeline = pipeline
        self.metrics: Mapping[str, Any] = variables["metrics"]  # as the settings describe them
        self.books = Books(KEPT_FILES)
        self.stack = pipeline.stack
        self.prefix = pipeline.environment["STATS_PREFIX"]
        self.max_tries = MAX_RECEIVE_COUNT  # then a file's message is in the dead-letter queue
        self.answer = "202"  # Datadog's, by its name on the page
        self.outages: list[tuple[float, float | None]] = []  # began, ended
        self._function = f"{self.stack.bucket.name}-metric-submit"
        self._log_group = f"/aws/lambda/{self._function}"
        session = boto3.Session("local", "local", region_name=REGION)
        self._aws: Any = {
            name: session.client(name, endpoint_url=self.stack.endpoint)
            for name in ("s3", "iam", "lambda", "logs")
        }
        # moto's own objects: some of what they know and keep can't be reached by requests
        queues, name = get_backend("sqs")[ACCOUNT][REGION].queues, self.stack.bucket.name
        self._queues: list[Any] = [
            queues[name + kind] for kind in ("", "-dead-letter", "-rejected")
        ]
        self._tidied = 0.0

    def look(self) -> None:
        """Enter the files that have come into the queue."""
        self.books.look(self._queues[0])

    def invoke(self, event: Any) -> object:
        """Pass a batch to the submitter, and enter the outcomes."""
        batch, log = self.books.receive(event), self.pipeline.submitter.log
        try:
            answer: Any = self.pipeline.submitter.invoke(event)
        except FunctionError as error:
            log.append(f"retried {len(batch)}: {error}")
            ids = [record["messageId"] for record in event["Records"]]
            answer = {"batchItemFailures": [{"itemIdentifier": each} for each in ids]}
        failed = {each["itemIdentifier"] for each in answer["batchItemFailures"]}
        self.books.settle(batch, failed, log)
        for entry, *_ in batch:
            if entry.outcome == REFUSED and not entry.beginning:
                entry.beginning = self._read_beginning(entry.name)
                self.books.changes += 1  # the page may have shown it without
        # Where ddg-ops looks for it
        now = int(1000 * time.time())
        self._aws["logs"].put_log_events(
            logGroupName=self._log_group,
            logStreamName="local",
            logEvents=[{"timestamp": now, "message": line} for line in log if line],
        )
        log.clear()
        if time.monotonic() > self._tidied + TIDY_SECONDS:
            self.tidy()
        return answer

    def put(self, file: File) -> None:
        """Write a file under a key of its own."""
        folder, _, name = file.key.rpartition("/")
        key = f"{self.prefix}{folder}/{secrets.token_hex(4)}-{name}"
        self.stack.bucket.put_object(Key=key, Body=file.body)

    def answer_with(self, name: str, answer: Answer | None) -> None:
        """Break Datadog, or mend it with None."""
        datadog = self.pipeline.datadog
        datadog.respond = datadog.respond_validate = (lambda _: answer) if answer else None
        if self.outages and self.outages[-1][1] is None:
            self.outages[-1] = (self.outages[-1][0], time.time())
        if answer:
            self.outages.append((time.time(), None))
        self.answer = name
        self.books.changes += 1

    def _read_beginning(self, name: str) -> str:
        """Return the beginning of a file's content as text."""
        bucket, _, key = name.removeprefix("s3://").partition("/")
        some = f"bytes=0-{BEGINNING_BYTES - 1}"
        with suppress(*AWS_ERRORS):  # the file is gone or empty, or the message names none
            answer = self._aws["s3"].get_object(Bucket=bucket, Key=key, Range=some)
            return str(answer["Body"].read().decode(errors="replace"))
        return ""

    def tidy(self) -> None:
        """Forget what is old, so that the memory stays bounded over hours."""
        self._tidied = time.monotonic()
        before = time.time() - KEPT_SECONDS
        self.outages = [outage for outage in self.outages if (outage[1] or before) >= before]
        self.pipeline.datadog.forget(before)
        for name in self.books.forget():
            bucket, _, key = name.removeprefix("s3://").partition("/")
            with suppress(*AWS_ERRORS):  # deleted by the user, or the message named none
                self._aws["s3"].delete_object(Bucket=bucket, Key=key)
        reset_model_data()  # for its dashboard, moto keeps every message and object there ever was
        for queue in self._queues:
            queue.deleted_messages.clear()
        del self._queues[2]._messages[:-KEPT_REFUSALS]
        logs = get_backend("logs")[ACCOUNT][REGION].groups[self._log_group]
        del logs.streams["local"].events[:-KEPT_LINES]

    def register(self, zips: Path, outputs: Path) -> None:
        """Make the submitter known to moto's Lambda and write a file of outputs, for ddg-ops."""
        names = {"FunctionName": self._function}
        role = self._aws["iam"].create_role(RoleName=self._function, AssumeRolePolicyDocument="{}")
        self._aws["lambda"].create_function(
            **names,
            Runtime="python3.13",
            Role=role["Role"]["Arn"],
            Handler="ddg_metric_submit.lambda_handler",
            Code={"ZipFile": (zips / "ddg_metric_submit.zip").read_bytes()},
            Environment={"Variables": dict(self.pipeline.environment)},
        )
        self._aws["lambda"].create_event_source_mapping(
            **names, EventSourceArn=self.stack.queue.attributes["QueueArn"]
        )
        # Otherwise moto takes the messages itself, to run the function in Docker
        self._queues[0].lambda_event_source_mappings.clear()
        self._aws["logs"].create_log_group(logGroupName=self._log_group)
        self._aws["logs"].create_log_stream(logGroupName=self._log_group, logStreamName="local")
        values = {
            "bucket": self.stack.bucket.name,
            "prefix": self.prefix,
            "queue_urls": {
                "stats": self.stack.queue.url,
                "dead_letter": self.stack.dead_letters.url,
                "rejected": self.stack.rejected.url,
            },
            "function_names": {"metric_submit": self._function},
            "alarm_topic_arn": f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms",  # names the region
        }
        outputs.write_text(json.dumps({name: {"value": value} for name, value in values.items()}))


@contextmanager
def run_live(options: argparse.Namespace, variables: Mapping[str, Any]) -> Iterator[Live]:
    """Run the pipeline with a stack's settings, and everything that the page needs."""
    with run_pipeline(
        options.zips,
        settings=submitter_environment(variables) | {"LOG_FILES": "true"},
        port=options.port and options.port + 1,
        name=variables.get("name") or "ddg-stats",
        max_receive_count=MAX_RECEIVE_COUNT,
        prefix="",  # so that the page shows files beside the prefix, too
        others=variables["buckets"],
    ) as pipeline:
        live = Live(pipeline, variables)
        live.register(options.zips, options.outputs)
        with pipeline.event_source(live.invoke):
            try:
                yield live
            finally:
                options.outputs.unlink()


def main() -> int:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser("python -m local.live", description=__doc__)
    page = "of the page; S3 and SQS use the next one"
    parser.add_argument("--port", type=int, default=PORT, help=page)
    parser.add_argument("--settings", type=Path, default=DEFAULT_SETTINGS)
    parser.add_argument("--outputs", type=Path, default=Path("local.outputs.json"))
    options = parse_options(parser, None)
    variables: dict[str, Any] = {"buckets": {}, "jobs": {}, "metrics": {}}
    try:
        if options.settings.exists() or options.settings != DEFAULT_SETTINGS:
            variables = read_settings_file(options.settings)
        read_settings(UNUSED | submitter_environment(variables))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for port in (options.port, options.port + 1):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            parser.error(f"port {port}: {os.strerror(error.errno or 0)}. Try make local PORT=9000")
    console = Console(highlight=False)
    try:
        with run_live(options, variables) as live:
            told = {
                "endpoint": live.stack.endpoint,
                "region": REGION,
                "key": API_KEY,
                "bucket": live.stack.bucket.name,
                "prefix": live.prefix,
                "outputs": options.outputs,
            }
            console.print(TYPE.format_map(told), soft_wrap=True)
            with serve(live, options.port) as url:
                console.print(f"The page: {url}\n\nCtrl-C ends it and forgets everything.")
                # A defect ends the polling. Sleep briefly, as not every signal wakes the thread.
                while not live.pipeline.polling.done():
                    time.sleep(1)
    except KeyboardInterrupt:
        console.print("Ended; nothing is left running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
