"""Measure the submitter, and what its users would otherwise have, side by side: make bench.

Everything runs on this machine: S3 and Datadog are servers that answer late, the functions are
processes of their own. Contenders take turns, so that what disturbs the machine disturbs all; a
ratio is the median of each turn's. Ends with 1, and the bar's name, where a bar isn't reached.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ddg_stats_file import MAX_FILE_BYTES, read_stats_file
from local.bench_servers import ROOT, Counts, Servers
from local.chart import BAD, FAINT, GOOD, GRID, INK, LINES, style
from local.contenders import CONTENDERS, Contender, Run, sqs_event
from local.lambda_runtime import LambdaFunction
from local.make_zip import find_python
from local.pages import DOCS, write_result

RUNTIME = "3.13"  # the functions' Python, where this machine has it
LOOPS = ("plain", "powertools")  # one file after the other: some files tell the time of each
LOOP_FILES = 20
GROWTH = (1, 10, 100, 1_000, 10_000)
MEGABYTE = 1_000_000
WIDTH = 120  # of the tables in a file
WHAT = {  # the contenders, for the picture
    "plain": "plain: a POST a metric",
    "powertools": "powertools: a POST a file",
    "floor": "floor: bare boto3, one POST",
    "limit": "limit: bare urllib3, one POST",
    "ours": "ours",
}
BLANK_HANDLER = """
import boto3
s3 = boto3.client("s3")
def lambda_handler(event, context):
    return {}
