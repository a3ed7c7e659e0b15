"""The bench's contenders: the handler, and what it is held against, each as its users write it.

A contender runs in a process of its own, as in Lambda, and takes its orders on standard input.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Self
from urllib.parse import unquote_plus

from local.bench_servers import BUCKET, object_content, object_key

ROOT = Path(__file__).resolve().parent.parent
THREADS = 32  # as many as the submitter and the generator have
Handler = Callable[[Mapping[str, Any], Any], Any]
CONTEXT = SimpleNamespace(
    function_name="bench", aws_request_id="0", get_remaining_time_in_millis=lambda: 900_000
)


def sqs_event(files: int, metrics: int, now: int) -> dict[str, Any]:
    """Return the event in which Lambda hands over the notifications of so many files."""
    return {"Records": [sqs_record(object_key(index, metrics, now)) for index in range(files)]}


def sqs_record(key: str) -> dict[str, Any]:
    """Return an SQS message with S3's notification of one object, in full."""
    notification = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2025-07-01T12:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "stats",
            "bucket": {
                "name": BUCKET,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": f"arn:aws:s3:::{BUCKET}",
            },
            "object": {"key": key, "size": 120, "eTag": "0", "sequencer": "0055AED6DCD90281E5"},
        },
    }
    return {
        "messageId": key,
        "receiptHandle": "AQEB" + 300 * "x",
        "body": json.dumps({"Records": [notification]}),
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1751371200000"},
        "messageAttributes": {},
        "md5OfBody": "0" * 32,
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:stats",
        "awsRegion": "us-east-1",
    }


def references(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the bucket and key of each object that an event names."""
    for message in event["Records"]:
        for record in json.loads(message["body"])["Records"]:
            yield record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"])


def plain(environment: Mapping[str, str]) -> Handler:
    """The tutorial's way: a loop, get_object, Metric.send for each metric."""
    import boto3
    from datadog import initialize
    from datadog.api.metrics import Metric

    initialize(api_key=environment["DATADOG_API_KEY"], api_host=environment["DATADOG_HOST"])
    s3 = boto3.client("s3")

    def lambda_handler(event: Mapping[str, Any], context: Any) -> None:
        for message in event["Records"]:
            for record in json.loads(message["body"])["Records"]:
                bucket = record["s3"]["bucket"]["name"]
                key = unquote_plus(record["s3"]["object"]["key"])
                stats = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
                timestamp = stats.pop("timestamp")
                for metric, value in stats.items():
                    Metric.send(metric=metric, points=(timestamp, value), tags=[job_tag(key)])

    return lambda_handler


def powertools(environment: Mapping[str, str]) -> Handler:
    """Powertools for AWS Lambda: its BatchProcessor, and a POST for each file."""
    import boto3
    from aws_lambda_powertools.utilities.batch import (
        BatchProcessor,
        EventType,
        process_partial_response,
    )
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from datadog import initialize
    from datadog.api.metrics import Metric

    initialize(api_key=environment["DATADOG_API_KEY"], api_host=environment["DATADOG_HOST"])
    s3 = boto3.client("s3")
    processor = BatchProcessor(event_type=EventType.SQS)

    def record_handler(record: SQSRecord) -> None:
        for s3_record in record.decoded_nested_s3_event.records:
            key = unquote_plus(s3_record.s3.get_object.key)
            answer = s3.get_object(Bucket=s3_record.s3.bucket.name, Key=key)
            stats = json.loads(answer["Body"].read())
            timestamp = stats.pop("timestamp")
            Metric.send(
                metrics=[
                    {"metric": metric, "points": (timestamp, value), "tags": [job_tag(key)]}
                    for metric, value in stats.items()
                ]
            )

    def lambda_handler(event: Mapping[str, Any], context: Any) -> Any:
        return process_partial_response(
            event=dict(event), record_handler=record_handler, processor=processor, context=context
        )

    return lambda_handler


def job_tag(key: str) -> str:
    """Return the tag of the job that wrote an object."""
    return f"job:{key.split('/')[1]}"


def floor(environment: Mapping[str, str]) -> Handler:
    """What any handler on boto3 must pay: bare get_object side by side, and one raw POST."""
    import boto3
    import urllib3
    from botocore.config import Config

    s3 = boto3.client("s3", config=Config(max_pool_connections=THREADS))
    datadog = urllib3.PoolManager()
    threads = ThreadPoolExecutor(THREADS)

    def get(reference: tuple[str, str]) -> bytes:
        content: bytes = s3.get_object(Bucket=reference[0], Key=reference[1])["Body"].read()
        return content

    def lambda_handler(event: Mapping[str, Any], context: Any) -> None:
        list(threads.map(get, references(event)))
        raw_post(datadog, environment, event["body"])

    return lambda_handler


def limit(environment: Mapping[str, str]) -> Handler:
    """What Python itself must pay: the same GETs by bare urllib3, unsigned, and one raw POST."""
    import urllib3

    http = urllib3.PoolManager(maxsize=THREADS)
    datadog = urllib3.PoolManager()
    threads = ThreadPoolExecutor(THREADS)

    def get(reference: tuple[str, str]) -> bytes:
        return http.request("GET", "/".join((environment["AWS_ENDPOINT_URL"], *reference))).data

    def lambda_handler(event: Mapping[str, Any], context: Any) -> None:
        list(threads.map(get, references(event)))
        raw_post(datadog, environment, event["body"])

    return lambda_handler


def raw_post(http: Any, environment: Mapping[str, str], body: bytes) -> None:
    """POST what was made ready before."""
    answer = http.request(
        "POST",
        f"{environment['DATADOG_HOST']}/api/v1/series",
        body=body,
        headers={
            "Content-Type": "application/json",
            "Content-Encoding": "deflate",
            "DD-API-KEY": environment["DATADOG_API_KEY"],
        },
    )
    assert answer.status == 202, answer.status  # noqa: S101  # the bench's own server


def ours(environment: Mapping[str, str]) -> Handler:
    """The submitter as it is deployed."""
    from ddg_metric_submit import lambda_handler

    def silent_handler(event: Mapping[str, Any], context: Any) -> Any:
        with redirect_stdout(StringIO()) as printed:
            lambda_handler(event, context)
        summary = json.loads(printed.getvalue().splitlines()[-1])
        return {name: value for name, value in summary.items() if name != "_aws"}

    return silent_handler


def bare_put(environment: Mapping[str, str]) -> Handler:
    """What any generator on boto3 must pay: bare put_object side by side."""
    import boto3
    from botocore.config import Config

    s3 = boto3.client("s3", config=Config(max_pool_connections=THREADS))

    def put(index: int) -> None:
        body = b'{"timestamp": 1575839011, "sample.stats": 1231, "processed.data": 321}'
        s3.put_object(
            Bucket=BUCKET, Key=f"stats/{index}", Body=body, ContentType="application/json"
        )

    def lambda_handler(event: Mapping[str, Any], context: Any) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(put, range(event["files"])))

    return lambda_handler


