"""check: is the pipeline healthy, end to end? Every part is asked, and its answer judged.

Broken, unknown and fine are three things: what can't be seen from here isn't broken for that.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError

from ddg_ops.aws import APPLY, BY_HAND, explain, is_missing
from ddg_ops.canary import follow_canary
from ddg_ops.datadog import judge_datadog
from ddg_ops.log import Line, log_events, read_event
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

DATADOG_SECONDS = 10.0  # Datadog answers in a tenth of a second
SECRET_SECONDS = 10.0
RECENT_MINUTES = 60
WAITING_SECONDS = 600  # what waits longer than two visibility timeouts isn't on its way
STYLES = {"ok": "green", "FAILED": "bold red", "unknown": "yellow", "note": "yellow"}
QUEUE_FIXES = {
    "main": f'See "files-waiting" in {HANDBOOK}; ddg-ops tail --since 30m says why.',
    "rejected": "See what and why: ddg-ops rejected list",
    "dead": "See what: ddg-ops dead list",
}
SUBSCRIBE = "Set alarm_email, and confirm what AWS then mails; or subscribe a pager to the topic."
RESUME = "ddg-ops resume --yes"
NO_KEY = "Put the key there, or name another secret in ddg_api_key_secret_arn, and apply."
EXAMPLES = ["", "--canary", "--canary --bucket acme-data", "--stack ddg-stats --json"]
Findings = Iterator[Finding]


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
    for part, finding in Checkup(stack).look(timeout if canary else None, buckets):
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


def ask(part: str, findings: Findings) -> Iterator[tuple[str, Finding]]:
    """Yield what there is to say of a part; that it can't be asked is a finding too."""
    try:
        yield from ((part, finding) for finding in findings)
    except Stop as stop:
        yield part, Finding("unknown", str(stop), "See `function`.")
    except (ClientError, BotoCoreError) as error:
        problem, _, fix = explain(error).partition(". ")
        gone = is_missing(error)  # and so broken; what can't be seen from here may be fine
        yield part, Finding("FAILED" if gone else "unknown", problem, APPLY if gone else fix)


def check_settings_file() -> Findings:
    """Does the settings file of this folder say what Terraform knows?"""
    file = Path(SETTINGS_FILE)
    if file.is_file():
        try:
            read_settings_file(file)
        except ValueError as error:
            yield Finding("FAILED", str(error), f"Correct it. {APPLY}")


