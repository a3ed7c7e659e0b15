"""The load that a setting takes, and what outages of Datadog do to a steady load.

The model of outages simulates the queue (order of becoming visible, visibility timeout, receive
count) and the submitter's outcomes. The times of an invocation are measured.
"""

import heapq
import math
from typing import NamedTuple

from ddg_metric_submit import RETRY_PAUSES

STARTING_POLLERS = 5  # Lambda, services-sqs-scaling: parallel batches when a queue fills
POLLERS_PER_SECOND = 5  # the same: added while messages wait
FULL_CPU_MEGABYTES = 1_769  # Lambda, configuration-function-memory: one vCPU
MAX_AGE_SECONDS = 3_600  # Datadog's limit, and the submitter's default
LEAST_RECEIVES = 5  # main.tf: after that a message is a dead letter
NOTICE_SECONDS = 1.0  # from a file's upload to its message
STEADY = 20.0  # files a second, in the outages
CALM_SECONDS = 900  # of that load after an outage


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

    def files_per_second(self, times: Times) -> float:
        """Return the load that this setting takes."""
        return self.maximum_concurrency * self.batch_size / times.seconds(self.batch_size)

    def drain_seconds(self, times: Times, files: float) -> float:
        """Return the time a burst takes; Lambda begins with a few pollers and adds the others."""
        late = max(0, self.maximum_concurrency - STARTING_POLLERS)
        idle = late**2 / (2 * POLLERS_PER_SECOND)  # seconds of all missing pollers, added up
        return files / self.files_per_second(times) + idle / self.maximum_concurrency


class Message(NamedTuple):
    """A file's notification; the first to become visible is received first."""

    visible: float
    written: float
    receives: int = 0


class Losses(NamedTuple):
    """The files of an outage that never reach Datadog."""

    aged_out: int  # refused and kept: Datadog would have dropped them
    dead_letters: int


def play_outage(setting: Setting, minutes: float, times: Times = TIMES) -> Losses:
    """Return the losses of a steady load in an outage that begins after a minute."""
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
            now += times.seconds(len(batch)) - times.post
            for pause in (*RETRY_PAUSES, 0.0):
                accepted = not begin <= now < end
                now += times.post
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
    return Losses(aged_out, dead_letters)
