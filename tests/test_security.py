"""Keys are seen nowhere, and a hostile name breaks nothing."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from pathlib import Path

import pytest

from local.datadog_server import Answer, stored_tag
from tests.events import stats
from tests.submitter import Submitter

ROOT = Path(__file__).resolve().parent.parent

HOSTILE = [
    pytest.param("a\nb\r\nc", id="line-ends"),
    pytest.param("a\x1b[31m\x1b]0;title\x07\x9b31mb", id="escape-sequences"),
    pytest.param("a\x85\u2028\u2029b", id="unicode-line-ends"),
    pytest.param("a\x00b", id="null"),
    pytest.param('a"}, {"_aws": {"CloudWatchMetrics": []}, "b', id="json"),
    pytest.param("a,b:c|d#e", id="tag-syntax"),
    pytest.param("a%s{}$(b)`b`", id="format-strings"),
    pytest.param("\U0001f4a3" * 100, id="outside-the-bmp"),
    pytest.param("a\ufffe\uffffb", id="no-characters"),
    pytest.param("a" * 900, id="long"),
    pytest.param("../../etc/passwd", id="parent-folders"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_breaks_no_line_and_no_tag(submitter: Submitter, name: str) -> None:
    """A job's, a value, a metric's, and whoever answers for Datadog isn't to be trusted either."""
    now = int(time.time())
    key = f"stats/{name}/file"
    bad = [
        {"timestamp": name, "m": 1},
        {"timestamp": now, "m": name},
        {"timestamp": now, name: "1"},
    ]
    contents = {f"stats/{i}": json.dumps(content).encode() for i, content in enumerate(bad)}
    good = submitter.submit_from({key: stats(), **contents})
    assert (good.files, len(good.log)) == ((1, 3, 0), 3)  # a line each
    submitter.datadog.respond = lambda request: Answer(400, json.dumps({"errors": [name]}).encode())
    refused = submitter.submit_from({key: stats()}, submitter.message(key, receive_count=2))
    assert (refused.files, len(refused.log)) == ((0, 1, 0), 1)
    for text in (*good.log, *good.reasons, *refused.log, *refused.reasons):
        assert {unicodedata.category(c) for c in text}.isdisjoint({"Cc", "Zl", "Zp"}), text
    for request in submitter.datadog.requests:
        for series in request.series or []:
            assert series["tags"] == [stored_tag(tag) for tag in series["tags"]]


def test_sources_hold_no_key() -> None:
    """Nothing of 32 or 40 hexadecimal digits is written in what goes into the zips."""
    for file in (*ROOT.glob("ddg_*.py"), *ROOT.glob("*.tf")):
        assert not re.search(r"\b([0-9a-f]{32}|[0-9a-f]{40})\b", file.read_text()), file
