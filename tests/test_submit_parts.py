"""The submitter's small parts, where only a look at one of them alone tells right from wrong."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import Future
from io import BytesIO, TextIOWrapper
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest

import ddg_metric_submit
import ddg_series_api
from ddg_series_api import Answer
from ddg_stats_file import MAX_FILE_BYTES, Sample

SETTINGS = ddg_metric_submit.read_settings(
    {"DATADOG_API_KEY": "test-key", "REJECTED_QUEUE_URL": "http://sqs.example.com/1/rejected"}
)


def batch_with(milliseconds: int) -> ddg_metric_submit.Batch:
    """Return a batch of an invocation that has so much time left, whenever it is asked."""
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: milliseconds)
    return ddg_metric_submit.Batch(SETTINGS, context, Counter())


def one_point() -> tuple[ddg_metric_submit.Delivery, ddg_metric_submit.Payload]:
    """Return a file with a point of now, and the payload of it."""
    delivery = ddg_metric_submit.Delivery("bucket", "stats/a", points=1)
    return delivery, [(delivery, Sample(int(time.time()), (), {"m": 1}))]


def test_seconds_left_are_without_the_reserve() -> None:
    """Lambda tells milliseconds."""
    assert batch_with(30_000).seconds_left() == 29.0


@pytest.mark.parametrize(("seconds", "waited"), [(2.5, 2.5), (0.5, 0.5), (0.0, 0.0), (-3.0, 0.0)])
def test_a_thread_is_waited_for_no_longer_than_asked(seconds: float, waited: float) -> None:
    """Nor for a time that is over."""
    asked: list[float] = []
    future: Any = SimpleNamespace(result=asked.append)
    ddg_metric_submit.wait_for(future, seconds)
    assert asked == [waited]


def test_threads_are_kept_until_one_hangs() -> None:
    """They serve all invocations; with one that hangs all are left behind, and its place."""
    kept = ddg_metric_submit.threads("s3"), ddg_metric_submit.reader()
    assert (ddg_metric_submit.threads("s3"), ddg_metric_submit.reader()) == kept
    hanging: Future[None] = Future()
    with pytest.raises(TimeoutError):
        ddg_metric_submit.wait_for(hanging, 0)
    assert hanging.cancelled()
    assert ddg_metric_submit.threads("s3") is not kept[0]
    assert ddg_metric_submit.reader() is not kept[1]


def test_a_service_that_hangs_keeps_no_other_waiting() -> None:
    """Neither the key nor a refusal waits for objects that S3 doesn't send."""
    released = threading.Event()
    hanging = ddg_metric_submit.threads("s3")
    try:
        for _ in range(2 * ddg_metric_submit.FETCH_THREADS):
            hanging.submit(released.wait)
        for service in ("sqs", "secretsmanager"):
            assert ddg_metric_submit.threads(service).submit(int).result(5) == 0
    finally:
        released.set()


def test_objects_have_the_most_threads() -> None:
    """S3 is waited for; where an answer is no more than noted, threads but share the CPU."""
    services = map(ddg_metric_submit.threads.__wrapped__, ("s3", "sqs", "secretsmanager"))
    assert [executor._max_workers for executor in services] == [32, 8, 8]


