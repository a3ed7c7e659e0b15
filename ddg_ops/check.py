"""check: is the pipeline healthy, end to end? Each part is checked on its own.

FAILED is broken. What can't be seen from here is unknown, and may be fine.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError

from ddg_ops.aws import APPLY, BY_HAND, explain, is_missing
from ddg_ops.canary import follow_canary, judge_datadog
from ddg_ops.screen import (
    FINE,
    HANDBOOK,
    POSITIVE,
    UNABLE,
    USAGE,
    WRONG,
    Command,
    Finding,
    Screen,
    Stop,
    age,
    count,
)
from ddg_ops.settings_file import SETTINGS_FILE, read_settings_file
from ddg_ops.stack import Stack, find_alarms, queue_name, queue_path, stack_options
from ddg_ops.ways import check_buckets
from ddg_settings import Settings, read_buckets, read_settings

KEY_SECONDS = 10.0  # for the secret, and for Datadog
WAITING_SECONDS = 600  # a file that waits longer than two visibility timeouts is stuck
STYLES = {"ok": "green", "FAILED": "bold red", "unknown": "yellow", "note": "yellow"}
MAIN_FIX = f'See "files-waiting" in {HANDBOOK}; the reasons: ddg-ops tail --since 30m'
SUBSCRIBE = "Set alarm_email and confirm the mail from AWS, or subscribe a pager to the topic."
RESUME = "ddg-ops resume --yes"
NO_KEY = "Put the key there, or name another secret in ddg_api_key_secret_arn, and apply."
LATER = "Check again in some minutes, or follow a file: ddg-ops check --canary"
EXAMPLES = ["", "--canary", "--canary --bucket acme-data", "--stack ddg-stats --json"]
SUM_AND_MAXIMUM = {"Period": 300, "Statistics": ["Sum", "Maximum"]}
PERCENTILE = {"Period": 3600, "ExtendedStatistics": ["p95"]}
Findings = Iterator[Finding]
Alarms = Callable[[], list[dict[str, Any]]]  # asks AWS once


@click.command(cls=Command, examples=EXAMPLES)
@click.option("--canary", is_flag=True, help="Put a file below <prefix>canary/ and follow it.")
@click.option("--bucket", "buckets", multiple=True, help="For the canary; may be repeated.")
@click.option("--timeout", type=POSITIVE, default=120.0, metavar="SECONDS", show_default=True)
@stack_options
@click.pass_obj
def check(
    screen: Screen, stack: Stack, canary: bool, buckets: tuple[str, ...], timeout: float
) -> int:
    """Check whether the pipeline is healthy, end to end; print a fix for each part that isn't."""
    if buckets and not canary:
        raise Stop("--bucket is for --canary, which writes a file: give both.", USAGE)
    found: list[dict[str, str]] = []
    for part, finding in examine(stack, buckets, timeout if canary else 0.0):
        found.append({"part": part} | finding._asdict())
        screen.say(f"{finding.state:<8}{part:<14}{finding.text}", STYLES[finding.state])
        if finding.fix:
            screen.say(f"{'':22}fix: {finding.fix}")
    states = [finding["state"] for finding in found]
    code = WRONG if "FAILED" in states else UNABLE if "unknown" in states else FINE
    counts = [f"{states.count(state)} {state}" for state in ("ok", "FAILED", "unknown")]
    screen.say(f"{', '.join(counts)}.", "green" if code == FINE else "bold red")
    screen.result({"healthy": code == FINE, "findings": found})
    return code


def examine(stack: Stack, canaries: Sequence[str], timeout: float) -> Iterator[tuple[str, Finding]]:
    """Yield the findings about each part.

    Args:
        canaries: buckets to put a file into; the stack's own if none is named.
        timeout: seconds to follow the canary; 0: there is none.
    """
    who = stack.aws.client("sts").get_caller_identity()  # without credentials, end here
    identity = f"{who['Arn']}, in {stack.aws.region}"
    if stack.account not in ("", who["Account"]):  # every part would seem to be gone
        text = f"{identity}; the stack is in {stack.account}"
        yield "identity", Finding("FAILED", text, "Choose its profile: --profile NAME.")
        return
    yield "identity", Finding("ok", identity)
    settings: Settings | None = None
    try:
        settings = read_settings(stack.environment())
        yield "function", check_function(stack, settings)
    except ValueError as error:
        yield "function", Finding("FAILED", f"{stack.function}: {error}", BY_HAND)
    except (ClientError, BotoCoreError) as error:
        yield "function", trouble(error)
    others = read_buckets(settings.buckets) if settings else {}
    alarms = cache(partial(its_alarms, stack))
    followed = list(canaries or [stack.bucket]) if timeout else []
    if settings:
        followed = [stack.choose_bucket(settings, bucket) for bucket in followed]
    parts: list[tuple[str, Findings]] = [
        ("settings", check_settings_file()),
        ("notification", check_buckets(stack, others)),
        ("key", check_key(stack, settings)),
        ("mapping", check_mapping(stack)),
        ("queues", check_queue(stack, stack.main_url, MAIN_FIX, WAITING_SECONDS)),
        ("queues", check_queue(stack, stack.rejected_url, "List them: ddg-ops rejected list")),
        ("queues", check_queue(stack, stack.dead_letter_url, "List them: ddg-ops dead list")),
        ("outcomes", check_outcomes(stack, alarms, follows=bool(timeout))),
        ("alarms", check_alarms(stack, alarms)),
        *(("canary", follow_canary(stack, settings, bucket, timeout)) for bucket in followed),
        ("access", check_access([bucket for bucket in others if bucket not in followed])),
    ]
    for part, findings in parts:
        try:
            for finding in findings:
                yield part, finding
        except (Stop, ValueError) as error:  # without settings, or without the key
            yield part, Finding("unknown", str(error), "See `function` and `key`.")
        except (ClientError, BotoCoreError) as error:
            yield part, trouble(error)


