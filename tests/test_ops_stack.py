"""ddg-ops: how it finds a stack, and its one session."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.operated import (
    KEY,
    REGION,
    StackOnMoto,
    make_stack,
    run,
    stats,
    terraform,
)
from tests.wire import Wire

URLS = dict.fromkeys(("stats", "dead_letter", "rejected"), "https://x")
OUTPUTS = {"bucket": "b", "queue_urls": URLS, "function_names": {"metric_submit": "f"}}
stack = pytest.fixture(make_stack)
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    """Files of a test are named as a person would name them."""
    monkeypatch.chdir(tmp_path)


# --- The stack ---


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
        ("Odd\x1b[31m", "AWS answered Odd"),
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