@pytest.mark.parametrize("service", get_args(ddg_metric_submit.Service))
def test_aws_is_asked_as_the_page_of_limits_says(
    monkeypatch: pytest.MonkeyPatch, service: ddg_metric_submit.Service
) -> None:
    """Two seconds for a connection, five of silence, three tries in all; as many side by side."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    config = ddg_metric_submit.aws_client.__wrapped__(service).meta.config
    assert (config.connect_timeout, config.read_timeout) == (2, 5)
    assert config.retries == {"mode": "standard", "total_max_attempts": 3}
    assert config.max_pool_connections == 32


@pytest.mark.parametrize(
    ("counts", "order"),
    [
        pytest.param([None, 1], [0, 1], id="not-told-counts-as-one"),
        pytest.param([1, None], [0, 1], id="whichever-comes-first"),
        pytest.param([1, 3, 2, 3], [1, 3, 2, 0], id="most-often-first"),
    ],
)
def test_messages_received_most_often_go_first(counts: list[int | None], order: list[int]) -> None:
    """SQS tells with each how often that is."""
    records = [
        {"messageId": str(place), "body": "{}"}
        | ({"attributes": {"ApproximateReceiveCount": str(count)}} if count else {})
        for place, count in enumerate(counts)
    ]
    messages = ddg_metric_submit.read_messages({"Records": records})
    assert [int(message.message_id) for message in messages] == order


def test_time_for_s3_leaves_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object is waited for until what is read could no longer be parsed."""
    asked: list[float] = []

    def wait_for(future: Future[Any], seconds: float) -> bytes:
        asked.append(seconds)
        raise TimeoutError

    monkeypatch.setattr(ddg_metric_submit, "wait_for", wait_for)
    monkeypatch.setattr(ddg_metric_submit, "aws_client", lambda service: None)
    for milliseconds in (30_000, 4_000):
        batch = batch_with(milliseconds)
        delivery = ddg_metric_submit.Delivery("bucket", "stats/a.json")
        assert list(ddg_metric_submit.read_files([delivery], batch)) == []
        assert delivery.retried
    # Of 4 seconds 1 is kept for the answer, 1.5 for parsing and posting
    assert asked == [5.0, 1.5]


@pytest.mark.parametrize(("milliseconds", "parsed"), [(2_500, True), (2_499, False)])
def test_nothing_is_parsed_that_could_not_be_posted(
    monkeypatch: pytest.MonkeyPatch, milliseconds: int, parsed: bool
) -> None:
    """1 second is kept for the answer, 1.25 for posting; parsing takes a quarter here."""
    content = json.dumps({"timestamp": int(time.time()), "m": 1}).encode()
    monkeypatch.setattr(ddg_metric_submit, "PARSE_BYTES_PER_SECOND", 4 * len(content))
    monkeypatch.setattr(ddg_metric_submit, "wait_for", lambda future, seconds: content)
    monkeypatch.setattr(ddg_metric_submit, "aws_client", lambda service: None)
    batch = batch_with(milliseconds)
    delivery = ddg_metric_submit.Delivery("bucket", "stats/a.json")
    assert bool(list(ddg_metric_submit.read_files([delivery], batch))) == parsed
    assert delivery.points == (1 if parsed else None)


@pytest.mark.parametrize(("milliseconds", "parsed"), [(4_250, True), (4_249, False)])
def test_gzip_is_parsed_as_what_it_may_hold(
    monkeypatch: pytest.MonkeyPatch, milliseconds: int, parsed: bool
) -> None:
    """Deflated to a thousandth at best: as if it took so much longer."""
    content = gzip.compress(json.dumps({"timestamp": int(time.time()), "m": 1}).encode())
    monkeypatch.setattr(ddg_metric_submit, "PARSE_BYTES_PER_SECOND", 1032 / 2 * len(content))
    monkeypatch.setattr(ddg_metric_submit, "wait_for", lambda future, seconds: content)
    monkeypatch.setattr(ddg_metric_submit, "aws_client", lambda service: None)
    delivery = ddg_metric_submit.Delivery("bucket", "stats/a.json.gz")
    read = ddg_metric_submit.read_files([delivery], batch_with(milliseconds))
    assert bool(list(read)) == parsed


