"""Figures of a training by epoch: its accuracy, its loss and the terms of that."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kdedge.core.report import TrainingReport
from kdedge.report.charts import COLORS, LABELS, LINES, Samples, logarithmic
from kdedge.report.svg import INK, PAPER, SERIES, STYLE, canvas, inline, legend
from kdedge.report.view import accuracy_name, capital

Row = Mapping[str, float]
NOT_TERMS = {"epoch", "lr", "loss", "seconds"}
ACCURACIES = ("train_", "validation_")
"""How the log's columns of accuracies begin."""


@mpl.rc_context(STYLE)
def losses(network: str, rows: Sequence[Row]) -> Markup:
    """The total and every term, before its weight, by epoch."""
    figure, axes = canvas(3.2)
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, column(rows, "loss"), color=SERIES[0], linewidth=2.4, label="total", **dots(rows))
    own = terms(rows) if len(terms(rows)) > 1 else []
    for index, term in enumerate(own):
        style: dict[str, Any] = {"color": SERIES[1 + index % 5], "linestyle": LINES[(1 + index) % len(LINES)]}
        axes.plot(epochs, column(rows, term), label=term, **style, **dots(rows))
    drawn = np.concatenate([column(rows, name) for name in ("loss", *own)])
    logarithmic(axes.yaxis, drawn[np.isfinite(drawn) & (drawn > 0)], 30)
    axes.set_ylabel("loss")
    name = f"losses-{network.replace(' ', '-')}"
    return by_epoch(figure, axes, name, f"Training loss of the {network} by epoch, with its terms")


@mpl.rc_context(STYLE)
def accuracies(curves: Mapping[str, Sequence[Row]], training: TrainingReport) -> Markup:
    """Validation solid, training dotted where it is counted; a teacher that was not trained here is a level."""
    figure, axes = canvas(3.2)
    key, name = training.measure.key, accuracy_name(training.measure)
    for index, (network, rows) in enumerate(curves.items()):
        color, label = COLORS.get(network, SERIES[3 + index % 3]), LABELS.get(network, network)
        epochs = [row["epoch"] for row in rows]
        axes.plot(epochs, column(rows, f"validation_{key}"), color=color, label=label, **dots(rows))
        if any(f"train_{key}" in row for row in rows):
            axes.plot(epochs, column(rows, f"train_{key}"), color=color, linestyle=":", linewidth=1.2)
    if training.teacher and "teacher" not in curves:
        axes.axhline(training.teacher.accuracy, color=COLORS["teacher"], linestyle="--", label="teacher, test")
    last = max((row["epoch"] for row in curves.get("student", ())), default=1.0)
    for (stage, top1), shape in zip(training.student.exits.items(), "D^vPX" * 9, strict=False):
        axes.plot(last, top1, shape, color=PAPER, markeredgecolor=INK, label=f"exit {stage}", clip_on=False)
    axes.margins(y=0.08)
    axes.set_ylabel(name)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    return by_epoch(figure, axes, "accuracies", f"{capital(name)} by epoch")


def by_epoch(figure: Figure, axes: Axes, name: str, title: str) -> Markup:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, 2)
    return inline(figure, name, title)


def terms(rows: Iterable[Row]) -> list[str]:
    """Columns of the log that are neither bookkeeping nor accuracies."""
    names = dict.fromkeys(key for row in rows for key in row)
    return [name for name in names if name not in NOT_TERMS and not name.startswith(ACCURACIES)]


def column(rows: Iterable[Row], name: str) -> Samples:
    """A phase without the term leaves a gap."""
    return np.array([row.get(name, np.nan) for row in rows])


def dots(rows: Sequence[Row]) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3.5} if len(rows) <= 12 else {}
