"""ddg-ops: how it finds a stack, and its one session."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.operated import KEY, REGION, StackOnMoto, make_stack, run, stats, terraform
from tests.wire import Wire

URLS = dict.fromkeys(("stats", "dead_letter", "rejected"), "https://x")
OUTPUTS = {"bucket": "b", "queue_urls": URLS, "function_names": {"metric_submit": "f"}}
stack = pytest.fixture(make_stack)
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    """Files have plain names."""
    monkeypatch.chdir(tmp_path)


# --- The stack ---


def test_stack_of_this_folder(stack: StackOnMoto) -> None:
    """In the folder of the state no option is needed, not even the region."""
    Path("out.json").write_text(json.dumps(stack.outputs))
    terraform('[ "$*" = "output -json -no-color" ] && cat out.json', stack.patch)
    stack.patch.delenv("AWS_DEFAULT_REGION")
    result = run("check")
    assert (result.code, stack.bucket in result.out) == (0, True)


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION", "--region"])
def test_stack_by_name(variable: str, stack: StackOnMoto) -> None:
    """The region is an option, AWS_REGION or AWS_DEFAULT_REGION: the first of them wins."""
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
        ("echo '{}'", "`terraform output` names no stack:"),
        ("echo no", "`terraform output` isn't JSON"),
        ("echo '│ Error: B' >&2; exit 1", "failed: Error: B."),
        (None, "no terraform here to ask"),
    ],
)
def test_no_stack_from_terraform(script: str | None, problem: str, monkeypatch: Patch) -> None:
    """One line: the problem, and the ways to name a stack."""
    terraform(script or "", monkeypatch)
    if script is None:
        monkeypatch.setenv("PATH", "/nowhere")
    result = run("check")
    assert (result.code in (2, 3), result.out, result.err.count("\n")) == (True, "", 1)
    assert problem in result.err
    assert "--stack" in result.err


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (json.dumps(OUTPUTS | {"queue_urls": {"stats": "x"}}), "lacks 'dead_letter'"),
        (json.dumps(OUTPUTS | {"queue_urls": "x"}), "has another shape"),
        (json.dumps(OUTPUTS | {"bucket": {"value": 5}}), "has another shape"),
        (json.dumps(OUTPUTS | {"alarm_names": 5}), "has another shape"),
        ("[1]", "names no stack"),
        ("[" * 100_000, "isn't JSON"),
        ("\xff\xfe", "isn't JSON"),
    ],
    ids=["lacks", "text", "number", "alarms", "list", "deep", "encoding"],
)
def test_outputs_of_another_shape(content: str, problem: str) -> None:
    """One line, no traceback."""
    Path("o.json").write_bytes(content.encode("latin-1"))
    result = run("check --stack o.json")
    assert (result.code in (2, 3), result.out, result.err.count("\n")) == (True, "", 1)
    assert problem in result.err


def test_stack_that_is_elsewhere(stack: StackOnMoto) -> None:
    """An unknown name, or another region than the outputs'."""
    assert f"no stack nobodys in {REGION}" in run("check --stack nobodys").err
    Path("o.json").write_text(json.dumps(stack.outputs))
    result = run("check --stack o.json --region eu-west-1")
    assert result.code == 2
    assert "the stack is in us-east-1, and --region says eu-west-1" in result.err


# --- The session ---


def test_profile_and_region_reach_all(stack: StackOnMoto) -> None:
    """Every request is signed by the given profile, for the given region."""
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
    ("code", "problem", "line"),
    [
        ("InvalidClientTokenId", "AWS doesn't know these credentials", "rejected list --stack a"),
        ("SignatureDoesNotMatch", "AWS doesn't know these credentials", "check --stack o.json"),
        ("ExpiredToken", "your AWS credentials have expired", "rejected list --stack a"),
        ("AccessDenied", "may not GetCallerIdentity", "check --stack o.json"),
        ("Odd\x1b[31m", "AWS answered Odd", "check --stack o.json"),
    ],
)
def test_wrong_credentials_are_one_line(
    code: str, problem: str, line: str, monkeypatch: Patch
) -> None:
    """No traceback, and one line, not one for each part."""
    Path("o.json").write_text(json.dumps(OUTPUTS))
    shown = code.encode("unicode_escape").decode()
    error = f"<Error><Code>{shown}</Code><Message>No.</Message></Error>"
    Wire(monkeypatch).refusal = f"<ErrorResponse>{error}</ErrorResponse>"
    result = run(line, "--json")
    assert (result.code, result.err.count("\n"), result.document["exit_code"]) == (3, 1, 3)
    assert problem in result.err


KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize(
    ("environment", "removed", "problem"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, (), "can't be reached"),
        ({}, KEYS[:1], "no AWS credentials"),
        ({}, KEYS, "no AWS credentials"),
        ({}, ("AWS_DEFAULT_REGION",), "no AWS region"),
        ({"AWS_PROFILE": "gone"}, (), "profile (gone) could not be found"),
    ],
    ids=["network", "half", "credentials", "region", "profile"],
)
def test_no_way_to_aws_is_one_line(
    environment: dict[str, str], removed: tuple[str, ...], problem: str, monkeypatch: Patch
) -> None:
    """No traceback here either."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # botocore's, between its attempts
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in removed:
        monkeypatch.delenv(name)
    result = run("rejected list --stack any")
    assert (result.code, result.out, result.err.count("\n")) == (3, "", 1)
    assert problem in result.err
