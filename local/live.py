"""The pipeline on this machine until Ctrl-C, for your own uploads: `make local`.

S3 and SQS are moto's, both functions are those of the zips, Datadog is a strict local one; the
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
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
from moto.backends import get_backend
from moto.core.model_instances import reset_model_data
from rich.console import Console

from ddg_ops.settings_file import SETTINGS_FILE, read_settings_file, submitter_environment
from ddg_settings import AWS_ERRORS, read_settings
from local.books import REFUSED, Books, Entry
from local.datadog_server import Answer
from local.event_source import failed_ids
from local.lambda_runtime import ACCOUNT, REGION, FunctionError
from local.page import serve
from local.pipeline import (
    API_KEY,
    ROOT,
    WATCH_SECONDS,
    Pipeline,
    again_and_again,
    parse_options,
    run_pipeline,
)
from local.samples import File

PORT = 8123  # of the page; S3 and SQS are on the next one
KEPT_FILES = 10_000
KEPT_SECONDS = 3600.0  # points
KEPT_REFUSALS = 1000  # moto's SQS takes the longer for each call the more messages it holds
TIDY_SECONDS = 5.0
LOG_SECONDS = 3600  # of one stream; the one before it is kept too
DEFAULT_SETTINGS = ROOT / SETTINGS_FILE
UNUSED = {"DATADOG_API_KEY": "unused", "REJECTED_QUEUE_URL": "https://unused"}
MAX_RECEIVE_COUNT = 20  # as in the stack, but 3 s apart: its hour is a minute here
BEGINNING_BYTES = 400

TYPE = """
S3 and SQS are on {endpoint}; in another shell:

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

What was refused, what waits, where a file is:

  .venv/bin/ddg-ops rejected list --stack {outputs}
"""


class Live:
    """The running pipeline, as the page shows it and its buttons use it."""

    def __init__(self, pipeline: Pipeline, variables: Mapping[str, Any]) -> None:
        self.pipeline, self.variables = pipeline, variables
        self.books = Books(KEPT_FILES)
        session = boto3.Session("local", "local", region_name=REGION)
        self.aws: Any = {
            name: session.client(name, endpoint_url=pipeline.stack.endpoint)
            for name in ("s3", "iam", "lambda", "logs", "sns")
        }
        backend = get_backend("sqs")[ACCOUNT][REGION].queues
        name = variables.get("name") or "ddg-stats"
        kinds = ("", "-dead-letter", "-rejected")
        self.queues: list[Any] = [backend[name + kind] for kind in kinds]
        self.function = f"{name}-metric-submit"
        self.log_group = f"/aws/lambda/{self.function}"
        self.max_tries = MAX_RECEIVE_COUNT  # then a file is in the dead-letter queue
        self.prefix = pipeline.environment["STATS_PREFIX"]
        self.answer = "202"  # Datadog's, by its name on the page
        self.outages: list[tuple[float, float | None]] = []  # began, ended
        self.running: list[Future[None]] = []  # until a defect ends them
        self.tidied = 0.0

    def invoke(self, event: Any) -> object:
        """Take a batch through the submitter, and enter what comes of it."""
        ids = {record["messageId"] for record in event["Records"]}
        log, failed = self.pipeline.submitter.log, ids
        try:
            answer = self.pipeline.submitter.invoke(event)
            failed = failed_ids(answer, ids)
        except FunctionError as error:
            log.append(f"retried {len(ids)}: {error}")
            raise
        finally:
            for entry in self.books.settle(event, failed, log):
                if entry.outcome == REFUSED and not entry.beginning:
                    entry.beginning = self.read_beginning(entry)
            self.keep_log()
        return answer

    @property
    def changes(self) -> tuple[object, ...]:
        """Return what differs as soon as there is something new to be shown."""
        posted = [request.at for request in self.pipeline.datadog.requests[-1:]]
        return self.books.changes, posted, self.outages[-1:]

    def put(self, file: File) -> None:
        """Write a file under a key of its own."""
        folder, _, name = file.key.rpartition("/")
        key = f"{self.prefix}{folder}/{secrets.token_hex(4)}-{name}"
        self.pipeline.stack.bucket.put_object(Key=key, Body=file.body)

    def answer_with(self, name: str, answer: Answer | None) -> None:
        """Break Datadog, or mend it with None."""
        datadog = self.pipeline.datadog
        datadog.respond = datadog.respond_validate = (lambda _: answer) if answer else None
        if self.outages and self.outages[-1][1] is None:
            self.outages[-1] = (self.outages[-1][0], time.time())
        if answer:
            self.outages = [*self.outages[-99:], (time.time(), None)]
        self.answer = name

    def read_beginning(self, entry: Entry) -> str:
        """Return the beginning of a file's content as text."""
        bucket, _, key = entry.name.removeprefix("s3://").partition("/")
        with suppress(*AWS_ERRORS):  # it is gone, empty, or a message that names none
            some = f"bytes=0-{BEGINNING_BYTES - 1}"
            answer = self.aws["s3"].get_object(Bucket=bucket, Key=key, Range=some)
            return str(answer["Body"].read().decode(errors="replace"))
        return ""

    def keep_log(self) -> None:
        """Move what the submitter printed to where ddg-ops looks for it."""
        log, now = self.pipeline.submitter.log, time.time()
        stream = str(int(now / LOG_SECONDS))
        with suppress(*AWS_ERRORS):  # it is there
            self.aws["logs"].create_log_stream(logGroupName=self.log_group, logStreamName=stream)
        events = [{"timestamp": int(1000 * now), "message": line} for line in log if line]
        log.clear()
        if events:
            self.aws["logs"].put_log_events(
                logGroupName=self.log_group, logStreamName=stream, logEvents=events
            )

    def watch(self) -> None:
        """See what has come into the queue; now and then, forget what is old."""
        for message in self.queues[0]._messages[:]:  # moto's own: receiving would take them
            self.books.arrive(message.id, message.body, message.sent_timestamp / 1000)
        if time.monotonic() > self.tidied + TIDY_SECONDS:
            self.tidied = time.monotonic()
            self.tidy()

    def tidy(self) -> None:
        """Bound the memory, however long this runs."""
        before = time.time() - KEPT_SECONDS
        self.outages = [outage for outage in self.outages if (outage[1] or before) >= before]
        self.pipeline.datadog.forget(before)
        for name in self.books.forget():
            bucket, _, key = name.removeprefix("s3://").partition("/")
            with suppress(*AWS_ERRORS):
                self.aws["s3"].delete_object(Bucket=bucket, Key=key)
        reset_model_data()  # for its dashboard, moto keeps every message and object there ever was
        for queue in self.queues:
            queue.deleted_messages.clear()
        del self.queues[2]._messages[:-KEPT_REFUSALS]
        streams = self.aws["logs"].describe_log_streams(logGroupName=self.log_group)["logStreams"]
        for stream in streams[:-2]:
            self.aws["logs"].delete_log_stream(
                logGroupName=self.log_group, logStreamName=stream["logStreamName"]
            )

    def register(self, zips: Path, outputs: Path) -> None:
        """Let AWS's services know of the submitter, and write outputs, for ddg-ops."""
        stack, names = self.pipeline.stack, {"FunctionName": self.function}
        role = self.aws["iam"].create_role(RoleName=self.function, AssumeRolePolicyDocument="{}")
        self.aws["lambda"].create_function(
            **names,
            Runtime="python3.13",
            Role=role["Role"]["Arn"],
            Handler="ddg_metric_submit.lambda_handler",
            Code={"ZipFile": (zips / "ddg_metric_submit.zip").read_bytes()},
            Environment={"Variables": dict(self.pipeline.environment)},
        )
        self.aws["lambda"].create_event_source_mapping(
            **names,
            EventSourceArn=stack.queue.attributes["QueueArn"],
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )
        # Else moto would take the messages itself, to run the function in Docker
        self.queues[0].lambda_event_source_mappings.clear()
        self.aws["logs"].create_log_group(logGroupName=self.log_group)
        urls = {"stats": stack.queue, "dead_letter": stack.dead_letters, "rejected": stack.rejected}
        values = {
            "bucket": stack.bucket.name,
            "prefix": self.pipeline.environment["STATS_PREFIX"],
            "queue_urls": {name: queue.url for name, queue in urls.items()},
            "function_names": {"metric_submit": self.function},
            "log_groups": {"metric_submit": self.log_group},
            "alarm_topic_arn": self.aws["sns"].create_topic(Name="alarms")["TopicArn"],
        }
        outputs.write_text(json.dumps({name: {"value": value} for name, value in values.items()}))


