"""ddg_ops.py: its command line, how it finds a stack, validate, check, tail, and its errors."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partialmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from rich.progress import Progress

import ddg_ops
import ddg_ops_stack
import ddg_ops_watch
from local.datadog_server import Answer, DatadogServer
from tests.operated import ALARMS, KEY, REGION, Run, StackOnMoto, make_run, make_stack, stats

ROOT = Path(__file__).resolve().parent.parent
stack = pytest.fixture(make_stack)
run = pytest.fixture(make_run)
Capsys = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def no_stack_of_ones_own(monkeypatch: Patch) -> None:
    """Whoever runs the tests may have named one."""
    monkeypatch.delenv("DDG_STACK", raising=False)


# --- The command line ---


def leaf_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and all below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from leaf_parsers(child)


PARSERS = list(leaf_parsers(ddg_ops.build_parser()))


@pytest.mark.parametrize("parser", PARSERS, ids=[parser.prog for parser in PARSERS])
def test_each_help_has_examples_that_are_right(parser: argparse.ArgumentParser) -> None:
    """What --help shows can be typed: its examples parse."""
    shown = [line for line in parser.format_help().splitlines() if ".venv/bin/python" in line]
    for line in shown:
        words = shlex.split(line.replace("< ", "# "), comments=True)
        assert words[:2] == [".venv/bin/python", "ddg_ops.py"]
        assert ddg_ops.build_parser().parse_args(words[2:]).command
    assert shown


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="no command"),
        pytest.param("rejected", id="no action"),
        pytest.param("nonsense", id="no such command"),
        pytest.param("validate", id="no file"),
        pytest.param("backfill", id="no time"),
        pytest.param("backfill --since noon", id="no such time"),
        pytest.param("backfill --since 1h --rate 0", id="no rate"),
        pytest.param("rejected list --limit -1", id="a negative limit"),
        pytest.param("rejected replay --y", id="an abbreviation of --yes"),
        pytest.param("validate --max-age ever x.json", id="no such age"),
    ],
)
def test_wrong_command_line_is_2(line: str, capsys: Capsys) -> None:
    """Usage errors are told apart from all others."""
    with pytest.raises(SystemExit) as exit_:
        ddg_ops.main(line.split())
    assert exit_.value.code == 2
    assert "usage: ddg_ops.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds_ago"),
    [
        pytest.param("now", 0, id="now"),
        pytest.param("30m", 1800, id="minutes"),
        pytest.param("6h", 6 * 3600, id="hours"),
        pytest.param("2d", 2 * 86400, id="days"),
        pytest.param("45s", 45, id="seconds"),
    ],
)
def test_times_ago(text: str, seconds_ago: int) -> None:
    """A span means that long before now."""
    assert time.time() - ddg_ops_stack.parse_time(text) == pytest.approx(seconds_ago, abs=2)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("2025-11-24", "2025-11-24T00:00:00Z", id="date"),
        pytest.param("2025-11-24T12:00", "2025-11-24T12:00:00Z", id="without a zone it is UTC"),
        pytest.param("2025-11-24T12:00+02:00", "2025-11-24T10:00:00Z", id="with a zone"),
        pytest.param("1764000000", "2025-11-24T16:00:00Z", id="epoch seconds"),
    ],
)
def test_times(text: str, shown: str) -> None:
    """Dates are UTC unless they say otherwise."""
    assert ddg_ops_stack.utc(ddg_ops_stack.parse_time(text)) == shown


def test_time_of_day_is_the_last_one() -> None:
    """At 3 a.m. "since noon" is yesterday's noon."""
    ahead = time.strftime("%H:%M", time.gmtime(time.time() + 120))
    assert 86_000 < time.time() - ddg_ops_stack.parse_time(ahead) < 86_400
    before = time.strftime("%H:%M", time.gmtime(time.time() - 120))
    assert 0 < time.time() - ddg_ops_stack.parse_time(before) < 200


