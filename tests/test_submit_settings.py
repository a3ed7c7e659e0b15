"""The submitter: its environment, and the API key in Secrets Manager."""

from __future__ import annotations

import json
import logging
import os
import runpy
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

import ddg_metric_submit
from local.datadog_server import Answer, DatadogServer
from tests.events import Context, stats
from tests.scripted_server import Call, ScriptedServer, response
from tests.submitter import Submitter, aws

ROOT = Path(__file__).parent.parent
FILES = {"stats/job/a.json": stats(m=1)}
ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog-key-AbCdEf"


def fail(submitter: Submitter, variable: str, problem: str = " is malformed: ") -> None:
    """Expect the first invocation to fail with the variable's name, and to do nothing."""
    messages = [submitter.message("stats/job/a.json")]
    with pytest.raises(ValueError, match=variable + problem) as raised:
        submitter.module.lambda_handler({"Records": messages}, Context())
    submitter.check_secrecy("".join(traceback.format_exception(raised.value)), repr(raised.value))
    assert submitter.datadog.requests == []


@pytest.mark.parametrize("variable", ["DATADOG_API_KEY", "REJECTED_QUEUE_URL"])
def test_missing_variable_is_named(submitter: Submitter, variable: str) -> None:
    """What has no default must be set."""
    submitter.environment.delenv(variable)
    fail(submitter, variable, " is missing: ")


@pytest.mark.parametrize("variable", ["DATADOG_API_KEY", "DATADOG_APP_KEY"])
@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="space"),
        pytest.param("hidden value", id="space-inside"),
        pytest.param("hidden\n", id="line-end"),
        pytest.param("\thidden", id="tab"),
        pytest.param("hid\x7fden", id="control-character"),
        pytest.param("hid\u00a0den", id="no-break-space"),
    ],
)
def test_malformed_key_is_named_and_not_shown(
    submitter: Submitter, variable: str, key: str
) -> None:
    """The message says which, never what."""
    submitter.keys = ["hid", "test-key"]
    submitter.set(**{variable: key})
    fail(submitter, variable)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATADOG_HOST", ""),
        ("DATADOG_HOST", "api.datadoghq.eu"),
        ("DATADOG_HOST", "ftp://api.datadoghq.eu"),
        ("DATADOG_HOST", "https://"),
        ("DATADOG_HOST", "https://api.datadoghq.eu\n"),
        ("DATADOG_HOST", "https://api datadoghq.eu"),
        ("DATADOG_HOST", "https://user:password@api.datadoghq.eu"),
        ("DATADOG_HOST", "http://["),
        ("DATADOG_HOST", "http://[::1"),
        ("DATADOG_HOST", "http://::1:8126"),
        ("DATADOG_HOST", "https://api.datadoghq.eu:port"),
        ("REJECTED_QUEUE_URL", ""),
        ("REJECTED_QUEUE_URL", "rejected"),
        ("REJECTED_QUEUE_URL", "https://sqs.example.com/1/my queue"),
        ("MAX_AGE_SECONDS", ""),
        ("MAX_AGE_SECONDS", "-1"),
        ("MAX_AGE_SECONDS", "1.5"),
        ("MAX_AGE_SECONDS", "1h"),
        ("MAX_AGE_SECONDS", "1_000"),
        ("MAX_AGE_SECONDS", "٣"),
        ("LOG_LEVEL", ""),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_LEVEL", "20"),
        ("CONSTANT_TAGS", ","),
        ("CONSTANT_TAGS", "env:prod,,team:data"),
        ("CONSTANT_TAGS", "env:prod,"),
        ("CONSTANT_TAGS", "123"),
        ("CONSTANT_TAGS", "env:prod,!!!"),
    ],
)
def test_malformed_variable_is_named(submitter: Submitter, variable: str, value: str) -> None:
    """At the first invocation, not at the first file that it spoils."""
    submitter.set(**{variable: value})
    fail(submitter, variable)


