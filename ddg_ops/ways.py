"""How a bucket's new files reach the main queue: by its notification, a topic or EventBridge."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError

from ddg_ops.aws import APPLY, explain, is_missing
from ddg_ops.screen import Finding
from ddg_ops.stack import Stack

STEPS = """{} Then type what `terraform output -json bucket_steps | jq -r '."{}".notify'` prints."""
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
    """Check whether a bucket notifies the queue of all new files below a prefix."""
    configuration, problem, is_own = {}, "", bucket == stack.bucket
    try:
        s3 = stack.aws.client("s3")
        configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
    except ClientError as error:
        problem = explain(error).partition(". ")[0]
        if is_missing(error):
            return Finding("FAILED", f"s3://{bucket}: {problem}", APPLY if is_own else NO_BUCKET)
    *_, account, queue = ways.queue_arn.split(":")
    where, targets = f"s3://{bucket}/{prefix}", notified(configuration, prefix)
    is_on = "EventBridgeConfiguration" in configuration
    rules = [rule["Name"] for rule in ways.rules if matches(rule, bucket, prefix)]
    found = ["directly"] if ways.queue_arn in targets else []
    found += [f"by the topic {topic}" for topic in ways.topics & targets]
    found += [f"by EventBridge's rule {rule}" for rule in rules if is_on]
    if found:
        return Finding("ok", f"{where} notifies {queue} {found[0]}")
    topics = [arn for arn in targets if f'"{arn}"' in ways.policy and f":{account}:" not in arn]
    doubt = (
        problem
        or (topics and f"its topic {topics[0]} belongs to another account")
        or (is_on and ways.topics and "EventBridge is on, and a rule may send to a topic")
    )
    if doubt:
        text = f"it isn't known whether {where} notifies {queue}: {doubt}"
        fix = f"Ask its owner, or follow a file: ddg-ops check --canary --bucket {bucket}"
        return Finding("unknown", text, fix)
    text = f"{where} doesn't notify {queue} of all new files"
    if is_own:
        return Finding("FAILED", text, OVERWRITTEN)
    text += f". EventBridge is {'on' if is_on else 'off'}, and its rules that match are: "
    return Finding("FAILED", f"{text}{', '.join(rules) or 'none'}", STEPS.format(APPLY, bucket))


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


def matches(rule: Mapping[str, Any], bucket: str, prefix: str) -> bool:
    """Tell whether a rule of EventBridge is on and matches a bucket's keys below a prefix."""
    detail = json.loads(rule.get("EventPattern") or "{}").get("detail", {})
    keys = detail.get("object", {}).get("key", [{"prefix": ""}])
    begins = tuple(key["prefix"] for key in keys if isinstance(key, dict) and "prefix" in key)
    return (
        rule["State"] != "DISABLED"
        and bucket in detail.get("bucket", {}).get("name", [])
        and prefix.startswith(begins)
    )
