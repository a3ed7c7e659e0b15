"""`make local` and its page: uploads by hand, the stack's settings, ddg-ops, a real browser."""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import urllib3

from local.books import Books
from local.browser import Browser, find_browser
from local.live import Live, run_live
from local.page import serve
from local.pipeline import API_KEY
from tests.events import sqs_event, sqs_record
from tests.operated import run
from tests.zips import LAMBDA_PACKAGES, ROOT

pytestmark = pytest.mark.xdist_group("page")
VARIABLES: dict[str, Any] = {
    "stats_prefix": "jobs/",
    "constant_tags": ["env:try"],
    "metric_prefix": "etl.",
    "jobs": {"tool": {"mapping": "{timestamp: at, took: duration}"}},
    "metrics": {"etl.took": {"type": "count", "interval": 60, "unit": "second"}},
    "buckets": {"acme-data": {}},
}


class Page(NamedTuple):
    """The local run, and where its page is."""

    live: Live
    url: str
    outputs: Path
    uploaded: list[str]  # since all was settled

    def put(self, key: str, content: object, bucket: str = "ddg-stats") -> None:
        """Upload a file; an object becomes JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.live.aws["s3"].put_object(Bucket=bucket, Key=key, Body=body)
        self.uploaded.append(f"s3://{bucket}/{key}")

    def state(self) -> Any:
        """Return what the page is told."""
        return urllib3.request("GET", f"{self.url}/state").json()

    def settled(self) -> Any:
        """Return what the page is told when no file waits any more."""
        deadline = time.monotonic() + 20
        files = self.live.books.files
        while {*self.uploaded} - files.keys() or self.state()["counts"]["waiting"]:
            assert time.monotonic() < deadline, self.state()
        self.uploaded.clear()
        return self.state()


@pytest.fixture(scope="module")
def page(zips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    outputs = tmp_path_factory.mktemp("local") / "outputs.json"
    options = argparse.Namespace(zips=zips, packages=LAMBDA_PACKAGES, port=0, outputs=outputs)
    with run_live(options, VARIABLES) as live, serve(live, 0) as url:
        yield Page(live, url, outputs, [])
    assert not outputs.exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window; nobody may complain in it, and it may ask nobody else."""
    if not (path := find_browser()):
        pytest.skip("no Chromium or Chrome on this machine")
    with Browser(path) as browser:
        yield browser


@pytest.fixture
def seen(page: Page, browser: Browser) -> Iterator[Browser]:
    """The page in the browser, which shows what there is so far."""
    browser.events.clear()
    browser.look(page.url, 1400, 900)
    browser.wait("typeof Plotly === 'object' && seen")
    yield browser
    complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [event for event in browser.events if event["method"] in complaints] == []
    asked = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith((page.url, "data:"))] == []


def values(metric: str) -> str:
    """Return a script for the values that a metric's graph has."""
    return f"""[...document.querySelectorAll("article")]
        .filter((card) => card.dataset.name === "{metric}")
        .flatMap((card) => card.lastChild.data ?? []).flatMap((trace) => [...trace.y])"""


def click(browser: Browser, what: str) -> None:
    """Press a button."""
    browser.evaluate(f"document.querySelector('[data-post=\"{what}\"]').click()")


# --- In the browser ---


def test_empty_page_says_what_to_do(seen: Browser) -> None:
    """Before anything was uploaded."""
    shown = seen.evaluate("document.querySelector('main').innerText")
    assert "No metric yet. Drop a file" in shown
    assert "Drop a file with a button, or upload one below s3://ddg-stats/jobs/" in shown


def test_uploaded_value_is_in_the_graph_within_two_seconds(page: Page, seen: Browser) -> None:
    """As a browser on a machine that has something else to do sees it, too: the best of three."""
    took = []
    for value in (42.5, 43.5, 44.5):
        now = int(time.time())
        page.put(f"jobs/my-job/{uuid.uuid4()}.json", {"timestamp": now, "first": value})
        took.append(seen.wait(f"{values('etl.first')}.includes({value})"))
    assert min(took) < 2
    assert seen.evaluate("document.querySelector('#counts').innerText").startswith("3 written = 3 ")


def test_refusal_shows_its_reason_and_the_file_and_no_markup(page: Page, seen: Browser) -> None:
    """Names and files are anybody's."""
    hostile = '<img src=x onerror="hacked=1"><script>hacked=1</script>'
    page.put(f"jobs/{hostile}/1.json", f"{{{hostile}".encode())
    page.put(f"{hostile}.json", {})
    page.live.pipeline.stack.queue.send_message(MessageBody=f"no notification: {hostile}")
    seen.wait("document.querySelector('#files').innerText.includes('ignored')")
    seen.wait("document.querySelectorAll('#refused li').length === 2")
    shown = seen.evaluate("document.querySelector('#refused').innerText")
    assert f"s3://ddg-stats/jobs/{hostile}/1.json" in shown
    assert "not JSON: Expecting property name enclosed in double quotes: line 1 column 2" in shown
    assert f"\n{{{hostile}" in shown
    assert "the message names no object" in shown
    assert seen.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert seen.evaluate("typeof hacked") == "undefined"


