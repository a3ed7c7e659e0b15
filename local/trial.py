"""One seed of the campaign: the real handler, and around it all that fails as it was drawn.

Batches go through the handler over real HTTP, from an S3, an SQS and the strict local Datadog. Its
clock is the trial's, so that an hour's outage takes no time, and whoever looks at the clock can be
killed there. In the end local.audit closes the books; the handler is never asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import botocore.endpoint
import botocore.loaders
import botocore.retries.quota
import botocore.session
from botocore.config import Config

from local.audit import Books, Evidence, Message, Record, Rejected, close_books
from local.datadog_server import Answer, DatadogServer, Request
from local.execution import Clock, Environment, Invocation, Killed
from local.faults import (
    API_KEY,
    APP_KEY,
    BUCKET,
    CONSTANT_TAG,
    FUNCTION_SECONDS,
    HTML,
    NO_ANSWER,
    POISON,
    PREFIX,
    SERIES_LIMIT,
    START,
    TALE,
    VISIBILITY_SECONDS,
    WRONG_KEY,
    Kill,
    Lasting,
    Plan,
    Schedule,
    Strike,
)
from local.ledger import Point
from tests.scripted_server import Call, ScriptedServer, response, s3_error

SOURCE = Path(__file__).resolve().parent.parent
MAX_AGE_SECONDS = 3600

S3_SECONDS = 0.3  # real ones, that S3 may take
AWS_MODELS = botocore.loaders.create_loader()  # a tenth of a second to read at each cold start

# SQS's limits (SendMessage reference), the lower of two
SQS_BYTES = 262_144
NOT_FOR_SQS = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class Queue:
    """SQS's queue with its dead-letter queue."""

    max_receives: int
    messages: dict[str, Message] = field(default_factory=dict)  # by id, like the next
    dead: dict[str, Message] = field(default_factory=dict)

    def receive(self, limit: int, now: float) -> list[Message]:
        """Return visible messages, and hide them; those received too often are moved away."""
        batch: list[Message] = []
        for message in [*self.messages.values()]:
            if message.visible > now or len(batch) == limit:
                continue
            if message.receives == self.max_receives:
                self.dead[message.message_id] = self.messages.pop(message.message_id)
                continue
            self.hide(message, now)
            batch.append(message)
        return batch

    def hide(self, message: Message, now: float) -> None:
        """Count one more receive."""
        message.receives += 1
        message.visible = now + VISIBILITY_SECONDS

    def redrive(self, now: float) -> None:
        """Move the dead letters back, as someone does once the cause is gone."""
        for message in self.dead.values():
            message.receives, message.visible = 0, now
        self.messages |= self.dead
        self.dead.clear()


class StruckDatadog(DatadogServer):
    """The strict local Datadog; the trial knows of a POST before and after."""

    trial: Trial

    def take(self, request: Request, body: bytes) -> Answer:
        """Take a request like the strict one, in the middle of the trial."""
        self.trial.before_post()
        answer = super().take(request, body)
        self.trial.after_post(request, answer)
        return answer


class Outcome(NamedTuple):
    """What became of a schedule."""

    seed: int
    struck: Counter[str]  # faults by name
    invocations: int
    requests: int  # POSTs
    points: int  # in Datadog
    storm: Books  # while troubles last
    calm: Books  # once they have ended, and the dead letters were moved back
    story: list[str]  # a line for each trouble that lasts, and for each invocation
    printed: str  # all that the function printed and logged
    rejected: Sequence[Rejected]

    @property
    def faults(self) -> list[str]:
        """Return what doesn't add up."""
        return self.storm.faults + [f for f in self.calm.faults if f not in self.storm.faults]


