"""The pipeline on loopback: moto as S3 and SQS, the functions from their zips, a local Datadog."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from moto.server import ThreadedMotoServer

from local.datadog_server import DatadogServer
from local.event_source import EventSource
from local.lambda_runtime import REGION, FunctionError, LambdaFunction

API_KEY = "0123456789abcdef0123456789abcdef"  # as long as a real one; the local Datadog takes it
PREFIX = "stats/"
FUNCTIONS = ("ddg_metric_submit", "ddg_mock_datasource")

FUNCTION_SECONDS = 30.0  # the functions' timeout
VISIBILITY_SECONDS = 3  # a retried file comes back after these; minutes in the real stack
MAX_RECEIVE_COUNT = 5
BATCH_SIZE = 100  # messages
WATCH_SECONDS = 0.1  # between two looks at a queue


class Stack(NamedTuple):
    """What the functions meet, on moto: buckets and queues are boto3's resources."""

    endpoint: str
    bucket: Any
    silent_bucket: Any  # sends no notifications
    queue: Any
    dead_letters: Any
    rejected: Any


def create_stack(
    endpoint: str,
    name: str = "ddg-stats",
    visibility_seconds: int = VISIBILITY_SECONDS,
    max_receive_count: int = MAX_RECEIVE_COUNT,
) -> Stack:
    """Create buckets and queues, and let the bucket notify the queue."""
    session = boto3.Session("local", "local", region_name=REGION)  # moto takes any credentials
    sqs: Any = session.resource("sqs", endpoint_url=endpoint)
    s3: Any = session.resource("s3", endpoint_url=endpoint)
    dead_letters = sqs.create_queue(QueueName=f"{name}-dead-letter")
    redrive = {
        "deadLetterTargetArn": dead_letters.attributes["QueueArn"],
        "maxReceiveCount": max_receive_count,
    }
    attributes = {
        "VisibilityTimeout": str(visibility_seconds),
        "RedrivePolicy": json.dumps(redrive),
    }
    queue = sqs.create_queue(QueueName=name, Attributes=attributes)
    bucket = s3.create_bucket(Bucket=name)
    notified = {
        "QueueArn": queue.attributes["QueueArn"],
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": PREFIX}]}},
    }
    bucket.Notification().put(NotificationConfiguration={"QueueConfigurations": [notified]})
    silent_bucket = s3.create_bucket(Bucket=f"{name}-silent")
    rejected = sqs.create_queue(QueueName=f"{name}-rejected")
    return Stack(endpoint, bucket, silent_bucket, queue, dead_letters, rejected)


def depth(queue: Any) -> int:
    """Return how many messages a queue holds, those being worked on included."""
    queue.reload()
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    return sum(int(queue.attributes[name]) for name in names)


def take_all(queue: Any) -> list[Any]:
    """Empty a queue and return its messages; waits for those that are still invisible."""
    taken: list[Any] = []
    while depth(queue):
        messages = queue.receive_messages(
            MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        )
        for message in messages:
            message.delete()
        taken += messages
        if not messages:
            time.sleep(WATCH_SECONDS)
    return taken


@contextmanager
def again_and_again(step: Callable[[], object], pause: Callable[[], float]) -> Iterator[None]:
    """Take a step after each pause, in a thread; at the end, raise what the last one raised."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(pause()):
            step()

    with ThreadPoolExecutor(max_workers=1) as executor:
        repeating = executor.submit(repeat)
        try:
            yield
        finally:
            stop.set()
    repeating.result()


@dataclass
class Pipeline:
    """All that runs, and what is seen of it."""

    stack: Stack
    datadog: DatadogServer
    generator: LambdaFunction
    submitter: LambdaFunction
    retried: int = 0  # messages that went back to the queue
    error: FunctionError | None = None  # of the submitter, which never fails as a whole

    def depth(self) -> int:
        """Return how many messages the submitter still has to deal with.

        Raises FunctionError once the submitter has failed: there is nothing to wait for then.
        """
        if self.error is not None:
            raise self.error
        return depth(self.stack.queue)

    @contextmanager
    def event_source(self) -> Iterator[None]:
        """Feed the queue to the submitter."""
        queue = self.stack.queue
        source = EventSource(queue.meta.client, queue.url, self.submitter.invoke, BATCH_SIZE)

        def poll() -> None:
            if batch := source.poll():
                self.retried += batch.failed
                self.error = self.error or batch.error

        # The submitter is closed first: a demo that is interrupted waits for nothing.
        with again_and_again(poll, lambda: WATCH_SECONDS), closing(self.submitter):
            yield

    @contextmanager
    def schedule(self) -> Iterator[None]:
        """Invoke the generator once a second: EventBridge's schedule, in a hurry."""
        # A little after the full second: no two invocations then share one.
        with again_and_again(lambda: self.generator.invoke({}), lambda: 1.02 - time.time() % 1):
            yield


@contextmanager
def run_pipeline(zips: Path, packages: Path) -> Iterator[Pipeline]:
    """Start every part, and end them all whatever happens."""
    with ExitStack() as exits:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        exits.callback(moto.stop)
        stack = create_stack("http://{}:{}".format(*moto.get_host_and_port()))
        datadog = exits.enter_context(DatadogServer(API_KEY))
        environment = {
            "AWS_ENDPOINT_URL": stack.endpoint,
            "DATADOG_API_KEY": API_KEY,
            "DATADOG_HOST": datadog.url,
            "REJECTED_QUEUE_URL": stack.rejected.url,
            "STATS_BUCKET": stack.bucket.name,
            "STATS_PREFIX": PREFIX,
        }
        submitter, generator = (
            exits.enter_context(
                LambdaFunction(
                    zips / f"{name}.zip",
                    f"{name}.lambda_handler",
                    environment,
                    packages=packages,
                    name=name,
                    timeout=FUNCTION_SECONDS,
                )
            )
            for name in FUNCTIONS
        )
        yield Pipeline(stack, datadog, generator, submitter)
