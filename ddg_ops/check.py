"""check: is the pipeline healthy, end to end? It asks every part; judging.py judges the answers."""

import json
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError

from ddg_ops import judging
from ddg_ops.aws import APPLY, explain, is_missing, time_at_aws
from ddg_ops.judging import Finding, Ways
from ddg_ops.log import Line, log_events, read_event
from ddg_ops.screen import FINE, POSITIVE, UNABLE, USAGE, WRONG, Command, Screen, Stop, count
from ddg_ops.stack import Stack, queue_name, queue_path, stack_options
from ddg_settings import Settings, read_settings

DATADOG_SECONDS = 10.0  # Datadog answers in a tenth of a second
SECRET_SECONDS = 10.0
RECENT_MINUTES = 60
POLL_SECONDS = 1.0  # between two looks for the canary; CloudWatch has lines after some seconds
CANARY_METRIC = "ddg.canary"  # one custom metric: ddg.canary{job:canary}
CANARY_POINTS = (100, 299)  # one a second, back from now: more than batches of small files have
STYLES = {"ok": "green", "FAILED": "bold red", "unknown": "yellow", "note": "yellow"}
BY_HAND = f"{APPLY} Somebody may have changed it by hand."
OVERWRITTEN = (
    f"{APPLY} Does something else write the bucket's notifications? A bucket has one "
    "configuration, and the last one to write it wins. Then backfill what was missed."
)
SUBSCRIBE = "Set alarm_email, and confirm what AWS then mails; or subscribe a pager to the topic."
NO_KEY = "Put the key there, or name another secret in ddg_api_key_secret_arn, and apply."
NOT_TAKEN = "It isn't taken, or many are before it: see `mapping` above, and ddg-ops tail."
NOT_TOLD = (
    "Did the bucket notify the queue (see `notification` above)? If the submitter's log shows a "
    "batch, its line has just not come yet: see ddg-ops tail."
)
EXAMPLES = ["", "--canary", "--canary --bucket acme-data", "--stack ddg-stats --json"]
NO_BUCKET = "Is it in the stack's account and region, and its name right in `buckets`?"


@click.command(cls=Command, examples=EXAMPLES)
@click.option("--canary", is_flag=True, help="Put a file below <prefix>canary/ and follow it.")
@click.option("--bucket", "buckets", multiple=True, help="Of the canary; may be given again.")
@click.option("--timeout", type=POSITIVE, default=120.0, metavar="SECONDS", show_default=True)
@stack_options
@click.pass_obj
def check(
    screen: Screen, stack: Stack, canary: bool, buckets: tuple[str, ...], timeout: float
) -> int:
    """Ask whether the pipeline is healthy, end to end; a fix for each part that isn't."""
    if buckets and not canary:
        raise Stop("--bucket is for --canary, which writes a file: give both.", USAGE)
    found: list[dict[str, str]] = []
    for part, finding in look(stack, timeout if canary else None, buckets):
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


def look(
    stack: Stack, timeout: float | None, buckets: Sequence[str]
) -> Iterator[tuple[str, Finding]]:
    """Yield what there is to say of each part; a timeout is the canary's."""
    who = stack.aws.client("sts").get_caller_identity()  # without it the rest would say the same
    identity = f"{who['Arn']}, in {stack.aws.region}"
    if stack.account not in ("", who["Account"]):
        # All that the account lacks would be called gone.
        text = f"{identity}; the stack is in {stack.account}"
        yield "identity", Finding("FAILED", text, "Choose its profile: --profile NAME.")
        return
    yield "identity", Finding("ok", identity)
    for part, ask in list_parts(stack, timeout, buckets):
        try:
            yield from ((part, finding) for finding in ask())
        except Stop as stop:
            yield part, Finding("unknown", str(stop), "See `function`.")
        except (ClientError, BotoCoreError) as error:
            problem, _, fix = explain(error).partition(". ")
            gone = is_missing(error)  # and so broken; what can't be seen from here may be fine
            yield part, Finding("FAILED" if gone else "unknown", problem, APPLY if gone else fix)


