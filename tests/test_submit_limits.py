"""The submitter: payloads that are too large, files that Datadog refuses, and large batches."""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from local.datadog_server import Answer, DatadogServer, Request
from tests.events import bulky, sqs_record, stats
from tests.scripted_server import Call, ScriptedServer, bucket_of, response
from tests.submitter import Outcome, Submitter

ROOT = Path(__file__).parent.parent
MAX_PAYLOAD_BYTES = 5_242_880  # Datadog series API v2, decompressed
MAX_WIRE_BYTES = 512_000  # Datadog series API v2, compressed
MAX_EXTRA_REQUESTS = 64  # the submitter's own, named in its contract
POISONED = b'{"status": "error", "errors": ["poison in the series"]}'


def submit_from(
    submitter: Submitter, files: Mapping[str, bytes], *messages: Mapping[str, Any]
) -> Outcome:
    """Submit files from a scripted S3, which is faster than moto; by default a message each."""
    with submitter.reading_from(bucket_of(files)):
        return submitter.submit(*(messages or [sqs_record([key]) for key in files]))


def poisonous(request: Request) -> Answer | None:
    """Answer as Datadog if it found every series fault that has poison in its name."""
    poison = any("poison" in series["metric"] for series in request.series or ())
    return Answer(400, POISONED) if poison else None


def stored_points(datadog: DatadogServer) -> int:
    return sum(map(len, datadog.points.values()))


# --- Payloads ---


def plain_bytes(request: Request) -> int:
    """Return the size of a request's JSON, as the datadog package wrote it."""
    return len(json.dumps({"series": request.series}))


def test_payloads_are_cut_at_the_json_limit(submitter: Submitter) -> None:
    """5,242,880 bytes each at most, as few as may be, and nothing is lost at the cuts."""
    files = {"stats/job/1.json": bulky(1, series=1800)}
    outcome = submit_from(submitter, files)
    assert outcome.files == (1, 0, 0)
    assert outcome.summary["Points"] == stored_points(submitter.datadog) == 1800
    first, second = [plain_bytes(request) for request in submitter.datadog.requests]
    assert 0.99 * MAX_PAYLOAD_BYTES < first <= MAX_PAYLOAD_BYTES
    assert second <= MAX_PAYLOAD_BYTES


def test_json_is_counted_as_it_is_written(submitter: Submitter) -> None:
    """Integers are written as floats, long ones with exponents, and letters as escapes."""
    numbers = [123_456_789_012_345_678_901, -1.5e-300, 5, 0.1]
    metrics = {f"m{n:04}": numbers[n % 4] for n in range(6000)}
    tags = [f"t{n}:{'é' * 40}" for n in range(4)]
    content = json.dumps({"timestamp": int(time.time()), "tags": tags, **metrics}).encode()
    outcome = submit_from(submitter, {"stats/a.json": content})
    assert outcome.files == (1, 0, 0)
    first, _ = [plain_bytes(request) for request in submitter.datadog.requests]
    assert 0.99 * MAX_PAYLOAD_BYTES < first <= MAX_PAYLOAD_BYTES
    assert stored_points(submitter.datadog) == 6000


NOISE = "".join(random.Random(1).choices(string.ascii_lowercase + string.digits, k=100_000))


def noisy(number: int, *, objects: int) -> bytes:
    """Return a stats file that hardly compresses: about 16 KB of JSON an object, 11 on the wire."""
    now = int(time.time())
    lines = []
    for n in range(number * objects, (number + 1) * objects):
        tags = [
            f"n{n}:" + NOISE[(start := (n * 7919 + k * 1009) % 99_000) : start + 190]
            for k in range(80)
        ]
        lines.append(json.dumps({"timestamp": now, "m": n, "tags": tags}))
    return "\n".join(lines).encode()


def test_payloads_are_cut_at_the_wire_limit(submitter: Submitter) -> None:
    """512,000 bytes each at most, where the JSON alone would have fitted."""
    files = {f"stats/{n}.json": noisy(n, objects=20) for n in range(5)}
    outcome = submit_from(submitter, files)
    assert outcome.files == (5, 0, 0)
    assert stored_points(submitter.datadog) == 5 * 20
    wire = [request.wire_bytes for request in submitter.datadog.requests]
    assert max(wire) <= MAX_WIRE_BYTES
    assert outcome.summary["WireBytes"] == sum(wire) > MAX_WIRE_BYTES


