"""ddg_ops.py rejected, dead and backfill: what they do, and that nothing is lost on the way."""

from __future__ import annotations

import gc
import gzip
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

import ddg_ops_backfill
import ddg_ops_queues
from ddg_series_api import SeriesApi
from local.datadog_server import Answer, DatadogServer, Request
from tests.operated import (
    KEY,
    Result,
    Run,
    StackOnMoto,
    make_run,
    make_stack,
    notification,
    stats,
)
from tests.sqs_stub import Queue, SqsStub

ROOT = Path(__file__).resolve().parent.parent
stack = pytest.fixture(make_stack)
run = pytest.fixture(make_run)
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    """Checkpoints and notes are written where the command is run."""
    monkeypatch.chdir(tmp_path)


def reject(stack: StackOnMoto, *keys: str, reason: str = "not JSON") -> list[str]:
    """Put a message for each key into the rejected queue; return their bodies."""
    for key in keys:
        stack.reject(key, reason)
    return sorted(notification(stack.bucket, key) for key in keys)


# --- The story ---


def test_story_of_a_broken_job(stack: StackOnMoto, run: Run, datadog: DatadogServer) -> None:
    """At 3 a.m.: a job's files are refused since noon. Find out why, mend it, get them in."""
    for number in range(3):
        stack.put(f"stats/nightly/{number}.json", stats(rows=str(number)))
    stack.put("stats/etl/1.json", stats(rows=1))
    stack.submit()

    assert run("check").code == 1  # "See what and why: ddg_ops.py rejected list"
    listed = run("rejected", "list", "--json").document
    assert [(each["count"], each["job"]) for each in listed["groups"]] == [(3, "job:nightly")]
    assert '"rows" is the string "' in listed["groups"][0]["reason"]
    assert '| {"timestamp": ' in run("rejected", "show", "--job", "nightly", "--limit", "1").out

    dry = run("rejected", "replay", "--job", "nightly")
    assert 'would be refused again: "rows" is the string "...".' in dry.out
    for number in range(3):  # the job has been mended, and writes them again
        stack.put(f"stats/nightly/{number}.json", stats(rows=number))
    stack.take(stack.main_url)  # as if these had come under other keys
    assert "     3  would be submitted\n" in run("rejected", "replay", "--job", "nightly").out
    assert stack.bodies(stack.main_url) == []
    replayed = run("rejected", "replay", "--job", "nightly", "--yes")
    assert "3 sent to" in replayed.out
    stack.submit()

    assert ("rows", ("env:test", "job:nightly")) in datadog.points
    assert run("check").code == 0


# --- list, show ---


def test_list_groups_by_job_and_reason(stack: StackOnMoto, run: Run) -> None:
    """The same trouble in many files is one line, whatever its numbers; all is given back."""
    for number in range(12):
        stack.reject(
            f"stats/etl/{number}.json", f"timestamp {number} is 9{number} s old, and so on"
        )
    stack.reject("stats/nightly/a.json", "not JSON at line 3")
    before = stack.bodies(stack.rejected_url)
    result = run("rejected", "list")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "    12  job:etl"
    assert lines[1].endswith("s old, and so on")
    assert f"s3://{stack.bucket}/stats/etl/" in lines[2]
    assert lines[3] == "     1  job:nightly"
    assert lines[-2].startswith(f"13 messages in {stack.name}-rejected; SQS deletes the oldest in")
    assert "approximate: it says 13." in lines[-1]
    assert "visibility timeout of 300 s and then given back" in lines[-1]
    assert stack.bodies(stack.rejected_url) == before


@pytest.mark.parametrize(
    ("reason", "group"),
    [
        pytest.param("timestamp 12 is 3600 s old", "timestamp N is N s old", id="numbers"),
        pytest.param("over 10,485,760 bytes", "over N bytes", id="a number with commas"),
        pytest.param('"a.b" is the string "x\\"y". A', '"a.b" is the string "...". A', id="value"),
    ],
)
def test_groups_of_reasons(reason: str, group: str) -> None:
    """What differs from file to file is left out; the metric's name stays."""
    assert ddg_ops_queues.group_of(reason) == group


