"""What a month of the pipeline costs on AWS, from measured times and the public price lists.

Datadog's bill isn't in it: that counts custom metrics, however often they are sent.
"""

from typing import NamedTuple

# US dollars, us-east-1, without free tiers and discounts, as the vendors' pages had them:
PRICES_OF = "2025-07"
LAMBDA_GB_SECOND = 0.0000133334  # aws.amazon.com/lambda/pricing, arm64, first tier
LAMBDA_REQUEST = 0.20 / 1e6  # the same
SQS_REQUEST = 0.40 / 1e6  # aws.amazon.com/sqs/pricing, standard queue, up to 64 KB each
S3_GET = 0.0004 / 1e3  # aws.amazon.com/s3/pricing, Standard; an event notification itself is free
S3_PUT = 0.005 / 1e3  # the same; it is the job's, and there with or without this pipeline
LOG_BYTE = 0.50 / 1e9  # aws.amazon.com/cloudwatch/pricing, ingestion; keeping it adds a fiftieth
SENT_BYTE = 0.09 / 1e9  # aws.amazon.com/ec2/pricing/on-demand, data transfer out
CUSTOM_METRIC = 0.30  # a month; aws.amazon.com/cloudwatch/pricing
ALARM = 0.10  # a month; the same

HOURS = 730  # a month has
METRICS, ALARMS = 9, 11  # of the stack: print_summary's names, main.tf's alarms
LOG_BYTES = 1_500  # an invocation: START, END, REPORT as JSON, and the summary
HTTP_BYTES = 600  # a POST's headers, and its answer's way back
WIRE_BYTES = 30  # a file, deflated, of five metrics
IDLE_RECEIVES = 5 * 3 * 60 * HOURS  # a month: 5 pollers, each waiting 20 s at a time
SQS_BATCH = 10  # messages that are received or deleted in one request
FULL_CPU_MEGABYTES = 1_769  # Lambda, configuration-function-memory: one vCPU


class Times(NamedTuple):
    """Measured on a full core: what an invocation waits, and what it computes, in seconds."""

    wait: float  # for S3 and for Datadog
    cpu: float  # of an invocation
    cpu_file: float  # of each file

    def invocation(self, files: float, memory: int) -> float:
        """Return an invocation's seconds where memory (MB) gives the share of a core.

        Waiting and computing are added up: with few files hardly any of it overlaps.
        """
        share = min(1.0, memory / FULL_CPU_MEGABYTES)  # one core is all that Python's threads use
        return self.wait + (self.cpu + self.cpu_file * files) / share


class Cost(NamedTuple):
    """US dollars a month."""

    s3_gets: float
    sqs: float
    lambda_requests: float
    lambda_compute: float
    logs: float
    transfer: float
    fixed: float  # alarms, CloudWatch's metrics, and looking at an empty queue

    @property
    def total(self) -> float:
        return sum(self)


def files_a_batch(times: Times, memory: int, rate: float, concurrency: int, most: int) -> float:
    """Return how many files an invocation finds: those that came while its poller was busy."""
    seconds_a_file = times.invocation(1, memory) - times.invocation(0, memory)
    used = rate * seconds_a_file / concurrency  # of a poller's time, by the files themselves
    if used >= 1:
        return most
    found = rate * times.invocation(0, memory) / concurrency / (1 - used)
    return min(float(most), max(1.0, found))


def month(times: Times, memory: int, rate: float, batch: float) -> Cost:
    """Return a month's cost at so many files a second, so many of them an invocation."""
    files = rate * 3_600 * HOURS
    invocations = files / batch
    # S3 sends each message by itself; Lambda receives and deletes several at a time.
    sqs = files + 2 * files / min(batch, SQS_BATCH)
    seconds = invocations * times.invocation(batch, memory)
    return Cost(
        s3_gets=files * S3_GET,
        sqs=sqs * SQS_REQUEST,
        lambda_requests=invocations * LAMBDA_REQUEST,
        lambda_compute=seconds * memory / 1_024 * LAMBDA_GB_SECOND,
        logs=invocations * LOG_BYTES * LOG_BYTE,
        transfer=(files * WIRE_BYTES + invocations * HTTP_BYTES) * SENT_BYTE,
        fixed=METRICS * CUSTOM_METRIC + ALARMS * ALARM + IDLE_RECEIVES * SQS_REQUEST,
    )
