"""Upload a job's stats file: python write_stats.py BUCKET JOB."""

import json
import secrets
import sys
import time
from collections.abc import Mapping

import boto3


def write_stats(bucket: str, job: str, stats: Mapping[str, float]) -> str:
    """Write one stats file with the current time under a unique key; return the key."""
    now = int(time.time())
    key = f"stats/{job}/{now}-{secrets.token_hex(4)}.json"
    body = json.dumps({"timestamp": now, **stats}, allow_nan=False)  # NaN isn't JSON
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body.encode())
    return key


if __name__ == "__main__":
    print(write_stats(sys.argv[1], sys.argv[2], {"rows.read": 1231, "seconds": 4.2}))