def list_parts(
    stack: Stack, timeout: float | None, buckets: Sequence[str]
) -> Iterator[tuple[str, Callable[[], Iterator[Finding]]]]:
    """Yield each part with what asks it; the submitter's environment says what the rest is."""
    settings: list[Settings] = []  # of the submitter, once its environment has been read
    yield "function", partial(check_function, stack, settings)
    others = dict(settings[0].buckets) if settings else {}
    followed = choose_buckets(stack, settings, buckets) if timeout else []
    if stack.bucket:
        yield "notification", partial(check_notification, stack)
    if others:
        yield "notification", partial(check_buckets, stack, others)
    yield "key", partial(check_key, stack, settings)
    yield "mapping", partial(check_mapping, stack)
    yield "queues", partial(check_queue, stack, "main", stack.main_url)
    yield "queues", partial(check_queue, stack, "rejected", stack.rejected_url)
    yield "queues", partial(check_queue, stack, "dead", stack.dead_letter_url)
    yield "outcomes", partial(check_outcomes, stack, timeout)
    yield "alarms", partial(check_alarms, stack)
    for bucket in followed:
        yield "canary", partial(follow_canary, stack, settings, bucket, timeout or 0)
    if unread := [bucket for bucket in others if bucket not in followed]:
        yield "access", partial(tell_unread, unread)


def choose_buckets(stack: Stack, settings: list[Settings], named: Sequence[str]) -> Sequence[str]:
    """Return the buckets that a canary is put into; Stop where one isn't the stack's."""
    if not settings:  # the canary says that it can't be told where
        return named or [stack.bucket]
    return [stack.choose_bucket(settings[0], bucket) for bucket in named or [""]]


def check_notification(stack: Stack) -> Iterator[Finding]:
    """Does the bucket tell the main queue of every new file below the prefix?"""
    answer = stack.aws.client("s3").get_bucket_notification_configuration(Bucket=stack.bucket)
    arn, name = stack.queue(stack.main_url)["QueueArn"], queue_name(stack.main_url)
    if arn in judging.told(answer, "Queue", stack.prefix):
        yield Finding("ok", f"s3://{stack.bucket}/{stack.prefix} notifies {name}")
    else:
        text = f"s3://{stack.bucket} doesn't notify {name} of all new files below {stack.prefix}"
        yield Finding("FAILED", text, OVERWRITTEN)


def check_buckets(stack: Stack, buckets: Mapping[str, str]) -> Iterator[Finding]:
    """Is the main queue told of each bucket that was there before? A finding for each."""
    queue = stack.queue(stack.main_url)
    arn, events = queue["QueueArn"], stack.aws.client("events")
    pages = events.get_paginator("list_rule_names_by_target").paginate(TargetArn=arn)
    rules = [events.describe_rule(Name=name) for page in pages for name in page["RuleNames"]]
    subscriptions = stack.aws.client("sns").get_paginator("list_subscriptions").paginate()
    topics = {
        each["TopicArn"]
        for page in subscriptions
        for each in page["Subscriptions"]
        if each["Endpoint"] == arn and each["SubscriptionArn"].startswith("arn:")
    }
    ways = Ways(arn, queue.get("Policy", ""), rules, frozenset(topics))
    for bucket, prefix in buckets.items():
        configuration, problem = None, ""
        try:
            s3 = stack.aws.client("s3")
            configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
        except ClientError as error:
            problem = f": {explain(error).partition('. ')[0]}"
            if is_missing(error):
                yield Finding("FAILED", f"s3://{bucket}{problem}", NO_BUCKET)
                continue
        finding = judging.judge_bucket(bucket, prefix, configuration, ways)
        if finding.state == "unknown":
            fix = f"Ask its owner, or follow a file: ddg-ops check --canary --bucket {bucket}"
            finding = finding._replace(text=f"{finding.text}{problem}", fix=fix)
        yield finding


