"""ddg-ops rejected and dead: list, show, replay; nothing is lost on the way."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from ddg_ops import queues, walk
from ddg_ops.queues import Groups
from ddg_ops.screen import utc
from ddg_s3_objects import REPLAYED
from tests.interrupted import CUT_OFF, every_interruption
from tests.operated import ACCOUNT, StackOnMoto, make_stack, notification, reject, stats

stack = pytest.fixture(make_stack)


# --- list, show ---


def test_list_groups_by_job_and_reason(stack: StackOnMoto) -> None:
    """Similar reasons are one group with an example; all messages are visible again."""
    for number in range(12):
        reason = f"timestamp 1764000{number:03} is 40{number:02} s old, and points older than 9 s"
        stack.reject(f"stats/etl/{number}.json", reason)
    stack.reject("stats/nightly/a.json", "S3 is odd, at line 3")
    before = stack.bodies(stack.rejected_url)
    result = stack.run("rejected list")
    assert (result.code, stack.bodies(stack.rejected_url)) == (0, before)
    when, place = r"\S+Z \(\d+ s ago\)", f"        such as s3://{stack.bucket}/stats"
    patterns = (
        "    12  job:etl",
        r"        timestamp 1764000(\d+) is 40\d+ s old, and points older than 9 s",
        f"        {when}( to {when})?",
        rf"{place}/etl/\d+\.json",
        "     1  job:nightly",
        "        S3 is odd, at line 3",
        f"        {when}",
        f"{place}/nightly/a.json",
        f"13 messages in {stack.name}-rejected.",
    )
    for line, pattern in zip(result.out.splitlines(), patterns, strict=True):
        assert re.fullmatch(pattern, line)
    document = stack.run("rejected list --json --job nightly").document
    [group] = document["groups"]
    assert group.pop("oldest") == group.pop("newest")
    assert group == {
        "count": 1,
        "job": "job:nightly",
        "reason": "S3 is odd, at line 3",
        "example": f"s3://{stack.bucket}/stats/nightly/a.json",
    }
    numbers = ("messages_read", "messages_chosen", "complete", "visible_by_sqs")
    assert [document[name] for name in numbers] == [13, 1, True, 13]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("timestamp 1 is 3601 s old, and x", "timestamp 2 is 9000 s old, and x", True),
        ("line 3: not JSON: line 3 column 1", "line 4: not JSON: line 4 column 8", True),
        ('"a" is the string "x\\"y"...: A', '"a" is the string "z": A', True),
        ('A: "tags": ["a:x"]; "b" is', 'A: "tags": ["a:\\"]y"]; "b" is', True),
        ("the number 17640000000000, not", "the number NaN, not", True),
        ("points older than 3600 s are", "points older than 600 s are", False),
        ('"m1" is a list', '"m2" is a list', False),
        ("S3 answered 403", "S3 answered 404", False),
    ],
)
def test_kinds_of_reasons(one: str, other: str, same: bool) -> None:
    """A file's own numbers and texts make no new group; names and limits do."""
    groups = Groups()
    for reason in (one, other):
        groups.add("a job", reason, "s3://b/k")
    assert [(group.count, group.reason) for group in groups] == (
        [(2, one)] if same else [(1, one), (1, other)]
    )


def test_groups_are_bounded() -> None:
    """A reason of its own in each file costs neither memory nor the screen."""
    groups = Groups()
    for number in range(2_000):
        groups.add("a job", f"reason {number}", "s3://b/k")
    assert len(list(groups)) == 201
    assert (next(iter(groups)).title, next(iter(groups)).count) == ("of other kinds", 1_800)


NO_SUCH_JOB = (
    "0 of 3 messages in {} (--job nope --reason old). The jobs there: job:etl (2), job:my_job"
)


@pytest.mark.parametrize(
    ("options", "keys", "said"),
    [
        ("--job My_Job", "My Job/1", "1 of 3 messages in {} (--job My_Job)."),
        ("--job job:my_job", "My Job/1", "1 of 3 messages"),
        ("--reason 2H", "etl/1 etl/2", "2 of 3 messages"),
        ("--key etl/2", "etl/2", "1 of 3 messages"),
        ("--since 1h", "My Job/1 etl/1 etl/2", "3 messages in {}."),
        ("--job nope --reason old", "", NO_SUCH_JOB),
    ],
)
def test_selection(options: str, keys: str, said: str, stack: StackOnMoto) -> None:
    """Other messages stay, and the output says what there was."""
    reject(stack, "stats/My Job/1")
    reject(stack, "stats/etl/1", "stats/etl/2", reason="older than 2h")
    result = stack.run("rejected discard --yes", *options.split())
    assert result.code == 0
    assert said.format(f"{stack.name}-rejected") in result.out
    chosen = {f"stats/{key}" for key in re.findall(r"My Job/1|etl/\d", keys)}
    left = {
        json.loads(each)["Records"][0]["s3"]["object"]["key"]
        for each in stack.bodies(stack.rejected_url)
    }
    assert left == {"stats/My Job/1", "stats/etl/1", "stats/etl/2"} - chosen


