"""The submitter: refused files in the rejected queue, and errors of that queue."""

import json
import re
import time

import pytest

from tests.events import BUCKET, Context, notification, sqs_record, stats
from tests.scripted_server import Script, reset, response, sending, silent
from tests.submitter import Submitter

MALFORMED = b'{"timestamp": '
FILES = {"stats/a.json": MALFORMED, "stats/b.json": stats()}
MAX_BYTES = 262_144  # SQS, a message's body and attributes together
NOT_KEPT = "refused once its message is settled: not JSON: "
NOT_SENT = "couldn't send to the rejected queue: "


def test_malformed_file_is_refused_whole(submitter: Submitter) -> None:
    """None of it is sent. The rejected queue has its message with the reason."""
    bad = b'[{"timestamp": %d, "m": 1}, {"timestamp": 1}]' % time.time()
    outcome = submitter.submit_from({"stats/a": stats(n=1), "stats/b": bad})
    assert outcome.files == (1, 1, 0)
    assert submitter.stored() == {("n", ()): [1.0]}
    [(body, attributes)] = outcome.rejected
    assert body == notification(["stats/b"])
    assert attributes == {"reason": attributes["reason"], "bucket": BUCKET, "key": "stats/b"}
    assert outcome.log == [f"refused s3://{BUCKET}/stats/b: {attributes['reason']}"]


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("", "(empty)"),
        ("a\0\ufffe\ud800", "a\ufffd\ufffd\ufffd"),
        ("\ud7ff\U0010ffff", "\ud7ff\U0010ffff"),
    ],
    ids=["empty", "refused", "allowed"],
)
def test_body_that_sqs_would_refuse_is_changed(submitter: Submitter, body: str, kept: str) -> None:
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html"""
    outcome = submitter.submit(sqs_record(body=body))
    assert outcome.files == (0, 1, 0)
    assert [message.body for message in outcome.rejected] == [kept]


def test_attributes_are_fit_for_sqs(submitter: Submitter) -> None:
    """Otherwise the refusal could never be sent, and its message would be retried for ever."""
    hostile = "stats/\x00\x1b[2J\r\n\u2028'\"\ufffe\U0001f4a9" + "é" * 400
    [rejected] = submitter.submit_from({hostile: b"nonsense"}).rejected
    assert rejected.body == notification([hostile])
    assert rejected.attributes["key"] == "stats/��[2J���'\"�\U0001f4a9" + "é" * 400


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (["stats/a", "stats/b"], 2),  # with a reason each
        ([f"stats/{n}-{'é' * 60}" for n in range(5)], 5),
        ([f"stats/{'é' * 300}-{n}" for n in range(8)], 1),
        ([f"stats/{n}" for n in range(200)], 90),
    ],
    ids=["two", "letters-of-two-bytes", "long-names", "hundreds"],
)
def test_reason_names_its_files(submitter: Submitter, keys: list[str], named: int) -> None:
    """It has a kilobyte, and keys are more important than reasons."""
    records = [{"s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}} for key in keys]
    body = json.dumps({"Records": records}, ensure_ascii=False)
    outcome = submitter.submit_from(dict.fromkeys(keys, MALFORMED), sqs_record(body=body))
    assert outcome.files == (0, len(keys), 0)
    [reason] = outcome.reasons
    assert [key for key in keys[:named] if key not in reason] == []
    assert reason.count("not JSON") == (2 if len(keys) == 2 else named >= 5 and len(keys) == named)
    assert reason.startswith(f"{len(keys)} files: {keys[0]}") == (len(keys) != 2)
    assert len(reason.encode()) <= 1024
    assert len(reason.encode()) > 1000 or named == len(keys)
    assert "\ufffd" not in reason


@pytest.mark.parametrize(("spare", "attributes"), [(3000, 3), (0, 3), (-1, 0)])
def test_message_stays_under_256_kib(submitter: Submitter, spare: int, attributes: int) -> None:
    """If the body leaves no room for attributes, only the log has the reason."""
    reason = "the object is gone. Keep files until they are submitted."
    texts = f"reasonString{reason}bucketString{BUCKET}keyStringstats/gone"
    body = notification(["stats/gone"])
    body = body[:-1] + " " * (MAX_BYTES - len(texts) - spare - len(body)) + "}"
    outcome = submitter.submit_from({}, sqs_record(body=body))
    [rejected] = outcome.rejected
    assert (rejected.body, len(rejected.attributes)) == (body, attributes)
    assert f"refused s3://{BUCKET}/stats/gone: {reason}" in outcome.log
    assert len(outcome.log) == (1 if attributes else 2)


# --- Errors of the queue ---


WITHOUT_ID = [response(body=each) for each in (b"{}", b'{"MessageId": ""}', b"<html>Sign in")]
FORBIDDEN = response("403 Forbidden", b'{"__type": "AccessDenied"}')


@pytest.mark.parametrize("script", [*map(sending, [*WITHOUT_ID, FORBIDDEN]), reset, silent])
def test_refused_file_is_retried_if_the_queue_does_not_take_it(
    submitter: Submitter, script: Script
) -> None:
    """The other files stay submitted. SQS answers a message that it takes with an ID."""
    context = Context(4)
    with submitter.rejecting_to(script):
        outcome = submitter.submit_from(FILES, context=context)
        assert context.get_remaining_time_in_millis() > 0
    assert (outcome.files, outcome.retried) == ((1, 0, 1), [0])
    assert re.match(f"retried 1: {NOT_KEPT}.*; {NOT_SENT}", outcome.log[0])


def test_each_refusal_is_sent_by_itself(submitter: Submitter) -> None:
    """If one hangs, the others stay refused."""
    kept = sending(response(body=b'{"MessageId": "1"}'))
    files = {f"stats/{name}": MALFORMED for name in "ab"} | {"stats/good": stats()}
    hanging = [submitter.message("stats/b", "stats/good") for _ in range(8)]  # one for each thread
    messages = [submitter.message("stats/a"), *hanging]
    with submitter.rejecting_to(lambda call: (silent if b"ts/b" in call.body else kept)(call)):
        outcome = submitter.submit_from(files, *messages, context=Context(4))
        assert (outcome.files, outcome.retried) == ((8, 1, 8), [*range(1, 9)])
        assert submitter.submit_from(files, messages[0], context=Context(4)).files == (0, 1, 0)
    submitter.set(REJECTED_QUEUE_URL=submitter.rejected_url, AWS_ENDPOINT_URL_SQS=submitter.moto)
    assert submitter.submit_from(files, messages[1]).files == (1, 1, 0)
