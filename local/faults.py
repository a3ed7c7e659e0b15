"""What is written in a trial, and what strikes it when: all of it drawn from one seed.

Nothing here happens by itself: local.trial carries it out, and a seed draws the same anew.
"""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import NamedTuple
from urllib.parse import quote_plus

from local.datadog_server import Answer
from local.ledger import Point
from tests.stats_files import BAD, NOW

BUCKET = "ddg-stats"
PREFIX = "stats/"
CONSTANT_TAG = "env:campaign"
START = float(NOW)  # Unix seconds by the trial's clock: when the table's bad files are read

FUNCTION_SECONDS = 30.0  # as main.tf has it, and so the next two
VISIBILITY_SECONDS = 180.0
RECEIVES = (5, 20)  # main.tf: 5 at least, and 20 for Datadog's window of an hour
OUTAGE_SECONDS = 3600.0
MEAN_PAUSE_SECONDS = 90.0  # between two looks at the queue

BAD_SHARE = 0.05  # of the files; likewise the next
TROUBLE_SHARE = 0.06
POISON = "poison."  # Datadog answers 400 to a payload with such a metric in it
SERIES_LIMIT = 12  # while Datadog answers 413 by size, a payload may hold as many series

# A file that is ahead of its time is good a little later
BAD_FILES = [bad for bad in BAD if "ahead" not in bad.problem]
# Jobs with the tag that Datadog makes of them: plain, in need of normalising, hostile
JOBS = {
    "nightly": "job:nightly",
    "Nightly Load": "job:nightly_load",
    "a+b%2Fc": "job:a_b_2fc",
    "Größe": "job:größe",
    'x"},\n{"': "job:x",
    "\x1b[31mred\u202e": "job:_31mred",
}


class Kill(StrEnum):
    """Where the function is killed."""

    ANYWHERE = "function: killed anywhere"
    IN_POST = "function: killed before Datadog took the POST"
    ACCEPTED = "function: killed after Datadog took the POST"
    ANSWERED = "function: killed after Datadog's answer"
    REFUSING = "function: killed after some refusals were kept"
    RETURNING = "function: killed when all was done but the return"
    DEADLINE = "function: killed at its deadline"  # its own fault, so never planned


class Lasting(StrEnum):
    """A trouble that lasts for a while, and strikes everything."""

    OUTAGE = "Datadog: outage, 503"
    UNREACHABLE = "Datadog: outage, connections reset"
    STORM = "Datadog: storm of 429"
    PROXY = "Datadog: 502 and HTML from a proxy"
    WRONG_KEY = "Datadog: wrong key"
    BY_SIZE = f"Datadog: 413 to more than {SERIES_LIMIT} series"
    AMBIGUOUS = "Datadog: reset after accepting, each time"
    SLOW = "Datadog: every other POST has no answer in time"
    S3_FORBIDS = "S3: 403 AccessDenied to all"
    S3_THROTTLES = "S3: 503 SlowDown to all"
    REJECTED_UNREACHABLE = "rejected queue: connections reset"
    REJECTED_FORBIDDEN = "rejected queue: 403"
    REJECTED_AMBIGUOUS = "rejected queue: 500 after keeping"


@dataclass(frozen=True)
class File:
    """A file, and what happens to it on its way."""

    key: str
    content: bytes
    points: tuple[Point, ...]  # as Datadog shall have them; none: it must be refused
    written: float  # Unix seconds, by the trial's clock
    trouble: str = ""  # one of S3_TROUBLES
    times: int = 0  # deliveries that the trouble lasts
    deleted: float = float("inf")  # when; never, as a rule
    tag: str = ""  # that all its points have, and no other's

    @property
    def poisonous(self) -> bool:
        return any(point.metric.startswith(POISON) for point in self.points)


class Notification(NamedTuple):
    """One message that reaches the queue."""

    at: float  # Unix seconds, by the trial's clock
    keys: tuple[str, ...]
    body: str
    strange: bool = False  # it names no object, and must be refused


