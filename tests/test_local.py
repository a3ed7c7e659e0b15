"""The local run: Lambda's runtime, the event source, the ledger, and the demo as a whole."""

from __future__ import annotations

import importlib
import json
import re
import signal
import subprocess
import sys
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import boto3
import pytest
from rich.console import Console

from local.demo import Narrator, burst_files, feed_burst, main, wait_until_empty
from local.event_source import Batch, EventSource, failed_ids
from local.lambda_runtime import REGION, FunctionError, FunctionTimeout, LambdaFunction
from local.ledger import Ledger, Point, Stored, balance
from local.pipeline import run_pipeline

ROOT = Path(__file__).resolve().parent.parent
LAMBDA_PACKAGES = Path(sys.prefix, "lambda-runtime")  # what Lambda brings
SUBMITTER_PACKAGES = ("certifi", "charset_normalizer", "datadog", "idna", "requests", "urllib3")

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


def make_zip(path: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write a zip with these files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


# --- The runtime ---


@pytest.fixture
def function(tmp_path: Path) -> Iterator[LambdaFunction]:
    """A function that evaluates its event, and has a second for it."""
    archive = make_zip(tmp_path / "eval.zip", {"handler.py": HANDLER})
    with LambdaFunction(
        archive,
        "handler.lambda_handler",
        {"COLOUR": "blue"},
        packages=LAMBDA_PACKAGES,
        name="eval",
        timeout=1.0,
        memory_size=256,
    ) as function:
        yield function


def test_handler_answers_event_with_context(function: LambdaFunction) -> None:
    """The answer comes back; the context is Lambda's; a warm process keeps its state."""
    context = "(context.function_name, context.memory_limit_in_mb, context.invoked_function_arn)"
    assert function.invoke(f"[starts, *{context}]") == [
        1,
        "eval",
        "256",
        "arn:aws:lambda:us-east-1:123456789012:function:eval",
    ]
    left = function.invoke("context.get_remaining_time_in_millis()")
    assert isinstance(left, int)
    assert 0 < left <= 1000
    assert function.invoke("starts") == 3


def test_process_has_lambdas_environment_and_no_other(
    function: LambdaFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of whoever runs it gets in: no variable, no home, no site-packages."""
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    answer: Any = function.invoke("[dict(os.environ), sys.path, os.getcwd()]")
    environment, path, folder = answer
    assert (
        environment.items()
        >= {
            "COLOUR": "blue",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_LAMBDA_FUNCTION_NAME": "eval",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "LAMBDA_TASK_ROOT": folder,
            "_HANDLER": "handler.lambda_handler",
        }.items()
    )
    assert {"AWS_PROFILE", "PYTHONPATH", "VIRTUAL_ENV"}.isdisjoint(environment)
    assert environment["HOME"] != str(Path.home())
    assert path[0] == folder
    assert path[-1] == str(LAMBDA_PACKAGES.resolve())
    assert not [entry for entry in path if entry.endswith("site-packages")]


def test_exception_is_an_error_and_the_process_lives_on(function: LambdaFunction) -> None:
    """As on Lambda, a handler that raises isn't started anew."""
    with pytest.raises(FunctionError, match=r"^LookupError: no such job$"):
        function.invoke("fail('no such job')")
    assert function.invoke("starts") == 2


def test_deadline_kills_the_process_and_the_next_start_is_cold(function: LambdaFunction) -> None:
    """The runtime client enforces no deadline: whoever invokes does."""
    process = function.invoke("os.getpid()")
    with pytest.raises(FunctionTimeout, match=r"timed out after 1\.00 seconds"):
        function.invoke("time.sleep(30)")
    assert not Path(f"/proc/{process}").exists()
    assert function.invoke("starts") == 1


def test_process_that_ends_is_an_error_and_started_anew(function: LambdaFunction) -> None:
    """A crash is told with the code and the last line printed."""
    with pytest.raises(FunctionError, match=r"ended with 3: on fire$"):
        function.invoke("print('on fire') or os._exit(3)")
    assert function.invoke("starts") == 1


def test_printed_lines_are_there_with_the_answer(tmp_path: Path) -> None:
    """Standard output and error, in order, of failed invocations too."""
    heard: list[str] = []
    archive = make_zip(tmp_path / "eval.zip", {"handler.py": HANDLER})
    with LambdaFunction(
        archive,
        "handler.lambda_handler",
        {},
        packages=LAMBDA_PACKAGES,
        on_line=heard.append,
    ) as function:
        function.invoke("print('one') or print('two', file=sys.stderr)")
        assert function.log == ["one", "two"]
        with pytest.raises(FunctionError):
            function.invoke("print('three') or fail('')")
    assert function.log[2] == "three"
    assert "LookupError" in function.log[3]
    assert heard == function.log


@pytest.mark.parametrize(
    ("files", "error"),
    [
        pytest.param(
            {"handler.py": "import rich"}, "No module named 'rich'", id="package-not-in-zip"
        ),
        pytest.param({"other.py": ""}, "No module named 'handler'", id="no-such-module"),
        pytest.param({"handler.py": "def ("}, "Syntax error", id="syntax-error"),
        pytest.param(
            {"handler.py": ""}, "'lambda_handler' missing on module", id="no-such-function"
        ),
        pytest.param({"handler.py": "import os; os._exit(7)"}, "ended with 7", id="exits"),
    ],
)
def test_what_cannot_start_is_an_error(
    tmp_path: Path, files: Mapping[str, str], error: str
) -> None:
    """What the zip lacks is noticed, though the machine has it."""
    archive = make_zip(tmp_path / "broken.zip", files)
    with (
        LambdaFunction(archive, "handler.lambda_handler", {}, packages=LAMBDA_PACKAGES) as function,
        pytest.raises(FunctionError, match=error),
    ):
        function.invoke({})


def test_reserved_name_cannot_be_configured(tmp_path: Path) -> None:
    """Lambda refuses the function; so do we."""
    with pytest.raises(ValueError, match="AWS_REGION, TZ: reserved"):
        LambdaFunction(
            tmp_path / "any.zip",
            "handler.lambda_handler",
            {"TZ": "UTC", "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://127.0.0.1"},
            packages=LAMBDA_PACKAGES,
        )


def test_peak_memory_is_known(function: LambdaFunction) -> None:
    """The high-water mark stays when the memory is given back."""
    function.invoke("len(bytearray(100_000_000))")
    assert 100_000_000 < function.peak_memory() < 200_000_000


def test_closing_ends_an_invocation_and_leaves_nothing(tmp_path: Path) -> None:
    """No process, no thread, no folder; whoever waited for the answer gets an error."""
    threads = set(threading.enumerate())
    archive = make_zip(tmp_path / "eval.zip", {"handler.py": HANDLER})
    function = LambdaFunction(
        archive, "handler.lambda_handler", {}, packages=LAMBDA_PACKAGES, name="closed"
    )
    answer: Any = function.invoke("[os.getpid(), os.getcwd()]")
    process, folder = answer
    errors: list[FunctionError] = []

    def invoke() -> None:
        with pytest.raises(FunctionError) as raised:
            function.invoke("time.sleep(30)")
        errors.append(raised.value)

    waiting = threading.Thread(target=invoke)
    waiting.start()
    function.close()
    waiting.join()
    assert errors
    assert set(threading.enumerate()) == threads
    assert not Path(f"/proc/{process}").exists()
    assert not Path(folder).parent.exists()


# --- The event source ---


class Queue:
    """A queue on moto that gives up on a message after two deliveries."""

    def __init__(self, endpoint: str, visibility_seconds: int) -> None:
        session = boto3.Session("local", "local", region_name=REGION)
        self.sqs = session.client("sqs", endpoint_url=endpoint)
        name = str(uuid.uuid4())
        self.dead_letter_url = self.sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        arn = f"arn:aws:sqs:{REGION}:123456789012:{name}-dead"
        redrive = {"deadLetterTargetArn": arn, "maxReceiveCount": 2}
        self.url = self.sqs.create_queue(
            QueueName=name,
            Attributes={
                "VisibilityTimeout": str(visibility_seconds),
                "RedrivePolicy": json.dumps(redrive),
            },
        )["QueueUrl"]

    def send(self, *bodies: str) -> None:
        """Put messages into the queue."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def bodies(self, url: str) -> list[str]:
        """Return what a queue holds."""
        response = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return sorted(message["Body"] for message in response.get("Messages", []))


@pytest.fixture
def queue(moto: str) -> Queue:
    """A queue to which what isn't deleted comes back at once."""
    return Queue(moto, visibility_seconds=0)


def fail_bodies(*bodies: str) -> Callable[[Any], object]:
    """Return a function that fails the messages with these bodies."""

    def function(event: Any) -> object:
        return {
            "batchItemFailures": [
                {"itemIdentifier": record["messageId"]}
                for record in event["Records"]
                if record["body"] in bodies
            ]
        }

    return function


def test_event_is_lambdas(queue: Queue) -> None:
    """Every field of the record that Lambda's documentation shows."""
    queue.sqs.send_message(
        QueueUrl=queue.url,
        MessageBody="hello",
        MessageAttributes={"job": {"DataType": "String", "StringValue": "import"}},
    )
    events: list[Any] = []
    EventSource(queue.sqs, queue.url, events.append).poll()
    [[record]] = [event["Records"] for event in events]
    assert record.keys() == {
        "messageId",
        "receiptHandle",
        "body",
        "attributes",
        "messageAttributes",
        "md5OfBody",
        "eventSource",
        "eventSourceARN",
        "awsRegion",
    }
    assert record["body"] == "hello"
    assert record["attributes"].keys() >= {
        "ApproximateReceiveCount",
        "SentTimestamp",
        "SenderId",
        "ApproximateFirstReceiveTimestamp",
    }
    assert record["messageAttributes"]["job"]["stringValue"] == "import"
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"].endswith(queue.url.rpartition("/")[2])


def test_batches_are_no_larger_than_asked_for(moto: str) -> None:
    """Ten by default; more are put together from several receives."""
    queue = Queue(moto, visibility_seconds=60)
    queue.send(*(f"{number}" for number in range(25)))
    sizes: list[int] = []

    def function(event: Any) -> None:
        sizes.append(len(event["Records"]))

    EventSource(queue.sqs, queue.url, function).poll()
    source = EventSource(queue.sqs, queue.url, function, batch_size=12)
    source.poll()
    source.poll()
    assert sizes == [10, 12, 3]
    assert source.poll() is None


def test_partial_failure_leaves_exactly_what_failed(queue: Queue) -> None:
    """What isn't named is deleted."""
    queue.send("a", "b", "c")
    batch = EventSource(queue.sqs, queue.url, fail_bodies("b")).poll()
    assert batch == Batch(received=3, failed=1)
    assert queue.bodies(queue.url) == ["b"]


def test_exception_leaves_the_whole_batch(queue: Queue) -> None:
    """Nothing is deleted of a batch that failed as a whole."""
    error = FunctionError("ValueError", "no key")

    def function(event: object) -> object:
        raise error

    queue.send("a", "b")
    assert EventSource(queue.sqs, queue.url, function).poll() == Batch(2, 2, error)
    assert queue.bodies(queue.url) == ["a", "b"]


def test_message_that_never_succeeds_ends_as_a_dead_letter(queue: Queue) -> None:
    """After its deliveries the queue itself moves it."""
    counts: list[str] = []

    def function(event: Any) -> object:
        counts.extend(
            record["attributes"]["ApproximateReceiveCount"] for record in event["Records"]
        )
        return fail_bodies("poison")(event)

    source = EventSource(queue.sqs, queue.url, function)
    queue.send("poison")
    while source.poll():
        pass
    assert counts == ["1", "2"]
    assert queue.bodies(queue.dead_letter_url) == ["poison"]


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        pytest.param(None, set(), id="nothing"),
        pytest.param({}, set(), id="empty"),
        pytest.param({"batchItemFailures": []}, set(), id="no-failures"),
        pytest.param({"batchItemFailures": None}, set(), id="null"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": "1"}]}, {"1"}, id="one"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": "9"}]}, {"1", "2"}, id="unknown"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": ""}]}, {"1", "2"}, id="empty-id"),
        pytest.param({"batchItemFailures": [{"id": "1"}]}, {"1", "2"}, id="wrong-name"),
        pytest.param({"batchItemFailures": "1"}, {"1", "2"}, id="no-list"),
        pytest.param("done", {"1", "2"}, id="text"),
    ],
)
def test_answer_tells_what_failed(answer: object, failed: set[str]) -> None:
    """An answer that makes no sense fails the batch, as Lambda's documentation has it."""
    assert failed_ids(answer, ["1", "2"]) == failed