def test_terminal_without_the_characters(tmp_path: Path) -> None:
    """What a terminal can't show is escaped, and no reason to fail."""
    (tmp_path / "größe.json").write_text("")
    script = [sys.executable, str(ROOT / "ddg_ops.py"), "validate", "größe.json"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    run = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, env=ascii_only)
    assert run.returncode == 1
    assert run.stdout.startswith("refused  gr\\xf6\\xdfe.json: the file is empty.")


def test_as_a_script(tmp_path: Path) -> None:
    """The exit code reaches the shell, standard input is read, and a pipe gets plain text."""
    good = json.dumps(stats(rows=1))
    script = [sys.executable, str(ROOT / "ddg_ops.py"), "validate", "-"]
    runs = [
        subprocess.run(script, input=text, capture_output=True, text=True, cwd=tmp_path)
        for text in (good, "{")
    ]
    assert [each.returncode for each in runs] == [0, 1]
    assert runs[0].stdout.startswith("ok       -: 1 point\n")
    assert runs[1].stdout.startswith("refused  -: not JSON")
    assert "\x1b" not in runs[0].stdout + runs[1].stdout
    assert [each.stderr for each in runs] == ["", ""]


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_reader_that_leaves(options: list[str], tmp_path: Path) -> None:
    """`| head` is no reason for a traceback, nor to say that files are bad."""
    (tmp_path / "good.json").write_text(json.dumps(stats(rows=1)))
    script = [sys.executable, str(ROOT / "ddg_ops.py"), "validate", "good.json", *options]
    pipe = subprocess.PIPE
    process = subprocess.Popen(script, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path)
    assert process.stdout
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (3, "")


# --- The stack ---


def terraform(folder: Path, script: str, patch: Patch) -> None:
    """Put a terraform of our own on the PATH."""
    program = folder / "terraform"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    patch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_stack_is_terraforms(
    stack: StackOnMoto, capsys: Capsys, tmp_path: Path, monkeypatch: Patch
) -> None:
    """In the folder of the state nothing has to be named."""
    (tmp_path / "out.json").write_text(json.dumps(stack.outputs))
    terraform(
        tmp_path, f'[ "$*" = "output -json -no-color" ] && cat {tmp_path}/out.json', monkeypatch
    )
    monkeypatch.delenv("AWS_DEFAULT_REGION")  # the outputs say it
    assert ddg_ops.main(["check"]) == 0
    assert stack.bucket in capsys.readouterr().out


def test_stack_by_name(stack: StackOnMoto, capsys: Capsys, monkeypatch: Patch) -> None:
    """A name is enough, on the command line or in the environment; options stand anywhere."""
    assert ddg_ops.main(["--stack", stack.name, "--region", REGION, "check"]) == 0
    monkeypatch.setenv("DDG_STACK", stack.name)
    assert ddg_ops.main(["check", "--json"]) == 0
    assert stack.bucket in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        pytest.param("echo '{}'", "`terraform output` names no stack.", id="nothing applied"),
        pytest.param(
            "echo '│ Error: Backend initialization required' >&2; exit 1",
            "failed: Error: Backend initialization required.",
            id="not initialised",
        ),
        pytest.param(
            'echo \'{"bucket": {"value": "b"}}\'', "lacks 'queue_urls'", id="another project"
        ),
        pytest.param(None, "no terraform here to ask", id="no terraform"),
    ],
)
def test_no_stack_from_terraform(
    script: str | None, problem: str, tmp_path: Path, monkeypatch: Patch, capsys: Capsys
) -> None:
    """What is wrong is said in a line, with the ways to name a stack."""
    terraform(tmp_path, script or "", monkeypatch)
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert ddg_ops.main(["check"]) in (2, 3)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert problem in err
    assert "--stack" in err


def test_no_stack_of_that_name(stack: StackOnMoto, capsys: Capsys, tmp_path: Path) -> None:
    """Another name, another region, or a file that isn't there: each is said."""
    assert ddg_ops.main(["check", "--stack", "nobodys"]) == 3
    assert f"no stack nobodys in {REGION}" in capsys.readouterr().err
    assert ddg_ops.main(["check", "--stack", "outputs.json"]) == 2
    assert "can't read outputs.json" in capsys.readouterr().err
    (tmp_path / "o.json").write_text(json.dumps(stack.outputs))
    assert (
        ddg_ops.main(["check", "--stack", str(tmp_path / "o.json"), "--region", "eu-west-1"]) == 2
    )
    assert "the stack is in us-east-1, and --region says eu-west-1" in capsys.readouterr().err
    (tmp_path / "o.json").write_text("{")
    assert ddg_ops.main(["check", "--stack", str(tmp_path / "o.json")]) == 2
    assert "isn't JSON" in capsys.readouterr().err


