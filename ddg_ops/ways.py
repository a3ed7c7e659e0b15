"""How the main queue is told of the files in a bucket: by the bucket, a topic or EventBridge."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError

from ddg_ops.aws import APPLY, BY_HAND, explain, is_missing
from ddg_ops.screen import Finding
from ddg_ops.stack import Stack

STEPS = """Type what `terraform output -json bucket_steps | jq -r '."{}".notify'` prints."""
OVERWRITTEN = (
    f"{APPLY} Does something else write the bucket's notifications? A bucket has one "
    "configuration, and the last one to write it wins. Then backfill what was missed."
)
NO_BUCKET = "Is it in the stack's account and region, and its name right in `buckets`?"


class Ways(NamedTuple):
    """What may tell the main queue of new files, besides the buckets themselves."""

    queue_arn: str
    policy: str = ""  # of the queue: whom it admits
    rules: Sequence[Mapping[str, Any]] = ()  # EventBridge's, with the queue as their target
    topics: frozenset[str] = frozenset()  # that the queue is subscribed to


def check_buckets(stack: Stack, others: Mapping[str, str]) -> Iterator[Finding]:
    """Is the main queue told of every new file? A finding for each bucket.

    others: bucket -> prefix, besides the stack's own.
    """
    queue = stack.queue(stack.main_url)
    ways = Ways(queue["QueueArn"])
    if stack.bucket:
        yield check_bucket(stack, stack.bucket, stack.prefix, ways)
    if others:
        ways = find_ways(stack, queue)
    for bucket, prefix in others.items():
        yield check_bucket(stack, bucket, prefix, ways)


def find_ways(stack: Stack, queue: Mapping[str, str]) -> Ways:
    """Return the rules and topics that lead to a queue."""
    arn, events = queue["QueueArn"], stack.aws.client("events")
    pages = events.get_paginator("list_rule_names_by_target").paginate(TargetArn=arn)
    rules = [events.describe_rule(Name=name) for page in pages for name in page["RuleNames"]]
    found = stack.aws.client("sns").get_paginator("list_subscriptions").paginate()
    topics = [
        each["TopicArn"]
        for page in found
        for each in page["Subscriptions"]
        if each["Endpoint"] == arn and each["SubscriptionArn"].startswith("arn:")
    ]
    return Ways(arn, queue.get("Policy", ""), rules, frozenset(topics))


def check_bucket(stack: Stack, bucket: str, prefix: str, ways: Ways) -> Finding:
    """Ask a bucket whom it tells, and judge that."""
    configuration, problem = None, ""
    try:
        s3 = stack.aws.client("s3")
        configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
    except ClientError as error:
        problem = f": {explain(error).partition('. ')[0]}"
        if is_missing(error):
            fix = APPLY if bucket == stack.bucket else NO_BUCKET
            return Finding("FAILED", f"s3://{bucket}{problem}", fix)
    finding = judge_bucket(bucket, prefix, configuration, ways)
    if finding.state == "unknown":
        fix = f"Ask its owner, or follow a file: ddg-ops check --canary --bucket {bucket}"
        return finding._replace(text=f"{finding.text}{problem}", fix=fix)
    if finding.state == "FAILED" and bucket == stack.bucket:
        return finding._replace(fix=OVERWRITTEN)
    return finding


def judge_bucket(
    bucket: str, prefix: str, configuration: Mapping[str, Any] | None, ways: Ways
) -> Finding:
    """Say whether the queue is told of a bucket's files; None: its configuration can't be read."""
    where, queue = f"s3://{bucket}/{prefix}", ways.queue_arn.rpartition(":")[2]
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
            return Finding("FAILED", text, BY_HAND)
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
