"""Profile a model: several fresh processes on a target, summed up in one report."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from kdedge.core.console import progress_bar
from kdedge.core.deployment import Profile
from kdedge.core.energy import Energy
from kdedge.core.errors import KdedgeError
from kdedge.core.profiling import Memory, ProcessSample, ProfileReport
from kdedge.core.rundir import sha256_file
from kdedge.core.stats import distribution
from kdedge.engine.base import backend as library
from kdedge.profile.energy import RUN_SECONDS
from kdedge.profile.files import external_data
from kdedge.profile.targets import LocalTarget, Target

SPREAD = 0.1
DRIFT = 0.05
REPEATS = 4
"""Of an energy measurement; with fewer no difference of two can be significant."""
Shapes = dict[str, tuple[int, ...]]


class Model(NamedTuple):
    """An engine or ONNX file to be measured; `onnx` is what an engine was built from, where that is known."""

    name: str
    path: Path
    onnx: Path | None
    backend: str
    shapes: Shapes
    options: dict[str, Any]


def parse_shapes(texts: Iterable[str]) -> Shapes:
    """Shapes from options such as `image=1x3x224x224`; the agent checks them against the model.

    Raises:
        KdedgeError: a text that is not so, or an input that comes twice.
    """
    shapes: Shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        if not name or not all(size.isdecimal() and int(size) > 0 for size in sizes.split("x")):
            raise KdedgeError(
                f"--shape {text}", "expected an input's name and sizes from 1 on", "--shape input=1x3x224x224"
            )
        if name in shapes:
            raise KdedgeError(f"--shape {text}", f"{name} already has a shape")
        shapes[name] = tuple(int(size) for size in sizes.split("x"))
    return shapes


def profile_model(
    path: Path,
    backend: str,
    spec: Profile,
    *,
    name: str | None = None,
    shapes: Shapes | None = None,
    precision: str | None = None,
    options: dict[str, Any] | None = None,
    target: Target | None = None,
) -> ProfileReport:
    """Measure an engine or ONNX file with random inputs; `precision` is what it was asked to be built in.

    Raises:
        ModelError: the model cannot be opened, or leaves axes open that `shapes` does not give.
    """
    name, target = name or path.stem, target or LocalTarget()
    request = request_for("latency", path, backend, spec, shapes, options) | {"energy": spec.energy}
    replies = []
    with progress_bar(f"profile {name}", spec.processes) as bar:
        for _ in range(spec.processes):
            replies.append(target.run(request))
            bar.note(median_ms=median(replies[-1]["sample"]["latency_ms"]))
            bar.advance()
    report = summarize(path, backend, spec, name, precision, replies)
    if spec.energy:
        reply = target.run({**request, "mode": "energy", "seconds": RUN_SECONDS, "repeats": REPEATS})
        report.energy = Energy.model_validate(reply["energy"])
        report.notes += report.energy.told()
    return report


def request_for(
    mode: str,
    path: Path,
    backend: str,
    spec: Profile,
    shapes: Shapes | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the agent is asked in every mode that measures."""
    threads = {"threads": spec.threads} if spec.threads and "threads" in library(backend).defaults else {}
    return {
        "mode": mode,
        "backend": backend,
        "model": str(path),
        "options": {**(options or {}), **threads},
        "shapes": shapes or {},
        "batch": spec.batch,
        "seconds": spec.seconds,
        "warmup_cap": spec.warmup_cap,
        "seed": 0,
        "lock_clocks": spec.lock_clocks,
        "power_mode": spec.power_mode,
    }


