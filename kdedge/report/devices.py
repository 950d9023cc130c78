"""A card for each machine that the run was measured on: what it is, and what was measured there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kdedge.core.console import many, percent, size
from kdedge.core.device import DeviceReport
from kdedge.core.profiling import ProfileReport, gather_notes
from kdedge.core.quality import Measure
from kdedge.core.report import ExportReport
from kdedge.report import view

HERE = "This machine"
FIRST = ("board", "cpu", "gpu", "memory_total", "distro", "l4t", "power_mode")
"""What a reader asks of a device before all else."""


@dataclass(frozen=True)
class Measured:
    """All that is known of the run on one machine."""

    name: str
    device: dict[str, Any]
    profiles: Sequence[ProfileReport]
    accuracies: dict[str, float]
    """By precision, by the measure of the task."""
    notes: list[str] = field(default_factory=list)


def here(export: ExportReport | None, profiles: Sequence[ProfileReport]) -> list[Measured]:
    """The machine that the report is made on; none where nothing was measured on it."""
    if not profiles:
        return []
    found = {profile.name: export.quality(profile.name) if export else None for profile in profiles}
    accuracies = {name: quality.accuracy for name, quality in found.items() if quality}
    return [Measured(HERE, profiles[0].device, profiles, accuracies)]


def board(report: DeviceReport, profiles: Sequence[ProfileReport]) -> Measured:
    known = report.device.get("match", {})
    accuracies = {hop.name.removeprefix("engine-"): hop.quality.accuracy for hop in report.hops}
    problems = [f"{hop.name}: {text}" for hop in report.hops for text in (*hop.problems, *hop.notes)]
    name = known.get("board") or known.get("cpu") or report.backend
    return Measured(str(name), report.device, profiles, accuracies, [*problems, *gather_notes(profiles)])


def facts(device: dict[str, Any]) -> view.Pairs:
    """What the machine is, first the parts that people compare machines by."""
    known = {**device.get("match", {}), **device.get("note", {})}
    ordered = {key: known[key] for key in FIRST if key in known} | known
    return list(view.facts(ordered))


def columns(measure: Measure) -> tuple[str, ...]:
    """What `rows` stand under."""
    return ("model", measure.label, "engine", "median ms", "p95 ms", "images/s", "peak memory", "energy above idle")


def rows(measured: Measured) -> list[list[str]]:
    return [
        [
            profile.name,
            percent(measured.accuracies.get(profile.name)),
            size(profile.model_bytes),
            f"{profile.latency.median:.3f}",
            "-" if (p95 := profile.latency.percentiles.get("p95")) is None else f"{p95:.3f}",
            many(profile.throughput),
            size(profile.peak_memory_bytes),
            f"{profile.energy.net_mj} mJ" if profile.energy else "-",
        ]
        for profile in measured.profiles
    ]