class Checkup:
    """A look at all parts of a stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.settings: Settings | None = None  # of the submitter, once they have been read

    def look(self, timeout: float | None, named: Sequence[str]) -> Iterator[tuple[str, Finding]]:
        """Yield what there is to say of each part; timeout and names of buckets: the canary's."""
        stack = self.stack
        who = stack.aws.client("sts").get_caller_identity()  # else all would say the same
        identity = f"{who['Arn']}, in {stack.aws.region}"
        if stack.account not in ("", who["Account"]):
            # All that the account lacks would be called gone.
            text = f"{identity}; the stack is in {stack.account}"
            yield "identity", Finding("FAILED", text, "Choose its profile: --profile NAME.")
            return
        yield "identity", Finding("ok", identity)
        yield from ask("function", self.function())
        others = read_buckets(self.settings.buckets) if self.settings else {}
        followed = named or [stack.bucket] if timeout else []
        if self.settings:
            followed = [stack.choose_bucket(self.settings, bucket) for bucket in followed]
        yield from ask("settings", check_settings_file())
        yield from ask("notification", check_buckets(stack, others))
        yield from ask("key", self.key())
        yield from ask("mapping", self.mapping())
        yield from ask("queues", self.queue("main", stack.main_url))
        yield from ask("queues", self.queue("rejected", stack.rejected_url))
        yield from ask("queues", self.queue("dead", stack.dead_letter_url))
        yield from ask("outcomes", self.outcomes(follows=bool(timeout)))
        yield from ask("alarms", self.alarms())
        if not stack.generator:
            text = "neither generator nor heartbeat is on: that no file gets in, only alarms of "
            text += f"silent jobs tell ({count(len(stack.watched), 'job')} watched)"
            yield "heartbeat", Finding("note", text)
        for bucket in followed:
            yield from ask("canary", follow_canary(stack, self.settings, bucket, timeout or 0))
        if unread := [bucket for bucket in others if bucket not in followed]:
            # AWS tells nobody but the role.
            text = (
                f"whether the role may read and decrypt, a canary alone sees: {', '.join(unread)}"
            )
            options = " ".join(f"--bucket {bucket}" for bucket in unread)
            yield "access", Finding("unknown", text, f"ddg-ops check --canary {options}")

    def function(self) -> Findings:
        """Is the submitter's environment whole, and the stack's own?"""
        name, stack = self.stack.function, self.stack
        try:
            found = self.settings = read_settings(stack.environment())
        except ValueError as error:
            yield Finding("FAILED", f"{name}: {error}", BY_HAND)
            return
        if queue_path(found.rejected_queue_url) != queue_path(stack.rejected_url):
            text = f"{name} sends refused files to {found.rejected_queue_url}"
            yield Finding("FAILED", text, BY_HAND)
        elif stack.bucket and found.stats_prefix != stack.prefix:
            text = f"{name} takes jobs from below {found.stats_prefix}, not {stack.prefix}"
            yield Finding("FAILED", text, BY_HAND)
        else:
            yield Finding("ok", f"{name} has its environment")

    def key(self) -> Findings:
        """Does the site take the key that the submitter has?"""
        if not self.settings:
            raise Stop("its place is unknown")
        clients = self.stack.aws.submitter(self.settings)
        try:
            key = clients.key.value or clients.key.read(SECRET_SECONDS)
        except ValueError as error:
            cause = error.__context__  # AWS's own error, where it is one
            if isinstance(cause, ClientError | BotoCoreError) and not is_missing(cause):
                raise cause from None
            yield Finding("FAILED", f"{error}", NO_KEY)
        else:
            answer = clients.datadog.validate(key, DATADOG_SECONDS).wait(DATADOG_SECONDS)
            yield judge_datadog(self.settings.api_host, answer)

    def mapping(self) -> Findings:
        """Is the main queue fed to the submitter, and are failures reported file by file?"""
        queue, function = queue_name(self.stack.main_url), self.stack.function
        mappings = self.stack.mappings(self.stack.queue(self.stack.main_url)["QueueArn"])
        self.stack.environment()  # a mapping outlives its function, and is still called enabled
        if not mappings:
            yield Finding("FAILED", f"nothing feeds {queue} to {function}", APPLY)
        for each in mappings:
            if each["State"] not in ("Enabled", "Enabling", "Updating"):
                text = f"paused: {queue} isn't fed to {function} ({each['State']})"
                yield Finding("FAILED", text, RESUME)
            elif "ReportBatchItemFailures" not in each.get("FunctionResponseTypes", []):
                text = "without ReportBatchItemFailures the files that are to be retried are lost"
                yield Finding("FAILED", text, f"{APPLY} Do it at once.")
            else:
                yield Finding("ok", f"{queue} feeds {function}")

    def queue(self, role: str, url: str) -> Findings:
        """What is in a queue, for how long, and what does that mean in this one?"""
        name, queue = queue_name(url), self.stack.queue(url)
        visible = int(queue["ApproximateNumberOfMessages"])
        flying = int(queue["ApproximateNumberOfMessagesNotVisible"])
        metric = "AWS/SQS QueueName ApproximateAgeOfOldestMessage"
        ages = self.points(metric, name, 15, Statistics=["Maximum"])
        oldest = ages[0]["Maximum"] if ages else 0.0
        text = f"{name}: about {visible:,} waiting, {flying:,} in flight"
        text += f", the oldest for {age(oldest)}" if visible + flying and oldest else ""
        if visible + flying and (role != "main" or oldest > WAITING_SECONDS):
            yield Finding("FAILED", text, QUEUE_FIXES[role])
        else:
            yield Finding("ok", text)

    def points(self, metric: str, value: str, minutes: float, **statistics: Any) -> list[Any]:
        """Return the points of a metric (namespace, dimension, name), the newest first."""
        namespace, dimension, name = metric.split()
        now = datetime.now(UTC)
        points: list[Any] = self.stack.aws.client("cloudwatch").get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": dimension, "Value": value}],
            StartTime=now - timedelta(minutes=minutes),
            EndTime=now + timedelta(minutes=1),
            **{"Period": 300} | statistics,
        )["Datapoints"]
        return sorted(points, key=lambda point: point["Timestamp"], reverse=True)

    def outcomes(self, *, follows: bool) -> Findings:
        """What became of the last hour's files, how fast, and why were the last ones retried?"""
        stack = self.stack
        minutes, made = self.generator() if stack.generator else (RECENT_MINUTES, 0.0)

        def points(name: str, minutes: float, **statistics: Any) -> list[Any]:
            metric = f"DatadogStats FunctionName {name}"
            return self.points(metric, stack.function, minutes, **statistics)

        values = {
            name: [point["Sum"] for point in points(name, minutes, Statistics=["Sum"])]
            for name in ("Submitted", "Refused", "Retried")
        }
        if any(values.values()):  # an idle pipeline has no batches, not batches of nothing
            text = ", ".join(f"{sum(each):,.0f} {name.lower()}" for name, each in values.items())
            yield Finding("ok", f"in the last {minutes:.0f} minutes: {text}")
        else:
            yield self.silence(minutes, made, follows=follows)
        percentile = {"Period": 60 * RECENT_MINUTES, "ExtendedStatistics": ["p95"]}
        delays = points("DelayMilliseconds", RECENT_MINUTES, **percentile)
        if known := [each["ExtendedStatistics"]["p95"] for each in delays if len(each) > 1]:
            text = f"of the last hour's files 95% were in Datadog {max(known) / 1000:,.1f} s"
            yield Finding("ok", f"{text} after S3's event, or sooner")
        if sum(values["Retried"]):
            since = time.time() - 60 * RECENT_MINUTES
            entries = [
                read_event(each["message"]) for each in log_events(stack, since, '"retried"')
            ]
            for line in [entry for entry in entries if isinstance(entry, Line)][-1:]:
                yield Finding("note", f"the last retry: {line.text}")

    def silence(self, minutes: float, made: float, *, follows: bool) -> Finding:
        """Say what it means that CloudWatch knows of no batch for so many minutes."""
        text, generator = f"no batch in the last {minutes:.0f} minutes", self.stack.generator
        if not generator:
            return Finding("ok", f"{text}; no generator is on, so there may have been no file")
        rule = self.stack.aws.client("events").describe_rule(Name=self.stack.schedule)
        if rule["State"] == "DISABLED":
            return Finding("note", f"{text}; {self.stack.schedule} is paused", RESUME)
        if time.time() - made < 60 * minutes:
            text += f"; {generator} was made or changed only {age(time.time() - made)} ago"
            wait = "Check again in some minutes, or follow a file: ddg-ops check --canary"
            return Finding("note" if follows else "unknown", text, wait)  # the canary tells
        fix = f'See "nothing-submitted" in {HANDBOOK}.'
        return Finding("FAILED", f"{text}, though {generator} is on", fix)

    def generator(self) -> tuple[float, float]:
        """Return in how many minutes its file must have come, and since when it is so (epoch)."""
        functions = self.stack.aws.client("lambda")
        found = functions.get_function_configuration(FunctionName=self.stack.generator)
        made = datetime.fromisoformat(found["LastModified"][:19]).replace(tzinfo=UTC)
        names = [name for name in self.stack.alarm_names if name.endswith("-nothing-submitted")]
        alarms = self.those(names)
        spans = [each.get("Period", 300) * each["EvaluationPeriods"] / 60 for each in alarms]
        return max([RECENT_MINUTES, *spans]), made.timestamp()

    def those(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return those of the alarms that are there."""
        found = find_alarms(self.stack.aws, self.stack.function.removesuffix("metric-submit"))
        return [alarm for alarm in found if alarm["AlarmName"] in names]

    def alarms(self) -> Findings:
        """Which alarms are on or gone, and does anybody hear them?"""
        alarms = self.those(self.stack.alarm_names)
        missing = sorted(set(self.stack.alarm_names) - {alarm["AlarmName"] for alarm in alarms})
        ringing = [alarm for alarm in alarms if alarm["StateValue"] == "ALARM"]
        for alarm in ringing:
            first = f"{alarm.get('AlarmDescription', '')} See {HANDBOOK}."
            yield Finding("FAILED", f"{alarm['AlarmName']} is on", first)
        if missing or not alarms:
            yield Finding("FAILED", f"not there: {', '.join(missing) or 'all of them'}", APPLY)
        elif not ringing:
            yield Finding("ok", f"none of {len(alarms)} is on")
        topic = self.stack.topic_arn
        answer = self.stack.aws.client("sns").list_subscriptions_by_topic(TopicArn=topic)
        if not any(each["SubscriptionArn"].startswith("arn:") for each in answer["Subscriptions"]):
            yield Finding("note", f"nobody hears them: {topic}", SUBSCRIBE)
