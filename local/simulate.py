"""Write the tables of docs/scaling.md and its picture of outages: make simulate."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

from matplotlib.figure import Figure

from local.chart import FAINT, GRID, INK, LINES, style
from local.cost import HOURS, SQS_BATCH, files_per_batch, month
from local.simulation import STEADY, TIMES, Setting, play_outage

PAGE = Path(__file__).resolve().parent.parent / "docs/scaling.md"
PICTURE = PAGE.with_name("simulation-outages.png")
MEMORIES = (128, 256, 512, 1_024, 1_769)
LOADS = {  # files a second, maximum_concurrency, batch_size
    "1,000 files a day": (1e3 / 86_400, 5, 10),
    "50,000 files a day": (5e4 / 86_400, 5, 10),
    "a million files a day": (1e6 / 86_400, 5, 10),
    "a million files an hour": (1e6 / 3_600, 5, 10),
    "10,000 files per second": (10_000.0, 120, 10),
    "the same, batches of 100": (10_000.0, 100, 100),
    "the same, batches of 1,000": (10_000.0, 50, 1_000),
}
BATCHES = (1, 10, 100)
SETTINGS = {
    "concurrency 2": Setting(2),
    "concurrency 5 (default)": Setting(5),
    "concurrency 10": Setting(10),
    "concurrency 100": Setting(100),
    "concurrency 5, batches of 100": Setting(5, 100),
}
BURST = 100_000  # files
PEAK, PEAK_SECONDS = 600.0, 600.0  # files a second
CONCURRENCIES = (2, 5, 20, 100)
VISIBILITY_TIMEOUTS = (180, 360, 900)  # seconds; the first is the default
LENGTHS = range(45, 91)  # minutes of an outage


def write_table(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table between the page's markers of that name, and print it."""
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    before, rest = PAGE.read_text().split(begin)
    _, after = rest.split(end)
    PAGE.write_text(before + begin + table + end + after)
    print(table, end="\n\n")


def write_costs() -> None:
    """Write what each load costs a month, and what each memory size costs."""
    rows = []
    for load, (rate, concurrency, most) in LOADS.items():
        # A batch over 10 has a batching window, in which it fills.
        batch = most if most > SQS_BATCH else files_per_batch(TIMES, rate, concurrency, most)
        cost = month(TIMES, rate, batch)
        numbers = [f"{each:,.{2 if each < 100 else 0}f}" for each in (*cost, sum(cost))]
        rows.append([load, f"{batch:,.{0 if batch >= 100 else 1}f}", *numbers])
    services = ("S3 GETs", "SQS", "Lambda requests", "Lambda compute", "logs", "transfer", "fixed")
    write_table("cost", ("load", "files per batch", *services, "total"), rows)
    rows = []
    for batch in BATCHES:
        cost = month(TIMES, 1e6 / 3_600 / HOURS, batch)
        rows.append([f"{batch:,}", f"{sum(cost) - cost.fixed:.2f}"])
    write_table("million", ("files per batch", "US dollars per million files"), rows)
    rows = []
    for memory in MEMORIES:
        times = TIMES._replace(memory=memory)
        compute = month(times, 1e6 / 3_600 / HOURS, 10).lambda_compute
        rows.append([f"{memory:,}", f"{times.seconds(10):.3f}", f"{compute:.3f}"])
    head = ("memory, MB", "batch of 10, s", "US dollars of compute per million files")
    write_table("memory", head, rows)


def write_capacities() -> None:
    """Write how long each setting takes for a burst, and for a peak."""
    rows = []
    for name, setting in SETTINGS.items():
        rate = setting.files_per_second(TIMES)
        waiting = max(0.0, PEAK - rate) * PEAK_SECONDS
        drained = setting.drain_seconds(TIMES, BURST)
        rows.append([name, *(f"{n:,.0f}" for n in (rate, drained, waiting, waiting / rate))])
    burst, peak = f"{BURST:,} files gone after, s", "most waiting at the peak"
    write_table("load", ("setting", "files per second", burst, peak, "the last one waits, s"), rows)


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
    write_table("outages", head, rows)
    draw({t: [sum(lost[Setting(5, 10, t), n]) for n in LENGTHS] for t in VISIBILITY_TIMEOUTS})


def draw(files: Mapping[int, Sequence[int]]) -> None:
    """Draw a line for each visibility timeout, above the files that no setting can save."""
    figure = Figure(figsize=(9.0, 3.6), dpi=160, facecolor="white")
    title = f"Outages of Datadog at {STEADY:g} files a second: files that come too late"
    figure.suptitle(title, x=0.012, y=0.97, ha="left", color=INK, fontsize=12, fontweight="bold")
    axes = figure.subplots()
    style(axes)
    too_old = [max(0.0, 60 * STEADY * (minutes - 60)) for minutes in LENGTHS]
    axes.fill_between(LENGTHS, too_old, color=GRID)
    axes.text(89, 3_000, "over an hour old when it ends", ha="right", color=FAINT, fontsize=9)
    for (timeout, line), colour in zip(files.items(), LINES, strict=True):
        axes.plot(LENGTHS, line, color=colour, lw=1.6, label=f"visibility timeout {timeout} s")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    axes.yaxis.set_major_formatter(lambda number, _: f"{number:,.0f}")
    axes.set_xlabel("minutes that the outage lasts", color=FAINT, fontsize=9)
    figure.subplots_adjust(left=0.09, right=0.97, top=0.86, bottom=0.14)
    figure.savefig(PICTURE)


if __name__ == "__main__":
    write_costs()
    write_capacities()
    write_outages()
