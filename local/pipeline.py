"""The pipeline on loopback: moto as S3 and SQS, the functions from their zips, a local Datadog."""

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple, NoReturn

import boto3
from moto.server import ThreadedMotoServer

from local.datadog_server import DatadogServer
from local.event_source import EventSource
from local.lambda_runtime import REGION, FunctionError, LambdaFunction
from local.samples import MAPPED

ROOT = Path(__file__).resolve().parent.parent
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
    *,
    prefix: str = PREFIX,
    others: Iterable[str] = (),
) -> Stack:
    """Create buckets and queues, and let the bucket notify the queue of what is below its prefix.

    others: more buckets, which notify it of all that they get.
    """
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
    for bucket, below in {name: prefix, **dict.fromkeys(others, "")}.items():
        notified = {"QueueArn": queue.attributes["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
        if below:
            notified["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": below}]}}
        s3.create_bucket(Bucket=bucket).Notification().put(
            NotificationConfiguration={"QueueConfigurations": [notified]}
        )
    silent_bucket = s3.create_bucket(Bucket=f"{name}-silent")
    rejected = sqs.create_queue(QueueName=f"{name}-rejected")
    return Stack(endpoint, s3.Bucket(name), silent_bucket, queue, dead_letters, rejected)


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
def again_and_again(
    step: Callable[[], object], pause: Callable[[], float]
) -> Iterator[Future[None]]:
    """Take a step after each pause, in a thread; at the end, raise what the last one raised.

    What is yielded is done as soon as a step raises.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(pause()):
            step()

    with ThreadPoolExecutor(max_workers=1) as executor:
        repeating = executor.submit(repeat)
        try:
            yield repeating
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
    environment: Mapping[str, str]  # of both functions
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
    def event_source(
        self, invoke: Callable[[object], object] | None = None
    ) -> Iterator[Future[None]]:
        """Feed the queue to the submitter, or to what stands before it."""
        queue = self.stack.queue
        function = invoke or self.submitter.invoke
        source = EventSource(queue.meta.client, queue.url, function, BATCH_SIZE)

        def poll() -> None:
            if batch := source.poll():
                self.retried += batch.failed
                self.error = self.error or batch.error

        # The submitter is closed first: a run that is interrupted waits for nothing.
        with again_and_again(poll, lambda: WATCH_SECONDS) as polling, closing(self.submitter):
            yield polling

    @contextmanager
    def schedule(self) -> Iterator[None]:
        """Invoke the generator once a second: EventBridge's schedule, in a hurry."""
        # A little after the full second: no two invocations then share one.
        with again_and_again(lambda: self.generator.invoke({}), lambda: 1.02 - time.time() % 1):
            yield


@contextmanager
def run_pipeline(
    zips: Path,
    packages: Path,
    settings: Mapping[str, str] = MappingProxyType({}),
    port: int = 0,
    **stack_options: Any,
) -> Iterator[Pipeline]:
    """Start every part, and end them all whatever happens.

    settings: more of the functions' environment. port: of S3 and SQS. The rest is create_stack's.
    """
    with ExitStack() as exits:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
        moto = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        moto.start()
        exits.callback(moto.stop)
        stack = create_stack("http://{}:{}".format(*moto.get_host_and_port()), **stack_options)
        datadog = exits.enter_context(DatadogServer(API_KEY))
        jobs = {job: {"mapping": mapping} for job, mapping in MAPPED.items()}
        environment = {
            "AWS_ENDPOINT_URL": stack.endpoint,
            "DATADOG_API_KEY": API_KEY,
            "DATADOG_HOST": datadog.url,
            "REJECTED_QUEUE_URL": stack.rejected.url,
            "STATS_BUCKET": stack.bucket.name,
            "STATS_PREFIX": PREFIX,
            **settings,
            "JOBS": json.dumps(jobs | json.loads(settings.get("JOBS", "{}"))),
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
        yield Pipeline(stack, datadog, generator, submitter, environment)


# --- The commands that run it ---


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Return a command's options, and prepare the process for the pipeline.

    What is missing on this machine ends the program. On a signal, KeyboardInterrupt unwinds: every
    part is a context manager, and ends itself.
    """
    runtime = Path(sys.prefix, "lambda-runtime")  # in .venv
    zips, packages = "where zipper.sh left the two zips", "where awslambdaric and boto3 are"
    parser.add_argument("--zips", type=Path, default=ROOT, help=zips)
    parser.add_argument("--packages", type=Path, default=runtime, help=packages)
    options = parser.parse_args(arguments)
    needed = {options.zips / f"{name}.zip": "./zipper.sh makes it" for name in FUNCTIONS}
    needed[options.packages / "awslambdaric"] = "`make venv` installs it"
    for path, remedy in needed.items():
        if not path.exists():
            parser.error(f"{path} isn't there: {remedy}.")
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, end_in_order)
    keep_to_loopback()
    return options


def keep_to_loopback() -> None:
    """Take from the environment what could lead boto3 elsewhere."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"


def end_in_order(_number: int, _frame: FrameType | None) -> NoReturn:
    """Unwind on a signal, once: a second Ctrl-C would leave things behind."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt
