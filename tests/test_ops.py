"""ddg-ops: its command line, its endings, its session, and validate, check and tail."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from botocore.client import BaseClient

from ddg_ops import canary, log
from ddg_ops.cli import cli
from ddg_ops.screen import Screen, moment, utc
from ddg_ops.settings_file import read_settings_file, submitter_environment
from local.datadog_server import Answer
from tests.operated import (
    ALARMS,
    KEY,
    REGION,
    StackOnMoto,
    Wire,
    make_stack,
    run,
    stats,
)

ROOT = Path(__file__).resolve().parent.parent
URLS = dict.fromkeys(("stats", "dead_letter", "rejected"), "https://x")
OUTPUTS = {"bucket": "b", "queue_urls": URLS, "function_names": {"metric_submit": "f"}}
stack = pytest.fixture(make_stack)
Capsys = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    """Files of a test are named as a person would name them."""
    monkeypatch.chdir(tmp_path)


# --- The command line ---


def commands(group: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, with what is typed for each."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{path} {name}")


@pytest.mark.parametrize("path", [path for path, _ in commands(cli, "ddg-ops")])
def test_each_help_has_examples_that_are_right(path: str, monkeypatch: Patch) -> None:
    """What --help shows can be typed, however narrow the terminal is."""
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
        ("nonsense", "No such command 'nonsense'."),
        ("chek", "Did you mean 'check'?"),
        ("validate", "Missing argument 'FILE...'."),
        ("validate s3://", "s3:// names no object. Write s3://BUCKET/KEY."),
        ("validate s3://bucket/", "s3://bucket/ names no object."),
        ("validate --max-age ever x.json", "Invalid value for '--max-age'"),
        ("backfill", "Missing option '--since'."),
        ("backfill --since noon", "'noon' is no time: 30m, 6h"),
        ("backfill --since 1h --rate 0", "Invalid value for '--rate'"),
        ("rejected list --limit -1", "Invalid value for '--limit'"),
        ("rejected replay --y", "No such option '--y'."),
        ("--stack x check", "--stack goes after the command: ddg-ops COMMAND --stack ..."),
        ("--yes rejected replay", "--yes goes after the command: ddg-ops COMMAND --yes ..."),
        ("dead --job a list", "--job goes after the command: ddg-ops dead COMMAND --job ..."),
        ("--nonsense check", "No such option '--nonsense'."),
        ("check --stack outputs.json", "can't read outputs.json"),
    ],
)
def test_wrong_command_line(line: str, problem: str) -> None:
    """One line says what is wrong, 2 tells it apart; with --json a machine reads the same."""
    result = run(line)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert problem in result.err
    machine = run(line, "--json")
    assert machine.document == {"error": result.err[len("ddg-ops: ") : -1], "exit_code": 2}


@pytest.mark.parametrize("line", ["", "rejected", "dead"])
def test_command_that_is_missing(line: str) -> None:
    """What there is to choose from is shown, and 2 says that nothing was done."""
    result = run(line)
    assert (result.code, result.out) == (2, "")
    assert "Commands:" in result.err


def test_times_ago() -> None:
    """A span means that long before now; at 3 a.m. "since noon" is yesterday's noon."""
    spans = {"now": 0, "45s": 45, "30m": 1800, "6h": 21_600, "2d": 172_800}
    for offset in (120, -120):
        spans[time.strftime("%H:%M", time.gmtime(time.time() + offset))] = -offset % 86_400
    for text, seconds_ago in spans.items():
        most = 62 if ":" in text else 2
        assert time.time() - moment(text).seconds == pytest.approx(seconds_ago, abs=most), text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("2025-11-24", "2025-11-24T00:00:00Z", id="date"),
        pytest.param("2025-11-24T12:00", "2025-11-24T12:00:00Z", id="without a zone it is UTC"),
        pytest.param("2025-11-24T12:00+02:00", "2025-11-24T10:00:00Z", id="with a zone"),
        pytest.param("2025-11-24T12:00:07Z", "2025-11-24T12:00:07Z", id="as it is shown"),
        pytest.param("1764000000", "2025-11-24T16:00:00Z", id="epoch seconds"),
    ],
)
def test_times(text: str, shown: str) -> None:
    """Dates are UTC unless they say otherwise."""
    assert utc(moment(text).seconds) == shown


# --- As a process ---


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command as the shell does, from any folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
    command = [sys.executable, "-m", "ddg_ops", *words]
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def test_installed_command() -> None:
    """`make venv` installs it beside the Python that runs the tests; it works from any folder."""
    command = Path(sys.executable).with_name("ddg-ops")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("Usage: ddg-ops ")