@contextmanager
def run_live(options: argparse.Namespace, variables: Mapping[str, Any]) -> Iterator[Live]:
    """Run the pipeline with the settings of a stack, and all that the page needs."""
    name = variables.get("name") or "ddg-stats"
    with run_pipeline(
        options.zips,
        options.packages,
        submitter_environment(variables) | {"LOG_FILES": "true"},
        options.port and options.port + 1,
        name=name,
        max_receive_count=MAX_RECEIVE_COUNT,
        prefix="",  # so that the page can tell of a file that is beside it
        others=variables["buckets"],
    ) as pipeline:
        live = Live(pipeline, variables)
        live.register(options.zips, options.outputs)
        watching = again_and_again(live.watch, lambda: WATCH_SECONDS)
        with watching as watch, pipeline.event_source(live.invoke) as polling:
            live.running = [watch, polling]
            try:
                yield live
            finally:
                options.outputs.unlink()


def main() -> int:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser("python -m local.live", description=__doc__)
    page = "of the page; S3 and SQS take the next one"
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
            stack = live.pipeline.stack
            console.print(
                TYPE.format(
                    endpoint=stack.endpoint,
                    region=REGION,
                    key=API_KEY,
                    bucket=stack.bucket.name,
                    prefix=live.pipeline.environment["STATS_PREFIX"],
                    outputs=options.outputs,
                ),
                soft_wrap=True,
            )
            with serve(live, options.port) as url:
                console.print(f"The page: {url}\n\nCtrl-C ends it, and forgets everything.")
                # Until a defect ends it. It looks up every second, as not every signal wakes it.
                while not wait(live.running, 1, FIRST_COMPLETED).done:
                    pass
    except KeyboardInterrupt:
        console.print("Ended; nothing is left running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
