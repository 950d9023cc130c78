"""The file that finds boxes: one that is named, or what a run deploys"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from kdedge.core import console
from kdedge.core.deployment import Precision
from kdedge.core.errors import KdedgeError, ModelError, nearest
from kdedge.core.report import ExportReport
from kdedge.core.rundir import read_record
from kdedge.engine.base import backend
from kdedge.pipeline.profile import library_of
from kdedge.pipeline.project import EXPORT, Project, reopen


@dataclass(frozen=True)
class Deployed:
    """An ONNX file or an engine, and the library that opens it."""

    path: Path
    name: str
    """Of the file; a run's begins with the run's."""
    library: str
    options: dict[str, Any] = field(default_factory=dict)


def chosen(model: Path | None, run: Path | None, precision: str | None) -> Deployed:
    """The file, or what a run, the newest one if none is named, deploys in fp32 or the precision given.

    Raises:
        KdedgeError: a file and a run, or a precision of a file.
    """
    if model is None:
        return of_run(reopen(run), precision or "fp32")
    if run is not None:
        raise KdedgeError("--model and --run", "each says what looks at the pictures", f"--run {run}")
    if precision is not None:
        raise KdedgeError("--model and --precision", "a file has its own", f"--model {model}, or --run RUN --precision")
    return of_file(model)


def of_file(path: Path) -> Deployed:
    """Raises ModelError when there is none."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder", "--model takes an ONNX file or an engine", f"--run {path}")
    if not path.is_file():
        raise ModelError(f"{path} is not there", "--model takes an ONNX file or an engine", f"ls {path.parent}")
    return Deployed(path, path.name, library_of(path))


def of_run(project: Project, precision: str) -> Deployed:
    """The engine of a run's student; its ONNX file where engines are left to a device, or do not run here.

    Raises:
        KdedgeError: a run of classifiers, one that is not exported, or not in this precision.
    """
    run = project.run
    if project.recipe.task != "detect":
        why = "its networks are classifiers, which find no boxes"
        raise KdedgeError(
            f"{run.path} has no detector", why, "kdedge detect IMAGE --run RUN   (of a recipe with task: detect)"
        )
    if EXPORT not in run.manifest.artifacts:
        raise KdedgeError(f"{run.path} is not exported", "", f"kdedge export {run.path}")
    export = read_record(run / EXPORT, ExportReport)
    known = [name for name in get_args(Precision) if name in export.onnx]
    if precision not in known:
        raise KdedgeError(f"--precision {precision}: {run.path} is not exported in it", nearest(precision, known))
    if precision in export.engines:
        obstacle = backend(export.backend).obstacle()
        if not obstacle:
            return part_of(project, export.engines[precision].path, export.backend, export.backend_options)
        console.warn(f"the engine does not run here ({obstacle}): its ONNX file is asked")
    return part_of(project, export.onnx[precision].path, "ort")


def part_of(project: Project, file: str, library: str, options: dict[str, Any] | None = None) -> Deployed:
    """Raises KdedgeError when the file is gone."""
    path = project.run / file
    if not path.is_file():
        raise KdedgeError(f"{path} is not there", "the run's export wrote it", f"kdedge export {project.run.path}")
    return Deployed(path, f"{project.run.path.name}/{file}", library, options or {})
