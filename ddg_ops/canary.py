"""The canary: a file of our own that check puts into a bucket, and follows to Datadog."""

import json
import secrets
import time
from collections.abc import Iterator

from ddg_ops.aws import APPLY, time_at_aws
from ddg_ops.datadog import wait_for_point
from ddg_ops.log import words_about
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
FIXES = {
    "refused": "Compare MAX_AGE_SECONDS and this machine's clock; then ddg-ops rejected list",
    "ignored": f"Is the file's prefix the one in BUCKETS of the function? {APPLY}",
    "retried": f'It comes again once that is mended. See "files-retried" in {HANDBOOK}.',
}


def follow_canary(
    stack: Stack, settings: Settings | None, bucket: str, timeout: float
) -> Iterator[Finding]:
    """Put a file below a bucket's prefix and follow it: through the log, and on to Datadog."""
    if not settings:
        raise Stop("its prefix is unknown")
    prefix = stack.prefix_of(bucket, settings)
    now = int(time.time())
    where = f"s3://{bucket}/{prefix}{JOB}/{now}-{secrets.token_hex(4)}.json"
    response = stack.aws.client("s3").put_object(
        Bucket=bucket,
        Key=where.removeprefix(f"s3://{bucket}/"),
        Body=json.dumps({"timestamp": now, METRIC: 1}),
    )
    started = time.monotonic()
    while True:
        took = time.monotonic() - started
        word = next(words_about(stack, where, time_at_aws(response)), None)
        if word or took > timeout:
            break
        time.sleep(POLL_SECONDS)
    if word:
        text = f"{where} was {word.state}{f' ({word.reason})' if word.reason else ''}"
        text += f"; {took:.1f} s after the put, as the log showed it"
        fix = FIXES.get(word.state, "")
        found = Finding("FAILED" if fix else "ok", text, fix)
    else:
        found = tell_silence(stack, where, timeout, logged=settings.log_files)
    yield found
    if found.state != "FAILED":
        clients = stack.aws.submitter(settings)
        query = f"max:{METRIC}{{job:{JOB}}}"
        yield wait_for_point(query, now, timeout, settings, clients)


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