# --- Errors of AWS ---


class AwsStub(ThreadingHTTPServer):
    """AWS that gives every request the same answer."""

    def __init__(self, status: int, body: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def __enter__(self) -> AwsStub:
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        pytest.param("InvalidClientTokenId", "AWS doesn't know these credentials", id="unknown"),
        pytest.param("SignatureDoesNotMatch", "AWS doesn't know these credentials", id="secret"),
        pytest.param("ExpiredToken", "your AWS credentials have expired", id="expired"),
        pytest.param("AccessDenied", "may not GetCallerIdentity", id="denied"),
        pytest.param("Odd\x1b[31m", "AWS answered GetCallerIdentity", id="anything else"),
    ],
)
def test_wrong_credentials_are_one_line(
    code: str, problem: str, monkeypatch: Patch, capsys: Capsys
) -> None:
    """No traceback: what is wrong and what to do; with --json the same for a machine."""
    error = f"<Code>{code.encode('unicode_escape').decode()}</Code><Message>No.</Message>"
    body = f"<ErrorResponse><Error>{error}</Error></ErrorResponse>"
    with AwsStub(403, body) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{aws.server_port}")
        assert ddg_ops.main(["rejected", "list", "--stack", "any", "--json"]) == 3
    out, err = capsys.readouterr()
    assert problem in err
    assert err.count("\n") == 1
    assert json.loads(out)["exit_code"] == 3


def test_check_ends_where_it_is_nobody(
    stack: StackOnMoto, tmp_path: Path, monkeypatch: Patch, capsys: Capsys
) -> None:
    """Without credentials every part would say the same: once is enough."""
    (tmp_path / "o.json").write_text(json.dumps(stack.outputs))
    error = "<Code>InvalidClientTokenId</Code><Message>No.</Message>"
    with AwsStub(403, f"<ErrorResponse><Error>{error}</Error></ErrorResponse>") as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{aws.server_port}")
        assert ddg_ops.main(["check", "--stack", str(tmp_path / "o.json")]) == 3
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


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
    environment: dict[str, str | None], problem: str, monkeypatch: Patch, capsys: Capsys
) -> None:
    """No traceback here either."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # botocore's, between its attempts
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    assert ddg_ops.main(["rejected", "list", "--stack", "any"]) == 3
    out, err = capsys.readouterr()
    assert problem in err
    assert (out, err.count("\n")) == ("", 1)


# --- validate ---


def test_validate(tmp_path: Path, capsys: Capsys) -> None:
    """Good files with what would arrive, bad ones with their reasons; 1 says that one is bad."""
    now = int(time.time())
    (tmp_path / "good.json").write_text(json.dumps({"timestamp": now, "rows": {"read": 5}}))
    (tmp_path / "good.gz").write_bytes(gzip.compress(json.dumps(stats(a=1)).encode()))
    (tmp_path / "bad.json").write_text(json.dumps(stats(rows="5")))
    files = [str(tmp_path / name) for name in ("good.json", "good.gz", "bad.json")]
    assert ddg_ops.main(["validate", *files, "--job", "My Job"]) == 1
    out = capsys.readouterr().out
    assert f"ok       {files[0]}: 1 point\n" in out
    assert f"{ddg_ops_stack.utc(now)}  rows.read{{job:my_job}} = 5\n" in out
    assert f"ok       {files[1]}: 1 point\n" in out
    assert f'refused  {files[2]}: "rows" is the string "5". A metric needs a JSON number.\n' in out
    assert ddg_ops.main(["validate", *files[:2]]) == 0


def test_validate_for_machines(tmp_path: Path, capsys: Capsys) -> None:
    """One document: all points, each reason."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"timestamp": 1575839011, "rows": 5, "tags": ["Env:Prod"]}))
    bad.write_text("")
    arguments = [str(good), str(bad), "--job", "etl", "--max-age", "0", "--json"]
    assert ddg_ops.main(["validate", *arguments]) == 1
    document = json.loads(capsys.readouterr().out)
    point = {"metric": "rows", "timestamp": 1575839011, "value": 5}
    assert document["files"][0] == {
        "file": str(good),
        "ok": True,
        "points": [point | {"tags": ["env:prod", "job:etl"]}],
    }
    assert document["files"][1]["ok"] is False
    assert document["files"][1]["reason"].startswith("the file is empty.")


