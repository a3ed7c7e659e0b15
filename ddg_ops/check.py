"""check: is the pipeline healthy, end to end? It asks every part; judging.py judges the answers."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError

from ddg_ops import judging
from ddg_ops.aws import explain, is_missing
from ddg_ops.canary import follow_canary
from ddg_ops.command import Command
from ddg_ops.judging import Finding, failed, fine, unknown
from ddg_ops.log import Line, log_events, read_event
from ddg_ops.screen import FINE, UNABLE, WRONG, Screen, Stop
from ddg_ops.stack import APPLY, Stack, queue_name, queue_path, stack_options
from ddg_settings import Settings, read_settings

DATADOG_SECONDS = 10.0  # Datadog answers in a tenth of a second
SECRET_SECONDS = 10.0
RECENT_MINUTES = 60
STYLES = {"ok": "green", "FAILED": "bold red", "unknown": "yellow", "note": "yellow"}
BY_HAND = f"{APPLY} Somebody may have changed it by hand."
OVERWRITTEN = (
    f"{APPLY} Does something else write the bucket's notifications? A bucket has one "
    "configuration, and the last one to write it wins. Then backfill what was missed."
)
SUBSCRIBE = "Set alarm_email, and confirm what AWS then mails; or subscribe a pager to the topic."
NO_KEY = "Put the key there, or name another secret in ddg_api_key_secret_arn, and apply."


@click.command(cls=Command, examples=["", "--canary", "--stack ddg-stats --json"])
@click.option("--canary", is_flag=True, help="Put a file below <prefix>canary/ and follow it.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds to follow the canary for.",
)
@stack_options
@click.pass_obj
def check(screen: Screen, stack: Stack, canary: bool, timeout: float) -> int:
    """Ask whether the pipeline is healthy, end to end; a fix for each part that isn't."""
    found: list[Finding] = []
    for finding in look(stack, timeout if canary else None):
        found.append(finding)
        screen.say(f"{finding.state:<8}{finding.part:<14}{finding.text}", STYLES[finding.state])
        if finding.fix:
            screen.say(f"{'':22}fix: {finding.fix}")
    states = [finding.state for finding in found]
    code = WRONG if "FAILED" in states else UNABLE if "unknown" in states else FINE
    screen.say(
        f"{states.count('ok')} ok, {states.count('FAILED')} failed, "
        f"{states.count('unknown')} could not be told.",
        "green" if code == FINE else "bold red",
    )
    screen.result({"healthy": code == FINE, "findings": [each._asdict() for each in found]})
    return code


def look(stack: Stack, timeout: float | None) -> Iterator[Finding]:
    """Yield what there is to say of each part; a timeout is the canary's."""
    identity = judge_identity(stack)  # without credentials the rest would say the same
    yield identity
    if identity.state == "FAILED":
        return  # of another account it would only be told what that one lacks
    settings: list[Settings] = []  # of the submitter, once its environment has been read
    parts: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("notification", partial(check_notification, stack)),
        ("function", partial(check_function, stack, settings)),
        ("key", partial(check_key, stack, settings)),
        ("mapping", partial(check_mapping, stack)),
        ("queues", partial(check_queue, stack, "main", stack.main_url)),
        ("queues", partial(check_queue, stack, "rejected", stack.rejected_url)),
        ("queues", partial(check_queue, stack, "dead", stack.dead_letter_url)),
        ("outcomes", partial(check_outcomes, stack, timeout)),
        ("alarms", partial(check_alarms, stack)),
        ("canary", partial(follow_canary, stack, settings, timeout)),
    ]
    for part, ask in parts:
        try:
            yield from ask()
        except Stop as stop:
            yield unknown(part, str(stop))
        except (ClientError, BotoCoreError) as error:
            # Gone is broken; what can't be seen from here may be fine.
            problem, _, fix = explain(error).partition(". ")
            gone = is_missing(error)
            yield failed(part, problem, APPLY) if gone else unknown(part, problem, fix)


def judge_identity(stack: Stack) -> Finding:
    """Who asks, and is it the stack's account?"""
    who = stack.aws.client("sts").get_caller_identity()
    text = f"{who['Arn']}, in {stack.aws.region}"
    if stack.account in ("", who["Account"]):
        return fine("identity", text)
    fix = "Choose the profile of that account: --profile NAME."
    return failed("identity", f"{text}; the stack is in {stack.account}", fix)


def check_notification(stack: Stack) -> Iterator[Finding]:
    """Does the bucket tell the main queue of every new file below the prefix?"""
    answer = stack.aws.client("s3").get_bucket_notification_configuration(Bucket=stack.bucket)
    arn, name = stack.queue(stack.main_url)["QueueArn"], queue_name(stack.main_url)
    if judging.notifies(answer, arn, stack.prefix):
        yield fine("notification", f"s3://{stack.bucket}/{stack.prefix} notifies {name}")
    else:
        text = f"s3://{stack.bucket} doesn't notify {name} of all new files below {stack.prefix}"
        yield failed("notification", text, OVERWRITTEN)


def check_function(stack: Stack, settings: list[Settings]) -> Iterator[Finding]:
    """Is the submitter's environment whole, and the stack's own?"""
    try:
        found = read_settings(stack.environment())
    except ValueError as error:
        yield failed("function", f"{stack.function}: {error}", BY_HAND)
        return
    settings.append(found)
    if queue_path(found.rejected_queue_url) != queue_path(stack.rejected_url):
        text = f"{stack.function} sends refused files to {found.rejected_queue_url}"
        yield failed("function", text, BY_HAND)
    elif found.stats_prefix != stack.prefix:
        text = f"{stack.function} takes jobs from below {found.stats_prefix}, not {stack.prefix}"
        yield failed("function", text, BY_HAND)
    else:
        yield fine("function", f"{stack.function} has its environment")