"""
KIND = f"{os.cpu_count()} cores, {platform.system()} container"


class Bar(NamedTuple):
    """What is measured and what it must be."""

    name: str
    must: str
    value: float
    reached: bool
    shown: str


@dataclass
class Results:
    """Everything measured: the raw numbers by what they are of, and the bars."""

    raw: dict[str, Any] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)

    def at_least(self, name: str, limit: float, value: float, unit: str = "x") -> None:
        self._add(name, "at least", limit, value, value >= limit, unit)

    def at_most(self, name: str, limit: float, value: float, unit: str = "x") -> None:
        self._add(name, "at most", limit, value, value <= limit, unit)

    def _add(
        self, name: str, which: str, limit: float, value: float, reached: bool, unit: str
    ) -> None:
        must, shown = (f"{number:.4g} {unit}".strip() for number in (limit, value))
        self.bars.append(Bar(name, f"{which} {must}", value, reached, shown))


class Bench:
    """The servers, the turns taken, and what shows that it goes on."""

    def __init__(self, options: argparse.Namespace, progress: Progress) -> None:
        self.options = options
        self.progress = progress
        self.results = Results()

    def servers(self, late: bool = True) -> Servers:
        """Start S3 and Datadog, as late as is asked for or at once."""
        latencies = (self.options.s3_latency, self.options.datadog_latency)
        return Servers(*(each / 1000 if late else 0.0 for each in latencies))

    def rounds(self, full: int) -> int:
        """Return how many turns there are."""
        return max(3, round(full / (3 if self.options.quick else 1)))

    def take_turns(
        self, title: str, contenders: Mapping[str, Callable[[], Any]], rounds: int
    ) -> dict[str, list[Any]]:
        """Run the contenders by turns, in changing order; return the results of each."""
        results: dict[str, list[Any]] = {name: [] for name in contenders}
        task = self.progress.add_task(title, total=rounds)
        for turn in range(rounds):
            names = list(contenders)
            for name in names if turn % 2 else reversed(names):
                results[name].append(contenders[name]())
            self.progress.advance(task)
        return results

    def race(
        self, title: str, names: Iterable[str], files: int, rounds: int
    ) -> dict[str, list[Run]]:
        """Run contenders with so many files by turns, warm."""
        with ExitStack() as stack:
            servers = stack.enter_context(self.servers())
            running = {
                name: stack.enter_context(Contender(name, servers.environment())) for name in names
            }
            for contender in running.values():
                contender.run(min(files, 64), self.options.metrics)  # opens the connections

            turns = {
                name: partial(contender.run, files, self.options.metrics)
                for name, contender in running.items()
            }
            before = servers.counts().busy_seconds
            started = time.perf_counter()
            runs = self.take_turns(title, turns, rounds)
            busy = servers.counts().busy_seconds - before
        for summary in (run.answer for run in runs.get("ours", [])):
            if summary["Submitted"] != files:
                sys.exit(f"Of {files} files not all were submitted: {summary}")
        share = busy / (time.perf_counter() - started)
        self.results.raw[title] = {
            "files": files,
            "servers_cpu_share": round(share, 3),
            **{name: [run._asdict() for run in taken] for name, taken in runs.items()},
        }
        return runs

    def count(self, name: str, files: int) -> Counts:
        """Return the requests and bytes that a contender takes for so many files."""
        with (
            self.servers(late=False) as servers,
            Contender(name, servers.environment()) as contender,
            servers.counting() as counted,
        ):
            contender.run(files, self.options.metrics)
        return counted[0]

    # --- What is measured ---

    def thousand_files(self) -> None:
        """Time, requests and bytes of a large batch, against all contenders."""
        files = self.options.files
        floors = self.race(
            f"a batch of {files} files", ("floor", "limit", "ours"), files, self.rounds(15)
        )
        loops = self.race(f"{LOOP_FILES} files", LOOPS, LOOP_FILES, self.rounds(6))
        ours = statistics.median(run.seconds for run in floors["ours"]) / files
        for name, bar in zip(LOOPS, (150, 40), strict=True):
            theirs = statistics.median(run.seconds for run in loops[name]) / LOOP_FILES
            self.results.at_least(f"time against {name}", bar, theirs / ours)
        self.results.at_least("speed against floor", 0.95, speed(floors["floor"], floors["ours"]))
        batch, loop = self.count("ours", files), self.count("plain", LOOP_FILES)
        self.results.at_most(f"POSTs a batch of {files} files", 1, batch.posts, "")
        self.results.raw["bytes"] = {"ours": batch._asdict(), "plain": loop._asdict()}
        json_bytes = files * loop.plain_bytes / LOOP_FILES
        percent = 100 * batch.post_bytes / json_bytes
        self.results.at_most("bytes on the wire of plain's JSON", 10, percent, "%")

    def small_batches(self) -> None:
        """One file alone, and ten as the stack is deployed by default."""
        one = self.race("1 file", ("floor", "ours"), 1, self.rounds(60))
        self.results.at_most("one file against one GET + one POST", 1.05, 1 / speed(*one.values()))
        ten = self.race("10 files", ("floor", "ours"), 10, self.rounds(60))
        self.results.at_least("speed against floor, batches of 10", 0.95, speed(*ten.values()))
        seconds = statistics.median(run.seconds for run in ten["ours"])
        self.results.raw["10 files"]["files_a_second"] = 10 / seconds

    def growth(self) -> None:
        """Time a file from 1 file to 10,000; the memory of the largest batch."""
        sizes = [size for size in GROWTH if not self.options.quick or size <= 1_000]
        times = []
        with self.servers() as servers, Contender("ours", servers.environment()) as contender:
            contender.run(64)
            task = self.progress.add_task("growth", total=len(sizes))
            for size in sizes:
                runs = [contender.run(size).seconds for _ in range(3 if size > 1_000 else 5)]
                times.append(statistics.median(runs) / size)
                self.progress.advance(task)
        self.results.raw["growth"] = dict(zip(map(str, sizes), times, strict=True))
        steps = [later / sooner for sooner, later in pairwise(times)]
        self.results.at_most("growth of the time a file, tenfold batch", 1.15, max(steps))

    def generator(self) -> None:
        """A thousand files written in one invocation."""
        runs = self.race("generator", ("bare_put", "generator"), 1_000, self.rounds(9))
        self.results.at_least("generator against bare put_object", 0.9, speed(*runs.values()))

    def from_zips(self, folder: Path) -> None:
        """Cold starts, sizes and memory of what is deployed."""
        python = find_python(RUNTIME) or sys.executable
        runtime = lambda_runtime(python)
        ours, naive, blank = make_zips(folder, python)
        percent = ours.stat().st_size / naive.stat().st_size
        self.results.raw["zips"] = {path.stem: path.stat().st_size for path in (ours, naive)}
        self.results.at_most("zip against pip install --target", 0.9, percent)
        quiet = folder / "python"  # Lambda's folders are read-only: no bytecode is written
        quiet.write_text(f'#!/bin/sh\nexec {python} -B "$@"\n')
        quiet.chmod(0o755)
        with self.servers(late=False) as servers:
            event = sqs_event(1, self.options.metrics, int(time.time()))

            with_key = servers.environment()
            with_secret = {**with_key, "DATADOG_API_KEY_SECRET_ARN": "arn:aws:secretsmanager:bench"}

            def start(path: Path, environment: Mapping[str, str]) -> float:
                handler = "blank" if path is blank else "ddg_metric_submit"
                with LambdaFunction(
                    path,
                    f"{handler}.lambda_handler",
                    environment,
                    packages=runtime,
                    python=str(quiet),
                ) as function:
                    started = time.perf_counter()
                    function.invoke(event)
                    return time.perf_counter() - started

            starts = {
                "boto3 and a client": partial(start, blank, {}),
                "ours": partial(start, ours, with_key),
                "naive zip": partial(start, naive, with_key),
                "ours, key in a secret": partial(start, ours, with_secret),
            }
            for once in starts.values():
                once()  # reads the disk
            times = self.take_turns("cold start", starts, self.rounds(45))
            self.results.raw["cold start"] = {"python": version_of(python), **times}
            client, first, naive_first, _ = times.values()
            # The fastest of each: what disturbs a start only adds to it.
            against_client = ratio(min(first), min(client))
            self.results.at_most("cold start to a file's answer, of boto3's", 1.2, against_client)
            faster = ratio(min(naive_first), min(first))
            self.results.at_least("cold start against the naive zip", 1.3, faster)
            with LambdaFunction(
                ours,
                "ddg_metric_submit.lambda_handler",
                servers.environment(),
                packages=runtime,
                python=str(quiet),
                timeout=300,
            ) as function:
                files = 3_000 if self.options.quick else 10_000
                function.invoke(sqs_event(files, self.options.metrics, int(time.time())))
                peak = function.peak_memory() / MEGABYTE
        self.results.at_most(f"memory of {files:,} small files", 256, peak, "MB")

    def parser(self) -> None:
        """The contract's checks against json.loads alone."""
        for title, content in large_files().items():
            taken = self.take_turns(
                title,
                {
                    "json.loads": partial(cpu_seconds, json.loads, content),
                    "ours": partial(cpu_seconds, read_large, content),
                },
                self.rounds(6),
            )
            self.results.raw[title] = taken
            value = ratio(*map(min, taken.values()))  # what disturbs CPU time only adds to it
            self.results.at_least(f"parser of json.loads, {title}", 0.2, value)


