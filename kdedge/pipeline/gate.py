"""training.json, export.json, profile/*.json -> gate.json, gate.md, gate.xml"""

from datetime import UTC, datetime
from pathlib import Path

from kdedge.core import console
from kdedge.core.report import ExportReport, GateResult, ProfileReport, TrainingReport
from kdedge.core.rundir import write_json, write_text
from kdedge.gate.baseline import fingerprint_of, load_baseline, make_baseline
from kdedge.gate.render import junit, markdown
from kdedge.gate.rules import collect, decide
from kdedge.pipeline.project import EXPORT, GATE, TRAINING, Project
from kdedge.pipeline.show import show_gate


def run(project: Project) -> list[str]:
    """Decide; a failure is for the caller to act on, after it has been recorded."""
    training, export, profiles = read_records(project)
    baseline = project.baseline()
    metrics = collect(training, export, profiles)
    known = load_baseline(baseline) if baseline else None
    result = decide(metrics, project.recipe.gate, known, fingerprint_of(profiles))
    write_json(project.run / GATE, result)
    write_text(project.run / "gate.md", markdown(result))
    write_text(project.run / "gate.xml", junit(result))
    show_gate(result)
    console.emit(result)
    return [GATE, "gate.md", "gate.xml"]


def read_result(project: Project) -> GateResult:
    return GateResult.model_validate_json((project.run / GATE).read_text(encoding="utf-8"))


def read_records(project: Project) -> tuple[TrainingReport, ExportReport, list[ProfileReport]]:
    def text(name: str) -> str:
        project.run.sha256(name)  # says what to run when it is not there
        return (project.run / name).read_text(encoding="utf-8")

    profiles = [ProfileReport.model_validate_json(text(name)) for name in project.profiles()]
    return TrainingReport.model_validate_json(text(TRAINING)), ExportReport.model_validate_json(text(EXPORT)), profiles


def update_baseline(project: Project, path: Path, reason: str) -> None:
    """Take the run's numbers as the ones later runs are held against."""
    training, export, profiles = read_records(project)
    created = datetime.now(UTC).strftime("%Y-%m-%d")
    write_json(path, make_baseline(collect(training, export, profiles), fingerprint_of(profiles), reason, created))
    console.say(f"baseline written: {path}")
