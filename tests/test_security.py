"""Keys are seen nowhere, and a hostile name breaks nothing, whatever strikes."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from itertools import chain
from pathlib import Path

import pytest

from local.datadog_server import Answer
from local.faults import API_KEY, APP_KEY, PREFIX, WRONG_KEY
from local.invariants import CONTROL, check_message
from tests.campaigns import SEEDS, schedule, short_campaign
from tests.scripted_server import ScriptedServer, bucket_of
from tests.submitter import Submitter

ROOT = Path(__file__).resolve().parent.parent
KEYS = (API_KEY, APP_KEY, WRONG_KEY)

pytestmark = pytest.mark.xdist_group("campaign")


# --- Keys, under every fault of the campaign ---


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_are_in_nothing_that_the_function_says(seed: int) -> None:
    """Neither in a log line, DEBUG among them, nor in the summary, nor in a rejected message.

    Datadog's answers tell them in every seed, as a proxy's page may that shows the request.
    """
    outcome = short_campaign()[SEEDS.index(seed)]
    assert "DD-API-KEY" in outcome.printed
    texts = [outcome.printed]
    texts += [
        rejected.body + json.dumps(dict(rejected.attributes)) for rejected in outcome.rejected
    ]
    assert [key for key in KEYS for text in texts if key in text] == []


def test_campaign_has_keys_of_both_kinds_and_levels() -> None:
    """In the environment and in a secret, with DEBUG and without."""
    drawn = {(schedule(seed).secret, schedule(seed).debug) for seed in SEEDS}
    assert drawn == {(False, False), (False, True), (True, False), (True, True)}


def test_key_is_in_no_refused_reason() -> None:
    """Datadog's answer becomes the reason, and the answer had the key in it."""
    reasons = [
        rejected.attributes["reason"]
        for outcome in short_campaign()
        for rejected in outcome.rejected
        if "Datadog answered 400" in rejected.attributes["reason"]
    ]
    assert reasons
    assert all("<key>" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["DATADOG_API_KEY", "DATADOG_APP_KEY"])
@pytest.mark.parametrize("flaw", [" ", "\n", "\x00", "\x7f", "é"])
def test_malformed_key_is_not_told(submitter: Submitter, name: str, flaw: str) -> None:
    """The error names the variable alone."""
    with pytest.raises(ValueError, match=name) as caught:
        submitter.module.read_settings(
            {"DATADOG_API_KEY": "x", "REJECTED_QUEUE_URL": "http://q", name: API_KEY + flaw}
        )
    assert API_KEY not in f"{caught.value!r} {caught.value}"
    assert caught.value.__cause__ is None


def test_sources_hold_no_key() -> None:
    """Nothing of 32 or 40 hexadecimal digits is written in what goes into the zips."""
    for file in (*ROOT.glob("ddg_m*.py"), *ROOT.glob("ddg_s*.py"), ROOT / "main.tf"):
        assert not re.search(r"\b([0-9a-f]{32}|[0-9a-f]{40})\b", file.read_text()), file


# --- Hostile names ---

HOSTILE = [
    pytest.param("a\nb", id="line-feed"),
    pytest.param("a\r\nb", id="carriage-return"),
    pytest.param("a\x1b[31m\x1b]0;title\x07b", id="escape-sequences"),
    pytest.param("a\x9b31mb", id="c1-control"),
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


def submit_one(submitter: Submitter, key: str, content: bytes) -> tuple[list[str], list[str]]:
    """Submit a file; return the log's lines and the reasons."""
    with ScriptedServer(bucket_of({key: content})) as s3:
        submitter.set(AWS_ENDPOINT_URL=s3.url)
        outcome = submitter.submit(submitter.message(key))
    return outcome.log, outcome.reasons


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_key_breaks_no_line_and_no_tag(submitter: Submitter, name: str) -> None:
    """A job is named by whoever may write a key."""
    good = json.dumps({"timestamp": now(submitter), "m": 1}).encode()
    log, _ = submit_one(submitter, f"{PREFIX}{name}/file", good)
    assert not any(CONTROL.search(line) for line in log)
    tags = [tag for _, tags in submitter.datadog.points for tag in tags]
    assert all(fit_for_a_tag(tag) for tag in tags), tags


def now(submitter: Submitter) -> int:
    """Return the time."""
    return int(submitter.module.time.time())


def fit_for_a_tag(tag: str) -> bool:
    """Tell whether Datadog keeps a tag as it is."""
    kinds = {unicodedata.category(character)[0] for character in tag} - {"L", "N"}
    others = {c for c in tag if unicodedata.category(c)[0] not in "LN"}
    return len(tag) <= 200 and others <= set("_-:./") and kinds <= {"P"}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_in_a_file_break_no_line_and_no_reason(
    submitter: Submitter, name: str
) -> None:
    """A metric's, a tag's, a value: each is told in a reason of one line."""
    for stats in (
        {"timestamp": 1, name: 1},
        {"timestamp": name, "m": 1},
        {"timestamp": now(submitter), "m": name},
        {"timestamp": now(submitter), f"1{name}": 1},
    ):
        key = f"{PREFIX}{name}"
        module = submitter.module
        delivery = module.Delivery("bucket", key)
        with pytest.raises(module.StatsFileError) as refused:
            module.ddg_stats_file.read_stats_file(
                json.dumps(stats).encode(), now=now(submitter), max_age=3600
            )
        assert str(refused.value).isprintable()
        delivery.refused = str(refused.value)
        assert not CONTROL.search(module.address(delivery))
        check_message(module.rejected_message(module.Message("id", "body", 1, [delivery])))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answer_breaks_no_line_and_no_reason(submitter: Submitter, name: str) -> None:
    """Whoever answers for Datadog is not to be trusted either."""
    submitter.datadog.respond = lambda request: Answer(400, name.encode())
    submitter.put("stats/a", json.dumps({"timestamp": now(submitter), "m": 1}).encode())
    outcome = submitter.submit(submitter.message("stats/a"))
    assert outcome.files == (0, 1, 0)
    assert not any(CONTROL.search(text) for text in chain(outcome.log, outcome.reasons))


def test_limit_of_names_is_documented() -> None:
    """A file with very many names is money: the page tells the limit and how to change it."""
    tree = ast.parse((ROOT / "ddg_stats_file.py").read_text())
    [limit] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MAX_NAMES"
    ]
    page = (ROOT / "docs/reliability.md").read_text()
    assert f"{limit:,} different metric names" in page
    assert "`MAX_NAMES`" in page
