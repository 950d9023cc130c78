"""a run and another run, ONNX file or revision -> against.json, against.md, against.xml: is the run worse?"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kdedge.core import console
from kdedge.core.errors import Incomparable, ModelError
from kdedge.core.paired import AgainstReport, PairedTimes
from kdedge.core.quality import BoxQuality
from kdedge.core.report import Check, ExportReport, GateResult
from kdedge.core.rundir import digest, read_record, sha256_file, write_json, write_text
from kdedge.export.arrays import read_labels
from kdedge.export.parity import Predictions
from kdedge.gate.paired import (
    Answered,
    accuracy_check,
    advice,
    boxes_check,
    decide_paired,
    latency_check,
    size_checks,
    vanished,
)
from kdedge.gate.render import columns, headline, junit, markdown, rows
from kdedge.gate.rules import exit_code
from kdedge.pipeline.device import EVAL
from kdedge.pipeline.paired import measure_until_clear, paired_request
from kdedge.pipeline.project import EXPORT, Project
from kdedge.pipeline.publish import publish
from kdedge.pipeline.sides import Side, other_side, pictures, side_of
from kdedge.profile.measure import Shapes
from kdedge.profile.targets import Target

SECONDS = 60.0
"""For the measurements of all precisions together."""


def gate_against(
    project: Project,
    other: str,
    target: Target,
    *,
    shapes: Shapes | None = None,
    seconds: float | None = None,
    advisory: bool = False,
) -> int:
    """Hold a run against another model on one target; returns the exit code.

    Args:
        other: as `other_side` takes it.
        shapes: of the inputs of an ONNX file that leaves them open.
        seconds: for all measurements; `SECONDS` by default.
    """
    new = side_of(project)
    with project.run.locked():
        try:
            with other_side(other, new, shapes or {}) as base, shape_asked_for(other), target:
                report = compare(project, new, base, target, seconds or SECONDS)
        except Incomparable as error:
            name = Path(other).name if Path(other).exists() else other
            result = GateResult(verdict="incomparable", checks=[], warnings=[str(error)], against=name)
            report = AgainstReport(result=result, times=[])
        report.onnx = {name: sha256_file(path) for name, path in new.onnx.items()}
        save(project, report, digest([other, *report.onnx.values()]))
    result = report.result
    console.show_table(f"{new.name}: {headline(result)}", columns(result), rows(result.checks))
    for warning in result.warnings:
        console.warn(warning)
    console.emit(report)
    publish(project, result, advisory, "against")
    return exit_code(result, advisory)


@contextmanager
def shape_asked_for(other: str) -> Iterator[None]:
    """Where a model leaves an input's shape open, the line to type is this command's."""
    try:
        yield
    except ModelError as error:
        _, option, shapes = error.fix.partition("--shape ")
        fix = f"kdedge gate RUN --against {other} {option}{shapes}" if option else error.fix
        raise ModelError(error.what, error.why, fix) from None


def save(project: Project, report: AgainstReport, key: str) -> None:
    artifacts = ["against.json", "against.md", "against.xml"]
    write_json(project.run / artifacts[0], report)
    write_text(project.run / artifacts[1], markdown(report.result))
    write_text(project.run / artifacts[2], junit(report.result))
    project.run.record("against", key, artifacts)


def compare(project: Project, new: Side, base: Side, target: Target, seconds: float) -> AgainstReport:
    """Raises Incomparable where the two have no precision in common."""
    both = [precision for precision in new.onnx if precision in base.onnx]
    if not both:
        has = f"the run has {', '.join(new.onnx)}, {base.name} {', '.join(base.onnx)}"
        raise Incomparable(f"{new.name} and {base.name} have no precision in common", has)
    return decide(new, base, list(measure(project, new, base, both, target, seconds)), seconds)


def measure(
    project: Project, new: Side, base: Side, precisions: list[str], target: Target, seconds: float
) -> Iterator[PairedTimes]:
    """Each precision has its share of the time that those before it left."""
    end = time.monotonic() + seconds
    sides = {"new": new, "base": base}
    with TemporaryDirectory(prefix="kdedge-") as folder:
        work = Path(folder)
        for number, precision in enumerate(precisions):
            ours, theirs = (side.model(precision, work / name, target) for name, side in sides.items())
            share = (end - time.monotonic()) / (len(precisions) - number)
            yield measure_until_clear(precision, paired_request(ours, theirs, project.recipe.profile), target, share)


def decide(new: Side, base: Side, times: list[PairedTimes], seconds: float) -> AgainstReport:
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
    result = decide_paired(checks + found, [*warnings, *reasons, *advice(times, seconds)], base.name)
    return AgainstReport(result=result, times=times)


def compare_answers(new: Side, base: Side, precisions: list[str]) -> tuple[list[Check], list[str]]:
    """A check for each precision that both predicted the same test images with; else why there is none."""
    if new.run is None or base.run is None:
        return [], [f"accuracy is not compared: {base.name} is a file, without answers to the test images"]
    found = {name: compare_accuracy(new.run, base.run, name) for name in precisions}
    missing = [name for name, check in found.items() if check is None]
    reasons = [f"accuracy of {', '.join(missing)} is not compared: no answers to the same test images"]
    return [check for check in found.values() if check], reasons if missing else []


def compare_accuracy(new: Project, base: Project, precision: str) -> Check | None:
    """None where the two did not answer the same test images."""
    if new.recipe.task != base.recipe.task:
        return None
    if new.recipe.task == "detect":
        found = both_found(new, base, precision)
        return boxes_check(precision, *found) if found else None
    both = answered(new, base, precision)
    return accuracy_check(precision, both) if both else None


def both_found(new: Project, base: Project, precision: str) -> tuple[BoxQuality, BoxQuality] | None:
    """By the engines where both asked theirs, else by the ONNX files; as the exports recorded it."""
    shown = [pictures(project) for project in (new, base)]
    if shown[0] is None or shown[0] != shown[1]:
        return None
    new_hops, base_hops = (
        {hop.name: hop.quality for hop in read_record(project.run / EXPORT, ExportReport).hops}
        for project in (new, base)
    )
    for name in (f"engine-{precision}", f"onnx-{precision}"):
        found = new_hops.get(name), base_hops.get(name)
        if isinstance(found[0], BoxQuality) and isinstance(found[1], BoxQuality):
            return found[0], found[1]
    return None


def answered(new: Project, base: Project, precision: str) -> Answered | None:
    """By the engines where both asked theirs, else by the ONNX files."""
    for hop in (f"engine-{precision}", f"onnx-{precision}"):
        files = [project.run / f"predictions/{hop}.npz" for project in (new, base)]
        if all(file.is_file() for file in files) and all((each.run / EVAL).is_file() for each in (new, base)):
            return both_right(new, base, files)
    return None


def both_right(new: Project, base: Project, files: list[Path]) -> Answered | None:
    """None where the images or their labels differ."""
    known = [read_labels(project.run / EVAL) for project in (new, base)]
    answers = [Predictions.load(file) for file in files]
    ids = [each.ids.tolist() for each in known] + [each.ids.tolist() for each in answers]
    if any(each != ids[0] for each in ids) or known[0].labels.tolist() != known[1].labels.tolist():
        return None
    new_right, base_right = (each.outputs.argmax(axis=1) == known[0].labels for each in answers)
    return Answered(
        images=len(new_right),
        base_right=int(base_right.sum()),
        new_right=int(new_right.sum()),
        lost=int((base_right & ~new_right).sum()),
        won=int((new_right & ~base_right).sum()),
    )