class Window(NamedTuple):
    """A trouble that lasts."""

    trouble: Lasting
    begins: float
    ends: float


class Strike(NamedTuple):
    """What Datadog does with one POST in place of taking it."""

    names: tuple[str, ...]
    answer: Answer | None = None
    stalls: bool = False  # beyond the time that the POST has
    kills: bool = False  # the function, before it hears of an answer


class Plan(NamedTuple):
    """What strikes one invocation, but for what strikes its files."""

    pause: float  # seconds since the invocation before
    batch_size: int
    cold: bool  # a new execution environment
    seconds: float  # that it may take
    killed: Kill | None
    looks: int  # Kill.ANYWHERE: at this look at the clock
    twice: str  # the same batch again, "before" or "after" Datadog stores the first POST; or ""
    strikes: tuple[Strike | None, ...]  # by the number of the POST

    def calm(self) -> "Plan":
        """Return the plan without what strikes."""
        return self._replace(seconds=FUNCTION_SECONDS, killed=None, twice="", strikes=())


S3_TROUBLES = {  # with their weights: the timeouts take real time
    "S3: 503 SlowDown": 1.0,
    "S3: 503 SlowDown once": 1.0,
    "S3: 500 InternalError": 1.0,
    "S3: 500 InternalError once": 1.0,
    "S3: timeout": 0.4,
    "S3: timeout once": 0.4,
    "S3: reset before the answer": 1.0,
    "S3: reset in the body": 1.0,
    "S3: body ends early": 1.0,
    "S3: 403 AccessDenied": 1.0,
}

# As long as real ones. Answers tell them here, as a proxy's page may, and nobody must repeat them.
API_KEY = "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e"
APP_KEY = "ba5eba11ba5eba11ba5eba11ba5eba11ba5eba11"
WRONG_KEY = "0ff1ce0ff1ce0ff1ce0ff1ce0ff1ce00"
TALE = f"DD-API-KEY: {API_KEY}, DD-APPLICATION-KEY: {APP_KEY}"
HTML = f"<html><head><title>Bad Gateway</title></head><body>{TALE}</body></html>".encode()
BODIES = {
    "without a body": b"",
    "with a body": json.dumps({"status": "error", "errors": [TALE]}).encode(),
    "with a proxy's HTML": HTML,
}
FAILURES = (401, 402, 403, 404, 408, 429, 500, 502, 503, 504)

NO_ANSWER = Strike(("Datadog: no answer in time",), Answer(delay=60.0), stalls=True)


def all_strikes(elsewhere: str) -> list[Strike]:
    """Return all that can become of a POST; elsewhere is where redirects lead."""
    failures = [
        Strike((f"Datadog: {status}", f"Datadog: an error {name}"), Answer(status, body))
        for status in FAILURES
        for name, body in BODIES.items()
    ]
    redirects = [
        Strike(("Datadog: 3xx",), Answer(status, b"", {"Location": elsewhere}))
        for status in (301, 302, 303, 307, 308)
    ]
    accepted = [
        Strike(("Datadog: 2xx but 202",), Answer(200, accept=True)),
        Strike(("Datadog: 2xx but 202",), Answer(204, b"", accept=True)),
        Strike(("Datadog: 202 without a body",), Answer(202, b"", accept=True)),
        Strike(("Datadog: 202 and HTML",), Answer(202, HTML, accept=True)),
        Strike(("Datadog: 202 and errors",), Answer(202, b'{"errors": []}', accept=True)),
        Strike(("Datadog: 202 and a slow body",), Answer(202, accept=True, body_delay=5.0)),
        Strike(("Datadog: 500 after accepting",), Answer(500, b"", accept=True)),
    ]
    broken = [
        Strike(("Datadog: reset before accepting",), Answer(reset=True)),
        Strike(("Datadog: reset after accepting",), Answer(accept=True, reset=True)),
        Strike(("Datadog: slow headers, in time",), Answer(accept=True, delay=0.03)),
        Strike(("Datadog: an error and a slow body",), Answer(503, HTML, body_delay=0.03)),
        NO_ANSWER,
        Strike(("Datadog: no answer in time, accepted",), Answer(accept=True, delay=60.0), True),
    ]
    return failures + 3 * redirects + 3 * accepted + 5 * broken


