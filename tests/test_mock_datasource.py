"""The generator: what it writes, where, and what it refuses."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from ddg_stats_file import read_stats_file
from tests.submitter import cold_start

SCHEDULED = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}


class Generator:
    """The handler in a new execution environment, and its bucket."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.stored: dict[str, bytes] = {}
        self.patch = patch
        patch.setattr("boto3.client", lambda *_, **__: SimpleNamespace(put_object=self.put))
        patch.setenv("STATS_BUCKET", "stats-bucket")
        self.module: Any = cold_start("ddg_mock_datasource")

    def put(self, Bucket: str, Key: str, Body: str, ContentType: str) -> None:  # noqa: N803  # S3's
        assert (Bucket, ContentType) == ("stats-bucket", "application/json")
        self.stored[Key] = Body.encode()

    def invoke(self, event: object) -> list[dict[str, float]]:
        """Return the contents of the files that the handler says it wrote; all are good."""
        answer = self.module.lambda_handler(event, None)
        assert answer.keys() == {"keys"}
        contents = [self.stored[key] for key in answer["keys"]]
        assert all(read_stats_file(each, now=time.time(), max_age=3600) for each in contents)
        return [json.loads(content) for content in contents]


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Generator:
    return Generator(monkeypatch)


@pytest.mark.parametrize("event", [SCHEDULED, {"files": 1}], ids=["schedule", "one"])
@pytest.mark.parametrize(
    ("heartbeat", "folder", "metrics"),
    [
        ("", "mock-datasource", {"sample.stats", "processed.data"}),
        ("true", "heartbeat", {"ddg.heartbeat"}),
    ],
)
def test_one_file(
    generator: Generator, event: dict[str, object], heartbeat: str, folder: str, metrics: set[str]
) -> None:
    """It has the current time, and each day its own folder."""
    generator.patch.setenv("STATS_PREFIX", "team/numbers/")
    generator.patch.setenv("HEARTBEAT", heartbeat)
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
    """They are a second apart, the last one has the current time, and no key is used twice."""
    for files in (25, 3000):
        timestamps = [each["timestamp"] for each in generator.invoke({"files": files})]
        assert [later - earlier for earlier, later in pairwise(timestamps)] == [1] * (files - 1)
        assert 0 <= time.time() - timestamps[-1] < 60
    assert len(generator.stored) == 25 + 3000
    assert all(key.startswith("stats/mock-datasource/") for key in generator.stored)


@pytest.mark.parametrize("files", [0, 3001, 1.0, None, True], ids=repr)
def test_impossible_number_of_files_is_refused(generator: Generator, files: object) -> None:
    with pytest.raises(ValueError, match=r"files.* 3000\b"):
        generator.invoke({"files": files})
    assert generator.stored == {}


def test_numbers_change_in_small_steps(generator: Generator) -> None:
    """A warm process continues with its last numbers."""
    written = generator.invoke({"files": 300}) + generator.invoke({})
    for name in ("sample.stats", "processed.data"):
        values = [each[name] for each in written]
        assert len(set(values)) > 50
        assert all(abs(b - a) <= 0.05 * a + 1 for a, b in pairwise(values))
        steps = [b - a for a, b in pairwise(values)]
        assert min(steps) < 0 < max(steps)


@pytest.mark.parametrize(
    ("extreme", "first"), [(0.0, [1169, 305]), (1.0, [1293, 337])], ids=["down", "up"]
)
def test_numbers_stay_positive(generator: Generator, extreme: float, first: list[int]) -> None:
    """The first ones are near those of the README."""
    generator.patch.setattr("random.uniform", lambda low, high: low + (high - low) * extreme)
    written = [[*each.values()][1:] for each in generator.invoke({"files": 300})]
    assert written[0] == first
    assert written[-1] == [1, 1] or extreme


def test_missing_bucket_is_named(generator: Generator) -> None:
    generator.patch.delenv("STATS_BUCKET")
    with pytest.raises((KeyError, ValueError), match="STATS_BUCKET"):
        generator.invoke({})


def test_error_of_s3_is_raised(generator: Generator) -> None:
    """Lambda counts it, and an alarm rings."""

    def deny(**_: str) -> None:
        raise PermissionError

    generator.patch.setattr(generator, "put", deny)
    with pytest.raises(PermissionError):
        generator.invoke({"files": 5})
