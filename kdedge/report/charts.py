"""The report's figures, as inline SVG.

Sets of samples are thinned before they are drawn, always in the same way and never at their extremes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from kdedge.core.console import many, size
from kdedge.core.energy import Energy
from kdedge.core.exits import ExitsReport
from kdedge.core.profiling import ProfileReport
from kdedge.core.quality import Measure
from kdedge.report.svg import INK, PAPER, SERIES, STYLE, canvas, inline, legend, standalone
from kdedge.report.view import accuracy_name, capital

Samples = NDArray[np.float64]
POINTS = 300
BINS = 48
COLORS = {
    "student": SERIES[0],
    "baseline": SERIES[1],
    "deep supervision": SERIES[5],
    "labels alone": SERIES[1],
    "teacher": SERIES[2],
    "fp32": SERIES[0],
    "fp16": SERIES[3],
    "int8": SERIES[4],
}
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
SHAPES = "osD^vPX"
LABELS = {"baseline": "labels alone"}
Cost = Literal["macs", "latency_ms"]
EXIT_AXES: dict[Cost, str] = {"macs": "mean MACs an image", "latency_ms": "mean latency, ms"}


@dataclass(frozen=True)
class Point:
    """One model in a scatter plot."""

    label: str
    x: float
    accuracy: float
    interval: tuple[float, float] | None = None
    """Of x."""


@mpl.rc_context(STYLE)
def scatter(
    name: str, points: Sequence[Point], x_label: str, measure: Measure, title: str, as_bytes: bool = False
) -> Markup:
    """Accuracy against a cost; better is up and to the left.

    Args:
        title: goes on behind what the accuracy is.
    """
    figure, axes = canvas(3.2)
    for index, point in enumerate(points):
        color, label = COLORS.get(point.label, SERIES[index % 6]), LABELS.get(point.label, point.label)
        if point.interval:
            axes.plot(point.interval, [point.accuracy] * 2, color=color, linewidth=1.2)
        shape = SHAPES[index % len(SHAPES)]
        axes.plot(point.x, point.accuracy, shape, color=color, markersize=9, markeredgecolor=PAPER, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    logarithmic(axes.xaxis, np.array([point.x for point in points]), 4, base=4 if as_bytes else 10)
    axes.margins(x=0.1, y=0.15)
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"{accuracy_name(measure)}, test")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if as_bytes:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value).replace(".0 ", " ")))
    legend(figure, 4)
    return inline(figure, name, f"{capital(accuracy_name(measure))} against {title}")


@mpl.rc_context(STYLE)
def exits(report: ExitsReport, cost: Cost) -> Markup:
    """Accuracy against a mean cost, for every threshold, with the one that was chosen."""
    figure, axes = canvas(3.2)
    draw_exits(axes, report, cost)
    legend(figure, 2)
    return inline(figure, f"exits-{cost}", f"Top-1 accuracy of early exits against {EXIT_AXES[cost]}")


@mpl.rc_context(STYLE)
def exits_file(report: ExitsReport) -> str:
    """Both costs side by side, as the text of an SVG file."""
    figure, _ = canvas(3.2, columns=2)
    for axes, cost in zip(figure.axes, EXIT_AXES, strict=True):
        draw_exits(axes, report, cost)
    figure.axes[1].set_ylabel("")
    for line in figure.axes[1].lines:
        line.set_label("")  # the legend has it from the other
    legend(figure, 4)
    return standalone(inline(figure, "exits", "Top-1 accuracy of early exits against mean MACs and mean latency"))


def draw_exits(axes: Axes, report: ExitsReport, cost: Cost) -> None:
    def at(point: Any) -> float:
        return float(getattr(point, cost))

    axes.plot([at(p) for p in report.curve], [p.top1 for p in report.curve], color=SERIES[0], label="any threshold")
    alone = [(at(found), found.validation_top1) for found in report.exits]
    axes.plot(*zip(*alone, strict=True), "D", color=PAPER, markeredgecolor=INK, label="one exit for all")
    for found, place in zip(report.exits, alone, strict=True):
        axes.annotate(found.name, place, (0, -14), textcoords="offset points", ha="center", fontsize=9.5)
    axes.plot(at(report.without), alone[-1][1], "s", color=SERIES[2], label="without exits")
    ring: dict[str, Any] = {"color": "none", "markeredgecolor": SERIES[1], "markeredgewidth": 2.2, "markersize": 10}
    axes.plot(at(report.validation), report.validation.top1, "o", label="chosen", **ring)
    axes.plot(at(report.test), report.test.top1, "x", color=SERIES[1], label="chosen, test images")
    axes.margins(x=0.08, y=0.15)
    axes.set_xlabel(EXIT_AXES[cost])
    axes.set_ylabel("top-1 accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    if cost == "macs":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: many(value)))


@mpl.rc_context(STYLE)
def ecdf(profiles: Sequence[ProfileReport]) -> Markup:
    """Share of queries answered within a time, all precisions together."""
    figure, axes = canvas(3.2)
    drawn = [quantiles(samples_of(profile)) for profile in profiles]
    for index, (profile, (values, shares)) in enumerate(zip(profiles, drawn, strict=True)):
        axes.step(
            values,
            shares,
            color=COLORS.get(profile.name, SERIES[index % 6]),
            linestyle=LINES[index % 5],
            where="post",
            label=profile.name,
        )
    logarithmic(axes.xaxis, np.concatenate([values for values, _ in drawn]), 4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("queries within")
    legend(figure, 4)
    return inline(figure, "ecdf", "Cumulative distribution of the latency")


@mpl.rc_context(STYLE)
def histogram(profile: ProfileReport) -> Markup:
    """All samples up to `histogram_limit`; ticks on top are the medians of the processes."""
    figure, axes = canvas(3.2)
    samples = samples_of(profile)
    limit = histogram_limit(samples)
    counts, edges = np.histogram(samples[samples <= limit], bins=BINS)
    axes.stairs(counts, edges, fill=True, color=SERIES[0], alpha=0.75)
    medians = [float(np.median(process.latency_ms)) for process in profile.samples]
    top = [counts.max() * 1.12] * len(medians)
    axes.plot(medians, top, "v", color=SERIES[1], markersize=6, alpha=0.8, label="medians of the processes")
    axes.axvline(profile.latency.median, color=INK, linewidth=1.2, linestyle="--", label="median of all")
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("queries")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    legend(figure, 2)
    return inline(figure, f"histogram-{profile.name}", f"Latency of {profile.name}, all processes")


@mpl.rc_context(STYLE)
def timeline(profile: ProfileReport) -> Markup:
    """Queries in the order they ran: the band is the range, the line the median of its neighbours."""
    figure, axes = canvas(3.2)
    low, middle, high, at = envelope(samples_of(profile))
    axes.fill_between(at, low, high, color=SERIES[0], alpha=0.3, linewidth=0, step="mid")
    axes.plot(at, middle, color=SERIES[0], linewidth=1.1)
    ends = np.cumsum([len(process.latency_ms) for process in profile.samples])[:-1]
    for end in ends:
        axes.axvline(end, color=INK, linewidth=0.8, linestyle=":")
    axes.grid(visible=False, axis="x")
    axes.margins(x=0.01)
    logarithmic(axes.yaxis, np.concatenate([low, high]), 4)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("query, process after process")
    axes.set_ylabel("ms")
    return inline(figure, f"timeline-{profile.name}", f"Latency of {profile.name} over time")


@mpl.rc_context(STYLE)
def energy(name: str, spent: Energy) -> Markup:
    """Of every repeat, above idle and in all."""
    figure, axes = canvas(3.2)
    for spread, color, label in ((spent.gross_mj, SERIES[1], "in all"), (spent.net_mj, SERIES[0], "above idle")):
        axes.plot(range(1, len(spread.values) + 1), spread.values, "o-", color=color, label=label)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("repeat")
    axes.set_ylabel("mJ")
    legend(figure, 2)
    return inline(figure, f"energy-{name}", f"Energy of an inference of {name} over the repeats")


def samples_of(profile: ProfileReport) -> Samples:
    return np.concatenate([np.asarray(process.latency_ms, dtype=np.float64) for process in profile.samples])


def histogram_limit(samples: Samples) -> float:
    """Where the histogram ends, so that a few stragglers do not flatten it."""
    low, high = np.quantile(samples, [0.25, 0.75])
    return float(min(samples.max(), max(np.quantile(samples, 0.99), high + 3 * (high - low))))


def quantiles(samples: Samples) -> tuple[Samples, Samples]:
    """At most POINTS values of the sorted samples, first and last among them, and the share at or below each."""
    ranks = np.unique(np.linspace(0, len(samples) - 1, min(POINTS, len(samples))).round().astype(int))
    return np.sort(samples)[ranks], (ranks + 1) / len(samples)


def envelope(samples: Samples) -> tuple[Samples, Samples, Samples, Samples]:
    """Least, median and greatest of at most POINTS groups of neighbours, and the middle of each group."""
    groups = np.array_split(samples, min(POINTS, len(samples)))
    sizes = np.array([len(group) for group in groups])
    low, middle, high = (np.array([f(group) for group in groups]) for f in (np.min, np.median, np.max))
    return low, middle, high, np.cumsum(sizes) - sizes / 2


def logarithmic(axis: Axis, values: Samples, ratio: float, base: int = 10) -> None:
    """A log scale with plain numbers where positive values span more than a ratio."""
    if not len(values) or values.min() <= 0 or values.max() <= ratio * values.min():
        return
    set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(LogLocator(base, subs=(1, 2, 5) if base == 10 else (1,), numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
