"""A comparison as a picture: every seed a dot, every mean a bar, contenders in the order of their means."""

from collections.abc import Sequence

import matplotlib as mpl

from kdedge.bench.contenders import LABELS, REFERENCES, TUNED
from kdedge.bench.table import Comparison, Line
from kdedge.report.svg import SERIES, STYLE, canvas, inline, legend, standalone

COLORS = dict(zip(REFERENCES["classify"], SERIES[1:], strict=False))


@mpl.rc_context(STYLE)
def figure(made: Comparison, lines: Sequence[Line]) -> str:
    """The text of an SVG file."""
    ordered = sorted(lines, key=lambda line: line.mean)
    drawn, axes = canvas(1.1 + 0.28 * len(ordered))
    for place, line in enumerate(ordered):
        color, values = COLORS.get(line.label, SERIES[0]), [100 * value for value in line.accuracy]
        axes.plot(100 * line.mean, place, "|", color=color, markersize=14, markeredgewidth=2.4)
        axes.plot(values, [place] * len(values), "o", color=color, markersize=4, alpha=0.7)
        if line.label in (LABELS, TUNED):
            axes.axvline(100 * line.mean, color=color, linestyle="--", linewidth=1, label=line.label)
    axes.set_yticks(range(len(ordered)), [line.label for line in ordered])
    axes.set_xlabel(f"{made.measure.label} on the test images, percent")
    axes.grid(visible=False, axis="y")
    legend(drawn)
    title = f"{made.recipe['student']['name']} on {made.recipe['data']['name']} by method: {made.measure.label}"
    return standalone(inline(drawn, "methods", title))