def test_list_for_machines(stack: StackOnMoto, run: Run) -> None:
    """The same, as a document."""
    reject(stack, "stats/a/1.json", "stats/b/1.json")
    document = run("rejected", "list", "--json", "--job", "b").document
    assert document["messages"] == 1
    assert document["approximate"] is True
    assert document["visibility_timeout_seconds"] == 300
    assert document["groups"][0] | {"oldest": "", "newest": ""} == {
        "count": 1,
        "job": "job:b",
        "reason": "not JSON",
        "oldest": "",
        "newest": "",
        "example": f"s3://{stack.bucket}/stats/b/1.json",
    }


def test_list_of_an_empty_queue(stack: StackOnMoto, run: Run) -> None:
    """Nothing is something to say."""
    result = run("rejected", "list")
    assert (result.code, result.out.splitlines()[0][:14]) == (0, "Nothing to see")


def test_list_shows_the_largest_groups(stack: StackOnMoto, run: Run, monkeypatch: Patch) -> None:
    """A hostile job can't flood the terminal: the rest is counted."""
    monkeypatch.setattr(ddg_ops_queues, "SHOWN_GROUPS", 2)
    for job in "abcde":
        stack.reject(f"stats/{job}/1.json", "bad")
    out = run("rejected", "list").out
    assert out.count("job:") == 2
    assert "and 3 more groups" in out


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        pytest.param(["--job", "My Job"], ["My Job/1"], id="a job, as it is written"),
        pytest.param(["--job", "my_job"], ["My Job/1"], id="a job, as it is in Datadog"),
        pytest.param(["--reason", "TOO OLD"], ["etl/1", "etl/2"], id="a reason, in any case"),
        pytest.param(["--key", "etl/2"], ["etl/2"], id="a key"),
        pytest.param(["--limit", "0"], [], id="none"),
        pytest.param([], ["My Job/1", "etl/1", "etl/2"], id="all"),
    ],
)
def test_selection(options: list[str], keys: list[str], stack: StackOnMoto, run: Run) -> None:
    """What isn't chosen stays."""
    reject(stack, "stats/My Job/1")
    reject(stack, "stats/etl/1", "stats/etl/2", reason="too old")
    assert run("rejected", "discard", "--yes", *options).code == 0
    expected = {"stats/My Job/1", "stats/etl/1", "stats/etl/2"} - {f"stats/{key}" for key in keys}
    left = {
        json.loads(each)["Records"][0]["s3"]["object"]["key"]
        for each in stack.bodies(stack.rejected_url)
    }
    assert left == expected


def test_limit_ends_a_walk(stack: StackOnMoto, run: Run) -> None:
    """So many and no more: the others are visible at once, or weren't even received."""
    reject(stack, *(f"stats/a/{number}" for number in range(25)))
    run("rejected", "discard", "--yes", "--limit", "12")
    received = [
        each.approximate_receive_count for each in stack.queue(stack.rejected_url)._messages
    ]
    assert sorted(received) == [0] * 5 + [1] * 8
    assert len(stack.bodies(stack.rejected_url)) == 13


def test_show_has_the_files(stack: StackOnMoto, run: Run) -> None:
    """The files' beginnings: plain, gzip, gone, broken, and a message that names none."""
    stack.put("stats/a/plain", b'{"a":\t"\x1b[31m"}\nline two')
    stack.put("stats/a/zip", gzip.compress(b"zipped " + 5000 * b"x"))
    stack.put("stats/a/broken", b"\x1f\x8b" + b"\0" * 20)
    reject(stack, "stats/a/plain", "stats/a/zip", "stats/a/broken", "stats/a/gone")
    stack.reject("", "the message names no object", body="nonsense")
    result = run("rejected", "show", "--limit", "9")
    for line in (
        '    | {"a":   "\ufffd[31m"}',
        "    | line two",
        "    | (the file is gone)",
        "    | nonsense",
    ):
        assert f"\n{line}\n" in result.out
    assert "    | zipped xxx" in result.out
    assert "xxx...\n" in result.out
    assert "    | (broken gzip data: " in result.out
    assert "\x1b" not in result.out
    document = run("rejected", "show", "--key", "plain", "--json").document
    assert document["messages"][0]["files"][0]["beginning"].startswith('{"a":')
    assert "No such message" in run("rejected", "show", "--key", "nothing").out


