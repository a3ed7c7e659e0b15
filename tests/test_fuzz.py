"""Whatever comes in, what local/invariants.py checks holds; `make fuzz` looks for minutes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.invariants import NOW, TARGETS, Answers, check_body, check_body_bytes, check_file

SLOW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inside: st.lists(inside) | st.dictionaries(st.text(max_size=8), inside)
)
names = st.text("abcXYZ019_.", min_size=1, max_size=12)
stats = st.builds(
    lambda timestamp, tags, values: {"timestamp": timestamp, "tags": tags, **values},
    st.integers(NOW - 3700, NOW + 700) | scalars,
    st.lists(st.text(max_size=12), max_size=4) | anything,
    st.dictionaries(names, st.integers() | st.floats() | anything, max_size=6),
)
texts = (
    st.lists(stats, max_size=4).map(json.dumps)
    | st.lists(stats, max_size=4).map(lambda objects: "\n".join(map(json.dumps, objects)))
    | anything.map(json.dumps)
)


def cut(content: bytes) -> st.SearchStrategy[bytes]:
    """Return what is left of a file whose end is missing, or that is followed by anything."""
    return st.builds(
        lambda end, after: content[: len(content) - end] + after,
        st.integers(0, 8),
        st.binary(max_size=8),
    )


files = texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
files |= files.map(gzip.compress)
files |= files.flatmap(cut) | st.binary(max_size=500)


@SLOW
@given(files)
def test_any_file(content: bytes) -> None:
    """Samples that Datadog keeps as they are, or a reason; no exception, no second."""
    check_file(content)


records = st.builds(
    lambda bucket, key: {"s3": {"bucket": {"name": bucket}, "object": {"key": key}}},
    st.text() | anything,
    st.text() | anything,
)
bodies = (
    st.text()
    | anything.map(json.dumps)
    | st.lists(records | anything, max_size=5).map(lambda each: json.dumps({"Records": each}))
)


@SLOW
@given(bodies)
def test_any_body(body: str) -> None:
    """Deliveries, whose message SQS takes and whose names break no line."""
    check_body(body)


@pytest.mark.parametrize("size", [100_000, 262_000, 262_144])
def test_long_bodies(size: int) -> None:
    """What leaves no room for a reason goes without one."""
    check_body("x" * size)
    check_body("ü" * (size // 2))


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    """A server that answers anything."""
    answers = Answers()
    with answers.server:
        yield answers


statuses = st.sampled_from((b"200 OK", b"202 Accepted", b"400 Bad", b"413 x", b"503", b"999 ?"))
headers = st.lists(
    st.sampled_from(
        (
            b"Content-Length: 4",
            b"Content-Length: -1",
            b"Content-Length: 99999999999",
            b"Transfer-Encoding: chunked",
            b"Content-Encoding: gzip",
            b"Content-Encoding: deflate",
            b"Location: //elsewhere",
            b"Set-Cookie: a=b; Domain=..",
            b"Connection: close",
            b": ",
            b"\xff\0: \x80",
        )
    ),
    max_size=4,
)
responses = st.builds(
    lambda status, lines, body: b"HTTP/1.1 " + b"\r\n".join([status, *lines, b"", body]),
    statuses,
    headers,
    st.binary(max_size=50),
)


@SLOW
@given(answer=responses | st.binary(max_size=200))
def test_any_answer(answers: Answers, answer: bytes) -> None:
    """A status or none; no exception, in time, and 202 alone is success."""
    answers.check(answer)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_of_the_fuzzer(target: str, answers: Answers) -> None:
    """What atheris begins with passes."""
    for seed in TARGETS[target]:
        {"file": check_file, "body": check_body_bytes, "answer": answers.check}[target](seed)
