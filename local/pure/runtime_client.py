"""The Runtime API's client in Python, for systems without awslambdaric's native module."""

import os
from http.client import HTTPConnection, HTTPMessage

DEADLINE = "Lambda-Runtime-Deadline-Ms"
_api = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])  # reconnects if it was closed
_headers = {"Content-Type": "application/json"}


def initialize_client(user_agent: str) -> None:
    """Set the user agent."""
    _headers["User-Agent"] = user_agent


def next() -> tuple[bytes, dict[str, str | int]]:  # noqa: A001 # the native module's name for it
    """Wait for the next invocation; return its event and its headers, with a numeric deadline."""
    event, headers = _call("GET", "next")
    return event, {**headers, DEADLINE: int(headers[DEADLINE])}


def post_invocation_result(invoke_id: str, result: bytes, *_: object) -> None:
    """Send the response to an invocation."""
    _call("POST", f"{invoke_id}/response", result)


def post_error(invoke_id: str, error: str, *_: object) -> None:
    """Report that an invocation failed: JSON with errorType and errorMessage."""
    _call("POST", f"{invoke_id}/error", error.encode())


def _call(method: str, path: str, body: bytes | None = None) -> tuple[bytes, HTTPMessage]:
    _api.request(method, f"/2018-06-01/runtime/invocation/{path}", body, _headers)
    answer = _api.getresponse()
    content = answer.read()
    if answer.status not in (200, 202):
        raise RuntimeError(f"the Runtime API answered {answer.status}: {content!r}")
    return content, answer.headers
