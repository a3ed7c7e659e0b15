"""The generator: what it writes, where, and what it refuses."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ddg_stats_file import read_stats_file
from tests.scripted_server import Call, ScriptedServer, response, s3_error
from tests.submitter import cold_start

SCHEDULED = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}


class Generator:
    """The handler in a new execution environment, and its bucket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stored: dict[str, bytes] = {}
        self.server = ScriptedServer(self._put)
        monkeypatch.setenv("AWS_ENDPOINT_URL", self.server.url)
        monkeypatch.setenv("STATS_BUCKET", "stats-bucket")
        self.module: Any = cold_start("ddg_mock_datasource")

    def _put(self, call: Call) -> bytes:
        assert call.method == "PUT"
        self.stored[call.path.removeprefix("/stats-bucket/")] = call.body
        return response()

    def invoke(self, event: object) -> list[dict[str, float]]:
        """Return the stats of the keys that the handler says it wrote, each a good stats file."""
        answer = self.module.lambda_handler(event, None)
        assert answer.keys() == {"keys"}
        assert self.stored.keys() >= set(answer["keys"])
        contents = [self.stored[key] for key in answer["keys"]]
        assert all(read_stats_file(each, now=time.time(), max_age=3600) for each in contents)
        return [json.loads(content) for content in contents]


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The generator, and S3 as far as it needs it."""
    made = Generator(monkeypatch)
    with made.server:
        yield made


@pytest.mark.parametrize("event", [SCHEDULED, {}, {"files": 1}], ids=["schedule", "empty", "one"])
@pytest.mark.parametrize(
    ("heartbeat", "folder", "metrics"),
    [
        ("", "mock-datasource", {"sample.stats", "processed.data"}),
        ("true", "heartbeat", {"ddg.heartbeat"}),
    ],
)
def test_one_file(
    generator: Generator,
    monkeypatch: pytest.MonkeyPatch,
    event: dict[str, object],
    heartbeat: str,
    folder: str,
    metrics: set[str],
) -> None:
    """Of now, by day in a folder of its own below the prefix: the sample's numbers or a 1."""
    monkeypatch.setenv("STATS_PREFIX", "team/numbers/")
    monkeypatch.setenv("HEARTBEAT", heartbeat)
    before = int(time.time())
    [stats] = generator.invoke(event)
    assert stats.keys() == {"timestamp", *metrics}
    assert {type(value) for value in stats.values()} == {int}
    assert not heartbeat or stats["ddg.heartbeat"] == 1
    assert before <= stats["timestamp"] <= time.time()
    [key] = generator.stored
    day = datetime.fromtimestamp(stats["timestamp"], UTC).strftime("%Y/%m/%d")
    begins = f"team/numbers/{folder}/{day}/{stats['timestamp']}-"
    assert re.fullmatch(rf"{begins}[0-9a-f]{{8}}\.json", key)


def test_many_files(generator: Generator) -> None:
    """A second each, the last one now, none too old for Datadog; and no key comes twice."""
    for files in (25, 3000):
        timestamps = [each["timestamp"] for each in generator.invoke({"files": files})]
        assert [later - earlier for earlier, later in pairwise(timestamps)] == [1] * (files - 1)
        assert 0 <= time.time() - timestamps[-1] < 60
    assert len(generator.stored) == 25 + 3000
    assert all(key.startswith("stats/mock-datasource/") for key in generator.stored)


@pytest.mark.parametrize("files", [0, -1, 3001, 1.0, "1", "", None, True, [1]], ids=repr)
def test_impossible_number_is_refused(generator: Generator, files: object) -> None:
    """With a message that names the limit; nothing is written."""
    with pytest.raises(ValueError, match=r"files.* 3000\b"):
        generator.invoke({"files": files})
    assert generator.stored == {}


@pytest.mark.parametrize("name", ["sample.stats", "processed.data"])
def test_numbers_walk(generator: Generator, name: str) -> None:
    """In small steps up and down, as a job's; a warm process goes on where it ended."""
    values = [each[name] for each in generator.invoke({"files": 300}) + generator.invoke({})]
    assert len(set(values)) > 50
    assert all(abs(b - a) <= 0.05 * a + 1 for a, b in pairwise(values))
    steps = [b - a for a, b in pairwise(values)]
    assert min(steps) < 0 < max(steps)


@pytest.mark.parametrize(
    ("extreme", "first"), [(0.0, [1169, 305]), (1.0, [1293, 337])], ids=["down", "up"]
)
def test_walk_stays_in_bounds(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, extreme: float, first: list[int]
) -> None:
    """However the dice fall, a file is good; it begins a twentieth beside the README's numbers."""
    monkeypatch.setattr("random.uniform", lambda low, high: low + (high - low) * extreme)
    walked = [[*each.values()][1:] for each in generator.invoke({"files": 300})]
    assert walked[0] == first
    assert walked[-1] == [1, 1] or extreme


def test_missing_bucket_is_named(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which variable it is."""
    monkeypatch.delenv("STATS_BUCKET")
    with pytest.raises((KeyError, ValueError), match="STATS_BUCKET"):
        generator.invoke({})


def test_error_of_s3_is_raised(generator: Generator) -> None:
    """Lambda counts it, and the alarm tells; no key is claimed that isn't there."""
    answers = iter([response()] * 2 + [s3_error("403 Forbidden", "AccessDenied")] * 9)
    generator.server.script = lambda call: next(answers)
    with pytest.raises(ClientError, match="AccessDenied"):
        generator.invoke({"files": 5})
