"""The canary: a file that `check` puts into a bucket and follows to Datadog."""

import json
import os
import secrets
import time
from collections.abc import Iterator

import requests

from ddg_ops.aws import APPLY, time_at_aws
from ddg_ops.log import words_about
from ddg_ops.screen import HANDBOOK, Finding, Stop, count
from ddg_ops.stack import Stack
from ddg_series_api import Answer, judge_key
from ddg_settings import Clients, Settings

POLL_SECONDS = 1.0  # between two reads of the log; CloudWatch shows a line after some seconds
QUERY_SECONDS = 10.0  # for one answer of Datadog
QUERY_PAUSE = 2.0
MARGIN_SECONDS = 60  # around the point: Datadog returns whole intervals
METRIC, JOB = "ddg.canary", "canary"  # one custom metric: ddg.canary{job:canary}
NOT_TAKEN = "The submitter doesn't take it, or has many others: see `mapping`, and ddg-ops tail."
NOT_TOLD = (
    "Did the bucket notify the queue (see `notification`)? If ddg-ops tail shows a batch, its line "
    "is only late."
)
NOT_LOGGED = "With log_files = false the log doesn't name submitted files; see ddg-ops tail."
FIXES = {
    "refused": "Compare MAX_AGE_SECONDS and this machine's clock; then: ddg-ops rejected list",
    "ignored": f"Is the file's prefix the one in BUCKETS of the function? {APPLY}",
    "retried": f'It is retried until the cause is gone: "files-retried" in {HANDBOOK}.',
}
WRONG_KEY = (
    "Compare ddg_site with the address bar when you are logged in. If they agree: "
    f'"Rotate the key" in {HANDBOOK}.'
)
UNREACHED = (
    "Check this machine's network and proxy, and compare the address with your site's. The "
    "function's log says whether the function reaches it: ddg-ops tail"
)
NO_APP_KEY = "Set DATADOG_APP_KEY to an application key with the scope timeseries_query."
NOT_PROVEN = (
    "Does the application key belong to the organisation of the API key, and has it the scope "
    "timeseries_query? Look for the point in the Metrics Explorer of your organisation."
)


def follow_canary(
    stack: Stack, settings: Settings | None, bucket: str, timeout: float
) -> Iterator[Finding]:
    """Put a file below a bucket's prefix, and follow it through the log and into Datadog.

    timeout: seconds for each of the two.
    """
    if not settings:
        raise Stop("the bucket's prefix is unknown")
    now, prefix = int(time.time()), stack.prefix_of(bucket, settings)
    key = f"{prefix}{JOB}/{now}-{secrets.token_hex(4)}.json"
    where, body = f"s3://{bucket}/{key}", json.dumps({"timestamp": now, METRIC: 1})
    response = stack.aws.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    started = time.monotonic()
    while not (word := next(words_about(stack, where, time_at_aws(response)), None)):
        if time.monotonic() - started > timeout:
            break
        time.sleep(POLL_SECONDS)
    took = time.monotonic() - started
    if word:
        text = f"{where} was {word.state}{f' ({word.reason})' if word.reason else ''}"
        fix = FIXES.get(word.state, "")
        text += f"; {took:.1f} s after the put, by the log"
        found = Finding("FAILED" if fix else "ok", text, fix)
    else:
        name, waiting = stack.waiting(stack.main_url)
        text = f"{where} is neither submitted nor refused after {timeout:.0f} s"
        text += f"; about {count(waiting, 'message')} in {name}"
        found = Finding("FAILED", text, NOT_TAKEN if waiting else NOT_TOLD)
        if not waiting and not settings.log_files:
            found = Finding("unknown", text, NOT_LOGGED)
    yield found
    if found.state != "FAILED":
        yield wait_for_point(now, timeout, settings, stack.aws.submitter(settings))


# --- Datadog ---


def judge_datadog(host: str, answer: Answer) -> Finding:
    """Judge a key by Datadog's answer to `validate`."""
    match judge_key(answer):
        case True:
            return Finding("ok", f"{host} accepts the API key")
        case False:
            text = f"{host} refuses the API key ({answer.status_code}): it is wrong or revoked, "
            return Finding("FAILED", f"{text}or belongs to another site", WRONG_KEY)
    if answer.status_code:
        text = f"{host} answered {answer.status_code}, which doesn't tell whether the key is valid"
        return Finding("unknown", text, "See status.datadoghq.com, and check again later.")
    return Finding("unknown", f"{host} can't be reached from here ({answer.text})", UNREACHED)


def wait_for_point(timestamp: int, timeout: float, settings: Settings, clients: Clients) -> Finding:
    """Query Datadog until the canary's point is visible: key, site and organisation are right.

    Args:
        timestamp: of the point, epoch seconds.
        timeout: seconds; Datadog is asked at least once.
    """
    app_key = os.environ.get("DATADOG_APP_KEY") or settings.app_key
    if not app_key:
        text = "not proven that Datadog shows the point: there is no application key"
        return Finding("note", text, NO_APP_KEY)
    until = time.monotonic() + timeout
    key = clients.key.value or clients.key.read(QUERY_SECONDS)
    keys = {"DD-API-KEY": key, "DD-APPLICATION-KEY": app_key}
    while problem := query_point(settings.api_host, timestamp, keys):
        if "403" in problem or time.monotonic() > until:
            text = f"not proven that Datadog shows the point: {problem}"
            return Finding("unknown", text, NOT_PROVEN)
        time.sleep(QUERY_PAUSE)
    return Finding("ok", f"Datadog shows the point {time.time() - timestamp:.0f} s after the put")


def query_point(host: str, timestamp: int, keys: dict[str, str]) -> str:
    """Query Datadog for the canary's point; return why it isn't there, or ""."""
    span = {"from": timestamp - MARGIN_SECONDS, "to": int(time.time()) + MARGIN_SECONDS}
    try:
        answer = requests.get(
            f"{host.rstrip('/')}/api/v1/query?query=max:{METRIC}{{job:{JOB}}}",
            span,
            headers=keys,
            timeout=QUERY_SECONDS,
            allow_redirects=False,
            auth=lambda request: request,  # otherwise ~/.netrc would be sent to Datadog
        )
        if answer.status_code != 200:
            return f"Datadog answered {answer.status_code}"
        for series in answer.json().get("series", []):
            for at, value in series["pointlist"]:
                if value and at / 1000 + series.get("interval", 1) > timestamp:
                    return ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"no answer from Datadog ({type(error).__name__})"
    return "Datadog accepted it, but doesn't show it"
