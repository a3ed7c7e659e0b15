"""Run a zip's handler as Lambda does: awslambdaric in a clean process, with its Runtime API.

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
from pathlib import Path
from typing import Any, Self

from werkzeug import Request, Response
from werkzeug.serving import make_server

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's default
LAMBDA_PACKAGES = Path(sys.prefix, "lambda-runtime")  # what Lambda provides: awslambdaric and boto3
INIT_SECONDS = 60.0  # Lambda allows 10; a busy laptop may need more
WATCH_SECONDS = 0.05  # between two looks whether the process still runs

LINUX = sys.platform.startswith("linux")
# awslambdaric has its native module only on Linux. The variable replaces it there too.
NATIVE = LINUX and not os.environ.get("PURE_RUNTIME_CLIENT")
PURE_CLIENT = Path(__file__).resolve().parent / "pure"

# Isolated (-I) and without site-packages (-S), so that a package missing from the zip is noticed.
# Like Lambda, it searches the function's folder first and the runtime's packages last.
BOOTSTRAP = """
import os, sys
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
sys.path += sys.argv[2:]
from awslambdaric.__main__ import main
main(["bootstrap", sys.argv[1]])
"""


class FunctionError(Exception):
    """The handler raised or took too long, its module can't be imported, or its process ended."""


class _Sandbox:
    """A process of the function and its Runtime API, which answers only during an invocation."""

    def __init__(self, command: list[str], environment: Mapping[str, str], **options: Any) -> None:
        self._server = make_server("127.0.0.1", 0, Request.application(self._answer))
        self.event, self.arn, self.seconds = b"", "", 0.0  # of the next invocation
        self.reports: list[tuple[str, bytes]] = []  # next, response or error, and its content
        api = f"127.0.0.1:{self._server.server_port}"
        self.process = subprocess.Popen(
            command,
            env={**environment, "AWS_LAMBDA_RUNTIME_API": api},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not reach it; close() ends it
            **options,
        )

    def wait(self, seconds: float) -> tuple[str, bytes] | None:
        """Return what the process reports next; None after that time or if the process ends."""
        deadline = time.monotonic() + seconds
        while not self.reports and self.process.poll() is None:
            self._server.timeout = min(WATCH_SECONDS, deadline - time.monotonic())
            if self._server.timeout <= 0:
                return None
            self._server.handle_request()
        return self.reports.pop() if self.reports else None

    def _answer(self, request: Request) -> Response:
        """Pass on the invocation, or receive the response to it or an error."""
        self.reports.append((request.path.rpartition("/")[2], request.get_data()))
        if request.method == "POST":
            return Response(status=202)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": str(uuid.uuid4()),
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + self.seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.arn,
        }
        return Response(self.event, headers=headers, content_type="application/json")

    def kill(self) -> None:
        """Kill the process and everything it started."""
        with suppress(ProcessLookupError, PermissionError):  # ended; macOS: ended a moment ago
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process and close the Runtime API."""
        self.kill()
        self.process.wait()
        self._server.server_close()


class LambdaFunction:
    """A function from a zip; a context manager. Runs one invocation at a time, as Lambda does."""

    def __init__(
        self,
        zip_path: Path,
        handler: str,
        environment: Mapping[str, str],
        *,
        packages: Path = LAMBDA_PACKAGES,
        name: str = "function",
        timeout: float = 30.0,
    ) -> None:
        """Unpack the zip; the process starts with the first invocation.

        handler: `module.function`. packages: a folder with awslambdaric and boto3. timeout: in s.
        """
        self.timeout = timeout
        self.log: list[str] = []  # the lines that the function has printed
        self._arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
        self._lock = threading.Lock()
        self._closed = False
        self._sandbox: _Sandbox | None = None
        self._folder = tempfile.TemporaryDirectory(prefix=f"{name}-")
        self._task_root = Path(self._folder.name, "task")
        with zipfile.ZipFile(zip_path) as archive:
            archive.extractall(self._task_root)
        # A file instead of a pipe: all output is there when the response arrives.
        self._output = Path(self._folder.name, "output").open("ab+")  # noqa: SIM115 # by close()
        folders = [packages.resolve()] if NATIVE else [PURE_CLIENT, packages.resolve()]
        python = [sys.executable, "-B", "-I", "-S"]  # -B: Lambda's folders are read-only
        self._command = [*python, "-c", BOOTSTRAP, handler, *map(str, folders)]
        self._environment = {
            **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "local"),  # for moto
            **environment,
            "_HANDLER": handler,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_REGION": REGION,
            "HOME": self._folder.name,  # so that botocore doesn't read the user's ~/.aws
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
        if sandbox := self._sandbox:
            sandbox.kill()
        with self._lock:  # the invocation that was cut short still reads the output
            self._stop()
            self._output.close()
            self._folder.cleanup()

    def invoke(self, event: object) -> object:
        """Return the handler's response to the event.

        Raises FunctionError if the handler raises or misses its deadline, or if its process can't
        start or ends.
        """
        with self._lock:
            if self._closed:
                raise FunctionError("the function has been closed")
            sandbox = self._sandbox = self._sandbox or _Sandbox(
                self._command, self._environment, cwd=self._task_root, stdout=self._output
            )
            sandbox.event, sandbox.arn = json.dumps(event).encode(), self._arn
            sandbox.seconds = self.timeout
            try:
                self._expect("next", sandbox, INIT_SECONDS)
                return json.loads(self._expect("response", sandbox, self.timeout))
            finally:
                self._read_output()

    def _expect(self, kind: str, sandbox: _Sandbox, seconds: float) -> bytes:
        """Return the content of the next report; raise FunctionError if it is of another kind."""
        report = sandbox.wait(seconds)
        if report and report[0] == kind:
            return report[1]
        ended = sandbox.process.poll()
        if report is None or kind == "next":  # the process is of no use any more
            self._stop()
        if report:
            error = json.loads(report[1])
            raise FunctionError(f"{error['errorType']}: {error['errorMessage']}")
        if ended is None:
            raise FunctionError(f"the function timed out after {seconds:g} s")
        self._read_output()
        raise FunctionError(f"the process ended with {ended}: {''.join(self.log[-1:])}")

    def _stop(self) -> None:
        if self._sandbox:
            self._sandbox.close()
        self._sandbox = None

    def _read_output(self) -> None:
        """Move the output to the log."""
        self._output.seek(0)
        if printed := self._output.read().decode(errors="replace"):
            self.log += printed.removesuffix("\n").split("\n")
        self._output.truncate(0)  # the process appends

    def peak_memory(self) -> int:
        """Return the peak memory of the running process in bytes; except on Linux, the current."""
        if self._sandbox is None:
            raise RuntimeError("the process isn't running")
        process = str(self._sandbox.process.pid)
        if LINUX:
            status = Path("/proc", process, "status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024
        shown = subprocess.run(["ps", "-o", "rss=", "-p", process], stdout=subprocess.PIPE)
        return int(shown.stdout) * 1024
