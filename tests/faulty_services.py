"""S3, SQS, Secrets Manager and Datadog, failing as they are told, and the time in which they do.

An Environment is one execution environment of the submitter. Its services are its own, so that
nothing it does after it was killed reaches anyone. What they hold and note is the World's.
"""

import contextlib
import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from local.datadog_server import Answer, DatadogServer, Request
from local.ledger import Point
from tests.events import BUCKET
from tests.scripted_server import Call, ScriptedServer, response, s3_error
from tests.submitter import cold_start

# As long as real ones. Answers tell them, as a proxy's page may, and nobody must repeat them.
API_KEY = "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e"
APP_KEY = "ba5eba11ba5eba11ba5eba11ba5eba11ba5eba11"
WRONG_KEY = "0ff1ce0ff1ce0ff1ce0ff1ce0ff1ce00"
HTML = f"<html>Bad Gateway. DD-API-KEY: {API_KEY}, DD-APPLICATION-KEY: {APP_KEY}</html>".encode()
ERRORS = json.dumps({"errors": [HTML.decode()]}).encode()

SERIES_LIMIT = 16  # while Datadog answers 413 by size, a payload may hold as many series
SILENCE = Answer(delay=60)
POSTS = {  # what Datadog does with a POST; what it takes, it keeps whatever it answers
    **{f"{n}": Answer(n, HTML) for n in (302, 400, 401, 403, 404, 408, 413, 429, 500, 503)},
    "400 and errors": Answer(400, ERRORS),
    "400 and no errors": Answer(400, b'{"errors": []}'),
    "503, slowly": Answer(503, HTML, body_delay=60),
    "reset": Answer(reset=True),
    "reset, taken": Answer(reset=True, accept=True),
    "silence": SILENCE,
    "silence, taken": Answer(delay=60, accept=True),
    "200, taken": Answer(200, accept=True),
    "500, taken": Answer(500, HTML, accept=True),
    "202 and HTML": Answer(202, HTML, accept=True),
    "202 and nothing": Answer(202, b"", accept=True),
    "202, slowly": Answer(202, body_delay=60, accept=True),
}
VALIDATIONS = {  # what it answers about a key
    "500": Answer(500, HTML),
    "200 and HTML": Answer(200, HTML),
    "reset": Answer(reset=True),
    "silence": SILENCE,
}
OBJECTS: dict[str, bytes] = {  # what S3 sends in place of an object
    "403": s3_error("403 Forbidden", "AccessDenied"),
    "500": s3_error("500 Internal Server Error", "InternalError"),
    "503": s3_error("503 Slow Down", "SlowDown"),
    "reset": b"",
    "cut short": b"",
    "silence": b"",
}
LASTING: dict[str, Iterable[str]] = {  # what can strike each service for a while
    "Datadog": (*POSTS, "413 by size", "413 by size, then 429"),
    "validate": VALIDATIONS,
    "key": ("wrong",),
    "S3": ("403", "503"),
    "rejected queue": ("403", "reset", "silence", "500, kept"),
}
# Where the function is killed: at the first, second, ... of these
MOMENTS = ("GET", "POST", "POST taken", "refusal", "refusal kept", "return")

UNHEARD = "its POST unheard"  # why a file may be in two places: Datadog has it, who knows?

real_wait = threading.Condition.wait


class Clock:
    """Time passes where the test says so, and where the function waits for what doesn't come."""

    def __init__(self) -> None:
        self.now = 1_767_225_600.0  # Unix seconds
        self.silences = 0  # answers that nobody has the time to wait for
        self.thread = threading.current_thread()  # the handler's

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass; the pauses of botocore's threads lie side by side with it."""
        if threading.current_thread() is self.thread:
            self.now += seconds

    def wait(self, condition: threading.Condition, timeout: float | None = None) -> bool:
        """Wait for what comes; where nothing will, let the time pass and wait no longer."""
        if not timeout or timeout < 0.05 or threading.current_thread() is not self.thread:
            return real_wait(condition, timeout)
        ends = self.now + timeout
        for _ in range(200):  # ten real seconds: what takes longer is a bug
            if real_wait(condition, 0.05):
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
class File:
    """A file in the bucket, and what may become of it."""

    key: str
    content: bytes
    points: frozenset[Point] = frozenset()  # as Datadog shall have them
    refusable: bool = False  # it is bad, or has become so
    marker: bool = False  # done without a word
    deleted: bool = False
    fault: str = ""  # what S3 sends in its place
    times: int = 0  # requests that this lasts
    refused: bool = False  # its message is in the rejected queue because of it
    causes: set[str] = field(default_factory=set)  # why it may be in two places


