"""ddg-ops check, its canary, and the settings file."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from botocore.client import BaseClient
from requests.adapters import HTTPAdapter

from ddg_ops import canary
from ddg_ops.settings_file import read_settings_file, submitter_environment
from local.datadog_server import Answer
from tests.operated import (
    ACCOUNT,
    ALARMS,
    KEY,
    REGION,
    Action,
    StackOnMoto,
    do,
    make_stack,
    on_sleep,
    run,
)
from tests.wire import Wire

stack = pytest.fixture(make_stack)


# --- The settings file ---


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '{"jobs": {"a": {"x": 2}}, "metrics": {"b": {"kind": 1}}}',
            '; metrics["b"] has no "kind"',
        ),
        ('{"jobs": {"a": "numbers(@)"}}', 'jobs["a"] isn\'t an object'),
        ('{"metrics": ["a.b"]}', "`metrics` isn't an object"),
        ("[]", "isn't a JSON object"),
        ("{", "isn't JSON"),
    ],
)
def test_settings_file_with_faults(text: str, problem: str, tmp_path: Path) -> None:
    """Every attribute that Terraform would drop or refuse is named."""
    (tmp_path / "a").write_text(text)
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_settings_file(tmp_path / "a")


def test_settings_file_is_the_environment(tmp_path: Path) -> None:
    """The submitter's environment has what the file says."""
    given = {
        "jobs": {"d": {"mapping": "a"}, "n": {"silent_after_hours": 26, "mapping": None}},
        "metrics": {"n": {"type": "count", "interval": 60, "unit": "x"}, "g": {"unit": "second"}},
        "buckets": {"b": {"prefix": ""}, "c": {"notify": "s3"}},
        "constant_tags": ["a:b", "c"],
        "max_age_seconds": 0,
        "metric_prefix": None,
    }
    (tmp_path / "a").write_text(json.dumps(given))
    environment = submitter_environment(read_settings_file(tmp_path / "a"))
    assert environment == {
        "JOBS": '{"d": {"mapping": "a", "watched": false}, "n": {"mapping": "", "watched": true}}',
        "METRICS": '{"n": {"type": "count", "interval": 60}}',
        "BUCKETS": '{"b": "", "c": "stats/"}',
        "CONSTANT_TAGS": "a:b,c",
        "MAX_AGE_SECONDS": "0",
    }


# --- check ---


def test_check_of_a_healthy_stack(stack: StackOnMoto) -> None:
    """All is well, though a file has just come: 0, a line for each part, no fix, no key."""
    stack.send_all(stack.main_url, ["{}"])
    result = stack.run("check")
    assert (result.code, result.err) == (0, "")
    parts = re.findall(r"^ok +(\w+) ", result.out, re.MULTILINE)
    expected = ["identity", "function", "notification", "key", "mapping", *["queues"] * 3]
    assert parts == [*expected, "outcomes", "alarms"]
    assert "only alarms of silent jobs notice a dead pipeline (0 jobs" in result.out
    assert "fix:" not in result.out
    assert KEY not in result.out
    assert stack.run("check --json").document["healthy"] is True


def remap(stack: StackOnMoto) -> None:
    stack.aws["lambda"].delete_event_source_mapping(UUID=stack.mapping)
    stack.map_queue()


def let_wait(stack: StackOnMoto) -> None:
    stack.send_all(stack.main_url, ["{}"])
    age = "ApproximateAgeOfOldestMessage"
    stack.metric("AWS/SQS", age, 7300, QueueName=f"{stack.name}-stats")


def use_secret(stack: StackOnMoto, secret: str) -> None:
    arn = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:gone-AAAAAA"
    if secret:
        created = stack.aws["secretsmanager"].create_secret(Name=stack.name, SecretString=secret)
        arn = created["ARN"]
    stack.set_environment(DATADOG_API_KEY="", DATADOG_API_KEY_SECRET_ARN=arn)


def answer(stack: StackOnMoto, answer: Answer) -> None:
    stack.datadog.respond_validate = lambda request: answer


