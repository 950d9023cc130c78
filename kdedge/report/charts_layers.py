"""Figures of single layers."""

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from kdedge.core.console import size
from kdedge.core.footprint import Footprint
from kdedge.core.profiling import LayersReport
from kdedge.report.layers import slowest
from kdedge.report.svg import INK, SERIES, STYLE, canvas, inline, legend

LONGEST = 24
"""Characters of a layer's name."""


@mpl.rc_context(STYLE)
def times(report: LayersReport) -> Markup:
    """The slowest layers, slowest on top."""
    layers = slowest(report)[::-1]
    figure, axes = canvas(max(1.6, 0.7 + 0.25 * len(layers)))
    places = np.arange(len(layers))
    axes.barh(places, [layer.median_ms for layer in layers], color=SERIES[0], height=0.7)
    axes.set_yticks(places, [shortened(layer.name) for layer in layers], fontsize=9.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("median, ms")
    return inline(figure, f"layers-{report.name}", f"Time of the slowest layers of {report.name}")


@mpl.rc_context(STYLE)
def memory(name: str, footprint: Footprint) -> Markup:
    """Activations kept while each layer runs, and the weights read until then."""
    figure, axes = canvas(3.2)
    layers = footprint.layers
    edges = np.arange(len(layers) + 1) + 0.5
    axes.stairs([layer.live for layer in layers], edges, fill=True, color=SERIES[0], alpha=0.35)
    axes.stairs([layer.live for layer in layers], edges, color=SERIES[0], label="activations kept", linewidth=1.4)
    weights = [layer.weights for layer in layers]
    axes.bar(edges[:-1] + 0.5, weights, width=0.4, color=SERIES[1], label="weights of the layer")
    peak = layers.index(footprint.peak)
    axes.plot(peak + 1, footprint.peak.live, "v", color=INK, markersize=6, label="peak", clip_on=False)
    axes.grid(visible=False, axis="x")
    axes.margins(x=0.01)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MultipleLocator(byte_step(max(footprint.peak.live, *weights))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value).replace(".0 ", " ")))
    axes.set_xlabel("layer, in the order in which they run")
    legend(figure, 3)
    return inline(figure, f"memory-{name}", f"Memory of {name} by layer")


def byte_step(most: int) -> int:
    """A power of two that an axis of bytes is divided by, into four parts at most."""
    return 1 << max((most - 1) // 4, 0).bit_length()


def shortened(name: str) -> str:
    """Both ends of a long name, as layers often differ in the last characters only."""
    half = (LONGEST - 1) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"
