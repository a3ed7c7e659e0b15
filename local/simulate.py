"""Simulate bursts, outages and peaks, hold the model against the real handler: make simulate.

Writes the pictures of docs/scaling.md and prints its tables. Ends with 1 where the model is more
than TOLERANCE off.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ddg_metric_submit import RETRY_PAUSES
from local.bench_servers import Servers
from local.chart import FAINT, INK, LINES, style
from local.contenders import Contender
from local.cost import SQS_BATCH, Times, files_a_batch, month
from local.pages import DOCS, write_result
from local.simulation import (
    Course,
    Load,
    Service,
    Setting,
    lost,
    shortest_outage_that_costs,
    simulate,
)

TOLERANCE = 0.2  # of the drain time and of the highest age
WIDTH = 150  # of the tables in a file
MEMORY = 512  # MB, variables.tf's default
MEMORIES = (128, 256, 512, 1_024, 1_769)
POST_SECONDS = 0.05  # the bench's Datadog
BURST = 100_000  # files
OUTAGES = (10, 30, 60)  # minutes
CONCURRENCIES = (2, 5, 20, 100)
VISIBILITY_TIMEOUTS = (180, 360, 900)  # seconds; 180 is the default
STEADY = 20.0  # files a second, in the outages
NORMAL = 60.0  # files a second, before and after the peak
PEAK_MINUTES = 10
PEAK = Load(
    rate=NORMAL,
    until=4_500,
    peak_rate=10 * NORMAL,
    peak=(600, 600 + 60 * PEAK_MINUTES),
)
LOADS = {  # files a second, maximum_concurrency, batch_size
    "one file a minute": (1 / 60, 5, 10),
    "a million files an hour": (1e6 / 3_600, 5, 10),
    "10,000 files a second": (10_000.0, 120, 10),
    "the same, batches of 100": (10_000.0, 100, 100),
    "the same, batches of 1,000": (10_000.0, 50, 1_000),
}

# Cost's fields
COSTS = ("S3 GETs", "SQS", "Lambda requests", "Lambda compute", "logs", "transfer", "fixed")


def measured_times(bench: Path) -> Times:
    """Return what the bench measured: CPU seconds, and the rest as waiting."""
    raw = json.loads(bench.read_text())

    def median(title: str, name: str) -> float:
        return float(statistics.median(run[name] for run in raw[title]["ours"]))

    one, ten = median("1 file", "cpu_seconds"), median("10 files", "cpu_seconds")
    a_file = (ten - one) / 9
    return Times(wait=median("1 file", "seconds") - one, cpu=one - a_file, cpu_file=a_file)


# --- The model against the real handler ---


class Trial(NamedTuple):
    """A run of a small load, real or simulated, in seconds."""

    drained: float
    max_age: float


def run_real(
    contenders: Sequence[Contender], servers: Servers, setting: Setting, load: Load
) -> Trial:
    """Let real handlers, a process each, take a load's files; only the queue is played."""
    steady = [(index + 1) / load.rate for index in range(round(load.rate * load.until))]
    written = [0.0] * load.burst + steady
    queue = [(at, at) for at in written]  # when it is visible, when it was written
    ages: list[float] = []
    changed = threading.Condition()
    started = time.monotonic()
    switches = [threading.Timer(at, servers.toggle_outage) for at in load.outage if at]

    def poll(contender: Contender) -> None:
        while True:
            with changed:
                now = time.monotonic() - started
                if len(ages) == len(written):
                    return
                batch = sorted(each for each in queue if each[0] <= now)[: setting.batch_size]
                if not batch:
                    changed.wait(0.005)
                    continue
                for each in batch:
                    queue.remove(each)
            summary = contender.run(len(batch)).answer
            with changed:
                if summary["Retried"]:
                    over = now + setting.visibility_timeout
                    queue.extend((over, at) for _, at in batch)
                else:
                    ages.extend(time.monotonic() - started - at for _, at in batch)

    for switch in switches:
        switch.start()
    with ThreadPoolExecutor(len(contenders)) as threads:
        list(threads.map(poll, contenders))
    return Trial(time.monotonic() - started, max(ages))


