"""S3, SQS and Datadog, failing as they are told, and the time in which they do."""

import contextlib
import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from local.datadog_server import Answer, DatadogServer, Request
from local.ledger import Point
from tests.events import BUCKET
from tests.scripted_server import Call, ScriptedServer, response, s3_error
from tests.submitter import cold_start

TALLY: Counter[str] = Counter()  # `make soak` prints it
SERIES_LIMIT = 16  # a payload's, while Datadog answers 413 by size

# As long as real ones. Answers contain them, as a proxy's page may, and nobody must repeat them.
API_KEY = "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e"
APP_KEY = "ba5eba11ba5eba11ba5eba11ba5eba11ba5eba11"
WRONG_KEY = "0ff1ce0ff1ce0ff1ce0ff1ce0ff1ce00"
SECRETS = (API_KEY, APP_KEY, WRONG_KEY)
HTML = f"<html>Bad Gateway. DD-API-KEY: {API_KEY}, DD-APPLICATION-KEY: {APP_KEY}</html>".encode()
ERRORS = json.dumps({"errors": [HTML.decode()]}).encode()

POSTS = {  # what Datadog does with a POST
    **{f"{n}": Answer(n, HTML) for n in (302, 400, 401, 403, 404, 408, 413, 429, 500, 503)},
    "400 and errors": Answer(400, ERRORS),
    "400 and no errors": Answer(400, b'{"errors": []}'),
    "503, slowly": Answer(503, HTML, body_delay=60),
    "reset": Answer(reset=True),
    "reset, taken": Answer(reset=True, accept=True),
    "silence": Answer(delay=60),
    "silence, taken": Answer(delay=60, accept=True),
    "200, taken": Answer(200, accept=True),
    "500, taken": Answer(500, HTML, accept=True),
    "202 and HTML": Answer(202, HTML, accept=True),
    "202 and nothing": Answer(202, b"", accept=True),
    "202, slowly": Answer(202, body_delay=60, accept=True),
}
VALIDATIONS = {
    "500": Answer(500, HTML),
    "200 and HTML": Answer(200, HTML),
    "reset": Answer(reset=True),
    "silence": Answer(delay=60),
}
OBJECTS = {  # what S3 sends instead of an object
    "403": s3_error("403 Forbidden", "AccessDenied"),
    "500": s3_error("500 Internal Server Error", "InternalError"),
    "503": s3_error("503 Slow Down", "SlowDown"),
    "reset": b"",
    "cut short": b"",
    "silence": b"",
}
FAULTS: dict[str, Iterable[str]] = {
    "Datadog": (*POSTS, "413 by size"),
    "validate": VALIDATIONS,
    "key": ("wrong",),
    "S3": OBJECTS,
    "rejected queue": ("403", "reset", "silence", "500, kept"),
}
# When the function is killed: at the first, second, ... of these
MOMENTS = ("GET", "POST", "POST taken", "refusal", "refusal kept", "return")


@dataclass(eq=False)
class File:
    """A file in the bucket."""

    number: int
    key: str
    content: bytes
    points: frozenset[Point] = frozenset()  # as Datadog should have them
    marker: bool = False  # it needs nothing
    refusable: bool = False  # it is bad, or has become so
    refused: bool = False  # its message is in the rejected queue because of it
    deleted: bool = False


@dataclass(eq=False)
class Message:
    """A message of the queue."""

    number: int
    body: str
    files: Sequence[File]
    visible: float  # Unix seconds
    strange: bool  # it names no object, and must be refused
    receives: int = 0
    dead: bool = False  # in the dead-letter queue
    kept: bool = False  # in the rejected queue


@dataclass(eq=False)
class Invocation:
    """A batch on its way through the function, and what the services have seen of it."""

    batch: Sequence[Message]
    kill: tuple[str, int] = ("", 0)
    over: bool = False  # the process is frozen, or dead
    unclear: bool = False  # the function may give up waiting, or post a file twice
    moments: Counter[str] = field(default_factory=Counter)
    told: dict[File, set[Point]] = field(default_factory=lambda: defaultdict(set))  # with a 202
    refused: dict[Message, set[File]] = field(default_factory=dict)
    confirmed: set[Message] = field(default_factory=set)  # refused, as it knows