def speed(theirs: Sequence[Run], ours: Sequence[Run]) -> float:
    """Return how fast we are in comparison: the median of all turns."""
    return statistics.median(a.seconds / b.seconds for a, b in zip(theirs, ours, strict=True))


def ratio(one: float, other: float) -> float:
    """Return one in units of the other."""
    return one / other


def cpu_seconds(read: Callable[[bytes], object], content: bytes) -> float:
    """Return the CPU time that reading takes, in seconds, that of forgetting it included."""
    started = time.thread_time()
    read(content)
    return time.thread_time() - started


def read_large(content: bytes) -> object:
    """Read a file as the submitter does."""
    return read_stats_file(content, now=LARGE_FILES_NOW, max_age=3600, tags=["job:large"])


LARGE_FILES_NOW = 1_800_000_000
SECONDS = 3_000  # that the files' objects are of, by turns


def large_files() -> dict[str, bytes]:
    """Return files at the limits of the contract: the most points, and the most objects."""
    numbers = random.Random(0)

    def array(objects: int, metrics: int) -> list[dict[str, int]]:
        return [
            {"timestamp": LARGE_FILES_NOW - index % SECONDS}
            | {
                f"m{metrics * (index // SECONDS) + metric}": numbers.randint(0, 9)
                for metric in range(metrics)
            }
            for index in range(objects)
        ]

    million = json.dumps(array(10_000, 100), separators=(",", ":")).encode()
    five = json.dumps(array(130_000, 5)).encode()
    single = json.dumps(array(240_000, 1)).encode()
    files = {
        f"1,000,000 points in an array of {len(million) / MEGABYTE:.1f} MB": million,
        f"{len(five) / MEGABYTE:.1f} MB, 5 metrics an object": five,
        f"{len(single) / MEGABYTE:.1f} MB, 1 metric an object": single,
    }
    assert max(map(len, files.values())) <= MAX_FILE_BYTES  # noqa: S101  # else it is refused
    return files


def version_of(python: str) -> str:
    """Return a Python's version."""
    show = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", show], capture_output=True, text=True).stdout.strip()


def lambda_runtime(python: str) -> Path:
    """Return a folder with what Lambda brings for a Python, byte-compiled as there."""
    folder = Path(sys.prefix, "lambda-runtime")
    if python != sys.executable:
        folder = folder.with_name(f"lambda-runtime-{RUNTIME}")
        if not folder.exists():
            packages = ["--constraint", "local/requirements.txt", "awslambdaric", "boto3"]
            pip = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python]
            subprocess.run([*pip, "--target", str(folder), *packages], check=True, cwd=ROOT)
    subprocess.run([python, "-m", "compileall", "-q", str(folder)], check=True)
    return folder


