"""What the parts of the pipeline look like from outside, judged: pure, no part is asked here.

Broken, unknown and fine are three things: what can't be seen from here isn't broken for that.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote_plus

from ddg_ops.aws import APPLY
from ddg_ops.log import Line, read_event
from ddg_ops.screen import age, count
from ddg_series_api import Answer, judge_key

HANDBOOK = "docs/operations.md"
WAITING_SECONDS = 600  # what waits longer than two visibility timeouts isn't on its way
QUEUE_FIXES = {
    "main": f'See "files-waiting" in {HANDBOOK}; ddg-ops tail --since 30m says why.',
    "rejected": "See what and why: ddg-ops rejected list",
    "dead": "See what: ddg-ops dead list",
}
WRONG_KEY = (
    "Compare ddg_site with the address bar when you are logged in. Where they are the same: "
    f'"Rotate the key" in {HANDBOOK}.'
)
UNREACHED = (
    "Look at this machine's network and proxy, and compare the address with your site's. Whether "
    "the function reaches it, its log says: ddg-ops tail"
)
CLOCKS = "Compare MAX_AGE_SECONDS and this machine's clock; then ddg-ops rejected list"
STEPS = """Type what `terraform output -json bucket_steps | jq -r '."{}".notify'` prints."""
NOT_OURS = f"Is the file's prefix the one in BUCKETS of the function? {APPLY}"
BY_ITSELF = f'It comes again by itself once that is mended. See "files-retried" in {HANDBOOK}.'


class Finding(NamedTuple):
    """What was found of one part."""

    state: Literal["ok", "FAILED", "unknown", "note"]
    text: str
    fix: str = ""  # what to do, where it isn't ok


class Ways(NamedTuple):
    """What may tell the main queue of new files, besides the buckets themselves."""

    queue_arn: str
    policy: str  # of the queue: whom it admits
    rules: Sequence[Mapping[str, Any]]  # EventBridge's, with the queue as their target
    topics: frozenset[str]  # that the queue is subscribed to

    @property
    def queue(self) -> str:
        return self.queue_arn.rpartition(":")[2]


def told(configuration: Mapping[str, Any], kind: str, prefix: str) -> list[str]:
    """Return which ARNs of a kind (Queue, Topic) a bucket tells of every new file below a prefix.

    S3 wants special characters of a filter encoded as in a form.
    """
    arns: list[str] = []
    for each in configuration.get(f"{kind}Configurations", []):
        rules = each.get("Filter", {}).get("Key", {}).get("FilterRules", [])
        filters = {rule["Name"].lower(): rule["Value"] for rule in rules}
        begins = filters.get("prefix", "")
        whole = "s3:ObjectCreated:*" in each["Events"] and not filters.get("suffix")
        if whole and prefix.startswith((begins, unquote_plus(begins))):
            arns.append(each[f"{kind}Arn"])
    return arns


def takes(rule: Mapping[str, Any], bucket: str, prefix: str) -> bool:
    """Tell whether a rule of EventBridge's is on and matches each new file below a prefix."""
    pattern = json.loads(rule.get("EventPattern") or '{"source": []}')
    detail = pattern.get("detail", {})
    keys = detail.get("object", {}).get("key", [{"prefix": ""}])
    begins = [key["prefix"] for key in keys if isinstance(key, dict) and "prefix" in key]
    return (
        rule["State"] != "DISABLED"
        and "aws.s3" in pattern.get("source", ["aws.s3"])
        and "Object Created" in pattern.get("detail-type", ["Object Created"])
        and bucket in detail.get("bucket", {}).get("name", [bucket])
        and prefix.startswith(tuple(begins))
    )


def judge_bucket(
    bucket: str, prefix: str, configuration: Mapping[str, Any] | None, ways: Ways
) -> Finding:
    """Say whether the queue is told of a bucket's files; None: its configuration can't be read."""
    where, queue = f"s3://{bucket}/{prefix}", ways.queue
    seen = configuration or {}
    topics = told(seen, "Topic", prefix)
    if ways.queue_arn in told(seen, "Queue", prefix):
        return Finding("ok", f"{where} notifies {queue}")
    for topic in ways.topics.intersection(topics):
        return Finding("ok", f"{where} notifies {queue}, by the topic {topic}")
    for rule in (rule["Name"] for rule in ways.rules if takes(rule, bucket, prefix)):
        if "EventBridgeConfiguration" in seen:
            return Finding("ok", f"{where} notifies {queue}, by EventBridge's rule {rule}")
        if configuration is None:
            text = f"whether EventBridge is on for s3://{bucket} can't be seen; the rule matches"
            return Finding("unknown", text)
        text = f"EventBridge isn't on for s3://{bucket}, whose events the rule {rule} is for"
        return Finding("FAILED", text, STEPS.format(bucket))
    for rule in ways.rules:
        if f'"{bucket}"' in rule.get("EventPattern", ""):
            text = f"EventBridge's rule {rule['Name']} ({rule['State']}) doesn't take {where}"
            return Finding("FAILED", text, f"{APPLY} Somebody may have changed it by hand.")
    for topic in [topic for topic in topics if f'"{topic}"' in ways.policy]:
        text = f"{queue} isn't subscribed to {topic}, which is told of {where}"
        if topic.split(":")[4] == ways.queue_arn.split(":")[4]:
            return Finding("FAILED", text, APPLY)
        return Finding("unknown", f"{text}; its owner may see a subscription")
    if configuration is None:
        return Finding("unknown", f"what s3://{bucket} notifies can't be seen")
    if "EventBridgeConfiguration" in seen and ways.topics:
        text = f"{where} notifies no topic of {queue}'s itself; a rule of EventBridge's may"
        return Finding("unknown", text)
    text = f"{where} doesn't notify {queue} of all new files, by any way"
    return Finding("FAILED", text, f"{APPLY} {STEPS.format(bucket)}")


