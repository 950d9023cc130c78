"""Sweep a model over batches and streams: a fresh process on a target for every point."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from kdedge.core.console import progress_bar
from kdedge.core.deployment import Profile
from kdedge.core.errors import KdedgeError
from kdedge.core.profiling import SweepPoint, SweepReport
from kdedge.core.rundir import sha256_file
from kdedge.core.stats import percentile, supported
from kdedge.profile.measure import Model, request_for, said
from kdedge.profile.targets import Target


@dataclass(frozen=True)
class Axes:
    """Every batch is measured with every number of streams; without batches the profile's own."""

    batches: tuple[int, ...] = ()
    streams: tuple[int, ...] = (1,)


def parse_counts(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers such as `1,2,4`, in order and each once.

    Raises:
        KdedgeError: a text that is not so.
    """
    counts = [part.strip() for part in text.split(",")]
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise KdedgeError(f"{option} {text}", "expected whole numbers from 1 on", f"{option} 1,2,4")
    return tuple(sorted({int(count) for count in counts}))


def sweep_model(model: Model, spec: Profile, axes: Axes, target: Target) -> SweepReport:
    """Measure every point; the first axis of the model's shapes is replaced by the batch.

    Raises:
        ModelError: the model cannot be opened, or does not take one of the batches; then nothing is measured.
    """
    batches, points, replies = axes.batches or (spec.batch,), [], []
    with progress_bar(f"sweep {model.name}", len(batches) * len(axes.streams)) as bar:
        for batch, streams in product(batches, axes.streams):
            shapes = {name: (batch, *shape[1:]) for name, shape in model.shapes.items()}
            request = request_for("streams", model.path, model.backend, spec, shapes, model.options)
            request |= {"batch": batch, "streams": streams, "batches": list(batches)}
            replies.append(target.run(request))
            points.append(point_of(batch, streams, replies[-1]))
            bar.note(images_s=points[-1].throughput)
            bar.advance()
    first = replies[0]
    report = SweepReport(
        name=model.name,
        model=model.path.name,
        model_sha256=sha256_file(model.path),
        backend=model.backend,
        provider=first["provider"],
        threads=first["options"].get("threads", 1),
        points=points,
        device=first["device"],
    )
    report.notes = [*restless(points), *crowded(report), *said(replies)]
    return report


def point_of(batch: int, streams: int, reply: dict[str, Any]) -> SweepPoint:
    samples = np.concatenate([np.array(stream) for stream in reply["latency_ms"]])
    return SweepPoint(
        batch=batch,
        streams=streams,
        queries=len(samples),
        median_ms=percentile(samples, 50),
        p99_ms=percentile(samples, 99) if supported(len(samples), 99) else None,
        throughput=1000 * batch * len(samples) / reply["wall_ms"],
        settled=reply["settled"],
    )


def restless(points: Sequence[SweepPoint]) -> list[str]:
    found = [f"batch {point.batch} in {point.streams} streams" for point in points if not point.settled]
    return [f"the warm-up did not settle: {', '.join(found)}"] if found else []


def crowded(report: SweepReport) -> list[str]:
    """On a CPU, streams beyond what it can run at once wait for each other."""
    match, most = report.device["match"], max(point.streams for point in report.points)
    allowed = min(match["cpus"], match["cpu_quota"] or match["cpus"])
    if report.provider != "CPUExecutionProvider" or most * report.threads <= allowed:
        return []
    return [f"{most} streams of {report.threads} threads share {allowed:g} CPUs"]
