"""What `kdedge profile` prints: latency and memory, the sweep over batches and streams, the slowest layers."""

from collections.abc import Sequence

from kdedge.core import console
from kdedge.core.console import percent, show_table, size
from kdedge.core.profiling import LayerCost, LayersReport, Memory, ProfileReport, SweepPoint, SweepReport

SLOWEST = 20
"""Layers that the table shows; the file has them all."""


def show_profiles(reports: Sequence[ProfileReport]) -> None:
    columns = ["model", "bytes", "median ms", "95 % interval", "p95 ms", "p99 ms", "images/s", "first ms"]
    on_device = any(report.device_latency for report in reports)
    columns += ["device median ms", "device p99 ms"] if on_device else []
    batch = reports[0]
    title = f"profile: batch {batch.batch}, {batch.threads} threads, {batch.latency.processes} processes, end to end"
    show_table(title, columns, [profile_row(report, on_device) for report in reports], device_clock(reports))
    show_memory(reports)
    show_notes(reports)


def profile_row(report: ProfileReport, on_device: bool) -> list[str]:
    latency, device = report.latency, report.device_latency
    interval = latency.median_interval
    row = [
        report.name,
        size(report.model_bytes),
        f"{latency.median:.3f}",
        f"{interval[0]:.3f} .. {interval[1]:.3f}" if interval else "-",
        milliseconds(latency.percentiles["p95"]),
        milliseconds(latency.percentiles["p99"]),
        f"{report.throughput:.0f}",
        f"{report.first_ms:.2f}",
    ]
    if on_device:
        row += [milliseconds(device.median), milliseconds(device.percentiles["p99"])] if device else ["-", "-"]
    return row


def device_clock(reports: Sequence[ProfileReport]) -> str:
    """What the two latencies are, or why there is one."""
    without = dict.fromkeys(report.provider for report in reports if not report.device_latency)
    if not without:
        return "end to end: from arrays to arrays; device: computing alone, without copies, by the device's clock"
    return f"end to end: from arrays to arrays; no device latency, as {', '.join(without)} has no clock of its own"


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


def show_sweep(report: SweepReport) -> None:
    columns = ("batch", "streams", "median ms", "p99 ms", "images/s", "")
    title = f"sweep of {report.name}: {report.threads} threads a stream, end to end"
    show_table(title, columns, [sweep_row(point, point is report.best) for point in report.points])
    show_notes([report])


def sweep_row(point: SweepPoint, best: bool) -> list[str]:
    row = [str(point.batch), str(point.streams), milliseconds(point.median_ms), milliseconds(point.p99_ms)]
    return [*row, f"{point.throughput:.0f}", "best" if best else ""]


def show_layers(report: LayersReport) -> None:
    columns = ("layer", "kind", "ONNX nodes", "median ms", "mean ms", "share")
    slowest = sorted(report.layers, key=lambda layer: -layer.median_ms)[:SLOWEST]
    left = len(report.layers) - len(slowest)
    title = f"layers of {report.name}: batch {report.batch}, {report.threads} threads, {report.queries} queries"
    caption = f"{left} faster layers are not shown" if left else None
    show_table(title, columns, [layer_row(layer) for layer in slowest], caption)
    show_notes([report])


def layer_row(layer: LayerCost) -> list[str]:
    nodes = " + ".join(layer.nodes) or "-"
    return [layer.name, layer.kind, nodes, f"{layer.median_ms:.4f}", f"{layer.mean_ms:.4f}", percent(layer.share)]


def show_notes(reports: Sequence[ProfileReport | SweepReport | LayersReport]) -> None:
    for note in dict.fromkeys(f"{report.name}: {note}" for report in reports for note in report.notes):
        console.say(note)


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
