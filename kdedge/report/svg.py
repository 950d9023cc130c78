"""matplotlib figures as inline SVG that follows the page's theme.

Colours are drawn as stand-ins and become CSS variables, text keeps the page's font, and the same data gives the same
bytes.  Drawn at the width of a phone, so that text stays readable there.
"""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 5.0  # inches at 72 points
INK, GRID, PAPER = "#000001", "#000002", "#000003"
SERIES = tuple(f"#00001{index}" for index in range(1, 7))
THEME = {INK: "currentColor", GRID: "var(--grid)", PAPER: "var(--paper)"} | {
    color: f"var(--series-{index})" for index, color in enumerate(SERIES, 1)
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $x
    "font.size": 11,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "legend.labelspacing": 0.25,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.0,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def canvas(height: float, columns: int = 1) -> tuple[Figure, Axes]:
    """An empty figure and its first axes, for use under `mpl.rc_context(STYLE)`."""
    figure = Figure(figsize=(WIDTH * columns, height), layout="constrained", facecolor="none")
    return figure, figure.subplots(1, columns, squeeze=False)[0, 0]


def legend(figure: Figure, columns: int = 3) -> None:
    """Above the axes, where it hides no line."""
    figure.legend(loc="outside upper left", ncols=columns)


def inline(figure: Figure, name: str, title: str) -> Markup:
    """The figure as an SVG element.

    Args:
        name: seeds the element ids, which must differ between the figures of a page.
        title: what a screen reader says.
    """
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata=NO_METADATA)
    text = file.getvalue()
    view = re.search(r'viewBox="([^"]+)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    head = f'<svg viewBox="{view.group(1) if view else ""}" role="img" aria-label="{escape(title)}">'
    return Markup(f"{head}<title>{escape(title)}</title>{themed(without_idle_ids(body))}")  # noqa: S704 - escaped


def standalone(element: Markup) -> str:
    """An SVG file of the element, in the colors of the page's light theme."""
    light = (Path(__file__).parent / "page.css").read_text(encoding="utf-8").partition("}")[0]
    colors = dict(re.findall(r"--([\w-]+): (#\w+)", light))
    text = re.sub(r"var\(--([\w-]+)\)", lambda match: colors[match.group(1)], element)
    paper = f'<rect width="100%" height="100%" fill="{colors["paper"]}"/>'
    text = text.replace("</title>", f"</title>{paper}", 1).replace("currentColor", colors["ink"])
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" font-family="sans-serif"'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text.replace("<svg", f"<svg {names}", 1)}\n'


def themed(body: str) -> str:
    """Style attributes with the page's colours and font; matplotlib's own style sheet would reach the whole page."""
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"(?<=: )#0000[01]\d", lambda match: THEME[match.group(0)], body)
    return re.sub(r"font-family: [^;\"]*;? ?| transform=\"rotate\(-0 [^\"]*\"", "", body)


def without_idle_ids(body: str) -> str:
    """Drop the ids that nothing refers to: they repeat from figure to figure, and a page's ids are unique."""
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda match: match.group(0) if match.group(1) in used else "", body)
    return re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