def test_validate_of_what_cannot_be_read(tmp_path: Path, capsys: Capsys) -> None:
    """A file that isn't there says nothing about files: that is 3, unless another one is bad."""
    (tmp_path / "bad.json").write_text("[]")
    assert ddg_ops.main(["validate", str(tmp_path / "no.json")]) == 3
    assert "No such file" in capsys.readouterr().out
    assert ddg_ops.main(["validate", str(tmp_path / "no.json"), str(tmp_path / "bad.json")]) == 1


def test_validate_takes_the_functions_settings(tmp_path: Path, monkeypatch: Patch) -> None:
    """The environment is the function's; a wrong one is a usage error."""
    (tmp_path / "old.json").write_text('{"timestamp": 1575839011, "rows": 5}')
    assert ddg_ops.main(["validate", str(tmp_path / "old.json")]) == 1
    monkeypatch.setenv("MAX_AGE_SECONDS", "0")
    assert ddg_ops.main(["validate", str(tmp_path / "old.json")]) == 0
    monkeypatch.setenv("MAX_AGE_SECONDS", "ever")
    assert ddg_ops.main(["validate", str(tmp_path / "old.json")]) == 2


def test_validate_from_the_bucket_and_stdin(
    stack: StackOnMoto, capsys: Capsys, monkeypatch: Patch
) -> None:
    """An object's key names its job; - is standard input, and no more of it is read than may be."""
    stack.put("stats/nightly/a.json", stats(rows=1))
    stack.put("stats/nightly/large", b" " * (10 * 1024 * 1024 + 1))
    base = f"s3://{stack.bucket}/stats/nightly"
    assert ddg_ops.main(["validate", f"{base}/a.json"]) == 0
    assert "rows{job:nightly} = 1" in capsys.readouterr().out
    assert ddg_ops.main(["validate", f"{base}/large"]) == 1
    assert ddg_ops.main(["validate", f"{base}/gone"]) == 3
    assert "not there" in capsys.readouterr().out
    stream = io.BytesIO(b" " * (10 * 1024 * 1024 + 2))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    assert ddg_ops.main(["validate", "-"]) == 1
    assert "the file is over 10,485,760 bytes" in capsys.readouterr().out
    assert stream.tell() == 10 * 1024 * 1024 + 1


def test_validate_shows_the_first_points(tmp_path: Path, capsys: Capsys) -> None:
    """Of a large file ten points are enough."""
    (tmp_path / "a.json").write_text(json.dumps(stats(**{f"m{n}": n for n in range(25)})))
    assert ddg_ops.main(["validate", str(tmp_path / "a.json")]) == 0
    out = capsys.readouterr().out
    assert out.count(" = ") == 10
    assert "and 15 more" in out


# --- Terminals ---


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
    screen = ddg_ops_stack.Screen(as_json=False)
    screen.say(f"<{hostile}>", "red")
    screen.note(f"<{hostile}>")
    for shown in capsys.readouterr():
        assert shown.endswith("\n")
        assert shown[:-1].isprintable()
    screen = ddg_ops_stack.Screen(as_json=True)
    screen.result({"key": hostile})
    assert capsys.readouterr().out[:-1].isprintable()


