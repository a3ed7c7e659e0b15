"""The load that a setting takes, what it costs on AWS, and what an outage of Datadog does to it.

The times of an invocation are measured. Datadog's bill isn't included: it counts custom metrics,
however often they are sent.
"""

import heapq
import math
from typing import NamedTuple

from ddg_metric_submit import RETRY_PAUSES

FULL_CPU_MEGABYTES = 1_769  # Lambda, configuration-function-memory: one vCPU
MAX_AGE_SECONDS = 3_600  # Datadog's limit, and the submitter's default
LEAST_RECEIVES = 5  # main.tf: after that a message is a dead letter
NOTICE_SECONDS = 1.0  # from a file's upload to its message
STEADY = 20.0  # files a second, in the outages
CALM_SECONDS = 900  # of that load after an outage

# US dollars, us-east-1, without free tiers and discounts, as of 2025-07
LAMBDA_GB_SECOND = 0.0000133334  # aws.amazon.com/lambda/pricing, arm64, first tier
LAMBDA_REQUEST = 0.20 / 1e6  # the same
SQS_REQUEST = 0.40 / 1e6  # aws.amazon.com/sqs/pricing, standard queue, up to 64 KB each
S3_GET = 0.0004 / 1e3  # aws.amazon.com/s3/pricing, Standard; an event notification itself is free
LOG_BYTE = 0.50 / 1e9  # aws.amazon.com/cloudwatch/pricing, ingestion; storage adds a fiftieth
SENT_BYTE = 0.09 / 1e9  # aws.amazon.com/ec2/pricing/on-demand, data transfer out
CUSTOM_METRIC = 0.30  # a month; aws.amazon.com/cloudwatch/pricing
ALARM = 0.10  # a month; the same

MONTH = 730 * 3_600  # seconds
METRICS = 12  # per stack: the summary's ten, and two for the generator or heartbeat
ALARMS = 11  # per stack: those of alarms.tf, without silent jobs
LOG_BYTES = 1_500  # per invocation: START, END, REPORT as JSON, and the summary
FILE_LOG_BYTES = 100  # per file: its address in the line of submitted files
HTTP_BYTES = 600  # of a POST's headers and its response
WIRE_BYTES = 30  # per file of five metrics, compressed
IDLE_RECEIVES = 5 * MONTH / 20  # per month: 5 pollers, each waiting 20 s at a time
SQS_BATCH = 10  # messages received or deleted in one request


class Times(NamedTuple):
    """Seconds of an invocation on a full core, from `make bench` with 1 and 10 files."""

    wait: float = 0.0708  # for S3 and for Datadog
    cpu: float = 0.0034  # of an invocation
    cpu_file: float = 0.00127  # of each file
    post: float = 0.05  # the part of `wait` for Datadog, which comes last
    memory: int = 512  # MB, variables.tf's default

    def seconds(self, files: float) -> float:
        """Return the seconds of an invocation; the memory determines the share of a core.

        Adds waiting and computing: with few files they hardly overlap.
        """
        share = min(1.0, self.memory / FULL_CPU_MEGABYTES)  # Python's threads use one core
        return self.wait + (self.cpu + self.cpu_file * files) / share


TIMES = Times()


class Setting(NamedTuple):
    """The variables of the stack that matter here."""

    maximum_concurrency: int = 5
    batch_size: int = 10
    visibility_timeout: float = 180.0  # seconds

    @property
    def max_receives(self) -> int:
        """Return how often a message is received at most, as in main.tf."""
        return max(LEAST_RECEIVES, math.ceil(MAX_AGE_SECONDS / self.visibility_timeout))

    def files_per_second(self) -> float:
        """Return the load that this setting takes."""
        return self.maximum_concurrency * self.batch_size / TIMES.seconds(self.batch_size)

    def files_per_batch(self, rate: float) -> float:
        """Return the files that arrive while a poller is busy, at a rate of files per second."""
        used = rate * (TIMES.seconds(1) - TIMES.seconds(0)) / self.maximum_concurrency
        if used >= 1:  # more than a poller's time
            return self.batch_size
        found = rate * TIMES.seconds(0) / self.maximum_concurrency / (1 - used)
        return min(float(self.batch_size), max(1.0, found))


def month(rate: float, batch: float, times: Times = TIMES) -> dict[str, float]:
    """Return US dollars by service, at a rate of files per second and a batch of files each."""
    files = rate * MONTH
    invocations = files / batch
    # S3 sends one message at a time; Lambda receives and deletes several.
    messages = files + 2 * files / min(batch, SQS_BATCH)
    gb_seconds = invocations * times.seconds(batch) * times.memory / 1_024
    return {
        "S3 GETs": files * S3_GET,
        "SQS": messages * SQS_REQUEST,
        "Lambda requests": invocations * LAMBDA_REQUEST,
        "Lambda compute": gb_seconds * LAMBDA_GB_SECOND,
        "logs": (invocations * LOG_BYTES + files * FILE_LOG_BYTES) * LOG_BYTE,
        "transfer": (files * WIRE_BYTES + invocations * HTTP_BYTES) * SENT_BYTE,
        "fixed": METRICS * CUSTOM_METRIC + ALARMS * ALARM + IDLE_RECEIVES * SQS_REQUEST,
    }


class Message(NamedTuple):
    """A file's notification; the first to become visible is received first."""

    visible: float
    written: float
    receives: int = 0


def play_outage(setting: Setting, minutes: float) -> tuple[int, int]:
    """Return the files of a steady load that an outage loses, beginning after a minute.

    First those that become too old and are refused, then the dead letters. Simulates the queue
    (order of becoming visible, visibility timeout, receive count) and the submitter's outcomes.
    """
    begin, end = 60.0, 60.0 + 60.0 * minutes
    steady = ((n + 1) / STEADY for n in range(round(STEADY * (end + CALM_SECONDS))))
    queue = [Message(written + NOTICE_SECONDS, written) for written in steady]  # a heap
    pollers = [0.0] * setting.maximum_concurrency  # when each is free; also a heap
    aged_out = dead_letters = 0
    while queue:
        started = now = max(heapq.heappop(pollers), queue[0].visible)
        batch: list[Message] = []
        while queue and queue[0].visible <= started and len(batch) < setting.batch_size:
            batch.append(heapq.heappop(queue))
        fresh = [each for each in batch if started - each.written <= MAX_AGE_SECONDS]
        aged_out += len(batch) - len(fresh)
        if fresh:
            now += TIMES.seconds(len(batch)) - TIMES.post
            for pause in (*RETRY_PAUSES, 0.0):
                accepted = not begin <= now < end
                now += TIMES.post
                if accepted:
                    break
                now += pause
            else:
                visible = max(now, started + setting.visibility_timeout)
                again = [each for each in fresh if each.receives + 1 < setting.max_receives]
                dead_letters += len(fresh) - len(again)
                for _, written, receives in again:
                    heapq.heappush(queue, Message(visible, written, receives + 1))
        heapq.heappush(pollers, now)
    return aged_out, dead_letters
