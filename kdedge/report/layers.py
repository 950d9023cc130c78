"""What the page says of single layers: their time, where it was measured, and their memory by the ONNX file."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdedge.core.console import percent, size
from kdedge.core.footprint import Footprint, LayerBytes
from kdedge.core.profiling import LayerCost, LayersReport

SLOWEST = 12
"""Layers that the page shows the time of."""
TIMES = ("layer", "kind", "median ms", "share", "weights", "output", "ONNX nodes")
BYTES = ("ONNX nodes", "operators", "weights", "output", "kept meanwhile")


@dataclass(frozen=True)
class LayersView:
    """One model of the run."""

    name: str
    footprint: Footprint
    times: LayersReport | None = None
    """None where no profile of this export was made."""


def slowest(report: LayersReport) -> list[LayerCost]:
    return sorted(report.layers, key=lambda layer: -layer.median_ms)[:SLOWEST]


def time_rows(report: LayersReport, footprint: Footprint) -> list[list[str]]:
    """Slowest first, with the memory of the ONNX nodes that each layer computes."""
    return [
        [
            cost.name,
            cost.kind,
            f"{cost.median_ms:.4f}",
            percent(cost.share),
            *memory_cells(cost, footprint),
            " + ".join(cost.nodes) or "-",
        ]
        for cost in slowest(report)
    ]


def memory_cells(cost: LayerCost, footprint: Footprint) -> list[str]:
    own = [layer for layer in footprint.layers if layer.nodes[0] in cost.nodes]
    return [size(sum(layer.weights for layer in own)), size(own[-1].outputs)] if own else ["-", "-"]


def time_summary(report: LayersReport) -> str:
    """How the times were measured, and how many layers make most of them."""
    left = len(report.layers) - len(slowest(report))
    share = sum(layer.share for layer in slowest(report))
    rest = f" The {SLOWEST} slowest of {len(report.layers)} layers: {percent(share)}." if left else ""
    return (
        f"Batch {report.batch}, {report.threads} threads, {report.queries} queries of {report.query_ms:.3f} ms each; "
        f"{report.plain_ms:.3f} ms when layers are not timed.{rest}"
    )


def memory_rows(layers: Sequence[LayerBytes]) -> list[list[str]]:
    return [
        [" + ".join(layer.nodes), layer.kind, size(layer.weights), size(layer.outputs), size(layer.live)]
        for layer in layers
    ]


def memory_summary(footprint: Footprint) -> str:
    peak = footprint.peak
    return (
        f"Weights {size(footprint.weights)}. Activations at most {size(peak.live)} at once, at batch "
        f"{footprint.batch} while {peak.nodes[0]} runs."
    )
