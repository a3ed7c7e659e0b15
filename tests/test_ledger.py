"""The ledger: whatever strikes, every file is where it must be, and there is a reason why.

A hypothesis state machine writes files, delivers their messages, lets faults strike, kills the
function and lets time pass. It knows the handler from outside alone: its environment, SQS's event,
what it answers, and the requests that reach S3, SQS and Datadog. After each step it closes the
books. In the end it calms everything, and then no file may wait any longer.

`make soak` tells more stories: STORIES says how many.
"""

import contextlib
import gzip
import io
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unittest import mock

import botocore.loaders
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_state_machine

from local.ledger import Point
from tests.events import Context, notification, sqs_event, sqs_record
from tests.faulty_services import (
    API_KEY,
    APP_KEY,
    LASTING,
    MOMENTS,
    OBJECTS,
    POSTS,
    UNHEARD,
    WRONG_KEY,
    Environment,
    File,
    Invocation,
    Message,
    World,
)

STORIES = int(os.environ.get("STORIES", "4"))
MAX_AGE = 3600  # seconds, like the next two, which are main.tf's
FUNCTION_SECONDS = 30.0
VISIBILITY_SECONDS = 180
POLL_SECONDS = 5
AWS_MODELS = botocore.loaders.create_loader()  # a tenth of a second to read at each cold start

# Why a file may be in two places; docs/reliability.md says more
TWICE, REFUSED_UNHEARD, CUT = "notified twice", "its refusal unheard", "posted in parts"
CAUSES = {
    ("submitted", "refused"): {TWICE, UNHEARD, CUT},
    ("submitted", "waiting"): {TWICE, UNHEARD},
    ("refused", "waiting"): {TWICE, REFUSED_UNHEARD},
}
TALLY: Counter[str] = Counter()  # what `make soak` tells


# --- Files ---

JOBS = {"nightly": "job:nightly", "Nightly Load": "job:nightly_load", "a+b%2Fü": "job:a_b_2fü"}
GOOD = ("object", "lines", "array", "gzip", "padded", "old", "wide", "poison")
BAD = {
    "not JSON": b"oops",
    "empty": b"",
    "no timestamp": b'{"m": 1}',
    "a string": b'{"timestamp": %d, "m": "12"}',
    "a name that Datadog rewrites": b'{"timestamp": %d, "a__b": 1}',
    "half of it good": b'{"timestamp": %d, "m": 1}\n{"timestamp": 1}',
    "broken gzip": gzip.compress(b"{}")[:-3],
}
MARKERS = {"_SUCCESS": b'{"committer": "magic"}', "_started": b"", "x_$folder$": b"", "": b""}
STRANGE = {"text": "hello ", "no record": '{"Records": []}', "brackets": "[" * 2000}
TEST_EVENT = '{"Service": "Amazon S3", "Event": "s3:TestEvent"}'
KINDS = [*GOOD, *GOOD, *BAD, *MARKERS, *STRANGE, "test event"]
KINDS += ["bulky"] if STORIES > 8 else []  # two of them take two payloads, and a second


def make_file(number: int, kind: str, job: str, now: int) -> File:
    """Return a file of a kind; its number is a tag of all its points, and of no other's."""
    key = f"stats/{job}/{number}.json"
    if kind in MARKERS:
        return File(f"{key}/{kind}", MARKERS[kind], marker=True)
    if kind in BAD:
        return File(key, BAD[kind].replace(b"%d", str(now).encode()), refusable=True)
    long = [f"t{n}:{'x' * 190}" for n in range(20)] if kind == "bulky" else []  # 4 KB a series
    metrics = {"wide": 30, "bulky": 700}.get(kind, 2)
    values = {f"m{n}.Rows_read": (number + n, -n / 7, 2**53, 1e-300)[n % 4] for n in range(metrics)}
    values |= {f"poison.{number}": 1} if kind == "poison" else {}
    seconds = [now - 3590] if kind == "old" else [now] if kind == "bulky" else [now - 1, now]
    objects = [{"timestamp": at, "tags": [f"File:{number}", *long], **values} for at in seconds]
    text = json.dumps(objects[0] if len(objects) == 1 else objects)
    if kind == "lines":
        text = "\ufeff" + "\n".join(map(json.dumps, objects))
    content = text.encode() + b" " * (300_000 if kind == "padded" else 0)
    tags = tuple(sorted([f"file:{number}", *long, JOBS[job], "env:test"]))
    points = (Point(name, tags, at, float(values[name])) for at in seconds for name in values)
    return File(key, gzip.compress(content) if kind == "gzip" else content, frozenset(points))


# --- The machine ---