def test_selection_by_time_and_number(stack: StackOnMoto) -> None:
    """--since takes the times that list shows; --limit ends the walk."""
    reject(stack, "stats/a/1", "stats/a/2")
    stack.queue(stack.rejected_url)._messages[0].sent_timestamp -= 10_000_000
    for since, chosen in (("1h", 1), ("4h", 2), (utc(time.time() + 5), 0)):
        found = stack.run("rejected list --json --since", since).document
        assert found["messages_chosen"] == chosen
    limited = stack.run("rejected list --limit 1")
    assert limited.code == 0
    assert f"1 message of {stack.name}-rejected (--limit 1)." in limited.out


def test_show_has_the_files(stack: StackOnMoto) -> None:
    """Their beginnings, plain or gzip; files that are gone; a message that names none."""
    stack.put("stats/a/plain", b'{"a":\t"\x1b[31m"}\nline two')
    stack.put("stats/a/zip", gzip.compress(b"zipped " + 5000 * b"x"))
    reject(stack, "stats/a/plain", "stats/a/zip", "stats/a/gone")
    stack.reject("", "the message names no object", body="nonsense")
    for bucket in ("../no bucket", "nobodys-bucket"):
        stack.reject("k", "odd", body=notification(bucket, "k"))
    result = stack.run("rejected show --limit 9")
    for line in ('{"a":   "\ufffd[31m"}', "line two", "nonsense"):
        assert f"\n    | {line}\n" in result.out
    assert result.out.count("    | (the file is gone)\n") == 3
    assert f"    | zipped {1_993 * 'x'}\n" in result.out
    assert "\x1b" not in result.out
    document = stack.run("rejected show --key plain --json").document
    assert document["messages"][0]["files"][0]["beginning"].startswith('{"a":')


def test_dead_messages(stack: StackOnMoto) -> None:
    """The same commands; they have no reason, but a command that finds it in the log."""
    bodies = sorted(notification(stack.bucket, f"stats/a/{number}") for number in range(3))
    stack.send_all(stack.dead_letter_url, bodies)
    for message in stack.queue(stack.dead_letter_url)._messages:
        message.sent_timestamp -= 10_000_000
    stack.log("retried 1: Datadog answered 403. ", at=time.time() - 9_990)
    listed = stack.run("dead list")
    assert "     3  job:a\n        received 1 time; find out why: ddg-ops tail" in listed.out
    hint = re.search(r"ddg-ops (tail --since \S+ --no-follow)", listed.out)
    assert hint
    assert "Datadog answered 403." in stack.run(hint[1]).out
    assert "(the file is gone)" in stack.run("dead show").out
    assert "Nothing was sent" in stack.run("dead replay").out
    assert stack.bodies(stack.dead_letter_url) == bodies
    assert stack.run("dead replay --yes").code == 0
    assert stack.bodies(stack.main_url) == bodies
    assert stack.bodies(stack.dead_letter_url) == []
    assert "0 messages in" in stack.run("dead list").out


# --- replay ---


def test_replay_is_dry_without_yes(stack: StackOnMoto) -> None:
    """It forecasts each file's outcome and changes nothing; --only-good leaves the rest."""
    stack.put("stats/a/good", stats(rows=1))
    stack.put("stats/a/bad", stats(rows="1"))
    bodies = reject(stack, "stats/a/bad", "stats/a/gone")
    good = reject(stack, "stats/a/good", "stats/a/_SUCCESS")
    stack.take(stack.main_url)
    result = stack.run("rejected replay")
    for line in (
        "     2  would be submitted\n",
        '     1  would be refused again\n        "rows" is the string "1": write it',
        "     1  would be refused again\n        the object is gone.",
        "Nothing was sent. --yes sends 4 messages from",
    ):
        assert line in result.out
    assert stack.bodies(stack.rejected_url) == sorted(bodies + good)
    assert stack.bodies(stack.main_url) == []
    document = stack.run("rejected replay --json").document
    assert (document["dry_run"], document["forecast"][0]["count"]) == (True, 2)
    assert (stack.datadog.requests, stack.datadog.validations) == ([], [])
    assert stack.run("rejected replay --only-good --yes").code == 0
    assert stack.bodies(stack.main_url) == good
    assert stack.bodies(stack.rejected_url) == bodies


def test_replay_sends_the_body_as_it_came(stack: StackOnMoto) -> None:
    """To the byte, whatever it is; SQS takes 256 KiB in a call."""
    odd = [json.dumps({"Records": n, "x": 50_000 * "é"}, ensure_ascii=False) for n in range(6)]
    odd.append('{"Records": [],\t"é": "\U0001f600"}')
    for body in odd:
        stack.reject("", "no object", body=body)
    bodies = reject(stack, *(f"stats/a/{number}" for number in range(11)))
    result = stack.run("rejected replay --yes --json")
    assert (result.code, result.document["sent"], result.document["kept"]) == (0, 18, 0)
    assert stack.bodies(stack.main_url) == sorted(bodies + odd)
    sent = [message.message_attributes for message in stack.queue(stack.main_url).messages]
    assert [set(each) for each in sent] == 18 * [{REPLAYED}]  # so that their wait isn't a delay
    assert stack.bodies(stack.rejected_url) == []