def test_polling_goes_on_until_the_end_and_tells_of_each_batch(queue: Queue) -> None:
    """As a context manager it polls by itself; its thread ends with it."""
    threads = set(threading.enumerate())
    arrived = threading.Event()
    batches: list[Batch] = []

    def on_batch(batch: Batch) -> None:
        batches.append(batch)
        arrived.set()

    with EventSource(queue.sqs, queue.url, lambda _: None, on_batch=on_batch):
        queue.send("later")
        assert arrived.wait(10)
    assert batches == [Batch(1, 0)]
    assert set(threading.enumerate()) <= threads | set(moto_threads())


def moto_threads() -> list[threading.Thread]:
    """Return the threads that are moto's: it has one a connection."""
    return [thread for thread in threading.enumerate() if "process_request" in thread.name]


def test_end_of_polling_is_not_kept_secret(queue: Queue) -> None:
    """A defect of the local run ends the polling, and is raised where it is stopped."""

    failed = threading.Event()

    def function(event: object) -> object:
        failed.set()
        raise ZeroDivisionError

    queue.send("a")
    source = EventSource(queue.sqs, queue.url, function)
    with pytest.raises(ZeroDivisionError), source:
        assert failed.wait(10)


# --- The ledger ---

POINT = Point("runs", ("job:a",), 1_764_000_000, 3.0)
STORED: Stored = {("runs", ("job:a",)): {1_764_000_000: 3.0}}
GOOD, BAD = "s3://b/good.json", "s3://b/bad.json"