@pytest.mark.parametrize("key", ["X", "0123456789abcdef0123456789abcdef", "!~"])
def test_key_may_be_anything_else(submitter: Submitter, key: str) -> None:
    """Whether a key is right, Datadog knows alone."""
    submitter.datadog.api_key = key
    submitter.set(DATADOG_API_KEY=key)
    submitter.keys = []  # X is everywhere
    assert submitter.submit_files(FILES).files == (1, 0, 0)
    assert submitter.datadog.requests[0].headers["dd-api-key"] == key


def test_app_key_is_optional(submitter: Submitter) -> None:
    """Submitting doesn't need it; where it is given it is sent."""
    submitter.set(DATADOG_APP_KEY="secret-app-key")
    submitter.keys.append("secret-app-key")
    submitter.submit_files(FILES)
    submitter.environment.delenv("DATADOG_APP_KEY")
    submitter.restart()
    submitter.submit_files(FILES)
    with_key, without = submitter.datadog.requests
    assert with_key.headers["dd-application-key"] == "secret-app-key"
    assert "dd-application-key" not in without.headers


@pytest.mark.parametrize(("name", "clients"), [("ddg-metric-submit", 1), (None, 0)])
def test_s3_client_is_made_at_the_start_in_lambda_alone(
    monkeypatch: pytest.MonkeyPatch, name: str | None, clients: int
) -> None:
    """A start has a whole core, an invocation a third; elsewhere an import does nothing."""
    if name:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", name)
    module = runpy.run_path(ddg_metric_submit.__file__)
    assert module["aws_client"].cache_info().currsize == clients


def test_import_reads_nothing() -> None:
    """No variable, no network, no program: a cold start can't fail before it can say why."""
    names = """DATADOG_API_KEY DATADOG_API_KEY_SECRET_ARN DATADOG_APP_KEY DATADOG_HOST STATS_PREFIX
        STATS_BUCKET REJECTED_QUEUE_URL CONSTANT_TAGS MAX_AGE_SECONDS LOG_LEVEL AWS_ENDPOINT_URL"""
    code = """
import os, sys
class Watched(type(os.environ)):
    def __getitem__(self, name):
        if name in {NAMES}:
            raise SystemExit(f"{name} was read")
        return super().__getitem__(name)
os.environ.__class__ = Watched
def watch(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "subprocess", "os.system")):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(watch)
import ddg_metric_submit, ddg_mock_datasource
"""
    environment = {"PATH": os.environ["PATH"], "DATADOG_API_KEY": "", "LOG_LEVEL": "LOUD"}
    command = [sys.executable, "-c", code.replace("{NAMES}", repr(set(names.split())))]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_host_defaults_to_us1(submitter: Submitter, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://api.datadoghq.com, over TLS that is verified."""
    sent: list[tuple[str, dict[str, Any]]] = []

    def send(self: object, method: str, url: str, **options: Any) -> Any:
        sent.append((f"{method} {url}", options))
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "request", send)  # the tests have no network
    submitter.environment.delenv("DATADOG_HOST")
    assert submitter.submit_files(FILES).files == (0, 0, 1)
    assert {url for url, _ in sent} == {"POST https://api.datadoghq.com/api/v1/series"}
    assert all(options["verify"] is True for _, options in sent)


def test_host_may_end_in_a_slash(submitter: Submitter) -> None:
    """As people copy it."""
    submitter.set(DATADOG_HOST=submitter.datadog.url + "/")
    assert submitter.submit_files(FILES).files == (1, 0, 0)


def test_host_may_be_an_ipv6_address(submitter: Submitter) -> None:
    """Of a relay that stands nearby; here nobody listens there."""
    submitter.set(DATADOG_HOST="http://[::1]:1")
    outcome = submitter.submit_files(FILES)
    assert outcome.files == (0, 0, 1)
    assert "no answer from Datadog: ConnectionError" in outcome.log[0]


@pytest.mark.parametrize("level", ["debug", "Info", "WARNING"])
def test_log_level_in_any_case(submitter: Submitter, level: str) -> None:
    """As the shell that it comes from writes it."""
    submitter.set(LOG_LEVEL=level)
    assert submitter.submit_files(FILES).files == (1, 0, 0)
    assert logging.getLogger("ddg_metric_submit").level == logging.getLevelName(level.upper())