def often(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for what is usual in every other case."""
    return st.one_of(st.just(usual), st.sampled_from(others))


FILES: dict[str, Any] = {
    "kinds": st.lists(st.sampled_from(KINDS), min_size=2, max_size=8),
    "job": st.sampled_from([*JOBS]),
    "together": st.booleans(),
    "notifications": often(1, 2),
    "fault": often("", *OBJECTS),
    "times": st.integers(1, 7),
}
FAULTS = st.one_of(
    [st.tuples(st.just(where), st.sampled_from([*LASTING[where]])) for where in LASTING]
)
DELIVERY = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.just(1),  # message
        "seconds": st.sampled_from((0.5, 2.0, 6.0)),  # that are left to the function
        "posts": st.lists(often("", *POSTS), min_size=1, max_size=4),  # what becomes of them
        "fault": FAULTS,
        "kill": st.tuples(st.sampled_from(MOMENTS), st.integers(1, 30)),
    },
)


class Ledger(RuleBasedStateMachine):
    """A bucket, a queue with its dead-letter queue, a rejected queue, and the books of them all."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(tally=TALLY)
        self.clock, self.files = self.world.clock, self.world.files
        self.queue: list[Message] = []  # dead letters too
        self.sent: dict[str, Message] = {}  # all that there ever were, by body
        self.environment: Environment | None = None
        self.said = io.StringIO()  # printed and logged
        ear = logging.StreamHandler(self.said)
        logging.getLogger().addHandler(ear)
        self.surroundings = contextlib.ExitStack()
        self.surroundings.callback(logging.getLogger().removeHandler, ear)
        self.surroundings.enter_context(mock.patch.dict(os.environ))
        doubles: dict[str, Any] = {
            **self.clock.doubles,
            "botocore.session.create_loader": lambda *_: AWS_MODELS,
            "gc.freeze": lambda: None,  # else no environment's memory would ever be freed
        }
        for target, double in doubles.items():
            self.surroundings.enter_context(mock.patch(target, double))

    @initialize(
        secret=st.booleans(), debug=st.booleans(), receives=st.sampled_from((5, 20)), **FILES
    )
    def begin(self, secret: bool, debug: bool, receives: int, **files: Any) -> None:
        """Choose the function's settings and its queue's, and write the first files."""
        arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog"
        os.environ |= {
            "CONSTANT_TAGS": "env:test",
            "DATADOG_API_KEY_SECRET_ARN": arn if secret else "",
            "DATADOG_APP_KEY": APP_KEY,
            "LOG_LEVEL": "DEBUG" if debug else "INFO",
            "MAX_AGE_SECONDS": f"{MAX_AGE}",
        }
        self.secret, self.receives = secret, receives
        self.put(**files)

    @rule(delivery=DELIVERY, **FILES)
    def write(self, delivery: dict[str, Any], **files: Any) -> None:
        """Write files, the first of which S3 has trouble with, and notify of them."""
        self.put(**files)
        self.invoke(**delivery)

    def put(
        self,
        kinds: Sequence[str],
        job: str,
        together: bool,
        notifications: int,
        fault: str,
        times: int,
    ) -> None:
        """Write files; they have a message together, or one each."""
        files: list[File] = []
        for kind in kinds:
            if kind in STRANGE or kind == "test event":
                self.send(STRANGE.get(kind, TEST_EVENT), [], strange=kind in STRANGE)
                continue
            number = len(self.files)
            files.append(make_file(number, kind, job, int(self.clock.now)))
            self.files[files[-1].key] = self.world.tagged[f"file:{number}"] = files[-1]
            files[-1].causes |= {TWICE} if notifications > 1 else set()
        for file in files[:1] if fault else []:
            file.fault, file.times = fault, times
        for group in notifications * ([files] if together else [[file] for file in files]):
            if group:
                self.send(notification(file.key for file in group), group)

    def send(self, body: str, files: Sequence[File], strange: bool = False) -> None:
        """Send a message; no two bodies are the same."""
        message = Message(body + " " * len(self.sent), files, self.clock.now, strange)
        self.queue.append(message)
        self.sent[message.body] = message

    @rule(which=st.integers(0, 99))
    def delete(self, which: int) -> None:
        for file in [*self.files.values()][which:][:1]:
            file.deleted = file.refusable = True

    @rule(fault=FAULTS, deliveries=st.integers(1, 6), delivery=DELIVERY)
    def strike(self, fault: tuple[str, str], deliveries: int, delivery: dict[str, Any]) -> None:
        """Let a fault strike this and the next deliveries."""
        self.world.faults[fault[0]] = fault[1], deliveries
        self.invoke(**delivery)

    @rule(seconds=st.sampled_from((10, 1000, 3000)), delivery=DELIVERY)
    def let_time_pass(self, seconds: int, delivery: dict[str, Any]) -> None:
        self.clock.now += seconds
        self.invoke(**delivery)

    @rule(delivery=DELIVERY)
    def redrive(self, delivery: dict[str, Any]) -> None:
        """Move the dead letters back, as someone does when the cause is gone."""
        for message in self.queue:
            if message.dead:
                message.dead, message.receives, message.visible = False, 0, self.clock.now
        self.invoke(**delivery)

    def invoke(
        self,
        limit: int = 100,
        seconds: float = FUNCTION_SECONDS,
        posts: Sequence[str] = (),
        fault: tuple[str, str] = ("", ""),
        kill: tuple[str, int] = ("", 0),
    ) -> None:
        """Hand the function a batch; delete what it doesn't leave in the queue."""
        self.clock.now += POLL_SECONDS
        self.world.faults.setdefault(fault[0], (fault[1], 1))
        if self.environment and self.environment.key != self.world.key and not self.secret:
            self.end_environment()  # a new setting makes a new environment
        batch = self.receive(limit)
        if not batch:
            return
        environment = self.environment = self.environment or Environment(self.world)
        invocation = environment.invocation = Invocation(batch, posts, kill)
        invocation.rushed = seconds < FUNCTION_SECONDS
        deadline, answer = self.clock.now + seconds, None
        records = [sqs_record(body=each.body, receive_count=each.receives) for each in batch]
        self.clock.silences = 0
        self.said.seek(0)
        self.said.truncate()
        try:
            with contextlib.redirect_stdout(self.said):
                answer = environment.handler(sqs_event(records), Context(seconds))
        except ValueError:  # the secret can't be read
            assert invocation.over or (self.secret and seconds < FUNCTION_SECONDS)
        killed = invocation.over or kill == ("return", 1)
        invocation.over = True
        self.world.pass_delivery()
        left = batch
        if answer and not killed:
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            pairs = zip(batch, records, strict=True)
            left = [message for message, record in pairs if record["messageId"] in failed]
        for message in left:
            for file in message.files:
                file.causes |= {UNHEARD} if invocation.taken[file] else set()
                file.causes |= {REFUSED_UNHEARD} if message.body in invocation.kept else set()
        self.queue = [each for each in self.queue if each not in batch or each in left]
        refused = self.check_rejected(invocation)
        TALLY.update(deliveries=1, POSTs=invocation.moments["POST"])
        if killed:
            TALLY[f"killed: {kill[0]}"] += 1
            self.end_environment()
            return
        assert self.clock.now <= deadline, "Lambda had to end the function"
        assert not any(key in self.said.getvalue() for key in (API_KEY, APP_KEY, WRONG_KEY))
        assert "Traceback" not in self.said.getvalue()
        if answer:
            self.check_answer(invocation, left, refused)

    def receive(self, limit: int) -> list[Message]:
        """Take visible messages, and hide them; one received too often is a dead letter."""
        visible = [m for m in self.queue if m.visible <= self.clock.now and not m.dead]
        for message in visible:
            message.dead = message.receives == self.receives
        batch = [message for message in visible if not message.dead][:limit]
        for message in batch:
            message.receives += 1
            message.visible = self.clock.now + VISIBILITY_SECONDS
        return batch

    def end_environment(self) -> None:
        """End the process: the next delivery is a cold start."""
        if self.environment:
            self.environment.end()
        self.environment = None

    # --- The books ---

    def check_rejected(self, invocation: Invocation) -> dict[Message, set[File]]:
        """See whether what was kept in the rejected queue belongs there; return what is refused."""
        refused: dict[Message, set[File]] = {}
        while self.world.rejected:
            rejected = self.world.rejected.pop()
            message, reason = self.sent[rejected.body], rejected.attributes["reason"]
            message.kept = True
            alone = len(message.files) == 1
            files = {file for file in message.files if alone or file.key in reason}
            assert files or message.strange, f"{message.body!r} is kept for nothing: {reason}"
            assert not any(key in f"{rejected.attributes}" for key in (API_KEY, APP_KEY, WRONG_KEY))
            for file in files:
                file.refused = True
                file.causes |= {CUT} if rejected.invocation.taken[file] else set()
                if message not in rejected.invocation.batch:
                    file.causes.add(REFUSED_UNHEARD)
                age = rejected.at - min(
                    (point.second for point in file.points), default=rejected.at
                )
                good = not file.refusable and age <= MAX_AGE
                assert not good, f"{file.key!r} is a good file, and was refused: {reason}"
            if rejected.invocation is invocation:
                refused[message] = files
        return refused

    def check_answer(
        self, invocation: Invocation, left: Sequence[Message], refused: dict[Message, set[File]]
    ) -> None:
        """See whether what the function says of a batch is what others saw."""
        for body, times in invocation.confirmed.items():  # later a thread left behind may be late
            assert times == 1 or self.sent[body].receives > 1, f"{body!r} was kept twice in vain"
        named = Counter(file for message in invocation.batch for file in message.files)
        counts = Counter[str]()
        for message in invocation.batch:
            files, kept = {*message.files}, message.body in invocation.confirmed
            bad = refused.get(message, set())
            good = {f for f in files if f.points and invocation.told[f] >= f.points} - bad
            markers = {file for file in files if file.marker}
            counts["Submitted"] += len(good)
            counts["Refused"] += kept * (len(bad) + message.strange)
            counts["named"] += len(files) + message.strange
            counts["markers"] += len(markers)
            if message not in left:
                assert files == good | bad | markers, f"{message.body!r} is gone"
                assert kept >= message.strange, f"{message.body!r} is gone"
            elif not invocation.rushed:
                assert not kept, f"{message.body!r} was kept as refused, and left in the queue"
                submitted = bool(files) and files == good and all(named[f] == 1 for f in files)
                assert not submitted, f"{message.body!r} was submitted, and left in the queue"
        if max(named.values(), default=1) == 1 and not invocation.rushed:
            summary = json.loads(self.said.getvalue().splitlines()[-1])
            assert {name: summary[name] for name in ("Submitted", "Refused")} == {
                name: counts[name] for name in ("Submitted", "Refused")
            }
            total = summary["Submitted"] + summary["Refused"] + summary["Retried"]
            assert counts["named"] - counts["markers"] <= total <= counts["named"]

    @invariant()
    def books_add_up(self) -> None:
        """Each file is somewhere, in two places for a cause alone, and no point is wrong."""
        assert not self.world.dropped
        kept = {
            Point(metric, tags, second, value)
            for (metric, tags), points in [*self.world.stored.items()]
            for second, value in [*points.items()]
        }
        waiting = {file for message in self.queue for file in message.files}
        for file in self.files.values():
            here = kept & file.points
            there = {"submitted": here, "refused": file.refused, "waiting": file in waiting}
            places = [place for place in there if there[place]]
            told = f"{file.key!r} is {places}, {len(here)} of its {len(file.points)} points are"
            whole = bool(here) and here == file.points
            assert whole or file.marker or {*places} - {"submitted"}, f"lost: {told}"
            for pair in itertools.combinations(places, 2):
                assert CAUSES[pair] & file.causes, f"for no cause: {told}; {file.causes}"
        for message in self.sent.values():
            assert not message.strange or message.kept or message in self.queue, message.body
        wrong = kept.difference(*(file.points for file in self.files.values()))
        assert not wrong, f"Datadog has what no file has: {wrong}"

    def teardown(self) -> None:
        """Calm everything and redrive: nothing waits any longer."""
        try:
            self.world.faults.clear()
            for file in self.files.values():
                file.times = 0
            for _ in range(6):
                self.clock.now += VISIBILITY_SECONDS
                self.redrive({})
            self.books_add_up()
            assert not self.queue, "something waits in the calm"
        finally:
            TALLY["files"] += len(self.files)
            self.end_environment()
            self.surroundings.close()


@pytest.mark.parametrize(
    "fault", [(where, what) for where in LASTING for what in LASTING[where]], ids=" ".join
)
def test_each_fault_alone(fault: tuple[str, str]) -> None:
    """It strikes a good file and a bad one, each in a batch of its own, and lasts for a while."""
    ledger = Ledger()
    try:
        files = {"kinds": ["wide", "not JSON"], "job": "nightly", "together": False}
        ledger.begin(True, True, 20, **files, notifications=1, fault="", times=0)
        for _ in range(6):
            ledger.strike(fault, 1, {"limit": 1})
            ledger.books_add_up()
            ledger.clock.now += VISIBILITY_SECONDS / 2
    finally:
        ledger.teardown()


# Threads that the function has left behind draw random numbers too
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.parametrize("number", range(STORIES))
def test_books_add_up(number: int) -> None:
    """A number tells the same stories each time: the simplest that there is, and two others."""
    run_state_machine(
        seed(number)(Ledger),
        settings=settings(
            max_examples=3,
            stateful_step_count=50,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[*HealthCheck],
        ),
    )
    if number == STORIES - 1:
        print("\n".join(f"{count:9,} {name}" for name, count in sorted(TALLY.items())))
