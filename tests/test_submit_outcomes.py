"""The submitter: what it makes of each answer of Datadog's, and of none."""

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
    """Let Datadog give these answers (None: the honest one), the last one from then on."""
    left = list(answers)

    def respond(request: Request) -> Answer | None:
        return left.pop(0) if len(left) > 1 else left[0]

    datadog.respond = respond


# --- Each status ---


@pytest.mark.parametrize("body", [b"", HTML, ERRORS, b'{"errors": []}', b"\xff", b"x" * 100_000])
def test_202_counts_whatever_its_body(submitter: Submitter, body: bytes) -> None:
    """The points have been taken, and asking again would change nothing."""
    answering(submitter.datadog, Answer(202, body, accept=True))
    outcome = submitter.submit_from(FILES)
    assert (outcome.files, outcome.log) == ((2, 0, 0), [])
    assert len(submitter.datadog.requests) == outcome.summary["Requests"] == 1


AT_ONCE = {0, 408, *range(500, 600)}  # 0: the connection is reset


@pytest.mark.parametrize(
    "status",
    [
        *(0, 200, 201, 203, 204, 206, 300, 301, 302, 303, 304, 307, 308),
        *(401, 402, 403, 404, 405, 407, 408, 409, 415, 418, 429, 451, 499),
        *(500, 501, 502, 503, 504, 520, 599, 600, 700),
    ],
)
def test_any_other_status_is_retried(submitter: Submitter, status: int) -> None:
    """All of the batch, whatever the body, and the log says why; some are asked again at once."""
    messages = [sqs_record([key], receive_count=5) for key in FILES]
    pauses = [0.2, 0.8] if status in AT_ONCE else []
    for body in (b"", ERRORS, HTML):
        submitter.datadog.requests.clear()
        submitter.clock.pauses.clear()
        answering(submitter.datadog, Answer(status or 500, body, reset=not status))
        outcome = submitter.submit_from(FILES, *messages)
        assert (outcome.files, outcome.retried) == ((0, 0, 2), [0, 1])
        assert outcome.summary["Requests"] == len(submitter.datadog.requests) == 1 + len(pauses)
        assert submitter.clock.pauses == pauses
        [line] = outcome.log
        assert (f"Datadog answered {status}. " if status else "no answer from Datadog: ") in line
        assert ("DATADOG_HOST" in line) == (status in (401, 403))
        assert body.decode() in line or status in (0, 204, 304)
    answering(submitter.datadog, None)
    assert submitter.submit_from(FILES, *messages).files == (2, 0, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(submitter: Submitter, status: int) -> None:
    """The key would travel with it, whether it is asked about or used."""
    with DatadogServer("test-key") as elsewhere:
        location = {"Location": f"{elsewhere.url}/api/v1/series"}
        redirect = Answer(status, b"", headers=location)
        submitter.datadog.respond = submitter.datadog.respond_validate = lambda request: redirect
        outcome = submitter.submit_from(FILES)
        assert elsewhere.requests + elsewhere.validations == []
    assert outcome.files == (0, 0, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 500, 302])
def test_key_in_an_answer_is_not_repeated(submitter: Submitter, status: int) -> None:
    """A proxy that shows the request shows the keys in it; neither log nor reason repeats them."""
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


# --- 400 and 413: one bad file spoils all files' answer ---

LONG = b'{"errors": ["' + b"x" * 60_000 + b'"]}'


BLANK, LONGER = ERRORS.ljust(70_000), LONG.replace(b"xx", b"xxx")  # over 64 KiB
ERRORS_OF_ANY_KIND = b' {"errors":[{"no": 1}]}\r\n'
NOT_MEANT = [b"", HTML, b"{}", b'{"errors": []}', b'{"errors": "x"}', b'{"errors": {"x": 1}}']
NOT_MEANT += [ERRORS[:-1], ERRORS + b"}", b"[" * 50_000, LONGER, BLANK]


