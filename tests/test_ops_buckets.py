"""ddg-ops on buckets other than the stack's own."""

from __future__ import annotations

import json
import re

import pytest

from ddg_ops import canary
from tests.operated import (
    KEY,
    REGION,
    Action,
    StackOnMoto,
    do,
    make_stack,
    on_sleep,
    run,
    stats,
)
from tests.wire import Wire

stack = pytest.fixture(make_stack)


def test_check_of_buckets(stack: StackOnMoto) -> None:
    """Each bucket's way is checked; only a canary shows whether its files can be read."""
    for way in ("eventbridge", "sns", "s3"):
        stack.connect(way)
    found = stack.findings()
    told = [(each["state"], each["text"].split(stack.name)[-1]) for each in found["notification"]]
    assert [state for state, _ in told] == 4 * ["ok"]
    assert [text for _, text in told][1:] == [
        "-by-eventbridge",
        "-by-sns",
        "-stats directly",
    ]
    [access] = found["access"]
    assert access["state"] == "unknown"
    result = run(access["fix"].removeprefix("ddg-ops "), "--timeout", "0.3", "--stack", stack.name)
    assert "is neither submitted nor refused" in result.out
    on_sleep(stack.patch, canary, stack.submit)
    stack.submit()
    result = stack.run(access["fix"].removeprefix("ddg-ops "))
    assert (result.code, result.out.count(" was submitted; ")) == (0, 3), result.out
    assert ("ddg.canary", ("env:test", "job:canary")) in stack.datadog.points


def tell_a_foreign_topic(stack: StackOnMoto) -> None:
    topic = f"arn:aws:sns:{REGION}:999999999999:uploads"
    stack.admit(topic)
    stack.notify("", stack.other, topic)


ACTIONS: dict[str, Action] = {
    "narrow the rule": lambda s: s.put_rule(s.other, "etl/stats/nightly/"),
    "narrow the notification": lambda s: s.notify("etl/stats/nightly/", s.other),
    "tell a topic of another account": tell_a_foreign_topic,
    "leave it to EventBridge": lambda s: s.aws["s3"].put_bucket_notification_configuration(
        Bucket=s.other, NotificationConfiguration={"EventBridgeConfiguration": {}}
    ),
}
# Action or AWS call | the way | state | text | fix
UNTOLD = """
s3 put_bucket_notification_configuration Bucket={0.other} NotificationConfiguration= | eventbridge \
| FAILED | EventBridge is off, and its rules that match are: {0.other} | {0.other}".notify
events disable_rule Name={0.other} | eventbridge | FAILED | match are: none | terraform apply
narrow the rule | eventbridge | FAILED | match are: none | terraform apply
events remove_targets Rule={0.other} Ids= | eventbridge | FAILED | match are: none | terraform
refuse | eventbridge | unknown | stats: your AWS profile may not Get | --bucket {0.other}
sns unsubscribe SubscriptionArn={0.subscription} | sns | FAILED | doesn't notify | terraform apply
tell a topic of another account | s3 | unknown | 999999999999:uploads belongs | --bucket {0.other}
leave it to EventBridge | sns | unknown | a rule may send | --bucket {0.other}
narrow the notification | s3 | FAILED | of all new files | {0.other}".notify
s3 delete_bucket Bucket={0.other} | s3 | FAILED | s3://{0.other}: not there (GetB | in `buckets`
"""


@pytest.mark.parametrize("row", UNTOLD.strip().splitlines())
def test_check_of_a_bucket_that_does_not_notify(row: str, stack: StackOnMoto) -> None:
    """A missing part is FAILED, with what to type; what can't be seen is unknown."""
    what, way, state, text, fix = row.split(" | ")
    stack.connect(way)
    if what == "refuse":
        wire = Wire(stack.patch)
        wire.refused = f"{stack.other}?notification"
        wire.refusal = "<Error><Code>AccessDenied</Code></Error>"
    else:
        do(what, stack, ACTIONS)
    own, found = (
        each
        for each in stack.run("check --json").document["findings"]
        if each["part"] == "notification"
    )
    assert (own["state"], found["state"]) == ("ok", state), found
    assert text.format(stack) in found["text"]
    assert fix.format(stack) in found["fix"]


def test_commands_on_every_bucket(stack: StackOnMoto) -> None:
    """Without a bucket of the stack's own, each bucket has its prefix."""
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
