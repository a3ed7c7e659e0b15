"""The canary: a file of our own that check puts into a bucket and follows."""

import json
import random
import secrets
import time
from collections.abc import Iterator

from ddg_ops.aws import APPLY, time_at_aws
from ddg_ops.log import Line, log_events, read_event
from ddg_ops.screen import HANDBOOK, Finding, Stop, count
from ddg_ops.stack import Stack, queue_name
from ddg_settings import Settings

POLL_SECONDS = 1.0  # between two looks for the canary; CloudWatch has lines after some seconds
CANARY_METRIC = "ddg.canary"  # one custom metric: ddg.canary{job:canary}
CANARY_POINTS = (100, 299)  # one a second, back from now: more than batches of small files have
NOT_TAKEN = "It isn't taken, or many are before it: see `mapping` above, and ddg-ops tail."
NOT_TOLD = (
    "Did the bucket notify the queue (see `notification` above)? If the submitter's log shows a "
    "batch, its line has just not come yet: see ddg-ops tail."
)
CLOCKS = "Compare MAX_AGE_SECONDS and this machine's clock; then ddg-ops rejected list"
NOT_OURS = f"Is the file's prefix the one in BUCKETS of the function? {APPLY}"
BY_ITSELF = f'It comes again by itself once that is mended. See "files-retried" in {HANDBOOK}.'


def follow_canary(
    stack: Stack, settings: Settings | None, bucket: str, timeout: float
) -> Iterator[Finding]:
    """Put a file below a bucket's prefix and follow it through the log."""
    if not settings:
        raise Stop("its prefix is unknown")
    points, now = random.randint(*CANARY_POINTS), int(time.time())
    if settings.max_age:
        points = min(points, settings.max_age // 2) or 1
    prefix = stack.prefix if bucket == stack.bucket else settings.prefix_of(bucket)
    key = f"{prefix}canary/{now}-{secrets.token_hex(4)}.json"
    body = json.dumps([{"timestamp": now - second, CANARY_METRIC: 1} for second in range(points)])
    started = time.monotonic()
    response = stack.aws.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    where = f"s3://{bucket}/{key}"
    took = 0.0
    while took <= timeout:
        took = time.monotonic() - started
        for event in log_events(stack, time_at_aws(response)):
            if finding := judge_canary(event["message"], where, points):
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
