"""The generator: what it writes, where, and what it refuses."""

from __future__ import annotations

import json
import re
import time
import uuid
from datetime import UTC, datetime
from itertools import pairwise
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from ddg_stats_file import read_stats_file
from tests.scripted_server import Call, ScriptedServer, response, s3_error
from tests.submitter import aws, cold_start

SCHEDULED = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}
KEY = re.compile(r"stats/mock-datasource/(\d{4}/\d\d/\d\d)/([^/]+)-([0-9a-f]{8})\.json")


class Generator:
    """The handler and its bucket."""

    def __init__(self, moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bucket = f"stats-{uuid.uuid4()}"
        self._s3 = aws("s3", moto)
        self._s3.create_bucket(Bucket=self.bucket)
        monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
        monkeypatch.setenv("STATS_BUCKET", self.bucket)
        self.handler: ModuleType = cold_start("ddg_mock_datasource")

    def invoke(self, event: object) -> list[str]:
        """Return the keys that the handler says it wrote."""
        answer = self.handler.lambda_handler(event, None)
        assert answer.keys() == {"keys"}
        keys: list[str] = answer["keys"]
        return keys

    def stored(self) -> dict[str, bytes]:
        """Return what is in the bucket."""
        objects = self._s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        keys = [each["Key"] for each in objects]
        return {
            key: self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys
        }


@pytest.fixture
def generator(moto: str, monkeypatch: pytest.MonkeyPatch) -> Generator:
    """The generator in a new execution environment, with a bucket of its own."""
    return Generator(moto, monkeypatch)


@pytest.mark.parametrize("event", [SCHEDULED, {}, {"files": 1}], ids=["schedule", "empty", "one"])
def test_one_file(generator: Generator, event: dict[str, object]) -> None:
    """As in the sample, of now, under the generator's own prefix."""
    before = int(time.time())
    keys = generator.invoke(event)
    stored = generator.stored()
    assert [*stored] == keys
    [content] = map(json.loads, stored.values())
    assert content.keys() == {"timestamp", "sample.stats", "processed.data"}
    assert {type(value) for value in content.values()} == {int}
    assert before <= content["timestamp"] <= time.time()
    match = KEY.fullmatch(keys[0])
    assert match is not None
    day = datetime.fromtimestamp(content["timestamp"], UTC).strftime("%Y/%m/%d")
    assert match[1] == day
    assert match[2] == str(content["timestamp"])


def test_many_files(generator: Generator) -> None:
    """A second each, the last one now; each is a good stats file, and no key comes twice."""
    keys = generator.invoke({"files": 25})
    stored = generator.stored()
    assert sorted(keys) == sorted(stored)
    assert len(set(keys)) == 25
    timestamps = [json.loads(stored[key])["timestamp"] for key in keys]
    assert [later - earlier for earlier, later in pairwise(timestamps)] == [1] * 24
    assert abs(timestamps[-1] - time.time()) < 10
    for content in stored.values():
        [sample] = read_stats_file(content, now=time.time(), max_age=3600)
        assert sample.values.keys() == {"sample.stats", "processed.data"}
    again = generator.invoke({"files": 25})
    assert not set(again) & set(keys)


def test_prefix(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder below the prefix is the job."""
    monkeypatch.setenv("STATS_PREFIX", "team/numbers/")
    [key] = generator.invoke({})
    assert key.startswith("team/numbers/mock-datasource/2")
    assert [*generator.stored()] == [key]


@pytest.mark.parametrize(
    "files", [0, -1, 6, 1.0, "1", "", None, True, [1]], ids=lambda files: repr(files)
)
def test_impossible_number_is_refused(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, files: object
) -> None:
    """With a message that names the limit, here 5; nothing is written."""
    monkeypatch.setattr(generator.handler, "MAX_FILES", 5)
    with pytest.raises(ValueError, match=r"files.* 5\b"):
        generator.invoke({"files": files})
    assert generator.stored() == {}


class Recorder:
    """Stands in for S3 where moto would take half a minute."""

    def __init__(self) -> None:
        self.written: dict[str, dict[str, int]] = {}

    def put_object(self, *, Key: str, Body: str, **_: object) -> None:  # noqa: N803  # boto3's names
        self.written[Key] = json.loads(Body)


def walk(monkeypatch: pytest.MonkeyPatch, files: int) -> list[dict[str, int]]:
    """Return what the generator writes, in the order of time."""
    recorder = Recorder()
    monkeypatch.setenv("STATS_BUCKET", "stats")
    monkeypatch.setattr(boto3, "client", lambda *_, **__: recorder)
    keys = cold_start("ddg_mock_datasource").lambda_handler({"files": files}, None)["keys"]
    assert len(recorder.written) == files
    return [recorder.written[key] for key in keys]


def test_most_files_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 have distinct seconds and none is too old for Datadog, with room for the way there."""
    stats = walk(monkeypatch, 3000)
    timestamps = [each["timestamp"] for each in stats]
    assert sorted(set(timestamps)) == timestamps
    assert time.time() - timestamps[0] < 3100
    assert timestamps[-1] <= time.time()


@pytest.mark.parametrize("name", ["sample.stats", "processed.data"])
def test_numbers_walk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each is a small step from the one before, not noise: the graph looks like a job's."""
    values = [each[name] for each in walk(monkeypatch, 1000)]
    assert min(values) >= 1
    assert len(set(values)) > 50
    assert all(abs(b - a) <= 0.05 * a + 1 for a, b in pairwise(values))
    steps = [b - a for a, b in pairwise(values)]
    assert min(steps) < 0 < max(steps)


def test_walk_goes_on_in_a_warm_process(generator: Generator) -> None:
    """The next invocation begins where the last one ended."""
    keys = generator.invoke({"files": 20}) + generator.invoke({})
    stored = generator.stored()
    first, second = (json.loads(stored[key]) for key in keys[-2:])
    for name in ("sample.stats", "processed.data"):
        assert abs(second[name] - first[name]) <= 0.05 * first[name] + 1


@pytest.mark.parametrize(
    ("extreme", "first"),
    [pytest.param(0.0, (1169, 305), id="down"), pytest.param(1.0, (1293, 337), id="up")],
)
def test_walk_stays_in_bounds(
    monkeypatch: pytest.MonkeyPatch, extreme: float, first: tuple[int, int]
) -> None:
    """However the dice fall, a file is good; it begins a twentieth beside the README's numbers."""
    monkeypatch.setattr("random.random", lambda: extreme)
    monkeypatch.setattr("random.uniform", lambda low, high: low + (high - low) * extreme)
    lowest = []
    for number, each in enumerate(walk(monkeypatch, 3000)):
        [sample] = read_stats_file(json.dumps(each).encode(), now=time.time(), max_age=3600)
        if number == 0:
            assert tuple(sample.values.values()) == first
        lowest.append(min(sample.values.values()))
    assert min(lowest) == (337 if extreme else 1)


def test_client_is_kept(generator: Generator) -> None:
    """Its connections serve all invocations."""
    assert generator.handler.s3_client() is generator.handler.s3_client()


def test_missing_bucket_is_named(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which variable it is."""
    monkeypatch.delenv("STATS_BUCKET")
    with pytest.raises((KeyError, ValueError), match="STATS_BUCKET"):
        generator.invoke({})


def test_error_of_s3_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda counts it, and the alarm tells; no key is claimed that isn't there."""

    def script(call: Call) -> bytes:
        third = len(server.calls) == 3
        return s3_error("403 Forbidden", "AccessDenied") if third else response()

    with ScriptedServer(script) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("STATS_BUCKET", "stats")
        with pytest.raises(ClientError, match="AccessDenied"):
            cold_start("ddg_mock_datasource").lambda_handler({"files": 5}, None)


def test_import_needs_no_environment() -> None:
    """Nothing is read before the first invocation."""
    module: Any = cold_start("ddg_mock_datasource")
    assert callable(module.lambda_handler)