@pytest.mark.parametrize(
    ("button", "reason"), [("503", "Datadog answered 503. <html>"), ("403", "Datadog answered 403")]
)
def test_outage_keeps_files_waiting(page: Page, seen: Browser, button: str, reason: str) -> None:
    """Why is said; when Datadog is mended they arrive, and the graph shows when it was broken."""
    click(seen, f"/datadog/{button}")
    seen.wait(f"document.querySelector('[data-post=\"/datadog/{button}\"]').ariaPressed === 'true'")
    click(seen, "/drop/nested")
    seen.wait(f"document.querySelector('#waiting').innerText.includes('{reason}')")
    click(seen, "/datadog/202")
    seen.wait("document.querySelector('#waiting').childElementCount === 0")
    seen.wait("document.querySelector('.chart').layout.shapes.length > 0")
    assert page.state()["counts"]["waiting"] == 0


def test_buttons_drop_files_of_all_kinds(page: Page, seen: Browser) -> None:
    """Each becomes what it says; what is counted adds up."""
    before = page.settled()["counts"]
    seen.evaluate("document.querySelectorAll('#drop button').forEach((button) => button.click())")
    seen.wait(f"latest.written === {sum(before.values()) + 107}")
    after = page.settled()["counts"]
    gained = {outcome: after[outcome] - before[outcome] for outcome in after}
    assert gained == {"submitted": 105, "refused": 2, "ignored": 0, "waiting": 0}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_page_fits_the_screen(page: Page, seen: Browser, width: int, scheme: str) -> None:
    """Nothing is beside it, and the colours are those that the system asks for."""
    seen.look(page.url, width, 900, scheme)
    seen.wait("document.querySelector('.chart .point')")
    assert seen.evaluate("document.documentElement.scrollWidth") <= width
    paper = seen.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]


# --- What it is told, and by whom ---


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:PORT", "Origin": "http://localhost:PORT"}, 200),
        ({"Host": "evil.example:PORT"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
    ],
)
def test_others_are_refused(page: Page, headers: dict[str, str], status: int) -> None:
    """By whatever name another page calls this machine, it neither reads nor changes anything."""
    port = page.url.rpartition(":")[2]
    headers = {name: text.replace("PORT", port) for name, text in headers.items()}
    read = urllib3.request("GET", f"{page.url}/state", headers=headers)
    changed = urllib3.request("POST", f"{page.url}/datadog/202", headers=headers)
    assert (read.status, changed.status) == (status, 204 if status == 200 else 403)


