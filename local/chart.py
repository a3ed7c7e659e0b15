"""Draw the demo's picture."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

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
PICTURE_INCHES = (9.0, 5.6)
KEY = (
    "A dot is the number of a file; a ring is one that the outage delayed: late, not lost. Times\n"
    "are in UTC. Points older than the first POST were written in one go, as after a backfill."
)
PICTURE_DPI = 200  # 1,800 pixels wide: sharp where a page shows it at 900


class Sample(NamedTuple):
    """One point, as Datadog stores it."""

    second: int  # Unix
    value: float
    late: bool  # the outage delayed it


class Timeline(NamedTuple):
    """Everything that the graph shows; times are Unix seconds."""

    title: str
    metrics: Mapping[str, Sequence[Sample]]  # by second
    outage: tuple[float, float]
    posts: Sequence[tuple[float, int]]  # when, and the response's status
    refusals: Sequence[float]

    def limits(self) -> tuple[float, float]:
        """Return the first and the last second of the graph."""
        seconds = [sample.second for samples in self.metrics.values() for sample in samples]
        moments = [*seconds, *self.outage, *self.refusals, *(at for at, _ in self.posts)]
        return min(moments) - 1, max(moments) + 1


def clock(seconds: float) -> datetime:
    """Return a time in UTC, as the graph shows it."""
    return datetime.fromtimestamp(seconds, UTC)


def draw_picture(timeline: Timeline, path: Path) -> None:
    """Write the graph as a PNG."""
    figure = Figure(figsize=PICTURE_INCHES, dpi=PICTURE_DPI, facecolor="white")
    lines = len(timeline.metrics)
    axes = figure.subplots(lines + 1, 1, sharex=True, height_ratios=[*[3] * lines, 1.3])
    bold: dict[str, Any] = {"ha": "left", "color": INK, "fontsize": 13, "fontweight": "bold"}
    figure.suptitle(timeline.title, x=0.012, y=0.975, **bold)
    figure.text(0.012, 0.935, KEY, color=FAINT, fontsize=9, va="top", linespacing=1.5)
    for ax in axes:
        style(ax)
        ax.axvspan(*timeline.outage, color=SHADE, lw=0)
    for ax, metric, colour in zip(axes, timeline.metrics, LINES, strict=False):
        draw_metric(ax, metric, timeline.metrics[metric], colour)
    above = {"transform": axes[0].get_xaxis_transform(), "ha": "center", "fontsize": 9}
    axes[0].text(sum(timeline.outage) / 2, 1.03, "Datadog answers 503", color=BAD, **above)
    draw_events(axes[-1], timeline)
    axes[-1].set_xlim(*timeline.limits())
    axes[-1].xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    axes[-1].xaxis.set_major_formatter(lambda seconds, _: f"{clock(seconds):%H:%M:%S}")
    figure.subplots_adjust(left=0.1, right=0.96, top=0.825, bottom=0.07, hspace=0.18)
    figure.savefig(path)


def style(ax: Axes) -> None:
    """Remove all ink that shows nothing."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.tick_params(colors=FAINT, labelsize=9, length=0)
    ax.grid(axis="y", color=GRID, lw=0.8)
    ax.set_axisbelow(True)


def draw_metric(ax: Axes, metric: str, samples: Sequence[Sample], colour: str) -> None:
    """Draw one metric: a dot per sample, a ring if the outage delayed it."""
    moments, values, late = zip(*samples, strict=True)
    faces = ["white" if waited else colour for waited in late]
    ax.plot(moments, values, color=colour, lw=1.6, zorder=2)
    ax.scatter(moments, values, s=22, c=faces, edgecolors=colour, linewidths=1.4, zorder=3)
    ax.set_title(metric, loc="left", color=colour, fontsize=10, fontweight="bold", pad=4)
    ax.margins(y=0.18)
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def draw_events(ax: Axes, timeline: Timeline) -> None:
    """Draw the events in three rows: refusals, failed POSTs, successful POSTs."""
    rows = [
        ("refused", BAD, "x", timeline.refusals),
        ("POST: 503", BAD, "|", [at for at, status in timeline.posts if status != 202]),
        ("POST: 202", GOOD, "|", [at for at, status in timeline.posts if status == 202]),
    ]
    for height, (_, colour, marker, moments) in enumerate(rows):
        ax.scatter(moments, [height] * len(moments), marker=marker, s=42, c=colour, lw=1.5)
    ax.set_yticks(range(len(rows)), [label for label, *_ in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(visible=False)