@pytest.mark.parametrize(
    ("stored", "refused", "waiting", "faults"),
    [
        pytest.param(STORED, {BAD: "not JSON"}, [], [], id="adds-up"),
        pytest.param(STORED, {BAD: "not JSON"}, [GOOD], [], id="comes-again-and-is-harmless"),
        pytest.param({}, {BAD: "not JSON"}, [], [rf"^{GOOD} is lost.* 0 of its 1 "], id="lost"),
        pytest.param(
            {("runs", ("job:a",)): {1_764_000_000: 4.0}},
            {BAD: "not JSON"},
            [],
            ["is lost", "runs = 4.0"],
            id="wrong-value",
        ),
        pytest.param({}, {BAD: "not JSON"}, [GOOD], [f"^{GOOD} still waits"], id="waits"),
        pytest.param(STORED, {}, [], [f"^{BAD} .* neither refused nor waiting"], id="swallowed"),
        pytest.param(
            {},
            {BAD: "not JSON", GOOD: "no timestamp"},
            [],
            [f"^{GOOD} is a good file, .* no timestamp"],
            id="refused-without-reason",
        ),
        pytest.param(
            STORED,
            {BAD: "not JSON", GOOD: "no timestamp"},
            [],
            ["is a good file", "1 of its points were submitted"],
            id="refused-and-submitted",
        ),
        pytest.param(
            STORED, {BAD: "", "s3://b/?": ""}, [], [r"b/\? .* never written"], id="invented"
        ),
    ],
)
def test_ledger_finds_what_does_not_add_up(
    stored: Stored,
    refused: Mapping[str, str],
    waiting: Sequence[str],
    faults: Sequence[str],
) -> None:
    """A good file and a bad one are written; then all that may go wrong does."""
    ledger = balance({GOOD: [POINT], BAD: []}, stored, refused, waiting)
    assert ledger.submitted == ([GOOD] if stored == STORED and GOOD not in refused else [])
    assert len(ledger.faults) == len(faults)
    for fault, pattern in zip(ledger.faults, faults, strict=True):
        assert re.search(pattern, fault), fault