def test_colours_are_for_terminals(capsys: Capsys, monkeypatch: Patch) -> None:
    """Where there is one there are colours, unless NO_COLOR is set."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    ddg_ops_stack.Screen(as_json=False).say("red", "red")
    assert "\x1b[31m" in capsys.readouterr().out


def test_progress_is_plain_without_a_terminal(capsys: Capsys, monkeypatch: Patch) -> None:
    """A line now and then on stderr; nothing for what is quick."""
    screen = ddg_ops_stack.Screen(as_json=False)
    with screen.progress("messages", 5000) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(ddg_ops_stack, "PLAIN_PROGRESS_SECONDS", -1)
    with screen.progress("messages", 5000) as advance:
        advance(1000)
        advance(1000)
    lines = "1,000 of about 5,000 messages\n2,000 of about 5,000 messages\n"
    assert capsys.readouterr() == ("", lines)


def test_progress_is_a_bar_on_a_terminal(capsys: Capsys, monkeypatch: Patch) -> None:
    """What takes longer than two seconds shows a bar, and leaves no trace of it on stdout."""
    monkeypatch.setattr(ddg_ops_stack, "QUIET_SECONDS", -1)
    for name, value in {"TERM": "xterm", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}.items():
        monkeypatch.setenv(name, value)  # rich: this is a terminal
    screen = ddg_ops_stack.Screen(as_json=False)
    update = Progress.update
    monkeypatch.setattr(Progress, "update", partialmethod(update, refresh=True))  # not by a clock
    with screen.progress("messages", 10) as advance:
        advance(5)
        print("a line of output")
    out, err = capsys.readouterr()
    assert out == "a line of output\n"
    assert "5 of about 10 messages" in err


# --- check ---


def findings(run: Run, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    """Return what check finds, by part."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for finding in run("check", "--json", *arguments).document["findings"]:
        parts.setdefault(finding["part"], []).append(finding)
    return parts


def test_check_of_a_healthy_stack(stack: StackOnMoto, run: Run) -> None:
    """All is well: 0, a line each, no fix."""
    result = run("check")
    assert result.code == 0
    parts = re.findall(r"^ok +(\w+) ", result.out, re.MULTILINE)
    expected = ["identity", "notification", "function", "key", "mapping", *["queues"] * 3]
    assert parts == [*expected, "outcomes", "alarms"]
    assert "fix:" not in result.out
    assert result.err == ""
    assert KEY not in result.out
    assert run("check", "--json").document["healthy"] is True


def break_account(stack: StackOnMoto) -> None:
    stack.outputs["alarm_topic_arn"] = {"value": f"arn:aws:sns:{REGION}:999999999999:x-alarms"}


def break_notification(stack: StackOnMoto) -> None:
    stack.notify(prefix="elsewhere/")


def break_environment(stack: StackOnMoto) -> None:
    stack.set_environment(DATADOG_API_KEY="")


def break_rejected_queue(stack: StackOnMoto) -> None:
    stack.set_environment(REJECTED_QUEUE_URL=stack.dead_letter_url)


def break_prefix(stack: StackOnMoto) -> None:
    stack.set_environment(STATS_PREFIX="other/")


def break_key(stack: StackOnMoto) -> None:
    stack.set_environment(DATADOG_API_KEY="revoked")


def break_site(stack: StackOnMoto) -> None:
    stack.set_environment(DATADOG_HOST="http://127.0.0.1:1")


def break_mapping(stack: StackOnMoto) -> None:
    stack.aws["lambda"].update_event_source_mapping(UUID=stack.mapping, Enabled=False)


def remove_mapping(stack: StackOnMoto) -> None:
    stack.aws["lambda"].delete_event_source_mapping(UUID=stack.mapping)


def fill_rejected(stack: StackOnMoto) -> None:
    stack.reject("stats/a/1.json", "not JSON")


def fill_dead_letters(stack: StackOnMoto) -> None:
    stack.aws["sqs"].send_message(QueueUrl=stack.dead_letter_url, MessageBody="{}")


def let_wait(stack: StackOnMoto) -> None:
    stack.aws["sqs"].send_message(QueueUrl=stack.main_url, MessageBody="{}")
    age = "ApproximateAgeOfOldestMessage"
    stack.metric("AWS/SQS", age, 7300, QueueName=f"{stack.name}-stats")


def ring(stack: StackOnMoto) -> None:
    stack.alarm("files-rejected", "ALARM")