@pytest.mark.parametrize(
    ("status", "bodies", "receive_count", "refused"),
    [
        (400, [ERRORS, ERRORS_OF_ANY_KIND, LONG], 2, True),
        (400, [ERRORS], 1, False),
        (400, NOT_MEANT, 2, False),
        (413, [b""], 2, True),
        (413, [ERRORS], 1, False),
        (413, [ERRORS], None, False),
    ],
)
def test_file_is_refused_when_datadog_means_it(
    submitter: Submitter, status: int, bodies: list[bytes], receive_count: int | None, refused: bool
) -> None:
    """Its front and its intake answer 400 now and then: so its errors must be there, and twice."""
    for body in bodies:
        answering(submitter.datadog, Answer(status, body))
        message = submitter.message("stats/a", receive_count=receive_count)
        outcome = submitter.submit_from({"stats/a": stats(m=1, n=2)}, message)
        assert outcome.files == ((0, 1, 0) if refused else (0, 0, 1)), body[:99]
        assert outcome.summary["Requests"] == (1 if status == 400 else 2)
        assert outcome.log[0].startswith("refused s3://" if refused else "retried 1: ")
        assert f": Datadog answered {status}. " in outcome.log[0]


def poison(request: Request) -> Answer | None:
    """Answer as Datadog if it found every metric at fault that is named poison."""
    names = {series["metric"] for series in request.series or ()}
    return Answer(400, b'{"errors": ["poison in the series"]}') if "poison" in names else None


def test_files_of_a_message_share_its_count(submitter: Submitter) -> None:
    """The same file may be named by two messages: each has the outcome of its own message."""
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


@pytest.mark.parametrize("places", [{0}, {19}, {20}, {39}, {3, 4, 21, 39}], ids=str)
def test_poison_is_found(submitter: Submitter, places: set[int]) -> None:
    """In at most 20 requests each, at whatever delivery; the other files are submitted."""
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
    """By files, then by points: all arrive, however small a payload must be."""
    submitter.datadog.respond = lambda request: (
        Answer(413) if sum(len(series["points"]) for series in request.series or ()) > 3 else None
    )
    files = {f"stats/{n}": stats(age=n, a=1, b=2, c=3, d=4, e=5) for n in range(4)}
    outcome = submitter.submit_from(files)
    assert outcome.files == (4, 0, 0)
    assert outcome.summary["Points"] == sum(map(len, submitter.stored().values())) == 20


def test_stubborn_batch_ends(submitter: Submitter) -> None:
    """Whatever Datadog answers: 64 requests beyond the one, and after some rounds none is left."""
    submitter.datadog.respond = lambda request: Answer(413)
    files = {f"stats/{n:03}": stats(age=n) for n in range(70)}
    waiting, rounds, refused = [*files], 0, list[str]()
    while waiting:
        rounds += 1
        messages = [submitter.message(key, receive_count=rounds) for key in waiting]
        outcome = submitter.submit_from(files, *messages)
        assert outcome.summary["Requests"] <= 65
        refused += [rejected.attributes["key"] for rejected in outcome.rejected]
        waiting = [waiting[n] for n in outcome.retried]
    assert (rounds <= 7, sorted(refused)) == (True, [*files])


