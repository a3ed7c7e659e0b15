"""Run a zip's handler as Lambda would: awslambdaric in a clean process, with its Runtime API.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html describes the API.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's default
ROLE_CREDENTIALS = {  # in place of the role's; moto accepts any
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
}
INIT_SECONDS = 60.0  # Lambda allows 10; a busy laptop may need more
MAX_OUTPUT_BYTES = 10_000_000  # of a process's output, on disk
POLL_SECONDS = 0.02  # how often the Runtime API checks whether it should stop

LINUX = sys.platform.startswith("linux")
# awslambdaric has a native module only on Linux; the variable selects the other one there.
NATIVE = LINUX and not os.environ.get("PURE_RUNTIME_CLIENT")
PURE_CLIENT = Path(__file__).resolve().parent / "pure"

# Isolated (-I) and without site-packages (-S), so anything missing in the zip shows. Like Lambda,
# it looks into the function's folder first, and into the runtime's packages last.
BOOTSTRAP = """
import os, sys
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
sys.path += sys.argv[2:]
from awslambdaric.__main__ import main
main(["bootstrap", sys.argv[1]])
"""


class FunctionError(Exception):
    """The handler raised, its module can't be imported, or its process ended."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(f"{error_type}: {message}")
        self.error_type = error_type
        self.message = message


class FunctionTimeout(FunctionError):
    """The function missed its deadline; its process is killed, so the next start is cold."""


class _Report(NamedTuple):
    """An event of the process: it asks for an invocation, answers it, fails, or ends."""

    kind: str  # next, response, error, init/error or exit
    payload: bytes = b""


class _Sandbox(ThreadingHTTPServer):
    """A process of the function, and its Runtime API."""

    daemon_threads = False  # closing waits for them

    def __init__(self, command: list[str], environment: Mapping[str, str], **options: Any) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeApi)
        self.invocations: SimpleQueue[tuple[dict[str, str], bytes] | None] = SimpleQueue()
        self.reports: SimpleQueue[_Report] = SimpleQueue()
        self.process = subprocess.Popen(
            command,
            env={**environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server_port}"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not reach it; close() ends it
            **options,
        )
        self._own_threads = [
            threading.Thread(target=self.serve_forever, args=(POLL_SECONDS,)),
            threading.Thread(target=self._watch),
        ]
        for thread in self._own_threads:
            thread.start()

    def _watch(self) -> None:
        self.reports.put(_Report("exit", str(self.process.wait()).encode()))

    def report(self, seconds: float) -> _Report | None:
        """Return the next report of the process; None if it takes longer than `seconds`."""
        try:
            return self.reports.get(timeout=seconds)
        except Empty:
            return None

    def close(self) -> None:
        """Kill the process and everything it started, then stop the Runtime API."""
        with suppress(ProcessLookupError):  # it may have ended already
            os.killpg(self.process.pid, signal.SIGKILL)
        self.invocations.put(None)
        self.shutdown()
        self.server_close()
        for thread in self._own_threads:
            thread.join()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a connection that ended with its process: _watch reports the exit."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came


class _RuntimeApi(BaseHTTPRequestHandler):
    server: _Sandbox
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one write: 0.8 ms per call, not 88
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Wait for the next invocation, and return it."""
        self.server.reports.put(_Report("next"))
        if invocation := self.server.invocations.get():
            self._answer(200, *invocation)
        else:
            self.close_connection = True

    def do_POST(self) -> None:
        """Receive the response to an invocation, or its error."""
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(202, {}, b"")
        initializing = self.path.endswith("/init/error")
        kind = "init/error" if initializing else self.path.rpartition("/")[2]
        self.server.reports.put(_Report(kind, payload))

    def _answer(self, status: int, headers: Mapping[str, str], payload: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(f"Lambda-Runtime-{name}", value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: only the function's own output counts."""


