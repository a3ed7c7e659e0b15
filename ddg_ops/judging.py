"""What the parts of the pipeline look like from outside, judged: pure, no part is asked here.

Broken, unknown and fine are three things: what can't be seen from here isn't broken for that.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ddg_ops.screen import age
from ddg_ops.stack import APPLY
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


class Finding(NamedTuple):
    """What one part of the check found."""

    part: str
    state: Literal["ok", "FAILED", "unknown", "note"]
    text: str
    fix: str = ""  # what to do, where it isn't ok


def fine(part: str, text: str) -> Finding:
    """Return that a part is well."""
    return Finding(part, "ok", text)


def failed(part: str, text: str, fix: str) -> Finding:
    """Return that a part is broken."""
    return Finding(part, "FAILED", text, fix)


def unknown(part: str, text: str, fix: str = "") -> Finding:
    """Return that it couldn't be told whether a part is well."""
    return Finding(part, "unknown", text, fix)


def notifies(configuration: Mapping[str, Any], queue_arn: str, prefix: str) -> bool:
    """Tell whether a bucket notifies a queue of every new file below a prefix."""
    for each in configuration.get("QueueConfigurations", []):
        rules = each.get("Filter", {}).get("Key", {}).get("FilterRules", [])
        filters = {rule["Name"].lower(): rule["Value"] for rule in rules}
        whole = "s3:ObjectCreated:*" in each["Events"] and not filters.get("suffix")
        if each["QueueArn"] == queue_arn and whole and prefix.startswith(filters.get("prefix", "")):
            return True
    return False


def judge_datadog(host: str, answer: Answer) -> Finding:
    """Say what Datadog's answer about a key means: it is right, it is wrong, or who knows."""
    match judge_key(answer):
        case True:
            return fine("key", f"{host} takes the API key")
        case False:
            text = f"{host} doesn't take the API key ({answer.status_code})"
            return failed("key", f"{text}: it is wrong or revoked, or of another site", WRONG_KEY)
    if answer.status_code:
        text = f"{host} answered {answer.status_code}, not whether the key is valid"
        return unknown("key", text, "See status.datadoghq.com, and check again later.")
    return unknown("key", f"{host} can't be reached from here ({answer.text})", UNREACHED)


def judge_mapping(mapping: Mapping[str, Any], queue: str, function: str) -> Finding:
    """Say whether a mapping is on, and reports failures file by file."""
    if mapping["State"] not in ("Enabled", "Enabling", "Updating"):
        enable = f"aws lambda update-event-source-mapping --uuid {mapping['UUID']} --enabled"
        return failed("mapping", f"{queue} isn't fed to {function}: {mapping['State']}", enable)
    if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", []):
        text = "without ReportBatchItemFailures the files that are to be retried are lost"
        return failed("mapping", text, f"{APPLY} Do it at once.")
    return fine("mapping", f"{queue} feeds {function}")


def judge_queue(
    role: str, name: str, attributes: Mapping[str, str], oldest: float | None
) -> Finding:
    """Say what is in a queue, and what that means in this one; oldest: its age in seconds."""
    visible = int(attributes["ApproximateNumberOfMessages"])
    flying = int(attributes["ApproximateNumberOfMessagesNotVisible"])
    text = f"{name}: about {visible:,} waiting, {flying:,} in flight"
    text += f", the oldest for {age(oldest)}" if visible + flying and oldest else ""
    if visible + flying and (role != "main" or (oldest or 0) > WAITING_SECONDS):
        return failed("queues", text, QUEUE_FIXES[role])
    return fine("queues", text)


def judge_silence(minutes: float, generator: str, generator_age: float) -> Finding:
    """Say what it means that CloudWatch knows of no batch for so many minutes."""
    text = f"no batch in the last {minutes:.0f} minutes"
    if not generator:
        return fine("outcomes", f"{text}; no generator is on, so there may have been no file")
    if generator_age < 60 * minutes:
        text += f"; {generator} was made or changed only {age(generator_age)} ago"
        wait = "Check again in some minutes, or follow a file: ddg-ops check --canary"
        return unknown("outcomes", text, wait)
    return failed(
        "outcomes", f"{text}, though {generator} is on", f'See "nothing-submitted" in {HANDBOOK}.'
    )


def judge_alarms(names: Sequence[str], alarms: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Say which alarms are on, and which are gone."""
    missing = sorted(set(names) - {alarm["AlarmName"] for alarm in alarms})
    ringing = [alarm for alarm in alarms if alarm["StateValue"] == "ALARM"]
    for alarm in ringing:
        first = f"{alarm.get('AlarmDescription', '')} See {HANDBOOK}."
        yield failed("alarms", f"{alarm['AlarmName']} is on", first)
    if missing or not alarms:
        text = f"not there: {', '.join(missing) or 'the alarms of the stack'}"
        yield failed("alarms", text, APPLY)
    elif not ringing:
        yield fine("alarms", f"none of {len(alarms)} is on")