def test_what_was_received_most_often_goes_first(submitter: Submitter) -> None:
    """Else a stubborn batch would look for the same poison in every round; 10 is more than 9."""
    submitter.datadog.respond = lambda request: Answer(400, ERRORS)
    files = {f"stats/{n:03}": stats(age=n) for n in range(120)}
    counts = {key: 7 + n // 30 for n, key in enumerate(files)}
    messages = [sqs_record([key], receive_count=counts[key]) for key in files]
    outcome = submitter.submit_from(files, *messages)
    assert outcome.summary["Requests"] == 65
    refused = [counts[rejected.attributes["key"]] for rejected in outcome.rejected]
    assert refused.count(10) == 30
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
    """Return a script that sends some bytes, and then does something else."""

    def script(call: Call) -> Iterator[bytes]:
        yield sent
        yield from end(call) or ()

    return script


BROKEN_BODIES = {
    "short": (b"Content-Length: 99\r\n\r\n" + ERRORS, close),
    "ends-early": (b"Transfer-Encoding: chunked\r\n\r\n31\r\n" + ERRORS, close),
    "gzip": (b"Content-Encoding: gzip\r\nContent-Length: 8\r\n\r\n\x1f\x8bbroken", close),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", close),
    "never": (b"Content-Length: 16\r\n\r\n", wait),
    "drips": (b"Content-Length: 10000\r\n\r\n", drip),
    "late": (b"Content-Length: 4\r\n\r\n", late),
}


@pytest.mark.parametrize("broken", BROKEN_BODIES)
def test_status_counts_though_the_body_breaks(submitter: Submitter, broken: str) -> None:
    """A 202 at once: nobody waits for its body. A 400's is waited for, and has to be whole."""
    sent, end = BROKEN_BODIES[broken]
    with submitter.posting_to(then(b"HTTP/1.1 202 Accepted\r\n" + sent, end)) as datadog:
        started = time.monotonic()
        outcome = submitter.submit_from(FILES)
        assert time.monotonic() - started < 5
    assert (outcome.files, outcome.log) == ((2, 0, 0), [])
    assert datadog.calls.count("POST /api/v1/series") == outcome.summary["Requests"] == 1
    submitter.restart()
    submitter.environment.setattr(submitter.module, "POST_SECONDS", 0.5)
    with submitter.posting_to(then(b"HTTP/1.1 400 Bad Request\r\n" + sent, end)):
        outcome = submitter.submit_from(FILES, sqs_record(["stats/a.json"], receive_count=2))
    assert outcome.files == (0, 0, 1)
    assert ("400. late" if broken == "late" else "400. ") in outcome.log[0]


# --- The way there ---


def test_netrc_stays_at_home(submitter: Submitter, tmp_path: Path) -> None:
    """An operator's ~/.netrc is for other programs: requests would send it as authentication."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login operator password netrc-password\n")
    submitter.set(NETRC=str(netrc), HOME=str(tmp_path))
    submitter.keys.append("netrc-password")
    assert submitter.submit_from(FILES).files == (2, 0, 0)
    requests = submitter.datadog.requests + submitter.datadog.validations
    assert len(requests) == 2
    assert [name for each in requests for name in each.headers if "authorization" in name] == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_proxy_of_the_environment_is_used(submitter: Submitter, variable: str) -> None:
    """Some networks have no other way out."""
    with submitter.posting_to(lambda call: response("202 Accepted")) as proxy:
        submitter.set(
            **{variable: proxy.url}, NO_PROXY="127.0.0.1", DATADOG_HOST="http://datadog.test"
        )
        outcome = submitter.submit_from(FILES)
    assert outcome.files == (2, 0, 0)
    assert "POST http://datadog.test/api/v1/series" in proxy.calls


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_missing_certificates_are_told(submitter: Submitter, variable: str) -> None:
    """A bundle that names no file is a mistake of the deployment's, and no timeout."""
    submitter.environment.delenv("REQUESTS_CA_BUNDLE", raising=False)  # which goes first
    submitter.set(**{variable: "/no/such/bundle.pem"}, DATADOG_HOST="https://127.0.0.1:1")
    outcome = submitter.submit_from(FILES)
    assert outcome.files == (0, 0, 2)
    assert "/no/such/bundle.pem" in outcome.log[0]
    assert "timed out" not in outcome.log[0]


# --- The deadline ---


def test_slow_datadog_meets_the_deadline_and_is_forgotten(submitter: Submitter) -> None:
    """The function returns in time with everything retried; the next batch is sent at once.

    The package would be silent for 300 s after three timeouts of a warm process.
    """
    for sent, end in ((b"", wait), (b"HTTP/1.1 202 Accepted\r\nx: ", drip)):
        context = Context(4)
        with submitter.posting_to(then(sent, end)):
            outcome = submitter.submit_from(FILES, context=context)
        assert context.get_remaining_time_in_millis() > 250
        assert outcome.files == (0, 0, 2)
        assert 1 <= outcome.summary["Requests"] <= 2
    submitter.environment.setattr(submitter.module, "POST_SECONDS", 0.1)
    with submitter.posting_to(then(b"", wait)):
        assert submitter.submit_from(FILES).summary["Requests"] == 3
    submitter.set(DATADOG_HOST=submitter.datadog.url)
    assert submitter.submit_from(FILES).files == (2, 0, 0)


@pytest.mark.parametrize(("seconds", "files"), [(0.0, 0), (1.5, 0), (1.9, 0), (4.0, 2)])
def test_no_post_is_started_that_the_deadline_would_cut(
    submitter: Submitter, seconds: float, files: int
) -> None:
    """With little time left, everything is retried at once."""
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
def test_no_further_post_is_started_either(
    submitter: Submitter, answer: Answer | None, seconds: float, done: int, said: str
) -> None:
    """Neither another payload, attempt nor half, where the first took the time."""

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


def test_late_post_is_not_sent_in_place_of_the_next(submitter: Submitter) -> None:
    """It was deflated too slowly, and given up: it isn't sent, nor answered what the next is."""
    compress, slow, go_on = zlib.compress, list[threading.Thread](), threading.Event()

    def compress_slowly(data: bytes) -> bytes:
        if not slow:
            slow.append(threading.current_thread())
            go_on.wait()
        return compress(data)

    def while_the_next_is_asked(request: Request) -> Answer | None:
        go_on.set()
        slow[0].join()
        return Answer(404)

    submitter.environment.setattr("zlib.compress", compress_slowly)
    submitter.datadog.respond = while_the_next_is_asked
    with submitter.reading_from(lambda call: response(body=stats())):
        message = sqs_record(["stats/a"])
        outcome = submitter.submit(message, context=Context(3))
        assert ("timed out" in outcome.log[0], outcome.summary["Requests"]) == (True, 0)
        assert "404" in submitter.submit(message).log[0]
    assert len(submitter.datadog.requests) == 1


@pytest.mark.parametrize("fresh", [0, 1])
def test_file_that_ages_while_it_waits_is_refused(submitter: Submitter, fresh: int) -> None:
    """Good when read, too old when its turn to be posted came: it mustn't vanish behind a 202."""
    old = stats(3590, now=time.time()) + b"\n" + stats(later=1)  # of which one sample is fresh

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


def test_pauses_are_those_of_a_batch(submitter: Submitter) -> None:
    """An outage that ends is waited out; one that comes and goes doesn't make it sleep for ever."""
    reset = Answer(reset=True)
    answering(submitter.datadog, Answer(503), None, reset, None, Answer(503), None)
    submitter.shrink_payloads()
    outcome = submitter.submit_from({f"stats/{n}": bulky(n, series=40) for n in range(3)})
    assert outcome.files == (2, 0, 1)
    assert submitter.clock.pauses == [0.2, 0.8]


def test_outage_ends_the_reading_too(submitter: Submitter) -> None:
    """Where the first payload meets an outage, what isn't fetched by then isn't."""
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
    """What was accepted stays submitted; a file that was cut by the outage is retried whole."""
    submitter.shrink_payloads()
    files = {"stats/0": bulky(0, series=15), "stats/1": bulky(1, series=70)}
    answering(submitter.datadog, None, None, Answer(503))
    outcome = submitter.submit_from(files)
    assert (outcome.files, outcome.retried) == ((1, 0, 1), [1])
    answering(submitter.datadog, None)
    assert submitter.submit_from(files, sqs_record(["stats/1"])).files == (1, 0, 0)
    assert sum(map(len, submitter.stored().values())) == 85
