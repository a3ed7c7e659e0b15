"""`make local` and its page: uploads, the stack's settings, ddg-ops, a real browser."""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import boto3
import pytest
import urllib3
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local.books import Books
from local.live import Live, run_live
from local.page import serve
from local.pipeline import API_KEY
from local.screenshot import find_browser
from tests.events import sqs_event, sqs_record
from tests.operated import run
from tests.zips import ROOT

pytestmark = pytest.mark.xdist_group("page")
expect.set_options(timeout=20_000)  # milliseconds, for a machine that is busy testing
VARIABLES: dict[str, Any] = {
    "stats_prefix": "jobs/",
    "constant_tags": ["env:try"],
    "metric_prefix": "etl.",
    "jobs": {"tool": {"mapping": "{timestamp: at, took: duration}"}},
    "metrics": {"etl.took": {"type": "count", "interval": 60, "unit": "second"}},
    "buckets": {"acme-data": {}},
}
VALUES = """(metric) => [...document.querySelectorAll("article")]
    .filter((card) => card.innerText.startsWith(metric))
    .flatMap((card) => card.lastChild.data ?? []).flatMap((trace) => [...trace.y])"""


class Local(NamedTuple):
    """The local run, and where its page is."""

    live: Live
    url: str
    outputs: Path
    uploaded: list[str]  # since the last call of settled()

    def put(self, key: str, content: object, bucket: str = "ddg-stats") -> None:
        """Upload a file; an object becomes JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.live.stack.bucket.meta.client.put_object(Bucket=bucket, Key=key, Body=body)
        self.uploaded.append(f"s3://{bucket}/{key}")

    def settled(self) -> Any:
        """Return what the page shows once no file waits."""
        deadline = time.monotonic() + 20
        while True:
            state = urllib3.request("GET", f"{self.url}/state").json()
            entered = {*self.uploaded} <= self.live.books.files.keys()
            if entered and not state["counts"]["waiting"]:
                self.uploaded.clear()
                return state
            assert time.monotonic() < deadline, state


@pytest.fixture(scope="module")
def local(zips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    outputs = tmp_path_factory.mktemp("local") / "outputs.json"
    options = argparse.Namespace(zips=zips, port=0, outputs=outputs)
    with run_live(options, VARIABLES) as live, serve(live, 0) as url:
        yield Local(live, url, outputs, [])
    assert not outputs.exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not (path := find_browser()):
        pytest.skip("no Chromium or Chrome on this machine")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path) as browser,
    ):
        yield browser


@pytest.fixture
def page(local: Local, browser: Browser) -> Iterator[Page]:
    """The page in the browser: it logs nothing, and asks no other host."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    seen: list[str] = []
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda request: seen.append(request.url))
    page.goto(local.url)
    expect(page.get_by_text(" written")).to_be_visible()
    yield page
    page.close()
    assert [each for each in seen if not each.startswith((local.url, "data:"))] == []


# --- In the browser ---


def test_empty_page_says_what_to_do(page: Page) -> None:
    main = page.locator("main")
    expect(main).to_contain_text("No metric yet. Drop a file")
    expect(main).to_contain_text("upload one below s3://ddg-stats/jobs/")


def test_uploaded_value_is_in_the_graph_within_two_seconds(local: Local, page: Page) -> None:
    """The best of three, as the machine may be busy."""
    took = []
    for value in (42.5, 43.5, 44.5):
        started = time.monotonic()
        content = {"timestamp": int(time.time()), "first": value}
        local.put(f"jobs/my-job/{uuid.uuid4()}.json", content)
        while value not in page.evaluate(VALUES, "etl.first"):
            assert time.monotonic() < started + 20
        took.append(time.monotonic() - started)
    assert min(took) < 2
    expect(page.locator("#counts")).to_contain_text("3 written = 3 submitted")


def test_refusal_shows_its_reason_and_the_file_and_no_markup(local: Local, page: Page) -> None:
    """Anybody can choose names and contents."""
    hostile = '<img src=x onerror="hacked=1"><script>hacked=1</script>'
    local.put(f"jobs/{hostile}/1.json", f"{{{hostile}".encode())
    local.put(f"{hostile}.json", {})
    local.live.stack.queue.send_message(MessageBody=f"no notification: {hostile}")
    expect(page.locator("#files")).to_contain_text("ignored")
    refused = page.locator("#refused")
    expect(refused.locator("li")).to_have_count(2)
    for text in (
        f"s3://ddg-stats/jobs/{hostile}/1.json",
        "not JSON: Expecting property name enclosed in double quotes: line 1 column 2",
        "the message names no object",
    ):
        expect(refused).to_contain_text(text)
    expect(refused.locator("pre")).to_contain_text(f"{{{hostile}")
    expect(page.locator("main img, main script")).to_have_count(0)
    assert page.evaluate("typeof hacked") == "undefined"


@pytest.mark.parametrize(
    ("button", "reason"),
    [("503: down", "Datadog answered 503. <html>"), ("403: wrong key", "Datadog answered 403")],
)
def test_outage_keeps_files_waiting(local: Local, page: Page, button: str, reason: str) -> None:
    """The page shows the reason; later the files arrive, and the graph is shaded. By keyboard."""
    outage, waiting = page.get_by_role("button", name=button), page.locator("#waiting")
    outage.press("Enter")
    expect(outage).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="good").press("Enter")
    expect(waiting).to_contain_text(reason)
    page.get_by_role("button", name="202: all is well").press("Enter")
    expect(waiting.locator("li")).to_have_count(0)
    expect(page.locator(".chart .shapelayer path").first).to_be_attached()
    assert local.settled()["counts"]["waiting"] == 0


def test_buttons_drop_files_of_all_kinds(local: Local, page: Page) -> None:
    """Each becomes what it says; the counts add up."""
    before = local.settled()["counts"]
    for button in page.locator("#drop button").all():
        button.click()
    expect(page.locator("#counts")).to_contain_text(f"{before['written'] + 107} written")
    after = local.settled()["counts"]
    gained = {outcome: after[outcome] - before[outcome] for outcome in after}
    expected = {"written": 107, "submitted": 105, "refused": 2, "ignored": 0, "waiting": 0}
    assert gained == expected


@pytest.mark.parametrize(
    ("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(13, 17, 23)")]
)
@pytest.mark.parametrize("width", [1400, 400])
def test_page_fits_the_screen(page: Page, width: int, scheme: Any, paper: str) -> None:
    """Nothing exceeds the width; the colours are those that the system asks for."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    expect(page.locator(".chart .point").first).to_be_attached()
    page.wait_for_function("(width) => document.documentElement.scrollWidth <= width", arg=width)
    expect(page.locator("body")).to_have_css("background-color", paper)


# --- Requests, settings, ddg-ops ---


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:PORT", "Origin": "http://localhost:PORT"}, 200),
        ({"Host": "evil.example:PORT"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
    ],
)
def test_others_are_rejected(local: Local, headers: dict[str, str], status: int) -> None:
    """Whatever name another site's page has for this machine, it reads and changes nothing."""
    port = local.url.rpartition(":")[2]
    headers = {name: text.replace("PORT", port) for name, text in headers.items()}
    read = urllib3.request("GET", f"{local.url}/state", headers=headers)
    changed = urllib3.request("POST", f"{local.url}/datadog/202", headers=headers)
    assert (read.status, changed.status) == (status, 204 if status == 200 else 403)


