"""The function of a trial: its modules as a cold start imports them, with the trial's time in them.

Whoever looks at this clock can be killed there, and waits only for what is still to happen.
"""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

from local.audit import Message, Record
from local.faults import START, Kill, Strike

# The scale: what takes long, or much, in a real account is small here.
SCALED = {
    ("ddg_series_api", "MAX_PAYLOAD_BYTES"): 12_000,  # so that a batch has several payloads
    ("ddg_metric_submit", "SMALL_BYTES"): 2_000,  # so that some bodies are large ones
}
PATIENCE_SECONDS = 60.0  # real ones: whoever waits longer has found a bug of the trial's own


class Killed(BaseException):
    """The function is no more; nothing in it can catch this."""


@dataclass
class Clock:
    """The trial's own time."""

    now: float = START  # Unix seconds


@dataclass(eq=False)
class Invocation:
    """One batch on its way through the function, to which it is Lambda's context."""

    record: Record
    clock: Clock
    environment: Environment
    function_name: str = "ddg-metric-submit"
    dying: bool = False
    looks: int = 0
    posts: int = 0
    strike: Strike | None = None  # of the POST that is under way
    deliveries: Mapping[str, int] = field(default_factory=dict)  # of each file so far, with this
    attempts: Counter[str] = field(default_factory=Counter)  # to read each file

    def __post_init__(self) -> None:
        self.plan = self.record.plan
        self.deadline = self.clock.now + self.plan.seconds

    def get_remaining_time_in_millis(self) -> int:
        self.look()
        return int(1000 * max(0.0, self.deadline - self.clock.now))

    def look(self) -> None:
        """Be looked at by the function, which may be its end."""
        self.looks += 1
        if self.plan.killed == Kill.ANYWHERE and self.looks == self.plan.looks:
            self.die(Kill.ANYWHERE)
        if self.clock.now > self.deadline:
            self.die(Kill.DEADLINE)
        if self.dying:
            raise Killed

    def die(self, where: Kill) -> None:
        """Let the next look at the clock be the last."""
        if not self.dying:
            self.record.strikes.append(where)
        self.dying = True


class Environment:
    """One execution environment: the function's modules anew, with the trial's time in them."""

    def __init__(self, source: Path, clock: Clock, endpoint: str) -> None:
        self.clock = clock
        self.endpoint = endpoint  # the path of the endpoint by which AWS knows it
        self.invocation: Invocation  # the one under way
        self.heard: threading.Event  # what the POST under way waits for
        self.stalled = False
        modules = import_anew(source, "ddg_metric_submit")
        self.function = modules["ddg_metric_submit"]
        for (module, name), value in SCALED.items():
            setattr(modules[module], name, value)
        vars(self.function)["time"] = SimpleNamespace(
            time=self.time, monotonic=self.time, sleep=self.sleep
        )
        event = type("Event", (Waiting,), {"environment": self})
        vars(modules["ddg_series_api"])["threading"] = SimpleNamespace(
            **vars(threading) | {"Event": event}
        )

    def time(self) -> float:
        """Return the trial's time."""
        self.invocation.look()
        return self.clock.now

    def sleep(self, seconds: float) -> None:
        """Let the trial's time pass."""
        self.clock.now += seconds
        self.invocation.look()

    def stall(self) -> None:
        """Let the POST under way have no answer in time."""
        self.stalled = True
        self.heard.set()

    def handle(self, invocation: Invocation) -> set[str]:
        """Return the ids of the messages that the function leaves in the queue."""
        self.invocation = invocation
        records = [sqs_record(message) for message in invocation.record.messages]
        answer = self.function.lambda_handler({"Records": records}, invocation)
        return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}

    def end(self) -> None:
        """End the threads too: those of a process that is no more do nothing further."""
        services = map(self.function.threads, get_args(self.function.Service))
        for executor in (*services, self.function.reader()):
            executor.shutdown(cancel_futures=True)


class Waiting(threading.Event):
    """What a POST's answer is waited for with; no time passes but the trial's."""

    environment: Environment

    def __init__(self) -> None:
        super().__init__()
        self.environment.heard = self

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the answer, or for the word that it will not come in time."""
        if not super().wait(PATIENCE_SECONDS):
            raise RuntimeError("the local Datadog is silent, and wasn't to be")
        if self.environment.stalled:
            self.environment.stalled = False
            self.environment.clock.now += timeout or 0.0
        self.environment.invocation.look()
        return True


def import_anew(source: Path, name: str) -> dict[str, ModuleType]:
    """Import a function of a folder as a cold start does; what was imported before stays."""
    before = {each: sys.modules.pop(each) for each in [*sys.modules] if each.startswith("ddg_")}
    sys.path.insert(0, str(source))
    try:
        importlib.import_module(name)
        gc.unfreeze()  # what came before it in this process is no import of a cold start's
        return {each: sys.modules.pop(each) for each in [*sys.modules] if each.startswith("ddg_")}
    finally:
        sys.path.remove(str(source))
        sys.modules.update(before)


def sqs_record(message: Message) -> dict[str, Any]:
    """Return a message the way Lambda hands it to a function."""
    return {
        "messageId": message.message_id,
        "receiptHandle": f"{message.message_id} {message.receives}",
        "body": message.body,
        "attributes": {"ApproximateReceiveCount": str(message.receives)},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }
