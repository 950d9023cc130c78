"""A run's cascades of early exits: as they were exported here, or built anew on a device."""

from typing import NamedTuple

from kdedge.core.errors import KdedgeError, nearest
from kdedge.core.report import ExportReport
from kdedge.core.rundir import write_json
from kdedge.engine.base import backend
from kdedge.engine.cascade import cascade_record, read_cascade
from kdedge.pipeline.device import slug
from kdedge.pipeline.project import DEVICES, Project
from kdedge.profile.targets import LocalTarget, Target


def cascade_name(precision: str) -> str:
    return f"engine/cascade.{precision}.json"


class Place(NamedTuple):
    """Where the cascade runs, and what of it is kept under which folder of the run."""

    target: Target
    folder: str
    """Empty, or ends with a slash."""
    command: str
    """What the run remembers it by."""
    made: list[str]


def place_of(project: Project, export: ExportReport, precision: str, target: Target) -> Place:
    """Raises KdedgeError for a precision that was not exported with exits, or has no engines here."""
    known = [name for name in export.onnx if (project.run / cascade_name(name)).is_file()]
    if precision not in known:
        raise KdedgeError(f"--precision {precision}: not exported with exits", nearest(precision, known))
    return here(project, export) if isinstance(target, LocalTarget) else there(project, export, precision, target)


def here(project: Project, export: ExportReport) -> Place:
    if not export.engines:
        raise KdedgeError(
            f"{project.run.path} has no engines", "its export leaves them to the device that will run them",
            f"kdedge exits {project.run.path} --target ssh://user@board",
        )  # fmt: skip
    known = project.run.manifest.artifacts
    return Place(LocalTarget(), "", "exits", [name for each in export.onnx if (name := cascade_name(each)) in known])


def there(project: Project, export: ExportReport, precision: str, target: Target) -> Place:
    """With the engine of each stage built on the device, from the same ONNX file as here."""
    board = slug(target.describe(export.backend))
    folder, name = f"{DEVICES}/{board}/", cascade_name(precision)
    cascade, made = project.run / f"{folder}{name}", [f"{folder}{name}"]
    stages = read_cascade(project.run / name).stages
    for stage in stages:
        onnx = stage.model.removesuffix(backend(export.backend).suffix) + ".onnx"
        files = {"onnx": str(project.run / f"export/{onnx}"), "out": str(cascade.with_name(stage.model))}
        target.run({"mode": "build", "backend": export.backend, "options": export.backend_options, **files})
        made += [f"{folder}engine/{stage.model}", f"{folder}engine/{stage.model}.json"]
    write_json(cascade, cascade_record(precision, export.backend, export.backend_options, stages))
    return Place(target, folder, f"exits on {board}", made)
