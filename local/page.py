"""The live page of the local run, and its buttons."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort, jsonify, request, send_file
from werkzeug.serving import make_server

from local.books import OUTCOMES, REFUSED, WAITING
from local.datadog_server import Answer
from local.samples import bad_files, good_files

if TYPE_CHECKING:
    from local.live import Live

PLOTLY = files("plotly") / "package_data" / "plotly.min.js"
FOLDER = Path(__file__).with_name("page")
SHOWN = {"files": 30, "refused": 20, "waiting": 20}
SHOWN_METRICS = 40  # those with the latest points
SHOWN_SERIES = 20  # of a metric, likewise
BURST = 100
ANSWERS = {
    "202": None,
    "503": Answer(503, b"<html>Service Unavailable</html>"),
    "403": Answer(403, b'{"errors": ["Forbidden"]}'),
    "slow": Answer(accept=True, delay=5.0),
}
NOTHING = ("", 204)
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"


def make_app(live: "Live") -> Flask:
    """Return the page; it rejects requests with another host's name or from another origin."""
    app = Flask(__name__, static_folder=FOLDER, static_url_path="/page")
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of its own provider

    @app.before_request
    def reject_others() -> None:
        hosts = {f"{name}:{request.environ['SERVER_PORT']}" for name in ("127.0.0.1", "localhost")}
        origin = request.headers.get("Origin", f"http://{request.host}")
        if request.host not in hosts or origin.removeprefix("http://") not in hosts:
            abort(403)

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.get("/")
    def index() -> Response:
        return app.send_static_file("index.html")

    @app.get("/plotly.js")
    def plotly() -> Response:
        return send_file(Path(str(PLOTLY)), max_age=3600)

    @app.get("/state")
    def state() -> Response | tuple[str, int]:
        live.look()
        if request.args.get("seen") == str(live.books.changes):
            return NOTHING
        return jsonify(describe(live))

    @app.post("/drop/<what>")
    def drop(what: str) -> tuple[str, int]:
        now = int(time.time())
        samples = {file.what: file for file in (*good_files(now), *bad_files(now))}
        if what not in samples:
            abort(404)
        live.put(samples[what])
        return NOTHING

    @app.post("/burst")
    def burst() -> tuple[str, int]:
        live.pipeline.generator.invoke({"files": BURST})
        return NOTHING

    @app.post("/datadog/<answer>")
    def datadog(answer: str) -> tuple[str, int]:
        if answer not in ANSWERS:
            abort(404)
        live.answer_with(answer, ANSWERS[answer])
        return NOTHING

    return app


def describe(live: "Live") -> dict[str, Any]:
    """Return all that the page shows."""
    books, now, metrics = live.books, time.time(), describe_metrics(live)
    counts = {outcome: books.counts[outcome] for outcome in OUTCOMES}
    outages = [(began, ended or now) for began, ended in live.outages]
    moments = [moment for outage in outages for moment in outage]
    moments += [s["points"][end][0] for m in metrics for s in m["series"] for end in (0, -1)]
    lists = {"files": (), "refused": (REFUSED,), "waiting": (WAITING,)}
    return {
        "version": str(books.changes),
        "counts": {"written": sum(counts.values())} | counts,
        "prefix": f"s3://{live.stack.bucket.name}/{live.prefix}",
        "datadog": live.answer,
        "max_tries": live.max_tries,
        "outages": outages,
        "metrics": metrics,
        "range": (min(moments, default=now) - 1, max(moments, default=now) + 1),
    } | {
        name: [asdict(entry) for entry in books.latest(SHOWN[name], *outcomes)]
        for name, outcomes in lists.items()
    }


def describe_metrics(live: "Live") -> list[dict[str, Any]]:
    """Return the metrics with the latest points, by name; of each, the series with the latest."""
    datadog = live.pipeline.datadog
    metrics: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (metric, tags), values in list(datadog.points.items()):
        if points := sorted(values.items()):
            metrics[metric].append({"job": describe_tags(tags), "points": points})

    def latest(name: str) -> int:
        metrics[name].sort(key=lambda series: series["points"][-1], reverse=True)
        return int(metrics[name][0]["points"][-1][0])

    shown = sorted(sorted(metrics, key=latest, reverse=True)[:SHOWN_METRICS])
    return [
        {
            "name": name,
            "about": describe_metric(datadog.types[name], live.metrics.get(name, {})),
            "series": sorted(metrics[name][:SHOWN_SERIES], key=lambda series: series["job"]),
        }
        for name in shown
    ]


def describe_tags(tags: tuple[str, ...]) -> str:
    """Return the name of a series: its job, then its other tags."""
    jobs = [tag.removeprefix("job:") for tag in tags if tag.startswith("job:")]
    return ", ".join([*(jobs or ["no job"]), *(tag for tag in tags if not tag.startswith("job:"))])


def describe_metric(kind: str, told: Mapping[str, Any]) -> str:
    """Return a metric's type and unit."""
    per = f" per {told['per_unit']}" if told.get("per_unit") else ""
    return f"{kind}, {told['unit']}{per}" if told.get("unit") else kind


@contextmanager
def serve(live: "Live", port: int) -> Iterator[str]:
    """Serve the page on loopback; yield its address."""
    server = make_server("127.0.0.1", port, make_app(live), threaded=True)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