def trouble(error: ClientError | BotoCoreError) -> Finding:
    """Return an error of AWS as a finding: what is gone is broken, all else is unknown."""
    problem, _, fix = explain(error).partition(". ")
    return (
        Finding("FAILED", problem, APPLY) if is_missing(error) else Finding("unknown", problem, fix)
    )


def check_function(stack: Stack, settings: Settings) -> Finding:
    """Check that the submitter's environment belongs to the stack."""
    name = stack.function
    if queue_path(settings.rejected_queue_url) != queue_path(stack.rejected_url):
        text = f"{name} sends refused files to {settings.rejected_queue_url}"
        return Finding("FAILED", text, BY_HAND)
    if stack.bucket and settings.stats_prefix != stack.prefix:
        text = f"{name} reads files below {settings.stats_prefix}, not {stack.prefix}"
        return Finding("FAILED", text, BY_HAND)
    return Finding("ok", f"{name} has its settings")


def check_settings_file() -> Findings:
    """Check the settings file in the current folder, if there is one."""
    try:
        read_settings_file(Path(SETTINGS_FILE))
        yield Finding("ok", f"{SETTINGS_FILE} has no unknown attributes")
    except OSError:
        pass
    except ValueError as error:
        yield Finding("FAILED", str(error), "Correct it: Terraform would ignore that.")


def check_key(stack: Stack, settings: Settings | None) -> Findings:
    """Check that the site accepts the submitter's key."""
    if not settings:
        raise Stop("the key's place is unknown")
    clients = stack.aws.submitter(settings)
    try:
        key = clients.key.value or clients.key.read(KEY_SECONDS)
    except ValueError as error:
        cause = error.__context__
        if isinstance(cause, ClientError | BotoCoreError) and not is_missing(cause):
            raise cause from None
        yield Finding("FAILED", str(error), NO_KEY)
    else:
        answer = clients.datadog.validate(key, KEY_SECONDS).wait(KEY_SECONDS)
        yield judge_datadog(settings.api_host, answer)


def check_mapping(stack: Stack) -> Findings:
    """Check that the submitter gets the main queue's messages, and reports failures one by one."""
    queue = queue_name(stack.main_url)
    mappings = stack.mappings(stack.queue(stack.main_url)["QueueArn"])
    stack.environment()  # a mapping outlives its function, and stays enabled
    if not mappings:
        yield Finding("FAILED", f"{queue} isn't mapped to {stack.function}", APPLY)
    for each in mappings:
        if each["State"] not in ("Enabled", "Enabling", "Updating"):
            text = f"paused: the mapping from {queue} to {stack.function} is {each['State']}"
            yield Finding("FAILED", text, RESUME)
        elif "ReportBatchItemFailures" not in each.get("FunctionResponseTypes", []):
            text = "without ReportBatchItemFailures, files to retry are lost"
            yield Finding("FAILED", text, f"{APPLY} Do it at once.")
        else:
            yield Finding("ok", f"{queue} is mapped to {stack.function}")


def check_queue(stack: Stack, url: str, fix: str, seconds: float = 0.0) -> Findings:
    """Check that no message waits in a queue for some seconds, or at all."""
    name, number = stack.waiting(url)
    ages = points(stack, "AWS/SQS", "ApproximateAgeOfOldestMessage", 15, QueueName=name)
    oldest = ages[0]["Maximum"] if ages else 0.0
    text = f"{name}: about {count(number, 'message')}"
    text += f", the oldest for {age(oldest)}" if number and oldest else ""
    is_stuck = number and oldest >= seconds
    yield Finding("FAILED", text, fix) if is_stuck else Finding("ok", text)


