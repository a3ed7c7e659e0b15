"""How a bucket's new files reach the main queue: by its notification, a topic or EventBridge."""

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
    "configuration, and the last writer wins. Then backfill what was missed."
)
NO_BUCKET = "Is it in the stack's account and region, and is its name in `buckets` right?"


class Ways(NamedTuple):
    """What leads to the main queue, apart from the buckets' own notifications."""

    queue_arn: str
    policy: str = ""  # of the queue
    rules: Sequence[Mapping[str, Any]] = ()  # of EventBridge, with the queue as their target
    topics: frozenset[str] = frozenset()  # that the queue is subscribed to


def check_buckets(stack: Stack, others: Mapping[str, str]) -> Iterator[Finding]:
    """Check for each bucket whether the main queue is notified of its new files.

    others: bucket -> prefix, without the stack's own.
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
        if each["Endpoint"] == arn and each["SubscriptionArn"].startswith("arn:")  # confirmed
    ]
    return Ways(arn, queue.get("Policy", ""), rules, frozenset(topics))


def check_bucket(stack: Stack, bucket: str, prefix: str, ways: Ways) -> Finding:
    """Read a bucket's notification configuration and judge it."""
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
    """Judge whether a bucket notifies the queue; configuration: None if it can't be read."""
    *_, account, queue = ways.queue_arn.split(":")
    where, seen = f"s3://{bucket}/{prefix}", configuration or {}
    targets = notified(seen, prefix)
    if ways.queue_arn in targets:
        return Finding("ok", f"{where} notifies {queue}")
    for topic in ways.topics & targets:
        return Finding("ok", f"{where} notifies {queue}, by the topic {topic}")
    for rule in [each for each in ways.rules if f'"{bucket}"' in each.get("EventPattern", "")]:
        name = f"EventBridge's rule {rule['Name']}"
        if not matches(rule, prefix):
            text = f"{name} ({rule['State']}) doesn't match {where}"
            return Finding("FAILED", text, BY_HAND)
        if "EventBridgeConfiguration" in seen:
            return Finding("ok", f"{where} notifies {queue}, by {name}")
        if configuration is None:
            return Finding("unknown", f"{name} matches, but is EventBridge on for s3://{bucket}?")
        return Finding("FAILED", f"EventBridge isn't on for s3://{bucket}", STEPS.format(bucket))
    for topic in [topic for topic in targets if f'"{topic}"' in ways.policy]:
        text = f"{where} notifies the topic {topic}, and {queue} isn't subscribed to it"
        if topic.split(":")[4] == account:
            return Finding("FAILED", text, APPLY)
        return Finding("unknown", f"{text}, as far as this account can see")
    if configuration is None:
        return Finding("unknown", f"the notifications of s3://{bucket} can't be read")
    if "EventBridgeConfiguration" in seen and ways.topics:
        text = f"EventBridge is on for {where}, and a rule may send its events to a topic"
        return Finding("unknown", text)
    text = f"{where} doesn't notify {queue} of all new files"
    return Finding("FAILED", text, f"{APPLY} {STEPS.format(bucket)}")


def notified(configuration: Mapping[str, Any], prefix: str) -> frozenset[str]:
    """Return the ARNs of queues and topics that a bucket notifies of all new files below a prefix.

    S3 wants special characters in a filter form-encoded.
    """
    arns = set()
    for kind in ("Queue", "Topic"):
        for each in configuration.get(f"{kind}Configurations", []):
            rules = each.get("Filter", {}).get("Key", {}).get("FilterRules", [])
            filters = {rule["Name"].lower(): rule["Value"] for rule in rules}
            begins = filters.get("prefix", "")
            whole = "s3:ObjectCreated:*" in each["Events"] and not filters.get("suffix")
            if whole and prefix.startswith((begins, unquote_plus(begins))):
                arns.add(each[f"{kind}Arn"])
    return frozenset(arns)


def matches(rule: Mapping[str, Any], prefix: str) -> bool:
    """Tell whether a rule of EventBridge is on and matches all keys below a prefix."""
    detail = json.loads(rule["EventPattern"]).get("detail", {})
    keys = detail.get("object", {}).get("key", [{"prefix": ""}])
    begins = tuple(key["prefix"] for key in keys if isinstance(key, dict) and "prefix" in key)
    return rule["State"] != "DISABLED" and prefix.startswith(begins)
