"""training.json, export.json, profile/*.json -> gate.json, gate.md, gate.xml"""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from kdedge.core import console
from kdedge.core.device import DeviceReport
from kdedge.core.errors import Incomparable, KdedgeError
from kdedge.core.gating import Baseline, Snapshot
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import Check, ExportReport, GateResult, TrainingReport
from kdedge.core.rundir import read_record, write_json, write_text
from kdedge.gate.baseline import held, load_baseline, make_baseline, save_baseline
from kdedge.gate.metrics import snapshot
from kdedge.gate.render import junit, markdown
from kdedge.gate.rules import decide, worst
from kdedge.pipeline.project import DEVICE, DEVICES, EXPORT, GATE, TRAINING, Project
from kdedge.pipeline.show import show_gate


def run(project: Project) -> list[str]:
    """Decide; a failure is for the caller to act on, after it has been recorded."""
    result = hold_against(project, snapshot(*read_records(project)))
    write_json(project.run / GATE, result)
    write_text(project.run / "gate.md", markdown(result))
    write_text(project.run / "gate.xml", junit(result))
    show_gate(result)
    return [GATE, "gate.md", "gate.xml"]


def hold_against(project: Project, found: Snapshot) -> GateResult:
    """Without the baseline that is named nothing passes, but what can be said without it is said."""
    try:
        known = read_baseline(project)
    except Incomparable as error:
        result = decide(found, project.recipe.gate, None)
        warnings = [*result.warnings, str(error)]
        return result.model_copy(update={"verdict": worst((result.verdict, "insufficient")), "warnings": warnings})
    return decide(found, project.recipe.gate, known)


def read_baseline(project: Project) -> Baseline | None:
    """None where the recipe names none.  Its errors go into files, and so tell no place on this machine."""
    path = project.baseline()
    return load_baseline(path, shown_path(path, project.folder)) if path else None


def shown_path(path: Path, folder: Path) -> str:
    """Relative to here or to the recipe; of a file elsewhere the name."""
    path = path.absolute()
    beside = next((place for place in (Path.cwd(), folder.absolute()) if path.is_relative_to(place)), path.parent)
    return str(path.relative_to(beside))


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
    """Take the run's numbers as the ones later runs are held against; what was there goes into the history.

    Raises:
        KdedgeError: what is there cannot be read, and would be lost.
    """
    found = snapshot(*read_records(project))
    created = datetime.now(UTC).strftime("%Y-%m-%d")
    with held(path):
        before = read_baseline(project) if path.exists() else None
        accepted = worse_than(before, found, project) if before else []
        tool = {"kdedge": version("kdedge")}
        baseline = make_baseline(found, reason, created, before, {check.metric for check in accepted}, tool)
        save_baseline(path, baseline)
    console.say(f"baseline written: {shown_path(path, project.folder)}")
    for check in accepted:
        console.say(f"accepted though worse: {check.metric}, {check.reason}")
    console.emit(baseline)


def worse_than(before: Baseline, found: Snapshot, project: Project) -> list[Check]:
    """What the gate would call a regression against the baseline."""
    checks = decide(found, project.recipe.gate, before).checks
    return [check for check in checks if check.baseline is not None and check.verdict == "regression"]