def remove_alarms(stack: StackOnMoto, *alarms: str) -> None:
    names = [f"{stack.name}-{alarm}" for alarm in alarms]
    stack.aws["cloudwatch"].delete_alarms(AlarmNames=names)


AWAY = Answer(302, headers={"Location": "http://127.0.0.1:1/elsewhere"})
MISSPELT = '{"jobs": {"a": {"silent": 1}}}'
ACTIONS: dict[str, Action] = {
    "notify elsewhere": lambda s: s.notify(prefix="elsewhere/"),
    "refuse a file": lambda s: s.reject("stats/a/1.json", "not JSON"),
    "give up a file": lambda s: s.send_all(s.dead_letter_url, ["{}"]),
    "let a file wait": let_wait,
    "ring": lambda s: s.alarm("files-rejected", "ALARM"),
    "remove an alarm": lambda s: remove_alarms(s, "dead-letters"),
    "remove the alarms": lambda s: remove_alarms(s, *ALARMS),
    "fail as a whole": remap,
    "keep no key in the secret": lambda s: use_secret(s, "not a key"),
    "lose the secret": lambda s: use_secret(s, ""),
    "generate nothing": lambda s: s.generate("2025-11-24T12:00:00.000+0000"),
    "generate nothing yet": StackOnMoto.generate,
    "send elsewhere": lambda s: answer(s, AWAY),
    "answer with an error": lambda s: answer(s, Answer(503)),
    "answer with a page": lambda s: answer(s, Answer(200, b"<html>")),
    "misspell": lambda s: Path("stack.auto.tfvars.json").write_text(MISSPELT),
    "lose the generator": lambda s: s.outputs["function_names"]["value"].update(
        mock_datasource="gone"
    ),
}
# Action, AWS call or variable | parts that aren't ok, ? for unknown | first one's text | its fix
BROKEN = """
notify elsewhere | notification | doesn't notify | terraform apply
s3 delete_bucket Bucket={0.bucket} | notification | bucket does not exist | terraform apply
sqs delete_queue QueueUrl={0.main_url} | notification mapping queues | not there (GetQ | terraform
DATADOG_API_KEY= | function key? | DATADOG_API_KEY is missing | terraform apply
REJECTED_QUEUE_URL={0.dead_letter_url} | function | sends refused | terraform apply
STATS_PREFIX=other/ | function | below other/ | terraform apply
lambda delete_function FunctionName={0.function} | function key? mapping | not there (GetF | terraf
DATADOG_API_KEY=revoked | key | refuses the API key (403) | Rotate
DATADOG_HOST=http://127.0.0.1:1 | key? | can't be reached from here (ConnectionError) | and proxy
send elsewhere | key? | answered 302, which | status.datadoghq.com
answer with an error | key? | answered 503, which | status.datadoghq.com
answer with a page | key? | answered 200, which | status.datadoghq.com
keep no key in the secret | key | is neither a key | Put the key there
lose the secret | key | can't be read | Put the key there
lambda update_event_source_mapping UUID={0.mapping} Enabled= | mapping | paused: | resume --yes
misspell | settings | stack.auto.tfvars.json: jobs["a"] has no "silent", but | Correct it
lambda delete_event_source_mapping UUID={0.mapping} | mapping | isn't mapped to | terraform apply
fail as a whole | mapping | ReportBatchItemFailures | at once
refuse a file | queues | about 1 message | ddg-ops rejected list
give up a file | queues | about 1 message | ddg-ops dead list
let a file wait | queues | oldest for 2 h | files-waiting
generate nothing | outcomes | no files in the last 60 minutes, though | nothing-submitted
generate nothing yet | outcomes? | was made or changed only | again in some minutes
lose the generator | outcomes | not there (GetFunctionConfiguration | terraform apply
ring | alarms | files-rejected is on | First do this
remove an alarm | alarms | dead-letters | terraform apply
remove the alarms | alarms | not there: | terraform apply
sns delete_topic TopicArn={0.topic} | alarms | not there (ListSubscriptionsByTopic | terraform apply
"""


