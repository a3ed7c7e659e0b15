"""The local run: Lambda's runtime, the event source, the ledger, and the demo as a whole."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from local.event_source import Batch, EventSource
from local.lambda_runtime import LAMBDA_PACKAGES, REGION, FunctionError, LambdaFunction
from local.ledger import Point, Stored, balance
from local.pipeline import Stack, create_stack, repeating, take_all
from local.samples import burst_files
from tests.zips import make_zip

ROOT = Path(__file__).resolve().parent.parent

HANDLER = """
import os, sys, time

starts = 0

def lambda_handler(event, context):
    global starts
    starts += 1
    return eval(event)

def fail(text):
    raise LookupError(text)
"""


# --- The runtime ---


def runs(process: Any) -> bool:
    """Tell whether there is a process with this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def function(tmp_path: Path) -> Iterator[LambdaFunction]:
    """A function that evaluates its event, within a second."""
    archive = make_zip(tmp_path / "eval.zip", {"handler.py": HANDLER})
    environment = {"COLOUR": "blue"}
    with LambdaFunction(
        archive, "handler.lambda_handler", environment, name="eval", timeout=1.0
    ) as function:
        yield function


def test_handler_gets_event_and_context(function: LambdaFunction) -> None:
    """A warm process keeps its state; its memory is known."""
    context = "(context.function_name, context.invoked_function_arn)"
    arn = "arn:aws:lambda:us-east-1:123456789012:function:eval"
    assert function.invoke(f"[starts, *{context}]") == [1, "eval", arn]
    assert function.invoke("0 < context.get_remaining_time_in_millis() <= 1000") is True
    assert function.invoke("globals().update(kept=bytearray(100_000_000)) or starts") == 3
    assert 100_000_000 < function.peak_memory() < 200_000_000