def remove_alarm(stack: StackOnMoto) -> None:
    stack.aws["cloudwatch"].delete_alarms(AlarmNames=[f"{stack.name}-dead-letters"])


def remove_alarms(stack: StackOnMoto) -> None:
    names = [f"{stack.name}-{alarm}" for alarm in ALARMS]
    stack.aws["cloudwatch"].delete_alarms(AlarmNames=names)


@pytest.mark.parametrize(
    ("break_it", "part", "text", "fix"),
    [
        pytest.param(break_account, "identity", "the stack is in 999", "--profile", id="account"),
        pytest.param(break_notification, "notification", "doesn't notify", "apply", id="prefix"),
        pytest.param(break_environment, "function", "DATADOG_API_KEY is miss", "apply", id="env"),
        pytest.param(break_rejected_queue, "function", "sends refused", "apply", id="rejected"),
        pytest.param(break_prefix, "function", "below other/", "apply", id="other prefix"),
        pytest.param(break_key, "key", "doesn't take the API key", "Rotate", id="key"),
        pytest.param(break_site, "key", "can't be reached", "Rotate", id="site"),
        pytest.param(break_mapping, "mapping", "isn't fed", "--enabled", id="mapping off"),
        pytest.param(remove_mapping, "mapping", "nothing feeds", "apply", id="no mapping"),
        pytest.param(fill_rejected, "queues", "about 1 waiting", "rejected list", id="refused"),
        pytest.param(fill_dead_letters, "queues", "about 1 waiting", "dead list", id="dead"),
        pytest.param(let_wait, "queues", "oldest for 2 h", "files-waiting", id="waiting"),
        pytest.param(ring, "alarms", "files-rejected is on", "First do this", id="alarm on"),
        pytest.param(remove_alarm, "alarms", "dead-letters", "apply", id="an alarm gone"),
        pytest.param(remove_alarms, "alarms", "the stack has none", "apply", id="alarms gone"),
    ],
)
def test_check_of_a_broken_stack(
    break_it: Any,
    part: str,
    text: str,
    fix: str,
    stack: StackOnMoto,
    tmp_path: Path,
    capsys: Capsys,
) -> None:
    """What is broken is named, with what mends it; the rest is still looked at."""
    break_it(stack)
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps(stack.outputs))
    assert ddg_ops.main(["check", "--json", "--stack", str(outputs)]) == 1
    document = json.loads(capsys.readouterr().out)
    failed = [each for each in document["findings"] if each["state"] == "FAILED"]
    assert [each["part"] for each in failed] == [part]
    assert text in failed[0]["text"]
    assert fix in failed[0]["fix"]
    assert {each["part"] for each in document["findings"]} >= {"identity", "queues", "alarms"}


def test_check_without_batch_item_failures(stack: StackOnMoto, run: Run) -> None:
    """Failures that aren't reported file by file would be lost: that is told."""
    remove_mapping(stack)
    stack.aws["lambda"].create_event_source_mapping(
        EventSourceArn=stack.main_arn, FunctionName=stack.function
    )
    stack.quiet()
    assert "ReportBatchItemFailures" in findings(run)["mapping"][0]["text"]


def test_check_of_what_may_not_be_seen(stack: StackOnMoto, run: Run) -> None:
    """A part that can't be looked at is neither well nor ill: 3, and the rest is looked at."""
    stack.aws["lambda"].delete_function(FunctionName=stack.function)
    result = run("check", "--json")
    assert result.code == 3
    states = {each["part"]: each["state"] for each in result.document["findings"]}
    assert states["function"] == states["key"] == "unknown"
    assert states["alarms"] == "ok"


def test_check_with_the_key_in_a_secret(stack: StackOnMoto, run: Run) -> None:
    """The secret's key is asked for at Datadog too; one that is no key is told."""
    secrets = stack.aws["secretsmanager"]
    arn = secrets.create_secret(Name=stack.name, SecretString=f'{{"api_key": "{KEY}"}}')["ARN"]
    stack.set_environment(DATADOG_API_KEY="", DATADOG_API_KEY_SECRET_ARN=arn)
    assert findings(run)["key"][0]["state"] == "ok"
    secrets.put_secret_value(SecretId=arn, SecretString="not a key")
    assert "the secret is no key" in findings(run)["key"][0]["text"]