def summarize(
    path: Path, backend: str, spec: Profile, name: str, precision: str | None, replies: list[dict[str, Any]]
) -> ProfileReport:
    """The report of what the agents of all processes replied."""
    samples = [ProcessSample.model_validate(reply["sample"]) for reply in replies]
    first = replies[0]
    device = {**first["device"], "note": {**first["device"]["note"], "memory_method": first["memory_method"]}}
    latency = distribution([np.array(sample.latency_ms) for sample in samples])
    on_device = [np.array(sample.device_ms) for sample in samples]
    batch = next((int(shape[0]) for shape in first["shapes"].values() if shape), 1)
    memory = used_memory(samples)
    report = ProfileReport(
        name=name,
        model=path.name,
        model_bytes=model_bytes(path),
        model_sha256=sha256_file(path),
        backend=backend,
        provider=first["provider"],
        precision_asked=precision,
        precision_built=first["precision_built"],
        shapes=first["shapes"],
        batch=batch,
        threads=first["options"].get("threads", 1),
        latency=latency,
        device_latency=distribution(on_device) if all(map(len, on_device)) else None,
        throughput=1000 * batch / latency.mean,
        open_ms=median(sample.open_ms for sample in samples),
        first_ms=median(sample.first_ms for sample in samples),
        peak_memory_bytes=memory.process_peak,
        memory=memory,
        samples=samples,
        device=device,
        throttled=said(replies, ("throttled",)),
    )
    report.notes = [*_measurement_notes(report, spec), *_machine_notes(report), *_precision_notes(report)]
    report.notes += said(replies)
    return report


def said(replies: Sequence[dict[str, Any]], keys: Sequence[str] = ("notes", "throttled")) -> list[str]:
    """What the agents told under these keys for whoever reads the numbers, each sentence once."""
    return list(dict.fromkeys(text for reply in replies for key in keys for text in reply.get(key, ())))


def used_memory(samples: list[ProcessSample]) -> Memory:
    """Medians over the processes; the device's is the same in each."""
    pss = [sample.pss_bytes for sample in samples if sample.pss_bytes is not None]
    system = [sample.system_bytes for sample in samples if sample.system_bytes is not None]
    return Memory(
        process_peak=int(median(sample.peak_bytes - sample.baseline_bytes for sample in samples)),
        pss=int(median(pss)) if pss else None,
        system=int(median(system)) if system else None,
        device=samples[0].device_bytes,
    )


def model_bytes(path: Path) -> int:
    """Of the file, and of the files beside it that an ONNX model keeps its weights in."""
    files = {path, *(external_data(path) if path.suffix == ".onnx" else ())}
    return sum(file.stat().st_size for file in files)


def _measurement_notes(report: ProfileReport, spec: Profile) -> list[str]:
    notes = []
    if restless := sum(not sample.settled for sample in report.samples):
        notes.append(
            f"the warm-up did not settle within {spec.warmup_cap:g} s in {restless} of {len(report.samples)} processes"
        )
    if missing := [name for name, value in report.latency.percentiles.items() if value is None]:
        notes.append(f"{report.latency.n} queries are too few for {', '.join(missing)} (profile.seconds)")
    medians = [median(sample.latency_ms) for sample in report.samples]
    if (spread := (max(medians) - min(medians)) / report.latency.median) > SPREAD:
        notes.append(f"the medians of the processes lie {spread:.0%} apart")
    if abs(drift := median(_drift(sample.latency_ms) for sample in report.samples)) > DRIFT:
        notes.append(f"queries became {'slower' if drift > 0 else 'faster'} while measured, by {abs(drift):.0%}")
    return notes


def _drift(latency_ms: list[float]) -> float:
    """How much longer the last third of the queries took than the first, by their medians."""
    third = max(1, len(latency_ms) // 3)
    return median(latency_ms[-third:]) / median(latency_ms[:third]) - 1


def _machine_notes(report: ProfileReport) -> list[str]:
    match, note = report.device["match"], report.device["note"]
    notes = []
    if (note.get("load") or [0.0])[0] > note["cpus_total"]:  # kdedge itself may fill them
        notes.append(f"the machine was busy: load average above its {note['cpus_total']} CPUs")
    if (governor := note.get("governor", "performance")) != "performance":
        notes.append(f"CPU governor {governor}: clocks follow the load")
    if report.threads > (allowed := min(match["cpus"], match["cpu_quota"] or match["cpus"])):
        notes.append(f"{report.threads} threads on {allowed:g} CPUs that may be used")
    return notes


def _precision_notes(report: ProfileReport) -> list[str]:
    asked, built = report.precision_asked, report.precision_built
    if not asked or not built or asked in built:
        return []
    if asked == "fp16":
        return [f"fp16 storage in the ONNX file, {'/'.join(sorted(built))} compute on {report.provider}"]
    return [f"{asked} was asked for, but nothing is computed in it"]
