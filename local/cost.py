"""The monthly cost of the pipeline on AWS, from measured times and the public price lists.

Datadog's bill isn't included: it counts custom metrics, however often they are sent.
"""

from typing import NamedTuple

from local.simulation import Times

# US dollars, us-east-1, without free tiers and discounts, as of 2025-07
LAMBDA_GB_SECOND = 0.0000133334  # aws.amazon.com/lambda/pricing, arm64, first tier
LAMBDA_REQUEST = 0.20 / 1e6  # the same
SQS_REQUEST = 0.40 / 1e6  # aws.amazon.com/sqs/pricing, standard queue, up to 64 KB each
S3_GET = 0.0004 / 1e3  # aws.amazon.com/s3/pricing, Standard; an event notification itself is free
LOG_BYTE = 0.50 / 1e9  # aws.amazon.com/cloudwatch/pricing, ingestion; storage adds a fiftieth
SENT_BYTE = 0.09 / 1e9  # aws.amazon.com/ec2/pricing/on-demand, data transfer out
CUSTOM_METRIC = 0.30  # a month; aws.amazon.com/cloudwatch/pricing
ALARM = 0.10  # a month; the same

HOURS = 730  # per month
METRICS = 12  # per stack: the summary's ten, and two for the generator or heartbeat
ALARMS = 11  # per stack: those of alarms.tf, without silent jobs
LOG_BYTES = 1_500  # per invocation: START, END, REPORT as JSON, and the summary
FILE_LOG_BYTES = 100  # per file: its address in the line of submitted files
HTTP_BYTES = 600  # of a POST's headers and its response
WIRE_BYTES = 30  # per file of five metrics, compressed
IDLE_RECEIVES = 5 * 3 * 60 * HOURS  # per month: 5 pollers, each waiting 20 s at a time
SQS_BATCH = 10  # messages received or deleted in one request


class Cost(NamedTuple):
    """US dollars a month."""

    s3_gets: float
    sqs: float
    lambda_requests: float
    lambda_compute: float
    logs: float
    transfer: float
    fixed: float  # alarms, CloudWatch's metrics, and polling an empty queue


def files_per_batch(times: Times, rate: float, concurrency: int, most: int) -> float:
    """Return the files per invocation: those that arrive while its poller is busy."""
    used = rate * (times.seconds(1) - times.seconds(0)) / concurrency  # of a poller's time
    if used >= 1:
        return most
    found = rate * times.seconds(0) / concurrency / (1 - used)
    return min(float(most), max(1.0, found))


def month(times: Times, rate: float, batch: float) -> Cost:
    """Return the cost of a month at a rate of files per second, and a batch of files each."""
    files = rate * 3_600 * HOURS
    invocations = files / batch
    # S3 sends one message at a time; Lambda receives and deletes several.
    sqs = files + 2 * files / min(batch, SQS_BATCH)
    gb_seconds = invocations * times.seconds(batch) * times.memory / 1_024
    return Cost(
        s3_gets=files * S3_GET,
        sqs=sqs * SQS_REQUEST,
        lambda_requests=invocations * LAMBDA_REQUEST,
        lambda_compute=gb_seconds * LAMBDA_GB_SECOND,
        logs=(invocations * LOG_BYTES + files * FILE_LOG_BYTES) * LOG_BYTE,
        transfer=(files * WIRE_BYTES + invocations * HTTP_BYTES) * SENT_BYTE,
        fixed=METRICS * CUSTOM_METRIC + ALARMS * ALARM + IDLE_RECEIVES * SQS_REQUEST,
    )
