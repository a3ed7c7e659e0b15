"""Measure the submitter beside what its users would otherwise have: make bench.

Everything runs on this machine: S3 and Datadog answer late, and each function is a process of its
own, invoked as Lambda would. Contenders take turns, so a disturbance of the machine affects all. A
ratio is the median of the turns' ratios. If a target is missed, exits with 1 and names it.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from shutil import make_archive
from statistics import median, quantiles
from sysconfig import get_path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure

from ddg_stats_file import read_stats_file
from local import make_zip
from local.bench_servers import serve, sqs_event
from local.chart import FAINT, GOOD, INK, style
from local.lambda_runtime import LAMBDA_PACKAGES, LambdaFunction
from local.pipeline import run_pipeline
from local.tables import make_table, write_between

ROOT = Path(__file__).resolve().parent.parent
BOTO3 = "import boto3\nboto3.client('s3')\ndef lambda_handler(event, context): pass\n"
CONTENDERS = ("plain", "powertools", "floor", "ours", "bare_put", "generator")
LOOP_FILES = 20  # for those who take one file after the other: enough to measure each
# Files at the limits of the contract: objects, metrics per object, JSON separators
LARGE_FILES = ((10_000, 100, (",", ":")), (130_000, 5, None), (240_000, 1, None))
Times = list[float]  # milliseconds
Row = tuple[str, ...]


def compare(
    name: str, theirs: Times, ours: Times, *, least: float = 0, most: float = 0, unit: str = "ms"
) -> Row:
    """Return a row: theirs in units of ours, or ours in units of theirs if `most` is set."""
    over, under = (ours, theirs) if most else (theirs, ours)
    ratio = median(one / other for one, other in zip(over, under, strict=True))
    target = f"at most {most:g} x" if most else f"at least {least:g} x"
    verdict = "reached" if least <= ratio <= (most or ratio) else "missed"
    shown = (f"{median(each):,.4g} {unit}" for each in (theirs, ours))
    return name, *shown, f"{ratio:.3g} x", target, verdict


class Bench:
    """Runs the contenders; `picture` holds the milliseconds that each takes per file."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.options = options
        self.picture: dict[str, float] = {}
        self.folder = Path(stack.enter_context(TemporaryDirectory()))
        self.zips = make_zips(self.folder)
        late = serve(options.s3_latency / 1000, options.datadog_latency / 1000)
        environment, self.seen = stack.enter_context(late)
        self.functions = {
            name: stack.enter_context(self.function(name, environment)) for name in CONTENDERS
        }

    def function(self, name: str, environment: Mapping[str, str]) -> LambdaFunction:
        """Return the function of a zip, or of a contender."""
        if name in self.zips:
            handler, packages = "ddg_metric_submit.lambda_handler", LAMBDA_PACKAGES
        else:
            handler, packages = f"contenders.{name}", Path(get_path("purelib"))
        zipped = self.zips.get(name, self.zips["contenders"])
        return LambdaFunction(zipped, handler, environment, packages=packages, timeout=300)

    def invoke(self, function: LambdaFunction, files: int) -> float:
        """Return the milliseconds that a function takes for a number of files."""
        event = sqs_event(files, self.options.metrics)
        event |= {"files": files, "body_bytes": 4 * self.options.metrics * files}
        started = time.perf_counter()
        function.invoke(event)
        taken = 1000 * (time.perf_counter() - started)
        summary = "".join(function.log[-1:])  # if it is the submitter's
        if '"Submitted"' in summary and f'"Submitted": {files},' not in summary:
            sys.exit(f"Not every file was submitted: {summary}")
        return taken

    def take_turns(self, full: int, *runs: Callable[[], float]) -> list[Times]:
        """Take turns at the runs, in changing order; return the times of each."""
        times: list[Times] = [[] for _ in runs]
        for turn in range(max(1, full // self.options.quick)):
            for run, taken in list(zip(runs, times, strict=True))[:: 1 if turn % 2 else -1]:
                taken.append(run())
        return times

    def race(self, files: int, turns: int, *names: str) -> list[Times]:
        """Invoke warm contenders in turns; return the times per file of each."""
        print(f"batches of {files:,}: {', '.join(names)}", flush=True)
        functions = [self.functions[name] for name in names]
        for function in functions:
            self.invoke(function, min(files, 64))  # opens the connections
        times = self.take_turns(turns, *(partial(self.invoke, each, files) for each in functions))
        return [[time / files for time in each] for each in times]

    def count(self, name: str, files: int) -> Counter[str]:
        """Return the requests and bytes that a contender needs for a number of files."""
        self.seen.clear()
        self.invoke(self.functions[name], files)
        return self.seen.copy()

    def batches(self) -> Iterator[Row]:
        """Measure time, requests, bytes and memory of small and large batches."""
        files = self.options.files
        times = self.race(LOOP_FILES, 6, "plain", "powertools")
        times += self.race(files, 15, "floor", "ours")
        plain, powertools, floor, ours = ([median(each)] for each in times)
        self.picture = {"plain": plain[0], "powertools": powertools[0], "floor": floor[0]}
        yield compare("plain", plain, ours, least=150)
        yield compare("powertools", powertools, ours, least=40)
        yield compare(f"floor, {files:,} files", *times[2:], least=0.95)
        yield compare("floor, 10 files", *self.race(10, 60, "floor", "ours"), least=0.95)
        yield compare("floor, 1 file", *self.race(1, 60, "floor", "ours"), most=1.05)
        sizes = [size for size in (1, 10, 100, 1_000, 10_000) if size <= 10 * files]
        growth = [median(*self.race(size, 5, "ours")) for size in sizes]
        self.picture |= zip((f"ours, batches of {size:,}" for size in sizes), growth, strict=True)
        less, more = max(pairwise(growth), key=lambda pair: pair[1] / pair[0])
        yield compare("ours, a tenth of the batch", [less], [more], most=1.15)
        written = self.race(min(files, 1_000), 9, "bare_put", "generator")
        yield compare("bare put_object", *written, least=0.9)
        loop, batch = self.count("plain", LOOP_FILES), self.count("ours", files)
        yield compare("floor, POSTs per batch", [1], [batch["POST"]], most=1, unit="")
        wire = [loop["wire"] / LOOP_FILES], [batch["wire"] / files]
        yield compare("plain, bytes per file on the wire", *wire, most=0.1, unit="B")
        peak = self.functions["ours"].peak_memory() / 1e6
        yield compare(f"256 MB for {sizes[-1]:,} files", [256], [peak], most=1, unit="MB")

    def starts(self) -> Iterator[Row]:
        """Measure cold starts, until a first file is submitted, and the zip's size."""
        print("cold starts", flush=True)
        with serve() as (environment, _):

            def start(name: str) -> float:
                with self.function(name, environment) as function:
                    return self.invoke(function, 1)

            names = ("boto3", "naive", "ours")
            times = self.take_turns(45, *(partial(start, name) for name in names))
        # The fastest of each: a disturbance of a start only adds to it.
        boto3, naive, ours = ([min(each)] for each in times)
        yield compare("boto3 and a client, cold start", boto3, ours, most=1.2)
        yield compare("naive zip, cold start", naive, ours, least=1.3)
        sizes = ([self.zips[name].stat().st_size / 1e6] for name in ("naive", "ours"))
        yield compare("naive zip, size", *sizes, most=0.9, unit="MB")

    def parser(self) -> Iterator[Row]:
        """Measure the CPU time of the contract's checks, for files at its limits."""
        now, digit = int(time.time()), partial(random.Random(0).randint, 0, 9)
        for objects, metrics, separators in LARGE_FILES:
            array = [
                {"timestamp": now - i % 3_000}
                | {f"m{i // 3_000 * metrics + m}": digit() for m in range(metrics)}
                for i in range(objects * min(self.options.files, 1_000) // 1_000)
            ]
            content = json.dumps(array, separators=separators).encode()
            title = f"json.loads, {len(content) / 1e6:.1f} MB, metrics per object: {metrics}"
            print(title, flush=True)
            ours = partial(read_stats_file, now=now, max_age=3600, tags=["job:large"])
            reads = (partial(cpu_time, read, content) for read in (json.loads, ours))
            # The fastest of each: a disturbance only adds to CPU time.
            yield compare(title, *([min(each)] for each in self.take_turns(6, *reads)), least=0.12)


def delays(zips: Path, files: int) -> Iterator[Row]:
    """Send files one by one through the whole pipeline; yield the delays that it reports."""
    print(f"delay of {files} files, one by one", flush=True)
    with run_pipeline(zips) as pipeline, pipeline.event_source():
        for number in range(files):
            content = json.dumps({"timestamp": int(time.time()), "n": number})
            pipeline.stack.bucket.put_object(Key=f"stats/delay/{number}.json", Body=content)
            time.sleep(random.uniform(0.05, 0.25))
            while pipeline.depth():  # on a busy machine; it must be alone in its batch
                time.sleep(0.1)
        lines = [json.loads(line) for line in pipeline.submitter.log if "DelayMill" in line]
    for name, each in {
        "from S3's event to Datadog's 202": [ms for at in lines for ms in at["DelayMilliseconds"]],
        "waiting for S3": [line["FetchMilliseconds"] for line in lines],
        "waiting for Datadog": [line["PostMilliseconds"] for line in lines],
    }.items():
        cuts = quantiles(each, n=100, method="inclusive")
        yield name, *(f"{ms:,.0f} ms" for ms in (cuts[49], cuts[94], cuts[98], max(each)))


def cpu_time(read: Callable[[bytes], object], content: bytes) -> float:
    """Return the milliseconds of CPU that reading takes, including freeing the result."""
    started = time.thread_time()
    read(content)
    return 1000 * (time.thread_time() - started)


def make_zips(folder: Path) -> dict[str, Path]:
    """Make our zip, the usual one, one with nothing but boto3, and the contenders'."""
    ours, packages = folder / "ddg_metric_submit.zip", folder / "packages"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-compile", "--no-deps", "--no-index"]
    wheels = ["--find-links", f"{sys.prefix}/wheels", "--target", str(packages)]
    subprocess.run([*pip, *wheels, "-r", "requirements.txt"], check=True, cwd=ROOT)
    version = "{}.{}".format(*sys.version_info)
    for name, needed in (("ddg_metric_submit", packages), ("ddg_mock_datasource", folder / "none")):
        make_zip.main(version, f"{ROOT}/{name}.py", f"{folder}/{name}.zip", str(needed))
    compile_all = [sys.executable, "-m", "compileall", "-q"]  # as pip and Lambda do
    subprocess.run([*compile_all, packages, LAMBDA_PACKAGES], check=True)
    with zipfile.ZipFile(ours) as archive:
        modules = [name for name in archive.namelist() if name.startswith("ddg_")]
        archive.extractall(packages, [name for name in modules if name.endswith(".py")])
    naive = Path(make_archive(str(folder / "naive"), "zip", packages))
    with zipfile.ZipFile(boto3 := folder / "boto3.zip", "w") as archive:
        archive.writestr("ddg_metric_submit.py", BOTO3)
    with zipfile.ZipFile(contenders := folder / "contenders.zip", "w") as archive:
        archive.write(ROOT / "local/contenders.py", "contenders.py")
        archive.write(ROOT / "ddg_mock_datasource.py", "ddg_mock_datasource.py")
    return {"ours": ours, "naive": naive, "boto3": boto3, "contenders": contenders}


def draw(path: Path, picture: Mapping[str, float]) -> None:
    """Draw a bar for each contender and batch size, as long as a file takes."""
    figure = Figure(figsize=(9.0, 4.6), dpi=200, layout="constrained")
    ax = figure.subplots()
    style(ax)
    title = "Milliseconds per stats file (logarithmic axis)"
    ax.set_title(title, loc="left", color=INK, fontsize=11)
    colours = [GOOD if name.startswith("ours") else FAINT for name in picture]
    bars = ax.barh([*picture], [*picture.values()], color=colours)
    ax.bar_label(bars, fmt="%.3g ms", padding=4, color=INK, fontsize=9)
    ax.set(xscale="log", xlim=(0.3, 900), xticks=[])
    ax.minorticks_off()
    ax.grid(visible=False)
    ax.invert_yaxis()
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and check the targets."""
    parser = argparse.ArgumentParser("python -m local.bench", description=__doc__)
    add = parser.add_argument
    add("--files", type=int, default=1_000, help="files of the large batch (1000)")
    add("--metrics", type=int, default=5, help="metrics per file (5)")
    add("--s3-latency", type=float, default=20.0, metavar="MS", help="20 ms")
    add("--datadog-latency", type=float, default=50.0, metavar="MS", help="50 ms")
    third = "take an n-th of the turns (a third); write no files"
    add("--quick", type=int, nargs="?", const=3, default=1, metavar="N", help=third)
    add("--output", type=Path, help="folder of performance.md and bench.png (docs)")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        bench = Bench(options, stack)
        rows = [*bench.batches(), *bench.starts(), *bench.parser()]
        delayed = [*delays(bench.folder, 300 // options.quick)]
    table = make_table(("compared with", "theirs", "ours", "ratio", "target", ""), rows)
    delay = make_table(("", "p50", "p95", "p99", "largest"), delayed)
    where = (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}. S3 "
        f"answers in {options.s3_latency:g} ms, Datadog in {options.datadog_latency:g} ms."
    )
    print(where, table, delay, sep="\n\n")
    if output := options.output or (ROOT / "docs" if options.quick == 1 else None):
        draw(output / "bench.png", bench.picture)
        write_between(output / "performance.md", "bench", f"{where}\n\n{table}")
        write_between(output / "performance.md", "delay", delay)
    if missed := [row[0] for row in rows if row[-1] == "missed"]:
        sys.exit(f"Missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