class Trial:
    """A schedule carried out against the function of a folder."""

    def __init__(self, schedule: Schedule, source: Path = SOURCE) -> None:
        self.schedule = schedule
        self.source = source
        self.clock = Clock()
        self.queue = Queue(schedule.max_receives)
        self.aws = ScriptedServer(self.answer_aws)
        self.datadog = StruckDatadog(API_KEY, clock=lambda: self.clock.now, respond=self.strike)
        self.datadog.trial = self
        self.stormy = True
        self.running: list[Invocation] = []  # the innermost last
        self.warm: Environment | None = None
        self.arrived = 0  # notifications
        self.messages: list[Message] = []
        self.records: list[Record] = []
        self.rejected: list[Rejected] = []
        self.starts = 0  # of environments
        self.deliveries: Counter[str] = Counter()  # of each file
        self.environments: dict[str, Environment] = {}  # by the path of the endpoint they use
        self.printed = io.StringIO()
        self.failure: BaseException | None = None  # in another thread
        self.keys = {file.tag: key for key, file in schedule.files.items()}

    def run(self) -> Outcome:
        """Close the books when the storm ends, and again when the calm has cleared up."""
        with self.datadog, self.aws, self.surroundings():
            while self.clock.now < self.schedule.ends:
                self.poll()
            storm = self.close_books()
            self.stormy = False
            for _ in range(2):  # some are moved to the dead letters in the first round only
                self.queue.redrive(self.clock.now)
                while self.queue.messages:
                    self.poll()
            calm = self.close_books()
        if calm.waiting:
            calm.faults.append(f"{calm.waiting} files wait in the calm")
        elsewhere = {request.path for request in self.datadog.requests} - {"/api/v1/series"}
        if elsewhere:
            calm.faults.append(f"the key travelled to {elsewhere}")
        return Outcome(
            seed=self.schedule.seed,
            struck=Counter(strike for record in self.records for strike in record.strikes),
            invocations=len(self.records),
            requests=len(self.datadog.requests),
            points=sum(map(len, self.datadog.points.values())),
            storm=storm,
            calm=calm,
            story=[*self.schedule.story(), *map(tell, self.records)],
            printed=self.printed.getvalue(),
            rejected=self.rejected,
        )

    def close_books(self) -> Books:
        """Settle every file by what lies where now."""
        return close_books(
            Evidence(
                files=self.schedule.files,
                max_age=MAX_AGE_SECONDS,
                messages=self.messages,
                records=self.records,
                stored=self.datadog.points,
                rejected=self.rejected,
                waiting=[*self.queue.messages.values(), *self.queue.dead.values()],
            )
        )

    @contextlib.contextmanager
    def surroundings(self) -> Iterator[None]:
        """Give the function its environment, and hear all that it says."""
        arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog"
        environment = {
            "AWS_ACCESS_KEY_ID": "campaign",
            "AWS_SECRET_ACCESS_KEY": "campaign",
            "AWS_DEFAULT_REGION": "us-east-1",
            "CONSTANT_TAGS": CONSTANT_TAG,
            "DATADOG_API_KEY_SECRET_ARN": arn if self.schedule.secret else "",
            "DATADOG_APP_KEY": APP_KEY,
            "DATADOG_HOST": self.datadog.url,
            "LOG_LEVEL": "DEBUG" if self.schedule.debug else "INFO",
            "MAX_AGE_SECONDS": str(MAX_AGE_SECONDS),
            "NO_PROXY": "127.0.0.1",
            "REJECTED_QUEUE_URL": f"{self.aws.url}/123456789012/rejected",
            "STATS_PREFIX": PREFIX,
        }
        no_pauses = SimpleNamespace(sleep=lambda seconds: None)
        make_client = botocore.session.Session.create_client

        def impatient(session: botocore.session.Session, service: str, **options: Any) -> Any:
            """Make a client that waits for S3 only so long."""
            if service == "s3":
                options["config"] = options["config"].merge(Config(read_timeout=S3_SECONDS))
            return make_client(session, service, **options)

        ear = logging.StreamHandler(self.printed)
        logging.getLogger().addHandler(ear)
        try:
            with (
                mock.patch.dict(os.environ, environment),
                mock.patch.object(botocore.session.Session, "create_client", impatient),
                mock.patch.object(botocore.endpoint, "time", no_pauses),
                mock.patch.object(botocore.session, "create_loader", return_value=AWS_MODELS),
                # Many threads share a number of retries; which of them get one would be chance.
                mock.patch.object(botocore.retries.quota.RetryQuota, "acquire", return_value=True),
                contextlib.redirect_stdout(self.printed),
            ):
                yield
        finally:
            logging.getLogger().removeHandler(ear)
            self.freeze()

    def freeze(self) -> None:
        """End the warm environment: the next invocation is a cold start."""
        if self.warm:
            self.end(self.warm)
        self.warm = None

    def end(self, environment: Environment) -> None:
        """End an environment, after which AWS hears no more of it."""
        environment.end()
        del self.environments[environment.endpoint]

    # --- The event source mapping ---

    def poll(self) -> None:
        """Let some time pass, then take all that the queue shows through the function."""
        self.clock.now += self.plan().pause
        for notification in self.schedule.notifications[self.arrived :]:
            if notification.at > self.clock.now:
                break
            message = Message(f"message-{self.arrived}", notification)
            self.arrived += 1
            self.messages.append(message)
            self.queue.messages[message.message_id] = message
        while batch := self.queue.receive(self.plan().batch_size, self.clock.now):
            plan = self.plan()
            if plan.cold or self.warm is None:
                self.freeze()
                self.warm = self.cold_start()
            if not self.invoke(batch, plan, self.warm):
                self.freeze()

    def plan(self) -> Plan:
        """Return what strikes the next invocation; nothing does in the calm."""
        plan = self.schedule.plan(len(self.records))
        return plan if self.stormy else plan.calm()

    def cold_start(self) -> Environment:
        """Start an execution environment, which AWS knows by the endpoint that it uses."""
        self.starts += 1
        endpoint = f"environment-{self.starts}"
        environment = self.environments[endpoint] = Environment(self.source, self.clock, endpoint)
        return environment

    def invoke(self, batch: Sequence[Message], plan: Plan, environment: Environment) -> bool:
        """Take a batch through the function and delete what it doesn't leave in the queue.

        Returns whether the environment is still alive.
        """
        record = Record(len(self.records), self.clock.now, plan, batch)
        self.records.append(record)
        self.deliveries.update(key for message in batch for key in message.keys)
        invocation = Invocation(record, self.clock, environment, deliveries=self.deliveries.copy())
        self.running.append(invocation)
        said = self.printed.tell()
        try:
            self.set_variables(invocation)
            record.failed = environment.handle(invocation)
            if plan.killed == Kill.RETURNING:
                invocation.die(Kill.RETURNING)
                raise Killed
            record.ended = True
        except (Killed, ValueError) as error:
            if isinstance(error, ValueError) and plan.seconds == FUNCTION_SECONDS:
                raise  # else there was no time to read the secret, and the whole batch comes again
            record.failed = {message.message_id for message in batch}
        finally:
            self.running.remove(invocation)
        if self.failure:
            raise self.failure
        if record.ended:
            self.printed.seek(said)
            record.summary = json.loads([line for line in self.printed if '"_aws"' in line][-1])
        for message in batch:
            if message.message_id not in record.failed:
                self.queue.messages.pop(message.message_id, None)
        return record.ended

    def set_variables(self, invocation: Invocation) -> None:
        """Set the environment variables that differ from invocation to invocation."""
        os.environ["AWS_ENDPOINT_URL"] = f"{self.aws.url}/{invocation.environment.endpoint}"
        if not self.schedule.secret:
            os.environ["DATADOG_API_KEY"] = self.key(invocation)

    def key(self, invocation: Invocation) -> str:
        """Return the key that the function is given."""
        return WRONG_KEY if self.lasts(invocation, Lasting.WRONG_KEY) else API_KEY

    def lasts(self, invocation: Invocation, *troubles: Lasting) -> Lasting | None:
        """Return the first of these troubles that lasts, and so strikes the whole invocation."""
        lasting = self.schedule.lasting(invocation.record.at) if self.stormy else set()
        return next((trouble for trouble in troubles if trouble in lasting), None)

    def process_twice(self) -> None:
        """Take the batch that is under way through another environment, in the middle of it all."""
        outer = self.running[-1]
        outer.record.strikes.append("function: a batch twice at the same time")
        for message in outer.record.messages:
            self.queue.hide(message, self.clock.now)
        environment = self.cold_start()
        try:
            self.invoke(outer.record.messages, outer.plan.calm(), environment)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.end(environment)
            self.set_variables(outer)

    # --- Datadog ---

    def before_post(self) -> None:
        """See a POST come."""
        if self.running[-1].plan.twice == "before" and self.running[-1].posts == 0:
            self.process_twice()

    def strike(self, request: Request) -> Answer | None:
        """Return what Datadog does with a POST in place of taking it."""
        invocation = self.running[-1]
        invocation.posts += 1
        if request.series is not None:
            strike = self.find_strike(invocation, request.series)
        else:
            wrong_key = self.lasts(invocation, Lasting.WRONG_KEY)
            strike = Strike((wrong_key,)) if wrong_key else None
        invocation.strike = strike
        invocation.record.strikes += strike.names if strike else ()
        return strike.answer if strike else None

    def find_strike(
        self, invocation: Invocation, series: Sequence[Mapping[str, Any]]
    ) -> Strike | None:
        """Return what strikes a POST with a right key."""
        plan = invocation.plan
        if invocation.posts == 1 and plan.killed in (Kill.IN_POST, Kill.ACCEPTED):
            return Strike((), Answer(reset=True, accept=plan.killed == Kill.ACCEPTED), kills=True)
        if any(each["metric"].startswith(POISON) for each in series):
            return Strike(("Datadog: 400 on one series",), Answer(400, POISONED))
        if len(series) > SERIES_LIMIT and self.lasts(invocation, Lasting.BY_SIZE):
            return Strike((Lasting.BY_SIZE,), Answer(413, b""))
        if invocation.posts <= len(plan.strikes) and (
            planned := plan.strikes[invocation.posts - 1]
        ):
            return planned
        if invocation.posts % 2 and self.lasts(invocation, Lasting.SLOW):
            return NO_ANSWER._replace(names=(Lasting.SLOW,))
        lasting = self.lasts(invocation, *LASTING_ANSWERS)
        return Strike((lasting,), LASTING_ANSWERS[lasting]) if lasting else None

    def after_post(self, request: Request, answer: Answer) -> None:
        """Note what Datadog has of a POST, and whether the function will hear of it."""
        invocation = self.running[-1]
        strike, record = invocation.strike, invocation.record
        stalls, kills = strike is not None and strike.stalls, strike is not None and strike.kills
        told = answer.status == 202 and not (answer.reset or stalls)
        for key, point in self.find_stored(request):
            record.stored[key].add(point)
            if told:
                record.told[key].add(point)
        if invocation.plan.twice == "after" and invocation.posts == 1:
            self.process_twice()
        if kills or (invocation.plan.killed == Kill.ANSWERED and invocation.posts == 1):
            invocation.die(invocation.plan.killed or Kill.ANSWERED)
        if stalls:
            invocation.environment.stall()
        elif kills:
            invocation.environment.heard.set()

    def find_stored(self, request: Request) -> Iterator[tuple[str, Point]]:
        """Yield each point of a POST that Datadog has now, with the file that it is of."""
        for series in request.series or []:
            tags = tuple(sorted(series.get("tags", [])))
            key = next((self.keys[tag] for tag in tags if tag in self.keys), "of no file")
            stored = self.datadog.points.get((series["metric"], tags), {})
            for second, value in series["points"]:
                if stored.get(second) == value:
                    yield key, Point(series["metric"], tags, second, value)

    # --- AWS ---

    def answer_aws(self, call: Call) -> bytes | Iterator[bytes]:
        """Answer as S3, SQS or Secrets Manager."""
        endpoint, _, path = call.path.removeprefix("/").partition("/")
        invocation = self.environments[endpoint].invocation
        if call.method == "GET":
            return self.answer_get(invocation, path.removeprefix(f"{BUCKET}/"), call)
        request = json.loads(call.body)
        if "SecretId" in request:
            return aws_json("200 OK", {"SecretString": self.key(invocation)})
        return self.answer_send(invocation, request)

    def answer_get(self, invocation: Invocation, key: str, call: Call) -> bytes | Iterator[bytes]:
        """Return an object, or what S3 has in its place."""
        file = self.schedule.files[key]
        invocation.attempts[key] += 1
        trouble: str | None = self.lasts(invocation, Lasting.S3_FORBIDS, Lasting.S3_THROTTLES)
        lasts = self.stormy and invocation.deliveries[key] <= file.times
        if lasts and (invocation.attempts[key] == 1 or not file.trouble.endswith("once")):
            trouble = trouble or file.trouble
        if not trouble and file.deleted <= invocation.record.at:
            trouble = "S3: object deleted before the read"
        if not trouble:
            return response(body=file.content)
        invocation.record.strikes.append(trouble)
        if "403" in trouble:
            return s3_error("403 Forbidden", "AccessDenied")
        if "503" in trouble:
            return s3_error("503 Slow Down", "SlowDown")
        if "500" in trouble:
            return s3_error("500 Internal Server Error", "InternalError")
        if "deleted" in trouble:
            return s3_error("404 Not Found", "NoSuchKey")
        if "timeout" in trouble:
            call.stopping.wait(3 * S3_SECONDS)
            raise ConnectionAbortedError
        if "before the answer" in trouble:
            raise ConnectionResetError
        broken = ConnectionResetError() if "reset" in trouble else ConnectionAbortedError()
        return break_off(file.content, broken)

    def answer_send(self, invocation: Invocation, request: Mapping[str, Any]) -> bytes:
        """Keep a message in the rejected queue, or fail to."""
        lasting = self.lasts(
            invocation,
            Lasting.REJECTED_UNREACHABLE,
            Lasting.REJECTED_FORBIDDEN,
            Lasting.REJECTED_AMBIGUOUS,
        )
        if lasting:
            invocation.record.strikes.append(lasting)
        body: str = request["MessageBody"]
        if invocation.plan.killed == Kill.REFUSING:
            invocation.die(Kill.REFUSING)
        dead_already = invocation.plan.killed == Kill.REFUSING and zlib.crc32(body.encode()) % 2
        if lasting == Lasting.REJECTED_UNREACHABLE or dead_already:
            raise ConnectionResetError
        if lasting == Lasting.REJECTED_FORBIDDEN:
            return aws_json("403 Forbidden", {"__type": "com.amazonaws.sqs#AccessDenied"})
        attributes = {
            name: attribute["StringValue"]
            for name, attribute in request.get("MessageAttributes", {}).items()
        }
        if not fits_sqs(body, attributes):
            return aws_json(
                "400 Bad Request", {"__type": "com.amazonaws.sqs#InvalidMessageContents"}
            )
        self.rejected.append(Rejected(self.clock.now, body, attributes))
        invocation.record.kept[body] = attributes.get("reason", "")
        if lasting == Lasting.REJECTED_AMBIGUOUS:
            return aws_json("500 Internal Server Error", {"__type": "InternalFailure"})
        invocation.record.confirmed.add(body)
        md5 = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
        return aws_json("200 OK", {"MessageId": "kept", "MD5OfMessageBody": md5})