def tell_unread(buckets: Sequence[str]) -> Iterator[Finding]:
    """Say for which buckets it isn't known whether the role may read: AWS tells nobody but it."""
    text = f"whether the role may read and decrypt is seen by a canary alone: {', '.join(buckets)}"
    options = " ".join(f"--bucket {bucket}" for bucket in buckets)
    yield Finding("unknown", text, f"ddg-ops check --canary {options}")


def check_function(stack: Stack, settings: list[Settings]) -> Iterator[Finding]:
    """Is the submitter's environment whole, and the stack's own?"""
    try:
        found = read_settings(stack.environment())
    except ValueError as error:
        yield Finding("FAILED", f"{stack.function}: {error}", BY_HAND)
        return
    settings.append(found)
    if queue_path(found.rejected_queue_url) != queue_path(stack.rejected_url):
        text = f"{stack.function} sends refused files to {found.rejected_queue_url}"
        yield Finding("FAILED", text, BY_HAND)
    elif stack.bucket and found.stats_prefix != stack.prefix:
        text = f"{stack.function} takes jobs from below {found.stats_prefix}, not {stack.prefix}"
        yield Finding("FAILED", text, BY_HAND)
    else:
        yield Finding("ok", f"{stack.function} has its environment")


def check_key(stack: Stack, settings: list[Settings]) -> Iterator[Finding]:
    """Does the site take the key that the submitter has?"""
    if not settings:
        raise Stop("its place is unknown")
    clients = stack.aws.submitter(settings[0])
    try:
        key = clients.key.value or clients.key.read(SECRET_SECONDS)
    except ValueError as error:
        cause = error.__context__  # AWS's own error, where it is one
        if isinstance(cause, ClientError | BotoCoreError) and not is_missing(cause):
            raise cause from None
        yield Finding("FAILED", f"{error}", NO_KEY)
    else:
        answer = clients.datadog.validate(key, DATADOG_SECONDS).wait(DATADOG_SECONDS)
        yield judging.judge_datadog(settings[0].api_host, answer)


def check_mapping(stack: Stack) -> Iterator[Finding]:
    """Is the main queue fed to the submitter, and are failures reported file by file?"""
    name = queue_name(stack.main_url)
    mappings = stack.mappings(stack.queue(stack.main_url)["QueueArn"])
    stack.environment()  # a mapping outlives its function, and is still called enabled
    if not mappings:
        yield Finding("FAILED", f"nothing feeds {name} to {stack.function}", APPLY)
    yield from (judging.judge_mapping(each, name, stack.function) for each in mappings)


def check_queue(stack: Stack, role: str, url: str) -> Iterator[Finding]:
    """What is in a queue, and for how long?"""
    name = queue_name(url)
    ages = metric_values(stack, "AWS/SQS QueueName ApproximateAgeOfOldestMessage", name, 15)
    yield judging.judge_queue(role, name, stack.queue(url), next(iter(ages), None))


def metric_values(stack: Stack, metric: str, value: str, minutes: float) -> list[float]:
    """Return the values of a metric (namespace, dimension, name), the newest first."""
    namespace, dimension, name = metric.split()
    now = datetime.now(UTC)
    points = stack.aws.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": dimension, "Value": value}],
        StartTime=now - timedelta(minutes=minutes),
        EndTime=now + timedelta(minutes=1),
        Period=300,
        Statistics=["Sum", "Maximum"],
    )["Datapoints"]
    points.sort(key=lambda point: point["Timestamp"], reverse=True)
    return [point["Maximum" if namespace == "AWS/SQS" else "Sum"] for point in points]


