"""The submitter: the check of the API key, and the key in Secrets Manager."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from local.datadog_server import Answer, Request
from tests.events import Context, bulky, sqs_record, stats
from tests.scripted_server import Call, Script, ScriptedServer, response, silent
from tests.submitter import Submitter

FILES = {"stats/job/a.json": stats(m=1)}
ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog-key-AbCdEf"
VALID, INVALID = Answer(200, b'{"valid": true}'), Answer(200, b'{"valid": false}')
WRONG_KEY = "Datadog answered 403. The API key and DATADOG_HOST aren't of the same site, or the key"


def asked(submitter: Submitter, answer: Answer | None) -> list[str]:
    """Set Datadog's answer to the check (None: its own); return the list of keys checked."""
    keys: list[str] = []

    def respond(request: Request) -> Answer | None:
        keys.append(request.headers["dd-api-key"])
        return answer

    submitter.datadog.respond_validate = respond
    return keys


# --- The check of the key: the series API answers 202 to any ---


def test_key_is_checked_first(submitter: Submitter) -> None:
    """The summary doesn't count this request."""
    outcome = submitter.submit_from(FILES)
    [question], [post] = submitter.datadog.validations, submitter.datadog.requests
    assert (question.path, question.status) == ("/api/v1/validate", 200)
    assert question.headers["dd-api-key"] == "test-key"
    assert outcome.summary["Requests"] == 1
    assert outcome.summary["WireBytes"] == post.wire_bytes


def shown(answer: Answer) -> str:
    return f"{answer.status} {answer.body[:16]!r}"


WRONG = [INVALID, Answer(401, b'{"valid": true}'), Answer(403, b"<html>")]
BODIES = [b"", b"[]", b"false", b'{"valid": "false"}', b'{"valid": true' + b" " * 100_000]
UNCLEAR = [Answer(200, body) for body in (*BODIES, b"[" * 60_000)]
UNCLEAR += [Answer(202, b""), Answer(500, b'{"valid": false}'), Answer(reset=True)]


@pytest.mark.parametrize("answer", WRONG, ids=shown)
def test_nothing_is_posted_with_a_wrong_key(submitter: Submitter, answer: Answer) -> None:
    """It would be lost behind a 202. Bad files are refused all the same."""
    keys = asked(submitter, answer)
    submitter.shrink_payloads()
    objects = {f"stats/large-{n}": bulky(n, series=40) for n in range(2)}
    objects |= {"stats/good": stats(), "stats/bad": b"{}", "stats/_SUCCESS": b""}
    messages = [sqs_record([key]) for key in [*objects, "stats/gone"]]
    messages.append(sqs_record(["stats/good", "stats/bad"]))
    outcome = submitter.submit_from(objects, *messages)
    assert (outcome.files, outcome.retried) == ((0, 2, 5), [0, 1, 2, 6])
    assert any(line.startswith(f"retried 4: {WRONG_KEY}") for line in outcome.log)
    assert submitter.datadog.requests == []
    assert outcome.summary["Requests"] == outcome.summary["WireBytes"] == 0
    assert keys == ["test-key"]
    asked(submitter, None)
    assert submitter.submit_from(objects, messages[2]).files == (1, 0, 0)


@pytest.mark.parametrize("answer", UNCLEAR, ids=shown)
def test_unclear_check_stops_nothing(submitter: Submitter, answer: Answer) -> None:
    """The answer to the POST decides, and the next batch checks the key again."""
    keys = asked(submitter, answer)
    for _ in range(2):
        outcome = submitter.submit_from(FILES)
        assert (outcome.files, outcome.log) == ((1, 0, 0), [])
    assert keys == ["test-key"] * 2
    submitter.datadog.respond = lambda request: Answer(403)
    assert submitter.submit_from(FILES).log[0].startswith(f"retried 1: {WRONG_KEY}")


def test_post_waits_a_second_for_the_check(submitter: Submitter) -> None:
    asked(submitter, Answer(403, delay=0.3))
    assert submitter.submit_from(FILES).files == (0, 0, 1)
    asked(submitter, Answer(403, delay=1.3))
    submitter.datadog.respond = lambda request: Answer(delay=0.5, accept=True)
    submitter.restart()
    submitter.shrink_payloads()
    files = {f"stats/{n}": bulky(n, series=40) for n in range(2)}  # the check ends between them
    assert submitter.submit_from(files).files == (2, 0, 0)


def test_valid_key_is_checked_again_after_five_minutes(submitter: Submitter) -> None:
    """The wall clock counts, also while the process is frozen, unless it is set back."""
    keys = asked(submitter, None)
    for frozen, questions in ((0, 1), (290, 1), (15, 2), (290, 2), (301, 3), (-500, 4)):
        submitter.clock.freeze(frozen)
        submitter.submit_from(FILES)
        assert len(keys) == questions
    submitter.restart()
    submitter.submit_from(FILES)
    assert len(keys) == 5
    asked(submitter, INVALID)
    submitter.clock.freeze(301)
    assert submitter.submit_from(FILES).files == (0, 0, 1)


