"""A queueing model of the pipeline: what bursts and outages do to files, for each setting.

The model is of the event source mapping, the queue and the submitter's outcomes; what an invocation
takes is measured. SQS's order is the order of becoming visible; S3's notifications come at once.
"""

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import simpy

from ddg_metric_submit import RETRY_PAUSES

STARTING_POLLERS = 5  # Lambda, services-sqs-scaling: batches at the same time, when a queue fills
POLLERS_A_MINUTE = 300  # the same: added as long as messages wait
MAX_IN_FLIGHT = 120_000  # SQS: received and neither deleted nor visible again
MAX_AGE_SECONDS = 3_600  # what Datadog takes, and the submitter's default
LEAST_RECEIVES = 5  # main.tf: what isn't submitted by then is a dead letter
SAMPLES = 400  # of a run's course


class Setting(NamedTuple):
    """The variables of the stack that matter here."""

    maximum_concurrency: int = 5
    batch_size: int = 10
    visibility_timeout: float = 180.0  # seconds

    @property
    def max_receives(self) -> int:
        """Return how often a message is received at most, as main.tf has it."""
        return max(LEAST_RECEIVES, math.ceil(MAX_AGE_SECONDS / self.visibility_timeout))


class Service(NamedTuple):
    """What an invocation takes, in seconds."""

    alone: float  # with a single file
    a_file: float  # each further one
    post: float  # of it the POST, which comes last

    def seconds(self, files: int) -> float:
        return self.alone + self.a_file * (files - 1)

    def tries(self, files: int) -> Iterator[tuple[float, float]]:
        """Yield when each POST of an outage is sent and answered, from the invocation's start."""
        answered = self.seconds(files)
        yield answered - self.post, answered
        for pause in RETRY_PAUSES:
            answered += pause + self.post
            yield answered - self.post, answered


class Load(NamedTuple):
    """What happens: seconds from the beginning."""

    burst: int = 0  # files at second 0
    rate: float = 0.0  # files a second
    until: float = 0.0  # the last of them
    peak_rate: float = 0.0  # files a second, in place of `rate`
    peak: tuple[float, float] = (0.0, 0.0)
    outage: tuple[float, float] = (0.0, 0.0)  # of Datadog
    notice: float = 0.0  # from a file's being written to its message's being there

    def rate_at(self, now: float) -> float:
        return self.peak_rate if self.peak[0] <= now < self.peak[1] else self.rate


@dataclass
class Message:
    """A file's notification."""

    written: float
    receives: int = 0


class Moment(NamedTuple):
    """The queue at one time."""

    at: float
    waiting: int  # visible or in flight
    oldest: float  # seconds
    invocations: int  # running


@dataclass
class Course:
    """What became of all files."""

    files: int = 0
    submitted: int = 0
    aged_out: int = 0  # refused and kept: Datadog would have dropped them
    dead_letters: int = 0
    invocations: int = 0
    max_age: float = 0.0  # of a submitted file, when Datadog had it
    drained: float = 0.0  # when the last file had its outcome
    most_in_flight: int = 0
    moments: list[Moment] = field(default_factory=list)