def check_outcomes(stack: Stack, followed: float | None) -> Iterator[Finding]:
    """What became of the last hour's files, and why were the last ones retried?"""
    minutes, generator_age = look_at_generator(stack) if stack.generator else (RECENT_MINUTES, 0)
    values = {
        name: metric_values(stack, f"DatadogStats FunctionName {name}", stack.function, minutes)
        for name in ("Submitted", "Refused", "Retried")
    }
    if any(values.values()):  # an idle pipeline has no batches, not batches of nothing
        text = ", ".join(f"{sum(each):,.0f} {name.lower()}" for name, each in values.items())
        yield Finding("ok", f"in the last {minutes:.0f} minutes: {text}")
    else:
        finding = judging.judge_silence(minutes, stack.generator, generator_age)
        early = followed and finding.state == "unknown"  # the canary tells, just below
        yield finding._replace(state="note") if early else finding
    if sum(values["Retried"]):
        since = time.time() - 60 * RECENT_MINUTES
        entries = [read_event(each["message"]) for each in log_events(stack, since, '"retried"')]
        for line in [entry for entry in entries if isinstance(entry, Line)][-1:]:
            yield Finding("note", f"the last retry: {line.text}")


def look_at_generator(stack: Stack) -> tuple[float, float]:
    """Return in how many minutes a file of the generator must have come, and its age in seconds."""
    functions = stack.aws.client("lambda")
    modified = functions.get_function_configuration(FunctionName=stack.generator)["LastModified"]
    made = datetime.fromisoformat(modified[:19]).replace(tzinfo=UTC).timestamp()
    silence = [name for name in stack.alarm_names if name.endswith("-nothing-submitted")]
    alarms = alarms_of(stack, silence)
    spans = [alarm["Period"] * alarm["EvaluationPeriods"] / 60 for alarm in alarms]
    return max([RECENT_MINUTES, *spans]), time.time() - made


def alarms_of(stack: Stack, names: list[str]) -> list[dict[str, Any]]:
    """Return those of the alarms that are there."""
    describe = stack.aws.client("cloudwatch").describe_alarms
    fifties = [names[start : start + 50] for start in range(0, len(names), 50)]  # CloudWatch's page
    return [alarm for some in fifties for alarm in describe(AlarmNames=some)["MetricAlarms"]]


def check_alarms(stack: Stack) -> Iterator[Finding]:
    """Which alarms are on, and does anybody hear them?"""
    names = list(stack.alarm_names)
    yield from judging.judge_alarms(names, alarms_of(stack, names))
    answer = stack.aws.client("sns").list_subscriptions_by_topic(TopicArn=stack.topic_arn)
    if not any(each["SubscriptionArn"].startswith("arn:") for each in answer["Subscriptions"]):
        yield Finding("note", f"nobody hears them: {stack.topic_arn}", SUBSCRIBE)


def follow_canary(
    stack: Stack, settings: list[Settings], bucket: str, timeout: float
) -> Iterator[Finding]:
    """Put a file below a bucket's prefix and follow it through the log."""
    if not bucket or (not settings and bucket != stack.bucket):
        raise Stop("its prefix is unknown")
    points, now = random.randint(*CANARY_POINTS), int(time.time())
    if settings and settings[0].max_age:
        points = min(points, settings[0].max_age // 2) or 1
    prefix = stack.prefix if bucket == stack.bucket else settings[0].prefix_of(bucket)
    key = f"{prefix}canary/{now}-{secrets.token_hex(4)}.json"
    body = json.dumps([{"timestamp": now - second, CANARY_METRIC: 1} for second in range(points)])
    started = time.monotonic()
    response = stack.aws.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    where = f"s3://{bucket}/{key}"
    took = 0.0
    while took <= timeout:
        took = time.monotonic() - started
        for event in log_events(stack, time_at_aws(response)):
            if finding := judging.judge_canary(event["message"], where, points):
                after = f"{took:.1f} s after the put, as the log showed it"
                yield finding._replace(text=f"{finding.text}; {after}")
                return
        time.sleep(POLL_SECONDS)
    name, queue = queue_name(stack.main_url), stack.queue(stack.main_url)
    waiting = int(queue["ApproximateNumberOfMessages"])
    waiting += int(queue["ApproximateNumberOfMessagesNotVisible"])
    text = f"{where} is neither submitted nor refused after {timeout:.0f} s"
    text += f"; about {count(waiting, 'message')} in {name}" if waiting else f"; {name} is empty"
    yield Finding("FAILED", text, NOT_TAKEN if waiting else NOT_TOLD)