def test_milliseconds_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fetching and of posting, in the summary."""
    ticks = iter([5.0, 7.25, 10.0, 12.5, 13.0, 13.0])
    sizes = iter([1, 0])  # what is too large isn't sent, and no request
    monkeypatch.setattr(
        ddg_metric_submit, "time", SimpleNamespace(monotonic=lambda: next(ticks), time=time.time)
    )
    monkeypatch.setattr(ddg_metric_submit, "wait_for", lambda future, seconds: b"{")
    monkeypatch.setattr(ddg_metric_submit, "aws_client", lambda service: None)
    monkeypatch.setattr(ddg_series_api, "post", lambda *_, **__: Answer(202, "", next(sizes)))
    batch = batch_with(30_000)
    delivery = ddg_metric_submit.Delivery("bucket", "stats/a.json")
    assert list(ddg_metric_submit.read_files([delivery], batch)) == []
    ddg_metric_submit.post([], batch, 10)
    ddg_metric_submit.post([], batch, 10)
    assert batch.totals == {
        "FetchMilliseconds": 2250,
        "PostMilliseconds": 2500,
        "Requests": 1,
        "WireBytes": 1,
    }


@pytest.mark.parametrize(
    ("most", "collisions"), [pytest.param(5, 2, id="room"), pytest.param(4, 0, id="no-room")]
)
def test_collisions_are_remembered_over_so_many_points(
    monkeypatch: pytest.MonkeyPatch, most: int, collisions: int
) -> None:
    """What is remembered and what comes, together."""
    monkeypatch.setattr(ddg_metric_submit, "MAX_COLLISION_POINTS", most)
    owners: ddg_metric_submit.Owners = {}
    counts = []
    for file, metrics in (("a", "xyz"), ("b", "xy")):
        delivery = ddg_metric_submit.Delivery("bucket", file)
        payload = [(delivery, Sample(1575839011, (), dict.fromkeys(metrics, 1)))]
        counts.append(ddg_metric_submit.count_collisions(payload, owners))
    assert counts == [0, collisions]


class Executor:
    """Stands in for the threads: nothing runs, all that was asked for is here."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, *call: Any, **options: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Executor:
    """Let objects be fetched by nobody."""
    executor = Executor()
    monkeypatch.setattr(ddg_metric_submit, "threads", lambda service: executor)
    monkeypatch.setattr(ddg_metric_submit, "aws_client", lambda service: None)
    return executor


def fetching(files: int, milliseconds: int) -> Generator[Any]:
    """Begin to fetch so many files with so much time left."""
    deliveries = [ddg_metric_submit.Delivery("bucket", f"stats/{n}") for n in range(files)]
    fetches = ddg_metric_submit.fetch_ahead(deliveries, batch_with(milliseconds))
    return cast("Generator[Any]", fetches)


def test_objects_are_fetched_ahead_by_so_many(executor: Executor) -> None:
    """One more as one is taken; in their order."""
    ahead = ddg_metric_submit.FETCH_AHEAD
    fetches = fetching(ahead + 3, 30_000)
    taken = [next(fetches)]
    assert len(executor.futures) == ahead
    taken.append(next(fetches))
    assert len(executor.futures) == ahead + 1
    taken += fetches
    assert [delivery.key for delivery, _ in taken] == [f"stats/{n}" for n in range(ahead + 3)]
    assert [future for _, future in taken] == executor.futures


@pytest.mark.parametrize(("milliseconds", "fetched"), [(2_500, 2), (2_499, 0)])
def test_nothing_is_fetched_that_could_not_be_parsed(
    executor: Executor, milliseconds: int, fetched: int
) -> None:
    """1 second is kept for the answer, 1.5 for parsing and posting."""
    assert len(list(fetching(2, milliseconds))) == len(executor.futures) == fetched


def test_what_nobody_waits_for_is_not_fetched(executor: Executor) -> None:
    """Where reading ends early."""
    fetches = fetching(5, 30_000)
    next(fetches)
    fetches.close()
    assert [future.cancelled() for future in executor.futures] == [False, True, True, True, True]


def test_of_an_object_of_unknown_length_a_byte_too_much_is_read() -> None:
    """So that it is known to be too large; never all of it."""
    asked: list[int] = []

    def read(size: int) -> bytes:
        asked.append(size)
        return b""

    body = SimpleNamespace(read=read)
    s3 = SimpleNamespace(get_object=lambda **_: {"Body": body})
    delivery = ddg_metric_submit.Delivery("bucket", "stats/a")
    ddg_metric_submit.get_object(s3, delivery, MAX_FILE_BYTES)
    assert asked == [MAX_FILE_BYTES + 1]


