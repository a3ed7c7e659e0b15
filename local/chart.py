"""The demo's graph, in the terminal (plotille) and as a picture (matplotlib)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import plotille  # type: ignore[import-untyped]  # has types, but no py.typed
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#24292f"
FAINT = "#57606a"
GRID = "#eaeef2"
GOOD = "#1a7f37"
BAD = "#cf222e"
SHADE = "#ffebe9"
LINES = ("#0969da", "#bc4c00", "#8250df")  # a colour for each metric
TERMINAL_LINES = ("bright_blue", "bright_yellow", "bright_magenta")
TERMINAL_ROWS = 7  # of each metric's graph
TERMINAL_MARGIN = 22  # columns that plotille needs beside it
TERMINAL_KEY = "box: Datadog answers 503   o: kept waiting, late, not lost   x: file refused"
PICTURE_INCHES = (9.0, 5.6)
KEY = (
    "A dot is one file's number; a ring, one that the outage kept waiting: late, not lost. "
    "Times in UTC."
)
BACKFILL_SECONDS = 10  # samples so much older than the first POST need an explanation
PICTURE_DPI = 200  # 1,800 pixels wide: sharp where a page shows it at 900


class Sample(NamedTuple):
    """One stored point and when Datadog got it."""

    second: int  # Unix
    value: float
    arrived: float  # Unix seconds


class Metric(NamedTuple):
    """One line of the graph."""

    name: str
    samples: Sequence[Sample]  # by second


class Timeline(NamedTuple):
    """All that the graph shows; times are Unix seconds."""

    title: str
    metrics: Sequence[Metric]
    outage: tuple[float, float]
    posts: Sequence[tuple[float, int]]  # when, and the status answered
    refusals: Sequence[float]

    def is_late(self, sample: Sample) -> bool:
        """Tell whether the outage kept a sample waiting."""
        return sample.second < self.outage[1] <= sample.arrived


def clock(seconds: float) -> datetime:
    """Return a moment the way both graphs write it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def draw_text(timeline: Timeline, columns: int) -> str:
    """Return the graph for a terminal that is so many columns wide, with ANSI colours."""
    start, end = time_limits(timeline)
    charts = []
    for metric, colour in zip(timeline.metrics, TERMINAL_LINES, strict=False):
        figure = plotille.Figure()
        figure.width = columns - TERMINAL_MARGIN
        figure.height = TERMINAL_ROWS
        figure.x_label, figure.y_label = "UTC", metric.name
        figure.register_label_formatter(float, whole_number)
        figure.set_x_limits(clock(start), clock(end))
        low, high = value_limits(metric)
        figure.set_y_limits(low, high)
        began, ended = ((moment - start) / (end - start) for moment in timeline.outage)
        figure.axvspan(began, ended, lc="red")
        moments = [clock(sample.second) for sample in metric.samples]
        figure.plot(moments, [sample.value for sample in metric.samples], lc=colour)
        late = [sample for sample in metric.samples if timeline.is_late(sample)]
        figure.scatter(
            [clock(sample.second) for sample in late],
            [sample.value for sample in late],
            lc=colour,
            marker="o",
        )
        refusals = [clock(moment) for moment in timeline.refusals]
        figure.scatter(refusals, [low] * len(refusals), lc="bright_red", marker="x")
        charts.append(figure.show())
    return "\n\n".join([*charts, TERMINAL_KEY])


def whole_number(val: float, chars: int, delta: float, left: bool = False) -> str:
    """Write a value for plotille's axis: in full it would be 1238.40000."""
    return f"{val:{'<' if left else '>'}{chars}.0f}"


def time_limits(timeline: Timeline) -> tuple[float, float]:
    """Return the first and the last moment the graph shows."""
    seconds = [sample.second for metric in timeline.metrics for sample in metric.samples]
    moments = [*seconds, *timeline.outage, *timeline.refusals]
    moments += [moment for moment, _ in timeline.posts]
    return min(moments) - 1, max(moments) + 1


