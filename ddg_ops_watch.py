"""Is the pipeline healthy? `check` asks every part of it, `tail` follows the submitter's log."""

import json
import random
import secrets
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from ddg_ops_stack import (
    FINE,
    UNABLE,
    WRONG,
    Screen,
    Stack,
    Stop,
    age,
    client,
    explain,
    function_environment,
    key_problem,
    queue_name,
    submitter_clients,
    time_at_aws,
)
from ddg_settings import Settings, read_settings

HANDBOOK = "docs/operations.md"
SECRET_SECONDS = 10.0  # ours: for the secret with the key
POLL_SECONDS = 1.0  # ours: between two looks into the log; CloudWatch has lines after some seconds
LATE_SECONDS = 60  # ours: a line of another stream may come that much after later ones
WAITING_SECONDS = 600  # ours: what waits longer than two visibility timeouts isn't on its way
RECENT_MINUTES = 60
CANARY_METRIC = "ddg.canary"  # one custom metric: ddg.canary{job:canary}
CANARY_POINTS = (100, 299)  # one a second, back from now: more than batches of small files have


class Finding(NamedTuple):
    """What one part of the check found."""

    part: str
    state: Literal["ok", "FAILED", "unknown", "note"]
    text: str
    fix: str = ""  # what to do, where it isn't ok


SUMMARY = (
    "Submitted",
    "Refused",
    "Retried",
    "Points",
    "Requests",
    "WireBytes",
    "FetchMilliseconds",
    "PostMilliseconds",
)

STYLES = {"ok": "green", "FAILED": "bold red", "unknown": "yellow", "note": "yellow"}


def check(stack: Stack, options: Namespace, screen: Screen) -> int:
    """Ask every part of the pipeline whether it is well, and how to mend what isn't."""
    findings: list[Finding] = []
    settings: list[Settings] = []  # of the submitter, once its environment has been read
    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "identity": lambda: check_identity(stack),
        "notification": lambda: check_notification(stack),
        "function": lambda: check_function(stack, settings),
        "key": lambda: check_key(settings),
        "mapping": lambda: check_mapping(stack),
        "queues": lambda: check_queues(stack),
        "outcomes": lambda: check_outcomes(stack),
        "alarms": lambda: check_alarms(stack),
    }
    if options.canary:
        parts["canary"] = lambda: check_canary(stack, settings, options.timeout)
    for part, look in parts.items():
        for finding in carefully(part, look):
            findings.append(finding)
            screen.say(f"{finding.state:<8}{finding.part:<14}{finding.text}", STYLES[finding.state])
            if finding.fix:
                screen.say(f"{'':22}fix: {finding.fix}")
    states = [finding.state for finding in findings]
    failed, unknown = states.count("FAILED"), states.count("unknown")
    code = WRONG if failed else UNABLE if unknown else FINE
    screen.say(
        f"{states.count('ok')} ok, {failed} failed, {unknown} could not be told.",
        "green" if code == FINE else "bold red",
    )
    screen.result({"healthy": code == FINE, "findings": [each._asdict() for each in findings]})
    return code