# --- replay ---


def test_replay_is_dry_without_yes(stack: StackOnMoto, run: Run) -> None:
    """It says what would become of each file, and changes nothing."""
    stack.put("stats/a/good", stats(rows=1))
    stack.put("stats/a/bad", stats(rows="1"))
    bodies = reject(stack, "stats/a/good", "stats/a/bad", "stats/a/gone")
    stack.take(stack.main_url)
    result = run("rejected", "replay")
    assert "     1  would be submitted\n" in result.out
    assert '     1  would be refused again: "rows" is the string "...".' in result.out
    assert "     1  would be refused again: the object is gone." in result.out
    assert "Nothing was sent. With --yes 3 go from" in result.out
    assert stack.bodies(stack.rejected_url) == bodies
    assert stack.bodies(stack.main_url) == []
    assert run("rejected", "replay", "--json").document["dry_run"] is True


def test_replay_sends_the_body_as_it_came(stack: StackOnMoto, run: Run) -> None:
    """What S3 wrote, to the byte, whatever it is."""
    odd = '{"Records": [],\t"é": "\U0001f600"}'
    stack.reject("", "no object", body=odd)
    bodies = reject(stack, *(f"stats/a/{number}" for number in range(11)))
    result = run("rejected", "replay", "--yes", "--json")
    assert (result.code, result.document["sent"], result.document["kept"]) == (0, 12, 0)
    assert stack.bodies(stack.main_url) == sorted([*bodies, odd])
    assert stack.bodies(stack.rejected_url) == []
    assert "No such message" in run("rejected", "replay").out


def test_replay_of_the_good_alone(stack: StackOnMoto, run: Run) -> None:
    """What would be refused again stays where it is, with its reason."""
    stack.put("stats/a/good", stats(rows=1))
    stack.put("stats/a/bad", stats(rows="1"))
    stack.take(stack.main_url)
    good, bad = reject(stack, "stats/a/good"), reject(stack, "stats/a/bad")
    assert run("rejected", "replay", "--only-good", "--yes").code == 0
    assert stack.bodies(stack.main_url) == good
    assert stack.bodies(stack.rejected_url) == bad


def test_replay_ends_though_all_come_back(stack: StackOnMoto, run: Run, monkeypatch: Patch) -> None:
    """What is refused again while the replay goes on isn't sent again by it."""
    reject(stack, *(f"stats/a/{number}" for number in range(11)))
    send, rounds = ddg_ops_queues.send, itertools.count()

    def send_and_refuse(url: str, messages: Any) -> Any:
        assert next(rounds) < 10, "it doesn't end"
        sent = send(url, messages)
        stack.submit()
        return sent

    monkeypatch.setattr(ddg_ops_queues, "send", send_and_refuse)
    monkeypatch.setattr(ddg_ops_queues, "time_at_aws", lambda _: time.time() - 1)
    result = run("rejected", "replay", "--yes", "--json")
    assert result.document["sent"] == 11
    assert len(stack.bodies(stack.rejected_url)) == 11  # the files are gone: refused again


def test_replay_keeps_what_sqs_does_not_take(
    stack: StackOnMoto, run: Run, monkeypatch: Patch
) -> None:
    """SQS takes some messages of a batch and not others: those stay, and it is told."""
    reject(stack, *(f"stats/a/{number}" for number in range(10)))
    send = ddg_ops_queues.send
    monkeypatch.setattr(ddg_ops_queues, "send", lambda url, messages: send(url, messages[:4]))
    result = run("rejected", "replay", "--yes")
    assert result.code == 3
    assert "4 sent to" in result.out
    assert "6 kept" in result.out
    assert len(stack.bodies(stack.rejected_url)) == 6


