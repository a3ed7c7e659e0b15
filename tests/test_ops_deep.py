"""ddg-ops on queues that are deep, or never empty."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from tests.memory import memory_under
from tests.operated import notification, run
from tests.sqs_stub import OUTPUTS, SqsStub

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    """A folder with the stack's outputs."""
    monkeypatch.chdir(tmp_path)
    Path("o.json").write_text(json.dumps(OUTPUTS))


def message(number: int) -> dict[str, Any]:
    """Return a rejected message."""
    key = f"stats/job-{number % 7}/{number}"
    reason = f"timestamp {number} is {4000 + number} s old, and so on"
    return {
        "Body": notification("b", key)[:-1] + f', "padding": "{1000 * "x"}"}}',
        "Attributes": {"SentTimestamp": "1764000000000", "ApproximateReceiveCount": "1"},
        "MessageAttributes": {"reason": {"DataType": "String", "StringValue": reason}},
    }


@pytest.mark.parametrize(
    ("line", "most"), [("rejected list", 30_000), ("rejected replay --yes", 5_000)]
)
def test_deep_queue(line: str, most: int, monkeypatch: Patch) -> None:
    """Ten times as many take ten times as long, and 30 MB pass through a bounded memory."""
    seconds = []
    for number in (most // 10, most):
        stub = SqsStub(message, number)
        monkeypatch.setattr(BaseClient, "_make_api_call", stub.call)
        started = time.process_time()
        with memory_under(60 * 1024 * 1024):
            document = run(line, "--stack", "o.json", "--json").document
        seconds.append(time.process_time() - started)
        sent = number if "replay" in line else 0
        assert (document["messages_read"], document["complete"]) == (number, True)
        assert len(set(stub.sent)) == len(stub.sent) == sent
        assert (len(stub.waiting), stub.in_flight) == (number - sent, {})
        assert "replay" in line or len(document["groups"]) == 7
    assert seconds[1] < 12 * seconds[0]


def test_queue_that_is_never_empty(monkeypatch: Patch) -> None:
    """Messages come again before the end: each counts once, and the share that was read is said."""
    stub = SqsStub(message, 400, most_in_flight=100)
    monkeypatch.setattr(BaseClient, "_make_api_call", stub.call)
    result = run("rejected list --stack o.json --json")
    read = result.document["messages_read"]
    assert (result.code, result.document["complete"]) == (3, False)
    assert 90 <= read < 400
    assert sum(group["count"] for group in result.document["groups"]) == read
    told = run("rejected list --stack o.json").out
    assert re.search(r"The end of rejected wasn't reached: about [2-9]\d% was read", told)
