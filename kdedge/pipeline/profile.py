"""export.json and engine/* -> profile/<precision>.json; or any ONNX model or engine on its own"""

from pathlib import Path
from typing import Any, get_args

from kdedge.core import console
from kdedge.core.deployment import Precision, Profile
from kdedge.core.errors import ModelError
from kdedge.core.report import ExportReport, ProfileReport, TrainingReport
from kdedge.core.rundir import read_record, write_json
from kdedge.export.onnx import INPUT
from kdedge.pipeline.project import EXPORT, TRAINING, Project
from kdedge.pipeline.show import show_profiles
from kdedge.profile.measure import parse_shapes, profile_model
from kdedge.profile.targets import LocalTarget, Target


def run(project: Project) -> list[str]:
    """Measure every engine of a run, each in fresh processes; returns the artifacts."""
    export = read_record(project.run / EXPORT, ExportReport)
    recipe = project.recipe.export
    training = read_record(project.run / TRAINING, TrainingReport)
    precisions = [name for name in get_args(Precision) if name in export.engines]
    reports = {
        name: profile_model(
            project.run / engine.path,
            export.backend,
            project.recipe.profile,
            name=name,
            precision=name if name in precisions else "fp32",
            shapes={INPUT: (project.recipe.profile.batch, *export.input_shape)},
            options=recipe.backend_options if recipe.backend == export.backend else {},
            target=LocalTarget(),
        )
        for name, engine in export.engines.items()
    }
    note_no_gain([reports[precision] for precision in precisions])
    note_lightening(reports, export, export.deployed(training.student).macs)
    for name, report in reports.items():
        write_json(project.run / f"profile/{name}.json", report)
    show_profiles(list(reports.values()))
    return [f"profile/{name}.json" for name in reports]


def note_no_gain(reports: list[ProfileReport]) -> None:
    """Say of each lower precision that is not faster than fp32 on this machine that it is not."""
    fp32 = next(report for report in reports if report.name == "fp32").latency.median
    for report in reports:
        if report.name != "fp32" and report.latency.median >= fp32:
            report.notes.append(f"not faster than fp32 here: {report.latency.median:.3f} against {fp32:.3f} ms")


def note_lightening(reports: dict[str, ProfileReport], export: ExportReport, macs: int) -> None:
    """Say of a lightened student what its fewer MACs bought in time: nothing, little, or what they promise."""
    if not export.original or "fp32" not in reports:
        return
    fewer = export.original.macs / macs
    faster = reports[export.original.name].latency.median / reports["fp32"].latency.median
    bought = "fewer MACs bought no time here"
    if faster > 1:
        bought = f"{faster:.1f} times as fast"
        bought += ", less than half of what the MACs promise" if faster < fewer / 2 else ""
    reports["fp32"].notes.append(f"{fewer:.1f} times fewer MACs than the original {export.original.model}: {bought}")


def profile_file(path: Path, changes: dict[str, Any], shapes: list[str], target: Target) -> None:
    """Measure an ONNX model or an engine that belongs to no run; prints, writes nothing."""
    if not path.is_file():
        raise ModelError(f"{path} is not there", "neither a run's folder nor a model", "kdedge profile MODEL.onnx")
    with target:
        report = profile_model(
            path,
            "ort",
            Profile().model_copy(update=changes),
            name=path.stem,
            shapes=parse_shapes(shapes),
            precision=None,
            options={},
            target=target,
        )
    show_profiles([report])
    console.emit(report)
