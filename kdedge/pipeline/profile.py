"""export.json and engine/* -> profile/<precision>.json; or any ONNX model or engine on its own"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from kdedge.core import console
from kdedge.core.deployment import Precision, Profile
from kdedge.core.errors import KdedgeError, ModelError
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import ExportReport, TrainingReport
from kdedge.core.rundir import read_record, write_json
from kdedge.engine.base import backend
from kdedge.engine.ort import PROVIDERS
from kdedge.export.layout import kind_of_cpu
from kdedge.export.trace import INPUT
from kdedge.pipeline.project import EXPORT, TRAINING, Project
from kdedge.pipeline.show_profile import show_profiles
from kdedge.profile.measure import parse_shapes, profile_model
from kdedge.profile.targets import LocalTarget, Target


def run(project: Project) -> list[str]:
    """Measure every engine of a run, each in fresh processes; returns the artifacts."""
    export = read_engines(project)
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
            options=export.backend_options,
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


def read_engines(project: Project) -> ExportReport:
    """What a run exported.

    Raises:
        KdedgeError: no engine that runs here.
    """
    export = read_record(project.run / EXPORT, ExportReport)
    if not export.engines:
        raise KdedgeError(
            f"{project.run.path} has no engines", "its export leaves them to the device that will run them",
            f"kdedge profile {project.run.path} --target ssh://user@board",
        )  # fmt: skip
    return export


def note_no_gain(reports: list[ProfileReport]) -> None:
    """Say of each lower precision that is not faster than fp32 on this machine that it is not."""
    fp32 = next(report for report in reports if report.name == "fp32").latency.median
    for report in reports:
        if report.name != "fp32" and report.latency.median >= fp32:
            slow = f"not faster than fp32 here: {report.latency.median:.3f} against {fp32:.3f} ms"
            report.notes.append("; ".join([slow, *why_no_gain(report)]))


def why_no_gain(report: ProfileReport) -> list[str]:
    """What is known of why a lower precision gains nothing."""
    built, whole = report.precision_built, sum(report.precision_built.values())
    found = []
    if built and 2 * built.get(report.name, 0) < whole:
        found.append(f"{built.get(report.name, 0)} of its {whole} nodes compute in {report.name}")
    cpu = report.device.get("match", {})
    known = report.name == "int8" and report.provider == PROVIDERS[0] and "instruction_sets" in cpu
    if known and kind_of_cpu(cpu["arch"], cpu["instruction_sets"]) == "x86":
        found.append("this CPU has no VNNI, which int8 is fast by")
    return found


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


def profile_file(
    path: Path, changes: dict[str, Any], shapes: list[str], target: Target, library: str | None = None
) -> None:
    """Measure an ONNX model or an engine that belongs to no run; prints, writes nothing."""
    library = library_of(path, library)
    with target, opened_by(library, path, target, changes.get("batch", 1)) as model:
        report = profile_model(
            model,
            library,
            Profile().model_copy(update=changes),
            name=path.stem,
            shapes=parse_shapes(shapes),
            precision=None,
            options={},
            target=target,
        )
    show_profiles([report])
    console.emit(report)


def library_of(path: Path, asked: str | None = None) -> str:
    """The backend for a file that belongs to no run: the one that is asked for, or the one that opens it.

    Raises:
        ModelError: it is no file.
        KdedgeError: there is no such backend.
    """
    if not path.is_file():
        raise ModelError(f"{path} is not there", "neither a run's folder nor a model", "kdedge profile MODEL.onnx")
    return backend(asked).name if asked else "trt" if path.name.endswith(backend("trt").suffix) else "ort"


@contextmanager
def opened_by(library: str, path: Path, target: Target, batch: int) -> Iterator[Path]:
    """The file as it is; of an ONNX file for TensorRT, which opens engines only, one built on the target for this."""
    suffix = backend(library).suffix
    if library != "trt" or path.name.endswith(suffix):
        yield path
        return
    with TemporaryDirectory(prefix="kdedge-") as folder:
        engine = Path(folder, f"{path.stem}{suffix}")
        options = {"opt_batch": batch, "max_batch": max(batch, backend(library).defaults["max_batch"])}
        files = {"onnx": str(path), "out": str(engine)}
        target.run({"mode": "build", "backend": library, "options": options, **files})
        yield engine