@pytest.mark.parametrize("good", [True, False])
def test_process(good: bool) -> None:
    """The exit code reaches the shell, standard input is read, and a pipe gets plain text."""
    process = start("validate", "-")
    out, err = process.communicate(json.dumps(stats(rows=1)) if good else "{")
    assert (process.returncode, err) == (not good, "")
    assert out.startswith("ok       -: 1 point" if good else "refused  -: not JSON")
    assert "\x1b" not in out


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("reader", ["gone", "full"])
def test_output_that_nobody_takes(reader: str, options: list[str]) -> None:
    """`| head` is no reason for a word, nor for a code that says that something is wrong.

    A disk that is full is one line, and 3: nobody knows what it said.
    """
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
    """What a terminal can't show is escaped, and no reason to fail."""
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
    """A line and 130, whenever it comes."""
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
    """Another Python than .venv's is told so, and not by 1, which speaks of the pipeline."""
    command = [sys.executable, "-S", "-m", "ddg_ops", "check"]
    environment = {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (3, "", 1)
    assert "Run `make venv`" in shown.stderr


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param("\x1b]0;owned\x07", id="escape sequence"),
        pytest.param("\x9b31m", id="C1"),
        pytest.param("\r\nok", id="new line"),
        pytest.param("\u202egnp.exe", id="right to left"),
        pytest.param("\u2028", id="line separator"),
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param("[bold]x[/bold][/]", id="rich's markup"),
    ],
)
def test_nothing_steers_a_terminal(hostile: str, capsys: Capsys) -> None:
    """A line of ours stays one line of printable characters, and markup is text."""
    for screen in (Screen(as_json=False), Screen(as_json=True)):
        screen.say(f"<{hostile}>", "red")
        screen.note(f"<{hostile}>")
        screen.result({"key": hostile})
        for shown in capsys.readouterr():
            assert shown.endswith("\n")
            assert shown[:-1].isprintable()


def test_colours_and_bars_are_for_terminals(capsys: Capsys, monkeypatch: Patch) -> None:
    """Where there is one there are colours and a bar, which leaves no trace on stdout."""
    for name, value in {"TERM": "xterm", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}.items():
        monkeypatch.setenv(name, value)  # rich: this is a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen(as_json=False)
    with screen.progress("messages", 10) as advance:
        advance(10)
    assert "10/10" in capsys.readouterr().err
    screen.say("red", "red")
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m\n"


# --- The stack ---


def terraform(script: str, patch: Patch) -> None:
    """Put a terraform of our own on the PATH."""
    Path("terraform").write_text(f"#!/bin/sh\n{script}\n")
    Path("terraform").chmod(0o755)
    patch.setenv("PATH", f"{Path.cwd()}:/usr/bin:/bin")


def test_stack_is_terraforms(stack: StackOnMoto) -> None:
    """In the folder of the state nothing has to be named, the region neither."""
    Path("out.json").write_text(json.dumps(stack.outputs))
    terraform('[ "$*" = "output -json -no-color" ] && cat out.json', stack.patch)
    stack.patch.delenv("AWS_DEFAULT_REGION")
    result = run("check")
    assert (result.code, stack.bucket in result.out) == (0, True)


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION", "--region"])
def test_stack_by_name(variable: str, stack: StackOnMoto) -> None:
    """A name is enough; the region is an option, or either variable, of which the first wins."""
    stack.patch.delenv("AWS_DEFAULT_REGION")
    assert "no AWS region" in run("check --stack", stack.name).err
    region = ["--region", REGION] if variable == "--region" else []
    if not region:
        stack.patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        stack.patch.setenv(variable, REGION)
    stack.patch.setenv("DDG_STACK", stack.name)
    result = run("check", *region)
    assert (result.code, stack.bucket in result.out) == (0, True)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        pytest.param("echo '{}'", "`terraform output` names no stack:", id="nothing applied"),
        pytest.param("echo no", "`terraform output` isn't JSON", id="no JSON"),
        pytest.param("echo '│ Error: B' >&2; exit 1", "failed: Error: B.", id="not initialised"),
        pytest.param(None, "no terraform here to ask", id="no terraform"),
    ],
)
def test_no_stack_from_terraform(script: str | None, problem: str, monkeypatch: Patch) -> None:
    """What is wrong is said in a line, with the ways to name a stack."""
    terraform(script or "", monkeypatch)
    if script is None:
        monkeypatch.setenv("PATH", "/nowhere")
    result = run("check")
    assert (result.code in (2, 3), result.out, result.err.count("\n")) == (True, "", 1)
    assert problem in result.err
    assert "--stack" in result.err


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        pytest.param("queue_urls", {}, "lacks 'stats'", id="another project"),
        pytest.param("queue_urls", {"stats": "x"}, "lacks 'dead_letter'", id="a queue is missing"),
        pytest.param("queue_urls", "x", "has another shape", id="a text for an object"),
        pytest.param("bucket", {"value": 5}, "has another shape", id="a number for a text"),
        pytest.param("alarm_names", 5, "has another shape", id="alarms"),
        pytest.param("", [1], "names no stack", id="a list"),
        pytest.param("", "\x00[", "isn't JSON", id="no JSON"),
        pytest.param("", "[" * 100_000, "isn't JSON", id="deep"),
        pytest.param("", b"\xff\xfe", "isn't JSON", id="no text"),
    ],
)
def test_outputs_of_another_shape(name: str, value: object, problem: str) -> None:
    """One line, and no traceback."""
    content: object = OUTPUTS | {name: value} if name else value
    raw = content.encode() if isinstance(content, str) else content
    Path("o.json").write_bytes(raw if isinstance(raw, bytes) else json.dumps(raw).encode())
    result = run("check --stack o.json")
    assert (result.code in (2, 3), result.out, result.err.count("\n")) == (True, "", 1)
    assert problem in result.err