@dataclass(frozen=True)
class Schedule:
    """A whole trial, before it begins."""

    seed: int
    files: Mapping[str, File]  # by key
    notifications: Sequence[Notification]  # as they arrive
    windows: Sequence[Window]
    max_receives: int
    secret: bool  # the function has its key from a secret
    debug: bool  # and tells all that it can
    ends: float  # Unix seconds, by the trial's clock

    def plan(self, number: int) -> Plan:
        """Draw what strikes the invocation of this number."""
        random = Random(f"plan {self.seed} {number}")
        strikes = all_strikes("/elsewhere")
        return Plan(
            pause=random.uniform(1.0, 2 * MEAN_PAUSE_SECONDS),
            batch_size=random.choice((10, 100, 100, 1000)),
            cold=random.random() < 0.08,
            seconds=random.choice((0.5, 2.0, 12.0)) if random.random() < 0.08 else FUNCTION_SECONDS,
            killed=random.choice([*Kill][:-1]) if random.random() < 0.12 else None,
            looks=int(100 ** random.random()),
            twice=random.choice(("before", "after")) if random.random() < 0.05 else "",
            strikes=tuple(
                random.choice(strikes) if random.random() < 0.25 else None for _ in range(8)
            ),
        )

    def story(self) -> Iterator[str]:
        """Yield a line for each trouble that lasts."""
        yield f"{self.max_receives} receives, key from a secret: {self.secret}"
        for window in sorted(self.windows, key=lambda window: window.begins):
            begins, ends = window.begins - START, window.ends - START
            yield f"t+{begins:6.0f} s  to t+{ends:.0f} s: {window.trouble}"

    def lasting(self, now: float) -> set[Lasting]:
        """Return the troubles that last at a time."""
        return {window.trouble for window in self.windows if window.begins <= now < window.ends}


def draw_schedule(seed: int, files: int, hours: float) -> Schedule:
    """Draw a trial of that many files, written over as many hours of its own clock."""
    random = Random(f"schedule {seed}")
    seconds = 3600 * hours
    drawn = [draw_file(random, number, seconds * number / files) for number in range(files)]
    notifications = sorted(draw_notifications(random, drawn))
    return Schedule(
        seed=seed,
        files={file.key: file for file in drawn},
        notifications=notifications,
        windows=draw_windows(random, seconds),
        max_receives=random.choice(RECEIVES),
        secret=seed % 2 == 0,
        debug=seed % 4 in (1, 2),
        ends=max(START + seconds, notifications[-1].at),
    )


def draw_file(random: Random, number: int, after: float) -> File:
    """Draw a file; its number makes its key, and its points, no other file's."""
    written = START + after
    job, tag = random.choice(list(JOBS.items()))
    key = f"{PREFIX}{job}/{number}-{random.choice(('a b', 'ü', 'x+y', '%2B', 'z'))}.json"
    if random.random() < BAD_SHARE:
        return File(key, random.choice(BAD_FILES).content, (), written)
    old = random.uniform(3300, 3600) if random.random() < 0.03 else 0.0  # soon to be too old
    content, points = draw_content(random, number, int(written - old), tag)
    [trouble] = random.choices([*S3_TROUBLES], [*S3_TROUBLES.values()])
    if random.random() > TROUBLE_SHARE:
        trouble = ""
    deleted = written + random.uniform(0, 300) if random.random() < 0.01 else float("inf")
    return File(
        key, content, points, written, trouble, random.randint(1, 3), deleted, f"file:{number}"
    )


