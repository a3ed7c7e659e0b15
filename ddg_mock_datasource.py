"""Schedule -> S3: write random stats files in place of real jobs, or a heartbeat."""

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

MAX_FILES = 3_000  # ours, an event: a second each, and after 3,600 s Datadog drops points
THREADS = 32  # ours: as many files are written side by side
HEARTBEAT = {"ddg.heartbeat": 1}

# Where the walk stands; a cold start begins again here. Each step is a twentieth of it at most.
levels = {"sample.stats": 1231.0, "processed.data": 321.0}


def lambda_handler(event: Mapping[str, Any], context: object) -> dict[str, list[str]]:
    """Write one stats file, or `{"files": N}` of them with a second each, the last one now.

    With HEARTBEAT=true in the environment each holds a single 1 in place of the sample's numbers.

    Returns:
        The keys written, in the order of their timestamps.

    Raises:
        ValueError: N is no integer from 1 to MAX_FILES; nothing is written.
    """
    files = event.get("files", 1)
    if type(files) is not int or not 1 <= files <= MAX_FILES:
        raise ValueError(
            f'"files" is {files!r}; it must be an integer from 1 to {MAX_FILES}, because each file '
            "is a second older than the next and Datadog takes none that are over an hour old"
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
        list(threads.map(put, keys, stats))  # list: an error of any of them is raised here
    return {"keys": keys}


def next_stats() -> dict[str, int]:
    """Return the next numbers, a step of the walk further: a job's graph is no noise."""
    for name, level in levels.items():
        levels[name] = max(1.0, level * random.uniform(0.95, 1.05))
    return {name: round(level) for name, level in levels.items()}


def object_key(folder: str, timestamp: int) -> str:
    """Return a key of its own for one file, by day as S3 is easiest to look through."""
    day = datetime.fromtimestamp(timestamp, UTC).strftime("%Y/%m/%d")
    return f"{folder}{day}/{timestamp}-{secrets.token_hex(4)}.json"


@cache
def s3_client() -> Any:
    """Make the client once: its connections survive from invocation to invocation."""
    return boto3.client("s3", config=Config(max_pool_connections=THREADS))