def generator(environment: Mapping[str, str]) -> Handler:
    """The generator as it is deployed."""
    from ddg_mock_datasource import lambda_handler

    return lambda event, context: len(lambda_handler(event, context)["keys"])


CONTENDERS = {make.__name__: make for make in (plain, powertools, floor, limit, ours)}
WRITERS = {make.__name__: make for make in (bare_put, generator)}


class Run(NamedTuple):
    """One invocation."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int  # the most memory the process ever held
    answer: Any


class Contender:
    """A contender's process; a context manager. The process is warm after its first run."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        """Start the process in the environment that a function would have."""
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.contenders", name],
            cwd=ROOT,
            env={**environment, **LAMBDA_ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()

    def run(self, files: int, metrics: int = 5) -> Run:
        """Invoke the handler once with so many files."""
        assert self._process.stdin and self._process.stdout  # noqa: S101, PT018  # PIPE says so
        print(json.dumps([files, metrics]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{self.name} has ended: see above.")
        return Run(*json.loads(answer))


LAMBDA_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_SESSION_TOKEN": "bench",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "HOME": "/nonexistent",  # or botocore would read the ~/.aws of whoever runs this
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "TZ": ":UTC",
}


def prepared_body(files: int, metrics: int, now: int) -> bytes:
    """Return the POST's body for so many files, as the submitter makes it, deflated."""
    import zlib

    series: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for index in range(files):
        key = object_key(index, metrics, now)
        stats = json.loads(object_content(key))
        timestamp = stats.pop("timestamp")
        for metric, value in stats.items():
            series.setdefault((metric, job_tag(key)), []).append((timestamp, value))
    body = [
        {"metric": metric, "type": "gauge", "points": points, "tags": [tag]}
        for (metric, tag), points in series.items()
    ]
    return zlib.compress(json.dumps({"series": body}).encode())


def peak_memory(process: int | str = "self") -> int:
    """Return the most memory that a process ever held, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main(name: str) -> None:
    """Invoke a contender as often as standard input says, and print how long it took."""
    import os

    handler = (CONTENDERS | WRITERS)[name](os.environ)
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a handler prints isn't an answer
    for line in sys.stdin:
        files, metrics = json.loads(line)
        now = int(time.time())
        if name in WRITERS:
            event: dict[str, Any] = {"files": files}
        else:
            event = sqs_event(files, metrics, now)
            event["body"] = (
                prepared_body(files, metrics, now) if name in ("floor", "limit") else b""
            )
        started, cpu = time.perf_counter(), time.process_time()
        answer = handler(event, CONTEXT)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        run = Run(seconds, cpu, peak_memory(), answer if name == "ours" else None)
        print(json.dumps(run), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