def test_stack_that_is_elsewhere(stack: StackOnMoto) -> None:
    """Another name, or another region than the outputs'."""
    assert f"no stack nobodys in {REGION}" in run("check --stack nobodys").err
    Path("o.json").write_text(json.dumps(stack.outputs))
    result = run("check --stack o.json --region eu-west-1")
    assert result.code == 2
    assert "the stack is in us-east-1, and --region says eu-west-1" in result.err


# --- The settings file ---


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"jobs": {"a": {"silent_after_hour": 2, "mappings": ""}}}', '"silent_after_hour", "mapp'),
        (
            '{"jobs": {"a": {"x": 2}}, "metrics": {"b": {"kind": 1}}}',
            '; metrics["b"] has no "kind"',
        ),
        ('{"buckets": {"b": {"prefiks": "x/"}}}', 'buckets["b"] has no "prefiks", but prefix, not'),
        ('{"jobs": {"a": "numbers(@)"}}', 'jobs["a"] isn\'t an object'),
        ('{"metrics": ["a.b"]}', "`metrics` isn't an object"),
        ("[]", "isn't a JSON object"),
        ("{", "isn't JSON"),
    ],
)
def test_settings_file_with_faults(text: str, problem: str) -> None:
    """What Terraform would drop or refuse is named, all of it."""
    Path("a.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_settings_file(Path("a.json"))


def test_settings_file_is_the_environment() -> None:
    """What Terraform makes of it for the submitter; what it doesn't say is left to the default."""
    jobs = {"dbt": {"mapping": "a"}, "nightly": {"silent_after_hours": 26, "mapping": None}}
    metrics = {"n": {"type": "count", "interval": 60, "unit": "x"}, "g": {"unit": "second"}}
    buckets = {"b": {"prefix": ""}, "c": {"notify": "s3"}}
    given = {"jobs": jobs, "metrics": metrics, "buckets": buckets, "constant_tags": ["a:b", "c"]}
    Path("a.json").write_text(json.dumps(given | {"max_age_seconds": 0, "metric_prefix": None}))
    environment: dict[str, Any] = {**submitter_environment(read_settings_file(Path("a.json")))}
    for name in ("JOBS", "METRICS", "BUCKETS"):
        environment[name] = json.loads(environment[name])
    assert environment == {
        "JOBS": {"dbt": {"mapping": "a"}},
        "METRICS": {"n": {"type": "count", "interval": 60}},
        "BUCKETS": {"b": "", "c": "stats/"},
        "CONSTANT_TAGS": "a:b,c",
        "MAX_AGE_SECONDS": "0",
    }


# --- The session ---


def test_profile_and_region_reach_all(stack: StackOnMoto) -> None:
    """Whatever a command asks of AWS is signed by the profile and for the region it was given."""
    patch = stack.patch
    stack = StackOnMoto(stack.moto, stack.datadog, patch, region="eu-west-1")
    arn = stack.aws["secretsmanager"].create_secret(Name=stack.name, SecretString=KEY)["ARN"]
    stack.set_environment(DATADOG_API_KEY="", DATADOG_API_KEY_SECRET_ARN=arn)
    stack.put("stats/a/1.json", stats(rows=1))
    stack.reject("stats/a/1.json", "not JSON")
    profiles = "[default]\n{}[profile other]\nregion = ap-south-1\n{}"
    keys = "aws_access_key_id = {0}\naws_secret_access_key = {0}\n"
    Path("config").write_text(profiles.format(keys.format("MINE"), keys.format("OTHER")))
    patch.setenv("AWS_CONFIG_FILE", "config")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.delenv(name)
    patch.setenv("DATADOG_API_KEY", KEY)
    wire = Wire(patch)
    for line in (
        "check --canary --timeout 0.01",
        "rejected show",
        "rejected replay",
        "rejected replay --only-good --yes",
        "backfill --since 1h --yes",
        "tail --no-follow",
        f"validate s3://{stack.bucket}/stats/a/1.json",
    ):
        result = stack.run(line, "--profile", "other", "--region", "eu-west-1")
        assert "Credentials" not in result.out + result.err, line
        assert result.code == (1 if "check" in line else 0), (line, result)
    assert wire.signers == {("OTHER", "eu-west-1")}
    assert wire.services >= {"s3", "sqs", "secretsmanager", "lambda", "logs", "sts"}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("InvalidClientTokenId", "AWS doesn't know these credentials"),
        ("SignatureDoesNotMatch", "AWS doesn't know these credentials"),
        ("ExpiredToken", "your AWS credentials have expired"),
        ("AccessDenied", "may not GetCallerIdentity"),
        ("Odd\x1b[31m", "AWS: Odd"),
    ],
)
@pytest.mark.parametrize("line", ["rejected list --stack any", "check --stack o.json"])
def test_wrong_credentials_are_one_line(
    code: str, problem: str, line: str, monkeypatch: Patch
) -> None:
    """No traceback, and once, not for each part: what is wrong and what to do."""
    Path("o.json").write_text(json.dumps(OUTPUTS))
    shown = code.encode("unicode_escape").decode()
    error = f"<Error><Code>{shown}</Code><Message>No.</Message></Error>"
    Wire(monkeypatch).refusal = f"<ErrorResponse>{error}</ErrorResponse>"
    result = run(line, "--json")
    assert (result.code, result.err.count("\n"), result.document["exit_code"]) == (3, 1, 3)
    assert problem in result.err


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        pytest.param({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "can't be reached", id="network"),
        pytest.param({"AWS_ACCESS_KEY_ID": None}, "credentials", id="half of the credentials"),
        pytest.param(
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "no AWS credentials",
            id="no credentials",
        ),
        pytest.param({"AWS_DEFAULT_REGION": None}, "no AWS region", id="no region"),
        pytest.param({"AWS_PROFILE": "gone"}, "profile (gone) could not be found", id="profile"),
    ],
)
def test_no_way_to_aws_is_one_line(
    environment: dict[str, str | None], problem: str, monkeypatch: Patch
) -> None:
    """No traceback here either."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # botocore's, between its attempts
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    result = run("rejected list --stack any")
    assert (result.code, result.out, result.err.count("\n")) == (3, "", 1)
    assert problem in result.err


# --- validate ---


def test_validate() -> None:
    """Good files with what would arrive, bad ones with their reasons, each with its own code."""
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
    assert "ok       _SUCCESS: a marker, which the submitter passes over\n" in result.out
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


def test_validate_takes_the_functions_settings(stack: StackOnMoto) -> None:
    """They are in the environment or the stack's own; a wrong one is a usage error."""
    Path("old.json").write_text('{"timestamp": 1575839011, "rows": 5}')
    assert run("validate old.json").code == 1
    for value, code in (("0", 0), ("ever", 2)):
        stack.patch.setenv("MAX_AGE_SECONDS", value)
        assert run("validate old.json").code == code
    stack.set_environment(MAX_AGE_SECONDS="0")
    result = run("validate old.json --stack", stack.name)
    assert (result.code, "rows{env:test} = 5" in result.out) == (0, True)


