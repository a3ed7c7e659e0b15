"""The submitter: whether Datadog takes the API key, and the key in Secrets Manager."""

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
    """Let Datadog answer so about the key (None: honestly); return the keys, as it is asked."""
    keys: list[str] = []

    def respond(request: Request) -> Answer | None:
        keys.append(request.headers["dd-api-key"])
        return answer

    submitter.datadog.respond_validate = respond
    return keys


# --- Asking Datadog about the key, whose series API answers 202 to any ---


def test_key_is_asked_about_first(submitter: Submitter) -> None:
    """By a request of its own that counts nowhere; and nothing to post is no request."""
    outcome = submitter.submit_from({"stats/": b"", "stats/a.json": b"{}"})
    assert (outcome.files, outcome.summary["Requests"]) == ((0, 1, 0), 0)
    assert submitter.datadog.requests == []
    submitter.datadog.validations.clear()
    submitter.restart()
    outcome = submitter.submit_from(FILES)
    [question], [post] = submitter.datadog.validations, submitter.datadog.requests
    assert (question.method, question.path) == ("GET", "/api/v1/validate")
    assert question.headers["dd-api-key"] == "test-key"
    assert outcome.summary["Requests"] == 1
    assert outcome.summary["WireBytes"] == post.wire_bytes


def shown(answer: Answer) -> str:
    return f"{answer.status} {answer.body[:16]!r}"


WRONG = [INVALID, Answer(401, b""), Answer(403, b"<html>"), Answer(401, b'{"valid": true}')]
BODIES = [b"", b'{"valid": fals', b"[]", b"false", b'{"valid": "false"}', b'{"valid": null}']
BODIES += [b'{"valid": 0}', b'{"valid": true' + b" " * 100_000, b"[" * 60_000]
UNCLEAR = [Answer(status, b"") for status in (202, 302, 404, 429, 500)]
UNCLEAR += [Answer(200, body) for body in BODIES]
UNCLEAR += [Answer(500, b'{"valid": false}'), Answer(reset=True)]


@pytest.mark.parametrize("answer", WRONG, ids=shown)
def test_nothing_is_posted_with_a_wrong_key(submitter: Submitter, answer: Answer) -> None:
    """It would be lost behind a 202. What the contract refuses stays refused, late or early."""
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
def test_other_answers_leave_the_word_to_the_post(submitter: Submitter, answer: Answer) -> None:
    """They say nothing of the key: the batch goes through, and the next one asks again."""
    keys = asked(submitter, answer)
    for _ in range(2):
        outcome = submitter.submit_from(FILES)
        assert (outcome.files, outcome.log) == ((1, 0, 0), [])
        assert outcome.summary["Requests"] == 1
    assert keys == ["test-key"] * 2
    submitter.datadog.respond = lambda request: Answer(403)
    outcome = submitter.submit_from(FILES)
    assert outcome.files == (0, 0, 1)
    assert outcome.log[0].startswith(f"retried 1: {WRONG_KEY}")


def test_post_waits_a_second_for_the_answer(submitter: Submitter) -> None:
    """It may take longer than the objects do. One that comes later yet says nothing any more."""
    asked(submitter, Answer(403, delay=0.3))
    assert submitter.submit_from(FILES).files == (0, 0, 1)
    asked(submitter, Answer(403, delay=1.3))
    submitter.datadog.respond = lambda request: Answer(delay=0.5, accept=True)
    submitter.restart()
    submitter.shrink_payloads()
    files = {f"stats/{n}": bulky(n, series=40) for n in range(2)}  # the second is posted after it
    assert submitter.submit_from(files).files == (2, 0, 0)


def test_valid_key_is_not_asked_about_again_for_five_minutes(submitter: Submitter) -> None:
    """By the wall clock, if it isn't set back: frozen time counts. Another process asks itself."""
    keys = asked(submitter, None)
    for frozen, questions in ((0, 1), (290, 1), (15, 2), (290, 2), (301, 3), (-500, 4)):
        submitter.clock.freeze(frozen)
        submitter.submit_from(FILES)
        assert len(keys) == questions
    submitter.restart()
    submitter.submit_from(FILES)
    assert len(keys) == 5
    asked(submitter, INVALID)  # it has become wrong, though every POST is answered 202
    submitter.clock.freeze(301)
    assert submitter.submit_from(FILES).files == (0, 0, 1)


# --- The key in Secrets Manager ---