class Clock:
    """Time passes when the test says so, and while the function waits in vain."""

    def __init__(self) -> None:
        self.now = 1_767_225_600.0  # Unix seconds
        self.silences = 0  # answers that won't come in time
        self.handler = threading.current_thread()
        self.real_wait = threading.Condition.wait

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass; the pauses of botocore's threads take none."""
        if threading.current_thread() is self.handler:
            self.now += seconds

    def wait(self, condition: threading.Condition, timeout: float | None = None) -> bool:
        """Wait for what comes; if nothing will, let the time pass and wait no longer."""
        if not timeout or timeout < 0.05 or threading.current_thread() is not self.handler:
            return self.real_wait(condition, timeout)
        ends = self.now + timeout
        for _ in range(200):  # ten real seconds: what takes longer is a bug
            if self.real_wait(condition, 0.05):
                return True
            if self.silences:
                self.silences -= 1
                break
        self.now = max(self.now, ends)
        return False

    @property
    def doubles(self) -> dict[str, Callable[..., Any]]:
        """Return what takes the place of the real time."""
        return {
            "time.time": self.time,
            "time.monotonic": self.time,
            "time.sleep": self.sleep,
            "threading.Condition.wait": lambda *arguments: self.wait(*arguments),
        }


@dataclass(eq=False)
class World:
    """What the services hold, and how they fail."""

    clock: Clock = field(default_factory=Clock)
    files: dict[str, File] = field(default_factory=dict)  # by key
    tagged: dict[str, File] = field(default_factory=dict)  # by the tag of all its points
    sent: dict[str, Message] = field(default_factory=dict)  # all that there ever were, by body
    rejected: list[tuple[float, Invocation, Message, str]] = field(default_factory=list)
    stored: dict[tuple[str, tuple[str, ...]], dict[int, float]] = field(default_factory=dict)
    dropped: list[Any] = field(default_factory=list)  # by Datadog, behind a 202
    faults: dict[str, tuple[Sequence[str], int]] = field(default_factory=dict)  # for deliveries

    def fault(self, service: str, number: int = 0) -> str:
        """Return how a service fails now, if at all, for a request or an object of that number."""
        kinds, _ = self.faults.get(service, ([""], 0))
        fault = kinds[number % len(kinds)]
        TALLY.update([f"{service}: {fault}"] if fault else [])
        return fault

    def pass_delivery(self) -> None:
        """End the faults that have lasted long enough."""
        left = {service: (kinds, more - 1) for service, (kinds, more) in self.faults.items()}
        self.faults = {service: fault for service, fault in left.items() if fault[1]}

    @property
    def key(self) -> str:
        """Return the API key that the function is given."""
        return WRONG_KEY if self.fault("key") else API_KEY