def test_check_follows_no_redirect(stack: StackOnMoto, run: Run, datadog: DatadogServer) -> None:
    """The key would travel."""
    elsewhere = Answer(302, headers={"Location": f"{datadog.url}/elsewhere"})
    datadog.respond_validate = lambda request: elsewhere
    assert "answered 302" in findings(run)["key"][0]["text"]
    assert (len(datadog.validations), datadog.requests) == (1, [])


def test_check_says_why_files_were_retried(stack: StackOnMoto, run: Run) -> None:
    """The last hour by outcome, and the last retry's reason; nobody subscribed is a note."""
    for outcome, number in (("Submitted", 5), ("Retried", 2)):
        stack.metric("DatadogStats", outcome, number, FunctionName=stack.function)
    stack.log(json.dumps({"level": "WARNING", "message": "retried 2: Datadog answered 403. x"}))
    topic = stack.outputs["alarm_topic_arn"]["value"]
    for each in stack.aws["sns"].list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]:
        stack.aws["sns"].unsubscribe(SubscriptionArn=each["SubscriptionArn"])
    found = findings(run)
    texts = [each["text"] for each in found["outcomes"]]
    assert texts == [
        "in the last hour: 5 submitted, 0 refused, 2 retried",
        "the last retry: retried 2: Datadog answered 403. x",
    ]
    assert found["alarms"][-1]["state"] == "note"
    assert "nobody hears them" in found["alarms"][-1]["text"]


# --- The canary ---


def on_put(stack: StackOnMoto, monkeypatch: Patch, action: Any) -> None:
    """Have something happen each time that the canary looks around."""
    clock = vars(time) | {"sleep": lambda seconds: action()}
    monkeypatch.setattr(ddg_ops_watch, "time", SimpleNamespace(**clock))


def test_canary_is_submitted(
    stack: StackOnMoto, run: Run, monkeypatch: Patch, datadog: DatadogServer
) -> None:
    """The file goes the whole way, and the log shows a batch that can be none but its own."""
    on_put(stack, monkeypatch, stack.submit)
    result = run("check", "--canary")
    assert result.code == 0
    line = next(line for line in result.out.splitlines() if "canary" in line)
    assert re.search(r"was submitted: a batch of its own with \d+ points; \d+\.\d s after", line)
    assert ("ddg.canary", ("env:test", "job:canary")) in datadog.points


def test_canary_among_others(stack: StackOnMoto, run: Run, monkeypatch: Patch) -> None:
    """In a batch with others it says on what evidence; batches of fewer points are ruled out."""
    stack.log(json.dumps(summary(Submitted=1, Points=1)))

    def submit() -> None:
        stack.put("stats/nightly/1.json", stats(rows=1))
        stack.submit()

    on_put(stack, monkeypatch, submit)
    canary = findings(run, "--canary")["canary"][0]
    assert canary["state"] == "ok"
    assert "a batch with 1 other files has enough points" in canary["text"]


def test_canary_is_refused(stack: StackOnMoto, run: Run, monkeypatch: Patch) -> None:
    """With its reason, as the submitter gives it."""
    stack.set_environment(MAX_AGE_SECONDS="1")
    monkeypatch.setattr(ddg_ops_watch, "CANARY_POINTS", (100, 100))
    monkeypatch.setattr(ddg_ops_watch, "min", max, raising=False)
    on_put(stack, monkeypatch, stack.submit)
    result = run("check", "--canary", "--json")
    canary = result.document["findings"][-1]
    assert (result.code, canary["state"]) == (1, "FAILED")
    assert "was refused (object " in canary["text"]
    assert " s old, and points older than 1 s" in canary["text"]


def test_canary_is_retried(
    stack: StackOnMoto, run: Run, monkeypatch: Patch, datadog: DatadogServer
) -> None:
    """An outage of Datadog: it isn't lost, and why it waits is said."""
    datadog.respond = lambda request: Answer(429) if "series" in request.path else None
    on_put(stack, monkeypatch, stack.submit)
    canary = findings(run, "--canary")["canary"][0]
    assert "is retried (Datadog answered 429." in canary["text"]
    assert "files-retried" in canary["fix"]


