"""Write the tables of docs/scaling.md and its picture of outages: make simulate."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

from matplotlib.figure import Figure

from local.chart import FAINT, GRID, INK, LINES, style
from local.simulation import MONTH, SQS_BATCH, STEADY, TIMES, Setting, month, play_outage
from local.tables import make_table, write_between

PAGE = Path(__file__).resolve().parent.parent / "docs/scaling.md"
MEMORIES = (128, 256, 512, 1_024, 1_769)
LOADS = {  # files a second
    "1,000 files a day": (1e3 / 86_400, Setting()),
    "50,000 files a day": (5e4 / 86_400, Setting()),
    "a million files a day": (1e6 / 86_400, Setting()),
    "a million files an hour": (1e6 / 3_600, Setting()),
    "10,000 files per second": (10_000.0, Setting(120)),
    "the same, batches of 100": (10_000.0, Setting(100, 100)),
    "the same, batches of 1,000": (10_000.0, Setting(50, 1_000)),
}
CONCURRENCIES = (2, 5, 20, 100)
VISIBILITY_TIMEOUTS = (180, 360, 900)  # seconds; the first is the default
LENGTHS = range(45, 91)  # minutes of an outage


def write(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table into the page, and print it."""
    table = make_table(head, [*rows])
    write_between(PAGE, name, table)
    print(table, end="\n\n")


def write_costs() -> None:
    """Write what each load costs a month, and what each memory size costs."""
    rows = []
    cost: dict[str, float] = {}
    for load, (rate, setting) in LOADS.items():
        # A batch over 10 has a batching window, in which it fills.
        whole = setting.batch_size > SQS_BATCH
        batch = setting.batch_size if whole else setting.files_per_batch(rate)
        cost = month(rate, batch)
        total = sum(cost.values())
        million = 1e6 * (total - cost["fixed"]) / (rate * MONTH)
        numbers = [f"{n:,.{2 if n < 100 else 0}f}" for n in (*cost.values(), total, million)]
        rows.append([load, f"{batch:,.{0 if batch >= 100 else 1}f}", *numbers])
    write("cost", ("load", "files per batch", *cost, "total", "per million files"), rows)
    rows = []
    for memory in MEMORIES:
        times = TIMES._replace(memory=memory)
        compute = month(1e6 / MONTH, 10, times)["Lambda compute"]
        rows.append([f"{memory:,}", f"{times.seconds(10):.3f}", f"{compute:.3f}"])
    write("memory", ("memory, MB", "batch of 10, s", "US dollars of compute per million"), rows)


def write_capacities() -> None:
    """Write the load that settings take."""
    settings = [*map(Setting, (2, 5, 10, 100)), Setting(5, 100)]
    rows = [[*map(str, each[:2]), f"{each.files_per_second():,.0f}"] for each in settings]
    write("load", ("maximum_concurrency", "batch_size", "files per second"), rows)


def write_outages() -> None:
    """Write what outages of an hour cost, and draw those of 45 to 90 minutes."""
    hour = [(Setting(*each), 60) for each in product(CONCURRENCIES, [10], VISIBILITY_TIMEOUTS)]
    around = [(Setting(5, 10, timeout), n) for timeout, n in product(VISIBILITY_TIMEOUTS, LENGTHS)]
    runs = hour + around
    with ProcessPoolExecutor() as processes:
        lost = dict(zip(runs, processes.map(play_outage, *zip(*runs, strict=True)), strict=True))
    rows = []
    for concurrency in CONCURRENCIES:
        each = [lost[Setting(concurrency, 10, timeout), 60] for timeout in VISIBILITY_TIMEOUTS]
        rows.append([str(concurrency), *(f"{aged:,} + {dead:,}" for aged, dead in each)])
    head = ("maximum_concurrency", *(f"{timeout} s" for timeout in VISIBILITY_TIMEOUTS))
    write("outages", head, rows)
    draw({t: [sum(lost[Setting(5, 10, t), n]) for n in LENGTHS] for t in VISIBILITY_TIMEOUTS})


def draw(files: Mapping[int, Sequence[int]]) -> None:
    """Draw a line for each visibility timeout, above the files that no setting can save."""
    figure = Figure(figsize=(9.0, 3.6), dpi=160, layout="constrained")
    axes = figure.subplots()
    style(axes)
    title = f"Outages of Datadog at {STEADY:g} files a second: files that come too late"
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold")
    too_old = [max(0.0, 60 * STEADY * (minutes - 60)) for minutes in LENGTHS]
    axes.fill_between(LENGTHS, too_old, color=GRID)
    axes.text(89, 3_000, "over an hour old when it ends", ha="right", color=FAINT, fontsize=9)
    for (timeout, line), colour in zip(files.items(), LINES, strict=True):
        axes.plot(LENGTHS, line, color=colour, lw=1.6, label=f"visibility timeout {timeout} s")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    axes.yaxis.set_major_formatter(lambda number, _: f"{number:,.0f}")
    axes.set_xlabel("minutes that the outage lasts", color=FAINT, fontsize=9)
    figure.savefig(PAGE.with_name("simulation-outages.png"))


if __name__ == "__main__":
    write_costs()
    write_capacities()
    write_outages()