def draw_content(
    random: Random, number: int, now: int, job_tag: str
) -> tuple[bytes, tuple[Point, ...]]:
    """Draw a good file in one of the shapes that are allowed, and its points."""
    names = [f"m{number % 50}.{name}" for name in ("rows", "Rows_read", "seconds")]
    if random.random() < 0.008:
        names.append(f"{POISON}{number}")
    if random.random() < 0.01:
        names += [f"wide{number % 3}.n{n}" for n in range(300)]
    tags = (["batch:" + "xyz"[number % 3], "Team Data"], []) if random.random() < 0.2 else ([],)
    objects, points = [], []
    for written_tags in tags:
        # The number is in the second, so that no two files have a point in common.
        for second in random.sample(range(now - 60, now + 1), random.randint(1, 3)):
            values = {name: random.choice(VALUES)(random) for name in names}
            objects.append({"timestamp": second, "tags": written_tags, **values})
            stored = {job_tag, CONSTANT_TAG, f"file:{number}"}
            stored |= {tag.lower().replace(" ", "_") for tag in written_tags}
            objects[-1]["tags"] = [*written_tags, f"File:{number}"]
            points += [
                Point(name, tuple(sorted(stored)), second, float(value))
                for name, value in values.items()
            ]
    return draw_shape(random, objects), tuple(points)


VALUES = (
    lambda random: random.randint(-1000, 10**9),
    lambda random: random.uniform(-1, 1),
    lambda random: random.choice((0, -0.0, 1e-300, 1.5e300, 2**63)),
)


def draw_shape(random: Random, objects: Sequence[Mapping[str, object]]) -> bytes:
    """Write objects as an object, an array or lines, plain or compressed."""
    if len(objects) == 1 and random.random() < 0.8:
        text = json.dumps(objects[0], indent=random.choice((None, 2)))
    elif random.random() < 0.5:
        text = json.dumps(objects)
    else:
        text = "\n".join(map(json.dumps, objects))
    content = (random.choice(("", "", "\ufeff")) + text).encode()
    return gzip.compress(content, mtime=0) if random.random() < 0.3 else content


def draw_notifications(random: Random, files: Sequence[File]) -> Iterator[Notification]:
    """Draw the messages: some late, some twice, some with several records, some without any."""
    waiting: list[File] = []
    for file in files:
        waiting.append(file)
        if len(waiting) < 3 and random.random() < 0.06:
            continue  # it shares a message with the next one
        for _ in range(2 if random.random() < 0.03 else 1):
            late = 900.0 if random.random() < 0.03 else 8.0
            at = file.written + random.uniform(0.5, late)
            keys = tuple(each.key for each in waiting)
            yield Notification(at, keys, s3_notification(random, keys))
        waiting.clear()
        if random.random() < 0.005:
            body = random.choice(STRANGE_BODIES) + f"{random.random()}"
            yield Notification(file.written, (), body, strange=True)
        if random.random() < 0.002:
            event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}
            yield Notification(file.written, (), json.dumps(event))
    if waiting:
        keys = tuple(each.key for each in waiting)
        yield Notification(waiting[-1].written + 1, keys, s3_notification(random, keys))


STRANGE_BODIES = ("hello ", '{"Records": []} ', "\U0001f4a3 \r\n ", "[" * 2000)


def s3_notification(random: Random, keys: Sequence[str]) -> str:
    """Return S3's message about these objects; no two are the same.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    records = [
        {
            "eventVersion": random.choice(("2.1", "2.6")),
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": {"name": BUCKET},
                "object": {
                    "key": quote_plus(key, safe="/"),
                    "sequencer": f"{random.getrandbits(64):016X}",
                },
            },
        }
        for key in keys
    ]
    return json.dumps({"Records": records})


def draw_windows(random: Random, seconds: float) -> list[Window]:
    """Draw troubles that last; in every other trial Datadog is out for an hour."""
    windows = []
    for trouble in random.sample([*Lasting], 7):
        begins = START + random.uniform(0, seconds)
        windows.append(Window(trouble, begins, begins + random.uniform(60, 600)))
    if random.random() < 0.5:
        begins = START + random.uniform(0, max(seconds - OUTAGE_SECONDS, 0))
        windows.append(Window(Lasting.OUTAGE, begins, begins + OUTAGE_SECONDS))
    return windows
