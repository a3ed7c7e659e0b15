"""The pipeline on loopback: moto as S3 and SQS, the functions from their zips, a local Datadog."""

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple, NoReturn

import boto3
from moto.server import ThreadedMotoServer

from local.datadog_server import DatadogServer
from local.event_source import EventSource
from local.lambda_runtime import LAMBDA_PACKAGES, REGION, LambdaFunction
from local.samples import MAPPED

ROOT = Path(__file__).resolve().parent.parent
API_KEY = "0123456789abcdef0123456789abcdef"  # as long as a real one; the local Datadog accepts it
PREFIX = "stats/"
FUNCTIONS = ("ddg_metric_submit", "ddg_mock_datasource")

VISIBILITY_SECONDS = 3  # then a failed message is delivered again; minutes in the real stack
MAX_RECEIVE_COUNT = 5
WATCH_SECONDS = 0.1  # between two looks at a queue


class Stack(NamedTuple):
    """The buckets and queues around the submitter, on moto: boto3's resources."""

    endpoint: str
    bucket: Any
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
    """Create buckets and queues; the bucket notifies the queue of objects below the prefix.

    others: more buckets, which notify the queue of every object.
    """
    session = boto3.Session("local", "local", region_name=REGION)  # moto accepts any credentials
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
        rule = {"QueueArn": queue.attributes["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
        if below:
            rule["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": below}]}}
        s3.create_bucket(Bucket=bucket).Notification().put(
            NotificationConfiguration={"QueueConfigurations": [rule]}
        )
    rejected = sqs.create_queue(QueueName=f"{name}-rejected")
    return Stack(endpoint, s3.Bucket(name), queue, dead_letters, rejected)


def depth(queue: Any) -> int:
    """Return how many messages a queue holds, including those in flight."""
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
def repeating(step: Callable[[], object], pause: Callable[[], float]) -> Iterator[Future[None]]:
    """Take a step after each pause (in seconds) in a thread, until the block ends or a step raises.

    Yields the future of the thread. What a step raised is raised at the end of the block.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(pause()):
            step()

    with ThreadPoolExecutor(max_workers=1) as executor:
        future = executor.submit(repeat)
        try:
            yield future
        finally:
            stop.set()
    future.result()


@dataclass
class Pipeline:
    """All parts of the running pipeline."""

    stack: Stack
    datadog: DatadogServer
    generator: LambdaFunction
    submitter: LambdaFunction
    environment: Mapping[str, str]  # of both functions
    retried: int = 0  # messages that went back to the queue
    polling: Future[None] = field(default_factory=Future)  # done if the submitter has failed

    def depth(self) -> int:
        """Return how many messages wait for the submitter; raise FunctionError if it has failed."""
        if self.polling.done():
            self.polling.result()
        return depth(self.stack.queue)

    @contextmanager
    def event_source(self, invoke: Callable[[object], object] | None = None) -> Iterator[None]:
        """Feed the queue to the submitter, or to a function that invokes it."""
        queue = self.stack.queue
        source = EventSource(queue.meta.client, queue.url, invoke or self.submitter.invoke)

        def poll() -> None:
            if batch := source.poll():
                self.retried += batch.failed

        # The submitter is closed first, so that an interrupted run doesn't wait for it.
        with repeating(poll, lambda: WATCH_SECONDS) as self.polling, closing(self.submitter):
            yield

    @contextmanager
    def schedule(self) -> Iterator[None]:
        """Invoke the generator once a second, as EventBridge's schedule does once a minute."""
        # Shortly after the full second, so that no two files have the same timestamp.
        with repeating(lambda: self.generator.invoke({}), lambda: 1.02 - time.time() % 1):
            yield


@contextmanager
def run_pipeline(
    zips: Path,
    settings: Mapping[str, str] = MappingProxyType({}),
    port: int = 0,
    **stack_options: Any,
) -> Iterator[Pipeline]:
    """Start every part; stop them all at the end of the block.

    settings: more of the functions' environment. port: of S3 and SQS. The rest is create_stack's.
    """
    with ExitStack() as exits:
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
                    zips / f"{name}.zip", f"{name}.lambda_handler", environment, name=name
                )
            )
            for name in FUNCTIONS
        )
        yield Pipeline(stack, datadog, generator, submitter, environment)


# --- For the commands that run it ---


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Return a command's options, with `zips`, and prepare the process for the pipeline.

    Ends the program if something is missing. From now on a signal raises KeyboardInterrupt, which
    ends every part: each is a context manager.
    """
    help_zips = "the folder where zipper.sh left the zips"
    parser.add_argument("--zips", type=Path, default=ROOT, help=help_zips)
    options = parser.parse_args(arguments)
    needed = {options.zips / f"{name}.zip": "./zipper.sh makes it" for name in FUNCTIONS}
    needed[LAMBDA_PACKAGES / "awslambdaric"] = "`make venv` installs it"
    for path, remedy in needed.items():
        if not path.exists():
            parser.error(f"{path} isn't there: {remedy}.")
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, interrupt)
    # Nothing in the environment may lead boto3 beyond loopback.
    for variable in [variable for variable in os.environ if variable.startswith("AWS_")]:
        del os.environ[variable]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    return options


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt, once: a second Ctrl-C would leave parts running."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt
