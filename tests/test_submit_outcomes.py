"""The submitter: the outcomes of files after each response of Datadog, or none."""

import json
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.datadog_server import Answer, DatadogServer, Request
from tests.events import Context, bulky, sqs_record, stats
from tests.scripted_server import Call, Script, bucket_of, response
from tests.submitter import Submitter

HTML = b"<html><body><h1>Sorry</h1></body></html>"
ERRORS = b'{"status": "error", "errors": ["Nothing to see"]}'
FILES = {"stats/a.json": stats(m=1), "stats/b.json": stats(n=2)}


def answering(datadog: DatadogServer, *answers: Answer | None) -> None:
    """Make Datadog give these answers (None: its own), and repeat the last one."""
    left = list(answers)

    def respond(request: Request) -> Answer | None:
        return left.pop(0) if len(left) > 1 else left[0]

    datadog.respond = respond


# --- Each status ---


@pytest.mark.parametrize("status", [0, 200, 204, 302, 401, 403, 404, 408, 429, 499, 500, 599, 600])
def test_status_other_than_202_is_retried(submitter: Submitter, status: int) -> None:
    """The log says why. In an outage, the POST is repeated at once. 0: the connection is reset."""
    messages = [sqs_record([key], receive_count=5) for key in FILES]
    pauses = [0.2, 0.8] if status in (0, 408, 500, 599) else []
    answering(submitter.datadog, Answer(status or 500, HTML, reset=not status))
    outcome = submitter.submit_from(FILES, *messages)
    assert (outcome.files, outcome.retried) == ((0, 0, 2), [0, 1])
    assert outcome.summary["Requests"] == len(submitter.datadog.requests) == 1 + len(pauses)
    assert submitter.clock.pauses == pauses
    [line] = outcome.log
    assert (f"Datadog answered {status}. " if status else "no answer from Datadog: ") in line
    assert ("DATADOG_HOST" in line) == (status in (401, 403))
    assert HTML.decode() in line or status in (0, 204)
    answering(submitter.datadog, None)
    assert submitter.submit_from(FILES, *messages).files == (2, 0, 0)


def test_redirect_is_not_followed(submitter: Submitter) -> None:
    """The request to another host would contain the key."""
    with DatadogServer("test-key") as elsewhere:
        redirect = Answer(307, b"", headers={"Location": f"{elsewhere.url}/api/v1/series"})
        submitter.datadog.respond = submitter.datadog.respond_validate = lambda request: redirect
        outcome = submitter.submit_from(FILES)
        assert elsewhere.requests + elsewhere.validations == []
    assert outcome.files == (0, 0, 2)


@pytest.mark.parametrize("status", [400, 500])
def test_key_in_an_answer_is_not_shown(submitter: Submitter, status: int) -> None:
    """A proxy's error page may quote the request, with its keys."""
    submitter.set(DATADOG_APP_KEY="secret-app-key", LOG_LEVEL="DEBUG")
    submitter.keys.append("secret-app-key")

    def echo(request: Request) -> Answer:
        body = {"errors": [f"You sent {request.headers}, didn't you?"]}
        return Answer(status, json.dumps(body).encode())

    submitter.datadog.respond = echo
    submitter.datadog.respond_validate = lambda request: Answer(404, echo(request).body)
    outcome = submitter.submit_from(FILES, sqs_record(FILES, receive_count=2))
    assert submitter.datadog.requests[0].headers["dd-application-key"] == "secret-app-key"
    assert any("You sent" in line for line in outcome.log)


# --- 400 and 413: one bad file fails the whole request ---

LONG = b'{"errors": ["' + b"x" * 60_000 + b'"]}'
BLANK, LONGER = ERRORS.ljust(70_000), LONG.replace(b"xx", b"xxx")  # over 64 KiB
ODD_ERRORS = b' {"errors":[{"no": 1}]}\r\n'
WITHOUT_ERRORS = [b"", HTML, b"{}", b'{"errors": []}', b'{"errors": "x"}', b'{"errors": {"x": 1}}']
WITHOUT_ERRORS += [ERRORS[:-1], ERRORS + b"}", b"[" * 50_000, LONGER, BLANK]


