"""Schedule -> S3: write random stats files instead of real jobs, or a heartbeat."""

import json
import os
import random
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

MAX_FILES = 3_000  # per event: one per second, and Datadog drops points older than 3,600 s
THREADS = 32  # files written in parallel
HEARTBEAT = {"ddg.heartbeat": 1}

# The state of the random walk; a cold start begins here. A step is at most a twentieth.
levels = {"sample.stats": 1231.0, "processed.data": 321.0}


def lambda_handler(event: Mapping[str, Any], context: object) -> dict[str, list[str]]:
    """Write one stats file, or N of them for `{"files": N}`: one per second, the last one now.

    With HEARTBEAT=true in the environment each contains a single 1 instead of the sample's numbers.

    Returns:
        The keys written, in the order of their timestamps.

    Raises:
        ValueError: N isn't an integer from 1 to MAX_FILES; nothing is written.
    """
    files = event.get("files", 1)
    if type(files) is not int or not 1 <= files <= MAX_FILES:
        raise ValueError(
            f'"files" is {files!r}; it must be an integer from 1 to {MAX_FILES}, because each file '
            "is a second older than the next, and Datadog drops points over an hour old"
        )
    bucket, prefix = os.environ["STATS_BUCKET"], os.environ.get("STATS_PREFIX", "stats/")
    beats = os.environ.get("HEARTBEAT") == "true"
    folder = f"{prefix}{'heartbeat' if beats else 'mock-datasource'}/"
    now = int(time.time())
    timestamps = range(now - files + 1, now + 1)
    stats = [{"timestamp": each} | (HEARTBEAT if beats else next_stats()) for each in timestamps]
    keys = [object_key(folder, timestamp) for timestamp in timestamps]
    s3 = s3_client()

    def put(key: str, content: Mapping[str, int]) -> None:
        s3.put_object(
            Bucket=bucket, Key=key, Body=json.dumps(content), ContentType="application/json"
        )

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(put, keys, stats))  # list: raises the error of any of them here
    return {"keys": keys}


def next_stats() -> dict[str, int]:
    """Return the next numbers of the random walk, which looks more like a job than noise."""
    for name, level in levels.items():
        levels[name] = max(1.0, level * random.uniform(0.95, 1.05))
    return {name: round(level) for name, level in levels.items()}


def object_key(folder: str, timestamp: int) -> str:
    """Return a unique key for one file, in a folder per day."""
    day = datetime.fromtimestamp(timestamp, UTC).strftime("%Y/%m/%d")
    return f"{folder}{day}/{timestamp}-{secrets.token_hex(4)}.json"


@cache
def s3_client() -> Any:
    """Make the client once: later invocations reuse its connections."""
    return boto3.client("s3", config=Config(max_pool_connections=THREADS))
