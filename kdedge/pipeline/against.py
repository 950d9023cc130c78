"""a run and another run or ONNX file -> against.json, against.md, against.xml: is the run worse?"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from kdedge.core import console
from kdedge.core.deployment import Precision
from kdedge.core.errors import Incomparable, KdedgeError
from kdedge.core.paired import AgainstReport, PairedTimes
from kdedge.core.report import Check, ExportReport, Metric, TrainingReport
from kdedge.core.rundir import digest, read_record, sha256_file, write_json, write_text
from kdedge.engine.base import backend
from kdedge.export.arrays import read_arrays
from kdedge.export.onnx import INPUT
from kdedge.export.parity import Predictions
from kdedge.gate.paired import Answered, accuracy_check, decide_paired, latency_check, size_checks, vanished
from kdedge.gate.render import COLUMNS, junit, markdown, rows
from kdedge.gate.rules import cost, deployed, exit_code
from kdedge.pipeline.device import EVAL
from kdedge.pipeline.paired import measure_until_clear, paired_request
from kdedge.pipeline.project import EXPORT, RECIPE, TRAINING, Project, reopen
from kdedge.pipeline.publish import publish
from kdedge.profile.measure import Model, Shapes
from kdedge.profile.targets import LocalTarget, Target

SECONDS = 60.0
"""For the measurements of all precisions together."""


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    onnx: dict[str, Path]
    backend: str
    options: dict[str, Any]
    shapes: Shapes = field(default_factory=dict)
    engines: dict[str, Path] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    run: Project | None = None

    def model(self, precision: str, folder: Path, target: Target) -> Model:
        """The run's engine where it is for this machine; else one that is built for this alone."""
        onnx = self.onnx[precision]
        engine = self.engines.get(precision) if isinstance(target, LocalTarget) else None
        if engine is None:
            engine = folder / f"{precision}{backend(self.backend).suffix}"
            files = {"onnx": str(onnx), "out": str(engine)}
            target.run({"mode": "build", "backend": self.backend, "options": self.options, **files})
        return Model(precision, engine, onnx, self.backend, self.shapes, self.options)


def side_of(project: Project) -> Side:
    """What a run exported."""
    run = project.run
    export = read_record(run / EXPORT, ExportReport)
    onnx = {name: run / export.onnx[name].path for name in get_args(Precision) if name in export.onnx}
    student = export.deployed(read_record(run / TRAINING, TrainingReport).student)
    counts = {name: metric for name, metric in deployed(student).items() if metric.unit == "count"}
    return Side(
        name=run.path.name,
        onnx=onnx,
        backend=export.backend,
        options=export.backend_options,
        shapes={INPUT: (project.recipe.profile.batch, *export.input_shape)},
        engines={name: run / engine.path for name, engine in export.engines.items()},
        metrics=counts | onnx_bytes(onnx),
        run=project,
    )


def other_side(path: Path, new: Side) -> Side:
    """Another run; or an ONNX file, or a folder with one, which is deployed as the run is.

    Raises:
        KdedgeError: none of these.
    """
    if (path / RECIPE).is_file():
        return side_of(reopen(path))
    found = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    if len(found) != 1 or found[0].suffix != ".onnx" or not found[0].is_file():
        why = f"it holds {len(found)} ONNX files" if path.is_dir() else "neither a run's folder nor an ONNX file"
        raise KdedgeError(f"--against {path}", why, "kdedge gate RUN --against OTHER_RUN, or --against MODEL.onnx")
    precision = next((name for name in get_args(Precision) if found[0].stem.endswith(f".{name}")), "fp32")
    onnx = {precision: found[0]}
    return Side(found[0].name, onnx, new.backend, new.options, metrics=onnx_bytes(onnx))


def onnx_bytes(onnx: dict[str, Path]) -> dict[str, Metric]:
    return {f"{name}/onnx_bytes": cost(path.stat().st_size, "bytes") for name, path in onnx.items()}


