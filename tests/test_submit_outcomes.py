"""The submitter: what it makes of each answer of Datadog's, and of none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from local.datadog_server import Answer, DatadogServer, Request
from tests.events import Context, bulky, sqs_record, stats
from tests.scripted_server import Call, Script, ScriptedServer, bucket_of, response
from tests.submitter import Submitter

HTML = b"<html><body><h1>Sorry</h1></body></html>"
ERRORS = b'{"status": "error", "errors": ["Nothing to see"]}'
FILES = {"stats/a.json": stats(m=1), "stats/b.json": stats(n=2)}


def answering(datadog: DatadogServer, *answers: Answer | None) -> None:
    """Let Datadog give these answers (None: the honest one), the last one from then on."""
    left = list(answers)

    def respond(request: Request) -> Answer | None:
        return left.pop(0) if len(left) > 1 else left[0]

    datadog.respond = respond


def names(request: Request) -> set[str]:
    """Return the names of the metrics that a request holds."""
    return {series["metric"] for series in request.series or ()}


# --- Each status ---


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"status": "ok"}', id="ok"),
        pytest.param(b"", id="empty"),
        pytest.param(HTML, id="html"),
        pytest.param(b'{"errors": []}', id="no-errors"),
        pytest.param(b'{"errors": ["bad"]}', id="errors"),
        pytest.param(b"true", id="no-object"),
        pytest.param(b"\xff\xfe", id="no-text"),
        pytest.param(b"x" * 1_000_000, id="huge"),
    ],
)
def test_202_counts_whatever_its_body(submitter: Submitter, body: bytes) -> None:
    """The points have been taken, and asking again would change nothing."""
    answering(submitter.datadog, Answer(202, body, accept=True))
    outcome = submitter.submit_files(FILES)
    assert outcome.files == (2, 0, 0)
    assert (outcome.retried, outcome.log) == ([], [])
    assert len(submitter.datadog.requests) == outcome.summary["Requests"] == 1


@pytest.mark.parametrize(
    "status",
    [
        *(200, 201, 203, 204, 206, 300, 301, 302, 303, 304, 307, 308),
        *(401, 402, 403, 404, 405, 408, 409, 415, 418, 429, 451),
        *(500, 501, 502, 503, 504, 520, 599, 700),
    ],
)
def test_any_other_status_is_retried(submitter: Submitter, status: int) -> None:
    """All of the batch, at the cost of few requests, and the log says why; whatever the body."""
    submitter.put_all(FILES)
    messages = [submitter.message(key) for key in FILES]
    for body in (b"", ERRORS, HTML, b'{"status": "ok"}'):
        submitter.datadog.requests.clear()
        answering(submitter.datadog, Answer(status, body))
        outcome = submitter.submit(*messages)
        assert outcome.files == (0, 0, 2)
        assert outcome.retried == [0, 1]
        assert len(submitter.datadog.requests) == outcome.summary["Requests"] <= 6
        [line] = outcome.log
        assert str(status) in line
        if status != 204 and status != 304:
            assert body.decode() in line
    answering(submitter.datadog, None)
    assert submitter.submit(*messages).files == (2, 0, 0)


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_key_keeps_the_data_and_says_so(submitter: Submitter, status: int) -> None:
    """The key or the site is wrong: one request, and a hint at both."""
    answering(submitter.datadog, Answer(status, ERRORS))
    outcome = submitter.submit_files(FILES)
    assert outcome.files == (0, 0, 2)
    assert outcome.summary["Requests"] == 1
    assert "DATADOG_HOST" in outcome.log[0]


def test_key_that_datadog_refuses(submitter: Submitter) -> None:
    """The strict local Datadog's own 403."""
    submitter.set(DATADOG_API_KEY="another-key")
    submitter.keys = ["another-key"]
    assert submitter.submit_files(FILES).files == (0, 0, 2)
    assert submitter.datadog.points == {}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(submitter: Submitter, status: int) -> None:
    """The key would travel with it."""
    with DatadogServer("test-key") as elsewhere:
        location = {"Location": f"{elsewhere.url}/api/v1/series"}
        answering(submitter.datadog, Answer(status, b"", headers=location))
        outcome = submitter.submit_files(FILES)
    assert elsewhere.requests == []
    assert outcome.files == (0, 0, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 500, 302])
def test_key_in_an_answer_is_not_repeated(submitter: Submitter, status: int) -> None:
    """A proxy that shows the request shows the keys in it; neither log nor reason repeats them."""
    submitter.set(DATADOG_APP_KEY="secret-app-key")
    submitter.keys.append("secret-app-key")

    def echo(request: Request) -> Answer:
        return Answer(status, f"You sent {request.headers}, didn't you?".encode())

    submitter.datadog.respond = echo
    outcome = submitter.submit_files(FILES)
    assert submitter.datadog.requests[0].headers["dd-application-key"] == "secret-app-key"
    assert "You sent" in (outcome.log + outcome.reasons)[0]


def test_hostile_answer_breaks_no_line(submitter: Submitter) -> None:
    """Its beginning is shown, on one line."""
    answering(submitter.datadog, Answer(500, b'\n{"_aws": {}}\r\x1b[31m\xff' + b"x" * 100_000))
    [line] = submitter.submit_files(FILES).log
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert len(line) < 2000


# --- No answer, or a broken one ---


def test_reset_before_accepting(submitter: Submitter) -> None:
    """Nothing arrived, so trying again is right; here it helps."""
    answering(submitter.datadog, Answer(reset=True), None)
    outcome = submitter.submit_files(FILES)
    assert outcome.files == (2, 0, 0)
    assert outcome.summary["Requests"] == 2


def test_reset_after_accepting(submitter: Submitter) -> None:
    """The ambiguous one: retried, and the same points again are harmless."""
    answering(submitter.datadog, Answer(reset=True, accept=True))
    outcome = submitter.submit_files(FILES)
    assert outcome.files == (0, 0, 2)
    before = {series: dict(points) for series, points in submitter.datadog.points.items()}
    answering(submitter.datadog, None)
    assert submitter.submit(*map(submitter.message, FILES)).files == (2, 0, 0)
    assert submitter.datadog.points == before


def test_nobody_listens(submitter: Submitter) -> None:
    """Connection refused."""
    submitter.datadog.stop()
    outcome = submitter.submit_files(FILES)
    assert outcome.files == (0, 0, 2)
    assert outcome.summary["Requests"] <= 6
    assert len(outcome.log) == 1


ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 16\r\n\r\n"


def body_reset(call: Call) -> Iterator[bytes]:
    yield ACCEPTED + b'{"status"'
    raise ConnectionResetError


def body_short(call: Call) -> Iterator[bytes]:
    yield ACCEPTED
    raise ConnectionAbortedError


def body_never(call: Call) -> Iterator[bytes]:
    yield ACCEPTED
    call.stopping.wait()


def body_drips(call: Call) -> Iterator[bytes]:
    yield ACCEPTED
    while not call.stopping.wait(0.05):
        yield b"."


def body_gzip(call: Call) -> bytes:
    return response("202 Accepted", b"\x1f\x8bbroken", Content_Encoding="gzip")


def body_chunked(call: Call) -> Iterator[bytes]:
    yield b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"


@pytest.mark.parametrize(
    "script", [body_reset, body_short, body_never, body_drips, body_gzip, body_chunked]
)
def test_202_counts_though_its_body_breaks(submitter: Submitter, script: Any) -> None:
    """The status line is the promise; nobody waits long for the rest."""
    with ScriptedServer(script) as datadog:
        submitter.set(DATADOG_HOST=datadog.url)
        outcome = submitter.submit_files(FILES, context=Context(10))
    assert outcome.files == (2, 0, 0)
    assert outcome.log == []
    assert len(datadog.calls) == outcome.summary["Requests"] == 1


