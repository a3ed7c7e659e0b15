"""Draw the demo's picture."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

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
KEY = (
    "A dot is one file's number. A ring is one written during the outage: late, not lost.\n"
    "Times are in UTC. Points before the first POST were written at once, as after a backfill."
)


def draw_picture(
    path: Path,
    title: str,
    metrics: Mapping[str, Mapping[int, float]],
    outage: tuple[float, float],
    posts: Sequence[tuple[float, int]],
    refusals: Sequence[float],
) -> None:
    """Write the picture as a PNG; all times are Unix seconds.

    Args:
        metrics: metric -> second -> value.
        outage: when it began and ended.
        posts: when, and the response's status.
        refusals: when files were refused.
    """
    figure = Figure(figsize=(9.0, 5.6), dpi=200, facecolor="white")
    axes = figure.subplots(len(metrics) + 1, 1, sharex=True, height_ratios=[3, 3, 1.3])
    figure.suptitle(title, x=0.012, y=0.975, ha="left", color=INK, fontsize=13, fontweight="bold")
    figure.text(0.012, 0.935, KEY, color=FAINT, fontsize=9, va="top", linespacing=1.5)
    for ax in axes:
        style(ax)
        ax.axvspan(*outage, color=SHADE, lw=0)
    for ax, metric, colour in zip(axes, metrics, LINES, strict=False):
        draw_metric(ax, metric, metrics[metric], outage, colour)
    above = axes[0].get_xaxis_transform()
    text = {"color": BAD, "ha": "center", "fontsize": 9}
    axes[0].text(sum(outage) / 2, 1.03, "Datadog answers 503", transform=above, **text)
    draw_events(axes[-1], posts, refusals)
    axes[-1].xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    axes[-1].xaxis.set_major_formatter(
        lambda seconds, _: f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}"
    )
    figure.subplots_adjust(left=0.1, right=0.96, top=0.825, bottom=0.07, hspace=0.18)
    figure.savefig(path)


def style(ax: Axes) -> None:
    """Remove everything that shows nothing."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.tick_params(colors=FAINT, labelsize=9, length=0)
    ax.grid(axis="y", color=GRID, lw=0.8)
    ax.set_axisbelow(True)


def draw_metric(
    ax: Axes, metric: str, points: Mapping[int, float], outage: tuple[float, float], colour: str
) -> None:
    """Draw one metric: a dot per file, a ring if it was written during the outage."""
    seconds, values = zip(*sorted(points.items()), strict=True)
    began, ended = outage
    faces = ["white" if began <= second < ended else colour for second in seconds]
    ax.plot(seconds, values, color=colour, lw=1.6, zorder=2)
    ax.scatter(seconds, values, s=22, c=faces, edgecolors=colour, linewidths=1.4, zorder=3)
    ax.set_title(metric, loc="left", color=colour, fontsize=10, fontweight="bold", pad=4)
    ax.margins(x=0.02, y=0.18)
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def draw_events(ax: Axes, posts: Sequence[tuple[float, int]], refusals: Sequence[float]) -> None:
    """Draw three rows: refusals, failed POSTs, successful POSTs."""
    rows = [
        ("refused", BAD, "x", refusals),
        ("POST: 503", BAD, "|", [at for at, status in posts if status != 202]),
        ("POST: 202", GOOD, "|", [at for at, status in posts if status == 202]),
    ]
    for height, (_, colour, marker, moments) in enumerate(rows):
        ax.scatter(moments, [height] * len(moments), marker=marker, s=42, c=colour, lw=1.5)
    ax.set_yticks(range(len(rows)), [label for label, *_ in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(visible=False)