def carefully(part: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield a part's findings; what can't be seen is said, and ends the part alone."""
    try:
        yield from look()
    except Stop as stop:
        yield Finding(part, "unknown", str(stop))
    except (ClientError, BotoCoreError) as error:
        if part == "identity":
            raise  # without credentials or network the rest would say the same
        yield Finding(part, "unknown", explain(error))


# --- The parts ---


def check_identity(stack: Stack) -> Iterator[Finding]:
    """Who asks, and is it the stack's account?"""
    who = client("sts").get_caller_identity()
    text = f"{who['Arn']}, in {client('sqs').meta.region_name}"
    if stack.account and who["Account"] != stack.account:
        fix = "Choose the profile of that account: --profile NAME."
        yield Finding("identity", "FAILED", f"{text}; the stack is in {stack.account}", fix)
    else:
        yield Finding("identity", "ok", text)


def queue_attributes(url: str) -> dict[str, str]:
    """Return all attributes of a queue."""
    response = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    attributes: dict[str, str] = response["Attributes"]
    return attributes


def check_notification(stack: Stack) -> Iterator[Finding]:
    """Does the bucket tell the main queue of every new file below the prefix?"""
    answer = client("s3").get_bucket_notification_configuration(Bucket=stack.bucket)
    arn = queue_attributes(stack.main_url)["QueueArn"]
    for each in answer.get("QueueConfigurations", []):
        rules = each.get("Filter", {}).get("Key", {}).get("FilterRules", [])
        filters = {rule["Name"].lower(): rule["Value"] for rule in rules}
        whole = {"s3:ObjectCreated:*"} <= set(each["Events"]) and not filters.get("suffix")
        if each["QueueArn"] == arn and whole and stack.prefix.startswith(filters.get("prefix", "")):
            text = f"s3://{stack.bucket}/{stack.prefix} notifies {queue_name(stack.main_url)}"
            yield Finding("notification", "ok", text)
            return
    yield Finding(
        "notification",
        "FAILED",
        f"s3://{stack.bucket} doesn't notify {queue_name(stack.main_url)} of all new files below "
        f"{stack.prefix}",
        "Run `terraform apply`. Does something else write the bucket's notifications? A bucket has "
        "one configuration, and the last one to write it wins. Then backfill what was missed.",
    )


def check_function(stack: Stack, settings: list[Settings]) -> Iterator[Finding]:
    """Is the submitter's environment whole, and the stack's own?"""
    environment = function_environment(stack.function)
    again = "Run `terraform apply`; somebody may have changed it by hand."
    try:
        settings.append(read_settings(environment))
    except ValueError as error:
        yield Finding("function", "FAILED", f"{stack.function}: {error}", again)
        return
    found = settings[0]
    if queue_name(found.rejected_queue_url) != queue_name(stack.rejected_url):
        text = f"{stack.function} sends refused files to {found.rejected_queue_url}"
        yield Finding("function", "FAILED", text, again)
    elif found.stats_prefix != stack.prefix:
        text = f"{stack.function} takes jobs from below {found.stats_prefix}, not {stack.prefix}"
        yield Finding("function", "FAILED", text, again)
    else:
        yield Finding("function", "ok", f"{stack.function} has its environment")


def check_key(settings: list[Settings]) -> Iterator[Finding]:
    """Does the site take the key that the submitter has?"""
    if not settings:
        yield Finding("key", "unknown", "the function's environment comes first")
        return
    found = settings[0]
    rotate = f'See "Rotate the key" in {HANDBOOK}.'
    try:
        key = found.api_key or submitter_clients(found).key.read(SECRET_SECONDS)
    except ValueError as error:
        yield Finding("key", "FAILED", str(error), rotate)
        return
    if problem := key_problem(found.api_host, key):
        yield Finding("key", "FAILED", problem, rotate)
    else:
        yield Finding("key", "ok", f"{found.api_host} takes the API key")


def check_mapping(stack: Stack) -> Iterator[Finding]:
    """Is the main queue fed to the submitter, and are failures reported file by file?"""
    arn = queue_attributes(stack.main_url)["QueueArn"]
    answer = client("lambda").list_event_source_mappings(EventSourceArn=arn)
    mappings = [
        each
        for each in answer["EventSourceMappings"]
        if each["FunctionArn"].partition(":function:")[2].partition(":")[0] == stack.function
    ]
    if not mappings:
        text = f"nothing feeds {queue_name(stack.main_url)} to {stack.function}"
        yield Finding("mapping", "FAILED", text, "Run `terraform apply`.")
    for each in mappings:
        if each["State"] not in ("Enabled", "Enabling", "Updating"):
            yield Finding(
                "mapping",
                "FAILED",
                f"{queue_name(stack.main_url)} isn't fed to {stack.function}: {each['State']}",
                f"aws lambda update-event-source-mapping --uuid {each['UUID']} --enabled",
            )
        elif "ReportBatchItemFailures" not in each.get("FunctionResponseTypes", []):
            text = "without ReportBatchItemFailures the files that are to be retried are lost"
            yield Finding("mapping", "FAILED", text, "Run `terraform apply` at once.")
        else:
            yield Finding("mapping", "ok", f"{queue_name(stack.main_url)} feeds {stack.function}")


def check_queues(stack: Stack) -> Iterator[Finding]:
    """What is in the queues, and for how long?"""
    urls = {
        "main": stack.main_url,
        "rejected": stack.rejected_url,
        "dead-letter": stack.dead_letter_url,
    }
    for role, url in urls.items():
        attributes = queue_attributes(url)
        visible = int(attributes["ApproximateNumberOfMessages"])
        flying = int(attributes["ApproximateNumberOfMessagesNotVisible"])
        oldest = oldest_message(queue_name(url))
        text = f"{queue_name(url)}: about {visible:,} waiting, {flying:,} in flight"
        text += f", the oldest for {age(oldest)}" if visible + flying and oldest else ""
        state: Literal["ok", "FAILED"] = "ok"
        fix = ""
        if role == "main" and visible + flying and (oldest or 0) > WAITING_SECONDS:
            state, fix = "FAILED", f'See "files-waiting" in {HANDBOOK}; `ddg_ops.py tail` says why.'
        elif role == "rejected" and visible + flying:
            state, fix = "FAILED", "See what and why: ddg_ops.py rejected list"
        elif role == "dead-letter" and visible + flying:
            state, fix = "FAILED", "See what: ddg_ops.py dead list"
        yield Finding("queues", state, text, fix)


def metric_values(
    namespace: str, name: str, dimensions: Mapping[str, str], statistic: str, minutes: int
) -> list[float]:
    """Return the values of a CloudWatch metric in the last minutes, the newest first."""
    now = datetime.now(UTC)
    metric = {
        "Namespace": namespace,
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
    }
    query = {
        "Id": "values",
        "MetricStat": {"Metric": metric, "Period": 60, "Stat": statistic},
    }
    answer = client("cloudwatch").get_metric_data(
        MetricDataQueries=[query],
        StartTime=now - timedelta(minutes=minutes),
        EndTime=now + timedelta(minutes=1),
        ScanBy="TimestampDescending",
    )
    values: list[float] = answer["MetricDataResults"][0]["Values"]
    return values


def oldest_message(name: str) -> float | None:
    """Return the age of a queue's oldest message in seconds; None where CloudWatch has none yet."""
    dimensions = {"QueueName": name}
    metric = "ApproximateAgeOfOldestMessage"
    return next(iter(metric_values("AWS/SQS", metric, dimensions, "Maximum", 15)), None)


def check_outcomes(stack: Stack) -> Iterator[Finding]:
    """What became of the last hour's files, and why were the last ones retried?"""
    dimensions = {"FunctionName": stack.function}
    values = {
        name: metric_values("DatadogStats", name, dimensions, "Sum", RECENT_MINUTES)
        for name in ("Submitted", "Refused", "Retried")
    }
    text = ", ".join(f"{sum(each):,.0f} {name.lower()}" for name, each in values.items())
    known = any(values.values())  # an idle pipeline has no batches, not batches of nothing
    text = text if known else "CloudWatch knows of no batch"
    yield Finding("outcomes", "ok", f"in the last hour: {text}")
    if sum(values["Retried"]):
        since = time.time() - 60 * RECENT_MINUTES
        reason = ""
        for event in log_events(stack.log_group, since, '"retried"'):
            entry = read_event(event["message"])
            reason = entry.text if isinstance(entry, Line) else reason
        if reason:
            yield Finding("outcomes", "note", f"the last retry: {reason}")


def check_alarms(stack: Stack) -> Iterator[Finding]:
    """Which alarms are on, and does anybody hear them?"""
    names = list(stack.alarm_names)
    alarms: list[dict[str, Any]] = []
    for start in range(0, len(names), 50):  # CloudWatch answers with 50 a page
        answer = client("cloudwatch").describe_alarms(AlarmNames=names[start : start + 50])
        alarms += answer["MetricAlarms"]
    if not alarms:
        yield Finding("alarms", "FAILED", "the stack has none", "Run `terraform apply`.")
        return
    ringing = [alarm for alarm in alarms if alarm["StateValue"] == "ALARM"]
    for alarm in ringing:
        fix = f"{alarm.get('AlarmDescription', '')} See {HANDBOOK}."
        yield Finding("alarms", "FAILED", f"{alarm['AlarmName']} is on", fix)
    if not ringing:
        yield Finding("alarms", "ok", f"none of {len(alarms)} is on")
    if missing := sorted(set(names) - {alarm["AlarmName"] for alarm in alarms}):
        text = f"not there: {', '.join(missing)}"
        yield Finding("alarms", "FAILED", text, "Run `terraform apply`.")
    answer = client("sns").list_subscriptions_by_topic(TopicArn=stack.topic_arn)
    heard = [each for each in answer["Subscriptions"] if each["SubscriptionArn"].startswith("arn:")]
    if not heard:
        fix = "Set alarm_email, and confirm what AWS then mails; or subscribe a pager to the topic."
        yield Finding("alarms", "note", f"nobody hears them: {stack.topic_arn}", fix)


# --- The canary ---


def check_canary(stack: Stack, settings: list[Settings], timeout: float) -> Iterator[Finding]:
    """Put a file and follow it through the log, which names files only when they fail.

    The evidence for `submitted`: after the put a batch reported Submitted with at least the
    canary's points, whose number is random and larger than small files', and no refusal and no
    retry names its key. Sharing a batch with other files it is evidence, alone it is as good as
    proof; in both cases of Datadog's 202, which is all that the pipeline itself ever hears.
    """
    max_age = settings[0].max_age if settings else 0
    points = random.randint(*CANARY_POINTS)
    points = min(points, max_age // 2) or 1 if max_age else points
    now = int(time.time())
    key = f"{stack.prefix}canary/{now}-{secrets.token_hex(4)}.json"
    samples = [{"timestamp": now - second, CANARY_METRIC: 1} for second in range(points)]
    started = time.monotonic()
    response = client("s3").put_object(Bucket=stack.bucket, Key=key, Body=json.dumps(samples))
    put_at = time_at_aws(response)
    where = f"s3://{stack.bucket}/{key}"
    while True:
        for event in log_events(stack.log_group, put_at):
            if finding := read_canary(event["message"], where, points):
                took = f"{time.monotonic() - started:.1f} s after the put, as the log showed it"
                yield finding._replace(text=f"{finding.text}; {took}")
                return
        if time.monotonic() - started > timeout:
            break
        time.sleep(POLL_SECONDS)
    waiting = queue_attributes(stack.main_url)
    visible = int(waiting["ApproximateNumberOfMessages"])
    flying = int(waiting["ApproximateNumberOfMessagesNotVisible"])
    text = f"{where} is neither submitted nor refused after {timeout:.0f} s"
    if visible + flying:
        text += f"; {visible + flying:,} messages are in {queue_name(stack.main_url)}"
        fix = "They aren't taken, or there are many before it: see `mapping` above, and tail."
    else:
        text += f"; {queue_name(stack.main_url)} is empty"
        fix = (
            "Did the bucket notify the queue (see `notification` above)? If the log of "
            f"{stack.function} shows a batch, its line has just not come yet: look with tail."
        )
    yield Finding("canary", "FAILED", text, fix)


def read_canary(message: str, where: str, points: int) -> Finding | None:
    """Return what a line of the log says of the canary; None if nothing."""
    entry = read_event(message)
    if isinstance(entry, Line) and where in entry.text:
        if entry.text.startswith("refused "):
            reason = entry.text.removeprefix(f"refused {where}: ")
            fix = "Compare MAX_AGE_SECONDS and this machine's clock; then ddg_ops.py rejected list"
            return Finding("canary", "FAILED", f"{where} was refused ({reason})", fix)
        reason = entry.text.partition(": ")[2].partition(": s3://")[0]
        fix = f'It comes again by itself once that is mended. See "files-retried" in {HANDBOOK}.'
        return Finding("canary", "FAILED", f"{where} is retried ({reason})", fix)
    if isinstance(entry, dict) and entry["Submitted"] and entry["Points"] >= points:
        others = entry["Submitted"] - 1
        text = f"{where} was submitted: a batch of its own with {points} points"
        if others or entry["Points"] > points:
            text = (
                f"{where} was submitted: a batch with {others:,} other files has enough points, "
                "and the log names it neither refused nor retried"
            )
        return Finding("canary", "ok", text)
    return None


# --- The log ---


class Line(NamedTuple):
    """A line of the log that a person wants to see."""

    level: str  # WARNING, ERROR, ...
    text: str


def log_events(group: str, since: float, pattern: str = "") -> Iterator[dict[str, Any]]:
    """Yield a log group's events from a moment on (epoch seconds)."""
    pages = client("logs").get_paginator("filter_log_events")
    for page in pages.paginate(
        logGroupName=group, startTime=int(1000 * since), filterPattern=pattern
    ):
        yield from page["events"]


def read_event(message: str) -> dict[str, Any] | Line | None:
    """Return a batch's summary, a line to show, or None for what only Lambda cares for."""
    try:
        entry = json.loads(message)
    except ValueError:
        return read_plain(message)
    if not isinstance(entry, dict):
        return None
    if "_aws" in entry and {"Submitted", "Refused", "Retried", "Points"} <= entry.keys():
        return entry
    if "message" in entry:
        text = str(entry["message"])
        if trace := entry.get("stackTrace"):
            text += f" {trace}"
        return Line(str(entry.get("level", "INFO")), text)
    if entry.get("type") == "platform.report":  # an invocation's end
        status = entry["record"].get("status", "success")
        if status != "success":
            return Line("ERROR", f"the function ended with {status}")
    return None


def read_plain(message: str) -> Line | None:
    """Return a line that isn't JSON: the text format's, `[LEVEL] time request text`."""
    message = message.strip()
    if (
        message.startswith(("START ", "END ", "REPORT ", "INIT_START ", "EXTENSION "))
        or not message
    ):
        return None
    if message.startswith("["):
        level, _, text = message[1:].partition("]")
        return Line(level, text.split("\t")[-1])
    if message.startswith(("refused ", "retried ")):
        return Line("WARNING", message)
    return Line("ERROR" if "Task timed out" in message else "INFO", message)


def tail(stack: Stack, options: Namespace, screen: Screen) -> int:
    """Print the batches' summaries and the refusals and retries, as they come."""
    since = options.since[0]
    printed: dict[tuple[str, str, int], None] = {}  # ids, to print what is read twice once
    while True:
        for event in log_events(stack.log_group, since):
            identity = (event["logStreamName"], event["eventId"], event["timestamp"])
            if identity in printed:
                continue
            printed[identity] = None
            entry = read_event(event["message"])
            if entry is not None:
                print_entry(event["timestamp"] / 1000, entry, screen)
            since = max(since, event["timestamp"] / 1000 - LATE_SECONDS)
        if not options.follow:
            return FINE
        printed = {each: None for each in printed if each[2] >= 1000 * (since - 1)}
        time.sleep(2 * POLL_SECONDS)


def print_entry(at: float, entry: dict[str, Any] | Line, screen: Screen) -> None:
    """Print an entry of the log in one line."""
    when = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
    if isinstance(entry, Line):
        style = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}
        kind = "red" if entry.text.startswith("refused ") else style.get(entry.level, "")
        screen.say(f"{when}  {entry.text}", kind)
        screen.result({"at": at, "level": entry.level, "text": entry.text})
        return
    numbers = {name: entry.get(name, 0) for name in SUMMARY}
    screen.say(
        "{when}  {Submitted:>5} submitted {Refused:>4} refused {Retried:>4} retried "
        "{Points:>6} points {Requests:>3} requests {WireBytes:>7} B  fetch {FetchMilliseconds} ms"
        "  post {PostMilliseconds} ms".format(when=when, **numbers),
        "green" if not numbers["Refused"] + numbers["Retried"] else "",
    )
    screen.result({"at": at} | numbers)