# --- The key in Secrets Manager ---


@contextmanager
def secret(submitter: Submitter, *values: Any) -> Iterator[ScriptedServer]:
    """Make the submitter read a secret with these values; the last one stays."""
    left = list(values)

    def answer(call: Call) -> bytes | Iterable[bytes]:
        value = left.pop(0) if len(left) > 1 else left[0]
        if callable(value):
            script: Script = value
            return script(call)
        value = value if isinstance(value, dict) else {"SecretString": value}
        return response(body=json.dumps(value).encode())

    submitter.environment.delenv("DATADOG_API_KEY")
    with ScriptedServer(answer) as manager:
        submitter.set(DATADOG_API_KEY_SECRET_ARN=ARN, AWS_ENDPOINT_URL_SECRETS_MANAGER=manager.url)
        yield manager


@pytest.mark.parametrize(
    "value",
    ["test-key", "test-key\n", '{"api_key": "test-key"}', ' {"api_key": " test-key", "x": 1}'],
)
def test_key_from_a_secret(
    submitter: Submitter, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    """It is in no log, even with boto3 at DEBUG."""
    caplog.set_level(logging.DEBUG)
    with secret(submitter, value) as manager:
        submitter.set(DATADOG_API_KEY="forgotten")  # the secret takes precedence
        submitter.keys.append("forgotten")
        for _ in range(3):
            assert submitter.submit_from(FILES).files == (1, 0, 0)
    requests = submitter.datadog.requests + submitter.datadog.validations
    assert {request.headers["dd-api-key"] for request in requests} == {"test-key"}
    assert len(manager.calls) == 1


@pytest.mark.parametrize("source", ["validate", 401, 403])
def test_rotated_key_needs_no_deployment(submitter: Submitter, source: str | int) -> None:
    """After a wrong key, the secret is read again, and the same batch uses the new key."""
    submitter.keys.append("rotated-key")
    with secret(submitter, "test-key", '{"api_key": "rotated-key"}') as manager:
        assert submitter.submit_from(FILES).files == (1, 0, 0)
        submitter.datadog.api_key = "rotated-key"
        submitter.clock.freeze(0 if source == 403 else 301)
        if source != "validate":
            asked(submitter, Answer(500))  # doesn't make it read the secret
            submitter.datadog.respond = lambda request: (
                Answer(int(source)) if request.headers["dd-api-key"] == "test-key" else None
            )
        outcome = submitter.submit_from(FILES)
        assert (outcome.files, outcome.log) == ((1, 0, 0), [])
        assert outcome.summary["Requests"] == (1 if source == "validate" else 2)
        assert submitter.submit_from(FILES).summary["Requests"] == 1
    assert len(manager.calls) == 2
    assert submitter.datadog.validations[-1].headers["dd-api-key"] == "rotated-key"


@pytest.mark.parametrize("source", ["validate", "post"])
def test_secret_is_read_again_once(submitter: Submitter, source: str) -> None:
    """If the second key is wrong too, the batch is retried."""
    keys = asked(submitter, INVALID if source == "validate" else VALID)
    with secret(submitter, "wrong", "other", "third") as manager:
        outcome = submitter.submit_from(FILES)
    assert outcome.files == (0, 0, 1)
    assert outcome.log[0].startswith(f"retried 1: {WRONG_KEY}")
    assert len(manager.calls) == 2
    posted = [request.headers["dd-api-key"] for request in submitter.datadog.requests]
    both = ["wrong", "other"]
    assert (keys, posted) == ((both, []) if source == "validate" else (["wrong"], both))


NO_KEYS = ["hidden value", "", "{hidden", '{"other": "hidden"}', '{"api_key": ["hidden"]}']


@pytest.mark.parametrize("value", [*NO_KEYS, {"SecretBinary": "aGlkZGVu"}], ids=str)
def test_malformed_secret_is_named_but_not_shown(submitter: Submitter, value: object) -> None:
    named = pytest.raises(ValueError, match="_ARN: the secret is neither a key nor ")
    with secret(submitter, value), named as raised:
        submitter.submit_from(FILES)
    assert "hidden" not in f"{raised.value}"
    assert raised.value.__cause__ is None
    assert submitter.datadog.requests == []


def denied(call: Call) -> bytes:
    return response("400 Bad Request", b'{"__type": "AccessDeniedException", "message": "no"}')


@pytest.mark.parametrize(
    ("before", "script"), [([], silent), (["test-key"], denied)], ids=["at-the-start", "later"]
)
def test_unreadable_secret_fails_the_invocation_in_time(
    submitter: Submitter, before: list[str], script: Script
) -> None:
    """The batch stays in the queue, and the error names the variable."""
    submitter.datadog.respond = lambda request: Answer(403)
    context = Context(4)
    named = pytest.raises(ValueError, match="DATADOG_API_KEY_SECRET_ARN can't be read: ")
    with secret(submitter, *before, script), named:
        submitter.submit_from(FILES, context=context)
    assert context.get_remaining_time_in_millis() > 250
    assert submitter.datadog.points == {}
