"""The records of what was measured of a model: latency and memory, many batches and streams at once, its layers."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from kdedge.core.energy import Energy
from kdedge.core.record import Part, Record


class Distribution(Record):
    """A measured quantity, in milliseconds."""

    n: int
    processes: int
    median: float
    mean: float
    std: float
    min: float
    max: float
    percentiles: dict[str, float | None]
    """By name (p90, p95, p99); None where fewer than ten samples lie above it."""
    median_interval: tuple[float, float] | None = None
    """95 % interval of the median, bootstrapped over processes; None with fewer than two."""
    outliers: int = 0
    """Samples above the third quartile by more than three interquartile ranges; kept in all figures."""
    by_process: dict[str, list[float]] = Field({})
    """p50 and p95 of each process, in order: the process is the unit of a comparison."""


class ProcessSample(Record):
    """What one fresh process measured."""

    latency_ms: list[float]
    """Every measured query in order."""
    open_ms: float
    """Creating the session."""
    first_ms: float
    """The first query, memory planning included."""
    warmup_queries: int
    warmup_ms: float
    settled: bool
    """False when the warm-up was cut by its cap."""
    baseline_bytes: int
    """Resident memory before the model was opened."""
    peak_bytes: int
    """Largest resident memory of the process."""
    device_ms: list[float] = Field([])
    """Computing alone, by the device's own clock; empty where it has none that can be read."""
    pss_bytes: int | None = None
    """Proportional set size after the last query minus the one before the model was opened."""
    system_bytes: int | None = None
    """What the whole system had less of by then (MemAvailable)."""
    device_bytes: dict[str, int] = Field({})
    """On the GPU, by what for: context (what it computes in), weights, buffers (inputs and outputs)."""


class Memory(Part):
    """Each is counted in its own way, none is part of a sum: medians over processes, in bytes."""

    process_peak: int
    """Peak resident memory minus its baseline."""
    pss: int | None = None
    """Proportional set size, what is shared with other processes divided among them; None where it is not told."""
    system: int | None = None
    """What the system had less available; other processes move it as well."""
    device: dict[str, int] = Field({})
    """On the GPU, as the library tells; on a Jetson it is memory of the system."""


class ProfileReport(Record):
    name: str
    """The precision of a run's engine, or the file's stem."""
    model: str
    """File name."""
    model_bytes: int
    model_sha256: str
    backend: str
    provider: str
    precision_asked: str | None = None
    precision_built: dict[str, int] = Field({})
    """Nodes by the type they compute in, read back from the built engine."""
    shapes: dict[str, list[int]]
    batch: int
    threads: int
    latency: Distribution
    """End to end: one query in flight, host stopwatch around feeding, running and reading."""
    device_latency: Distribution | None = None
    """Computing alone, without copies, by the device's own clock; None where it has none that can be read."""
    throughput: float
    """Images a second at this batch."""
    open_ms: float
    first_ms: float
    peak_memory_bytes: int
    """Median over processes of peak resident memory minus its baseline."""
    memory: Memory | None = None
    """None in records of before it was measured."""
    samples: list[ProcessSample]
    device: dict[str, Any]
    """Fingerprint: board, CPU, memory, kernel, governor, versions."""
    throttled: list[str] = Field([])
    """What slowed the machine down meanwhile."""
    energy: Energy | None = None
    """None where it was not asked for."""
    notes: list[str] = Field([])


class SweepPoint(Part):
    """So many streams at once, each with batches of so many images."""

    batch: int
    streams: int
    queries: int
    """Of all streams."""
    median_ms: float
    """End to end, of a query of any stream, while the others run as well."""
    p99_ms: float | None
    """None where fewer than ten queries lie above it."""
    throughput: float
    """Images a second of all streams, over the time from the first one's start to the last one's end."""
    settled: bool


class SweepReport(Record):
    """Latency and throughput over batches and streams; a stream is a session and a thread of its own."""

    name: str
    model: str
    model_sha256: str
    backend: str
    provider: str
    threads: int
    """Of each stream."""
    points: list[SweepPoint]
    device: dict[str, Any]
    notes: list[str] = Field([])

    @property
    def best(self) -> SweepPoint:
        """The one of the highest throughput."""
        return max(self.points, key=lambda point: point.throughput)


class LayerCost(Part):
    """One layer of what computes, which may be several nodes of the ONNX file."""

    name: str
    """The library's."""
    kind: str
    nodes: list[str]
    """Of the ONNX file; empty where its name does not tell."""
    mean_ms: float
    """Over the queries; 0 in those where it did not run."""
    median_ms: float
    share: float
    """Of the medians of all layers."""


class LayersReport(Record):
    """Time by layer, from a process that measured nothing else, as it slows the query."""

    name: str
    model: str
    model_sha256: str
    backend: str
    provider: str
    batch: int
    threads: int
    queries: int
    query_ms: float
    """Median end to end of a query that times its layers."""
    plain_ms: float
    """Median of one that does not, in the same process."""
    layers: list[LayerCost]
    """In the order in which they run."""
    device: dict[str, Any]
    notes: list[str] = Field([])

    @property
    def total_ms(self) -> float:
        """The medians of all layers together."""
        return sum(layer.median_ms for layer in self.layers)


def gather_notes(reports: Sequence[ProfileReport | SweepReport | LayersReport]) -> list[str]:
    """Each note once, behind the names of all that it is about."""
    names: dict[str, list[str]] = {}
    for report in reports:
        for note in dict.fromkeys(report.notes):
            names.setdefault(note, []).append(report.name)
    return [f"{', '.join(about)}: {note}" for note, about in names.items()]