class Environment:
    """An execution environment, and S3, SQS, Secrets Manager and Datadog for it alone.

    While its process is frozen, or once it is dead, its requests do nothing and get nothing.
    """

    def __init__(self, world: World) -> None:
        self.world, self.clock, self.key = world, world.clock, world.key
        self.invocation = Invocation(())
        self.lock = threading.Lock()
        aws = ScriptedServer(self.answer_aws)
        datadog = DatadogServer(
            API_KEY,
            clock=self.clock.time,
            respond=self.answer_post,
            respond_validate=self.answer_validate,
            points=world.stored,
            dropped=world.dropped,
        )
        self.servers = contextlib.ExitStack()
        self.servers.enter_context(aws)
        self.servers.enter_context(datadog)
        os.environ |= {
            "AWS_ENDPOINT_URL": aws.url,
            "DATADOG_API_KEY": self.key,
            "DATADOG_HOST": datadog.url,
            "REJECTED_QUEUE_URL": f"{aws.url}/123456789012/rejected",
        }
        self.handler = cold_start().lambda_handler

    def end(self) -> None:
        """End the process: none of its threads reaches anything any more."""
        self.invocation.over = True
        self.servers.close()
        del self.handler  # and its connections, for which the servers' threads wait

    def dies(self, moment: str) -> bool:
        """Tell whether the process is dead or frozen; it may be killed at this very moment."""
        invocation = self.invocation
        with self.lock:
            invocation.moments[moment] += 1
            invocation.over |= invocation.kill == (moment, invocation.moments[moment])
        return invocation.over

    def be_silent(self, call: Call | None = None) -> None:
        """Let the function wait in vain, in its own time."""
        self.invocation.unclear = True
        self.clock.silences += 1
        if call:
            call.stopping.wait(60)

    def answer_validate(self, request: Request) -> Answer | None:
        if self.dies("validate"):
            return Answer(reset=True)
        answer = VALIDATIONS.get(self.world.fault("validate"))
        if answer and answer.delay:
            self.be_silent()
        return answer

    def answer_post(self, request: Request) -> Answer | None:
        """Take a POST or fail; note which points are taken, and whether the function knows."""
        if self.dies("POST"):
            return Answer(reset=True)
        if request.series is None:  # a wrong key: v1 answers 202 to one that is nobody's
            return None if self.world.fault("validate") else Answer(202)
        answer = self.find_answer(request.series)
        if self.dies("POST taken"):
            answer = Answer(reset=True, accept=True)
        given = answer or Answer(accept=True)
        if given.delay or given.body_delay:
            self.be_silent()
        posted: dict[File, set[Point]] = defaultdict(set)
        for series in request.series:
            tags = tuple(sorted(series["tags"]))
            [file] = filter(None, map(self.world.tagged.get, tags))
            posted[file] |= {Point(series["metric"], tags, *point) for point in series["points"]}
        for file, points in posted.items():
            if given.accept and given.status == 202 and not (given.reset or given.delay):
                self.invocation.told[file] |= points
            alone = len(posted) == 1 and (given.status == 400 or len(points) == 1)
            if alone and (given.status == 413 or given.body == ERRORS):
                receives = [each.receives for each in self.invocation.batch if file in each.files]
                file.refusable |= max(receives) > 1
        return answer

    def find_answer(self, series: Sequence[dict[str, Any]]) -> Answer | None:
        fault = self.world.fault("Datadog", self.invocation.moments["POST"] - 1)
        if fault == "413 by size" and len(series) > SERIES_LIMIT:
            return Answer(413, HTML)
        poisoned = any(each["metric"].startswith("poison.") for each in series)
        return POSTS.get(fault, Answer(400, ERRORS) if poisoned else None)

    def answer_aws(self, call: Call) -> bytes | Iterable[bytes]:
        if call.method == "GET":
            return self.answer_get(call)
        request = json.loads(call.body)
        return self.answer_send(call, request["MessageBody"], request["MessageAttributes"])

    def answer_get(self, call: Call) -> bytes | Iterable[bytes]:
        if self.dies("GET"):
            raise ConnectionResetError
        file = self.world.files[call.path.removeprefix(f"/{BUCKET}/")]
        fault = self.world.fault("S3", file.number)
        if fault == "silence":
            self.be_silent(call)
        if fault in ("reset", "silence"):
            raise ConnectionResetError
        gone = s3_error("404 Not Found", "NoSuchKey")
        whole = gone if file.deleted else response(body=file.content)
        return cut_short(whole) if fault == "cut short" else OBJECTS.get(fault, whole)

    def answer_send(self, call: Call, body: str, attributes: Any) -> bytes:
        """Keep a message in the rejected queue, or fail."""
        message = self.world.sent[body]
        fault = self.world.fault("rejected queue", message.number)
        if fault == "silence":
            self.be_silent(call)
        if self.dies("refusal") or fault in ("reset", "silence"):
            raise ConnectionResetError
        if fault == "403":
            return response("403 Forbidden", b"{}")
        told = " ".join(attribute["StringValue"] for attribute in attributes.values())
        self.world.rejected.append((self.clock.now, self.invocation, message, told))
        if self.dies("refusal kept"):
            raise ConnectionResetError
        if fault:
            return response("500 Internal Server Error", b"{}")
        self.invocation.confirmed.add(message)
        return response(body=b'{"MessageId": "kept"}')


def cut_short(whole: bytes) -> Iterator[bytes]:
    """Send the beginning of an answer, then break off."""
    yield whole[:-1]
    raise ConnectionAbortedError
