"""The submitter: payloads as large as they may be, and how large batches grow."""

import json
import os
import random
import string
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.datadog_server import DatadogServer, Request
from tests.events import STARTED, bulky, stats
from tests.scripted_server import Call, Script, ScriptedServer, response, silent
from tests.submitter import API_KEY, Submitter

ROOT = Path(__file__).parent.parent
MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_PAYLOAD_BYTES = 5_242_880  # Datadog series API v2, decompressed
MAX_WIRE_BYTES = 512_000  # Datadog series API v2, compressed
MAX_EXTRA_REQUESTS = 64  # a batch's, beyond one a payload


# --- Payloads ---


def plain_bytes(request: Request) -> int:
    """Return the size of a request's JSON, as the datadog package wrote it."""
    return len(json.dumps({"series": request.series}))


def points_of(submitter: Submitter) -> int:
    return sum(map(len, submitter.datadog.points.values()))


def numbers(series: int) -> bytes:
    """Return a file of numbers that JSON writes in other ways, and tags that it escapes."""
    values = [123_456_789_012_345_678_901, -1.5e-300, -2.2250738585072014e-308, 0.1]
    metrics = {f"m{n:04}": values[n % 4] for n in range(series)}
    tags = [f"t{n}:{'é' * 40}" for n in range(4)]
    return json.dumps({"timestamp": STARTED, "tags": tags, **metrics}).encode()


@pytest.mark.parametrize(
    ("content", "points"), [(bulky(1, series=1800), 1800), (numbers(7000), 7000)], ids=["tags", "n"]
)
def test_payloads_are_cut_at_the_json_limit(
    submitter: Submitter, content: bytes, points: int
) -> None:
    """5,242,880 bytes each at most, as they are written; and nothing is lost at the cuts."""
    outcome = submitter.submit_from({"stats/job/1.json": content})
    assert outcome.files == (1, 0, 0)
    assert outcome.summary["Points"] == points_of(submitter) == points
    sizes = [plain_bytes(request) for request in submitter.datadog.requests]
    assert max(sizes) <= MAX_PAYLOAD_BYTES
    assert len(sizes) <= 2 * sum(sizes) / MAX_PAYLOAD_BYTES + 1


NOISE = "".join(random.Random(1).choices(string.ascii_lowercase + string.digits, k=100_000))


def noisy(number: int, *, objects: int) -> bytes:
    """Return a stats file that hardly compresses: about 16 KB of JSON an object, 11 on the wire."""
    lines = []
    for n in range(number * objects, (number + 1) * objects):
        starts = [(n * 7919 + k * 1009) % 99_000 for k in range(80)]
        tags = [f"n{n}:{NOISE[start : start + 190]}" for start in starts]
        lines.append(json.dumps({"timestamp": STARTED, "m": n, "tags": tags}))
    return "\n".join(lines).encode()


def test_payloads_are_cut_at_the_wire_limit(submitter: Submitter) -> None:
    """512,000 bytes each at most, where the JSON alone would have fitted."""
    outcome = submitter.submit_from({f"stats/{n}.json": noisy(n, objects=20) for n in range(5)})
    assert outcome.files == (5, 0, 0)
    assert points_of(submitter) == 5 * 20
    wire = [request.wire_bytes for request in submitter.datadog.requests]
    assert max(wire) <= MAX_WIRE_BYTES
    assert outcome.summary["WireBytes"] == sum(wire) > MAX_WIRE_BYTES
    assert outcome.summary["Requests"] == len(wire)


def test_cutting_to_size_uses_up_no_extra_requests(submitter: Submitter) -> None:
    """However much there is that hardly compresses: an honest Datadog gets all of it."""
    submitter.shrink_payloads()
    outcome = submitter.submit_from({f"stats/{n}.json": noisy(n, objects=20) for n in range(10)})
    assert outcome.files == (10, 0, 0)
    assert outcome.summary["Requests"] > MAX_EXTRA_REQUESTS + 20


# --- Large batches, in a process of their own ---

