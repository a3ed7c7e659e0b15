"""The submitter: the largest payloads, and the cost of large batches."""

import json
import os
import random
import string
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from local.datadog_server import DatadogServer, Request
from tests.events import STARTED, stats
from tests.scripted_server import Call, Script, ScriptedServer, response
from tests.submitter import API_KEY, Submitter

ROOT = Path(__file__).parent.parent
MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_PAYLOAD_BYTES = 5_242_880 // 20  # Datadog series API v2, decompressed; payloads are shrunk
MAX_WIRE_BYTES = 512_000 // 20  # Datadog series API v2, compressed
MAX_EXTRA_REQUESTS = 64  # of a batch, beyond one per payload


# --- Payloads ---


def plain_bytes(request: Request) -> int:
    """Return the size of a request's JSON, as the datadog package wrote it."""
    return len(json.dumps({"series": request.series}))


def points_of(submitter: Submitter) -> int:
    return sum(map(len, submitter.datadog.points.values()))


def numbers(series: int) -> bytes:
    """Return a file with numbers and tags that JSON writes in another way."""
    values = [123_456_789_012_345_678_901, -1.5e-300, -2.2250738585072014e-308, 0.1]
    metrics = {f"m{n:04}": values[n % 4] for n in range(series)}
    tags = [f"t{n}:{'é' * 40}" for n in range(4)]
    return json.dumps({"timestamp": STARTED, "tags": tags, **metrics}).encode()


def test_payloads_are_cut_at_the_json_limit(submitter: Submitter) -> None:
    """No point is lost, and few payloads are much smaller than the limit."""
    submitter.shrink_payloads()
    content = numbers(700)
    outcome = submitter.submit_from({"stats/job/1.json": content})
    assert outcome.files == (1, 0, 0)
    assert outcome.summary["Points"] == points_of(submitter) == len(json.loads(content)) - 2
    sizes = [plain_bytes(request) for request in submitter.datadog.requests]
    assert max(sizes) <= MAX_PAYLOAD_BYTES
    assert 2 <= len(sizes) <= 2 * sum(sizes) / MAX_PAYLOAD_BYTES + 1


NOISE = "".join(random.Random(1).choices(string.ascii_lowercase + string.digits, k=100_000))


def noisy(number: int, *, objects: int) -> bytes:
    """Return a stats file that hardly compresses: an object has 16 KB, and 11 KB on the wire."""
    lines = []
    for n in range(number * objects, (number + 1) * objects):
        starts = [(n * 7919 + k * 1009) % 99_000 for k in range(80)]
        tags = [f"n{n}:{NOISE[start : start + 190]}" for start in starts]
        lines.append(json.dumps({"timestamp": STARTED, "m": n, "tags": tags}))
    return "\n".join(lines).encode()


def test_payloads_are_cut_at_the_wire_limit(submitter: Submitter) -> None:
    """The JSON alone would fit. These cuts don't use up the extra requests."""
    submitter.shrink_payloads()
    outcome = submitter.submit_from({f"stats/{n}.json": noisy(n, objects=20) for n in range(9)})
    assert outcome.files == (9, 0, 0)
    assert points_of(submitter) == 9 * 20
    wire = [request.wire_bytes for request in submitter.datadog.requests]
    assert max(wire) <= MAX_WIRE_BYTES
    assert outcome.summary["WireBytes"] == sum(wire)
    assert outcome.summary["Requests"] == len(wire) > MAX_EXTRA_REQUESTS + 15


# --- Large batches, each in its own process ---

INVOKE = """
import resource, sys, threading
from tests.events import Context, sqs_event, sqs_record
import ddg_metric_submit

threads = 0
start = threading.Thread.start
def counted(thread):
    global threads
    start(thread)
    threads = max(threads, threading.active_count())
threading.Thread.start = counted

event = sqs_event([sqs_record([f"stats/job-{n % 4}/{n}"]) for n in range(int(sys.argv[1]))])
answer = ddg_metric_submit.lambda_handler(event, Context(300))
try:
    status = open("/proc/self/status").read()
    peak = status.partition("VmHWM:")[2].split()[0]
except OSError:  # on macOS, which counts bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(len(answer["batchItemFailures"]), threads, int(peak) / 1024)
"""


class Run(NamedTuple):
    """One batch in a new process: its summary and its cost."""

    log: list[str]
    summary: dict[str, Any]
    gets: int
    retried: float
    threads: float
    megabytes: float


def run(script: Script, datadog: DatadogServer, *, files: int) -> Run:
    with ScriptedServer(script) as s3:
        environment = {
            "AWS_ENDPOINT_URL": s3.url,
            "DATADOG_API_KEY": API_KEY,
            "DATADOG_HOST": datadog.url,
            "LOG_FILES": "false",
            "REJECTED_QUEUE_URL": f"{s3.url}/1/rejected",
        }
        command = [sys.executable, "-c", INVOKE, f"{files}"]
        environment = os.environ | environment
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    *printed, summary, cost = done.stdout.splitlines()
    log = printed + done.stderr.splitlines()
    return Run(log, json.loads(summary), len(s3.calls), *map(float, cost.split()))


def test_thousands_of_files(datadog: DatadogServer) -> None:
    """They take one POST, and a bounded number of threads."""
    now, files = int(time.time()), 2_000

    def small(call: Call) -> bytes:
        n = int(call.path.rpartition("/")[2])
        return response(body=b'{"timestamp": %d, "m": %d, "n": %d}' % (now - n // 4, n, n))

    batch = run(small, datadog, files=files)
    assert (batch.retried, batch.log, batch.gets) == (0, [], files)
    assert (batch.summary["Submitted"], batch.summary["Points"]) == (files, 2 * files)
    assert batch.summary["Requests"] == len(datadog.requests) == 1
    assert sum(map(len, datadog.points.values())) == 2 * files
    [request] = datadog.requests  # the points of a series are together
    assert request.wire_bytes < 10 * 2 * files
    assert plain_bytes(request) < 25 * 2 * files
    assert batch.threads <= 40
    assert batch.megabytes < 110


def test_files_at_the_size_limit(datadog: DatadogServer) -> None:
    """Their memory use doesn't add up."""
    line = b'{"timestamp": %d, "tags": ["s:%d"], "rows.read": %d}\n'
    lines = (line % (STARTED - n % 3000, n // 3000, n) for n in range(160_000))
    dense = b"".join(lines).ljust(MAX_FILE_BYTES)  # takes much more memory when it is read
    padded = stats().ljust(MAX_FILE_BYTES)
    files = {"1": dense, "2": dense + b"x"}

    def large(call: Call) -> bytes:
        if call.method == "POST":  # the rejected queue
            return response(body=b'{"MessageId": "example"}')
        return response(body=files.get(call.path.rpartition("/")[2], padded))

    batch = run(large, datadog, files=3)
    assert (batch.summary["Submitted"], batch.summary["Refused"]) == (2, 1)
    assert batch.megabytes < 256
    batch = run(lambda call: response(body=padded), datadog, files=8)  # not one thread each
    assert batch.summary["Submitted"] == 8
    assert batch.megabytes < 120