def test_validate_from_the_bucket_and_stdin(stack: StackOnMoto) -> None:
    """An object's key names its job; - is standard input, and no more of it is read than may be."""
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


# --- check ---


def findings(stack: StackOnMoto, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    """Return what check finds, by part."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for finding in stack.run("check --json", *arguments).document["findings"]:
        parts.setdefault(finding["part"], []).append(finding)
    return parts


def test_check_of_a_healthy_stack(stack: StackOnMoto) -> None:
    """All is well: 0, a line each, no fix."""
    result = stack.run("check")
    assert (result.code, result.err) == (0, "")
    parts = re.findall(r"^ok +(\w+) ", result.out, re.MULTILINE)
    expected = ["identity", "function", "notification", "key", "mapping", *["queues"] * 3]
    assert parts == [*expected, "outcomes", "alarms"]
    assert "fix:" not in result.out
    assert KEY not in result.out
    assert stack.run("check --json").document["healthy"] is True


def no_failures(stack: StackOnMoto) -> None:
    stack.aws["lambda"].delete_event_source_mapping(UUID=stack.mapping)
    stack.map_queue()


def waiting(stack: StackOnMoto) -> None:
    stack.send_all(stack.main_url, ["{}"])
    age = "ApproximateAgeOfOldestMessage"
    stack.metric("AWS/SQS", age, 7300, QueueName=f"{stack.name}-stats")


def name_the_secret(stack: StackOnMoto, secret: str) -> None:
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:gone-AAAAAA"
    if secret:
        created = stack.aws["secretsmanager"].create_secret(Name=stack.name, SecretString=secret)
        arn = created["ARN"]
    stack.set_environment(DATADOG_API_KEY="", DATADOG_API_KEY_SECRET_ARN=arn)


def tell_a_foreign_topic(stack: StackOnMoto) -> None:
    topic = f"arn:aws:sns:{REGION}:999999999999:uploads"
    stack.admit(topic)
    stack.notify("", stack.other, topic)


MISSPELT = '{"jobs": {"a": {"silent": 1}}}'
Break = Callable[[StackOnMoto], object]
ACTIONS: dict[str, Break] = {
    "notify elsewhere": lambda s: s.notify(prefix="elsewhere/"),
    "narrow the rule": lambda s: s.put_rule(s.other, "etl/stats/nightly/"),
    "narrow the notification": lambda s: s.notify("etl/stats/nightly/", s.other),
    "tell a topic of another account": tell_a_foreign_topic,
    "leave it to EventBridge": lambda s: s.aws["s3"].put_bucket_notification_configuration(
        Bucket=s.other, NotificationConfiguration={"EventBridgeConfiguration": {}}
    ),
    "refuse a file": lambda s: s.reject("stats/a/1.json", "not JSON"),
    "give up a file": lambda s: s.send_all(s.dead_letter_url, ["{}"]),
    "let a file wait": waiting,
    "ring": lambda s: s.alarm("files-rejected", "ALARM"),
    "remove an alarm": lambda s: s.remove_alarms("dead-letters"),
    "remove the alarms": lambda s: s.remove_alarms(*ALARMS),
    "fail as a whole": no_failures,
    "keep no key in the secret": lambda s: name_the_secret(s, "not a key"),
    "lose the secret": lambda s: name_the_secret(s, ""),
    "generate nothing": lambda s: s.generate("2025-11-24T12:00:00.000+0000"),
    "generate nothing yet": StackOnMoto.generate,
    "misspell": lambda s: Path("stack.auto.tfvars.json").write_text(
        '{"jobs": {"a": {"silent": 1}}}'
    ),
    "lose the generator": lambda s: s.outputs["function_names"]["value"].update(
        mock_datasource="gone"
    ),
}
# What is done (else a call of AWS's API, or the function's environment) | the parts that are not ok
# then, with ? where it can't be told | what the first one says | and its fix
BROKEN = """
notify elsewhere | notification | doesn't notify | terraform apply
s3 delete_bucket Bucket={0.bucket} | notification | bucket does not exist | terraform apply
sqs delete_queue QueueUrl={0.main_url} | notification mapping queues | not there (GetQ | terraform
DATADOG_API_KEY= | function key? | DATADOG_API_KEY is missing | terraform apply
REJECTED_QUEUE_URL={0.dead_letter_url} | function | sends refused | terraform apply
STATS_PREFIX=other/ | function | below other/ | terraform apply
lambda delete_function FunctionName={0.function} | function key? mapping | not there (GetF | terraf
DATADOG_API_KEY=revoked | key | doesn't take the API key (403) | Rotate
DATADOG_HOST=http://127.0.0.1:1 | key? | can't be reached from here (ConnectionError) | and proxy
keep no key in the secret | key | is neither a key | Put the key there
lose the secret | key | can't be read | Put the key there
lambda update_event_source_mapping UUID={0.mapping} Enabled= | mapping | paused: | resume --yes
misspell | settings | stack.auto.tfvars.json: jobs["a"] has no "silent", but | Correct it
lambda delete_event_source_mapping UUID={0.mapping} | mapping | nothing feeds | terraform apply
fail as a whole | mapping | ReportBatchItemFailures | at once
refuse a file | queues | about 1 waiting | ddg-ops rejected list
give up a file | queues | about 1 waiting | ddg-ops dead list
let a file wait | queues | oldest for 2 h | files-waiting
generate nothing | outcomes | no batch in the last 60 minutes, though | nothing-submitted
generate nothing yet | outcomes? | was made or changed only | again in some minutes
lose the generator | outcomes | not there (GetFunctionConfiguration | terraform apply
ring | alarms | files-rejected is on | First do this
remove an alarm | alarms | dead-letters | terraform apply
remove the alarms | alarms | not there: | terraform apply
sns delete_topic TopicArn={0.topic} | alarms | not there (ListSubscriptionsByTopic | terraform apply
"""


SPECIAL = {"Enabled": False, "NotificationConfiguration": {}, "Ids": ["stats"]}  # no texts


def do(what: str, stack: StackOnMoto) -> None:
    """Do what a row says."""
    name, _, value = what.format(stack).partition("=")
    if what in ACTIONS:
        ACTIONS[what](stack)
    elif " " not in what:
        stack.set_environment(**{name: value})
    else:
        service, operation, *pairs = what.format(stack).split()
        parameters: dict[str, Any] = dict(pair.split("=", 1) for pair in pairs)
        parameters |= {name: SPECIAL[name] for name in SPECIAL if name in parameters}
        getattr(stack.aws[service], operation)(**parameters)


@pytest.mark.parametrize("row", BROKEN.strip().splitlines())
def test_check_of_a_broken_stack(row: str, stack: StackOnMoto) -> None:
    """What is broken is named with its fix, and so is what can't be told; all is looked at."""
    what, parts, text, fix = row.split(" | ")
    do(what, stack)
    result = stack.run("check --json")
    found = result.document["findings"]
    bad = [each for each in found if each["state"] in ("FAILED", "unknown")]
    named = {each["part"] + "?" * (each["state"] == "unknown") for each in bad}
    assert named == set(parts.split())
    assert result.code == (1 if {part for part in named if "?" not in part} else 3)
    assert text in bad[0]["text"]
    assert fix in bad[0]["fix"]
    assert all(each["fix"] for each in bad)
    assert {each["part"] for each in found} >= {"identity", "queues", "alarms"}


def test_check_of_another_account(stack: StackOnMoto) -> None:
    """What that account lacks isn't gone: nothing more is said."""
    stack.outputs["alarm_topic_arn"] = {"value": f"arn:aws:sns:{REGION}:999999999999:x-alarms"}
    [finding] = stack.run("check --json").document["findings"]
    assert (finding["part"], finding["state"]) == ("identity", "FAILED")
    assert "the stack is in 999999999999" in finding["text"]


def test_check_of_what_may_not_be_seen(stack: StackOnMoto) -> None:
    """Without permission a part is neither well nor broken: 3, with its own fix."""
    wire = Wire(stack.patch)
    wire.refused, wire.refusal = "/configuration", '{"Code": "AccessDeniedException"}'
    result = stack.run("check --json")
    states = {each["part"]: each for each in result.document["findings"]}
    assert result.code == 3
    assert states["function"]["state"] == states["mapping"]["state"] == "unknown"
    assert "may not GetFunctionConfiguration" in states["function"]["text"]
    assert "sts get-caller-identity" in states["function"]["fix"]
    assert states["alarms"]["state"] == "ok"


def test_check_by_name_of_what_is_gone(stack: StackOnMoto) -> None:
    """A stack is found by what is left of it."""
    stack.aws["sqs"].delete_queue(QueueUrl=stack.rejected_url)
    stack.aws["lambda"].delete_function(FunctionName=stack.function)
    result = run("check --stack", stack.name)
    assert result.code == 1
    assert result.out.count("\nFAILED") == 3  # the function, the mapping, a queue


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(302, headers={"Location": "http://127.0.0.1:1/elsewhere"}), "answered 302"),
        (Answer(503), "answered 503"),
        (Answer(200, b"<html>"), "answered 200, not whether"),
    ],
)
def test_check_of_a_datadog_that_does_not_say(
    answer: Answer, text: str, stack: StackOnMoto
) -> None:
    """That is no bad key, and the key doesn't travel on."""
    stack.datadog.respond_validate = lambda request: answer
    [key] = findings(stack)["key"]
    assert (key["state"], text in key["text"]) == ("unknown", True)
    assert (len(stack.datadog.validations), stack.datadog.requests) == (1, [])


def test_check_says_why_files_were_retried(stack: StackOnMoto) -> None:
    """The last hour by outcome, and the last retry's reason; nobody subscribed is a note."""
    for outcome, number in (("Submitted", 5), ("Retried", 2)):
        stack.metric("DatadogStats", outcome, number, FunctionName=stack.function)
    stack.log(json.dumps({"level": "WARNING", "message": "retried 2: Datadog answered 403. x"}))
    stack.aws["sns"].unsubscribe(SubscriptionArn=stack.pager)
    name_the_secret(stack, f'{{"api_key": "{KEY}"}}')  # which is asked for at Datadog too
    found = findings(stack)
    assert found["key"][0]["state"] == "ok"
    assert [each["text"] for each in found["outcomes"]] == [
        "in the last 60 minutes: 5 submitted, 0 refused, 2 retried",
        "the last retry: retried 2: Datadog answered 403. x",
    ]
    alarms = found["alarms"][-1]
    assert (alarms["state"], alarms["text"][:16]) == ("note", "nobody hears the")


# --- The canary ---


def on_sleep(monkeypatch: Patch, module: Any, action: Callable[[], object]) -> None:
    """Have something happen each time that a command waits."""
    clock = vars(time) | {"sleep": lambda seconds: action()}
    monkeypatch.setattr(module, "time", SimpleNamespace(**clock))


def test_canary_is_submitted(stack: StackOnMoto) -> None:
    """The file goes the whole way: the log names it, and Datadog shows its point."""
    on_sleep(stack.patch, canary, stack.submit)
    stack.generate()
    result = stack.run("check --canary")
    assert result.code == 0, result.out  # and no batch of the generator's yet is a note
    assert re.search(r"ok +canary +s3://\S+ was submitted; \d+\.\d s after the put", result.out)
    assert "isn't proven: there is no application key" in result.out
    assert list(stack.datadog.points) == [("ddg.canary", ("env:test", "job:canary"))]
    stack.patch.setenv("DATADOG_APP_KEY", stack.datadog.app_key)
    stack.set_environment(METRIC_PREFIX="etl.")
    result = stack.run("check --canary")
    assert re.search(r"max:ddg.canary\{job:canary\} shows its point \d s after", result.out)
    assert (result.code, "isn't proven" in result.out) == (0, False)


@pytest.mark.parametrize(
    ("app_key", "dropped", "problem"),
    [("another", False, "Datadog answered 403"), ("test-app-key", True, "and doesn't show it")],
)
def test_canary_that_is_not_proven(
    app_key: str, dropped: bool, problem: str, stack: StackOnMoto
) -> None:
    """A 202 alone is no proof: that is unknown, with its causes."""
    on_sleep(stack.patch, canary, stack.submit)
    stack.patch.setenv("DATADOG_APP_KEY", app_key)
    stack.datadog.respond = lambda request: Answer() if dropped else None
    found = findings(stack, "--canary", "--timeout", "1")["canary"]
    assert [each["state"] for each in found] == ["ok", "unknown"]
    assert problem in found[1]["text"]
    assert "organisation" in found[1]["fix"]


def too_old(stack: StackOnMoto) -> None:
    stack.environment["MAX_AGE_SECONDS"] = "1"
    later = time.time() + 9
    stack.patch.setattr(time, "time", lambda: later)
    stack.submit()


def elsewhere(stack: StackOnMoto) -> None:
    stack.environment["STATS_PREFIX"] = "other/"
    stack.submit()


def with_an_outage(stack: StackOnMoto) -> None:
    stack.environment["DATADOG_HOST"] = "http://127.0.0.1:1"
    stack.submit()


def in_silence(stack: StackOnMoto) -> None:
    stack.set_environment(LOG_FILES="false")
    stack.submit()


@pytest.mark.parametrize(
    ("action", "state", "text", "fix"),
    [
        (too_old, "FAILED", "was refused (timestamp ", "this machine's clock"),
        (elsewhere, "FAILED", "was ignored (not a new object, or", "in BUCKETS"),
        (with_an_outage, "FAILED", "is retried (no answer from Datadog", "files-retried"),
        (lambda stack: None, "FAILED", "about 1 message in", "isn't taken"),
        (lambda stack: stack.purge(stack.main_url), "FAILED", "is empty", "Did the bucket notify"),
    ],
    ids=["refused", "ignored", "retried", "nobody takes it", "nobody was told"],
)
def test_canary(action: Break, state: str, text: str, fix: str, stack: StackOnMoto) -> None:
    """Refusal, retry, or none of them after the timeout: each is told, with a fix."""
    on_sleep(stack.patch, canary, lambda: action(stack))
    [found] = findings(stack, "--canary", "--timeout", "0.3")["canary"]
    assert (found["state"], text in found["text"]) == (state, True), found
    assert fix in found["fix"]


def test_canary_where_files_are_not_logged(stack: StackOnMoto) -> None:
    """The log can't say that it is submitted, and Datadog can."""
    stack.set_environment(LOG_FILES="false")
    stack.patch.setenv("DATADOG_APP_KEY", stack.datadog.app_key)
    on_sleep(stack.patch, canary, stack.submit)
    found = findings(stack, "--canary", "--timeout", "0.3")["canary"]
    assert [each["state"] for each in found] == ["unknown", "ok"]


def test_check_tells_the_delay(stack: StackOnMoto) -> None:
    """95 of 100 files; moto knows no percentiles."""
    clients: Any = BaseClient
    call = clients._make_api_call

    def answer(client: Any, operation: str, parameters: Any) -> Any:
        if parameters.get("ExtendedStatistics") != ["p95"]:
            return call(client, operation, parameters)
        assert (parameters["MetricName"], parameters["Period"]) == ("DelayMilliseconds", 3600)
        times = datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(3600, UTC)
        known = [{"p95": 900.0}, {"p95": 1340.0}]  # two clock hours
        points = [
            {"Timestamp": t, "ExtendedStatistics": p} for t, p in zip(times, known, strict=True)
        ]
        return {"Datapoints": points}

    stack.patch.setattr(clients, "_make_api_call", answer)
    assert "95% were in Datadog 1.3 s after S3's event" in stack.run("check").out


# --- Buckets that were there before ---


def test_check_of_buckets(stack: StackOnMoto) -> None:
    """Each is asked how its files are told of; a canary alone shows that they can be read."""
    for way in ("eventbridge", "sns", "s3"):
        stack.connect(way)
    found = findings(stack)
    told = [(each["state"], each["text"].split(stack.name)[-1]) for each in found["notification"]]
    assert [state for state, _ in told] == 4 * ["ok"]
    assert [text for _, text in told][1:] == ["-by-eventbridge", "-by-sns", "-stats"]
    [access] = found["access"]
    assert access["state"] == "unknown"
    result = run(access["fix"].removeprefix("ddg-ops "), "--timeout", "0.3", "--stack", stack.name)
    assert "is neither submitted nor refused" in result.out  # nobody takes them yet
    on_sleep(stack.patch, canary, stack.submit)
    stack.submit()
    result = stack.run(access["fix"].removeprefix("ddg-ops "))
    assert (result.code, result.out.count(" was submitted; ")) == (0, 3), result.out
    assert ("ddg.canary", ("env:test", "job:canary")) in stack.datadog.points


# What is done | the way | the state, what it says | and the fix
UNTOLD = """
s3 put_bucket_notification_configuration Bucket={0.other} NotificationConfiguration= | eventbridge \
| FAILED | isn't on | {0.other}".notify
events disable_rule Name={0.other} | eventbridge | FAILED | (DISABLED) doesn't take | terraform
narrow the rule | eventbridge | FAILED | (ENABLED) doesn't take | terraform apply
events remove_targets Rule={0.other} Ids= | eventbridge | FAILED | by any way | terraform apply
refuse | eventbridge | unknown | the rule matches: your AWS profile may not Get | --bucket {0.other}
sns unsubscribe SubscriptionArn={0.subscription} | sns | FAILED | isn't subscribed | terraform apply
tell a topic of another account | s3 | unknown | 999999999999:uploads, which is | --bucket {0.other}
leave it to EventBridge | sns | unknown | a rule of EventBridge's may | --bucket {0.other}
narrow the notification | s3 | FAILED | by any way | {0.other}".notify
refuse | s3 | unknown | what s3://{0.other} notifies can't be seen: your AWS | --bucket {0.other}
s3 delete_bucket Bucket={0.other} | s3 | FAILED | s3://{0.other}: not there (GetB | in `buckets`
"""


@pytest.mark.parametrize("row", UNTOLD.strip().splitlines())
def test_check_of_a_bucket_that_is_not_told_of(row: str, stack: StackOnMoto) -> None:
    """What is missing is FAILED with what to type; what can't be seen from here is unknown."""
    what, way, state, text, fix = row.split(" | ")
    stack.connect(way)
    if what == "refuse":
        wire = Wire(stack.patch)
        wire.refused = f"{stack.other}?notification"
        wire.refusal = "<Error><Code>AccessDenied</Code></Error>"
    else:
        do(what, stack)
    own, found = findings(stack)["notification"]
    assert (own["state"], found["state"]) == ("ok", state), found
    assert text.format(stack) in found["text"]
    assert fix.format(stack) in found["fix"]


def test_commands_on_every_bucket(stack: StackOnMoto) -> None:
    """A stack without a bucket of its own: the job and the prefix are the bucket's."""
    stack.disown()
    bucket = stack.connect("eventbridge")
    stack.put("etl/stats/nightly/a=b c.json", stats(rows="1"), bucket)
    stack.submit()
    listed = stack.run("rejected list --job nightly --json").document
    assert [each["job"] for each in listed["groups"]] == ["job:nightly"]
    assert f"{bucket}/etl/stats/nightly/a=b c.json" in listed["groups"][0]["example"]
    encoded = {"detail": {"bucket": {"name": bucket}, "object": {"key": "etl/stats/etl%2Fa%3Db"}}}
    stack.put("etl/stats/etl/a=b", stats(rows=1), bucket)
    stack.purge(stack.main_url)
    stack.send_all(stack.dead_letter_url, [json.dumps({"source": "aws.s3"} | encoded)])
    assert '| {"timestamp": ' in stack.run("dead show").out
    assert "     1  would be submitted\n" in stack.run("dead replay").out
    assert stack.run("dead replay --yes").code == 0
    stack.submit()
    assert ("rows", ("env:test", "job:etl")) in stack.datadog.points
    stack.patch.setenv("DATADOG_API_KEY", KEY)
    dry = stack.run("backfill --since 1h").out
    assert f"backfill of s3://{bucket}/etl/stats/, " in dry
    assert "2 found, 1 would be submitted" in dry
    name = f"s3://{bucket}/etl/stats/etl/a=b"
    assert "rows{env:test,job:etl} = 1" in stack.run("validate", name).out
    other = stack.connect("s3", "")
    for line, problem in (
        (
            "backfill --since 1h",
            f"the stack has no bucket of its own. Name one: --bucket {bucket} or {other}.",
        ),
        ("check --canary", "the stack has no bucket of its own. Name one:"),
        ("check --canary --bucket acme", "the stack takes no files from acme. Name one:"),
        ("check --bucket acme", "--bucket is for --canary"),
        (f"backfill --since 1h --bucket {bucket} --prefix x", "Did you mean etl/stats/x?"),
    ):
        result = stack.run(line)
        assert (result.code, problem in result.err) == (2, True), result
    result = run(f"backfill --since 1h --bucket {other}", "--stack", stack.name)
    assert f"backfill of s3://{other}/, " in result.out
    result = stack.run("check")
    assert result.code == 1  # a file was refused
    assert len(re.findall("^ok +notification", result.out, re.MULTILINE)) == 2


# --- tail ---


def summary(**values: int) -> dict[str, Any]:
    """Return a batch's summary."""
    return {"_aws": {}, "Submitted": 0, "Refused": 0, "Retried": 0, "Points": 0} | values


LINES = [  # of the log, and what is shown of it
    (
        summary(Submitted=8, Points=24, Requests=1, WireBytes=700) | {"DelayMilliseconds": [7, 90]},
        (
            f"{8:5} submitted{0:5} refused{0:5} retried{24:7} points{1:4} requests{700:8} B  "
            "fetch 0 ms  post 0 ms  delay 90 ms"
        ),
    ),
    ("refused s3://b/\x1b[2J: no", "refused s3://b/\ufffd[2J: no"),
    ({"level": "ERROR", "message": "no", "stackTrace": ["File x"]}, "no ['File x']"),
    ("2025 id Task timed out", "2025 id Task timed out"),
    (
        {"type": "platform.report", "record": {"status": "timeout"}},
        "the function ended with timeout",
    ),
    ({"type": "platform.report", "record": {"status": "success"}}, None),
    ({"_aws": {}, "FunctionName": "f", "Job": "nightly", "Submitted": 1, "Refused": 0}, None),
    ({"type": "platform.start"}, None),
    ([1], None),
    ('submitted ["s3://b/\\u00e9", "s3://b/2"]', ["submitted s3://b/é", "submitted s3://b/2"]),
]


def test_tail_of_lines(stack: StackOnMoto) -> None:
    """A batch a line; refusals, retries and errors as they are; what Lambda says of itself not.

    The submitted files are shown with --files.
    """
    stack.log(*(line if isinstance(line, str) else json.dumps(line) for line, _ in LINES))
    lines = stack.run("tail --no-follow").out.splitlines()
    assert [line[22:] for line in lines] == [shown for _, shown in LINES if isinstance(shown, str)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z  ", line[:22]) for line in lines)
    documents = stack.run("tail --no-follow --json").out.splitlines()
    assert len([json.loads(each)["at"] for each in documents]) == len(lines)
    lines = stack.run("tail --no-follow --files").out.splitlines()
    assert [line[22:] for line in lines][-2:] == LINES[-1][1]


def test_tail_follows(stack: StackOnMoto) -> None:
    """New lines come once each, late ones too, until Ctrl-C; older than --since stay out."""
    stack.log("old", at=time.time() - 7200)
    stack.log("first")
    steps: list[Callable[[], None]] = [
        lambda: stack.log("second"),
        lambda: stack.log("late", at=time.time() - 30),
        lambda: None,
    ]

    def step() -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    on_sleep(stack.patch, log, step)
    result = stack.run("tail")
    assert (result.code, result.err.count("\n")) == (130, 1)
    assert [line[22:] for line in result.out.splitlines()] == ["first", "second", "late"]
    assert "old" in stack.run("tail --no-follow --since 3h").out