POISONED = json.dumps({"status": "error", "code": 400, "errors": [TALE]}).encode()
LASTING_ANSWERS = {
    Lasting.OUTAGE: Answer(503, b""),
    Lasting.UNREACHABLE: Answer(reset=True),
    Lasting.STORM: Answer(429, b"", {"X-RateLimit-Reset": "60"}),
    Lasting.PROXY: Answer(502, HTML),
    Lasting.AMBIGUOUS: Answer(accept=True, reset=True),
}


def break_off(content: bytes, broken: OSError) -> Iterator[bytes]:
    """Send half an object, then break off."""
    whole = response(body=content)
    yield whole[: -(len(content) // 2) - 1]
    raise broken


def aws_json(status: str, answer: Mapping[str, str]) -> bytes:
    """Return an answer of SQS's, or of Secrets Manager's."""
    return response(status, json.dumps(answer).encode(), Content_Type="application/x-amz-json-1.0")


def fits_sqs(body: str, attributes: Mapping[str, str]) -> bool:
    """Tell whether SQS takes such a message."""
    texts = [body, *attributes.values()]
    size = len("".join([*texts, *(f"{name}String" for name in attributes)]).encode())
    return size <= SQS_BYTES and all(texts) and not any(map(NOT_FOR_SQS.search, texts))


def tell(record: Record) -> str:
    """Return an invocation in a line."""
    struck = ", ".join(f"{n} x {strike}" for strike, n in sorted(Counter(record.strikes).items()))
    end = f"{len(record.failed)} left in the queue" if record.ended else "killed"
    return (
        f"t+{record.at - START:6.0f} s  invocation {record.number}: "
        f"{len(record.messages)} messages, {end}; {struck or 'nothing struck'}"
    )