@pytest.mark.parametrize("row", BROKEN.strip().splitlines())
def test_check_of_a_broken_stack(row: str, stack: StackOnMoto) -> None:
    """Each broken or unknown part is named with its fix; every part is checked."""
    what, parts, text, fix = row.split(" | ")
    do(what, stack, ACTIONS)
    result = stack.run("check --json")
    found = result.document["findings"]
    bad = [each for each in found if each["state"] in ("FAILED", "unknown")]
    named = {each["part"] + "?" * (each["state"] == "unknown") for each in bad}
    assert named == set(parts.split())
    assert result.code == (1 if {part for part in named if "?" not in part} else 3)
    assert text in bad[0]["text"]
    assert fix in bad[0]["fix"]
    assert all(each["fix"] for each in bad)
    assert stack.datadog.requests == []  # the key doesn't follow a redirect
    assert {each["part"] for each in found} >= {"identity", "queues", "alarms"}


def test_check_of_another_account(stack: StackOnMoto) -> None:
    """What this account lacks isn't gone: only the identity is reported."""
    stack.outputs["alarm_topic_arn"] = {"value": f"arn:aws:sns:{REGION}:999999999999:x-alarms"}
    [finding] = stack.run("check --json").document["findings"]
    assert (finding["part"], finding["state"]) == ("identity", "FAILED")
    assert "the stack is in 999999999999" in finding["text"]


def test_check_without_a_permission(stack: StackOnMoto) -> None:
    """A part that can't be seen is unknown, with its own fix: 3."""
    wire = Wire(stack.patch)
    wire.refused, wire.refusal = "/configuration", '{"Code": "AccessDeniedException"}'
    result = stack.run("check --json")
    states = {each["part"]: each for each in result.document["findings"]}
    assert result.code == 3
    assert states["function"]["state"] == states["mapping"]["state"] == "unknown"
    assert "may not GetFunctionConfiguration" in states["function"]["text"]
    assert "sts get-caller-identity" in states["function"]["fix"]
    assert states["key"]["state"] == "unknown"
    assert states["notification"]["state"] == "ok"


def test_check_by_name_of_what_is_gone(stack: StackOnMoto) -> None:
    """A stack is found by what is left of it."""
    stack.aws["sqs"].delete_queue(QueueUrl=stack.rejected_url)
    stack.aws["lambda"].delete_function(FunctionName=stack.function)
    result = run("check --stack", stack.name)
    assert result.code == 1
    assert result.out.count("\nFAILED") == 3  # the function, the mapping, a queue


def test_check_of_outcomes_and_delay(stack: StackOnMoto) -> None:
    """The last hour's files, and their p95; moto has no percentiles."""
    for outcome, number in (("Submitted", 5), ("Retried", 2)):
        stack.metric("DatadogStats", outcome, number, FunctionName=stack.function)
    stack.aws["sns"].unsubscribe(SubscriptionArn=stack.pager)
    use_secret(stack, f'{{"api_key": "{KEY}"}}')
    clients: Any = BaseClient
    call = clients._make_api_call

    def answer(client: Any, operation: str, parameters: Any) -> Any:
        if "ExtendedStatistics" not in parameters:
            return call(client, operation, parameters)
        assert (parameters["MetricName"], parameters["Period"]) == ("DelayMilliseconds", 3600)
        delays = [(0, 900.0), (3600, 1340.0)]  # two clock hours
        points = [{"Timestamp": at, "ExtendedStatistics": {"p95": p95}} for at, p95 in delays]
        return {"Datapoints": points}

    stack.patch.setattr(clients, "_make_api_call", answer)
    found = stack.findings()
    assert found["key"][0]["state"] == "ok"
    recent, delay = found["outcomes"]
    assert recent["text"] == "in the last 60 minutes: 5 submitted, 0 refused, 2 retried"
    assert "ddg-ops tail" in recent["fix"]
    assert "95% of the last hour's files were in Datadog 1.3 s after" in delay["text"]
    alarms = [(each["state"], each["text"][:16]) for each in found["alarms"]]
    assert ("note", "they notify nobo") in alarms