@pytest.mark.parametrize(
    ("left", "answers", "posts", "pauses", "reason"),
    [
        pytest.param(1.0, [202], 1, [], "", id="just-enough"),
        pytest.param(0.99, [202], 0, [], "no time", id="too-little"),
        pytest.param(1.3, [503, 202], 2, [0.2], "", id="enough-for-a-pause"),
        pytest.param(9.0, [503, 503, 202], 3, [0.2, 0.8], "", id="enough-for-two"),
        pytest.param(9.0, [503, 503, 503, 202], 3, [0.2, 0.8], "503", id="no-third"),
        pytest.param(1.1, [503, 202], 1, [0.2], "503", id="too-little-after-a-pause"),
        pytest.param(1.0, [503, 202], 1, [], "503", id="too-little-for-a-pause"),
    ],
)
def test_a_post_takes_a_second(
    monkeypatch: pytest.MonkeyPatch,
    left: float,
    answers: list[int],
    posts: int,
    pauses: list[float],
    reason: str,
) -> None:
    """With less none is started, and the reason is the first trouble, not the time it took."""
    clock = SimpleNamespace(left=left, pauses=[])

    def sleep(seconds: float) -> None:
        clock.left -= seconds
        clock.pauses.append(seconds)

    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 1000 * (clock.left + 1))
    monkeypatch.setattr(
        ddg_metric_submit, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.time)
    )
    given = iter(answers)
    monkeypatch.setattr(ddg_series_api, "post", lambda *_, **__: Answer(next(given), "", 7))
    batch = ddg_metric_submit.Batch(SETTINGS, context, Counter())
    delivery, payload = one_point()
    stopped = ddg_metric_submit.post_payloads([payload], batch)
    assert reason in stopped
    assert bool(reason) == bool(stopped)
    assert (batch.totals["Requests"], clock.pauses) == (posts, pauses)
    assert delivery.accepted == (not reason)


def test_pauses_are_those_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage that comes and goes doesn't make it sleep once a payload."""
    given = iter([503, 202, 503, 202, 503, 202])
    paused: list[float] = []
    monkeypatch.setattr("time.sleep", paused.append)
    monkeypatch.setattr(ddg_series_api, "post", lambda *_, **__: Answer(next(given), "", 7))
    files = [one_point() for _ in range(3)]
    stopped = ddg_metric_submit.post_payloads([payload for _, payload in files], batch_with(30_000))
    assert "503" in stopped
    assert [delivery.accepted for delivery, _ in files] == [1, 1, 0]
    assert paused == [0.2, 0.8]