def measure_service(contenders: Sequence[Contender], servers: Servers, files: int) -> Service:
    """Return what invocations take while all contenders are at work."""

    def seconds(files: int) -> float:
        def run(contender: Contender) -> float:
            started = time.monotonic()
            contender.run(files)
            return time.monotonic() - started

        with ThreadPoolExecutor(len(contenders)) as threads:
            rounds = [list(threads.map(run, contenders)) for _ in range(5)]
        return statistics.mean(taken for each in rounds[1:] for taken in each)

    one, full = seconds(1), seconds(files)
    servers.toggle_outage()
    outage = seconds(files)
    servers.toggle_outage()
    post = (outage - full - sum(RETRY_PAUSES)) / len(RETRY_PAUSES)
    return Service(alone=one, a_file=(full - one) / (files - 1), post=post)


def compare() -> tuple[Table, bool]:
    """Run small loads both ways; tell also whether the model is within the tolerance."""
    setting = Setting(maximum_concurrency=3, batch_size=10, visibility_timeout=4)
    loads = {
        "burst of 300": Load(burst=300),
        "20 files a second for 8 s, an outage of 3": Load(rate=20, until=8, outage=(2, 5)),
    }
    table = Table("small run", "", "real handlers, s", "model, s", "off by")
    good = True
    with ExitStack() as stack:
        servers = stack.enter_context(Servers(0.1, 0.2))
        contenders = [
            stack.enter_context(Contender("ours", servers.environment()))
            for _ in range(setting.maximum_concurrency)
        ]
        service = measure_service(contenders, servers, setting.batch_size)
        for title, load in loads.items():
            real = run_real(contenders, servers, setting, load)
            course = simulate(setting, service, load)
            for name, ours, model in (
                ("drained after", real.drained, course.drained),
                ("highest age", real.max_age, course.max_age),
            ):
                off = model / ours - 1
                good = good and abs(off) <= TOLERANCE
                table.add_row(title, name, f"{ours:.2f}", f"{model:.2f}", f"{100 * off:+.0f}%")
    return table, good


# --- What is told ---


def service_of(times: Times, memory: int) -> Service:
    """Return the model's times at a memory size."""
    one, two = times.invocation(1, memory), times.invocation(2, memory)
    return Service(alone=one, a_file=two - one, post=POST_SECONDS)


def cost_tables(times: Times) -> tuple[Table, Table]:
    """Return what loads cost a month, and what memory sizes do."""
    costs = Table("load", "files a batch", *COSTS, "total", title="US dollars a month")
    for title, (rate, concurrency, most) in LOADS.items():
        # Over 10 there is a batching window, in which a batch fills.
        full = most > SQS_BATCH
        batch = most if full else files_a_batch(times, MEMORY, rate, concurrency, most)
        cost = month(times, MEMORY, rate, batch)
        numbers = [f"{each:,.{2 if each < 100 else 0}f}" for each in (*cost, cost.total)]
        costs.add_row(title, f"{batch:,.{0 if batch >= 100 else 1}f}", *numbers)
    memories = Table("memory, MB", "batch of 10, s", "US dollars of compute a million files")
    for memory in MEMORIES:
        compute = month(times, memory, 1.0, 10).lambda_compute / (3_600 * 730) * 1e6
        memories.add_row(f"{memory:,}", f"{times.invocation(10, memory):.3f}", f"{compute:.3f}")
    return costs, memories


