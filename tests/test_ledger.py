"""The ledger: whatever fails, every file is accounted for.

A hypothesis state machine writes files, delivers their messages, makes services fail, kills the
function and lets time pass. It knows the handler only from outside: its environment, SQS's event,
its answer, and the requests that reach S3, SQS and Datadog. After each step it closes the books. In
the end it repairs everything, and then no message may wait any longer.

`make soak` tells more stories; STORIES says how many.
"""

import contextlib
import gzip
import io
import json
import logging
import os
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
    APP_KEY,
    FAULTS,
    MOMENTS,
    SECRETS,
    SERIES_LIMIT,
    TALLY,
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
MAX_RECEIVES = 5
AWS_MODELS = botocore.loaders.create_loader()  # a tenth of a second to read at each cold start

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
        return File(number, f"{key}/{kind}", MARKERS[kind], marker=True)
    if kind in BAD:
        return File(number, key, BAD[kind].replace(b"%d", b"%d" % now), refusable=True)
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
    points = frozenset(
        Point(name, tags, at, float(values[name])) for at in seconds for name in values
    )
    return File(number, key, gzip.compress(content) if kind == "gzip" else content, points)


def often(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for what is usual in every other case."""
    return st.one_of(st.just(usual), st.sampled_from(others))


WRITTEN: dict[str, Any] = {
    "kinds": st.lists(st.sampled_from(KINDS), min_size=2, max_size=8),
    "job": st.sampled_from([*JOBS]),
    "together": st.booleans(),
    "notifications": often(1, 2),
}
DELIVERY = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.just(1),  # message
        "seconds": st.sampled_from((0.5, 2.0, 6.0)),  # that are left to the function
        "kill": st.tuples(st.sampled_from(MOMENTS), st.integers(1, 30)),
    },
)
FAULT = st.one_of(
    [
        st.tuples(st.just(service), st.lists(often("", *FAULTS[service]), min_size=1, max_size=4))
        for service in FAULTS
    ]
)


class Ledger(RuleBasedStateMachine):
    """A queue with its dead-letter queue, and the books of all that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.clock, self.files = self.world.clock, self.world.files
        self.queue: list[Message] = []  # with dead letters
        self.environment: Environment | None = None
        self.said = io.StringIO()  # printed and logged
        ear = logging.StreamHandler(self.said)
        logging.getLogger().addHandler(ear)
        self.surroundings = contextlib.ExitStack()
        self.surroundings.callback(logging.getLogger().removeHandler, ear)
        doubles: dict[str, Any] = {
            **self.clock.doubles,
            "botocore.session.create_loader": lambda *_: AWS_MODELS,
            "gc.freeze": lambda: None,  # otherwise no environment's memory would be freed
        }
        for target, double in doubles.items():
            self.surroundings.enter_context(mock.patch(target, double))
        given = {"CONSTANT_TAGS": "env:test", "MAX_AGE_SECONDS": f"{MAX_AGE}"}
        given |= {"DATADOG_APP_KEY": APP_KEY, "LOG_LEVEL": "DEBUG"}
        self.surroundings.enter_context(mock.patch.dict(os.environ, given))

    @rule(delivery=DELIVERY, **WRITTEN)
    def write(self, delivery: dict[str, Any], **files: Any) -> None:
        self.put(**files)
        self.invoke(**delivery)

    @initialize(**WRITTEN)
    def put(self, kinds: Sequence[str], job: str, together: bool, notifications: int) -> None:
        """Write files; they have a message together, or one each."""
        files: list[File] = []
        for kind in kinds:
            if kind in STRANGE or kind == "test event":
                self.send(STRANGE.get(kind, TEST_EVENT), [], strange=kind in STRANGE)
                continue
            file = make_file(len(self.files), kind, job, int(self.clock.now))
            self.files[file.key] = self.world.tagged[f"file:{file.number}"] = file
            files.append(file)
        for group in notifications * ([files] if together else [[file] for file in files]):
            if group:
                self.send(notification(file.key for file in group), group)

    def send(self, body: str, files: Sequence[File], strange: bool = False) -> None:
        """Send a message; no two bodies are the same."""
        number = len(self.world.sent)
        message = Message(number, body + " " * number, files, self.clock.now, strange)
        self.queue.append(message)
        self.world.sent[message.body] = message

    @rule(which=st.integers(0, 99))
    def delete(self, which: int) -> None:
        for file in [*self.files.values()][which:][:1]:
            file.deleted = file.refusable = True

    @rule(fault=FAULT, deliveries=st.integers(1, 6), delivery=DELIVERY)
    def fail(self, fault: Any, deliveries: int, delivery: dict[str, Any]) -> None:
        """Let a service fail during this delivery and the next ones."""
        self.world.faults[fault[0]] = fault[1], deliveries
        self.invoke(**delivery)

    @rule(seconds=st.sampled_from((10, 1000, 3000)), delivery=DELIVERY)
    def let_time_pass(self, seconds: int, delivery: dict[str, Any]) -> None:
        self.clock.now += seconds
        self.invoke(**delivery)

    @rule(delivery=DELIVERY)
    def redrive(self, delivery: dict[str, Any]) -> None:
        """Move the dead letters back."""
        for message in self.queue:
            if message.dead:
                message.dead, message.receives, message.visible = False, 0, self.clock.now
        self.invoke(**delivery)

    def invoke(
        self, limit: int = 100, seconds: float = FUNCTION_SECONDS, kill: tuple[str, int] = ("", 0)
    ) -> None:
        """Hand the function a batch; delete what it doesn't leave in the queue."""
        self.clock.now += POLL_SECONDS
        if self.environment and self.environment.key != self.world.key:
            self.end_environment()  # a new setting makes a new environment
        batch = self.receive(limit)
        if not batch:
            return
        environment = self.environment = self.environment or Environment(self.world)
        invocation = environment.invocation = Invocation(batch, kill)
        named = [file for message in batch for file in message.files]
        invocation.unclear = seconds < FUNCTION_SECONDS or len(named) > len({*named})
        deadline = self.clock.now + seconds
        records = [sqs_record(body=each.body, receive_count=each.receives) for each in batch]
        self.clock.silences = 0
        self.said.seek(0)
        self.said.truncate()
        with contextlib.redirect_stdout(self.said):
            answer = environment.handler(sqs_event(records), Context(seconds))
        killed = invocation.over or kill == ("return", 1)
        invocation.over = True
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        pairs = zip(batch, records, strict=True)
        left = [message for message, record in pairs if killed or record["messageId"] in failed]
        self.queue = [each for each in self.queue if each not in batch or each in left]
        self.world.pass_delivery()
        self.check_rejected()
        TALLY.update(deliveries=1, POSTs=invocation.moments["POST"])
        if killed:
            TALLY[f"killed: {kill[0]}"] += 1
            self.end_environment()
            return
        assert self.clock.now <= deadline, "Lambda had to end the function"
        assert not any(text in self.said.getvalue() for text in (*SECRETS, "Traceback"))
        counts = [self.check_message(message, invocation, message in left) for message in batch]
        if not invocation.unclear:
            summary = json.loads(self.said.getvalue().splitlines()[-1])
            told = summary["Submitted"], summary["Refused"]
            assert told == tuple(map(sum, zip(*counts, strict=True)))

    def receive(self, limit: int) -> list[Message]:
        """Take visible messages, and hide them; one received too often is a dead letter."""
        visible = [m for m in self.queue if m.visible <= self.clock.now and not m.dead]
        for message in visible:
            message.dead = message.receives == MAX_RECEIVES
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

    def check_rejected(self) -> None:
        """Check that what has come into the rejected queue belongs there."""
        while self.world.rejected:
            at, invocation, message, told = self.world.rejected.pop()
            assert not any(key in told for key in SECRETS)
            message.kept = True
            alone = len(message.files) == 1
            files = {file for file in message.files if alone or file.key in told}
            assert files or message.strange, f"{message.body!r} is kept for nothing: {told}"
            for file in files:
                file.refused = True
                age = at - min((point.second for point in file.points), default=at)
                assert file.refusable or age > MAX_AGE, f"{file.key!r} is good, yet refused: {told}"
                parts = len(file.points) > SERIES_LIMIT  # one may be taken before another fails
                assert parts or not invocation.told[file], f"{file.key!r} is refused and submitted"
            invocation.refused[message] = files

    def check_message(
        self, message: Message, invocation: Invocation, left: bool
    ) -> tuple[int, int]:
        """Compare what becomes of a message with what the services saw.

        Returns how many files are submitted, and refused.
        """
        files, kept = {*message.files}, message in invocation.confirmed
        bad = invocation.refused.get(message, set())
        good = {f for f in files if f.points and invocation.told[f] >= f.points} - bad
        if not left:
            done = good | bad | {file for file in files if file.marker}
            assert files == done, f"{message.body!r} is gone"
            assert kept or not message.strange, f"{message.body!r} is gone"
        elif not invocation.unclear:
            assert not kept, f"{message.body!r} was kept as refused, and left in the queue"
            submitted = files == good and not message.strange
            assert not submitted, f"{message.body!r} was submitted, and left in the queue"
        return len(good), kept * (len(bad) + message.strange)

    @invariant()
    def books_add_up(self) -> None:
        """Each file is somewhere, and no point is wrong."""
        assert not self.world.dropped
        stored = {
            Point(metric, tags, second, value)
            for (metric, tags), points in [*self.world.stored.items()]
            for second, value in [*points.items()]
        }
        waiting = {file for message in self.queue for file in message.files}
        for file in self.files.values():
            submitted = bool(file.points) and file.points <= stored
            found = submitted or file.refused or file in waiting or file.marker
            assert found, f"{file.key!r} is lost"
        for message in self.world.sent.values():
            assert not message.strange or message.kept or message in self.queue, message.body
        wrong = stored.difference(*(file.points for file in self.files.values()))
        assert not wrong, f"Datadog has what no file has: {wrong}"

    def teardown(self) -> None:
        """Repair everything and redrive: nothing waits any longer."""
        try:
            self.world.faults.clear()
            for _ in range(6):
                self.clock.now += VISIBILITY_SECONDS
                self.redrive({})
            self.books_add_up()
            assert not self.queue, "something still waits"
        finally:
            TALLY["files"] += len(self.files)
            self.end_environment()
            self.surroundings.close()


ALONE = [(service, [kind]) for service in FAULTS for kind in FAULTS[service]]
ALONE.append(("Datadog", [*3 * ["413 by size"], "429"]))  # takes a part of the wide file


@pytest.mark.parametrize(("service", "kinds"), ALONE, ids=str)
def test_each_fault_alone(service: str, kinds: Sequence[str]) -> None:
    """Three files, each in a batch of its own; the fault lasts for a while."""
    ledger = Ledger()
    try:
        ledger.put(["old", "wide", "not JSON"], "nightly", together=False, notifications=1)
        for _ in range(8):
            ledger.fail((service, kinds), 1, {"limit": 1})
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
