"""A zip's handler as Lambda would run it: awslambdaric in a clean process, its Runtime API here.

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
ACCOUNT = "123456789012"  # the one that moto keeps everything in
ROLE_CREDENTIALS = {  # what the function's role would have given; moto takes any
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
}
INIT_SECONDS = 60.0  # Lambda allows 10; a laptop that is busy testing may need more
MAX_OUTPUT_BYTES = 10_000_000  # of what a process prints, on disk
POLL_SECONDS = 0.02  # how soon the Runtime API notices that it is to stop

LINUX = sys.platform.startswith("linux")
# awslambdaric has its native module on Linux alone; the setting tries the other one there too.
NATIVE = LINUX and not os.environ.get("PURE_RUNTIME_CLIENT")
PURE_CLIENT = Path(__file__).resolve().parent / "pure"

# Isolated (-I) and without site-packages (-S): what the zip lacks is noticed. Lambda looks into
# the function's own folder first, into the runtime's packages last.
BOOTSTRAP = """
import os, sys
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
sys.path += sys.argv[2:]
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


class _Report(NamedTuple):
    """What the process says: it asks for an invocation, answers it, fails, or has ended."""

    kind: str  # next, response, error, init/error or exit
    payload: bytes = b""


class _Sandbox(ThreadingHTTPServer):
    """One process of the function, and the Runtime API it talks to."""

    daemon_threads = False  # closing waits for them: nothing is left behind

    def __init__(self, command: list[str], environment: Mapping[str, str], **options: Any) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeApi)
        self.invocations: SimpleQueue[tuple[dict[str, str], bytes] | None] = SimpleQueue()
        self.reports: SimpleQueue[_Report] = SimpleQueue()
        self.process = subprocess.Popen(
            command,
            env={**environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server_port}"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for whoever started us; close() ends this one
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
        """Return what the process reports next; None if that takes longer than seconds."""
        try:
            return self.reports.get(timeout=seconds)
        except Empty:
            return None

    def close(self) -> None:
        """End the process and all it started, then the Runtime API."""
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.invocations.put(None)
        self.shutdown()
        self.server_close()
        for thread in self._own_threads:
            thread.join()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a connection that ended with its process: that is reported as an exit."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came


class _RuntimeApi(BaseHTTPRequestHandler):
    server: _Sandbox
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one write: 88 ms a call become 0.8 ms
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Hand over the next invocation, as soon as there is one."""
        self.server.reports.put(_Report("next"))
        if invocation := self.server.invocations.get():
            self._answer(200, *invocation)
        else:
            self.close_connection = True

    def do_POST(self) -> None:
        """Take the answer to an invocation, or the error in its place."""
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
        """Say nothing: what counts is what the function says."""


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
    ) -> None:
        """Unpack the zip; the process itself starts with the first invocation.

        handler is `module.function`, packages the folder with awslambdaric and boto3 (as
        `pip install --target` makes it), timeout in seconds, memory_size in MB (told to the
        function, not enforced: see peak_memory), credentials the AWS_* variables that the role
        would have given.
        """
        self.name = name
        self.timeout = timeout
        self.log: list[str] = []  # every line that the function printed, after each invocation
        self._arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
        self._lock = threading.Lock()
        self._closed = False
        self._sandbox: _Sandbox | None = None
        self._folder = tempfile.TemporaryDirectory(prefix=f"{name}-")
        self._task_root = Path(self._folder.name, "task")
        with zipfile.ZipFile(zip_path) as archive:
            archive.extractall(self._task_root)
        # A file and not a pipe: what was printed before the answer can be read with the answer.
        output = Path(self._folder.name, "output")
        self._writer = output.open("ab")
        self._reader = output.open(newline="\n", encoding="utf-8", errors="replace")
        folders = [packages.resolve()] if NATIVE else [PURE_CLIENT, packages.resolve()]
        self._command = [python, "-I", "-S", "-c", BOOTSTRAP, handler, *map(str, folders)]
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
            "LD_LIBRARY_PATH": os.environ.get(
                "LD_LIBRARY_PATH", ""
            ),  # some Pythons start with it alone
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
        """Return the payload of the next report, which is of this kind; or raise FunctionError."""
        report = sandbox.report(seconds)
        if report and report.kind == kind:
            return report.payload
        if not report or report.kind != "error":  # the process is of no more use
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
        """Take over what was printed since the last time; the file doesn't grow without end."""
        if printed := self._reader.read():
            self.log += printed.removesuffix("\n").split("\n")
        if self._reader.tell() > MAX_OUTPUT_BYTES:
            self._writer.truncate(0)  # the process appends
            self._reader.seek(0)

    def peak_memory(self) -> int:
        """Return the most memory that the running process ever held, in bytes.

        Off Linux, what it holds now: no system call tells of another process's peak there.
        """
        if self._sandbox is None:
            raise RuntimeError(f"{self.name} isn't running; its memory is known while it runs.")
        process = str(self._sandbox.process.pid)
        if LINUX:
            status = Path("/proc", process, "status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024
        shown = subprocess.run(["ps", "-o", "rss=", "-p", process], stdout=subprocess.PIPE)
        return int(shown.stdout) * 1024