def draw(
    path: Path,
    title: str,
    courses: Mapping[str, Course],
    panels: Mapping[str, Callable[[Any], Any]],
) -> None:
    """Write a picture: a panel each of what is seen over time, a line each of the settings."""
    height = 2.2 * len(panels) + 1.3  # inches
    figure = Figure(figsize=(9.0, height), dpi=160, facecolor="white")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    figure.suptitle(
        title, x=0.012, y=1 - 0.15 / height, ha="left", color=INK, fontsize=13, fontweight="bold"
    )
    colours = (*LINES, "#1a7f37")
    for ax, (label, value) in zip(axes, panels.items(), strict=True):
        style(ax)
        for (name, course), colour in zip(courses.items(), colours, strict=False):
            minutes = [moment.at / 60 for moment in course.moments]
            ax.plot(minutes, [value(m) for m in course.moments], color=colour, lw=1.6, label=name)
        ax.set_title(label, loc="left", color=FAINT, fontsize=9)
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(lambda number, _: f"{number:,.0f}")
    axes[0].legend(frameon=False, fontsize=9, labelcolor=INK)
    axes[-1].set_xlabel("minutes", color=FAINT, fontsize=9)
    figure.subplots_adjust(
        left=0.09, right=0.97, top=1 - 0.85 / height, bottom=0.5 / height, hspace=0.3
    )
    figure.savefig(path)


def waiting(moment: Any) -> Any:
    """Return the files that wait."""
    return moment.waiting


def oldest_minutes(moment: Any) -> Any:
    """Return the age of the oldest visible message."""
    return moment.oldest / 60


def bursts(service: Service, output: Path) -> Table:
    """Simulate a burst for several settings."""
    table = Table("setting", "drained, s", "invocations", title=f"burst of {BURST:,} files")
    settings = {
        "concurrency 2": Setting(2),
        "concurrency 5 (default)": Setting(5),
        "concurrency 100": Setting(100),
        "concurrency 5, batches of 100": Setting(5, 100),
    }
    courses = {}
    for name, setting in settings.items():
        courses[name] = course = simulate(setting, service, Load(burst=BURST), 2.0)
        table.add_row(name, f"{course.drained:.0f}", f"{course.invocations:,}")
    title = f"A burst of {BURST:,} files: how many still wait"
    draw(output / "simulation-burst.png", title, courses, {"files waiting": waiting})
    return table


def outages(service: Service, output: Path) -> tuple[Table, Table]:
    """Simulate outages of Datadog for each concurrency and visibility timeout."""
    title = f"files that age out + are given up, at {STEADY:g} files a second"
    table = Table("maximum_concurrency", "visibility timeout, s", title=title)
    shortest = Table("visibility timeout, s", "an outage costs files from which length on, min")
    for minutes in OUTAGES:
        table.add_column(f"{minutes} min")
    shares: dict[tuple[int, int, int], float] = {}
    with ProcessPoolExecutor() as processes:
        runs = {
            (concurrency, timeout, minutes): processes.submit(
                lost, Setting(concurrency, 10, timeout), service, STEADY, 60 * minutes
            )
            for concurrency in CONCURRENCIES
            for timeout in VISIBILITY_TIMEOUTS
            for minutes in OUTAGES
        }
        lengths = {
            timeout: processes.submit(
                shortest_outage_that_costs, Setting(5, 10, timeout), service, STEADY
            )
            for timeout in VISIBILITY_TIMEOUTS
        }
        for concurrency in CONCURRENCIES:
            for timeout in VISIBILITY_TIMEOUTS:
                numbers = [runs[concurrency, timeout, minutes].result() for minutes in OUTAGES]
                for minutes, each in zip(OUTAGES, numbers, strict=True):
                    shares[concurrency, timeout, minutes] = sum(each) / (STEADY * 60 * minutes)
                shown = [f"{aged:,} + {dead:,}" if aged + dead else "0" for aged, dead in numbers]
                table.add_row(str(concurrency), str(timeout), *shown)
        for timeout, seconds in lengths.items():
            shortest.add_row(str(timeout), f"{seconds.result() / 60:.0f}")
    figure = Figure(figsize=(9.0, 3.4), dpi=160, facecolor="white")
    title = (
        f"Outages of Datadog at {STEADY:g} files a second: how many of their files come too late"
    )
    figure.suptitle(title, x=0.012, y=0.97, ha="left", color=INK, fontsize=12, fontweight="bold")
    for ax, minutes in zip(figure.subplots(1, len(OUTAGES), sharey=True), OUTAGES, strict=True):
        draw_outage(ax, minutes, shares)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.76, bottom=0.16, wspace=0.08)
    figure.savefig(output / "simulation-outages.png")
    return table, shortest


