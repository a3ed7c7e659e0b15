"""Every file has an outcome, whatever the bytes of a file, a name or an answer are.

The fixture checks each time that no message is lost, no log line is broken, and no key is shown.
"""

import gzip
import json
import time
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.datadog_server import Answer, stored_tag
from tests.events import STARTED, stats
from tests.scripted_server import Call, s3_error, sending
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


BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
HOSTILE = {
    "line-ends": "a\nb\r\nc\x85\u2028\u2029d",
    "directions": f"{BIDIRECTIONAL}nosj.a",
    "escape-sequences": "a\x1b[31m\x1b]0;title\x07\x9b31mb\x00",
    "json": 'a"}, {"_aws": {"CloudWatchMetrics": []}, "b',
    "tag-syntax": "a,b:c|d#e",
    "format-strings": "a%s{}$(b)`b`",
    "outside-the-bmp": "\U0001f4a3" * 100,
    "no-characters": "a\ufffe\uffffb",
    "long": "a" * 900,
    "parent-folders": "../../etc/passwd",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_name_breaks_no_line_and_no_tag(submitter: Submitter, name: str) -> None:
    """It is a job, a value, a metric, or Datadog's answer. The fixture checks lines and reasons."""
    bad = [{"timestamp": name, "m": 1}, {"timestamp": STARTED, "m": name}]
    bad += [{"timestamp": STARTED, name: "1"}]
    contents = {f"stats/{n}": json.dumps(content).encode() for n, content in enumerate(bad)}
    denied = s3_error("403 Forbidden", "AccessDenied")
    good, key = {f"stats/{name}/file": stats()}, f"stats/{name}/no"
    outcome = submitter.submit_from({**good, **contents, key: sending(denied)})
    assert (outcome.files, len(outcome.log)) == ((1, 3, 1), 4)  # a line each
    [request] = submitter.datadog.requests
    for series in request.series or []:
        assert series["tags"] == [stored_tag(tag) for tag in series["tags"]]
    errors = json.dumps({"errors": [name]}, ensure_ascii=False)
    named, cut = Answer(400, errors.encode()), Answer(500, f"{name}\xff{'x' * 70_000}".encode())
    for answer, files in ((named, (0, 1, 0)), (cut, (0, 0, 1))):
        submitter.datadog.respond = partial(lambda known, _: known, answer)
        outcome = submitter.submit_from(good, submitter.message(*good, receive_count=2))
        assert (outcome.files, len(outcome.log)) == (files, 1)
        assert len(outcome.log[0]) < 3000