# --- The canary ---


def test_canary_is_submitted(stack: StackOnMoto) -> None:
    """The log names the file, and Datadog shows its point."""
    on_sleep(stack.patch, canary, stack.submit)
    stack.generate()
    result = stack.run("check --canary")
    assert result.code == 0, result.out  # the generator's own silence is a note
    assert re.search(r"ok +canary +s3://\S+ was submitted; \d+\.\d s after the put", result.out)
    assert "there is no application key" in result.out
    assert list(stack.datadog.points) == [("ddg.canary", ("env:test", "job:canary"))]
    stack.patch.setenv("DATADOG_APP_KEY", stack.datadog.app_key)
    stack.set_environment(METRIC_PREFIX="etl.")
    Path("netrc").write_text("default login operator password netrc-password\n")
    stack.patch.setenv("NETRC", "netrc")
    with patch.object(HTTPAdapter, "send", autospec=True, side_effect=HTTPAdapter.send) as send:
        result = stack.run("check --canary")
    assert not any("Authorization" in call.args[1].headers for call in send.mock_calls)
    assert re.search(r"Datadog shows the point \d s after the put", result.out)
    assert (result.code, "not proven" in result.out) == (0, False)


@pytest.mark.parametrize(
    ("app_key", "dropped", "problem"),
    [("another", False, "Datadog answered 403"), ("test-app-key", True, "but doesn't show it")],
)
def test_canary_that_is_not_proven(
    app_key: str, dropped: bool, problem: str, stack: StackOnMoto
) -> None:
    """A 202 alone is no proof: unknown, with its causes."""
    on_sleep(stack.patch, canary, stack.submit)
    stack.patch.setenv("DATADOG_APP_KEY", app_key)
    stack.datadog.respond = lambda request: Answer() if dropped else None
    another = {int(time.time()) - 9: 1.0}
    stack.datadog.points["ddg.canary", ("job:canary",)] = another
    found = stack.findings("--canary", "--timeout", "1")["canary"]
    assert [each["state"] for each in found] == ["ok", "unknown"]
    assert problem in found[1]["text"]
    assert "organisation" in found[1]["fix"]


def submit(later: float = 0, **environment: str) -> Action:
    """Return an action: submit with another environment, or later."""

    def action(stack: StackOnMoto) -> None:
        now = time.time() + later
        stack.environment |= environment
        stack.patch.setattr(time, "time", lambda: now)
        stack.submit()

    return action


@pytest.mark.parametrize(
    ("action", "text", "fix"),
    [
        (submit(9, MAX_AGE_SECONDS="1"), "was refused (timestamp ", "this machine's clock"),
        (submit(STATS_PREFIX="x/"), "was ignored (not a new object, or", "in BUCKETS"),
        (submit(DATADOG_HOST="http://[::1]:1"), "was retried (no answer from", "files-retried"),
        (lambda stack: None, "about 1 message in", "doesn't take it"),
        (lambda stack: stack.purge(stack.main_url), "about 0 messages in", "Did the bucket notify"),
    ],
    ids=["refused", "ignored", "retried", "not taken", "not notified"],
)
def test_canary_that_fails(action: Action, text: str, fix: str, stack: StackOnMoto) -> None:
    """The outcome, or none after the timeout, each with its fix."""
    on_sleep(stack.patch, canary, lambda: action(stack))
    [found] = stack.findings("--canary", "--timeout", "0.3")["canary"]
    assert (found["state"], text in found["text"], fix in found["fix"]) == ("FAILED", True, True)


def test_canary_if_files_are_not_logged(stack: StackOnMoto) -> None:
    """The log can't show that it is submitted, but Datadog can."""
    stack.set_environment(LOG_FILES="false")
    stack.patch.setenv("DATADOG_APP_KEY", stack.datadog.app_key)
    on_sleep(stack.patch, canary, stack.submit)
    found = stack.findings("--canary", "--timeout", "0.3")["canary"]
    assert [each["state"] for each in found] == ["unknown", "ok"]