INVOKE = """
import json, os, sys, threading
from tests.events import Context, sqs_event, sqs_record
import ddg_metric_submit

threads = 0
start = threading.Thread.start
def counted(thread):
    global threads
    start(thread)
    threads = max(threads, threading.active_count())
threading.Thread.start = counted

files, seconds = int(sys.argv[1]), float(sys.argv[2])
event = sqs_event([sqs_record([f"stats/job-{n % 4}/{n}"]) for n in range(files)])
context = Context(seconds)
answer = ddg_metric_submit.lambda_handler(event, context)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
left = context.get_remaining_time_in_millis() / 1000
print(json.dumps([len(answer["batchItemFailures"]), threads, int(peak), left]), flush=True)
os._exit(0)  # a thread that still waits for S3 would keep the process
"""


class Run:
    """One batch in a new process: its summary, and what it cost."""

    def __init__(self, script: Script, datadog: DatadogServer, *, files: int, seconds: float = 300):
        with ScriptedServer(script) as s3:
            environment = {
                "AWS_ENDPOINT_URL": s3.url,
                "DATADOG_API_KEY": API_KEY,
                "DATADOG_HOST": datadog.url,
                "LOG_FILES": "false",
                "REJECTED_QUEUE_URL": f"{s3.url}/1/rejected",
            }
            done = subprocess.run(
                [sys.executable, "-c", INVOKE, str(files), str(seconds)],
                env=os.environ | environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            self.gets = len(s3.calls)
        *told, summary, cost = done.stdout.splitlines()
        self.summary = json.loads(summary)
        self.retried, self.threads, kilobytes, self.seconds_left = json.loads(cost)
        self.megabytes = kilobytes / 1024
        self.log = told + done.stderr.splitlines()


def test_ten_thousand_files(datadog: DatadogServer) -> None:
    """The largest batch that Lambda gives: one POST, a bounded number of threads, little memory."""
    now = int(time.time())

    def small(call: Call) -> bytes:
        n = int(call.path.rpartition("/")[2])
        return response(body=b'{"timestamp": %d, "m": %d, "n": %d}' % (now - n // 4, n, n))

    run = Run(small, datadog, files=10_000)
    assert run.retried == 0
    assert (run.summary["Submitted"], run.summary["Points"]) == (10_000, 20_000)
    assert run.summary["Requests"] == len(datadog.requests) == 1
    assert sum(map(len, datadog.points.values())) == 20_000
    assert run.gets == 10_000
    [request] = datadog.requests  # the points of a series stand side by side
    assert request.wire_bytes < 10 * 20_000
    assert plain_bytes(request) < 25 * 20_000
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


def test_files_at_the_size_limit(datadog: DatadogServer) -> None:
    """They don't exhaust the memory together, and so take no innocents with them."""
    content = dense(MAX_FILE_BYTES)
    answers = {"3": response(body=content), "4": response(body=content + b"x")}
    padded = response(body=stats() + b" " * (MAX_FILE_BYTES - 100))

    def large(call: Call) -> bytes:
        if call.method == "POST":  # the rejected queue
            return response(body=b'{"MessageId": "example"}')
        return answers.get(call.path.rpartition("/")[2], padded)

    run = Run(large, datadog, files=10)
    assert (run.summary["Submitted"], run.summary["Refused"]) == (9, 1)
    assert run.megabytes < 256
    run = Run(lambda call: padded, datadog, files=30)  # each could have a thread of its own
    assert run.summary["Submitted"] == 30
    assert run.megabytes < 120


def test_slow_s3_costs_few_threads_and_requests(datadog: DatadogServer) -> None:
    """When the time is up nothing more is begun, however many files the batch names."""
    run = Run(silent, datadog, files=2000, seconds=3.5)
    assert run.retried == run.summary["Retried"] == 2000
    assert run.seconds_left > 0.25
    assert run.threads <= 80
    assert run.gets <= 128
    assert datadog.requests == []
    assert len(run.log) <= 2