def judge_datadog(host: str, answer: Answer) -> Finding:
    """Say what Datadog's answer about a key means: it is right, it is wrong, or who knows."""
    match judge_key(answer):
        case True:
            return Finding("ok", f"{host} takes the API key")
        case False:
            text = f"{host} doesn't take the API key ({answer.status_code})"
            return Finding(
                "FAILED", f"{text}: it is wrong or revoked, or of another site", WRONG_KEY
            )
    if answer.status_code:
        text = f"{host} answered {answer.status_code}, not whether the key is valid"
        return Finding("unknown", text, "See status.datadoghq.com, and check again later.")
    return Finding("unknown", f"{host} can't be reached from here ({answer.text})", UNREACHED)


def judge_mapping(mapping: Mapping[str, Any], queue: str, function: str) -> Finding:
    """Say whether a mapping is on, and reports failures file by file."""
    if mapping["State"] not in ("Enabled", "Enabling", "Updating"):
        enable = f"aws lambda update-event-source-mapping --uuid {mapping['UUID']} --enabled"
        return Finding("FAILED", f"{queue} isn't fed to {function}: {mapping['State']}", enable)
    if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", []):
        text = "without ReportBatchItemFailures the files that are to be retried are lost"
        return Finding("FAILED", text, f"{APPLY} Do it at once.")
    return Finding("ok", f"{queue} feeds {function}")


def judge_queue(role: str, name: str, queue: Mapping[str, str], oldest: float | None) -> Finding:
    """Say what is in a queue, and what that means in this one; oldest: its age in seconds."""
    visible = int(queue["ApproximateNumberOfMessages"])
    flying = int(queue["ApproximateNumberOfMessagesNotVisible"])
    text = f"{name}: about {visible:,} waiting, {flying:,} in flight"
    text += f", the oldest for {age(oldest)}" if visible + flying and oldest else ""
    if visible + flying and (role != "main" or (oldest or 0) > WAITING_SECONDS):
        return Finding("FAILED", text, QUEUE_FIXES[role])
    return Finding("ok", text)


def judge_silence(minutes: float, generator: str, generator_age: float) -> Finding:
    """Say what it means that CloudWatch knows of no batch for so many minutes."""
    text = f"no batch in the last {minutes:.0f} minutes"
    if not generator:
        return Finding("ok", f"{text}; no generator is on, so there may have been no file")
    if generator_age < 60 * minutes:
        text += f"; {generator} was made or changed only {age(generator_age)} ago"
        wait = "Check again in some minutes, or follow a file: ddg-ops check --canary"
        return Finding("unknown", text, wait)
    fix = f'See "nothing-submitted" in {HANDBOOK}.'
    return Finding("FAILED", f"{text}, though {generator} is on", fix)


def judge_alarms(names: Sequence[str], alarms: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Say which alarms are on, and which are gone."""
    missing = sorted(set(names) - {alarm["AlarmName"] for alarm in alarms})
    ringing = [alarm for alarm in alarms if alarm["StateValue"] == "ALARM"]
    for alarm in ringing:
        first = f"{alarm.get('AlarmDescription', '')} See {HANDBOOK}."
        yield Finding("FAILED", f"{alarm['AlarmName']} is on", first)
    if missing or not alarms:
        yield Finding("FAILED", f"not there: {', '.join(missing) or 'the stack has none'}", APPLY)
    elif not ringing:
        yield Finding("ok", f"none of {len(alarms)} is on")


def judge_canary(message: str, where: str, points: int) -> Finding | None:
    """Return what a line of the log says of the canary; None if nothing.

    The log names files only when they fail. So the evidence for `submitted` is that after the put
    a batch reported Submitted with at least the canary's points, whose number is random and larger
    than small files', and no line names its key. Alone in its batch that is as good as proof; in
    any case it is of Datadog's 202, which is all that the pipeline itself ever hears.
    """
    entry = read_event(message)
    if isinstance(entry, Line) and where in entry.text:
        if entry.text.startswith("refused "):
            reason = entry.text.removeprefix(f"refused {where}: ")
            return Finding("FAILED", f"{where} was refused ({reason})", CLOCKS)
        reason = entry.text.partition(": ")[2].partition(": s3://")[0]
        if entry.text.startswith("ignored "):
            return Finding("FAILED", f"{where} was ignored ({reason})", NOT_OURS)
        return Finding("FAILED", f"{where} is retried ({reason})", BY_ITSELF)
    if isinstance(entry, dict) and entry["Submitted"] and entry["Points"] >= points:
        text = f"{where} was submitted: a batch of its own with {points} points"
        if entry["Submitted"] > 1 or entry["Points"] > points:
            others = count(entry["Submitted"] - 1, "other file")
            text = f"{where} was submitted: a batch with {others} has enough points, and the log "
            text += "names it neither refused nor retried"
        return Finding("ok", text)
    return None
