"""An HTTP server with scripts that decide each byte of a response, and when it is sent."""

import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Self
from urllib.parse import unquote

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class Call(NamedTuple):
    """One request to the server."""

    method: str
    path: str  # decoded, without the query
    body: bytes
    stopping: threading.Event  # wait() for it instead of sleeping: it is set at the end


# Returns what to send, at once or in pieces. ConnectionResetError resets the connection,
# ConnectionAbortedError closes it.
Script = Callable[[Call], bytes | Iterable[bytes]]
Objects = Mapping[str, bytes | Script]  # key -> content, or a script that answers for it


@dataclass(eq=False)
class ScriptedServer:
    """A server on 127.0.0.1: `with ScriptedServer(script) as server:`."""

    script: Script | None = None
    calls: list[str] = field(default_factory=list)  # "GET /bucket/key"
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._tcp = _TCPServer(("127.0.0.1", 0), _Connection)
        self._tcp.scripted = self
        self.url = f"http://127.0.0.1:{self._tcp.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._tcp.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._tcp.shutdown()
        self._tcp.server_close()

    @contextmanager
    def playing(self, script: Script) -> Iterator[Self]:
        """Play another script for a while; calls that still wait at the end continue at once."""
        self.script, self.calls, self.stopping = script, [], threading.Event()
        try:
            yield self
        finally:
            self.stopping.set()
            self.script = None


class _TCPServer(socketserver.ThreadingTCPServer):
    scripted: ScriptedServer
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: many tests are about clients that give up."""


class _Connection(socketserver.StreamRequestHandler):
    server: _TCPServer
    disable_nagle_algorithm = True

    def handle(self) -> None:
        scripted = self.server.scripted
        try:
            while request_line := self.rfile.readline():
                method, target, _ = request_line.decode().split(" ")
                length = 0
                while (line := self.rfile.readline()).strip():
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                body = self.rfile.read(length)
                path = unquote(target.partition("?")[0])
                scripted.calls.append(f"{method} {path}")
                if not scripted.script:
                    break
                sent = scripted.script(Call(method, path, body, scripted.stopping))
                for piece in [sent] if isinstance(sent, bytes) else sent:
                    self.request.sendall(piece)
        except ConnectionResetError:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.request.close()
        except ConnectionAbortedError:
            pass


def response(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    """Return an HTTP response; underscores in the names of headers become hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def s3_error(status: str, code: str, message: str = "no") -> bytes:
    """Return an error in S3's format."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return response(status, body.encode(), Content_Type="application/xml")


def bucket_of(objects: Objects) -> Script:
    """Return a script for S3 with these objects in every bucket."""

    def answer(call: Call) -> bytes | Iterable[bytes]:
        _, _, key = call.path.removeprefix("/").partition("/")
        content = objects.get(key)
        if content is None:
            return s3_error("404 Not Found", "NoSuchKey")
        return response(body=content) if isinstance(content, bytes) else content(call)

    return answer


def sending(answer: bytes) -> Script:
    """Return a script that sends the same bytes each time."""
    return lambda call: answer


def closing_after(sent: bytes) -> Script:
    """Return a script that sends some bytes and closes the connection."""

    def script(call: Call) -> Iterator[bytes]:
        yield sent
        raise ConnectionAbortedError

    return script


def reset(call: Call) -> bytes:
    raise ConnectionResetError


def drip(call: Call) -> Iterator[bytes]:
    """Send a long body slowly."""
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    while not call.stopping.wait(0.02):
        yield b" "


def silent(call: Call) -> bytes:
    """Answer when the script ends, with an error that no client retries.

    A retry would reach the script of the next test.
    """
    call.stopping.wait()
    return s3_error("403 Forbidden", "AccessDenied")
