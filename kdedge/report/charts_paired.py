"""Figure of a gate that measured two models beside each other."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from kdedge.core.paired import PairedTimes
from kdedge.report.svg import INK, SERIES, STYLE, canvas, inline, legend


@mpl.rc_context(STYLE)
def ratios(times: Sequence[PairedTimes]) -> Markup:
    """Of each precision the processes' ratios, their mean with its interval, and the largest that is allowed."""
    figure, axes = canvas(1.3 + 0.5 * len(times))
    names = [each.name for each in times]
    for place, each in enumerate(times):
        first = place == 0
        own = np.full(len(each.ratios), place + 0.18)
        axes.plot(each.ratios, own, "o", color=SERIES[0], alpha=0.5, markersize=4, label="a process" if first else None)
        if each.interval:
            axes.plot(each.interval, [place] * 2, color=INK, linewidth=2, label="95 % interval" if first else None)
        if each.ratio is not None:
            axes.plot(each.ratio, place, "D", color=INK, markersize=6, label="ratio" if first else None)
        limit = [1 + each.limit] * 2
        axes.plot(limit, [place - 0.4, place + 0.4], color=SERIES[1], label="allowed" if first else None)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("time of this run to time of the base")
    legend(figure, 4)
    return inline(figure, "ratios", "Latency of this run against that of the base")
