"""training.json, export.json, profile/*.json -> gate.json, gate.md, gate.xml"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdedge.core import console
from kdedge.core.device import DeviceReport
from kdedge.core.errors import Incomparable, KdedgeError
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import ExportReport, GateResult, Metric, TrainingReport
from kdedge.core.rundir import read_record, write_json, write_text
from kdedge.gate.baseline import fingerprint_of, load_baseline, make_baseline
from kdedge.gate.render import junit, markdown
from kdedge.gate.rules import collect, decide, worst
from kdedge.pipeline.project import DEVICE, DEVICES, EXPORT, GATE, TRAINING, Project
from kdedge.pipeline.show import show_gate


def run(project: Project) -> list[str]:
    """Decide; a failure is for the caller to act on, after it has been recorded."""
    training, export, profiles = read_records(project)
    baseline = project.baseline()
    metrics = collect(training, export, profiles)
    result = hold_against(baseline, metrics, project, fingerprint_of(profiles))
    write_json(project.run / GATE, result)
    write_text(project.run / "gate.md", markdown(result))
    write_text(project.run / "gate.xml", junit(result))
    show_gate(result)
    return [GATE, "gate.md", "gate.xml"]


def hold_against(
    baseline: Path | None, metrics: dict[str, Metric], project: Project, fingerprint: dict[str, Any]
) -> GateResult:
    """Without the baseline that is named nothing passes, but what can be said without it is said."""
    try:
        known = load_baseline(baseline) if baseline else None
    except Incomparable as error:
        result = decide(metrics, project.recipe.gate, None, fingerprint)
        warnings = [*result.warnings, str(error)]
        return result.model_copy(update={"verdict": worst((result.verdict, "insufficient")), "warnings": warnings})
    return decide(metrics, project.recipe.gate, known, fingerprint)


def read_result(project: Project) -> GateResult:
    return read_record(project.run / GATE, GateResult)


def read_records(project: Project) -> tuple[TrainingReport, ExportReport, list[ProfileReport]]:
    """What is known of the run as it is exported now; what was measured of an earlier export is left out.

    Raises:
        KdedgeError: the device that the run is looked at on has not seen this export.
    """
    for name in (TRAINING, EXPORT):
        project.run.sha256(name)  # says what to run when it has not been written
    training = read_record(project.run / TRAINING, TrainingReport)
    export = read_record(project.run / EXPORT, ExportReport)
    if project.device:
        there = read_record(project.run / f"{DEVICES}/{project.device}/{DEVICE}", DeviceReport)
        if there.onnx != export.hashes():
            fix = f"kdedge profile {project.run.path} --target ssh://user@board"
            raise KdedgeError(f"{DEVICES}/{project.device}", "it was measured before the run was exported anew", fix)
        before = [hop for hop in export.hops if "engine-" not in hop.name]
        export = export.model_copy(update={"engines": there.engines, "hops": before + there.hops})
    profiles = [read_record(project.run / name, ProfileReport) for name in project.profiles()]
    return training, export, [profile for profile in profiles if is_of(profile, export)]


def is_of(profile: ProfileReport, export: ExportReport) -> bool:
    engine = export.engines.get(profile.name)
    return engine is not None and engine.sha256 == profile.model_sha256


def update_baseline(project: Project, path: Path, reason: str) -> None:
    """Take the run's numbers as the ones later runs are held against."""
    training, export, profiles = read_records(project)
    created = datetime.now(UTC).strftime("%Y-%m-%d")
    baseline = make_baseline(collect(training, export, profiles), fingerprint_of(profiles), reason, created)
    write_json(path, baseline, sort=True)
    console.say(f"baseline written: {path}")
    console.emit(baseline)