def test_settings_of_the_stack_apply(page: Page) -> None:
    """Prefix, tags, a job's mapping, a metric's type and unit, a bucket that was there before."""
    now = int(time.time())
    page.put("jobs/tool/1.json", {"at": now, "duration": 7})
    page.put("stats/other/1.json", {"timestamp": now, "rows": 5}, bucket="acme-data")
    page.put("other/1.json", {"timestamp": now, "rows": 5}, bucket="acme-data")
    metrics = {metric["name"]: metric for metric in page.settled()["metrics"]}
    told = [metrics["etl.took"]["about"], metrics["etl.rows"]["about"]]
    assert told == ["count, second", "gauge"]
    assert metrics["etl.took"]["series"] == [{"job": "tool, env:try", "points": [[now, 7.0]]}]
    assert {"job": "other, env:try", "points": [[now, 5.0]]} in metrics["etl.rows"]["series"]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("validate s3://ddg-stats/jobs/ops/good.json", 0, "etl.rows{env:try,job:ops} = 3"),
        ("rejected list", 0, "job:ops"),
        ("where s3://ddg-stats/jobs/ops/good.json", 0, "submitted"),
        ("where jobs/ops/bad.json", 1, "refused"),
        ("dead list", 0, "0 messages in ddg-stats-dead-letter"),
        ("backfill --since 1h --yes", 1, "not JSON"),
        ("tail --no-follow", 0, "ops/bad.json"),
    ],
)
def test_operator_s_command_works(
    page: Page, monkeypatch: pytest.MonkeyPatch, command: str, code: int, said: str
) -> None:
    """With the outputs that are written; the page stands for what is not here."""
    page.put("jobs/ops/good.json", {"timestamp": int(time.time()), "rows": 3})
    page.put("jobs/ops/bad.json", b"bad")
    page.settled()
    monkeypatch.setattr("ddg_ops.walk.WAIT_SECONDS", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", page.live.pipeline.stack.endpoint)
    monkeypatch.setenv("DATADOG_API_KEY", API_KEY)
    result = run(command, "--stack", str(page.outputs))
    assert (result.code, said in result.out) == (code, True), result


# --- Hours ---


def test_books_keep_what_waits_and_the_last_files() -> None:
    """Counts go on; a file that is sent again, or written again, begins anew."""
    books = Books(keep=2)
    records = [sqs_record([f"stats/{n}.json"], bucket="b") for n in range(5)]
    for record in records:
        books.arrive(record["messageId"], record["body"], 0)
        books.arrive(record["messageId"], record["body"], 0)
    log = ['submitted ["s3://b/stats/1.json", "s3://b/stats/2.json"]']
    log += ["refused s3://b/stats/3.json: not JSON", "retried 1: no: s3://b/stats/0.json, s3://b/c"]
    books.settle(sqs_event(records), {records[0]["messageId"]}, log)
    for record in records:  # as they are seen in the queue until they are deleted
        books.arrive(record["messageId"], record["body"], 0)
    assert dict(books.counts) == {"waiting": 1, "submitted": 2, "refused": 1, "ignored": 1}
    assert [entry.reason for entry in books.latest(9, "waiting", "refused")] == ["not JSON", "no"]
    assert [name[-6:] for name in books.forget()] == ["1.json", "2.json"]
    assert [name[-6:] for name in books.files] == ["0.json", "3.json", "4.json"]
    books.arrive("again", records[3]["body"], 0)
    assert dict(books.counts) == {"waiting": 2, "submitted": 2, "refused": 0, "ignored": 1}


def test_memory_is_bounded(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is old goes, from the stand-ins too."""
    page.put("jobs/old/1.json", {"timestamp": int(time.time()), "rows": 3})
    page.put("jobs/old/2.json", b"bad")
    page.settled()
    live, stack = page.live, page.live.pipeline.stack
    monkeypatch.setattr("local.live.KEPT_SECONDS", -60.0)
    monkeypatch.setattr("local.live.KEPT_REFUSALS", 1)
    monkeypatch.setattr("local.datadog_server.KEPT_REQUESTS", 1)
    live.books.keep = 0
    live.tidy()
    live.books.keep = 10_000
    datadog = live.pipeline.datadog
    assert (datadog.points, len(datadog.requests), live.books.files) == ({}, 1, {})
    assert [*stack.bucket.objects.all()] == live.pipeline.submitter.log == []
    assert stack.rejected.attributes["ApproximateNumberOfMessages"] == "1"


# --- The command ---


def live_command(folder: Path, zips: Path, *options: str) -> list[str]:
    outputs = ["--zips", str(zips), "--outputs", str(folder / "outputs.json")]
    return [sys.executable, "-m", "local.live", *outputs, *options]


def find_port() -> int:
    """Return a port that is free, as is the next one; below those that connections are given."""
    for port in random.sample(range(10_000, 30_000, 2), 100):
        with (
            suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 1)),
        ):
            return port
    raise RuntimeError("no port is free")


def test_command_says_what_to_type_and_ends_with_ctrl_c(zips: Path, tmp_path: Path) -> None:
    """The Python that it shows uploads a file, with the environment that it shows."""
    port = find_port()
    command = live_command(tmp_path, zips, "--port", str(port))
    environment = {"PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path), "COLUMNS": "80"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            told = ""
            for line in process.stdout:
                told += line
                if "Ctrl-C" in line:
                    break
            exported = dict(re.findall(r"(\w+)=(\S+)", told.split("echo")[0]))
            python = re.search(r"import boto3.*?Body=body\)", told, re.DOTALL)
            assert python
            script = re.sub("^  ", "", python[0], flags=re.MULTILINE)
            subprocess.run([sys.executable, "-c", script], env=exported, check=True)
            url = f"http://127.0.0.1:{port}"
            while not (state := urllib3.request("GET", f"{url}/state").json())["metrics"]:
                pass
        finally:
            process.send_signal(signal.SIGINT)
        try:
            rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert state["metrics"][0]["name"] == "my.first.metric"
    assert max(len(line) for line in told.splitlines() if str(tmp_path) not in line) <= 80
    assert (process.returncode, rest) == (0, "Ended; nothing is left running.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"jobs": {"a": {"maping": "x"}}}, 'jobs["a"] has no "maping"'),
        ({"metric_prefix": "1"}, "METRIC_PREFIX is malformed"),
        (None, "No such file"),
    ],
)
def test_settings_with_a_fault_end_the_command(
    zips: Path, tmp_path: Path, settings: object, said: str
) -> None:
    """As Terraform's plan does, before anything is started."""
    file = tmp_path / "stack.json"
    if settings:
        file.write_text(json.dumps(settings))
    command = live_command(tmp_path, zips, "--settings", str(file))
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, said in result.stderr) == (2, True), result.stderr


def test_port_that_is_taken_is_told(zips: Path, tmp_path: Path) -> None:
    """With what to type."""
    port = find_port() + 1
    with socket.create_server(("127.0.0.1", port)):
        command = live_command(tmp_path, zips, "--port", str(port - 1))
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    told = f"port {port}: {os.strerror(errno.EADDRINUSE)}. Try make local PORT=9000"
    assert told in result.stderr


def test_screenshot_is_drawn(zips: Path, tmp_path: Path) -> None:
    """The README's, of a story that is shorter."""
    if not find_browser():
        pytest.skip("no Chromium or Chrome on this machine")
    picture = tmp_path / "page.png"
    command = [sys.executable, "-m", "local.screenshot", "--zips", str(zips)]
    command += ["--picture", str(picture), "--seconds", "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (1400, 900)