def test_error_in_the_middle_gives_back(stack: StackOnMoto, run: Run, monkeypatch: Patch) -> None:
    """The main queue may be out of reach: what is in hand is visible again at once."""
    bodies = reject(stack, "stats/a/1", "stats/a/2")

    def fail(url: str, messages: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "SendMessageBatch")

    monkeypatch.setattr(ddg_ops_queues, "send", fail)
    result = run("rejected", "replay", "--yes")
    assert result.code == 3
    assert "your AWS profile may not SendMessageBatch" in result.err
    assert stack.bodies(stack.rejected_url) == bodies


def test_parts_fit_into_a_call() -> None:
    """SQS takes 256 KiB a call; four messages of 100 KiB take two."""
    message = ddg_ops_queues.Message("", "", "é" * 51_200, 0, 1, "", (), "")
    assert [len(part) for part in ddg_ops_queues.parts([message] * 4)] == [2, 2]


# --- save, discard ---


def test_save(stack: StackOnMoto, run: Run, tmp_path: Path) -> None:
    """The message with its reason, and the file as it is; the queue keeps both."""
    stack.put("stats/a/x.json", b"\x00not JSON")
    bodies = reject(stack, "stats/a/x.json", "stats/a/gone.json")
    result = run("rejected", "save", "kept/here", "--json")
    assert (result.code, result.document["saved"], result.document["deleted"]) == (0, 2, 0)
    notes = [
        json.loads(note.read_text())
        for note in (tmp_path / "kept/here").glob("*.json")
        if "-1-" not in note.name
    ]
    assert sorted(note["body"] for note in notes) == bodies
    assert {note["reason"] for note in notes} == {"not JSON"}
    files = {each["key"]: each["file"] for note in notes for each in note["files"]}
    assert files["stats/a/gone.json"] is None
    assert (tmp_path / "kept/here" / files["stats/a/x.json"]).read_bytes() == b"\x00not JSON"
    assert stack.bodies(stack.rejected_url) == bodies


def test_save_and_delete(stack: StackOnMoto, run: Run) -> None:
    """Only with --yes, and only what is safely written."""
    bodies = reject(stack, "stats/a/1", "stats/a/2")
    assert "Nothing was deleted" in run("rejected", "save", "kept", "--delete").out
    assert stack.bodies(stack.rejected_url) == bodies
    result = run("rejected", "save", "kept", "--delete", "--yes")
    assert (result.code, "2 deleted from" in result.out) == (0, True)
    assert stack.bodies(stack.rejected_url) == []


def test_save_stays_in_its_folder(stack: StackOnMoto, run: Run, tmp_path: Path) -> None:
    """A key is no path: whatever it holds, the file is beside its message."""
    for key in (
        "stats/a/..",
        "stats/../../../evil",
        "stats/a/\x1b[31m~`$(x)`;x",
        "stats/a/" + "n" * 300,
    ):
        stack.put(key, b"x")
        reject(stack, key)
    assert run("rejected", "save", "kept").code == 0
    names = [
        path.name for path in tmp_path.rglob("*") if path.is_file() and "outputs" not in path.name
    ]
    assert len(names) == 8
    assert all(path.parent == tmp_path / "kept" for path in tmp_path.rglob("*-1-*"))
    assert all(name.isascii() and name.isprintable() and len(name) < 150 for name in names)


def test_save_deletes_nothing_that_it_cannot_read(
    stack: StackOnMoto, run: Run, monkeypatch: Patch
) -> None:
    """A file that is there but can't be read now isn't saved: its message stays."""
    bodies = reject(stack, "stats/a/1")

    def fail(bucket: str, key: str) -> Any:
        raise ClientError({"Error": {"Code": "SlowDown", "Message": "no"}}, "GetObject")

    monkeypatch.setattr(ddg_ops_queues, "open_object", fail)
    result = run("rejected", "save", "kept", "--delete", "--yes")
    assert (result.code, "SlowDown" in result.err) == (3, True)
    assert stack.bodies(stack.rejected_url) == bodies


def test_save_where_nothing_can_be_written(stack: StackOnMoto, run: Run, tmp_path: Path) -> None:
    """One line, 3, and the queue as it was."""
    (tmp_path / "file").write_text("")
    result = run("rejected", "save", "file/folder")
    assert (result.code, result.err.count("\n")) == (3, 1)
    assert "file/folder: Not a directory" in result.err


