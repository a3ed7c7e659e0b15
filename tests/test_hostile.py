"""Every file has an outcome, whatever the bytes of a file, a message or an answer are.

The fixture checks each time that no message is lost, no log line is broken, and no key is shown.
"""

import gzip
import json
import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.events import sqs_record, stats
from tests.scripted_server import Call, response
from tests.submitter import Submitter

hostile = settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inside: st.lists(inside) | st.dictionaries(st.text(max_size=8), inside)
)
metrics = st.dictionaries(st.text("aX09_.", min_size=1, max_size=9), scalars | anything, max_size=6)
objects = st.builds(
    lambda age, tags, values: {"timestamp": int(time.time()) - age, "tags": tags, **values},
    st.integers(-700, 3700),
    st.lists(st.text(max_size=12), max_size=4) | anything,
    metrics,
)
texts = anything.map(json.dumps) | st.lists(objects, max_size=4).flatmap(
    lambda each: st.sampled_from((json.dumps(each), "\n".join(map(json.dumps, each))))
)
plain = texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
whole = plain | plain.map(gzip.compress)
files = st.binary(max_size=500) | st.builds(
    lambda content, missing, after: content[: len(content) - missing] + after,
    whole,
    st.integers(0, 8),
    st.binary(max_size=8),
)
names = st.text() | anything
records = st.builds(
    lambda bucket, key: {"s3": {"bucket": {"name": bucket}, "object": {"key": key}}}, names, names
)
bodies = (
    st.text()
    | st.just("x" * 262_144)
    | anything.map(json.dumps)
    | st.lists(records | anything, max_size=5).map(lambda each: json.dumps({"Records": each}))
)
STATUSES = (b"200 OK", b"202 Accepted", b"400 Bad", b"413 x", b"503", b"999 ?")
HEADERS = b"""Content-Length: 4|Content-Length: -1|Content-Length: 99999999999|: |\xff\0: \x80
Transfer-Encoding: chunked|Content-Encoding: gzip|Location: //elsewhere|Connection: close
Set-Cookie: a=b; Domain=..""".replace(b"\n", b"|").split(b"|")
answers = st.binary(max_size=200) | st.builds(
    lambda status, lines, body: b"HTTP/1.1 " + b"\r\n".join([status, *lines, b"", body]),
    st.sampled_from(STATUSES),
    st.lists(st.sampled_from(HEADERS), max_size=4),
    st.binary(max_size=50) | st.just(b'{"errors": ["x"]}'),
)


@hostile
@given(content=files)
def test_any_file(submitter: Submitter, content: bytes) -> None:
    """Datadog stores all points as they were sent, or the file is refused."""
    submitter.datadog.requests.clear()
    submitter.datadog.points.clear()
    outcome = submitter.submit_from({"stats/job/file": content})
    assert outcome.files in ((1, 0, 0), (0, 1, 0))
    sent = [series for request in submitter.datadog.requests for series in request.series or []]
    assert {(each["metric"], tuple(each["tags"])) for each in sent} == {*submitter.datadog.points}
    assert submitter.datadog.dropped == []


@hostile
@given(body=bodies)
def test_any_message(submitter: Submitter, body: str) -> None:
    """Its objects are submitted, or the rejected queue has it."""
    with submitter.reading_from(lambda call: response(body=stats())):
        outcome = submitter.submit(sqs_record(body=body))
    assert outcome.retried == []
    assert len(outcome.rejected) == (outcome.files[1] > 0)


@hostile
@given(answer=answers, receive_count=st.integers(1, 2))
def test_any_answer(submitter: Submitter, answer: bytes, receive_count: int) -> None:
    """Only a 202 is success, and no file is refused at the first delivery."""

    def script(call: Call) -> Any:
        yield answer
        raise ConnectionAbortedError

    with submitter.posting_to(script):
        message = submitter.message("stats/a", receive_count=receive_count)
        outcome = submitter.submit_from({"stats/a": stats()}, message)
    status = answer.partition(b"\r\n")[0]
    assert outcome.files != (1, 0, 0) or b"202" in status
    refusable = receive_count == 2 and (b"400" in status or b"413" in status)
    assert outcome.files != (0, 1, 0) or refusable
