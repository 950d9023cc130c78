"""The Pareto fronts of a comparison as a picture: accuracy against each cost, with 95 % intervals.

Points nobody would choose are pale.  Those of the front are called by their runs where there is room, and of few points
the pale ones as well.
"""

from collections.abc import Iterator, Sequence
from math import ceil

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

from kdedge.core.console import size
from kdedge.report.charts import COLORS, logarithmic
from kdedge.report.compare import place
from kdedge.report.fronts import Entry, Front, Point
from kdedge.report.svg import INK, PAPER, SERIES, STYLE, WIDTH, inline, legend, standalone
from kdedge.report.view import accuracy_name, capital

SHAPES = {"fp32": "o", "fp16": "s", "int8": "D"}
AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
DISTANCES = (8, 18, 30)
"""Points between a mark and its name; a line joins those that are farther apart than the first."""
LONGEST = 22
FEW = 12
"""Points of a panel of which those that are not on its front are named, too."""


@mpl.rc_context(STYLE)
def fronts_file(entries: Sequence[Entry], found: Sequence[Front]) -> str:
    """A panel for each front, as the text of an SVG file."""
    columns = min(2, len(found))
    rows = ceil(len(found) / columns)
    figure = Figure(figsize=(WIDTH * columns, 3.6 * rows), dpi=72, layout="constrained", facecolor="none")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, one in zip(grid, found, strict=False):
        draw(axes, one)
        axes.set_title(place(one, entries), loc="left", fontsize=11)
    for axes in grid[len(found) :]:
        axes.remove()
    label_once(figure)
    legend(figure, 5)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # names are placed in the finished layout
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    for axes, one in zip(figure.axes, found, strict=True):
        write_names(axes, one, renderer)
    accuracy = " or ".join(dict.fromkeys(accuracy_name(one.measure) for one in found))
    return standalone(inline(figure, "compare", f"{capital(accuracy)} against {', '.join(costs(found))}"))


def costs(found: Sequence[Front]) -> list[str]:
    return list(dict.fromkeys(one.cost.title for one in found))


def draw(axes: Axes, one: Front) -> None:
    beaten = [point for point, _ in one.beaten]
    for point in (*beaten, *one.best):
        draw_point(axes, point, pale=point in beaten)
    best = np.maximum.accumulate([point.accuracy for point in one.best])
    prices = [point.cost for point in one.best]
    axes.plot(prices, best, color=INK, linewidth=1, linestyle="--", drawstyle="steps-post", label="front", zorder=1)
    in_bytes = one.cost.metric.endswith("_bytes")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    logarithmic(axes.xaxis, np.array([point.cost for point in (*beaten, *one.best)]), 4, base=4 if in_bytes else 10)
    if in_bytes:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value).replace(".0 ", " ")))
    axes.margins(x=0.15, y=0.15)
    axes.set_xlabel(one.cost.axis)
    axes.set_ylabel(f"{accuracy_name(one.measure)}, test")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def draw_point(axes: Axes, point: Point, pale: bool) -> None:
    color = COLORS.get(point.precision, SERIES[5])
    for interval, ends in (
        (point.cost_interval, ([point.accuracy] * 2,)),
        (point.accuracy_interval, ([point.cost] * 2,)),
    ):
        if interval:
            line = (interval, *ends) if interval is point.cost_interval else (*ends, interval)
            axes.plot(*line, color=color, linewidth=1, alpha=0.4)
    axes.plot(
        point.cost,
        point.accuracy,
        SHAPES.get(point.precision, "o"),
        color=color,
        alpha=0.4 if pale else 1,
        markersize=7,
        markeredgecolor=PAPER,
        label="" if pale else point.precision,
    )


def label_once(figure: Figure) -> None:
    """A legend names nothing twice."""
    known: set[object] = set()
    for axes in figure.axes:
        for line in axes.lines:
            if line.get_label() in known:
                line.set_label("")
            known.add(line.get_label())


def write_names(axes: Axes, one: Front, renderer: RendererBase) -> None:
    """Where no name covers another, or a mark; a name without room is left out."""
    points = [*one.best, *(point for point, _ in one.beaten)]
    marks = [axes.transData.transform((point.cost, point.accuracy)) for point in points]
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in marks]
    for point in points if len(points) <= FEW else one.best:
        for name in candidates(axes, point):
            name.update_positions(renderer)
            box = Text.get_window_extent(name, renderer)  # an annotation's own includes its line
            if inside(box, axes.bbox) and not box.count_overlaps(taken):
                taken.append(box)
                break
            name.remove()


def inside(box: Bbox, outer: Bbox) -> bool:
    return bool(outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1)


def candidates(axes: Axes, point: Point) -> Iterator[Annotation]:
    """The name around its mark, near first."""
    for distance in DISTANCES:
        for right, up in AROUND:
            yield axes.annotate(
                shortened(point.run),
                (point.cost, point.accuracy),
                (right * distance, up * distance),
                textcoords="offset points",
                ha=("right", "center", "left")[right + 1],
                va=("top", "center", "bottom")[up + 1],
                fontsize=9.5,
                arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "alpha": 0.5}
                if distance > DISTANCES[0]
                else None,
            )


def shortened(name: str) -> str:
    """Both ends of a long one: runs of one recipe differ at the end."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[1 - half :]}"
