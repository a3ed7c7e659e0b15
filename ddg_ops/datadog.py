"""Datadog as a command sees it: does it take a key, and does it show a point?"""

import os
import time
from typing import Any

import requests

from ddg_ops.screen import HANDBOOK, Finding
from ddg_series_api import Answer, judge_key
from ddg_settings import Clients, Settings

QUERY_SECONDS = 10.0  # for one answer
QUERY_PAUSE = 2.0
MARGIN_SECONDS = 60  # around the point; Datadog tells of whole intervals

WRONG_KEY = (
    "Compare ddg_site with the address bar when you are logged in. Where they are the same: "
    f'"Rotate the key" in {HANDBOOK}.'
)
UNREACHED = (
    "Look at this machine's network and proxy, and compare the address with your site's. Whether "
    "the function reaches it, its log says: ddg-ops tail"
)
NO_APP_KEY = "Set DATADOG_APP_KEY to an application key with the scope timeseries_query."
NOT_PROVEN = (
    "Is the application key of the organisation that the API key sends to, and has it the scope "
    "timeseries_query? Look for the point in the Metrics Explorer of your own organisation."
)


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


def wait_for_point(
    query: str, timestamp: int, seconds: float, settings: Settings, clients: Clients
) -> Finding:
    """Query Datadog until a point is visible: key, site and organisation belong together then.

    Args:
        timestamp: the point's, epoch seconds.
        seconds: so long it is asked, and once at least.
    """
    app_key = os.environ.get("DATADOG_APP_KEY") or settings.app_key
    if not app_key:
        text = "whether Datadog shows its point isn't proven: there is no application key"
        return Finding("note", text, NO_APP_KEY)
    until = time.monotonic() + seconds
    try:
        key = clients.key.value or clients.key.read(QUERY_SECONDS)
    except ValueError as error:
        return Finding("unknown", f"{query} isn't proven: {error}", NOT_PROVEN)
    keys = {"DD-API-KEY": key, "DD-APPLICATION-KEY": app_key}
    while problem := ask_for_point(settings.api_host, query, timestamp, keys):
        if "403" in problem or time.monotonic() > until:
            return Finding("unknown", f"{query} isn't proven: {problem}", NOT_PROVEN)
        time.sleep(QUERY_PAUSE)
    return Finding("ok", f"{query} shows its point {time.time() - timestamp:.0f} s after the put")


def ask_for_point(host: str, query: str, timestamp: int, keys: dict[str, str]) -> str:
    """Return why a query shows no point of that time or later; "" where it shows one."""
    span = {"from": timestamp - MARGIN_SECONDS, "to": int(time.time()) + MARGIN_SECONDS}
    session = requests.Session()
    session.auth = lambda request: request  # else ~/.netrc would be sent to Datadog
    try:
        answer = session.get(
            f"{host.rstrip('/')}/api/v1/query",
            params=span | {"query": query},
            headers=keys,
            timeout=QUERY_SECONDS,
            allow_redirects=False,
        )
        if answer.status_code != 200:
            return f"Datadog answered {answer.status_code}"
        found: list[dict[str, Any]] = answer.json().get("series", [])
        points = [
            (each.get("interval", 1), *point) for each in found for point in each["pointlist"]
        ]
        seen = [at for interval, at, value in points if value and at / 1000 + interval > timestamp]
        return "" if seen else "Datadog took it and doesn't show it"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"no answer of Datadog's ({type(error).__name__})"