def test_ledger_counts_each_file_once() -> None:
    """Submitted, and delivered again: submitted."""
    ledger = balance({GOOD: [POINT], BAD: []}, STORED, {BAD: "not JSON"}, [GOOD])
    assert (ledger.submitted, ledger.refused, ledger.waiting) == ([GOOD], {BAD: "not JSON"}, [])


# --- The demo ---


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both functions zipped from the source, with the packages of this Python."""
    folder = tmp_path_factory.mktemp("zips")
    modules = {file.name: file.read_bytes() for file in ROOT.glob("ddg_*.py")}
    packages = {}
    for name in SUBMITTER_PACKAGES:
        package = Path(str(importlib.import_module(name).__file__)).parent
        for file in [*package.rglob("*.py"), *package.glob("*.pem")]:
            packages[str(file.relative_to(package.parent))] = file.read_bytes()
    make_zip(folder / "ddg_metric_submit.zip", {**modules, **packages})
    make_zip(folder / "ddg_mock_datasource.zip", modules)
    return folder


def demo(zips: Path, chart: Path, *options: str) -> list[str]:
    """Return the command of a small demo."""
    small = ["--burst", "20", "--outage", "2"]  # long enough for a file of each second to meet it
    return [
        *(sys.executable, "-m", "local.demo"),
        *(*small, "--zips", str(zips), "--chart", str(chart)),
        *options,
    ]


def test_demo_adds_up(zips: Path, tmp_path: Path) -> None:
    """Files of all shapes, a burst, an outage: the table, the reasons, both graphs, exit code 0."""
    chart = tmp_path / "demo.png"
    result = subprocess.run(demo(zips, chart), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr  # matplotlib may tell of its font cache
    numbers = {
        name: int(number.replace(",", ""))
        for name, number in re.findall(r"│ (.+?) +│ +([\d,]+) │", result.stdout)
    }
    assert numbers["files written"] == numbers["= submitted"] + 2
    assert numbers["files written"] > 20 + 20 + 7
    assert (numbers["+ refused"], numbers["+ waiting"]) == (2, 0)
    assert re.search(r"POST /api/v1/series: \d+ x 202, \d+ x 503", result.stdout)
    assert re.search(r"cut-short\.json\n +not JSON", result.stdout)
    assert re.search(r"of-2019\.json\n +timestamp 1575839011", result.stdout)
    assert "(processed.data)" in result.stdout
    assert chart.read_bytes().startswith(b"\x89PNG")


LOSSY = """
def lambda_handler(event, context):
    return {"batchItemFailures": []}