@pytest.mark.parametrize(
    ("status", "bodies", "receive_count", "refused"),
    [
        (400, [ERRORS, ODD_ERRORS, LONG], 2, True),
        (400, [ERRORS], 1, False),
        (400, WITHOUT_ERRORS, 2, False),
        (413, [b""], 2, True),
        (413, [ERRORS], 1, False),
        (413, [ERRORS], None, False),
    ],
)
def test_file_is_refused_when_datadog_names_its_errors_twice(
    submitter: Submitter, status: int, bodies: list[bytes], receive_count: int | None, refused: bool
) -> None:
    """Datadog's proxies and its intake sometimes answer 400 to a good file."""
    for body in bodies:
        answering(submitter.datadog, Answer(status, body))
        message = submitter.message("stats/a", receive_count=receive_count)
        outcome = submitter.submit_from({"stats/a": stats(m=1, n=2)}, message)
        assert outcome.files == ((0, 1, 0) if refused else (0, 0, 1)), body[:99]
        assert outcome.summary["Requests"] == (1 if status == 400 else 2)
        assert outcome.log[0].startswith("refused s3://" if refused else "retried 1: ")
        assert f": Datadog answered {status}. " in outcome.log[0]


def poison(request: Request) -> Answer | None:
    """Answer like a Datadog that refuses metrics named poison."""
    names = {series["metric"] for series in request.series or ()}
    return Answer(400, b'{"errors": ["poison in the series"]}') if "poison" in names else None


def test_file_in_two_messages_has_an_outcome_in_each(submitter: Submitter) -> None:
    """The receive count of its message decides."""
    submitter.datadog.respond = poison
    files = {f"stats/{n}": stats(age=n, **{"poison" if n < 2 else "m": n}) for n in range(4)}
    again, first = sqs_record(files, receive_count=2), sqs_record(files, receive_count=1)
    outcome = submitter.submit_from(files, first, again)
    assert (outcome.files, outcome.retried) == ((4, 2, 2), [0])
    assert [rejected.body for rejected in outcome.rejected] == [again["body"]]
    [reason] = outcome.reasons
    assert [key in reason for key in files] == [True, True, False, False]
    assert "Datadog answered 400. " in reason
    assert "poison in the series" in reason


@pytest.mark.parametrize("places", [{0}, {3, 4, 21, 39}], ids=str)
def test_bad_file_is_found_in_20_requests(submitter: Submitter, places: set[int]) -> None:
    """At any delivery. The other files are submitted."""
    submitter.datadog.respond = poison
    metrics = ["poison" if n in places else "m" for n in range(40)]
    files = {f"stats/{n:02}": stats(age=n, **{metrics[n]: n}) for n in range(40)}
    found, left = [f"stats/{n:02}" for n in sorted(places)], len(places)
    outcome = submitter.submit_from(files)
    assert (outcome.files, outcome.retried) == ((40 - left, 0, left), sorted(places))
    assert outcome.summary["Requests"] == len(submitter.datadog.requests) <= 20 * left
    again = [submitter.message(key, receive_count=2) for key in files]
    outcome = submitter.submit_from(files, *again)
    assert outcome.files == (40 - left, left, 0)
    assert sorted(message.attributes["key"] for message in outcome.rejected) == found
    assert len(submitter.stored()["m", ()]) == 40 - left


def test_413_is_split_until_it_fits(submitter: Submitter) -> None:
    """First by files, then by points."""
    submitter.datadog.respond = lambda request: (
        Answer(413) if sum(len(series["points"]) for series in request.series or ()) > 3 else None
    )
    files = {f"stats/{n}": stats(age=n, a=1, b=2, c=3, d=4, e=5) for n in range(4)}
    outcome = submitter.submit_from(files)
    assert outcome.files == (4, 0, 0)
    assert outcome.summary["Points"] == sum(map(len, submitter.stored().values())) == 20


