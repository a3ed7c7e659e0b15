"""A zip's handler as Lambda would run it: awslambdaric in a clean process, its Runtime API here.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html describes the API.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO, NamedTuple, Self

REGION = "us-east-1"
ACCOUNT = "123456789012"  # the one that moto keeps everything in
ROLE_CREDENTIALS = {  # what the function's role would have given; moto takes any
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
}
INIT_SECONDS = 60.0  # Lambda allows 10; a laptop that is busy testing may need more
POLL_SECONDS = 0.02  # how soon the Runtime API notices that it is to stop

# Names that Lambda refuses in a function's configuration, as it sets them itself:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
RESERVED_NAMES = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "TZ",
    }
)

# Isolated (-I) and without site-packages (-S): what the zip lacks is noticed. Lambda looks into
# the function's own folder first, into the runtime's packages last.
BOOTSTRAP = """
import os, sys
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
sys.path.append(sys.argv[2])
from awslambdaric.__main__ import main
main(["bootstrap", sys.argv[1]])
"""


class FunctionError(Exception):
    """The function failed: its handler raised, its module can't be imported, its process ended."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(f"{error_type}: {message}")
        self.error_type = error_type
        self.message = message


class FunctionTimeout(FunctionError):
    """The function was not done at its deadline; its process is gone, the next start is cold."""


class _Invocation(NamedTuple):
    request_id: str
    payload: bytes
    deadline_ms: int  # Unix milliseconds
    function_arn: str


class _Ready(NamedTuple):
    """The process asks for its next invocation."""


class _Answer(NamedTuple):
    payload: bytes


class _Failure(NamedTuple):
    payload: bytes  # {"errorType": ..., "errorMessage": ...}
    initializing: bool


class _Exit(NamedTuple):
    code: int


_Report = _Ready | _Answer | _Failure | _Exit


class _RuntimeApi(ThreadingHTTPServer):
    """The Runtime API of one process: invocations go in, reports come out."""

    daemon_threads = False  # closing waits for them: nothing is left behind

    def __init__(self, reports: "SimpleQueue[_Report]") -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeApiHandler)
        self.invocations: SimpleQueue[_Invocation | None] = SimpleQueue()
        self.reports = reports

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a connection that ended with its process: that is reported as an exit."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came