@pytest.mark.parametrize(
    ("status", "posts"),
    [(0, 3), (407, 1), (408, 3), (409, 1), (429, 1), (499, 1), (500, 3), (599, 3), (600, 1)],
)
def test_only_an_outage_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, status: int, posts: int
) -> None:
    """No answer, a timeout, an error of Datadog's: three times in all. No pause mends others."""
    monkeypatch.setattr(ddg_metric_submit, "RETRY_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(ddg_series_api, "post", lambda *_, **__: Answer(status, "", 7))
    batch = batch_with(30_000)
    _, payload = one_point()
    assert ddg_metric_submit.post_payloads([payload], batch)
    assert batch.totals["Requests"] == posts


@pytest.mark.parametrize(("milliseconds", "seconds"), [(10_000, 9.5), (300, 0)])
def test_the_rejected_queue_may_take_half_of_the_reserve(
    monkeypatch: pytest.MonkeyPatch, executor: Executor, milliseconds: int, seconds: float
) -> None:
    """The other half is the answer's: what isn't kept by then is not begun, and retried."""
    asked: list[float] = []
    monkeypatch.setattr("concurrent.futures.wait", lambda sends, timeout: asked.append(timeout))
    refused = [
        ddg_metric_submit.Message("1", "body", 1, [ddg_metric_submit.Delivery("b", "k", "x")])
        for _ in range(5)
    ]
    ddg_metric_submit.keep_refused(refused, batch_with(milliseconds))
    assert asked == [seconds]
    assert all(send.cancelled() for send in executor.futures)
    assert [message.has("Retried") for message in refused] == [True] * 5


def test_threads_that_hang_over_a_refusal_are_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch's refusals have threads of their own; a refusal that was kept stays so."""
    released = threading.Event()

    def keep(sqs: Any, url: str, message: ddg_metric_submit.Message) -> str:
        if message.body == "hangs":
            released.wait()
        return ""

    monkeypatch.setattr(ddg_metric_submit, "keep", keep)
    monkeypatch.setattr(ddg_metric_submit, "aws_client", lambda service: None)
    monkeypatch.setattr("concurrent.futures.wait", lambda sends, timeout: sends[0].result())
    kept = ddg_metric_submit.threads("sqs")
    messages = [
        ddg_metric_submit.Message("1", body, 1, [ddg_metric_submit.Delivery("b", "k", "x")])
        for body in ("kept", "hangs")
    ]
    try:
        ddg_metric_submit.keep_refused(messages[:1], batch_with(10_000))
        assert ddg_metric_submit.threads("sqs") is kept
        ddg_metric_submit.keep_refused(messages, batch_with(10_000))
        assert [message.has("Refused") for message in messages] == [True, False]
        assert ddg_metric_submit.threads("sqs") is not kept
    finally:
        released.set()


def refused_message(body: str, *reasons: str) -> ddg_metric_submit.Message:
    """Return a message with as many refused files, of a bucket each."""
    deliveries = [
        ddg_metric_submit.Delivery(f"bucket-{n}", f"key-{n}", reason)
        for n, reason in enumerate(reasons, 1)
    ]
    return ddg_metric_submit.Message("1", body, 1, deliveries)


@pytest.mark.parametrize(
    ("spare", "kept"),
    [
        pytest.param(0, "key-1: {}; key-2: second", id="room"),
        pytest.param(-1, "2 files: key-1, key-2: {}", id="no-room"),
    ],
)
def test_reasons_are_told_where_there_is_room(spare: int, kept: str) -> None:
    """All of them in a kilobyte, else the first; bucket and key are the first one's."""
    first = "x" * (ddg_metric_submit.MAX_REASON_BYTES - len("key-1: ; key-2: second") - spare)
    message = ddg_metric_submit.rejected_message(refused_message("body", first, "second"))
    attributes = {
        name: attribute["StringValue"] for name, attribute in message["MessageAttributes"].items()
    }
    reason = kept.format(first)[: ddg_metric_submit.MAX_REASON_BYTES]
    assert attributes == {"reason": reason, "bucket": "bucket-1", "key": "key-1"}


@pytest.mark.parametrize("named", [True, False])
def test_message_that_names_half_of_its_objects_tells_the_first(named: bool) -> None:
    """A record that names none comes last, and has neither bucket nor key."""
    message = refused_message("body", *(["malformed"] if named else []))
    message.deliveries.append(ddg_metric_submit.Delivery("", "", "no object"))
    kept = ddg_metric_submit.rejected_message(message)["MessageAttributes"]
    assert set(kept) == ({"reason", "bucket", "key"} if named else {"reason"})


@pytest.mark.parametrize(("spare", "attributes"), [(0, 3), (-1, 0)])
def test_a_message_is_as_large_as_sqs_takes(spare: int, attributes: int) -> None:
    """Its body goes before its reason."""
    texts = "reasonStringbad" + "bucketStringbucket-1" + "keyStringkey-1"
    body = "x" * (ddg_metric_submit.MAX_MESSAGE_BYTES - len(texts) - spare)
    message = ddg_metric_submit.rejected_message(refused_message(body, "bad"))
    assert message["MessageBody"] == body
    assert len(message["MessageAttributes"]) == attributes


@pytest.mark.parametrize("files", [19, 20, 21])
def test_so_many_keys_are_shown(capsys: pytest.CaptureFixture[str], files: int) -> None:
    """And that there are more, where there are."""
    shown = ddg_metric_submit.SHOWN_KEYS
    deliveries = [
        ddg_metric_submit.Delivery("bucket", f"key-{n}", retried="why") for n in range(files)
    ]
    ddg_metric_submit.print_outcomes([ddg_metric_submit.Message("1", "body", 1, deliveries)])
    line = capsys.readouterr().out
    assert line.count("s3://bucket/key-") == min(files, shown)
    assert line.endswith(", ...\n") == (files > shown)


def test_the_summary_is_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its time in milliseconds; what is killed after it has told it."""
    stdout = BytesIO()
    monkeypatch.setattr("sys.stdout", TextIOWrapper(stdout))
    monkeypatch.setattr(ddg_metric_submit, "time", SimpleNamespace(time=lambda: 1575839011.25))
    context = SimpleNamespace(function_name="submit")
    ddg_metric_submit.print_summary([], ddg_metric_submit.Batch(SETTINGS, context, Counter()))
    assert json.loads(stdout.getvalue())["_aws"]["Timestamp"] == 1575839011250
