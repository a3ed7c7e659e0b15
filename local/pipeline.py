"""The pipeline on loopback: moto as S3 and SQS, the functions from their zips, a local Datadog."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import boto3
from moto.server import ThreadedMotoServer

from local.datadog_server import DatadogServer
from local.event_source import Batch, EventSource
from local.lambda_runtime import REGION, FunctionError, LambdaFunction

API_KEY = "0123456789abcdef0123456789abcdef"  # as long as a real one; the local Datadog takes it
BUCKET = "ddg-stats"
SILENT_BUCKET = "ddg-stats-silent"  # sends no notifications
PREFIX = "stats/"
SUBMITTER_ZIP = "ddg_metric_submit.zip"
GENERATOR_ZIP = "ddg_mock_datasource.zip"

FUNCTION_SECONDS = 30.0  # the functions' timeout
VISIBILITY_SECONDS = 3  # a retried file comes back after these; minutes in the real stack
MAX_RECEIVE_COUNT = 5
BATCH_SIZE = 100  # messages
WATCH_SECONDS = 0.1  # between two looks at a queue


class Stack(NamedTuple):
    """What the functions meet, on moto."""

    s3: Any
    sqs: Any
    endpoint: str
    queue_url: str
    dead_letter_url: str
    rejected_url: str

    def put(self, key: str, body: bytes, bucket: str = BUCKET) -> str:
        """Write a file and return its address."""
        self.s3.put_object(Bucket=bucket, Key=key, Body=body)
        return f"s3://{bucket}/{key}"

    def depth(self, queue_url: str) -> int:
        """Return how many messages a queue holds, those being worked on included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        response = self.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)
        return sum(int(response["Attributes"][name]) for name in names)

    def take_all(self, queue_url: str) -> list[dict[str, Any]]:
        """Empty a queue and return its messages; waits for those that are still invisible."""
        messages: list[dict[str, Any]] = []
        while self.depth(queue_url):
            response = self.sqs.receive_message(
                QueueUrl=queue_url,
                MaxNumberOfMessages=10,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            for message in response.get("Messages", []):
                messages.append(message)
                self.sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
            if not response.get("Messages"):
                time.sleep(WATCH_SECONDS)
        return messages


def create_stack(endpoint: str) -> Stack:
    """Create buckets and queues, and let the bucket notify the queue."""
    session = boto3.Session("local", "local", region_name=REGION)  # moto takes any credentials
    s3 = session.client("s3", endpoint_url=endpoint)
    sqs = session.client("sqs", endpoint_url=endpoint)
    dead_letter_url, dead_letter_arn = create_queue(sqs, "ddg-stats-dead-letter", {})
    rejected_url, _ = create_queue(sqs, "ddg-stats-rejected", {})
    redrive = {"deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": MAX_RECEIVE_COUNT}
    queue_url, queue_arn = create_queue(
        sqs,
        "ddg-stats",
        {"VisibilityTimeout": str(VISIBILITY_SECONDS), "RedrivePolicy": json.dumps(redrive)},
    )
    s3.create_bucket(Bucket=BUCKET)
    s3.create_bucket(Bucket=SILENT_BUCKET)
    s3.put_bucket_notification_configuration(
        Bucket=BUCKET,
        NotificationConfiguration={
            "QueueConfigurations": [
                {
                    "QueueArn": queue_arn,
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": PREFIX}]}},
                }
            ]
        },
    )
    return Stack(s3, sqs, endpoint, queue_url, dead_letter_url, rejected_url)


def create_queue(sqs: Any, name: str, attributes: Mapping[str, str]) -> tuple[str, str]:
    """Create a queue and return its URL and ARN."""
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    response = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, response["Attributes"]["QueueArn"]


class Schedule:
    """Invokes a function once a second: EventBridge's schedule, in a hurry."""

    def __init__(self, invoke: Callable[[object], object]) -> None:
        self._invoke = invoke
        self._stop = threading.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="schedule")
        self._ticking: Future[None] | None = None

    def __enter__(self) -> Self:
        self._ticking = self._executor.submit(self._tick_until_stopped)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop; raise what ended the ticking early, if anything did."""
        self._stop.set()
        self._executor.shutdown()
        if self._ticking is not None:
            self._ticking.result()

    def _tick_until_stopped(self) -> None:
        # A little after the full second: no two invocations then share one.
        while not self._stop.wait(1.02 - time.time() % 1):
            self._invoke({})


@dataclass
class Pipeline:
    """All that runs, and what is seen of it."""

    stack: Stack
    datadog: DatadogServer
    generator: LambdaFunction
    submitter: LambdaFunction
    retried: int = 0  # messages that went back to the queue
    error: FunctionError | None = None  # of the submitter, which never fails as a whole

    def note(self, batch: Batch) -> None:
        """Take down what became of a batch."""
        self.retried += batch.failed
        self.error = self.error or batch.error

    def depth(self) -> int:
        """Return how many messages the submitter still has to deal with.

        Raises FunctionError once the submitter has failed: there is nothing to wait for then.
        """
        if self.error is not None:
            raise self.error
        return self.stack.depth(self.stack.queue_url)

    @contextmanager
    def event_source(self) -> Iterator[None]:
        """Feed the queue to the submitter."""
        source = EventSource(
            self.stack.sqs,
            self.stack.queue_url,
            self.submitter.invoke,
            batch_size=BATCH_SIZE,
            on_batch=self.note,
        )
        with source, closing(self.submitter):  # closed first: an interrupted demo waits for nothing
            yield


@contextmanager
def run_pipeline(zips: Path, packages: Path) -> Iterator[Pipeline]:
    """Start every part, and end them all whatever happens."""
    with ExitStack() as exits:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        exits.callback(moto.stop)
        host, port = moto.get_host_and_port()
        stack = create_stack(f"http://{host}:{port}")
        datadog = exits.enter_context(DatadogServer(API_KEY))
        generator = exits.enter_context(
            LambdaFunction(
                zips / GENERATOR_ZIP,
                "ddg_mock_datasource.lambda_handler",
                {
                    "AWS_ENDPOINT_URL": stack.endpoint,
                    "STATS_BUCKET": BUCKET,
                    "STATS_PREFIX": PREFIX,
                },
                packages=packages,
                name="ddg-mock-datasource",
                timeout=FUNCTION_SECONDS,
            )
        )
        submitter = exits.enter_context(
            LambdaFunction(
                zips / SUBMITTER_ZIP,
                "ddg_metric_submit.lambda_handler",
                {
                    "AWS_ENDPOINT_URL": stack.endpoint,
                    "DATADOG_API_KEY": API_KEY,
                    "DATADOG_HOST": datadog.url,
                    "REJECTED_QUEUE_URL": stack.rejected_url,
                    "STATS_PREFIX": PREFIX,
                },
                packages=packages,
                name="ddg-metric-submit",
                timeout=FUNCTION_SECONDS,
            )
        )
        yield Pipeline(stack, datadog, generator, submitter)