def test_object_that_cannot_be(stack: StackOnMoto, run: Run) -> None:
    """A message may name what no bucket can be called: that file is gone, and the rest goes on."""
    stack.reject("k", "odd", body=notification("../no bucket", "k"))
    stack.reject("k", "odd", body=notification("nobodys-bucket", "k"))
    assert run("rejected", "show").out.count("(the file is gone)") == 2


def test_discard(stack: StackOnMoto, run: Run, tmp_path: Path) -> None:
    """Dry without --yes; with it a line of each message is on the disk first."""
    bodies = reject(stack, "stats/a/1", "stats/a/2")
    dry = run("rejected", "discard")
    assert "     2  job:a: not JSON\n" in dry.out
    assert "Nothing was deleted. With --yes 2 are deleted" in dry.out
    assert stack.bodies(stack.rejected_url) == bodies
    assert run("rejected", "discard", "--yes", "--json").document["deleted"] == 2
    lines = (tmp_path / "discarded.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["body"] for line in lines) == bodies
    assert stack.bodies(stack.rejected_url) == []


# --- The dead-letter queue ---


def test_dead_messages(stack: StackOnMoto, run: Run) -> None:
    """The same commands; there is no reason on them, and the log is where to look."""
    bodies = sorted(notification(stack.bucket, f"stats/a/{number}") for number in range(3))
    for body in bodies:
        stack.aws["sqs"].send_message(QueueUrl=stack.dead_letter_url, MessageBody=body)
    listed = run("dead", "list")
    assert "     3  job:a\n        received 1 times; the log has the reasons" in listed.out
    assert "(the file is gone)" in run("dead", "show").out
    assert "Nothing was sent" in run("dead", "replay").out
    assert stack.bodies(stack.dead_letter_url) == bodies
    assert run("dead", "replay", "--yes").code == 0
    assert stack.bodies(stack.main_url) == bodies
    assert stack.bodies(stack.dead_letter_url) == []


# --- Interruptions ---


CUT_OFF = "ignore::pytest.PytestUnraisableExceptionWarning"  # of sockets, see every_interruption


class Interruption:
    """Ends a command at its n-th step: before or after a call of AWS or a POST to Datadog.

    With `dead` every later step fails too, so that nothing is tidied up: as if it was killed.
    """

    def __init__(self, patch: Patch, step: int, *, dead: bool) -> None:
        self.count = itertools.count()
        self.end, self.dead = step, dead
        clients: Any = BaseClient
        patch.setattr(clients, "_make_api_call", self.around(clients._make_api_call))
        api: Any = SeriesApi
        patch.setattr(api, "post", self.around(api.post))

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def with_steps(*arguments: Any, **options: Any) -> Any:
            self.step()
            result = function(*arguments, **options)
            self.step()
            return result

        return with_steps

    def step(self) -> None:
        number = next(self.count)
        if number == self.end or (self.dead and number > self.end):
            raise KeyboardInterrupt


def every_interruption(
    command: Callable[[], Result],
    prepare: Callable[[], None],
    check: Callable[[], None],
    *,
    dead: bool,
) -> int:
    """Interrupt a command at each of its steps, each time anew; return how many there were."""
    for step in itertools.count():
        prepare()
        with pytest.MonkeyPatch.context() as patch:
            Interruption(patch, step, dead=dead)
            result = command()
        check()
        if result.code != 130:
            assert result.code == 0, result
            gc.collect()  # the sockets of requests that were cut off, here and not in another test
            return step
        assert result.err == "ddg_ops.py: interrupted; nothing is lost. The same command goes on.\n"
    raise AssertionError


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
def test_nothing_is_lost_at_any_step(
    command: str, dead: bool, stack: StackOnMoto, run: Run, tmp_path: Path
) -> None:
    """A message is in the queue, or where it went, or in both; never in neither."""
    keys = [f"stats/a/{number}" for number in range(11)]  # one more than SQS gives in a call
    bodies = {notification(stack.bucket, key) for key in keys}

    def prepare() -> None:
        for url in (stack.rejected_url, stack.main_url):
            stack.purge(url)
        for note in [*tmp_path.glob("kept/*"), *tmp_path.glob("discarded.jsonl")]:
            note.unlink()
        stack.send_all(stack.rejected_url, bodies)

    def check() -> None:
        safe = stack.everything(stack.rejected_url) | stack.everything(stack.main_url)
        for note in tmp_path.glob("kept/*.json"):
            safe.add(json.loads(note.read_text())["body"])
        if (tmp_path / "discarded.jsonl").exists():
            lines = (tmp_path / "discarded.jsonl").read_text().splitlines()
            safe |= {json.loads(line)["body"] for line in lines}
        assert safe == bodies

    steps = every_interruption(lambda: run(*command.split()), prepare, check, dead=dead)
    assert steps >= 2 * 6  # attributes, three receives, two deletes
    assert stack.everything(stack.rejected_url) == set()


def test_ctrl_c_gives_back(stack: StackOnMoto, run: Run, monkeypatch: Patch) -> None:
    """Whoever looks next sees all that was in hand."""
    bodies = reject(stack, "stats/a/1", "stats/a/2")

    def interrupt(url: str, messages: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ddg_ops_queues, "send", interrupt)
    assert run("rejected", "replay", "--yes").code == 130
    assert stack.bodies(stack.rejected_url) == bodies


# --- Backfill ---


@pytest.fixture
def operator(monkeypatch: Patch) -> None:
    """Someone with a key of their own."""
    monkeypatch.setenv("DATADOG_API_KEY", KEY)


def put_files(stack: StackOnMoto, number: int) -> set[int]:
    """Write files that nobody will submit; return their timestamps."""
    now = int(time.time())
    for age in range(number):
        stack.put(f"stats/etl/{age}.json", {"timestamp": now - age, "rows": age})
    stack.purge(stack.main_url)
    return {now - age for age in range(number)}


def arrived(datadog: DatadogServer) -> set[int]:
    """Return the timestamps of the files' points that Datadog has."""
    return set(datadog.points.get(("rows", ("env:test", "job:etl")), {}))


def test_backfill_is_dry_without_yes(stack: StackOnMoto, run: Run, datadog: DatadogServer) -> None:
    """It reads the files and says what would become of them; no key is needed."""
    put_files(stack, 3)
    stack.put("stats/etl/bad", b"{")
    result = run("backfill", "--since", "1h")
    assert result.code == 1
    summary = result.out.splitlines()[-1]
    assert f"backfill of s3://{stack.bucket}/stats/, files that came " in summary
    assert "4 found, 3 would be submitted (3 points), 1 would be refused." in summary
    assert "     1  refused: not JSON" in result.out
    assert datadog.requests == []


@pytest.mark.usefixtures("operator")
def test_backfill_twice(stack: StackOnMoto, run: Run, datadog: DatadogServer) -> None:
    """The points arrive with the submitter's own tags; once more changes nothing."""
    timestamps = put_files(stack, 5)
    for _ in range(2):
        result = run("backfill", "--since", "1h", "--yes")
        assert result.code == 0
        assert "5 found, 5 submitted (5 points), 0 refused." in result.out
        assert arrived(datadog) == timestamps
    assert not Path("ddg_backfill.checkpoint").exists()


@pytest.mark.usefixtures("operator")
def test_backfill_of_a_span_and_a_prefix(
    stack: StackOnMoto, run: Run, datadog: DatadogServer
) -> None:
    """Only files that came within it, and only below the prefix."""
    put_files(stack, 2)
    stack.put("stats/other/1.json", stats(rows=1))
    stack.put("elsewhere/1.json", stats(rows=1))
    document = run("backfill", "--since", "1h", "--prefix", "stats/other/", "--json").document
    assert document["found"] == 1
    assert run("backfill", "--since", "3h", "--until", "1h", "--json").document["found"] == 0
    wrong = run("backfill", "--since", "1h", "--prefix", "etl/")
    assert wrong.code == 2
    assert "Did you mean stats/etl/?" in wrong.err


@pytest.mark.usefixtures("operator")
def test_backfill_of_old_files(stack: StackOnMoto, run: Run, datadog: DatadogServer) -> None:
    """What Datadog would drop isn't sent, unless it is asked for: historical ingestion."""
    old = int(time.time()) - 7200
    stack.put("stats/etl/old.json", {"timestamp": old, "rows": 1})
    result = run("backfill", "--since", "1h", "--yes")
    assert result.code == 1
    assert "refused: timestamp N is N s old" in result.out
    assert run("backfill", "--since", "1h", "--max-age", "0", "--yes").code == 0
    assert [point.timestamp for point in datadog.dropped] == [old]  # the local one has no history


def test_backfill_needs_a_key_of_ones_own(
    stack: StackOnMoto, run: Run, monkeypatch: Patch, datadog: DatadogServer
) -> None:
    """The function's isn't taken; a wrong one is told before anything is read."""
    put_files(stack, 1)
    missing = run("backfill", "--since", "1h", "--yes")
    assert (missing.code, "Set DATADOG_API_KEY" in missing.err) == (2, True)
    monkeypatch.setenv("DATADOG_API_KEY", "wrong")
    wrong = run("backfill", "--since", "1h", "--yes")
    assert (wrong.code, "doesn't take the API key" in wrong.err) == (3, True)
    assert (len(datadog.validations), datadog.requests) == (1, [])
    assert "wrong" not in wrong.out


@pytest.mark.usefixtures("operator")
def test_backfill_stops_at_an_outage_and_goes_on(
    stack: StackOnMoto, run: Run, datadog: DatadogServer, monkeypatch: Patch
) -> None:
    """What is done is kept; the same command goes on, and says so."""
    timestamps = put_files(stack, 6)
    monkeypatch.setattr(ddg_ops_backfill, "MAX_CHUNK_FILES", 2)
    seen = itertools.count()

    def fail_after_two(request: Request) -> Answer | None:
        return Answer(429) if "series" in request.path and next(seen) >= 2 else None

    datadog.respond = fail_after_two
    stopped = run("backfill", "--since", "1h", "--yes")
    assert stopped.code == 3
    assert "stopped at s3://" in stopped.err
    assert "Datadog answered 429." in stopped.err
    assert len(arrived(datadog)) == 4
    datadog.respond = None
    again = run("backfill", "--since", "1h", "--yes")
    assert "Goes on after stats/etl/3.json" in again.err
    assert "6 found, 6 submitted (6 points), 0 refused." in again.out
    assert arrived(datadog) == timestamps


@pytest.mark.usefixtures("operator")
def test_backfill_tries_again(
    stack: StackOnMoto, run: Run, datadog: DatadogServer, monkeypatch: Patch
) -> None:
    """A short outage ends nothing: only what failed is sent again."""
    timestamps = put_files(stack, 3)
    monkeypatch.setattr(ddg_ops_backfill, "PAUSES", (0.0,))
    answers = iter([Answer(429)])
    datadog.respond = lambda request: next(answers, None) if "series" in request.path else None
    assert run("backfill", "--since", "1h", "--yes").code == 0
    assert arrived(datadog) == timestamps


@pytest.mark.usefixtures("operator")
def test_backfill_keeps_anothers_checkpoint(stack: StackOnMoto, run: Run) -> None:
    """The place of another backfill isn't written over, and a file that is none isn't either."""
    put_files(stack, 1)
    for text, problem in (
        ('{"asked": {"since": "9h"}, "since": 1, "until": 2}', "another backfill (--since 9h)"),
        ("not a checkpoint", "is no checkpoint"),
        ("{}", "is no checkpoint"),
    ):
        Path("mine").write_text(text)
        result = run("backfill", "--since", "1h", "--yes", "--checkpoint", "mine")
        assert (result.code, problem in result.err) == (2, True)
        assert Path("mine").read_text() == text


@pytest.mark.filterwarnings(CUT_OFF)
@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("dead", [False, True], ids=["Ctrl-C", "killed"])
def test_backfill_is_whole_after_any_interruption(
    dead: bool, stack: StackOnMoto, run: Run, datadog: DatadogServer, monkeypatch: Patch
) -> None:
    """Interrupted anywhere and run again, every point is there, and what was done isn't redone."""
    monkeypatch.setattr(ddg_ops_backfill, "MAX_CHUNK_FILES", 2)
    timestamps = put_files(stack, 4)
    command = ("backfill", "--since", "1h", "--yes")

    def finish() -> None:
        done = (
            json.loads(Path("ddg_backfill.checkpoint").read_text())["counts"]
            if Path("ddg_backfill.checkpoint").exists()
            else {}
        )
        datadog.requests.clear()
        result = run(*command, "--json")
        assert result.code == 0
        assert arrived(datadog) == timestamps
        assert result.document["submitted"] == 4
        posts = [request for request in datadog.requests if "series" in request.path]
        assert len(posts) == (4 - done.get("submitted", 0)) / 2
        datadog.points.clear()

    steps = every_interruption(lambda: run(*command), lambda: None, finish, dead=dead)
    assert steps >= 2 * 8  # settings, list, four gets, two POSTs


@pytest.mark.usefixtures("operator")
def test_backfill_keeps_its_rate(stack: StackOnMoto, run: Run, monkeypatch: Patch) -> None:
    """So many files a second: the pauses between its parts add up to it."""
    put_files(stack, 6)
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
    monkeypatch.setattr(ddg_ops_backfill, "time", clock)
    run("backfill", "--since", "1h", "--yes", "--rate", "2")
    assert len(slept) == 3
    assert 2 < sum(slept) <= 3


# --- Ten thousand messages ---


def message(number: int) -> dict[str, Any]:
    """Return a rejected message of 5 KB."""
    body = json.dumps(
        {
            "Records": [
                {
                    "s3": {
                        "bucket": {"name": "b"},
                        "object": {"key": f"stats/job-{number % 7}/{number}"},
                    }
                }
            ],
            "padding": "x" * 5_000,
        }
    )
    reason = {"DataType": "String", "StringValue": f"timestamp {number} is too old"}
    return {
        "Body": body,
        "Attributes": {"SentTimestamp": "1764000000000", "ApproximateReceiveCount": "1"},
        "MessageAttributes": {"reason": reason},
    }


def peak_memory(sqs: SqsStub, folder: Path, *command: str) -> tuple[int, Any]:
    """Run a command in a process of its own; return its peak memory in KiB and its document."""
    urls = {name: f"{sqs.url}/1/{name}" for name in ("stats", "dead_letter", "rejected")}
    outputs = {"bucket": "b", "queue_urls": urls, "function_names": {"metric_submit": "f"}}
    (folder / "outputs.json").write_text(json.dumps(outputs))
    script = [sys.executable, str(ROOT / "ddg_ops.py"), *command, "--json"]
    environment = os.environ | {"AWS_ENDPOINT_URL": sqs.url, "DDG_STACK": "outputs.json"}
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(script, stdout=out, stderr=err, cwd=folder, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "err").read_text()
    return usage.ru_maxrss, json.loads((folder / "out").read_text())


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("rejected", "list"), id="list"),
        pytest.param(("rejected", "replay", "--yes"), id="replay"),
    ],
)
def test_ten_thousand_messages(command: tuple[str, ...], tmp_path: Path) -> None:
    """50 MB of messages pass through in the memory that a hundred need, give or take 20 MB."""
    peaks = []
    with SqsStub(message) as sqs:
        for number in (100, 10_000):
            sqs.queues = {"rejected": Queue(), "stats": Queue()}
            sqs.queues["rejected"].waiting.extend(range(number))
            peak, document = peak_memory(sqs, tmp_path, *command)
            peaks.append(peak)
            rejected = sqs.queues["rejected"]
            assert rejected.in_flight == {}
            if "replay" in command:
                assert document["sent"] == document["deleted"] == number
                assert len(set(sqs.queues["stats"].bodies)) == number
                assert not rejected.waiting
            else:
                assert document["messages"] == number
                assert [each["job"] for each in document["groups"]].count("job:job-0") == 1
                assert len(rejected.waiting) == number
    assert peaks[1] - peaks[0] < 20 * 1024
