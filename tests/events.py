"""Events of S3 and SQS, Lambda's context, and stats files."""

import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote_plus

from local import event_source

BUCKET = "stats-bucket"
STARTED = int(time.time())


class Context:
    """Lambda's context of one invocation, as far as the functions use it."""

    function_name = "ddg-submit"

    def __init__(self, seconds: float = 60.0) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int(1000 * (self._end - time.monotonic())))


def s3_record(key: str, bucket: str = BUCKET, version: str = "2.1") -> dict[str, Any]:
    """Return one record of a notification, in short, with the key encoded as S3 encodes it.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    return {
        "eventVersion": version,
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": quote_plus(key, safe="/"), "size": 1024, "sequencer": "0055AED6DC"},
        },
    }


def notification(keys: Iterable[str], bucket: str = BUCKET, version: str = "2.1") -> str:
    """Return the body of a message that names these objects."""
    return json.dumps({"Records": [s3_record(key, bucket, version) for key in keys]})


def sqs_record(
    keys: Iterable[str] = (),
    *,
    bucket: str = BUCKET,
    body: str | None = None,
    receive_count: int | None = 1,
) -> dict[str, Any]:
    """Return one message of a batch: a notification of these keys, or any body.

    receive_count: None for a message without one.
    """
    count = {} if receive_count is None else {"ApproximateReceiveCount": f"{receive_count}"}
    message = {
        "MessageId": str(uuid.uuid4()),
        "ReceiptHandle": "AQEBexample",
        "Body": notification(keys, bucket) if body is None else body,
        "MD5OfBody": "0123456789abcdef0123456789abcdef",
        "Attributes": {"SentTimestamp": "1767225600000", "SenderId": "AIDAEXAMPLE"} | count,
    }
    return event_source.sqs_record(message, "arn:aws:sqs:us-east-1:123456789012:stats")


def sqs_event(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"Records": list(records)}


def stats(age: float = 0, *, now: float = STARTED, **metrics: object) -> bytes:
    """Return a good stats file; its timestamp is that many seconds before `now`."""
    return json.dumps({"timestamp": int(now - age), **(metrics or {"m": 1})}).encode()


def bulky(number: int, *, series: int) -> bytes:
    """Return a stats file whose series take about 4 KB of JSON each, and hardly any on the wire."""
    tags = [f"file:{number}", *(f"t{n}:{'x' * 190}" for n in range(20))]
    metrics = {f"m{n}": n for n in range(series)}
    return json.dumps({"timestamp": STARTED, "tags": tags, **metrics}).encode()


@cache
def tell_of_eventbridge() -> None:
    """Make moto show that EventBridge is on for a bucket, as S3 does."""
    from moto.s3.responses import S3Response

    responses: Any = S3Response
    answer = responses.get_bucket_notification

    def tell(response: Any) -> Any:
        status, headers, body = answer(response)
        kept = response.backend.get_bucket_notification_configuration(response.bucket_name)
        if kept and kept.event_bridge is not None:
            whole = re.sub("/>$", "></NotificationConfiguration>", body)  # if it is empty
            body = re.sub("(</[^>]+>)$", r"<EventBridgeConfiguration/>\1", whole)
        return status, headers, body

    responses.get_bucket_notification = tell