def value_limits(metric: Metric) -> tuple[float, float]:
    """Return limits for a metric's values, with room below for what stands on the time axis."""
    values = [sample.value for sample in metric.samples]
    room = (max(values) - min(values)) or 1.0
    return min(values) - 0.25 * room, max(values) + 0.15 * room


def draw_picture(timeline: Timeline, path: Path) -> None:
    """Write the graph as a PNG."""
    start, end = time_limits(timeline)
    figure = Figure(figsize=PICTURE_INCHES, dpi=PICTURE_DPI, facecolor="white")
    lines = len(timeline.metrics)
    axes = figure.subplots(lines + 1, 1, sharex=True, height_ratios=[*[3] * lines, 1.3])
    figure.suptitle(
        timeline.title, x=0.012, y=0.975, ha="left", color=INK, fontsize=13, fontweight="bold"
    )
    figure.text(0.012, 0.905, KEY, color=FAINT, fontsize=9)
    for ax in axes:
        style(ax)
        ax.axvspan(*timeline.outage, color=SHADE, lw=0)
    for ax, metric, colour in zip(axes, timeline.metrics, LINES, strict=False):
        draw_metric(ax, timeline, metric, colour)
    axes[0].annotate(
        "Datadog answers 503",
        (sum(timeline.outage) / 2, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        color=BAD,
        fontsize=9,
    )
    draw_events(axes[-1], timeline)
    axes[-1].set_xlim(start, end)
    axes[-1].xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    axes[-1].xaxis.set_major_formatter(lambda seconds, _: f"{clock(seconds):%H:%M:%S}")
    figure.subplots_adjust(left=0.1, right=0.96, top=0.825, bottom=0.07, hspace=0.18)
    figure.savefig(path)


def style(ax: Axes) -> None:
    """Take away all ink that says nothing."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.tick_params(colors=FAINT, labelsize=9, length=0)
    ax.grid(axis="y", color=GRID, lw=0.8)
    ax.set_axisbelow(True)


def draw_metric(ax: Axes, timeline: Timeline, metric: Metric, colour: str) -> None:
    """Draw one metric: a dot a sample, a ring where the outage kept it waiting."""
    moments = [sample.second for sample in metric.samples]
    values = [sample.value for sample in metric.samples]
    faces = ["white" if timeline.is_late(sample) else colour for sample in metric.samples]
    ax.plot(moments, values, color=colour, lw=1.6, zorder=2)
    ax.scatter(moments, values, s=22, c=faces, edgecolors=colour, linewidths=1.4, zorder=3)
    ax.set_title(metric.name, loc="left", color=colour, fontsize=10, fontweight="bold", pad=4)
    ax.margins(y=0.18)
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def draw_events(ax: Axes, timeline: Timeline) -> None:
    """Draw what happened when: a row for POSTs that were taken, one for those not, one refusals."""
    rows = [
        ("POST: 202", GOOD, "|", [at for at, status in timeline.posts if status == 202]),
        ("POST: 503", BAD, "|", [at for at, status in timeline.posts if status != 202]),
        ("refused", BAD, "x", list(timeline.refusals)),
    ]
    for height, (_, colour, marker, moments) in enumerate(reversed(rows)):
        ax.scatter(
            moments,
            [height] * len(moments),
            marker=marker,
            s=42,
            c=colour,
            lw=1.5,
        )
    first_post = min((at for at, _ in timeline.posts), default=0.0)
    first_second = min(sample.second for metric in timeline.metrics for sample in metric.samples)
    if first_post - first_second > BACKFILL_SECONDS:
        ax.text(
            (first_second + first_post) / 2,
            1,
            "numbers of the past, written in one go",
            ha="center",
            va="center",
            color=FAINT,
            fontsize=9,
        )
    ax.set_yticks(range(len(rows)), [label for label, *_ in reversed(rows)])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(visible=False)