@pytest.mark.parametrize("script", [body_reset, body_short, body_gzip, body_chunked])
def test_broken_body_of_an_error(submitter: Submitter, script: Any) -> None:
    """Known by its status all the same."""

    def unavailable(call: Call) -> Iterator[bytes]:
        pieces = script(call)
        for piece in (pieces,) if isinstance(pieces, bytes) else pieces:
            yield piece.replace(b"202 Accepted", b"503 Service Unavailable")

    with ScriptedServer(unavailable) as datadog:
        submitter.set(DATADOG_HOST=datadog.url)
        outcome = submitter.submit_files(FILES)
    assert outcome.files == (0, 0, 2)
    assert "503" in outcome.log[0]


def garbage(call: Call) -> Iterator[bytes]:
    yield b"SSH-2.0-OpenSSH_9.6\r\n"
    raise ConnectionAbortedError


def headers_without_end(call: Call) -> Iterator[bytes]:
    yield b"HTTP/1.1 202 Accepted\r\n"
    yield from (b"x: y\r\n" for _ in range(1000))
    raise ConnectionAbortedError


@pytest.mark.parametrize("script", [garbage, headers_without_end])
def test_what_is_no_http_is_retried(submitter: Submitter, script: Any) -> None:
    """Something else listens there."""
    with ScriptedServer(script) as datadog:
        submitter.set(DATADOG_HOST=datadog.url)
        outcome = submitter.submit_files(FILES)
    assert outcome.files == (0, 0, 2)
    assert outcome.summary["Requests"] <= 6


# --- The deadline ---


def silent(call: Call) -> Iterator[bytes]:
    call.stopping.wait()
    yield b""


def headers_drip(call: Call) -> Iterator[bytes]:
    yield b"HTTP/1.1 202 Accepted\r\n"
    while not call.stopping.wait(0.05):
        yield b"x-slow: y\r\n"


def error_drips(call: Call) -> Iterator[bytes]:
    yield b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 10000\r\n\r\n"
    while not call.stopping.wait(0.05):
        yield b"."


@contextmanager
def full_backlog() -> Iterator[str]:
    """Yield the URL of a port where connecting takes for ever: its queue is full."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for connection in waiting:
            connection.close()


def test_slow_datadog_meets_the_deadline_and_is_forgotten(submitter: Submitter) -> None:
    """The function returns in time with everything retried; the next batch is sent at once.

    The package would be silent for 300 s after three timeouts of a warm process.
    """
    submitter.put_all(FILES)
    messages = [submitter.message(key) for key in FILES]

    def submit() -> None:
        context = Context(3)
        outcome = submitter.submit(*messages, context=context)
        assert context.get_remaining_time_in_millis() > 250
        assert outcome.files == (0, 0, 2)
        assert 1 <= outcome.summary["Requests"] <= 2

    for script in (silent, headers_drip, error_drips):
        with ScriptedServer(script) as datadog:
            submitter.set(DATADOG_HOST=datadog.url)
            submit()
    with full_backlog() as url:
        submitter.set(DATADOG_HOST=url)
        submit()
    submitter.set(DATADOG_HOST=submitter.datadog.url)
    assert submitter.submit(*messages).files == (2, 0, 0)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.5])
def test_no_post_is_started_that_the_deadline_would_cut(
    submitter: Submitter, seconds: float
) -> None:
    """With little time left, everything is retried at once."""
    outcome = submitter.submit_files(FILES, context=Context(seconds))
    assert submitter.datadog.requests == []
    assert outcome.files == (0, 0, 2)
    assert outcome.summary["Requests"] == 0
    assert "time" in outcome.log[0]


@pytest.mark.parametrize(
    ("answer", "files", "said"),
    [
        pytest.param(None, (2, 0, 1), "no time", id="next-payload"),
        pytest.param(Answer(503), (0, 0, 3), "503", id="next-attempt"),
        pytest.param(Answer(400), (0, 0, 3), "no time", id="next-half"),
    ],
)
def test_no_further_post_is_started_either(
    submitter: Submitter, answer: Answer | None, files: tuple[int, int, int], said: str
) -> None:
    """Neither another payload, attempt nor half, where the first took the time."""
    context = Context(60)

    def slowly(request: Request) -> Answer | None:
        context.spend(58.5)
        return answer

    submitter.datadog.respond = slowly
    outcome = submitter.submit_files(
        {f"stats/{n}.json": bulky(n, series=500) for n in range(3)}, context=context
    )
    assert outcome.files == files
    assert len(submitter.datadog.requests) == outcome.summary["Requests"] == 1
    [line] = outcome.log
    assert said in line


def test_slow_s3_meets_the_deadline(submitter: Submitter) -> None:
    """What S3 didn't send in time is retried; what it sent is submitted."""

    def s3(call: Call) -> Any:
        if call.path.endswith("slow.json"):
            return silent(call)
        return response(body=stats(m=1))

    context = Context(4)
    with submitter.reading_from(s3):
        keys = ["stats/a.json", "stats/slow.json", "stats/b.json"]
        outcome = submitter.submit(*map(submitter.message, keys), context=context)
        assert context.get_remaining_time_in_millis() > 250
    assert outcome.files == (2, 0, 1)
    assert outcome.retried == [1]
    assert "S3" in outcome.log[0]


