"""Datadog as a command sees it: does it take a key?"""

from ddg_ops.screen import HANDBOOK, Finding
from ddg_series_api import Answer, judge_key

WRONG_KEY = (
    "Compare ddg_site with the address bar when you are logged in. Where they are the same: "
    f'"Rotate the key" in {HANDBOOK}.'
)
UNREACHED = (
    "Look at this machine's network and proxy, and compare the address with your site's. Whether "
    "the function reaches it, its log says: ddg-ops tail"
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
