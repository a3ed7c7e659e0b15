"""Hostile names break no log line, and the sources hold no key."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

from local.datadog_server import Answer, stored_tag
from tests.events import STARTED, stats
from tests.scripted_server import s3_error
from tests.submitter import Submitter

ROOT = Path(__file__).resolve().parent.parent

BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
HOSTILE = {
    "line-ends": "a\nb\r\nc\x85\u2028\u2029d",
    "directions": f"{BIDIRECTIONAL}nosj.a",
    "escape-sequences": "a\x1b[31m\x1b]0;title\x07\x9b31mb\x00",
    "json": 'a"}, {"_aws": {"CloudWatchMetrics": []}, "b',
    "tag-syntax": "a,b:c|d#e",
    "format-strings": "a%s{}$(b)`b`",
    "outside-the-bmp": "\U0001f4a3" * 100,
    "no-characters": "a\ufffe\uffffb",
    "long": "a" * 900,
    "parent-folders": "../../etc/passwd",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_name_breaks_no_line_and_no_tag(submitter: Submitter, name: str) -> None:
    """It is a job, a value, a metric, or Datadog's answer. The fixture checks lines and reasons."""
    bad = [{"timestamp": name, "m": 1}, {"timestamp": STARTED, "m": name}]
    bad += [{"timestamp": STARTED, name: "1"}]
    contents = {f"stats/{n}": json.dumps(content).encode() for n, content in enumerate(bad)}
    denied = s3_error("403 Forbidden", "AccessDenied")
    good, key = {f"stats/{name}/file": stats()}, f"stats/{name}/no"
    outcome = submitter.submit_from({**good, **contents, key: lambda call: denied})
    assert (outcome.files, len(outcome.log)) == ((1, 3, 1), 4)  # a line each
    [request] = submitter.datadog.requests
    for series in request.series or []:
        assert series["tags"] == [stored_tag(tag) for tag in series["tags"]]
    errors = json.dumps({"errors": [name]}, ensure_ascii=False)
    told, cut = Answer(400, errors.encode()), Answer(500, f"{name}\xff{'x' * 70_000}".encode())
    for answer, files in ((told, (0, 1, 0)), (cut, (0, 0, 1))):
        submitter.datadog.respond = partial(lambda known, _: known, answer)
        outcome = submitter.submit_from(good, submitter.message(*good, receive_count=2))
        assert (outcome.files, len(outcome.log)) == (files, 1)
        assert len(outcome.log[0]) < 3000


def test_sources_hold_no_key() -> None:
    for file in (*ROOT.glob("ddg_*.py"), *ROOT.glob("*.tf")):
        assert not re.search(r"\b([0-9a-f]{32}|[0-9a-f]{40})\b", file.read_text()), file