def test_site_is_no_setting_of_ours(submitter: Submitter) -> None:
    """The package knows no DD_SITE, and its own other variables change nothing either."""
    submitter.set(DD_SITE="datadoghq.eu", DD_API_KEY="no", DATADOG_APP_KEY="app", DD_HOSTNAME="h")
    assert submitter.submit_files(FILES).files == (1, 0, 0)
    [request] = submitter.datadog.requests
    assert request.series is not None
    assert [series.keys() for series in request.series] == [{"metric", "type", "points", "tags"}]


def test_settings_are_read_by_every_invocation(submitter: Submitter) -> None:
    """Nothing of them is kept at import."""
    submitter.submit_files(FILES)
    with DatadogServer("other-key") as other:
        submitter.set(DATADOG_HOST=other.url, DATADOG_API_KEY="other-key", CONSTANT_TAGS="a:b")
        assert submitter.submit_files(FILES).files == (1, 0, 0)
        assert list(other.points) == [("m", ("a:b", "job:job"))]


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        pytest.param("", ("job:job",), id="none"),
        pytest.param("env:prod,team:data", ("env:prod", "job:job", "team:data"), id="two"),
        pytest.param("Env:My Prod!", ("env:my_prod", "job:job"), id="normalised"),
        pytest.param("env:prod, team:data ", ("env:prod", "job:job", "team:data"), id="spaces"),
        pytest.param("job:job,x,x", ("job:job", "x"), id="each-once"),
    ],
)
def test_constant_tags(submitter: Submitter, value: str, tags: tuple[str, ...]) -> None:
    """Every series carries them."""
    submitter.set(CONSTANT_TAGS=value)
    submitter.submit_files(FILES)
    assert list(submitter.datadog.points) == [("m", tags)]


@pytest.mark.parametrize(
    ("prefix", "tags"),
    [
        (None, ("job:job",)),
        ("stats/", ("job:job",)),
        ("", ("job:stats",)),
        ("stats/job/", ()),
        ("other/", ()),
    ],
)
def test_stats_prefix(submitter: Submitter, prefix: str | None, tags: tuple[str, ...]) -> None:
    """It tells which folder is the job's."""
    if prefix is not None:
        submitter.set(STATS_PREFIX=prefix)
    submitter.submit_files(FILES)
    assert list(submitter.datadog.points) == [("m", tags)]


@pytest.mark.parametrize(
    ("max_age", "age", "files"),
    [
        pytest.param(None, 3500, (1, 0, 0), id="default-within"),
        pytest.param(None, 3700, (0, 1, 0), id="default-beyond"),
        pytest.param("60", 50, (1, 0, 0), id="within"),
        pytest.param("60", 70, (0, 1, 0), id="beyond"),
        pytest.param("0", 1_000_000, (1, 0, 0), id="no-limit"),
        pytest.param("0", -700, (0, 1, 0), id="ahead-is-refused-always"),
        pytest.param("99999999", 1_000_000, (1, 0, 0), id="long"),
    ],
)
def test_max_age(
    submitter: Submitter, max_age: str | None, age: int, files: tuple[int, int, int]
) -> None:
    """An hour by default; 0 is for metrics with Historical Metrics Ingestion."""
    if max_age is not None:
        submitter.set(MAX_AGE_SECONDS=max_age)
    assert submitter.submit_files({"stats/a.json": stats(age, now=time.time())}).files == files


# --- The key in Secrets Manager ---


class Secret:
    """A secret of moto's, and the submitter told to read it."""

    def __init__(self, submitter: Submitter, **value: Any) -> None:
        self._client = aws("secretsmanager", submitter.moto)
        name = f"key-{submitter.bucket}"
        self.arn = self._client.create_secret(Name=name, **value)["ARN"]
        submitter.environment.delenv("DATADOG_API_KEY")
        submitter.set(DATADOG_API_KEY_SECRET_ARN=self.arn)

    def rotate(self, value: str) -> None:
        self._client.put_secret_value(SecretId=self.arn, SecretString=value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("test-key", id="plain"),
        pytest.param("test-key\n", id="line-end"),
        pytest.param('{"api_key": "test-key"}', id="json"),
        pytest.param(' {"api_key": "test-key", "more": 1}', id="json-with-more"),
    ],
)
def test_key_from_a_secret(submitter: Submitter, value: str) -> None:
    """Neither in Terraform's state nor in the environment."""
    Secret(submitter, SecretString=value)
    assert submitter.submit_files(FILES).files == (1, 0, 0)