def test_files_received_most_often_are_posted_first(submitter: Submitter) -> None:
    """So every bad file gets its turn, although a batch has 64 extra requests. 10 is over 9."""
    submitter.datadog.respond = lambda request: Answer(400, ERRORS)
    counts = {f"stats/{n:03}": 7 + n // 20 for n in range(80)}
    messages = [sqs_record([key], receive_count=count) for key, count in counts.items()]
    outcome = submitter.submit_from(dict.fromkeys(counts, stats()), *messages)
    assert outcome.summary["Requests"] == 65
    refused = [counts[rejected.attributes["key"]] for rejected in outcome.rejected]
    assert refused.count(10) == 20
    assert set(refused) <= {9, 10}
    assert "limit" in outcome.log[-1]


# --- No answer, or a broken one ---


def close(call: Call) -> None:
    raise ConnectionAbortedError


def wait(call: Call) -> None:
    call.stopping.wait()


def late(call: Call) -> Iterator[bytes]:
    call.stopping.wait(0.2)
    yield b"late"


def drip(call: Call) -> Iterator[bytes]:
    while not call.stopping.wait(0.05):
        yield b"."


def then(sent: bytes, end: Any) -> Script:
    """Return a script that sends some bytes and ends in another way."""

    def script(call: Call) -> Iterator[bytes]:
        yield sent
        yield from end(call) or ()

    return script


BROKEN_BODIES = {
    "short": (b"Content-Length: 99\r\n\r\n" + ERRORS, close),
    "gzip": (b"Content-Encoding: gzip\r\nContent-Length: 8\r\n\r\n\x1f\x8bbroken", close),
    "never": (b"Content-Length: 16\r\n\r\n", wait),
    "drips": (b"Content-Length: 10000\r\n\r\n", drip),
    "late": (b"Content-Length: 4\r\n\r\n", late),
}


@pytest.mark.parametrize("broken", BROKEN_BODIES)
def test_status_counts_if_the_body_breaks(submitter: Submitter, broken: str) -> None:
    """Nobody waits for the body of a 202. The body of a 400 must be complete to refuse a file."""
    sent, end = BROKEN_BODIES[broken]
    with submitter.posting_to(then(b"HTTP/1.1 202 Accepted\r\n" + sent, end)) as datadog:
        started = time.monotonic()
        outcome = submitter.submit_from(FILES)
        assert time.monotonic() - started < 5
    assert (outcome.files, outcome.log) == ((2, 0, 0), [])
    assert datadog.calls.count("POST /api/v1/series") == outcome.summary["Requests"] == 1
    submitter.restart()
    submitter.environment.setattr(submitter.module, "POST_SECONDS", 0.3)
    with submitter.posting_to(then(b"HTTP/1.1 400 Bad Request\r\n" + sent, end)):
        outcome = submitter.submit_from(FILES, sqs_record(["stats/a.json"], receive_count=2))
    assert outcome.files == (0, 0, 1)
    assert ("400. late" if broken == "late" else "400. ") in outcome.log[0]


# --- The way there ---


def test_netrc_is_not_sent(submitter: Submitter, tmp_path: Path) -> None:
    """The requests package would send it as authentication."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login operator password netrc-password\n")
    submitter.set(NETRC=str(netrc), HOME=str(tmp_path))
    assert submitter.submit_from(FILES).files == (2, 0, 0)
    requests = submitter.datadog.requests + submitter.datadog.validations
    assert len(requests) == 2
    assert [name for each in requests for name in each.headers if "authorization" in name] == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_proxy_of_the_environment_is_used(submitter: Submitter, variable: str) -> None:
    with submitter.posting_to(lambda call: response("202 Accepted")) as proxy:
        submitter.set(
            **{variable: proxy.url}, NO_PROXY="127.0.0.1", DATADOG_HOST="http://datadog.test"
        )
        outcome = submitter.submit_from(FILES)
    assert outcome.files == (2, 0, 0)
    assert "POST http://datadog.test/api/v1/series" in proxy.calls


def test_missing_certificates_are_named(submitter: Submitter) -> None:
    bundle = "/no/such/bundle.pem"
    submitter.set(REQUESTS_CA_BUNDLE=bundle, DATADOG_HOST="https://127.0.0.1:1")
    outcome = submitter.submit_from(FILES)
    assert outcome.files == (0, 0, 2)
    assert bundle in outcome.log[0]
    assert "timed out" not in outcome.log[0]


# --- The deadline ---


def test_slow_datadog_delays_neither_this_batch_nor_the_next(submitter: Submitter) -> None:
    """The datadog package would be silent for 300 s after three timeouts."""
    context = Context(4)
    with submitter.posting_to(then(b"HTTP/1.1 202 Accepted\r\nx: ", drip)):
        outcome = submitter.submit_from(FILES, context=context)
    assert context.get_remaining_time_in_millis() > 250
    assert (outcome.files, outcome.summary["Requests"]) == ((0, 0, 2), 1)
    submitter.environment.setattr(submitter.module, "POST_SECONDS", 0.1)
    with submitter.posting_to(then(b"", wait)):
        assert submitter.submit_from(FILES).summary["Requests"] == 3
    submitter.set(DATADOG_HOST=submitter.datadog.url)
    assert submitter.submit_from(FILES).files == (2, 0, 0)


@pytest.mark.parametrize(("seconds", "files"), [(0.0, 0), (1.9, 0), (4.0, 2)])
def test_no_post_is_started_without_time(submitter: Submitter, seconds: float, files: int) -> None:
    context = Context(seconds)
    with submitter.reading_from(lambda call: response(body=stats())):
        outcome = submitter.submit(*map(submitter.message, FILES), context=context)
    assert outcome.files == (files, 0, 2 - files)
    assert len(submitter.datadog.requests) == outcome.summary["Requests"] == files / 2
    assert files or "no time" in outcome.log[0]


@pytest.mark.parametrize(
    ("answer", "seconds", "done", "said"),
    [
        (None, 58.5, 2, "no time"),
        (Answer(503), 58.5, 0, "503"),
        (Answer(503), 57.9, 0, "503"),  # enough for a pause
        (Answer(400), 58.5, 0, "no time"),
    ],
    ids=["next-payload", "next-attempt", "after-a-pause", "next-half"],
)
def test_no_second_post_is_started_without_time(
    submitter: Submitter, answer: Answer | None, seconds: float, done: int, said: str
) -> None:
    def slowly(request: Request) -> Answer | None:
        submitter.clock.spend(seconds)
        return answer

    submitter.datadog.respond = slowly
    submitter.shrink_payloads()
    outcome = submitter.submit_from({f"stats/{n}": bulky(n, series=25) for n in range(3)})
    assert outcome.files == (done, 0, 3 - done)
    assert len(submitter.datadog.requests) == outcome.summary["Requests"] == 1
    [line] = outcome.log
    assert said in line
    assert seconds < 58 or submitter.clock.pauses == []


def test_post_that_was_given_up_is_not_sent_later(submitter: Submitter) -> None:
    """Compressing it took too long. It must not get the answer to the next POST, either."""
    compress, slow, go_on = zlib.compress, list[threading.Thread](), threading.Event()

    def compress_slowly(data: bytes) -> bytes:
        if not slow:
            slow.append(threading.current_thread())
            go_on.wait()
        return compress(data)

    def answer_the_next(request: Request) -> Answer | None:
        go_on.set()
        slow[0].join()
        return Answer(404)

    submitter.environment.setattr("zlib.compress", compress_slowly)
    submitter.datadog.respond = answer_the_next
    with submitter.reading_from(lambda call: response(body=stats())):
        message = sqs_record(["stats/a"])
        outcome = submitter.submit(message, context=Context(3.5))
        assert ("timed out" in outcome.log[0], outcome.summary["Requests"]) == (True, 0)
        assert "404" in submitter.submit(message).log[0]
    assert len(submitter.datadog.requests) == 1


@pytest.mark.parametrize("fresh", [0, 1])
def test_file_that_ages_while_it_waits_is_refused(submitter: Submitter, fresh: int) -> None:
    """Otherwise Datadog would answer 202 and drop it."""
    old = stats(3590, now=time.time()) + b"\n" + stats(later=1)

    def unavailable_at_first(request: Request) -> Answer | None:
        if len(submitter.datadog.requests) > 1:
            return None
        submitter.clock.spend(20)  # as if the answer took so long
        return Answer(503)

    submitter.datadog.respond = unavailable_at_first
    outcome = submitter.submit_from({"stats/old": old} | dict([("stats/new", stats(n=1))] * fresh))
    assert submitter.datadog.dropped == []
    assert outcome.files == (fresh, 1, 0)
    assert [metric for metric, _ in submitter.stored()] == ["n"] * fresh


# --- Outages ---


def test_batch_pauses_twice_at_most(submitter: Submitter) -> None:
    """It waits for a short outage to end, but not each time that one begins."""
    reset = Answer(reset=True)
    answering(submitter.datadog, Answer(503), None, reset, None, Answer(503), None)
    submitter.shrink_payloads()
    outcome = submitter.submit_from({f"stats/{n}": bulky(n, series=40) for n in range(3)})
    assert outcome.files == (2, 0, 1)
    assert submitter.clock.pauses == [0.2, 0.8]


def test_no_more_files_are_fetched_in_an_outage(submitter: Submitter) -> None:
    answering(submitter.datadog, Answer(503))
    submitter.shrink_payloads()
    files = {f"stats/{n}": bulky(n, series=40) for n in range(2)}
    files |= {f"stats/{n}": stats() for n in range(2, 200)}
    with submitter.reading_from(bucket_of(files)) as s3:
        outcome = submitter.submit(*map(submitter.message, files))
    assert outcome.files == (0, 0, 200)
    assert len(outcome.log) == 1
    assert len(s3.calls) <= 2 + 64 + 2


def test_outage_in_the_middle(submitter: Submitter) -> None:
    """Accepted files stay submitted; a file that is accepted in part is retried whole."""
    submitter.shrink_payloads()
    files = {"stats/0": bulky(0, series=15), "stats/1": bulky(1, series=70)}
    answering(submitter.datadog, None, None, Answer(503))
    outcome = submitter.submit_from(files)
    assert (outcome.files, outcome.retried) == ((1, 0, 1), [1])
    answering(submitter.datadog, None)
    assert submitter.submit_from(files, sqs_record(["stats/1"])).files == (1, 0, 0)
    assert sum(map(len, submitter.stored().values())) == 85