def test_cutting_to_size_uses_up_no_extra_requests(
    submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is that hardly compresses: an honest Datadog gets all of it."""
    import ddg_series_api

    # In small, else this would take a tenth of a gigabyte
    monkeypatch.setattr(ddg_series_api, "MAX_PAYLOAD_BYTES", MAX_PAYLOAD_BYTES // 20)
    monkeypatch.setattr(ddg_series_api, "MAX_WIRE_BYTES", MAX_WIRE_BYTES // 20)
    files = {f"stats/{n}.json": noisy(n, objects=20) for n in range(10)}
    outcome = submit_from(submitter, files)
    assert outcome.files == (10, 0, 0)
    assert outcome.summary["Requests"] > MAX_EXTRA_REQUESTS + 20


def test_no_post_without_points(submitter: Submitter) -> None:
    """Nothing to say is no request."""
    assert submit_from(submitter, {"stats/": b"", "stats/a.json": b"{}"}).summary["Requests"] == 0


def test_outage_ends_the_reading_too(submitter: Submitter) -> None:
    """Where the first payload meets an outage, what isn't fetched by then isn't."""
    submitter.datadog.respond = lambda request: Answer(503)
    files = {f"stats/{n}": bulky(n, series=700) for n in range(2)}
    files |= {f"stats/{n}": stats() for n in range(2, 200)}
    with submitter.reading_from(bucket_of(files)) as s3:
        outcome = submitter.submit(*(sqs_record([key]) for key in files))
    assert outcome.files == (0, 0, 200)
    assert len(s3.calls) <= 2 + 64 + 2
    assert len(outcome.log) == 1


# --- 413 ---


def test_413_is_split_until_it_fits(submitter: Submitter) -> None:
    """By files, then by points: all arrive, however small a payload must be."""
    submitter.datadog.respond = lambda request: (
        Answer(413) if sum(len(series["points"]) for series in request.series or ()) > 3 else None
    )
    files = {f"stats/{n}.json": stats(age=n, a=1, b=2, c=3, d=4, e=5) for n in range(4)}
    outcome = submit_from(submitter, files)
    assert outcome.files == (4, 0, 0)
    assert outcome.summary["Points"] == stored_points(submitter.datadog) == 20


def test_single_point_that_is_too_large_is_refused(submitter: Submitter) -> None:
    """That file alone, with Datadog's answer as the reason."""
    answer = Answer(413, b'{"errors": ["Payload too large"]}')
    submitter.datadog.respond = lambda request: answer if poisonous(request) else None
    files = {f"stats/{n}.json": stats(age=n, a=1, b=2, c=3, d=4) for n in range(9)}
    files["stats/4.json"] = stats(age=4, a=1, b=2, poison=3, d=4)
    outcome = submit_from(submitter, files)
    assert outcome.files == (8, 1, 0)
    [rejected] = outcome.rejected
    assert rejected.attributes["key"] == "stats/4.json"
    assert "413" in rejected.attributes["reason"]
    assert "Payload too large" in rejected.attributes["reason"]
    assert len(outcome.log) == 1


def test_nothing_but_413_ends(submitter: Submitter) -> None:
    """Files are refused point by point, the requests are limited, and each round gets further."""
    submitter.datadog.respond = lambda request: Answer(413)
    files = {f"stats/{n:02}.json": stats(age=n, a=1, b=2, c=3) for n in range(40)}
    outcome = submit_from(submitter, files)
    submitted, refused, retried = outcome.files
    assert (submitted, refused + retried) == (0, 40)
    assert refused > 5
    assert outcome.summary["Requests"] <= MAX_EXTRA_REQUESTS + 1


# --- 400 ---


@pytest.mark.parametrize("place", [0, 1, 19, 20, 38, 39])
def test_one_poison_among_forty(submitter: Submitter, place: int) -> None:
    """Found in at most 20 requests; that file is refused, the others are submitted."""
    submitter.datadog.respond = poisonous
    files = {f"stats/{n:02}.json": stats(age=n, m=n, n=n) for n in range(40)}
    poisoned = f"stats/{place:02}.json"
    files[poisoned] = stats(age=place, m=1, poison=1)
    outcome = submit_from(submitter, files)
    assert outcome.files == (39, 1, 0)
    assert outcome.summary["Requests"] == len(submitter.datadog.requests) <= 20
    assert stored_points(submitter.datadog) == 39 * 2
    [rejected] = outcome.rejected
    assert rejected.attributes["key"] == poisoned
    assert "400" in rejected.attributes["reason"]
    assert "poison in the series" in rejected.attributes["reason"]
    assert poisoned in outcome.log[0]


def test_several_poisons(submitter: Submitter) -> None:
    """Each is found; each costs a logarithm."""
    submitter.datadog.respond = poisonous
    poisoned = {3, 4, 21, 39}
    files = {
        f"stats/{n:02}.json": stats(age=n, **{"poison" if n in poisoned else "m": n})
        for n in range(40)
    }
    outcome = submit_from(submitter, files)
    assert outcome.files == (36, 4, 0)
    assert outcome.summary["Requests"] <= 20 * len(poisoned)
    keys = {rejected.attributes["key"] for rejected in outcome.rejected}
    assert keys == {f"stats/{n:02}.json" for n in poisoned}
    assert stored_points(submitter.datadog) == 36


def test_poison_among_the_files_of_a_message(submitter: Submitter) -> None:
    """The message is refused for both, naming each and not their neighbours."""
    submitter.datadog.respond = poisonous
    files = {f"stats/{n}.json": stats(age=n, **{"poison" if n < 2 else "m": n}) for n in range(6)}
    keys = list(files)
    outcome = submit_from(
        submitter, files, sqs_record(["stats/3.json", *keys[:3]]), sqs_record(keys[4:])
    )
    assert outcome.files == (4, 2, 0)
    [reason] = outcome.reasons
    assert [key in reason for key in keys] == [True, True, False, False, False, False]


def test_poison_that_is_there_twice(submitter: Submitter) -> None:
    """S3 may notify twice: both messages are refused."""
    submitter.datadog.respond = poisonous
    files = {"stats/a.json": stats(poison=1), "stats/b.json": stats()}
    keys = ["stats/a.json", "stats/b.json", "stats/a.json"]
    outcome = submit_from(submitter, files, *(sqs_record([key]) for key in keys))
    assert outcome.files == (1, 2, 0)
    assert len(outcome.rejected) == 2


def test_poison_in_a_large_file(submitter: Submitter) -> None:
    """A file of several payloads is one file: it is refused, its neighbours are not."""
    submitter.datadog.respond = poisonous
    large = json.loads(bulky(1, series=1500))
    files = {"stats/a.json": stats(m=1), "stats/b.json": b"", "stats/c.json": stats(age=1, m=1)}
    files["stats/b.json"] = json.dumps(large | {"poison": 1}).encode()
    outcome = submit_from(submitter, files)
    assert outcome.files == (2, 1, 0)
    assert outcome.rejected[0].attributes["key"] == "stats/b.json"


def test_outage_while_poison_is_looked_for(submitter: Submitter) -> None:
    """What is not known to be submitted or refused is retried."""
    answers = [Answer(400, POISONED), None, Answer(429)]
    submitter.datadog.respond = lambda request: answers.pop(0)
    files = {f"stats/{n}.json": stats(age=n) for n in range(8)}
    outcome = submit_from(submitter, files)
    assert outcome.files == (4, 0, 4)
    assert outcome.retried == [4, 5, 6, 7]
    assert stored_points(submitter.datadog) == 4


def test_stubborn_batch_ends(submitter: Submitter) -> None:
    """Whatever Datadog answers: 64 requests beyond the one, and after some rounds none is left."""
    submitter.datadog.respond = lambda request: Answer(400, POISONED)
    files = {f"stats/{n:03}.json": stats(age=n) for n in range(70)}
    waiting = [sqs_record([key]) for key in files]
    refused: list[str] = []
    with submitter.reading_from(bucket_of(files)):
        for receive_count in range(1, 6):
            for message in waiting:
                message["attributes"]["ApproximateReceiveCount"] = str(receive_count)
            outcome = submitter.submit(*waiting)
            assert outcome.summary["Requests"] <= MAX_EXTRA_REQUESTS + 1
            assert outcome.files == (0, len(outcome.rejected), len(outcome.retried))
            refused += [rejected.attributes["key"] for rejected in outcome.rejected]
            waiting = [waiting[n] for n in outcome.retried]
    assert waiting == []
    assert sorted(refused) == sorted(files)


def test_what_was_received_most_often_goes_first(submitter: Submitter) -> None:
    """Else a stubborn batch would look for the same poison in every round."""
    submitter.datadog.respond = lambda request: Answer(400, POISONED)
    files = {f"stats/{n:03}.json": stats(age=n) for n in range(120)}
    counts = {key: 1 + n // 30 for n, key in enumerate(files)}
    messages = [sqs_record([key], receive_count=counts[key]) for key in files]
    outcome = submit_from(submitter, files, *messages)
    assert outcome.summary["Requests"] == MAX_EXTRA_REQUESTS + 1
    refused = [counts[rejected.attributes["key"]] for rejected in outcome.rejected]
    assert refused.count(4) == 30
    assert set(refused) <= {3, 4}
    assert "limit" in outcome.log[-1]


def test_receive_count_is_a_number(submitter: Submitter) -> None:
    """10 is more than 9, though SQS gives both as strings."""
    submitter.datadog.respond = lambda request: Answer(400, POISONED)
    files = {f"stats/{n:03}.json": stats(age=n) for n in range(100)}
    messages = [sqs_record([key], receive_count=9) for key in files]
    messages[99]["attributes"]["ApproximateReceiveCount"] = "10"
    outcome = submit_from(submitter, files, *messages)
    assert "stats/099.json" in {rejected.attributes["key"] for rejected in outcome.rejected}


# --- Large batches, in a process of their own ---

INVOKE = """
import json, sys, threading
from tests.events import Context, sqs_event, sqs_record
import ddg_metric_submit

class Watched(Context):
    threads = 0

    def get_remaining_time_in_millis(self):
        self.threads = max(self.threads, threading.active_count())
        return super().get_remaining_time_in_millis()

files, seconds = int(sys.argv[1]), float(sys.argv[2])
event = sqs_event([sqs_record([f"stats/job-{n % 4}/{n}"]) for n in range(files)])
context = Watched(seconds)
answer = ddg_metric_submit.lambda_handler(event, context)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
left = context.get_remaining_time_in_millis() / 1000
print(json.dumps([len(answer["batchItemFailures"]), context.threads, int(peak), left]), flush=True)
import os
os._exit(0)  # a thread that still waits for S3 would keep the process
"""


class Run:
    """One batch in a new process: its summary, and what it cost."""

    def __init__(
        self,
        script: Callable[[Call], Any],
        datadog: DatadogServer,
        *,
        files: int,
        seconds: float,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with ScriptedServer(script) as s3:
            monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
            monkeypatch.setenv("DATADOG_API_KEY", "test-key")
            monkeypatch.setenv("DATADOG_HOST", datadog.url)
            monkeypatch.setenv("REJECTED_QUEUE_URL", f"{s3.url}/1/rejected")
            command = [sys.executable, "-c", INVOKE, str(files), str(seconds)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            self.gets = len(s3.calls)
        *told, summary, cost = done.stdout.splitlines()
        self.summary = json.loads(summary)
        self.retried, self.threads, kilobytes, self.seconds_left = json.loads(cost)
        self.megabytes = kilobytes / 1024
        self.log = told + done.stderr.splitlines()


def test_ten_thousand_files(datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest batch that Lambda gives: one POST, a bounded number of threads, little memory."""
    now = int(time.time())

    def small(call: Call) -> bytes:
        n = int(call.path.rpartition("/")[2])
        return response(body=b'{"timestamp": %d, "m": %d, "n": %d}' % (now - n // 4, n, n))

    run = Run(small, datadog, files=10_000, seconds=300, monkeypatch=monkeypatch)
    assert run.retried == 0
    assert (run.summary["Submitted"], run.summary["Points"]) == (10_000, 20_000)
    assert run.summary["Requests"] == len(datadog.requests) == 1
    assert stored_points(datadog) == 20_000
    assert run.gets == 10_000
    assert run.threads <= 40
    assert run.megabytes < 160
    assert run.log == []


def dense(size: int) -> bytes:
    """Return JSON Lines of that many bytes, which take much more of them once they are read."""
    now, length = int(time.time()), 0
    lines: list[str] = []
    while length < size - 200:
        n = len(lines)
        lines.append(
            json.dumps({"timestamp": now - n % 3000, "tags": [f"s:{n // 3000}"], "rows.read": n})
        )
        length += len(lines[-1]) + 1
    return "\n".join(lines).encode()


def test_ten_files_at_the_size_limit(
    datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They don't exhaust the memory together, and so take no innocents with them."""
    limit = 10 * 1024 * 1024
    content = dense(limit)
    answers = {"3": response(body=content), "4": response(body=content + b"x")}
    padded = response(body=stats() + b" " * (limit - 100))

    def large(call: Call) -> bytes:
        if call.method == "POST":  # the rejected queue
            return response(body=b'{"MessageId": "example"}')
        return answers.get(call.path.rpartition("/")[2], padded)

    run = Run(large, datadog, files=10, seconds=300, monkeypatch=monkeypatch)
    assert (run.summary["Submitted"], run.summary["Refused"]) == (9, 1)
    assert run.megabytes < 256


def test_many_large_files(datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do thirty, of which each could be read by a thread of its own."""
    padded = response(body=stats() + b" " * (10 * 1024 * 1024 - 100))
    run = Run(lambda call: padded, datadog, files=30, seconds=300, monkeypatch=monkeypatch)
    assert run.summary["Submitted"] == 30
    assert run.megabytes < 120
    assert run.log == []


def test_slow_s3_costs_few_threads_and_requests(
    datadog: DatadogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time is up nothing more is begun, however many files the batch names."""

    def silent(call: Call) -> bytes:
        call.stopping.wait()
        raise ConnectionAbortedError

    run = Run(silent, datadog, files=2000, seconds=3.5, monkeypatch=monkeypatch)
    assert run.retried == run.summary["Retried"] == 2000
    assert run.seconds_left > 0.25
    assert run.threads <= 80
    assert run.gets <= 128
    assert datadog.requests == []
    assert len(run.log) <= 2