@pytest.mark.parametrize(
    ("notified", "text"),
    [
        pytest.param(True, "1 messages are in", id="nobody takes it"),
        pytest.param(False, "is empty", id="nobody was told"),
    ],
)
def test_canary_without_an_end(notified: bool, text: str, stack: StackOnMoto, run: Run) -> None:
    """After the timeout: whether it waits in the queue tells where to look."""
    if not notified:
        break_notification(stack)
    canary = findings(run, "--canary", "--timeout", "0.01")["canary"][0]
    assert canary["state"] == "FAILED"
    assert text in canary["text"]
    assert canary["fix"]


# --- tail ---


def summary(**values: int) -> dict[str, Any]:
    """Return a batch's summary."""
    return {"_aws": {}, "Submitted": 0, "Refused": 0, "Retried": 0, "Points": 0} | values


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        pytest.param(
            json.dumps(summary(Submitted=8, Points=24, Requests=1, WireBytes=700)),
            "    8 submitted    0 refused    0 retried     24 points   1 requests     700 B  "
            "fetch 0 ms  post 0 ms",
            id="summary",
        ),
        pytest.param(
            json.dumps({"level": "WARNING", "message": "refused s3://b/\x1b[2J: not JSON"}),
            "refused s3://b/\ufffd[2J: not JSON",
            id="refusal",
        ),
        pytest.param(
            json.dumps({"level": "ERROR", "message": "no", "stackTrace": ["File x"]}),
            "no ['File x']",
            id="error with its trace",
        ),
        pytest.param(
            "[WARNING]\t2025-11-24T03:00:00Z\tid\tretried 2: x", "retried 2: x", id="text"
        ),
        pytest.param("2025 id Task timed out", "2025 id Task timed out", id="timeout as text"),
        pytest.param(
            json.dumps({"type": "platform.report", "record": {"status": "timeout"}}),
            "the function ended with timeout",
            id="timeout",
        ),
        pytest.param("REPORT RequestId: 1", None, id="Lambda's own line"),
        pytest.param(
            json.dumps({"type": "platform.report", "record": {"status": "success"}}),
            None,
            id="Lambda's report",
        ),
        pytest.param(json.dumps({"type": "platform.start"}), None, id="Lambda's start"),
        pytest.param("[1]", None, id="JSON of another shape"),
        pytest.param("  ", None, id="empty"),
    ],
)
def test_tail_of_a_line(line: str, shown: str | None, capsys: Capsys) -> None:
    """A batch a line; refusals, retries and errors as they are; what Lambda says of itself not."""
    entry = ddg_ops_watch.read_event(line)
    if entry is not None:
        ddg_ops_watch.print_entry(0, entry, ddg_ops_stack.Screen(as_json=False))
    out = capsys.readouterr().out
    assert out == ("" if shown is None else f"00:00:00  {shown}\n")


def test_tail_for_machines(stack: StackOnMoto, run: Run) -> None:
    """A document a line."""
    stack.log(json.dumps(summary(Submitted=2)), json.dumps({"level": "WARNING", "message": "x"}))
    documents = [json.loads(line) for line in run("tail", "--no-follow", "--json").out.splitlines()]
    assert documents[0]["Submitted"] == 2
    assert documents[1]["text"] == "x"


def test_tail_follows(stack: StackOnMoto, run: Run, monkeypatch: Patch) -> None:
    """New lines come once each, late ones too, until Ctrl-C, which is its usual end."""
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

    on_put(stack, monkeypatch, step)
    result = run("tail")
    assert (result.code, result.err) == (0, "")
    assert [line[10:] for line in result.out.splitlines()] == ["first", "second", "late"]


def test_tail_since(stack: StackOnMoto, run: Run) -> None:
    """Older lines stay out."""
    stack.log("old", at=time.time() - 7200)
    stack.log("new")
    assert "old" not in run("tail", "--no-follow", "--since", "1h").out
    assert "old" in run("tail", "--no-follow", "--since", "3h").out