def draw_outage(ax: Axes, minutes: int, lost_shares: Mapping[tuple[int, int, int], float]) -> None:
    """Draw a field for each setting: the share of an outage's files that are not submitted."""
    shares = [
        [100 * lost_shares[concurrency, timeout, minutes] for concurrency in CONCURRENCIES]
        for timeout in VISIBILITY_TIMEOUTS
    ]
    ax.imshow(shares, cmap="Reds", vmin=0, vmax=30, aspect="auto")
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            shown = f"{share:.1f}%" if share else "0"
            ax.text(column, row, shown, ha="center", va="center", color=INK, fontsize=9)
    ax.set_title(f"{minutes} minutes", loc="left", color=INK, fontsize=10)
    ax.set_xticks(range(len(CONCURRENCIES)), [str(each) for each in CONCURRENCIES])
    ax.set_yticks(range(len(VISIBILITY_TIMEOUTS)), [f"{each} s" for each in VISIBILITY_TIMEOUTS])
    ax.tick_params(colors=FAINT, labelsize=9, length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("maximum_concurrency", color=FAINT, fontsize=9)
    if minutes == OUTAGES[0]:
        ax.set_ylabel("visibility timeout", color=FAINT, fontsize=9)


def peaks(service: Service, output: Path) -> Table:
    """Simulate ten times the load for ten minutes."""
    title = f"{NORMAL:g} files a second, and ten times as many for {PEAK_MINUTES} minutes"
    table = Table("setting", "most waiting", "highest age, s", "aged out", title=title)
    courses = {}
    for name, setting in {
        "concurrency 2": Setting(2),
        "concurrency 5 (default)": Setting(5),
        "concurrency 10": Setting(10),
        "concurrency 5, batches of 100": Setting(5, 100),
    }.items():
        courses[name] = course = simulate(setting, service, PEAK, 15.0)
        most = max(moment.waiting for moment in course.moments)
        table.add_row(name, f"{most:,}", f"{course.max_age:.0f}", f"{course.aged_out:,}")
    panels = {"files waiting": waiting, "minutes that the oldest waits": oldest_minutes}
    draw(output / "simulation-peak.png", title, courses, panels)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, draw, compare, and judge."""
    parser = argparse.ArgumentParser("python -m local.simulate", description=__doc__)
    parser.add_argument("--bench", type=Path, default=DOCS / "bench.json", help="measured times")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of the pictures (docs)")
    parser.add_argument("--compare", action="store_true", help="only hold the model to the handler")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    page = DOCS / "scaling.md" if options.output == DOCS else None

    def tell(**tables: Table) -> None:
        console.print(*tables.values())
        for name, table in tables.items():
            if page:
                write_result(page, name, table)

    if not options.compare:
        times = measured_times(options.bench)
        service = service_of(times, MEMORY)
        console.print(f"measured: {times}", f"in the model: {service}", sep="\n")
        costs, memories = cost_tables(times)
        tell(cost=costs, memory=memories)
        tell(burst=bursts(service, options.output))
        tell(peak=peaks(service, options.output))
        lost_files, shortest = outages(service, options.output)
        tell(outages=lost_files, shortest=shortest)
    compared, good = compare()
    tell(compare=compared)
    if not good:
        sys.exit(f"Falls short: the model is more than {100 * TOLERANCE:.0f}% off the real handler")


if __name__ == "__main__":
    main()