"""


def test_demo_that_loses_files_says_so(zips: Path, tmp_path: Path) -> None:
    """A submitter that acknowledges and does nothing: each file is named, exit code 1."""
    (tmp_path / "ddg_mock_datasource.zip").symlink_to(zips / "ddg_mock_datasource.zip")
    make_zip(tmp_path / "ddg_metric_submit.zip", {"ddg_metric_submit.py": LOSSY})
    command = demo(tmp_path, tmp_path / "demo.png", "--burst", "2", "--outage", "0.2")
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert re.search(r"= submitted +│ +0 ", result.stdout)
    assert "stats/report/array.json is lost: Datadog has 0 of its 2 points." in result.stdout


def test_demo_that_is_interrupted_leaves_nothing(zips: Path, tmp_path: Path) -> None:
    """Ctrl-C: no process, no folder."""
    process = subprocess.Popen(
        demo(zips, tmp_path / "demo.png"),
        cwd=ROOT,
        env={"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        for line in process.stdout:
            if "A bad file" in line:  # both functions have been at work
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    assert "nothing is left running" in rest
    assert list(tmp_path.iterdir()) == []
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if mentions(path, tmp_path)]


def mentions(path: Path, folder: Path) -> bool:
    """Tell whether a process was started with something from a folder."""
    try:
        return str(folder).encode() in path.read_bytes()
    except OSError:  # it has ended
        return False


def feed_thirty(zips: Path) -> tuple[str, int, Ledger]:
    """Feed a burst past moto's queue; return what was said, the retries, and the books."""
    said = StringIO()
    written: dict[str, Sequence[Point]] = {}
    unfinished: set[str] = set()
    with run_pipeline(zips, LAMBDA_PACKAGES) as pipeline:
        feed_burst(pipeline, 30, written, unfinished, Narrator(Console(file=said, width=120)))
        ledger = balance(written, pipeline.datadog.points, {}, unfinished)
    return said.getvalue(), pipeline.retried, ledger