def make_zips(folder: Path, python: str) -> tuple[Path, Path, Path]:
    """Make our zip for a Python, the one that everybody makes, and one with no more than boto3."""
    version = ".".join(version_of(python).split(".")[:2])
    packages, handler = folder / "packages", ROOT / "ddg_metric_submit.py"
    wheels = ["--no-index", "--no-deps", "--find-links", str(Path(sys.prefix, "wheels"))]
    pip = [sys.executable, "-m", "pip", "install", "-qq", *wheels, "-r", "requirements.txt"]
    subprocess.run([*pip, "--target", str(packages)], check=True, cwd=ROOT)
    naive = folder / "naive.zip"
    with zipfile.ZipFile(naive, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (path for path in packages.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(packages))
        for name in ("ddg_metric_submit", "ddg_series_api", "ddg_stats_file"):
            archive.write(ROOT / f"{name}.py", f"{name}.py")
    ours = folder / "ours.zip"
    for bytecode in packages.rglob("__pycache__"):  # make_zip.py takes what --no-compile leaves
        for file in bytecode.iterdir():
            file.unlink()
    make = [sys.executable, "-I", str(ROOT / "local/make_zip.py"), version, str(handler)]
    subprocess.run([*make, str(ours), str(packages)], check=True, stdout=subprocess.DEVNULL)
    blank = folder / "blank.zip"
    with zipfile.ZipFile(blank, "w") as archive:
        archive.writestr("blank.py", BLANK_HANDLER)
    return ours, naive, blank


# --- What is shown ---


def milliseconds(runs: Sequence[Mapping[str, Any]], files: int) -> list[float]:
    """Return the time a file of each run, in milliseconds, the shortest first."""
    return sorted(1000 * run["seconds"] / files for run in runs)


def times_table(raw: Mapping[str, Any]) -> Table:
    """Return the contenders' times: the median, and between what half of the runs lie."""
    table = Table("files", "contender", "ms a file", "half of the runs", "CPU ms a file")
    for title, races in raw.items():
        if "servers_cpu_share" not in races:
            continue
        for name in (name for name in races if isinstance(races[name], list)):
            times = milliseconds(races[name], races["files"])
            low, middle, high = statistics.quantiles(times, n=4)
            cpu = statistics.median(run["cpu_seconds"] for run in races[name])
            table.add_row(
                title,
                name,
                f"{middle:.3f}",
                f"{low:.3f} - {high:.3f}",
                f"{1000 * cpu / races['files']:.3f}",
            )
    return table


def added_by_secret(cold: Mapping[str, Any]) -> str:
    """Return what a cold start takes with the key in a secret, the fastest of each."""
    before, after = (1000 * min(cold[name]) for name in ("ours", "ours, key in a secret"))
    return (
        f"A cold start with the API key in a secret takes {after:.0f} ms instead of {before:.0f}."
    )


def bars_table(bars: Iterable[Bar]) -> Table:
    """Return the bars, and whether they are reached."""
    table = Table("measure", "must be", "is", "")
    for bar in bars:
        verdict = "[green]reached[/]" if bar.reached else "[red]falls short[/]"
        table.add_row(bar.name, bar.must, bar.shown, verdict)
    return table


def draw(results: Results, path: Path, latencies: str) -> None:
    """Write the picture: what a file takes, how that grows, and the cold start."""
    figure = Figure(figsize=(9.0, 6.2), dpi=200, facecolor="white")
    top, below = figure.subplots(2, 1, height_ratios=[1.25, 1])
    bottom = below.get_subplotspec()
    below.remove()
    growth, cold = (figure.add_subplot(cell) for cell in bottom.subgridspec(1, 2, wspace=0.7))
    figure.suptitle(
        "What a stats file takes", x=0.012, y=0.975, ha="left", color=INK, fontsize=13,
        fontweight="bold",
    )  # fmt: skip
    figure.text(0.012, 0.915, f"{latencies}. {KIND}.", color=FAINT, fontsize=9)
    draw_contenders(top, results.raw)
    draw_growth(growth, results.raw["growth"])
    draw_cold(cold, results.raw["cold start"])
    figure.subplots_adjust(left=0.24, right=0.96, top=0.84, bottom=0.07, hspace=0.32)
    figure.savefig(path)


def draw_contenders(ax: Axes, raw: Mapping[str, Any]) -> None:
    """Draw a line a contender, as long as a file takes, on a logarithmic axis."""
    style(ax)
    races = [race for race in raw.values() if isinstance(race, dict) and "floor" in race]
    races = [max(races, key=lambda race: race["files"]), raw[f"{LOOP_FILES} files"]]
    times = {
        name: statistics.median(milliseconds(race[name], race["files"]))
        for name in CONTENDERS
        for race in races
        if name in race
    }
    for row, (name, time_) in enumerate(reversed(times.items())):
        ax.barh(row, time_, color=GOOD if name == "ours" else GRID, height=0.62)
        ax.text(time_ * 1.06, row, f"{time_:.3g} ms", va="center", color=INK, fontsize=9)
    ax.set_yticks(range(len(times)), [WHAT[name] for name in reversed(times)])
    ax.set_xscale("log")
    ax.set_xlim(0.3, 900)
    ax.set_xticks([])
    ax.minorticks_off()
    ax.grid(visible=False)
    ax.set_title(
        "milliseconds a file (the axis is logarithmic)", loc="left", color=FAINT, fontsize=9
    )


def draw_growth(ax: Axes, growth: Mapping[str, float]) -> None:
    """Draw the time a file by the size of the batch."""
    style(ax)
    sizes = [int(size) for size in growth]
    ax.loglog(sizes, [1000 * each for each in growth.values()], "o-", color=LINES[0], lw=1.6, ms=4)
    ax.minorticks_off()
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.set_yticks([1, 10, 100], ["1", "10", "100"])
    ax.set_title("ms a file, by files a batch", loc="left", color=FAINT, fontsize=9)


def draw_cold(ax: Axes, cold: Mapping[str, Any]) -> None:
    """Draw the cold starts."""
    style(ax)
    times = {name: 1000 * min(cold[name]) for name in cold if name != "python"}
    for row, (name, time_) in enumerate(reversed(times.items())):
        colour = GOOD if name.startswith("ours") else BAD if name == "naive zip" else GRID
        ax.barh(row, time_, color=colour, height=0.62)
        ax.text(time_ + 8, row, f"{time_:.0f} ms", va="center", color=INK, fontsize=9)
    ax.set_yticks(range(len(times)), list(reversed(times)))
    ax.set_xlim(0, 1.25 * max(times.values()))
    ax.set_xticks([])
    ax.grid(visible=False)
    title = f"cold start, Python {cold['python']}"
    ax.set_title(title, loc="left", color=FAINT, fontsize=9)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show, and judge."""
    parser = argparse.ArgumentParser("python -m local.bench", description=__doc__)
    add = parser.add_argument
    add("--files", type=int, default=1_000, help="files of the large batch (default: 1000)")
    add("--metrics", type=int, default=5, help="metrics a file (default: 5)")
    add("--s3-latency", type=float, default=20.0, metavar="MS", help="default: 20 ms")
    add("--datadog-latency", type=float, default=50.0, metavar="MS", help="default: 50 ms")
    add("--quick", action="store_true", help="a third of the turns; writes no files")
    add("--output", type=Path, help="folder for bench.json and bench.png (docs; --quick: none)")
    options = parser.parse_args(arguments)
    output = options.output or (None if options.quick else DOCS)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        bench = Bench(options, progress)
        bench.thousand_files()
        bench.small_batches()
        bench.growth()
        bench.generator()
        bench.from_zips(Path(folder))
        bench.parser()
    results = bench.results
    latencies = (
        f"S3 answers in {options.s3_latency:g} ms, Datadog in {options.datadog_latency:g} ms"
    )
    tables = times_table(results.raw), bars_table(results.bars)
    machine = f"{KIND}, Python {platform.python_version()}"
    cold_python = results.raw["cold start"]["python"]
    where = f"{machine}; cold starts: Python {cold_python}. {latencies}."
    a_second = (
        "With batches of 10, as the stack is deployed by default, one function takes "
        f"{results.raw['10 files']['files_a_second']:.0f} files a second."
    )
    secret = added_by_secret(results.raw["cold start"])
    console.print(where, *tables, a_second, secret, sep="\n")
    if output:
        document = {
            "machine": machine,
            "options": {name: str(value) for name, value in vars(options).items()},
            "bars": [bar._asdict() for bar in results.bars],
            **results.raw,
        }
        (output / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
        draw(results, output / "bench.png", latencies)
    if output == DOCS:
        write_result(DOCS / "performance.md", "bench", where, *tables, a_second, secret)
    short = [bar.name for bar in results.bars if not bar.reached]
    if short:
        sys.exit(f"Falls short: {'; '.join(short)}")


if __name__ == "__main__":
    main()