def gate_against(project: Project, other: Path, target: Target, advisory: bool = False) -> int:
    """Hold a run against another model on one target; returns the exit code.

    Raises:
        Incomparable: the two have no precision in common.
    """
    new = side_of(project)
    base = other_side(other, new)
    both = [precision for precision in new.onnx if precision in base.onnx]
    if not both:
        has = f"the run has {', '.join(new.onnx)}, {base.name} {', '.join(base.onnx)}"
        raise Incomparable(f"{new.name} and {base.name} have no precision in common", has)
    with project.run.locked():
        with target:
            times = list(measure(project, new, base, both, target))
        report = decide(new, base, times)
        artifacts = ["against.json", "against.md", "against.xml"]
        write_json(project.run / artifacts[0], report)
        write_text(project.run / artifacts[1], markdown(report.result))
        write_text(project.run / artifacts[2], junit(report.result))
        hashes = [sha256_file(side.onnx[name]) for side in (new, base) for name in both]
        project.run.record("against", digest(hashes), artifacts)
    result = report.result
    console.show_table(f"{new.name} against {base.name}: {result.verdict}", COLUMNS, rows(result))
    for warning in result.warnings:
        console.warn(warning)
    console.emit(report)
    publish(project, result, advisory, "against")
    return exit_code(result, advisory)


def measure(project: Project, new: Side, base: Side, precisions: list[str], target: Target) -> Iterator[PairedTimes]:
    """Each precision has its share of the time that those before it left."""
    end = time.monotonic() + SECONDS
    sides = {"new": new, "base": base}
    with TemporaryDirectory(prefix="kdedge-") as folder:
        work = Path(folder)
        for number, precision in enumerate(precisions):
            ours, theirs = (side.model(precision, work / name, target) for name, side in sides.items())
            seconds = (end - time.monotonic()) / (len(precisions) - number)
            yield measure_until_clear(precision, paired_request(ours, theirs, project.recipe.profile), target, seconds)


def decide(new: Side, base: Side, times: list[PairedTimes]) -> AgainstReport:
    checks = [latency_check(each) for each in times] + size_checks(new.metrics, base.metrics)
    warnings = [
        f"{each.name}: the warm-up did not settle in {each.unsettled} of {len(each.ratios)} processes"
        for each in times
        if 2 * each.unsettled > len(each.ratios)
    ]
    if base.run is not None:
        checks += [vanished(name) for name in base.onnx if name not in new.onnx]
        warnings += [f"not in {base.name}: {name}" for name in new.onnx if name not in base.onnx]
    found, reasons = compare_answers(new, base, [each.name for each in times])
    result = decide_paired(checks + found, warnings + reasons, base.name)
    return AgainstReport(against=base.name, result=result, times=times)


def compare_answers(new: Side, base: Side, precisions: list[str]) -> tuple[list[Check], list[str]]:
    """A check for each precision that both predicted the same test images with; else why there is none."""
    if new.run is None or base.run is None:
        return [], [f"accuracy is not compared: {base.name} is a file, without answers to the test images"]
    found = {name: answered(new.run, base.run, name) for name in precisions}
    missing = [name for name, both in found.items() if both is None]
    reasons = [f"accuracy of {', '.join(missing)} is not compared: no answers to the same test images"]
    return [accuracy_check(name, both) for name, both in found.items() if both], reasons if missing else []


def answered(new: Project, base: Project, precision: str) -> Answered | None:
    """By the engines where both asked theirs, else by the ONNX files."""
    for hop in (f"engine-{precision}", f"onnx-{precision}"):
        files = [project.run / f"predictions/{hop}.npz" for project in (new, base)]
        if all(file.is_file() for file in files) and all((each.run / EVAL).is_file() for each in (new, base)):
            return both_right(new, base, files)
    return None


def both_right(new: Project, base: Project, files: list[Path]) -> Answered | None:
    """None where the images or their labels differ."""
    arrays = [read_arrays(project.run / EVAL) for project in (new, base)]
    answers = [Predictions.load(file) for file in files]
    ids = [each.ids.tolist() for each in arrays] + [each.ids.tolist() for each in answers]
    if any(each != ids[0] for each in ids) or arrays[0].labels.tolist() != arrays[1].labels.tolist():
        return None
    new_right, base_right = (each.outputs.argmax(axis=1) == arrays[0].labels for each in answers)
    return Answered(
        images=len(new_right),
        base_right=int(base_right.sum()),
        new_right=int(new_right.sum()),
        lost=int((base_right & ~new_right).sum()),
        won=int((new_right & ~base_right).sum()),
    )