def test_key_from_a_secret_is_never_logged(
    submitter: Submitter, caplog: pytest.LogCaptureFixture
) -> None:
    """Though boto3 tells whole answers at DEBUG, and Lambda lets a user ask for that."""
    caplog.set_level(logging.DEBUG)
    submitter.environment.delenv("DATADOG_API_KEY")
    submitter.set(DATADOG_API_KEY_SECRET_ARN=ARN, LOG_LEVEL="DEBUG")
    value = secrets_manager(lambda: b'{"SecretString": "test-key"}')
    with ScriptedServer(value) as manager:
        submitter.set(AWS_ENDPOINT_URL_SECRETS_MANAGER=manager.url)
        outcome = submitter.submit_files(FILES)  # which looks for the key in all that is logged
    assert outcome.files == (1, 0, 0)
    assert all(line.startswith("DEBUG") for line in outcome.log)


def test_secret_goes_before_the_environment(submitter: Submitter) -> None:
    """Where both are set, the environment's key may be a forgotten one."""
    Secret(submitter, SecretString="test-key")
    submitter.set(DATADOG_API_KEY="forgotten")
    submitter.keys.append("forgotten")
    assert submitter.submit_files(FILES).files == (1, 0, 0)


@pytest.mark.parametrize("status", [401, 403])
def test_rotated_key_needs_no_deploy(submitter: Submitter, status: int) -> None:
    """An answer of a wrong key has the secret read once more; the batch goes through with it."""
    secret = Secret(submitter, SecretString="test-key")
    assert submitter.submit_files(FILES).files == (1, 0, 0)
    secret.rotate('{"api_key": "rotated-key"}')
    submitter.keys.append("rotated-key")
    submitter.datadog.api_key = "rotated-key"
    submitter.datadog.respond = lambda request: (
        Answer(status) if request.headers["dd-api-key"] != "rotated-key" else None
    )
    outcome = submitter.submit_files(FILES)
    assert outcome.files == (1, 0, 0)
    assert outcome.summary["Requests"] == 2
    assert outcome.log == []
    assert submitter.submit_files(FILES).summary["Requests"] == 1


def secrets_manager(value: Callable[[], bytes]) -> Callable[[Call], bytes]:
    """Return a script that answers GetSecretValue."""
    return lambda call: response(body=value(), Content_Type="application/x-amz-json-1.1")


def test_secret_is_read_once(submitter: Submitter) -> None:
    """By a cold start, and once by each batch that meets a wrong key; never for good batches."""
    value = json.dumps({"SecretString": "test-key"}).encode()
    submitter.environment.delenv("DATADOG_API_KEY")
    submitter.set(DATADOG_API_KEY_SECRET_ARN=ARN)
    with ScriptedServer(secrets_manager(lambda: value)) as manager:
        submitter.set(AWS_ENDPOINT_URL_SECRETS_MANAGER=manager.url)
        for _ in range(3):
            assert submitter.submit_files(FILES).files == (1, 0, 0)
        assert len(manager.calls) == 1
        submitter.datadog.respond = lambda request: Answer(403)
        outcome = submitter.submit_files(FILES)
        assert outcome.files == (0, 0, 1)
        assert outcome.summary["Requests"] <= 2
        assert len(manager.calls) == 2