@contextmanager
def secret(submitter: Submitter, *values: Any) -> Iterator[ScriptedServer]:
    """Have the submitter read a secret that holds these values, the last one for good."""
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
    """Neither in Terraform's state nor in the environment; and in no log, whatever boto3 tells."""
    caplog.set_level(logging.DEBUG)
    with secret(submitter, value) as manager:
        submitter.set(DATADOG_API_KEY="forgotten")  # where both are set, the secret has the word
        submitter.keys.append("forgotten")
        for _ in range(3):
            assert submitter.submit_from(FILES).files == (1, 0, 0)
    requests = submitter.datadog.requests + submitter.datadog.validations
    assert {request.headers["dd-api-key"] for request in requests} == {"test-key"}
    assert len(manager.calls) == 1


@pytest.mark.parametrize("told_by", ["validate", 401, 403])
def test_rotated_key_needs_no_deploy(submitter: Submitter, told_by: str | int) -> None:
    """A wrong key has the secret read once more; the batch goes through with the new one."""
    submitter.keys.append("rotated-key")
    with secret(submitter, "test-key", '{"api_key": "rotated-key"}') as manager:
        assert submitter.submit_from(FILES).files == (1, 0, 0)
        submitter.datadog.api_key = "rotated-key"
        submitter.clock.freeze(0 if told_by == 403 else 301)
        if told_by != "validate":
            asked(submitter, Answer(500))  # which is no reason to read the secret
            submitter.datadog.respond = lambda request: (
                Answer(int(told_by)) if request.headers["dd-api-key"] == "test-key" else None
            )
        outcome = submitter.submit_from(FILES)
        assert (outcome.files, outcome.log) == ((1, 0, 0), [])
        assert outcome.summary["Requests"] == (1 if told_by == "validate" else 2)
        assert submitter.submit_from(FILES).summary["Requests"] == 1
    assert len(manager.calls) == 2
    assert submitter.datadog.validations[-1].headers["dd-api-key"] == "rotated-key"


@pytest.mark.parametrize("values", [["wrong"], ["wrong", "other", "third"]], ids=["same", "other"])
@pytest.mark.parametrize("told_by", ["validate", "post"])
def test_secret_is_read_once_more_and_no_more(
    submitter: Submitter, values: list[str], told_by: str
) -> None:
    """However often it changes: another key is tried once, and nothing goes with a wrong one."""
    keys = asked(submitter, INVALID if told_by == "validate" else VALID)
    with secret(submitter, *values) as manager:
        outcome = submitter.submit_from(FILES)
    assert outcome.files == (0, 0, 1)
    assert outcome.log[0].startswith(f"retried 1: {WRONG_KEY}")
    assert len(manager.calls) == 2
    posted = [request.headers["dd-api-key"] for request in submitter.datadog.requests]
    assert (keys, posted) == (
        (values[:2], []) if told_by == "validate" else (["wrong"], values[:2])
    )


NO_KEYS = ["hidden value", "", "{hidden", '{"other": "hidden"}', '{"api_key": ["hidden"]}']
NO_KEYS += ['{"api_key": 5}', '{"api_key": ""}']


@pytest.mark.parametrize("value", [*NO_KEYS, {"SecretBinary": "aGlkZGVu"}], ids=str)
def test_malformed_secret_is_named_and_not_shown(submitter: Submitter, value: object) -> None:
    """As a malformed variable is."""
    named = pytest.raises(ValueError, match="_ARN: the secret is neither a key nor ")
    with secret(submitter, value), named as raised:
        submitter.submit_from(FILES)
    assert "hidden" not in f"{raised.value}"
    assert raised.value.__cause__ is None
    assert submitter.datadog.requests == []


def denied(call: Call) -> bytes:
    return response("400 Bad Request", b'{"__type": "AccessDeniedException", "message": "no"}')


@pytest.mark.parametrize("before", [[], ["test-key"]], ids=["at-the-start", "again"])
@pytest.mark.parametrize("script", [denied, silent])
def test_secret_that_cannot_be_read(
    submitter: Submitter, script: Script, before: list[str]
) -> None:
    """In time the invocation fails and the batch is retried; the error names the variable."""
    submitter.datadog.respond = lambda request: Answer(403)
    context = Context(4)
    named = pytest.raises(ValueError, match="DATADOG_API_KEY_SECRET_ARN can't be read: ")
    with secret(submitter, *before, script), named:
        submitter.submit_from(FILES, context=context)
    assert context.get_remaining_time_in_millis() > 250
    assert submitter.datadog.points == {}
