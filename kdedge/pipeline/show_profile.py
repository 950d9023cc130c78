"""What `kdedge profile` prints: latency and memory, the sweep over batches and streams, the slowest layers."""

from collections.abc import Sequence

from kdedge.core import console
from kdedge.core.console import percent, show_table, size
from kdedge.core.profiling import (
    Distribution,
    LayerCost,
    LayersReport,
    Memory,
    ProfileReport,
    SweepPoint,
    SweepReport,
    gather_notes,
)

SLOWEST = 20
"""Layers that the table shows; the file has them all."""
LATENCY = ("median ms", "95 % interval", "p95 ms", "p99 ms")


def show_profiles(reports: Sequence[ProfileReport]) -> None:
    columns = ("model", "bytes", *LATENCY, "images/s", "first ms")
    batch = reports[0]
    title = f"profile: batch {batch.batch}, {batch.threads} threads, {batch.latency.processes} processes, end to end"
    show_table(title, columns, [profile_row(report) for report in reports], clocks(reports))
    on_device = [[report.name, *latency_cells(report.device_latency)] for report in reports if report.device_latency]
    if on_device:
        caption = "computing alone, without copies, by the device's clock"
        show_table("device latency", ("model", *LATENCY), on_device, caption)
    show_memory(reports)
    show_notes(reports)


def profile_row(report: ProfileReport) -> list[str]:
    size_and_latency = [size(report.model_bytes), *latency_cells(report.latency)]
    return [report.name, *size_and_latency, f"{report.throughput:.0f}", f"{report.first_ms:.2f}"]


def latency_cells(latency: Distribution) -> list[str]:
    interval = "{:.3f} .. {:.3f}".format(*latency.median_interval) if latency.median_interval else "-"
    tail = [milliseconds(latency.percentiles[name]) for name in ("p95", "p99")]
    return [milliseconds(latency.median), interval, *tail]


def clocks(reports: Sequence[ProfileReport]) -> str:
    """What end to end is, and why there is no other latency where there is none."""
    without = dict.fromkeys(report.provider for report in reports if not report.device_latency)
    why = f"; no device latency, as {', '.join(without)} has no clock of its own" if without else ""
    return f"end to end: from arrays to arrays{why}"


def show_memory(reports: Sequence[ProfileReport]) -> None:
    """Each way of counting under its own name."""
    measured = {report.name: report.memory for report in reports if report.memory}
    parts = list(dict.fromkeys(part for memory in measured.values() for part in memory.device))
    columns = ("model", "peak RSS", "PSS", "system", *(f"device: {part}" for part in parts))
    if measured:
        table = [[name, *memory_cells(memory, parts)] for name, memory in measured.items()]
        show_table("memory that the model added", columns, table)


def memory_cells(memory: Memory, parts: Sequence[str]) -> list[str]:
    counts = [memory.process_peak, memory.pss, memory.system, *(memory.device.get(part) for part in parts)]
    return ["-" if count is None else size(count) for count in counts]


def show_sweeps(reports: Sequence[SweepReport]) -> None:
    columns = ("batch", "streams", "median ms", "p99 ms", "images/s", "")
    for report in reports:
        title = f"sweep of {report.name}: {report.threads} threads a stream, end to end"
        show_table(title, columns, [sweep_row(point, point is report.best) for point in report.points])
    show_notes(reports)


def sweep_row(point: SweepPoint, best: bool) -> list[str]:
    row = [str(point.batch), str(point.streams), milliseconds(point.median_ms), milliseconds(point.p99_ms)]
    return [*row, f"{point.throughput:.0f}", "best" if best else ""]


def show_layers(reports: Sequence[LayersReport]) -> None:
    columns = ("layer", "kind", "ONNX nodes", "median ms", "mean ms", "share")
    for report in reports:
        slowest = sorted(report.layers, key=lambda layer: -layer.median_ms)[:SLOWEST]
        left = len(report.layers) - len(slowest)
        title = f"layers of {report.name}: batch {report.batch}, {report.threads} threads, {report.queries} queries"
        caption = f"{left} faster layers are not shown" if left else None
        show_table(title, columns, [layer_row(layer) for layer in slowest], caption)
    show_notes(reports)


def layer_row(layer: LayerCost) -> list[str]:
    nodes = " + ".join(layer.nodes) or "-"
    return [layer.name, layer.kind, nodes, f"{layer.median_ms:.4f}", f"{layer.mean_ms:.4f}", percent(layer.share)]


def show_notes(reports: Sequence[ProfileReport | SweepReport | LayersReport]) -> None:
    for note in gather_notes(reports):
        console.say(note)


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