def test_settings_of_the_stack_apply(local: Local) -> None:
    """Prefix, tags, a job's mapping, a metric's type and unit, another bucket."""
    now = int(time.time())
    local.put("jobs/tool/1.json", {"at": now, "duration": 7})
    local.put("stats/other/1.json", {"timestamp": now, "rows": 5}, bucket="acme-data")
    local.put("other/1.json", {"timestamp": now, "rows": 5}, bucket="acme-data")
    metrics = {metric["name"]: metric for metric in local.settled()["metrics"]}
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
    ],
)
def test_ddg_ops_works(
    local: Local, monkeypatch: pytest.MonkeyPatch, command: str, code: int, said: str
) -> None:
    """With the file of outputs that `make local` writes."""
    local.put("jobs/ops/good.json", {"timestamp": int(time.time()), "rows": 3})
    local.put("jobs/ops/bad.json", b"bad")
    local.settled()
    monkeypatch.setattr("ddg_ops.walk.WAIT_SECONDS", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", local.live.stack.endpoint)
    monkeypatch.setenv("DATADOG_API_KEY", API_KEY)
    result = run(command, "--stack", str(local.outputs))
    assert (result.code, said in result.out) == (code, True), result


# --- Hours ---


def test_books_keep_waiting_files_and_the_last_settled_ones() -> None:
    """Counts go on. A file that is sent or written again gets a new entry."""
    books = Books(keep=2)
    records = [sqs_record([f"stats/{n}.json"], bucket="b") for n in range(5)]
    log = ['submitted ["s3://b/stats/1.json", "s3://b/stats/2.json"]']
    log += ["refused s3://b/stats/3.json: not JSON", "retried 1: no: s3://b/stats/0.json, s3://b/c"]
    batch = books.receive(sqs_event(records))
    assert dict(books.counts) == {"waiting": 5}
    books.settle(batch, {records[0]["messageId"]}, log)
    assert dict(books.counts) == {"waiting": 1, "submitted": 2, "refused": 1, "ignored": 1}
    assert [entry.reason for entry in books.latest(9, "waiting", "refused")] == ["not JSON", "no"]
    assert [name[-6:] for name in books.forget()] == ["1.json", "2.json"]
    assert [name[-6:] for name in books.files] == ["0.json", "3.json", "4.json"]
    visible = SimpleNamespace(id=records[3]["messageId"], body=records[3]["body"], sent_timestamp=0)
    books.look(SimpleNamespace(messages=[visible]))  # settled, and not deleted yet
    assert dict(books.counts) == {"waiting": 1, "submitted": 2, "refused": 1, "ignored": 1}
    visible.id = "again"
    books.look(SimpleNamespace(messages=[visible]))
    assert dict(books.counts) == {"waiting": 2, "submitted": 2, "refused": 0, "ignored": 1}
    books.receive(sqs_event([records[0], records[3]]))
    assert dict(books.counts) == {"waiting": 2, "submitted": 2, "refused": 0, "ignored": 1}


def test_memory_is_bounded(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old data goes, from the stand-ins too."""
    local.put("jobs/old/1.json", {"timestamp": int(time.time()), "rows": 3})
    local.put("jobs/old/2.json", b"bad")
    local.settled()
    live, stack = local.live, local.live.stack
    monkeypatch.setattr("local.live.KEPT_SECONDS", -60.0)
    for name in ("live.KEPT_REFUSALS", "live.KEPT_LINES", "datadog_server.KEPT_REQUESTS"):
        monkeypatch.setattr(f"local.{name}", 1)
    monkeypatch.setattr(live.books, "keep", 0)
    live.tidy()
    datadog = live.pipeline.datadog
    assert (datadog.points, len(datadog.requests), live.books.files) == ({}, 1, {})
    assert [*stack.bucket.objects.all()] == live.pipeline.submitter.log == []
    assert stack.rejected.attributes["ApproximateNumberOfMessages"] == "1"
    logs = boto3.client("logs", endpoint_url=stack.endpoint)
    log = logs.filter_log_events(logGroupName="/aws/lambda/ddg-stats-metric-submit")
    assert len(log["events"]) == 1


# --- The command ---


def live_command(zips: Path, folder: Path, *options: str) -> list[str]:
    outputs = ["--zips", str(zips), "--outputs", str(folder / "outputs.json")]
    return [sys.executable, "-m", "local.live", *outputs, *options]


def find_port() -> int:
    """Return a free port whose next one is free too; outside the range of outgoing connections."""
    for port in random.sample(range(10_000, 30_000, 2), 100):
        with (
            suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 1)),
        ):
            return port
    raise RuntimeError("no port is free")


def test_command_says_what_to_type_and_ends_with_ctrl_c(zips: Path, tmp_path: Path) -> None:
    """The Python that it prints uploads a file, in the environment that it prints."""
    port = find_port()
    command = live_command(zips, tmp_path, "--port", str(port))
    environment = {"PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path), "COLUMNS": "80"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            lines = [*takewhile(lambda line: "Ctrl-C" not in line, process.stdout)]
            told = "".join(lines)
            exported = dict(re.findall(r"(\w+)=(\S+)", told.split("echo")[0]))
            [python] = re.findall(r"import boto3.*?Body=body\)", told, re.DOTALL)
            script = re.sub("^  ", "", python, flags=re.MULTILINE)
            subprocess.run([sys.executable, "-c", script], env=exported, check=True)
            url = f"http://127.0.0.1:{port}/state"
            while not (state := urllib3.request("GET", url).json())["metrics"]:
                pass
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
    assert state["metrics"][0]["name"] == "my.first.metric"
    assert max(len(line.rstrip()) for line in lines if str(tmp_path) not in line) <= 80
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
    """As they end Terraform's plan, before anything starts."""
    file = tmp_path / "stack.json"
    if settings:
        file.write_text(json.dumps(settings))
    command = live_command(zips, tmp_path, "--settings", str(file))
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, said in result.stderr) == (2, True), result.stderr


def test_taken_port_ends_the_command(zips: Path, tmp_path: Path) -> None:
    """The message says what to type."""
    port = find_port() + 1
    with socket.create_server(("127.0.0.1", port)):
        command = live_command(zips, tmp_path, "--port", str(port - 1))
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    told = f"port {port}: {os.strerror(errno.EADDRINUSE)}. Try make local PORT=9000"
    assert told in result.stderr


def test_screenshot_is_drawn(zips: Path, tmp_path: Path) -> None:
    """The README's, of a shorter story."""
    if not find_browser():
        pytest.skip("no Chromium or Chrome on this machine")
    picture = tmp_path / "page.png"
    command = [sys.executable, "-m", "local.screenshot", "--zips", str(zips)]
    command += ["--picture", str(picture), "--seconds", "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert picture.read_bytes().startswith(b"\x89PNG")