def test_secret_is_read_once_more_and_no_more(submitter: Submitter) -> None:
    """Even where it holds another key at each look, and none of them is right."""
    keys = iter(f"key-{n}" for n in range(10))
    submitter.environment.delenv("DATADOG_API_KEY")
    submitter.set(DATADOG_API_KEY_SECRET_ARN=ARN)
    value = secrets_manager(lambda: json.dumps({"SecretString": next(keys)}).encode())
    with ScriptedServer(value) as manager:
        submitter.set(AWS_ENDPOINT_URL_SECRETS_MANAGER=manager.url)
        outcome = submitter.submit_files(FILES)
    assert outcome.files == (0, 0, 1)
    assert outcome.summary["Requests"] == len(manager.calls) == 2


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"SecretString": "hidden value"}, id="space"),
        pytest.param({"SecretString": "{hidden"}, id="half-json"),
        pytest.param({"SecretString": '{"other": "hidden"}'}, id="other-name"),
        pytest.param({"SecretString": '{"api_key": ["hidden"]}'}, id="list"),
        pytest.param({"SecretString": '{"api_key": 5}'}, id="number"),
        pytest.param({"SecretString": '{"api_key": ""}'}, id="empty"),
        pytest.param({"SecretBinary": b"hidden"}, id="binary"),
    ],
)
def test_malformed_secret_is_named_and_not_shown(
    submitter: Submitter, value: dict[str, Any]
) -> None:
    """As a malformed variable is."""
    Secret(submitter, **value)
    submitter.keys.append("hidden")
    submitter.put_all(FILES)
    fail(submitter, "DATADOG_API_KEY_SECRET_ARN", ": the secret is no key")


def refused(code: str, call: Call) -> bytes:
    body = json.dumps({"__type": code, "message": "no"}).encode()
    return response("400 Bad Request", body, Content_Type="application/x-amz-json-1.1")


@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException"])
def test_secret_that_cannot_be_read(submitter: Submitter, code: str) -> None:
    """The files stay in the queue, and what is said names the variable."""
    submitter.environment.delenv("DATADOG_API_KEY")
    submitter.set(DATADOG_API_KEY_SECRET_ARN=ARN)
    with ScriptedServer(partial(refused, code)) as manager:
        submitter.set(AWS_ENDPOINT_URL_SECRETS_MANAGER=manager.url)
        submit_or_fail(submitter, Context())


def test_secret_that_cannot_be_read_again(submitter: Submitter) -> None:
    """Likewise where a wrong key has the secret read once more."""
    answers = [response(body=b'{"SecretString": "test-key"}')]
    submitter.environment.delenv("DATADOG_API_KEY")
    submitter.set(DATADOG_API_KEY_SECRET_ARN=ARN)
    submitter.datadog.respond = lambda request: Answer(403)

    def script(call: Call) -> bytes:
        return answers.pop() if answers else refused("AccessDeniedException", call)

    with ScriptedServer(script) as manager:
        submitter.set(AWS_ENDPOINT_URL_SECRETS_MANAGER=manager.url)
        submit_or_fail(submitter, Context())


def submit_or_fail(submitter: Submitter, context: Context) -> None:
    """Expect that the batch is retried, by the answer or by an exception, with the reason named."""
    submitter.put_all(FILES)
    try:
        outcome = submitter.submit(*map(submitter.message, FILES), context=context)
    except ValueError as error:
        said = str(error)
    else:
        assert outcome.files == (0, 0, 1)
        [said] = outcome.log
    assert "DATADOG_API_KEY_SECRET_ARN" in said
    assert submitter.datadog.points == {}


def test_slow_secrets_manager_meets_the_deadline(submitter: Submitter) -> None:
    """Whatever it is that takes too long."""

    def silent(call: Call) -> bytes:
        call.stopping.wait()
        raise ConnectionAbortedError

    context = Context(3)
    submitter.environment.delenv("DATADOG_API_KEY")
    submitter.set(DATADOG_API_KEY_SECRET_ARN=ARN)
    with ScriptedServer(silent) as manager:
        submitter.set(AWS_ENDPOINT_URL_SECRETS_MANAGER=manager.url)
        submit_or_fail(submitter, context)
        assert context.get_remaining_time_in_millis() > 250


def test_settings_show_no_key() -> None:
    """Whatever prints them, a traceback of somebody's or a debugger."""
    environ = {"DATADOG_API_KEY": "secret-key", "DATADOG_APP_KEY": "app-key"}
    settings = ddg_metric_submit.read_settings(environ | {"REJECTED_QUEUE_URL": "http://sqs/1/r"})
    assert "key" not in repr(settings)
    assert "key" not in f"{settings}"
