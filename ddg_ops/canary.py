"""check --canary: a file that goes the whole way, and is looked for in the log.

The log names files only when they fail. So the evidence for `submitted` is that after the put a
batch reported Submitted with at least the canary's points, whose number is random and larger than
small files', and no line names its key. Alone in its batch that is as good as proof; in any case
it is of Datadog's 202, which is all that the pipeline itself ever hears.
"""

import json
import random
import secrets
import time
from collections.abc import Iterator, Sequence

from ddg_ops.aws import time_at_aws
from ddg_ops.judging import HANDBOOK, Finding, failed, fine
from ddg_ops.log import Line, log_events, read_event
from ddg_ops.screen import count
from ddg_ops.stack import Stack, queue_name
from ddg_settings import Settings

POLL_SECONDS = 1.0  # between two looks into the log; CloudWatch has lines after some seconds
METRIC = "ddg.canary"  # one custom metric: ddg.canary{job:canary}
POINTS = (100, 299)  # one a second, back from now: more than batches of small files have
CLOCKS = "Compare MAX_AGE_SECONDS and this machine's clock; then ddg-ops rejected list"
BY_ITSELF = f'It comes again by itself once that is mended. See "files-retried" in {HANDBOOK}.'
NOT_TAKEN = "It isn't taken, or many are before it: see `mapping` above, and ddg-ops tail."
NOT_TOLD = (
    "Did the bucket notify the queue (see `notification` above)? If the submitter's log shows a "
    "batch, its line has just not come yet: see ddg-ops tail."
)


def follow_canary(
    stack: Stack, settings: Sequence[Settings], timeout: float | None
) -> Iterator[Finding]:
    """Put a file and follow it through the log; not without a timeout."""
    if timeout is None:
        return
    points, now = random.randint(*POINTS), int(time.time())
    if settings and settings[0].max_age:
        points = min(points, settings[0].max_age // 2) or 1
    key = f"{stack.prefix}canary/{now}-{secrets.token_hex(4)}.json"
    body = json.dumps([{"timestamp": now - second, METRIC: 1} for second in range(points)])
    started = time.monotonic()
    response = stack.aws.client("s3").put_object(Bucket=stack.bucket, Key=key, Body=body)
    where = f"s3://{stack.bucket}/{key}"
    while True:
        for event in log_events(stack, time_at_aws(response)):
            if finding := read_canary(event["message"], where, points):
                took = f"{time.monotonic() - started:.1f} s after the put, as the log showed it"
                yield finding._replace(text=f"{finding.text}; {took}")
                return
        if time.monotonic() - started > timeout:
            break
        time.sleep(POLL_SECONDS)
    name, queue = queue_name(stack.main_url), stack.queue(stack.main_url)
    waiting = int(queue["ApproximateNumberOfMessages"])
    waiting += int(queue["ApproximateNumberOfMessagesNotVisible"])
    text = f"{where} is neither submitted nor refused after {timeout:.0f} s"
    text += f"; about {count(waiting, 'message')} in {name}" if waiting else f"; {name} is empty"
    yield failed("canary", text, NOT_TAKEN if waiting else NOT_TOLD)


def read_canary(message: str, where: str, points: int) -> Finding | None:
    """Return what a line of the log says of the canary; None if nothing."""
    entry = read_event(message)
    if isinstance(entry, Line) and where in entry.text:
        if entry.text.startswith("refused "):
            reason = entry.text.removeprefix(f"refused {where}: ")
            return failed("canary", f"{where} was refused ({reason})", CLOCKS)
        reason = entry.text.partition(": ")[2].partition(": s3://")[0]
        return failed("canary", f"{where} is retried ({reason})", BY_ITSELF)
    if isinstance(entry, dict) and entry["Submitted"] and entry["Points"] >= points:
        text = f"{where} was submitted: a batch of its own with {points} points"
        if entry["Submitted"] > 1 or entry["Points"] > points:
            others = count(entry["Submitted"] - 1, "other file")
            text = f"{where} was submitted: a batch with {others} has enough points, and the log "
            text += "names it neither refused nor retried"
        return fine("canary", text)
    return None
