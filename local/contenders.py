"""The handlers with which the bench compares the functions, written as users would."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_plus

import boto3
import urllib3
from aws_lambda_powertools.utilities import batch
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.config import Config
from datadog import initialize
from datadog.api.metrics import Metric

from ddg_mock_datasource import lambda_handler as generator  # noqa: F401  # one of them

Event = dict[str, Any]
THREADS = 32  # as in the submitter and the generator
BUCKET = os.environ["STATS_BUCKET"]

s3: Any = boto3.client("s3", config=Config(max_pool_connections=THREADS))
http = urllib3.PoolManager(maxsize=THREADS)
threads = ThreadPoolExecutor(THREADS)
processor = batch.BatchProcessor(batch.EventType.SQS)
initialize()


def plain(event: Event, context: Any) -> None:
    """The tutorial's way: a loop, get_object, Metric.send for each metric."""
    for key in object_keys(event):
        for metric in read_metrics(key):
            Metric.send(**metric)


def powertools(event: Event, context: Any) -> Any:
    """Powertools for AWS Lambda: its BatchProcessor, and a POST for each file."""
    return batch.process_partial_response(event, send_file, processor, context)


def send_file(record: SQSRecord) -> None:
    """Send the metrics of the files that a message names."""
    for named in record.decoded_nested_s3_event.records:
        Metric.send(metrics=read_metrics(unquote_plus(named.s3.get_object.key)))


def floor(event: Event, context: Any) -> None:
    """The least that a handler with boto3 takes: bare get_object in parallel, and one raw POST."""
    list(threads.map(get, object_keys(event)))
    post(event["body_bytes"])


def bare_put(event: Event, context: Any) -> None:
    """The least that a generator with boto3 takes: bare put_object in parallel."""
    body = b'{"timestamp": 1575839011, "sample.stats": 1231, "processed.data": 321}'
    kept = {"Bucket": BUCKET, "Body": body, "ContentType": "application/json"}
    list(threads.map(lambda i: s3.put_object(Key=f"stats/{i}", **kept), range(event["files"])))


def object_keys(event: Event) -> Iterator[str]:
    """Yield the key of each object that an event names."""
    for message in event["Records"]:
        for record in json.loads(message["body"])["Records"]:
            yield unquote_plus(record["s3"]["object"]["key"])


def get(key: str) -> Any:
    """Return an object's content."""
    return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def read_metrics(key: str) -> list[dict[str, Any]]:
    """Return an object's metrics as Metric.send expects them."""
    stats = json.loads(get(key))
    timestamp, tags = stats.pop("timestamp"), [f"job:{key.split('/')[1]}"]
    return [{"metric": name, "points": (timestamp, stats[name]), "tags": tags} for name in stats]


def post(size: int) -> None:
    """POST as many bytes as the submitter would."""
    url, key = f"{os.environ['DATADOG_HOST']}/api/v1/series", os.environ["DATADOG_API_KEY"]
    http.request("POST", url, body=os.urandom(size), headers={"DD-API-KEY": key})