def points(
    stack: Stack,
    namespace: str,
    metric: str,
    minutes: int,
    statistics: Mapping[str, Any] = SUM_AND_MAXIMUM,
    **dimension: str,
) -> list[Any]:
    """Return the points of a metric, the newest first."""
    now = datetime.now(UTC)
    found: list[Any] = stack.aws.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=metric,
        Dimensions=[{"Name": name, "Value": value} for name, value in dimension.items()],
        StartTime=now - timedelta(minutes=minutes),
        EndTime=now + timedelta(minutes=1),
        **statistics,
    )["Datapoints"]
    return sorted(found, key=lambda point: point["Timestamp"], reverse=True)


def check_outcomes(stack: Stack, alarms: Alarms, *, follows: bool) -> Findings:
    """Check what became of the last hour's files, and how fast; follows: there is a canary."""
    minutes = max([60, *silence_minutes(alarms)])
    own_points = partial(points, stack, "DatadogStats", FunctionName=stack.function)
    totals = {
        name: sum(point["Sum"] for point in own_points(name, minutes))
        for name in ("Submitted", "Refused", "Retried")
    }
    if not any(totals.values()):
        yield judge_silence(stack, minutes, follows=follows)
    else:
        numbers = ", ".join(f"{number:,.0f} {name.lower()}" for name, number in totals.items())
        text = f"in the last {minutes} minutes: {numbers}"
        reasons = "The reasons: ddg-ops tail --since 1h"
        yield Finding("note", text, reasons) if totals["Retried"] else Finding("ok", text)
    delays = own_points("DelayMilliseconds", 60, PERCENTILE)
    if known := [each["ExtendedStatistics"]["p95"] for each in delays]:
        text = f"95% of the last hour's files were in Datadog {max(known) / 1000:,.1f} s"
        yield Finding("ok", f"{text} after S3's event, or sooner")


def silence_minutes(alarms: Alarms) -> list[int]:
    """Return after how many minutes the alarm nothing-submitted rings, if it exists."""
    return [
        alarm["Period"] * alarm["EvaluationPeriods"] // 60
        for alarm in alarms()
        if alarm["AlarmName"].endswith("-nothing-submitted")
    ]


def judge_silence(stack: Stack, minutes: int, *, follows: bool) -> Finding:
    """Judge that there were no files for some minutes."""
    text, name = f"no files in the last {minutes} minutes", stack.generator
    if not name:
        return Finding("ok", f"{text}; there may have been none, since no generator runs")
    generator = stack.aws.client("lambda").get_function_configuration(FunctionName=name)
    if stack.aws.client("events").describe_rule(Name=name)["State"] == "DISABLED":
        return Finding("note", f"{text}; {name} is paused", RESUME)
    made = datetime.fromisoformat(generator["LastModified"][:19]).replace(tzinfo=UTC)
    seconds = time.time() - made.timestamp()
    if seconds < 60 * minutes:
        text += f"; {name} was made or changed only {age(seconds)} ago"
        return Finding("note" if follows else "unknown", text, LATER)
    return Finding("FAILED", f"{text}, though {name} runs", f'"nothing-submitted" in {HANDBOOK}')


def its_alarms(stack: Stack) -> list[dict[str, Any]]:
    """Return those of the stack's alarms that exist."""
    found = find_alarms(stack.aws, stack.function.removesuffix("metric-submit"))
    return [alarm for alarm in found if alarm["AlarmName"] in stack.alarm_names]


def check_alarms(stack: Stack, find: Alarms) -> Findings:
    """Check which alarms are on or gone, who is notified, and what they can't notice."""
    alarms = find()
    missing = sorted(set(stack.alarm_names) - {alarm["AlarmName"] for alarm in alarms})
    ringing = [alarm for alarm in alarms if alarm["StateValue"] == "ALARM"]
    for alarm in ringing:
        first = f"{alarm.get('AlarmDescription', '')} See {HANDBOOK}."
        yield Finding("FAILED", f"{alarm['AlarmName']} is on", first)
    if missing or not alarms:
        yield Finding("FAILED", f"not there: {', '.join(missing) or 'all of them'}", APPLY)
    elif not ringing:
        yield Finding("ok", f"none of {len(alarms)} is on")
    topic, sns = stack.topic_arn, stack.aws.client("sns")
    answer = sns.list_subscriptions_by_topic(TopicArn=topic)
    if not any(each["SubscriptionArn"].startswith("arn:") for each in answer["Subscriptions"]):
        yield Finding("note", f"they notify nobody: {topic} has no subscription", SUBSCRIBE)
    if not stack.generator:
        text = "neither generator nor heartbeat runs: only alarms of silent jobs notice a dead "
        yield Finding("note", f"{text}pipeline ({count(len(stack.watched), 'job')} watched)")


def check_access(buckets: Sequence[str]) -> Findings:
    """Say that only a canary shows whether the role may read and decrypt a bucket's files."""
    if buckets:
        text = f"only a canary shows whether the role may read and decrypt: {', '.join(buckets)}"
        options = " ".join(f"--bucket {bucket}" for bucket in buckets)
        yield Finding("unknown", text, f"ddg-ops check --canary {options}")
