"""ddg-ops: its command line, how it ends, and validate."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from ddg_ops.cli import cli
from ddg_ops.screen import Screen, moment, utc
from tests.operated import StackOnMoto, make_stack, run, stats, terraform

ROOT = Path(__file__).resolve().parent.parent
stack = pytest.fixture(make_stack)
Capsys = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    """Files have plain names."""
    monkeypatch.chdir(tmp_path)


# --- The command line ---


def commands(group: click.Command, path: str) -> Iterator[str]:
    """Yield what is typed for a command and for all below it."""
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{path} {name}")


@pytest.mark.parametrize("path", list(commands(cli, "ddg-ops")))
def test_each_help_has_examples_that_are_right(path: str, monkeypatch: Patch) -> None:
    """The examples can be typed, however narrow the terminal is."""
    monkeypatch.setenv("COLUMNS", "40")
    shown = run(path.removeprefix("ddg-ops"), "--help")
    assert (shown.code, shown.err) == (0, "")
    examples = [line.strip() for line in shown.out.partition("Examples:\n")[2].splitlines()]
    for line in examples:
        words = shlex.split(line.replace("< ", "# "), comments=True)
        assert line.startswith(path)
        command: click.Command = cli
        while isinstance(command, click.Group):
            words = words[1:]
            command = command.commands[words[0]]
        command.make_context(words[0], words[1:])
    assert examples


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("chek", "Did you mean 'check'?"),
        ("validate", "Missing argument 'FILE...'."),
        ("validate s3://bucket/", "s3://bucket/ names no object. Write s3://BUCKET/KEY."),
        ("validate --max-age ever x.json", "Invalid value for '--max-age'"),
        ("backfill --since noon", "'noon' isn't a time: 30m, 6h"),
        ("backfill --since 1h --rate 0", "Invalid value for '--rate'"),
        ("rejected list --limit 0", "Invalid value for '--limit'"),
        ("rejected replay --y", "No such option '--y'."),
        ("--stack x check", "Options go after the command: ddg-ops COMMAND --stack ..."),
        ("dead --job a list", "go after the command: ddg-ops dead COMMAND --job ..."),
        ("check --stack outputs.json", "can't read outputs.json"),
    ],
)
def test_wrong_command_line(line: str, problem: str) -> None:
    """One line on stderr, and code 2; --json has the same."""
    result = run(line)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert problem in result.err
    machine = run(line, "--json")
    assert machine.document == {"error": result.err[len("ddg-ops: ") : -1], "exit_code": 2}


@pytest.mark.parametrize("line", ["", "rejected", "dead"])
def test_command_that_is_missing(line: str) -> None:
    """The help goes to stderr, and the code is 2."""
    result = run(line)
    assert (result.code, result.out) == (2, "")
    assert "Commands:" in result.err


def test_times() -> None:
    """A duration ago, the last such clock time, or a date; in UTC unless it says otherwise."""
    now = time.time()
    ago = {"now": 0, "45s": 45, "30m": 1800, "6h": 21_600, "2d": 172_800}
    for offset in (120, -120):
        ago[time.strftime("%H:%M", time.gmtime(now + offset))] = -offset % 86_400
    for text, seconds in ago.items():
        most = 62 if ":" in text else 2
        assert now - moment(text).seconds == pytest.approx(seconds, abs=most), text
    for text, shown in {
        "2025-11-24": "2025-11-24T00:00:00Z",
        "2025-11-24T12:00": "2025-11-24T12:00:00Z",
        "2025-11-24T12:00+02:00": "2025-11-24T10:00:00Z",
        "2025-11-24T12:00:07Z": "2025-11-24T12:00:07Z",
    }.items():
        assert utc(moment(text).seconds) == shown


# --- As a process ---


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command in the test's folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
    command = [sys.executable, "-m", "ddg_ops", *words]
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def test_installed_command() -> None:
    """`make venv` installs it; standard input, a pipe's plain text and the exit code work."""
    command = [str(Path(sys.executable).with_name("ddg-ops")), "validate", "-"]
    shown = subprocess.run(command, input="{", capture_output=True, text=True)
    assert (shown.returncode, shown.stderr, "\x1b" in shown.stdout) == (1, "", False)
    assert shown.stdout.startswith("refused  -: not JSON")


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("reader", ["gone", "full"])
def test_output_that_nobody_reads(reader: str, options: list[str]) -> None:
    """`| head` is silent, and 0; a full disk is one line, and 3."""
    if reader == "full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this machine")
    out, gone = os.pipe() if reader == "gone" else (None, os.open("/dev/full", os.O_WRONLY))
    if out is not None:
        os.close(out)
    process = start("validate", "-", *options, stdout=gone)
    os.close(gone)
    _, err = process.communicate(json.dumps(stats(rows=1)))
    full = (3, "ddg-ops: output: No space left on device.\n")
    assert (process.returncode, err) == (full if reader == "full" else (0, ""))


def test_terminal_without_the_characters() -> None:
    """What a terminal can't show is escaped."""
    Path("größe.json").write_text("")
    ascii_only = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    process = start("validate", "größe.json", env=ascii_only)
    out, err = process.communicate()
    assert (process.returncode, err) == (1, "")
    assert out.isascii()
    assert "e.json: the file is empty." in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment_of", ["first imports", "work"])
def test_interruption(number: signal.Signals, moment_of: str, monkeypatch: Patch) -> None:
    """One line, and 130, at any moment."""
    os.mkfifo("begun")
    if moment_of == "work":
        terraform("echo > begun; exec sleep 60", monkeypatch)
    else:
        Path("click.py").write_text("import time; open('begun', 'w').close(); time.sleep(60)")
    process = start("check", env={"PYTHONPATH": f"{Path.cwd()}:{ROOT}"})
    Path("begun").read_text()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.count("\n")) == (130, "", 1)
    assert err.startswith("ddg-ops: interrupted.")