def test_no_file_is_parsed_that_would_take_the_time_of_the_post(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one is retried; its neighbours, parsed before and after it, are submitted."""
    monkeypatch.setattr(submitter.module, "PARSE_BYTES_PER_SECOND", 20_000)
    context = Context(60)

    def slowly(call: Call) -> bytes:
        context.spend(50)
        return response(body=stats(n=1).ljust(200_000))  # ten seconds, of nine that are left

    files: dict[str, bytes | Script] = {
        "stats/a.json": stats(m=1),
        "stats/b.json": slowly,
        "stats/c.json": stats(o=1),
    }
    with submitter.reading_from(bucket_of(files)):
        outcome = submitter.submit(*(sqs_record([key]) for key in files), context=context)
    assert outcome.files == (2, 0, 1)
    assert outcome.retried == [1]
    assert "no time" in outcome.log[0]
    assert len(submitter.datadog.requests) == 1


# --- Outages ---


def test_outage_costs_few_requests(submitter: Submitter) -> None:
    """However many batches it takes; and the first batch after it goes through."""
    submitter.put_all(FILES)
    messages = [submitter.message(key) for key in FILES]
    trouble = [Answer(503), Answer(504, HTML), Answer(reset=True), Answer(500, b"")]
    for answer in trouble * 3:
        answering(submitter.datadog, answer)
        outcome = submitter.submit(*messages)
        assert outcome.files == (0, 0, 2)
        assert 1 <= outcome.summary["Requests"] <= 6
    answering(submitter.datadog, None)
    assert submitter.submit(*messages).files == (2, 0, 0)


@pytest.mark.parametrize(
    "answer",
    [*map(Answer, (408, 500, 502, 503, 504, 599)), Answer(reset=True)],
    ids=lambda answer: "reset" if answer.reset else str(answer.status),
)
def test_outage_that_ends_is_waited_out(submitter: Submitter, answer: Answer) -> None:
    """Trying again within the invocation saves a round."""
    answering(submitter.datadog, answer, answer, None)
    outcome = submitter.submit_files(FILES)
    assert outcome.files == (2, 0, 0)
    assert outcome.summary["Requests"] == 3


def test_too_many_requests_are_not_answered_with_more(submitter: Submitter) -> None:
    """429 asks for a longer pause than an invocation can make."""
    answering(submitter.datadog, Answer(429, ERRORS))
    assert submitter.submit_files(FILES).summary["Requests"] == 1


def test_outage_in_the_middle(submitter: Submitter) -> None:
    """What was accepted stays submitted; a file that was cut by the outage is retried whole."""
    files = {f"stats/{n}.json": bulky(n, series=500) for n in range(3)}
    answering(submitter.datadog, None, Answer(503))
    outcome = submitter.submit_files(files)
    submitted, refused, retried = outcome.files
    assert (submitted >= 1, refused, retried >= 1) == (True, 0, True)
    assert submitted + retried == 3
    answering(submitter.datadog, None)
    messages = [submitter.message(f"stats/{n}.json") for n in outcome.retried]
    assert submitter.submit(*messages).files == (retried, 0, 0)
    assert sum(map(len, submitter.datadog.points.values())) == 3 * 500