def check_key(stack: Stack, settings: list[Settings]) -> Iterator[Finding]:
    """Does the site take the key that the submitter has?"""
    if not settings:
        yield unknown("key", "its place is unknown", "See `function` above.")
        return
    clients = stack.aws.submitter(settings[0])
    try:
        key = clients.key.value or clients.key.read(SECRET_SECONDS)
    except ValueError as error:
        cause = error.__context__  # AWS's own error, where it is one
        if isinstance(cause, ClientError | BotoCoreError) and not is_missing(cause):
            raise cause from None
        yield failed("key", f"{error}", NO_KEY)
    else:
        answer = clients.datadog.validate(key, DATADOG_SECONDS).wait(DATADOG_SECONDS)
        yield judging.judge_datadog(settings[0].api_host, answer)


def check_mapping(stack: Stack) -> Iterator[Finding]:
    """Is the main queue fed to the submitter, and are failures reported file by file?"""
    name = queue_name(stack.main_url)
    mappings = stack.mappings(stack.queue(stack.main_url)["QueueArn"])
    stack.environment()  # a mapping outlives its function, and is still called enabled
    if not mappings:
        yield failed("mapping", f"nothing feeds {name} to {stack.function}", APPLY)
    for mapping in mappings:
        yield judging.judge_mapping(mapping, name, stack.function)


def check_queue(stack: Stack, role: str, url: str) -> Iterator[Finding]:
    """What is in a queue, and for how long?"""
    metric = ("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", queue_name(url))
    ages = metric_values(stack, *metric, "Maximum", 15)
    yield judging.judge_queue(role, queue_name(url), stack.queue(url), next(iter(ages), None))


def metric_values(
    stack: Stack, space: str, name: str, dimension: str, value: str, statistic: str, minutes: float
) -> list[float]:
    """Return the values of a CloudWatch metric in the last minutes, the newest first."""
    now = datetime.now(UTC)
    dimensions = [{"Name": dimension, "Value": value}]
    metric = {"Namespace": space, "MetricName": name, "Dimensions": dimensions}
    query = {"Id": "a", "MetricStat": {"Metric": metric, "Period": 60, "Stat": statistic}}
    answer = stack.aws.client("cloudwatch").get_metric_data(
        MetricDataQueries=[query],
        StartTime=now - timedelta(minutes=minutes),
        EndTime=now + timedelta(minutes=1),
        ScanBy="TimestampDescending",
    )
    values: list[float] = answer["MetricDataResults"][0]["Values"]
    return values


def check_outcomes(stack: Stack, followed: float | None) -> Iterator[Finding]:
    """What became of the last hour's files, and why were the last ones retried?"""
    minutes, generator_age = look_at_generator(stack) if stack.generator else (RECENT_MINUTES, 0)
    metric = partial(metric_values, stack, "DatadogStats")
    values = {
        name: metric(name, "FunctionName", stack.function, "Sum", minutes)
        for name in ("Submitted", "Refused", "Retried")
    }
    if any(values.values()):  # an idle pipeline has no batches, not batches of nothing
        text = ", ".join(f"{sum(each):,.0f} {name.lower()}" for name, each in values.items())
        yield fine("outcomes", f"in the last {minutes:.0f} minutes: {text}")
    else:
        finding = judging.judge_silence(minutes, stack.generator, generator_age)
        early = followed and finding.state == "unknown"  # the canary tells, just below
        yield finding._replace(state="note") if early else finding
    if sum(values["Retried"]):
        since = time.time() - 60 * RECENT_MINUTES
        entries = [read_event(each["message"]) for each in log_events(stack, since, '"retried"')]
        for line in [entry for entry in entries if isinstance(entry, Line)][-1:]:
            yield Finding("outcomes", "note", f"the last retry: {line.text}")


def look_at_generator(stack: Stack) -> tuple[float, float]:
    """Return in how many minutes a file of the generator must have come, and its age in seconds."""
    functions = stack.aws.client("lambda")
    modified = functions.get_function_configuration(FunctionName=stack.generator)["LastModified"]
    made = datetime.fromisoformat(modified[:19]).replace(tzinfo=UTC).timestamp()
    silence = [name for name in stack.alarm_names if name.endswith("-nothing-submitted")]
    spans = [
        alarm["Period"] * alarm["EvaluationPeriods"] / 60 for alarm in alarms_of(stack, silence)
    ]
    return max([RECENT_MINUTES, *spans]), time.time() - made


def alarms_of(stack: Stack, names: list[str]) -> list[dict[str, Any]]:
    """Return those of the alarms that are there."""
    describe = stack.aws.client("cloudwatch").describe_alarms
    alarms: list[dict[str, Any]] = []
    for start in range(0, len(names), 50):  # CloudWatch answers with 50 a page
        alarms += describe(AlarmNames=names[start : start + 50])["MetricAlarms"]
    return alarms


def check_alarms(stack: Stack) -> Iterator[Finding]:
    """Which alarms are on, and does anybody hear them?"""
    names = list(stack.alarm_names)
    yield from judging.judge_alarms(names, alarms_of(stack, names))
    answer = stack.aws.client("sns").list_subscriptions_by_topic(TopicArn=stack.topic_arn)
    if not any(each["SubscriptionArn"].startswith("arn:") for each in answer["Subscriptions"]):
        text = f"nobody hears them: {stack.topic_arn}"
        yield Finding("alarms", "note", text, SUBSCRIBE)