def test_python_without_the_packages() -> None:
    """Another Python than .venv's is one line, and 3: 1 is about the pipeline."""
    command = [sys.executable, "-S", "-m", "ddg_ops", "check"]
    environment = {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (3, "", 1)
    assert "Run `make venv`" in shown.stderr


@pytest.mark.parametrize(
    "hostile",
    ["\x1b]0;owned\x07", "\x9b31m", "\r\nok", "\u202egnp.exe", "\u2028", "\ud800", "[bold]x[/][/]"],
    ids=["escape", "C1", "new line", "right to left", "separator", "surrogate", "rich's markup"],
)
def test_nothing_controls_a_terminal(hostile: str, capsys: Capsys) -> None:
    """A line stays one line of printable characters, and markup is text."""
    for screen in (Screen(as_json=False), Screen(as_json=True)):
        screen.say(f"<{hostile}>", "red")
        screen.note(f"<{hostile}>")
        screen.result({"key": hostile})
        for shown in capsys.readouterr():
            assert shown.endswith("\n")
            assert shown[:-1].isprintable()


def test_colours_and_bars_are_for_terminals(capsys: Capsys, monkeypatch: Patch) -> None:
    """A terminal shows colours, and a bar on stderr."""
    for name, value in {"TERM": "xterm", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}.items():
        monkeypatch.setenv(name, value)  # rich: this is a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen(as_json=False)
    with screen.progress("messages", 10) as advance:
        advance(10)
    assert "10/10" in capsys.readouterr().err
    screen.say("red", "red")
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m\n"


# --- validate ---


def test_validate() -> None:
    """Good files with their series, bad ones with their reasons, unreadable ones with the cause."""
    now = int(time.time())
    Path("good.json").write_text(json.dumps({"timestamp": now, "rows": {"read": 5}}))
    Path("good.gz").write_bytes(gzip.compress(json.dumps(stats(a=1)).encode()))
    Path("bad.json").write_text(json.dumps(stats(rows="5")))
    Path("_SUCCESS").write_text("")
    Path("many.json").write_text(json.dumps(stats(**{f"m{n}": n for n in range(25)})))
    files = ["good.json", "good.gz", "bad.json", "_SUCCESS", "many.json"]
    result = run("validate", *files, "--job", "My Job")
    assert result.code == 1
    series = f"{utc(now)}  rows.read{{job:my_job}} = 5  (gauge)"
    assert f"ok       good.json: 1 point, 1 custom metric\n         {series}\n" in result.out
    assert "ok       good.gz: 1 point, 1 custom metric\n" in result.out
    assert 'refused  bad.json: "rows" is the string "5": write it without' in result.out
    assert "ok       _SUCCESS: a marker, which the submitter skips\n" in result.out
    assert "ok       many.json: 25 points, 25 custom metrics\n" in result.out
    assert "and 5 more; --json has all" in result.out
    assert result.out.count(" = ") == 22
    for words, code in (("good.json good.gz", 0), ("gone.json", 3), ("gone.json bad.json", 1)):
        assert run("validate", *words.split()).code == code
    assert "unread   gone.json: No such file" in run("validate gone.json").out


def test_validate_for_machines() -> None:
    """One document: all points, each reason."""
    Path("good").write_text('{"timestamp": 1575839011, "rows": 5, "tags": ["Env:Prod"]}')
    Path("bad").write_text("")
    result = run("validate good bad gone", *["--job", "etl", "--max-age", "0", "--json"])
    good, bad, gone = result.document["files"]
    point = {"metric": "rows", "timestamp": 1575839011, "value": 5, "tags": ["env:prod", "job:etl"]}
    point |= {"type": "gauge", "interval": None, "unit": None, "per_unit": None}
    assert good == {"file": "good", "ok": True, "points": [point], "custom_metrics": 1}
    assert (bad["ok"], bad["reason"][:18]) == (False, "the file is empty.")
    assert gone["problem"] == "can't be read: No such file or directory"


def test_validate_uses_the_functions_settings(stack: StackOnMoto) -> None:
    """From the environment or the stack; a wrong one is a usage error."""
    Path("old.json").write_text('{"timestamp": 1575839011, "rows": 5}')
    assert run("validate old.json").code == 1
    for value, code in (("0", 0), ("ever", 2)):
        stack.patch.setenv("MAX_AGE_SECONDS", value)
        assert run("validate old.json").code == code
    stack.set_environment(MAX_AGE_SECONDS="0")
    result = run("validate old.json --stack", stack.name)
    assert (result.code, "rows{env:test} = 5" in result.out) == (0, True)


def test_validate_from_the_bucket_and_stdin(stack: StackOnMoto) -> None:
    """An object's key names its job; neither source is read beyond the limit."""
    stack.put("stats/nightly/a.json", stats(rows=1))
    large = " " * (10 * 1024 * 1024 + 1)
    stack.put("stats/nightly/large", large.encode())
    base = f"s3://{stack.bucket}/stats/nightly"
    assert "rows{job:nightly} = 1" in run("validate", f"{base}/a.json").out
    over = "the file is over 10,485,760 bytes"
    for name, code, text in (("large", 1, over), ("gone", 3, "not there (GetObject")):
        result = run("validate", f"{base}/{name}")
        assert (result.code, text in result.out) == (code, True), result
    assert over in run("validate -", text=large).out