@dataclass(eq=False)
class Message:
    """A message of the queue."""

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
    posts: Sequence[str] = ()  # what becomes of the first ones; "" is nothing
    kill: tuple[str, int] = ("", 0)
    over: bool = False  # the process is frozen, or dead
    moments: Counter[str] = field(default_factory=Counter)
    rushed: bool = False  # the function may not wait for answers that will come
    denied: bool = False  # Datadog has said that the key is nobody's
    taken: dict[File, set[Point]] = field(default_factory=lambda: defaultdict(set))
    told: dict[File, set[Point]] = field(default_factory=lambda: defaultdict(set))  # with a 202
    kept: set[str] = field(default_factory=set)  # bodies in the rejected queue
    confirmed: Counter[str] = field(default_factory=Counter)  # how often the function knows it

    def receives(self, file: File) -> int:
        """Return how often a message of the batch that names a file has come; 0 for none."""
        return max((each.receives for each in self.batch if file in each.files), default=0)


class Rejected(NamedTuple):
    """A message that reached the rejected queue."""

    at: float  # Unix seconds
    invocation: Invocation
    body: str
    attributes: Mapping[str, str]


@dataclass(eq=False)
class World:
    """What the services hold, and what strikes them."""

    clock: Clock = field(default_factory=Clock)
    files: dict[str, File] = field(default_factory=dict)  # by key
    tagged: dict[str, File] = field(default_factory=dict)  # by the tag of all its points
    stored: dict[tuple[str, tuple[str, ...]], dict[int, float]] = field(default_factory=dict)
    dropped: list[Any] = field(default_factory=list)  # by Datadog, behind a 202
    rejected: list[Rejected] = field(default_factory=list)
    faults: dict[str, tuple[str, int]] = field(default_factory=dict)  # each for some deliveries
    tally: Counter[str] = field(default_factory=Counter)  # what struck how often

    def fault(self, service: str, planned: str = "") -> str:
        """Return what strikes a service now, as planned or for a while; count it."""
        fault = planned or self.faults.get(service, ("", 0))[0]
        self.tally.update([f"{service}: {fault}"] if fault else [])
        return fault

    def pass_delivery(self) -> None:
        """End the faults that have lasted long enough."""
        left = {where: (what, times - 1) for where, (what, times) in self.faults.items()}
        self.faults = {where: fault for where, fault in left.items() if fault[1]}

    @property
    def key(self) -> str:
        """Return the API key that the function is given."""
        return WRONG_KEY if self.fault("key") else API_KEY


