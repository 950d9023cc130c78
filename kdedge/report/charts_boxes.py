"""Precision by recall of a detector, of its classes and beside other networks."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from kdedge.core.console import percent
from kdedge.report.boxes import IOU, RECALLS, Floats, Judged, average
from kdedge.report.charts import COLORS, LABELS, LINES
from kdedge.report.svg import INK, SERIES, STYLE, canvas, inline, legend

NAMED = 6
"""Classes whose curves have a name and a color: the weakest of many."""
LONGEST = 18


@mpl.rc_context(STYLE)
def by_class(judged: Judged, names: Sequence[str]) -> Markup:
    """Weakest class first, the others pale, and the mean of all."""
    figure, axes = canvas(3.6)
    curves = [(name, each) for name, each in zip(names, judged.curves, strict=True) if each is not None]
    curves.sort(key=lambda pair: float(pair[1].mean()))
    for _, each in curves[NAMED:]:
        axes.plot(RECALLS, each, color=SERIES[5], linewidth=0.7, alpha=0.4)
    for (name, each), color, line in zip(curves[:NAMED], SERIES, (*LINES, "-"), strict=False):
        draw(axes, each, name, color=color, linestyle=line)
    if len(curves) > 1 and (mean := average(judged)) is not None:
        draw(axes, mean, "mean", color=INK, linewidth=2.4)
    framed(axes)
    legend(figure, 2)
    return inline(figure, "precision-classes", f"Precision by recall of {judged.who} for each class")


def note(judged: Judged) -> str:
    """Below that figure."""
    classes = sum(each is not None for each in judged.curves)
    named = f" Named are the {NAMED} weakest of {classes} classes." if classes > NAMED else ""
    return f"{judged.who} on the test images; behind each name the AP50.{named}"


@mpl.rc_context(STYLE)
def by_network(everyone: Sequence[Judged]) -> Markup:
    """The mean of the classes."""
    figure, axes = canvas(3.6)
    for index, judged in enumerate(everyone):
        color = COLORS.get(judged.who.rpartition("-")[2], SERIES[(2 + index) % 6])
        if (mean := average(judged)) is not None:
            draw(axes, mean, LABELS.get(judged.who, judged.who), color=color, linestyle=LINES[index % 5])
    framed(axes)
    legend(figure, 2)
    return inline(figure, "precision-networks", "Precision by recall of each network, mean of the classes")


def draw(axes: Axes, curve: Floats, name: str, **style: Any) -> None:
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    axes.plot(RECALLS, curve, label=f"{short} {percent(float(curve.mean()))}", **style)


def framed(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel(f"precision at IoU {IOU:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
