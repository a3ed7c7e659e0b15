"""ddg-ops rejected save, send and discard."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from ddg_ops import queues
from tests.interrupted import CUT_OFF, every_interruption
from tests.operated import StackOnMoto, make_stack, reject, stats

stack = pytest.fixture(make_stack)
Patch = pytest.MonkeyPatch


def test_save(stack: StackOnMoto) -> None:
    """Messages with their reasons, and the files as they are; --delete --yes then deletes."""
    stack.put("stats/a/x.json", b"\x00not JSON")
    bodies = reject(stack, "stats/a/x.json", "stats/a/gone.json")
    result = stack.run("rejected save kept/here --json")
    assert (result.code, result.document["saved"], result.document["deleted"]) == (0, 2, 0)
    notes = [
        json.loads(n.read_text()) for n in Path("kept/here").glob("*.json") if "-1-" not in n.name
    ]
    assert sorted(note["body"] for note in notes) == bodies
    assert {note["reason"] for note in notes} == {"not JSON"}
    files = {each["key"]: each["file"] for note in notes for each in note["files"]}
    assert files["stats/a/gone.json"] is None
    assert Path("kept/here", files["stats/a/x.json"]).read_bytes() == b"\x00not JSON"
    assert "0 deleted from" in stack.run("rejected save kept --delete").out
    assert stack.bodies(stack.rejected_url) == bodies
    assert "2 deleted from" in stack.run("rejected save kept --delete --yes").out
    assert stack.bodies(stack.rejected_url) == []


def test_save_stays_in_its_folder(stack: StackOnMoto) -> None:
    """A key can't name a path; its file is beside its message."""
    keys = ("stats/a/..", "stats/../../evil", "stats/a/\x1b[31m~`$(x)`;x", "stats/a/" + "n" * 300)
    for key in keys:
        stack.put(key, b"x")
        reject(stack, key)
    assert stack.run("rejected save kept").code == 0
    names = [path.name for path in Path().rglob("*") if path.is_file()]
    assert len(names) == 8 + len(["outputs.json"])
    assert len(list(Path("kept").glob("*-1-*"))) == 4
    assert all(name.isascii() and name.isprintable() and len(name) < 150 for name in names)


def test_save_deletes_only_what_is_safe(stack: StackOnMoto) -> None:
    """A message stays if its file can't be read or written."""
    bodies = reject(stack, "stats/a/1")
    Path("file").write_text("")
    result = stack.run("rejected save file/folder --delete --yes")
    assert (result.code, result.err) == (3, "ddg-ops: file/folder: Not a directory.\n")
    error = ClientError({"Error": {"Code": "SlowDown", "Message": "no"}}, "GetObject")
    stack.patch.setattr(queues, "open_object", Mock(side_effect=error))
    result = stack.run("rejected save kept --delete --yes")
    assert (result.code, "SlowDown" in result.err) == (3, True)
    assert stack.bodies(stack.rejected_url) == bodies


def test_discard(stack: StackOnMoto) -> None:
    """Dry without --yes; with it, each message is first written to a file."""
    bodies = reject(stack, "stats/a/1", "stats/a/2")
    dry = stack.run("rejected discard")
    assert "     2  job:a\n        not JSON\n" in dry.out
    assert "Nothing was deleted. --yes deletes 2 messages." in dry.out
    assert stack.bodies(stack.rejected_url) == bodies
    assert stack.run("rejected discard --yes --json").document["deleted"] == 2
    lines = Path("discarded.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["body"] for line in lines) == bodies
    assert stack.bodies(stack.rejected_url) == []


def save_bad_files(stack: StackOnMoto, *jobs: str) -> list[Path]:
    """Have files refused and saved; return where they are."""
    for job in jobs:
        stack.put(f"stats/{job}/1.json", stats(rows="1"))
    stack.submit()
    assert stack.run("rejected save kept").code == 0
    return sorted(Path("kept").glob("*-1-*"), key=lambda path: path.name[-14:])


def test_edited_files_are_sent(stack: StackOnMoto) -> None:
    """A corrected file gets a new key of the same job, and its message is deleted."""
    good, _bad = save_bad_files(stack, "a", "b")
    good.write_text(json.dumps(stats(rows=7)))
    dry = stack.run("rejected send kept")
    assert dry.code == 1
    assert "     1  would be submitted\n" in dry.out
    assert '     1  would be refused\n        "rows" is the string "1"' in dry.out
    assert "Nothing was sent. --yes sends 1 message." in dry.out
    assert stack.bodies(stack.main_url) == []
    result = stack.run("rejected send kept --yes --json")
    assert (result.code, result.document["sent"], result.document["deleted"]) == (1, 1, 1)
    [key] = result.document["keys"]
    assert re.fullmatch(r"stats/a/[0-9a-f-]{36}-1-1\.json", key)
    assert len(stack.bodies(stack.rejected_url)) == 1
    stack.submit()
    assert list(stack.datadog.points) == [("rows", ("env:test", "job:a"))]
    assert stack.run("rejected send kept --yes --json").document["sent"] == 0  # once is enough
    assert "nothing to send" in stack.run("rejected send elsewhere").err


@pytest.mark.parametrize(
    ("options", "max_age", "code"),
    [("", "0", 1), (" --historical", "0", 0), (" --historical", "3600", 1)],
)
def test_files_that_are_too_old_stay(
    options: str, max_age: str, code: int, stack: StackOnMoto
) -> None:
    """Their age counts now; --historical doesn't help if the function itself would refuse them."""
    stack.set_environment(MAX_AGE_SECONDS=max_age)
    [file] = save_bad_files(stack, "a")
    file.write_text('{"timestamp": 1764000000, "rows": 1}')
    result = stack.run(f"rejected send kept --yes{options}")
    assert (result.code, len(stack.bodies(stack.rejected_url))) == (code, code)
    assert (" s old, and " in result.out) is bool(code)


@pytest.mark.filterwarnings(CUT_OFF)
def test_no_edited_file_is_lost_at_any_step(stack: StackOnMoto) -> None:
    """A message is deleted once its file is in the bucket; a second try sends the same key."""
    keys = [f"stats/a/{number}.json" for number in range(2)]

    def prepare() -> None:
        stack.purge(stack.rejected_url)
        shutil.rmtree("kept", ignore_errors=True)
        for key in keys:
            stack.put(key, stats(rows=1))
        reject(stack, *keys)
        assert stack.run("rejected save kept").code == 0

    def check() -> None:
        queue = "".join(stack.everything(stack.rejected_url))
        files = stack.aws["s3"].list_objects_v2(Bucket=stack.bucket, Prefix="stats/a/")["Contents"]
        for key in keys:
            new = f"-1-{key[-6:]}"
            assert key in queue or any(each["Key"].endswith(new) for each in files)
        for each in files:
            stack.aws["s3"].delete_object(Bucket=stack.bucket, Key=each["Key"])

    send = "rejected send kept --yes"
    steps = every_interruption(lambda: stack.run(send), prepare, check, dead=True)
    assert steps >= 2 * 9
    assert stack.everything(stack.rejected_url) == set()