def test_replay_ends_though_all_come_back(stack: StackOnMoto) -> None:
    """Files that are refused again during the replay aren't sent again."""
    reject(stack, *(f"stats/a/{number}" for number in range(11)))
    send, rounds = queues.send, itertools.count()

    def send_and_refuse(stack_: Any, messages: Any) -> Any:
        assert next(rounds) < 10, "it doesn't end"
        sent = send(stack_, messages)
        stack.submit()
        return sent

    stack.patch.setattr(queues, "send", send_and_refuse)
    stack.patch.setattr(walk, "time_at_aws", lambda _: time.time() - 1)
    assert stack.run("rejected replay --yes --json").document["sent"] == 11
    assert len(stack.bodies(stack.rejected_url)) == 11  # the files are gone: refused again


def test_replay_keeps_what_sqs_does_not_accept(stack: StackOnMoto) -> None:
    """SQS may accept some messages of a call and not others."""
    reject(stack, *(f"stats/a/{number}" for number in range(5)))
    send = queues.send

    def refuse_one(stack_: Any, messages: Any) -> Any:
        return send(stack_, [each for each in messages if "/4" not in each.body])

    stack.patch.setattr(queues, "send", refuse_one)
    result = stack.run("rejected replay --yes")
    assert (result.code, "4 sent from" in result.out) == (3, True)
    assert len(stack.bodies(stack.rejected_url)) == 1


@pytest.mark.parametrize(
    "foreign", ["stats", "dead_letter", "rejected", "function", "mapping", "region"]
)
def test_foreign_queue_is_left_alone(foreign: str, stack: StackOnMoto) -> None:
    """With wrong outputs, nothing is sent or deleted."""
    other = StackOnMoto(stack.moto, stack.datadog, stack.patch)
    for one in (stack, other):
        one.send_all(one.rejected_url, ["{}"])
        one.send_all(one.dead_letter_url, ["{}"])
    if foreign == "function":
        stack.outputs["function_names"] = other.outputs["function_names"]
    elif foreign == "mapping":
        stack.aws["lambda"].delete_event_source_mapping(UUID=stack.mapping)
    elif foreign == "region":
        stack.outputs["alarm_topic_arn"] = {"value": f"arn:aws:sns:eu-west-1:{ACCOUNT}:x"}
    else:
        stack.urls[foreign] = other.urls[foreign]
    commands = ("rejected replay", "dead replay", "rejected discard", "rejected save kept --delete")
    for command in commands:
        result = stack.run(f"{command} --yes")
        assert (result.code, result.out) == (3, ""), result
        assert foreign == "region" or "nothing was done" in result.err
    for one in (stack, other):
        assert one.bodies(one.main_url) == []
        assert one.bodies(one.rejected_url) == one.bodies(one.dead_letter_url) == ["{}"]


# --- Interruptions ---


@pytest.mark.filterwarnings(CUT_OFF)
@pytest.mark.parametrize(
    ("command", "dead"),
    [
        pytest.param("rejected replay --yes", False, id="replay, Ctrl-C"),
        pytest.param("rejected replay --yes", True, id="replay, killed"),
        pytest.param("rejected save kept --delete --yes", True, id="save, killed"),
        pytest.param("rejected discard --yes", True, id="discard, killed"),
    ],
)
def test_nothing_is_lost_at_any_step(command: str, dead: bool, stack: StackOnMoto) -> None:
    """A message is in the queue, or where it went, or in both."""
    keys = [f"stats/a/{number}" for number in range(11)]  # one more than SQS gives in a call
    bodies = {notification(stack.bucket, key) for key in keys}

    def prepare() -> None:
        for url in (stack.rejected_url, stack.main_url):
            stack.purge(url)
        for note in [*Path().glob("kept/*"), *Path().glob("discarded.jsonl")]:
            note.unlink()
        stack.send_all(stack.rejected_url, bodies)

    def check() -> None:
        safe = stack.everything(stack.rejected_url) | stack.everything(stack.main_url)
        for note in Path().glob("kept/*.json"):
            safe.add(json.loads(note.read_text())["body"])
        for notes in Path().glob("discarded.jsonl"):
            safe |= {json.loads(line)["body"] for line in notes.read_text().splitlines()}
        assert safe == bodies

    steps = every_interruption(lambda: stack.run(command), prepare, check, dead=dead)
    assert steps >= 2 * 12  # identity, queues, function, mapping, receives, deletes
    assert stack.everything(stack.rejected_url) == set()