class LambdaFunction:
    """A function from a zip; a context manager. Runs one invocation at a time, as in Lambda."""

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
    ) -> None:
        """Unpack the zip; the process itself starts with the first invocation.

        handler: `module.function`. packages: the folder with awslambdaric and boto3, as
        `pip install --target` makes it. timeout: in seconds. memory_size: in MB; the function
        sees it, but it isn't enforced (see peak_memory). credentials: the role's AWS_* variables.
        """
        self.name = name
        self.timeout = timeout
        self.log: list[str] = []  # every line that the function printed, up to the last invocation
        self._arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
        self._lock = threading.Lock()
        self._closed = False
        self._sandbox: _Sandbox | None = None
        self._folder = tempfile.TemporaryDirectory(prefix=f"{name}-")
        self._task_root = Path(self._folder.name, "task")
        with zipfile.ZipFile(zip_path) as archive:
            archive.extractall(self._task_root)
        # A file instead of a pipe: all output is there when the response arrives.
        output = Path(self._folder.name, "output")
        self._writer = output.open("ab")
        self._reader = output.open(newline="\n", encoding="utf-8", errors="replace")
        folders = [packages.resolve()] if NATIVE else [PURE_CLIENT, packages.resolve()]
        python = [sys.executable, "-B", "-I", "-S"]  # -B: Lambda's folders are read-only
        self._command = [*python, "-c", BOOTSTRAP, handler, *map(str, folders)]
        self._environment = {
            **environment,
            **credentials,
            "_HANDLER": handler,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_size),
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_REGION": REGION,
            "HOME": self._folder.name,  # so botocore doesn't read the user's ~/.aws
            "LAMBDA_TASK_ROOT": str(self._task_root),
            "LANG": "en_US.UTF-8",
            "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),  # some Pythons need it
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "TZ": ":UTC",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the process, even during an invocation, and remove the folder."""
        self._closed = True
        self._stop()
        with self._lock:  # an invocation that was cut short still reads the output
            self._stop()
            self._writer.close()
            self._reader.close()
            self._folder.cleanup()

    def invoke(self, event: object) -> object:
        """Return the handler's response to the event.

        Raises FunctionError with the handler's exception, or if the process can't start or ends;
        FunctionTimeout at the deadline.
        """
        payload = json.dumps(event).encode()
        with self._lock:
            if self._closed:
                raise FunctionError("Closed", f"{self.name} has been closed.")
            sandbox = self._sandbox = self._sandbox or _Sandbox(
                self._command, self._environment, cwd=self._task_root, stdout=self._writer
            )
            try:
                self._expect("next", sandbox, INIT_SECONDS)
                headers = {
                    "Aws-Request-Id": str(uuid.uuid4()),
                    "Deadline-Ms": str(int((time.time() + self.timeout) * 1000)),
                    "Invoked-Function-Arn": self._arn,
                }
                sandbox.invocations.put((headers, payload))
                return json.loads(self._expect("response", sandbox, self.timeout))
            finally:
                self._read_output()

    def _expect(self, kind: str, sandbox: _Sandbox, seconds: float) -> bytes:
        """Return the payload of the next report; raise FunctionError if it is of another kind."""
        report = sandbox.report(seconds)
        if report and report.kind == kind:
            return report.payload
        if not report or report.kind != "error":  # the process can't be used any more
            self._stop()
        if not report:
            raise FunctionTimeout("Sandbox.Timedout", f"Task timed out after {seconds:.2f} seconds")
        if report.kind == "exit":
            self._read_output()
            ended = f"The process ended with {report.payload.decode()}: {''.join(self.log[-1:])}"
            raise FunctionError("Runtime.ExitError", ended)
        error = json.loads(report.payload)
        raise FunctionError(error["errorType"], error["errorMessage"])

    def _stop(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def _read_output(self) -> None:
        """Read the new output into the log; empty the file if it is large."""
        if printed := self._reader.read():
            self.log += printed.removesuffix("\n").split("\n")
        if self._reader.tell() > MAX_OUTPUT_BYTES:
            self._writer.truncate(0)  # the process appends to it
            self._reader.seek(0)

    def peak_memory(self) -> int:
        """Return the peak memory of the running process, in bytes.

        Except on Linux it is the current memory: no system call gives another process's peak.
        """
        if self._sandbox is None:
            raise RuntimeError(f"{self.name} isn't running; only then its memory is known.")
        process = str(self._sandbox.process.pid)
        if LINUX:
            status = Path("/proc", process, "status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024
        shown = subprocess.run(["ps", "-o", "rss=", "-p", process], stdout=subprocess.PIPE)
        return int(shown.stdout) * 1024