class _RuntimeApiHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one write: 88 ms a call become 0.8 ms
    disable_nagle_algorithm = True
    server: _RuntimeApi

    def do_GET(self) -> None:
        """Hand over the next invocation, as soon as there is one."""
        self.server.reports.put(_Ready())
        invocation = self.server.invocations.get()
        if invocation is None:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(invocation.payload)))
        self.send_header("Lambda-Runtime-Aws-Request-Id", invocation.request_id)
        self.send_header("Lambda-Runtime-Deadline-Ms", str(invocation.deadline_ms))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", invocation.function_arn)
        self.end_headers()
        self.wfile.write(invocation.payload)

    def do_POST(self) -> None:
        """Take the answer to an invocation, or the error in its place."""
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if self.path.endswith("/response"):
            self.server.reports.put(_Answer(payload))
        else:
            self.server.reports.put(_Failure(payload, self.path.endswith("/init/error")))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what counts is what the function says."""


class _ExecutionEnvironment:
    """One process of the function and the Runtime API it talks to."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], folder: Path, output: BinaryIO
    ) -> None:
        self._reports: SimpleQueue[_Report] = SimpleQueue()
        self._api = _RuntimeApi(self._reports)
        host, port = self._api.server_address[:2]
        self._process = subprocess.Popen(
            command,
            env={**environment, "AWS_LAMBDA_RUNTIME_API": f"{host!s}:{port}"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for whoever started us; close() ends this one
        )
        self._threads = [
            threading.Thread(target=self._api.serve_forever, args=(POLL_SECONDS,)),
            threading.Thread(target=lambda: self._reports.put(_Exit(self._process.wait()))),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def report(self, seconds: float) -> _Report | None:
        """Return what the process reports next; None if that takes longer than seconds."""
        try:
            return self._reports.get(timeout=seconds)
        except Empty:
            return None

    def send(self, invocation: _Invocation) -> None:
        self._api.invocations.put(invocation)

    def close(self) -> None:
        """End the process and all it started, then the Runtime API."""
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._api.invocations.put(None)
        self._api.shutdown()
        self._api.server_close()
        for thread in self._threads:
            thread.join()


class LambdaFunction:
    """A function made from a zip; a context manager. One invocation at a time, as in Lambda."""

    def __init__(
        self,
        zip_path: Path,
        handler: str,
        environment: Mapping[str, str],
        *,
        packages: Path,
        name: str = "function",
        timeout: float = 30.0,
        memory_size: int = 512,
        credentials: Mapping[str, str] = ROLE_CREDENTIALS,
        python: str = sys.executable,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Unpack the zip; the process itself starts with the first invocation.

        handler is `module.function`, packages the folder with awslambdaric and boto3 (as
        `pip install --target` makes it), timeout in seconds, memory_size in MB (told to the
        function, not enforced: see peak_memory), credentials the AWS_* variables that the role
        would have given. on_line gets every line that the function printed, after each invocation.
        Raises ValueError for a variable that Lambda reserves.
        """
        reserved = sorted(RESERVED_NAMES & environment.keys())
        if reserved:
            raise ValueError(f"{', '.join(reserved)}: reserved by Lambda, can't be configured.")
        self.name = name
        self.timeout = timeout
        self.log: list[str] = []
        self._arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
        self._on_line = on_line
        self._lock = threading.Lock()
        self._closed = False
        self._current: _ExecutionEnvironment | None = None
        self._folder = tempfile.TemporaryDirectory(prefix=f"{name}-")
        self._task_root = Path(self._folder.name, "task")
        with zipfile.ZipFile(zip_path) as archive:
            archive.extractall(self._task_root)
        # A file and not a pipe: what was printed before the answer can be read with the answer.
        output = Path(self._folder.name, "output")
        self._writer = output.open("ab")
        self._reader = output.open(newline="\n", encoding="utf-8", errors="replace")
        self._command = [python, "-I", "-S", "-c", BOOTSTRAP, handler, str(packages.resolve())]
        self._environment = {
            **environment,
            **credentials,
            "_HANDLER": handler,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_size),
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_REGION": REGION,
            "HOME": self._folder.name,  # or botocore would read the ~/.aws of whoever runs this
            "LAMBDA_TASK_ROOT": str(self._task_root),
            "LANG": "en_US.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "TZ": ":UTC",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, in the middle of an invocation too, and remove the folder."""
        self._closed = True
        self._stop()
        with self._lock:  # an invocation that was cut short still reads what was printed
            self._stop()
            self._writer.close()
            self._reader.close()
            self._folder.cleanup()

    def invoke(self, event: object) -> object:
        """Return the handler's answer to the event.

        Raises FunctionError with the handler's exception, or when the process can't start or ends;
        FunctionTimeout at the deadline.
        """
        payload = json.dumps(event).encode()
        with self._lock:
            current = self._start()
            try:
                return self._invoke(current, payload)
            finally:
                self._read_output()

    def _invoke(self, current: _ExecutionEnvironment, payload: bytes) -> object:
        ready = current.report(INIT_SECONDS)
        if not isinstance(ready, _Ready):
            raise self._failed(ready, INIT_SECONDS)
        deadline_ms = int((time.time() + self.timeout) * 1000)
        current.send(_Invocation(str(uuid.uuid4()), payload, deadline_ms, self._arn))
        report = current.report(self.timeout)
        if not isinstance(report, _Answer):
            raise self._failed(report, self.timeout)
        return json.loads(report.payload)

    def _start(self) -> _ExecutionEnvironment:
        if self._closed:
            raise FunctionError("Closed", f"{self.name} has been closed.")
        if self._current is None:
            self._current = _ExecutionEnvironment(
                self._command, self._environment, self._task_root, self._writer
            )
        return self._current

    def _failed(self, report: _Report | None, seconds: float) -> FunctionError:
        """Return the error for a report that isn't the one hoped for; a lost process is ended."""
        if isinstance(report, _Failure):
            if report.initializing:
                self._stop()
            body = json.loads(report.payload)
            return FunctionError(body["errorType"], body["errorMessage"])
        self._stop()
        if isinstance(report, _Exit):
            self._read_output()
            last_line = "".join(self.log[-1:])
            return FunctionError(
                "Runtime.ExitError", f"The process ended with {report.code}: {last_line}"
            )
        return FunctionTimeout("Sandbox.Timedout", f"Task timed out after {seconds:.2f} seconds")

    def _stop(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.close()

    def _read_output(self) -> None:
        """Take over what was printed since the last time."""
        lines = self._reader.read().removesuffix("\n").split("\n")
        if lines == [""]:
            return
        self.log += lines
        if self._on_line is not None:
            for line in lines:
                self._on_line(line)

    def peak_memory(self) -> int:
        """Return the most memory that the running process ever held, in bytes (VmHWM)."""
        if self._current is None:
            raise RuntimeError(f"{self.name} isn't running; its memory is known while it runs.")
        status = Path(f"/proc/{self._current.pid}/status").read_text()
        match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        if match is None:
            raise RuntimeError(f"/proc/{self._current.pid}/status shows no VmHWM.")
        return int(match[1]) * 1024