class Environment:
    """An execution environment, with services that nothing else reaches.

    While its process is frozen, or once it is dead, its requests do nothing and get nothing.
    """

    def __init__(self, world: World) -> None:
        self.world, self.key = world, world.key
        self.invocation = Invocation(())
        self.lock = threading.Lock()
        self.aws = ScriptedServer(self.answer_aws)
        self.datadog = DatadogServer(
            API_KEY,
            clock=world.clock.time,
            respond=self.answer_post,
            respond_validate=self.answer_validate,
            points=world.stored,
            dropped=world.dropped,
        )
        self.servers = contextlib.ExitStack()
        self.servers.enter_context(self.aws)
        self.servers.enter_context(self.datadog)
        os.environ |= {
            "AWS_ENDPOINT_URL": self.aws.url,
            "DATADOG_API_KEY": self.key,
            "DATADOG_HOST": self.datadog.url,
            "REJECTED_QUEUE_URL": f"{self.aws.url}/123456789012/rejected",
        }
        self.handler = cold_start().lambda_handler

    def end(self) -> None:
        """End the process: none of its threads reaches anything any more."""
        self.invocation.over = True
        self.servers.close()
        del self.handler  # and with it the connections, for which the servers' threads wait

    def dies(self, moment: str) -> bool:
        """Tell whether the process is dead or frozen; it may be killed at this very moment."""
        invocation = self.invocation
        with self.lock:
            invocation.moments[moment] += 1
            invocation.over |= invocation.kill == (moment, invocation.moments[moment])
        return invocation.over

    def be_silent(self) -> None:
        """Let the function wait in vain, in its own time."""
        self.invocation.rushed = True
        self.world.clock.silences += 1

    def answer_validate(self, request: Request) -> Answer | None:
        """Say whether the key is right, or do what strikes."""
        if self.dies("validate"):
            return Answer(reset=True)
        answer = VALIDATIONS.get(self.world.fault("validate"))
        if answer is SILENCE:
            self.be_silent()
        self.invocation.denied |= not answer and request.headers["dd-api-key"] != API_KEY
        return answer

    def answer_post(self, request: Request) -> Answer | None:
        """Take a POST, or do what strikes; note what Datadog has of it and who knows that."""
        if self.dies("POST"):
            return Answer(reset=True)
        if request.series is None:  # a wrong key: v1 takes one that is nobody's, and drops it all
            return Answer(202) if self.invocation.denied else None
        answer = self.find_answer(request.series)
        if self.dies("POST taken"):
            answer = Answer(reset=True, accept=True)
        given = answer or Answer(accept=True)
        if given.delay or given.body_delay:
            self.be_silent()
        told = given.status == 202 and not (given.reset or given.delay)
        posted: dict[File, set[Point]] = defaultdict(set)
        for series in request.series:
            tags = tuple(sorted(series["tags"]))
            [file] = filter(None, map(self.world.tagged.get, tags))
            posted[file] |= {Point(series["metric"], tags, *point) for point in series["points"]}
        for file, points in posted.items():
            receives = self.invocation.receives(file)
            if given.accept:
                self.invocation.taken[file] |= points
                self.invocation.told[file] |= points if told else set()
                file.causes |= set() if told and receives else {UNHEARD}
            alone = len(posted) == 1 and (given.status == 400 or len(points) == 1)
            if alone and (given.status == 413 or given.body == ERRORS):
                file.refusable |= receives > 1
        return answer

    def find_answer(self, series: Sequence[Mapping[str, Any]]) -> Answer | None:
        """Return what Datadog does with a payload in place of taking it."""
        planned = dict(enumerate(self.invocation.posts, 1))
        fault = self.world.fault("Datadog", planned.get(self.invocation.moments["POST"], ""))
        if fault in POSTS:
            return POSTS[fault]
        if fault.endswith("429") and self.invocation.moments["POST"] > 3:  # a part is taken then
            return POSTS["429"]
        if fault and len(series) > SERIES_LIMIT:
            return Answer(413, HTML)
        poisoned = any(each["metric"].startswith("poison.") for each in series)
        return Answer(400, ERRORS) if poisoned else None

    def answer_aws(self, call: Call) -> bytes | Iterable[bytes]:
        """Answer as S3, SQS or Secrets Manager."""
        if call.method == "GET":
            return self.answer_get(call)
        request = json.loads(call.body)
        if "MessageBody" in request:
            return self.answer_send(call, request)
        if self.dies("secret"):
            raise ConnectionResetError
        return response(body=json.dumps({"SecretString": self.world.key}).encode())

    def answer_get(self, call: Call) -> bytes | Iterable[bytes]:
        """Return an object, or what S3 sends in its place."""
        if self.dies("GET"):
            raise ConnectionResetError
        file = self.world.files[call.path.removeprefix(f"/{BUCKET}/")]
        fault = self.world.fault("S3", file.fault if file.times else "")
        file.times = max(file.times - 1, 0)
        if fault == "silence":
            self.be_silent()
            call.stopping.wait(60)
        if fault in ("reset", "silence"):
            raise ConnectionResetError
        if file.deleted:
            return OBJECTS.get(fault, s3_error("404 Not Found", "NoSuchKey"))
        whole = response(body=file.content)
        return cut_short(whole) if fault == "cut short" else OBJECTS.get(fault, whole)

    def answer_send(self, call: Call, request: Mapping[str, Any]) -> bytes:
        """Keep a message in the rejected queue, or do what strikes."""
        fault = self.world.fault("rejected queue")
        if fault == "silence":
            self.be_silent()
            call.stopping.wait(60)
        if self.dies("refusal") or fault in ("reset", "silence"):
            raise ConnectionResetError
        if fault == "403":
            return response("403 Forbidden", b"{}")
        body, attributes = request["MessageBody"], request["MessageAttributes"]
        texts = {name: attribute["StringValue"] for name, attribute in attributes.items()}
        self.world.rejected.append(Rejected(self.world.clock.now, self.invocation, body, texts))
        self.invocation.kept.add(body)
        if self.dies("refusal kept"):
            raise ConnectionResetError
        if fault:
            return response("500 Internal Server Error", b"{}")
        self.invocation.confirmed[body] += 1
        return response(body=b'{"MessageId": "kept"}')


def cut_short(whole: bytes) -> Iterator[bytes]:
    """Send the beginning of an answer, then break off."""
    yield whole[:-1]
    raise ConnectionAbortedError
