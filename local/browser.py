"""A headless Chromium or Chrome, driven by its DevTools protocol through a pipe: no driver needed.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

NAMES = (
    "chromium",
    "google-chrome",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WAIT_SECONDS = 20.0  # a machine that is busy testing may need them


def find_browser() -> str | None:
    """Return the path of a browser on this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a browser of its own; a context manager."""

    def __init__(self, path: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # The browser reads from 3 and writes to 4; the shell puts the pipes there.
        redirect = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        options = [*QUIET, f"--user-data-dir={self._folder.name}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", redirect, "browser", path, *options, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._read = 0, b""
        self._session: dict[str, str] = {}
        self.events: deque[dict[str, Any]] = deque()  # all that the page told
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result; events on the way are kept."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": parameters} | self._session
        os.write(self._out, json.dumps(call).encode() + b"\0")
        while True:
            while b"\0" not in self._read:
                chunk = os.read(self._in, 1 << 20)
                if not chunk:
                    raise RuntimeError(f"the browser ended during {method}")
                self._read += chunk
            message, _, self._read = self._read.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, script: str) -> Any:
        """Return what an expression is in the page, a promise's value included."""
        options = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", expression=script, **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = WAIT_SECONDS) -> float:
        """Wait until an expression is true; return the seconds that took."""
        started = time.monotonic()
        while not self.evaluate(f"!!({script})"):
            if time.monotonic() > started + seconds:
                raise TimeoutError(f"not within {seconds} s: {script}")
            time.sleep(0.02)
        return time.monotonic() - started

    def look(self, url: str, width: int, height: int, scheme: str = "light") -> None:
        """Open a page as a screen of so many pixels shows it, light or dark."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def picture(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = {}
        try:
            with suppress(RuntimeError):  # it may end before it answers
                self.call("Browser.close")  # its other processes too, which write to the folder
            self._process.wait(WAIT_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._folder.cleanup()