def test_process_has_only_lambdas_environment(
    function: LambdaFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable, home or site-packages of the person who runs it."""
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    answer: Any = function.invoke("[dict(os.environ), sys.path, os.getcwd()]")
    environment, path, folder = answer
    expected = {"COLOUR": "blue", "AWS_REGION": REGION, "LAMBDA_TASK_ROOT": folder}
    assert environment.items() >= expected.items()
    assert {"AWS_PROFILE", "PYTHONPATH", "VIRTUAL_ENV"}.isdisjoint(environment)
    assert environment["HOME"] != str(Path.home())
    assert (path[0], path[-1]) == (folder, str(LAMBDA_PACKAGES.resolve()))
    assert not [entry for entry in path if entry.endswith("site-packages")]


@pytest.mark.parametrize(
    ("event", "error", "starts"),
    [
        pytest.param("fail('no job')", r"^LookupError: no job$", 3, id="raises"),
        pytest.param("print('on fire') or os._exit(3)", r"with 3: on fire$", 1, id="exits"),
        pytest.param("time.sleep(30)", r"timed out after 1 s", 1, id="deadline"),
    ],
)
def test_failure_is_an_error(function: LambdaFunction, event: str, error: str, starts: int) -> None:
    """As on Lambda, a process survives an exception of its handler, and no other failure."""
    process = function.invoke("os.getpid()")
    with pytest.raises(FunctionError, match=error):
        function.invoke(event)
    assert runs(process) == (starts == 3)
    assert function.invoke("starts") == starts


def test_log_has_the_printed_lines(function: LambdaFunction) -> None:
    """Of standard output and standard error, in order, of failed invocations too."""
    function.invoke("print('one') or print('two', file=sys.stderr)")
    assert function.log == ["one", "two"]
    with pytest.raises(FunctionError):
        function.invoke("print('three') or fail('')")
    assert function.log[2] == "three"
    assert "LookupError" in function.log[3]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        pytest.param("import rich", "No module named 'rich'", id="package-not-in-zip"),
        pytest.param("", "'lambda_handler' missing on module", id="no-such-function"),
        pytest.param("import os; os._exit(7)", "ended with 7", id="exits"),
    ],
)
def test_function_cannot_start(tmp_path: Path, source: str, error: str) -> None:
    """A package that the zip lacks is missed, though this machine has it."""
    archive = make_zip(tmp_path / "broken.zip", {"handler.py": source})
    with (
        LambdaFunction(archive, "handler.lambda_handler", {}) as function,
        pytest.raises(FunctionError, match=error),
    ):
        function.invoke({})


def test_closing_ends_an_invocation_and_leaves_nothing(function: LambdaFunction) -> None:
    """No process and no folder; the caller of the invocation gets an error."""
    answer: Any = function.invoke("[os.getpid(), os.getcwd()]")
    process, folder = answer
    closing = threading.Timer(0.1, function.close)
    closing.start()
    function.timeout = 30.0
    with pytest.raises(FunctionError, match="ended with -9"):
        function.invoke("time.sleep(30)")
    closing.join()
    assert not runs(process)
    assert not Path(folder).parent.exists()


# --- The event source ---

RECORD = {  # https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
    *("messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfBody"),
    *("eventSource", "eventSourceARN", "awsRegion"),
}


@pytest.fixture
def stack(moto: str) -> Stack:
    """A queue whose messages come back at once if they aren't deleted, and twice at most."""
    stack = create_stack(moto, f"local-{uuid.uuid4()}", visibility_seconds=0, max_receive_count=2)
    take_all(stack.queue)  # S3's test event
    return stack


def source(stack: Stack, function: Callable[[Any], Any]) -> EventSource:
    """Return the event source of the stack's queue."""
    return EventSource(stack.queue.meta.client, stack.queue.url, function)


def test_failed_message_comes_again_and_becomes_a_dead_letter(stack: Stack) -> None:
    """The rest of its batch is deleted; a record has every field that Lambda documents."""
    seen: list[Any] = []

    def function(event: Any) -> object:
        seen.extend(event["Records"])
        poisoned = [record for record in event["Records"] if record["body"] == "poison"]
        return {"batchItemFailures": [{"itemIdentifier": r["messageId"]} for r in poisoned]}

    for body in ("a", "poison", "c"):
        stack.queue.send_message(MessageBody=body)
    polling = source(stack, function)
    assert [polling.poll(), polling.poll(), polling.poll()] == [Batch(3, 1), Batch(1, 1), None]
    assert [message.body for message in take_all(stack.dead_letters)] == ["poison"]
    assert [r["attributes"]["ApproximateReceiveCount"] for r in seen] == ["1", "1", "1", "2"]
    assert seen[0].keys() == RECORD
    assert seen[0]["attributes"].keys() >= {"SentTimestamp", "SenderId"}
    assert seen[0]["eventSourceARN"] == stack.queue.attributes["QueueArn"]


def test_batch_is_larger_than_one_receive(stack: Stack) -> None:
    stack.queue.set_attributes(Attributes={"VisibilityTimeout": "60"})
    for number in range(15):
        stack.queue.send_message(MessageBody=str(number))
    polling = source(stack, lambda event: {"batchItemFailures": []})
    assert (polling.poll(), polling.poll()) == (Batch(15, 0), None)


def test_exception_leaves_the_whole_batch_in_the_queue(stack: Stack) -> None:
    def function(event: object) -> object:
        raise FunctionError("no key")

    stack.queue.send_message(MessageBody="a")
    with pytest.raises(FunctionError):
        source(stack, function).poll()
    assert [message.body for message in take_all(stack.queue)] == ["a"]


def test_exception_ends_the_polling_and_is_raised() -> None:
    with pytest.raises(ZeroDivisionError), repeating(lambda: 1 / 0, lambda: 0.0) as polling:
        polling.exception(10)


# --- The ledger ---

POINT = Point("runs", ("job:a",), 1_764_000_000, 3.0)
STORED: Stored = {("runs", ("job:a",)): {1_764_000_000: 3.0}}
OTHER: Stored = {("runs", ("job:a",)): {1_764_000_000: 4.0}}
GOOD, BAD = "s3://b/good.json", "s3://b/bad.json"
REFUSED = {BAD: "not JSON"}


@pytest.mark.parametrize(
    ("stored", "refused", "waiting", "faults"),
    [
        pytest.param(STORED, REFUSED, [], [], id="adds-up"),
        pytest.param(STORED, REFUSED, [GOOD], [], id="comes-again-and-is-harmless"),
        pytest.param({}, REFUSED, [], [rf"^{GOOD} is lost.* 0 of its 1 "], id="lost"),
        pytest.param(OTHER, REFUSED, [], ["is lost", "runs = 4.0"], id="wrong-value"),
        pytest.param({}, REFUSED, [GOOD], [f"^{GOOD} still waits"], id="waits"),
        pytest.param(STORED, {}, [], [f"^{BAD} is lost"], id="swallowed"),
        pytest.param(
            STORED,
            {**REFUSED, GOOD: "no timestamp"},
            [],
            [f"^{GOOD} is a good file, .* no timestamp", "1 of its points arrived"],
            id="refused-and-submitted",
        ),
        pytest.param(
            STORED, {**REFUSED, "s3://b/?": ""}, [], [r"b/\? .* never written"], id="invented"
        ),
    ],
)
def test_ledger_finds_what_does_not_add_up(
    stored: Stored, refused: Mapping[str, str], waiting: Sequence[str], faults: Sequence[str]
) -> None:
    """A good file and a bad one are written; then each thing that can go wrong does."""
    ledger = balance({GOOD: [POINT], BAD: []}, stored, refused, waiting)
    assert ledger.submitted == ([GOOD] if stored == STORED and GOOD not in refused else [])
    assert ledger.waiting == ([] if ledger.submitted else waiting)
    assert len(ledger.faults) == len(faults)
    for fault, pattern in zip(ledger.faults, faults, strict=True):
        assert re.search(pattern, fault), fault


# --- The demo ---


def demo(zips: Path, folder: Path, *options: str) -> list[str]:
    """Return a command for the demo, whose picture goes to a folder."""
    files = ["--zips", str(zips), "--chart", str(folder / "demo.png")]
    return [sys.executable, "-m", "local.demo", *files, *options]


def test_demo_adds_up(zips: Path, tmp_path: Path) -> None:
    """Files of all shapes, a burst, an outage: the table, the reasons, the picture, exit code 0."""
    # In two seconds, each second's file meets the outage
    command = demo(zips, tmp_path, "--burst", "501", "--outage", "2")
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr  # matplotlib may mention its font cache
    numbers = {
        name: int(number.replace(",", ""))
        for name, number in re.findall(r"│ (.+?) +│ +([\d,]+) │", result.stdout)
    }
    assert numbers["files written"] == numbers["= submitted"] + 2 > 20 + 501 + 7
    assert (numbers["+ refused"], numbers["+ waiting"]) == (2, 0)
    assert re.search(r"POST /api/v1/series: \d+ x 202, \d+ x 503", result.stdout)
    assert re.search(r"cut-short\.json\n +not JSON", result.stdout)
    assert re.search(r"of-2019\.json\n +timestamp 1575839011", result.stdout)
    assert "501 files as constructed notifications" in result.stdout
    shown = [line for line in result.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, shown)) <= 80
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("submitter", "said"),
    [
        pytest.param(
            "def lambda_handler(event, context): return {'batchItemFailures': []}",
            r"= submitted +│ +0 (.|\n)*/array\.json is lost: Datadog has 0 of its 2\s+points\.",
            id="loses-all",
        ),
        pytest.param(
            "import datadog", "A function failed: .*No module named 'datadog'", id="cannot-start"
        ),
    ],
)
def test_demo_reports_a_submitter_that_fails(
    zips: Path, tmp_path: Path, submitter: str, said: str
) -> None:
    """Each lost file is named; nothing waits for a function that can't start."""
    (tmp_path / "ddg_mock_datasource.zip").symlink_to(zips / "ddg_mock_datasource.zip")
    make_zip(tmp_path / "ddg_metric_submit.zip", {"ddg_metric_submit.py": submitter})
    command = demo(tmp_path, tmp_path, "--burst", "2", "--outage", "0.2")
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert re.search(said, result.stdout), result.stdout


def test_demo_that_is_interrupted_leaves_nothing(zips: Path, tmp_path: Path) -> None:
    """Ctrl-C: no process, no folder."""
    with subprocess.Popen(
        demo(zips, tmp_path),
        cwd=ROOT,
        env={"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if "A bad file" in line:  # both functions have started
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    assert "nothing is left running" in rest
    assert list(tmp_path.iterdir()) == []
    processes = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True)
    assert str(tmp_path) not in processes.stdout


@pytest.mark.parametrize(("count", "jobs"), [(20, 5), (7_000, 7)])
def test_burst_is_of_several_jobs_and_overwrites_nothing(count: int, jobs: int) -> None:
    """Each point has its own metric, tags and second; none is too old."""
    now = 1_764_000_000
    points = [point for file in burst_files(count, now) for point in file.points]
    assert len({point.tags for point in points}) == jobs
    assert len({point[:3] for point in points}) == len(points) == 2 * count
    assert all(now - 1000 < point.second <= now for point in points)


def test_demo_tells_what_is_missing(tmp_path: Path) -> None:
    """Without the zips, it says what makes them."""
    result = subprocess.run(demo(tmp_path, tmp_path), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "ddg_metric_submit.zip isn't there: ./zipper.sh makes it." in result.stderr
