"""The canary: a file of our own that check puts into a bucket, and follows to Datadog."""

import json
import secrets
import time
from collections.abc import Iterator

from ddg_ops.aws import APPLY, time_at_aws
from ddg_ops.datadog import wait_for_point
from ddg_ops.log import Files, Line, log_events, read_event
from ddg_ops.screen import HANDBOOK, Finding, Stop, count
from ddg_ops.stack import Stack
from ddg_settings import Settings

POLL_SECONDS = 1.0  # between two looks for it; CloudWatch has lines after some seconds
METRIC, JOB = "ddg.canary", "canary"  # one custom metric: ddg.canary{job:canary}
NOT_TAKEN = "It isn't taken, or many are before it: see `mapping` above, and ddg-ops tail."
NOT_TOLD = (
    "Did the bucket notify the queue (see `notification` above)? If the submitter's log shows a "
    "batch, its line has just not come yet: see ddg-ops tail."
)
NOT_LOGGED = "With log_files = false the log doesn't name what was submitted; ddg-ops tail."
CLOCKS = "Compare MAX_AGE_SECONDS and this machine's clock; then ddg-ops rejected list"
NOT_OURS = f"Is the file's prefix the one in BUCKETS of the function? {APPLY}"
BY_ITSELF = f'It comes again by itself once that is mended. See "files-retried" in {HANDBOOK}.'


def follow_canary(
    stack: Stack, settings: Settings | None, bucket: str, timeout: float
) -> Iterator[Finding]:
    """Put a file below a bucket's prefix and follow it: through the log, and on to Datadog."""
    if not settings:
        raise Stop("its prefix is unknown")
    prefix = stack.prefix if bucket == stack.bucket else settings.prefix_of(bucket)
    now, started = int(time.time()), time.monotonic()
    where = f"s3://{bucket}/{prefix}{JOB}/{now}-{secrets.token_hex(4)}.json"
    response = stack.aws.client("s3").put_object(
        Bucket=bucket,
        Key=where.removeprefix(f"s3://{bucket}/"),
        Body=json.dumps({"timestamp": now, METRIC: 1}),
    )
    while True:
        is_late = time.monotonic() - started > timeout
        events = log_events(stack, time_at_aws(response))
        found = next(filter(None, (judge_line(each["message"], where) for each in events)), None)
        if found or is_late:
            break
        time.sleep(POLL_SECONDS)
    if found:
        after = f"{time.monotonic() - started:.1f} s after the put, as the log showed it"
        found = found._replace(text=f"{found.text}; {after}")
    else:
        found = tell_silence(stack, where, timeout, logged=settings.log_files)
    yield found
    if found.state != "FAILED":
        clients = stack.aws.submitter(settings)
        query = f"max:{METRIC}{{job:{JOB}}}"
        yield wait_for_point(query, now, started + timeout, settings, clients)


def judge_line(message: str, where: str) -> Finding | None:
    """Return what a line of the log says of a file; None if nothing."""
    match read_event(message):
        case Files(addresses) if where in addresses:
            return Finding("ok", f"{where} was submitted")
        case Line(_, text) if where in text:
            if text.startswith("refused "):
                reason = text.removeprefix(f"refused {where}: ")
                return Finding("FAILED", f"{where} was refused ({reason})", CLOCKS)
            reason = text.partition(": ")[2].partition(": s3://")[0]
            if text.startswith("ignored "):
                return Finding("FAILED", f"{where} was ignored ({reason})", NOT_OURS)
            return Finding("FAILED", f"{where} is retried ({reason})", BY_ITSELF)
    return None


def tell_silence(stack: Stack, where: str, timeout: float, *, logged: bool) -> Finding:
    """Say what it means that the log hasn't named a file."""
    name, waiting = stack.waiting(stack.main_url)
    text = f"{where} is neither submitted nor refused after {timeout:.0f} s"
    if waiting:
        text += f"; about {count(waiting, 'message')} in {name}"
        return Finding("FAILED", text, NOT_TAKEN)
    if not logged:
        return Finding("unknown", f"{text}, as far as the log tells", NOT_LOGGED)
    return Finding("FAILED", f"{text}; {name} is empty", NOT_TOLD)