class _Model:
    """One run."""

    def __init__(self, setting: Setting, service: Service, load: Load) -> None:
        self.setting, self.service, self.load = setting, service, load
        self.env = simpy.Environment()
        self.visible: deque[Message] = deque()
        self.idle: deque[simpy.Event] = deque()
        self.pollers = self.running = self.in_flight = 0
        self.course = Course()

    def run(self, sample_every: float) -> Course:
        self.env.process(self.arrive())
        self.env.process(self.scale())
        self.env.process(self.observe(sample_every))
        self.env.run()
        return self.course

    def done(self) -> bool:
        """Tell whether nothing waits and nothing more comes."""
        course = self.course
        outcomes = course.submitted + course.aged_out + course.dead_letters
        return self.env.now >= self.load.until and outcomes == course.files

    def put(self, messages: Sequence[Message]) -> None:
        """Make messages visible, and wake a poller for each batch of them."""
        self.visible.extend(messages)
        for _ in range(math.ceil(len(messages) / self.setting.batch_size)):
            if self.idle:
                self.idle.popleft().succeed()

    def arrive(self) -> Generator[simpy.Event, None, None]:
        """Let the files come."""
        self.course.files += self.load.burst
        self.put([Message(-self.load.notice) for _ in range(self.load.burst)])
        while self.load.rate and self.env.now < self.load.until:
            yield self.env.timeout(1 / self.load.rate_at(self.env.now))
            self.course.files += 1
            self.put([Message(self.env.now - self.load.notice)])

    def scale(self) -> Generator[simpy.Event, None, None]:
        """Add pollers while messages wait; an idle one costs nothing, so none is taken away."""
        while not self.done():
            at_once = STARTING_POLLERS if self.pollers == 0 else 1
            for _ in range(min(at_once, self.setting.maximum_concurrency - self.pollers)):
                self.pollers += 1
                self.env.process(self.poll())
            if self.pollers == self.setting.maximum_concurrency:
                return
            yield self.env.timeout(60 / POLLERS_A_MINUTE)
            while not self.visible and not self.done():
                yield self.env.timeout(1)

    def poll(self) -> Generator[simpy.Event, None, None]:
        """Take batches, and let the function have them."""
        while True:
            batch = self.receive()
            if not batch:
                self.idle.append(self.env.event())
                yield self.idle[-1]
                continue
            self.running += 1
            yield from self.invoke(batch)
            self.running -= 1

    def receive(self) -> list[Message]:
        room = MAX_IN_FLIGHT - self.in_flight
        size = min(self.setting.batch_size, len(self.visible), room)
        batch = [self.visible.popleft() for _ in range(size)]
        self.in_flight += size
        self.course.most_in_flight = max(self.course.most_in_flight, self.in_flight)
        return batch

    def invoke(self, batch: list[Message]) -> Generator[simpy.Event, None, None]:
        """Submit a batch, or leave it to the visibility timeout where Datadog is out."""
        started = self.env.now
        self.course.invocations += 1
        for message in batch:
            message.receives += 1
        fresh = [each for each in batch if started - each.written <= MAX_AGE_SECONDS]
        submitted, seconds = self.post(started, len(batch)) if fresh else (True, 0.0)
        yield self.env.timeout(seconds)
        self.course.aged_out += len(batch) - len(fresh)
        self.in_flight -= len(batch) - len(fresh)
        if submitted:
            self.course.submitted += len(fresh)
            self.in_flight -= len(fresh)
            ages = [self.env.now - each.written for each in fresh]
            self.course.max_age = max(self.course.max_age, *ages, 0.0)
        else:
            over = started + self.setting.visibility_timeout
            self.env.process(self.come_back(fresh, max(0.0, over - self.env.now)))
        if submitted or len(fresh) < len(batch):
            self.course.drained = self.env.now

    def post(self, started: float, files: int) -> tuple[bool, float]:
        """Return whether Datadog took a batch, and after how many seconds that is known."""
        begin, end = self.load.outage
        answered = 0.0
        for sent, answered in self.service.tries(files):
            if not begin <= started + sent < end:
                return True, answered
        return False, answered

    def come_back(self, batch: list[Message], seconds: float) -> Generator[simpy.Event, None, None]:
        """Make a batch visible again, but for what was received too often."""
        yield self.env.timeout(seconds)
        self.in_flight -= len(batch)
        back = [each for each in batch if each.receives < self.setting.max_receives]
        self.course.dead_letters += len(batch) - len(back)
        if len(back) < len(batch):
            self.course.drained = self.env.now
        self.put(back)

    def observe(self, every: float) -> Generator[simpy.Event, None, None]:
        """Note the queue's state from time to time, until all files have their outcome."""
        course = self.course
        while True:
            now = self.env.now
            waiting = course.files - course.submitted - course.aged_out - course.dead_letters
            oldest = now - min((each.written for each in self.visible), default=now)
            course.moments.append(Moment(now, waiting, oldest, self.running))
            if self.done():
                return
            yield self.env.timeout(every)


def simulate(setting: Setting, service: Service, load: Load, sample_every: float = 10.0) -> Course:
    """Return what becomes of a load's files; it ends when each has its outcome."""
    return _Model(setting, service, load).run(sample_every)


def lost(setting: Setting, service: Service, rate: float, seconds: float) -> tuple[int, int]:
    """Return how many files of a steady load an outage makes age out, and be given up."""
    course = simulate(setting, service, outage_load(rate, seconds), 600.0)
    return course.aged_out, course.dead_letters


def shortest_outage_that_costs(setting: Setting, service: Service, rate: float) -> float:
    """Return the seconds, to a minute, from which on an outage makes files age out."""
    low, high = 30, 90  # minutes: the first costs nothing, the second does
    while high - low > 1:
        middle = (low + high) // 2
        if any(lost(setting, service, rate, 60.0 * middle)):
            high = middle
        else:
            low = middle
    return 60.0 * high


def outage_load(rate: float, seconds: float) -> Load:
    """Return a steady load, an outage that begins after a minute, and some time after it."""
    return Load(rate=rate, until=60 + seconds + 900, outage=(60, 60 + seconds), notice=1.0)