def test_large_burst_is_fed_as_constructed_notifications(zips: Path) -> None:
    """It says so, and all of it arrives."""
    said, retried, ledger = feed_thirty(zips)
    assert "30 files, as constructed notifications: moto's SQS is too slow" in said
    assert (len(ledger.submitted), ledger.faults, retried) == (30, [], 0)


STUBBORN = """
def lambda_handler(event, context):
    ids = [record["messageId"] for record in event["Records"]]
    return {"batchItemFailures": [{"itemIdentifier": id} for id in ids]}
"""


def test_large_burst_that_is_never_taken_waits(zips: Path, tmp_path: Path) -> None:
    """Five deliveries, as the queue would have made; then it counts as waiting."""
    (tmp_path / "ddg_mock_datasource.zip").symlink_to(zips / "ddg_mock_datasource.zip")
    make_zip(tmp_path / "ddg_metric_submit.zip", {"ddg_metric_submit.py": STUBBORN})
    _, retried, ledger = feed_thirty(tmp_path)
    assert (len(ledger.waiting), len(ledger.faults), retried) == (30, 30, 5 * 30)


@pytest.mark.parametrize(("count", "jobs"), [(20, 5), (5_000, 5), (7_000, 7)])
def test_burst_is_of_several_jobs_and_overwrites_nothing(count: int, jobs: int) -> None:
    """Each point has its own metric, tags and second, none too old to be taken."""
    now = 1_764_000_000
    points = [point for file in burst_files(count, now) for point in file.points]
    assert len({point.tags for point in points}) == jobs
    assert len({point[:3] for point in points}) == len(points) == 2 * count
    assert all(now - 1000 < point.second <= now for point in points)


def test_demo_tells_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the zips, it says who makes them."""
    with pytest.raises(SystemExit, match="2"):
        main(["--zips", str(tmp_path)])
    assert "ddg_metric_submit.zip isn't there: ./zipper.sh makes it." in capsys.readouterr().err


def test_pipeline_does_not_wait_for_a_submitter_that_fails(zips: Path, tmp_path: Path) -> None:
    """One that can't be imported would keep everything waiting."""
    (tmp_path / "ddg_mock_datasource.zip").symlink_to(zips / "ddg_mock_datasource.zip")
    make_zip(tmp_path / "ddg_metric_submit.zip", {"ddg_metric_submit.py": "import datadog"})
    with (
        run_pipeline(tmp_path, LAMBDA_PACKAGES) as pipeline,
        pipeline.event_source(),
        pytest.raises(FunctionError, match="No module named 'datadog'"),
    ):
        wait_until_empty(pipeline)
