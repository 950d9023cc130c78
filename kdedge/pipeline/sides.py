"""The two that a gate measures in turns: a run, and another run, an ONNX file, or a run kept under a commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from kdedge.core.deployment import Precision
from kdedge.core.errors import KdedgeError
from kdedge.core.report import ExportReport, Metric, TrainingReport
from kdedge.core.rundir import read_record
from kdedge.engine.base import backend
from kdedge.export.arrays import read_labels
from kdedge.export.trace import INPUT
from kdedge.gate.metrics import cost, sizes
from kdedge.pipeline.device import EVAL
from kdedge.pipeline.kept import kept_run, shown
from kdedge.pipeline.project import EXPORT, RECIPE, TRAINING, Project, reopen
from kdedge.profile.measure import Model, Shapes
from kdedge.profile.targets import LocalTarget, Target


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
            engine = folder / f"{onnx.stem}{backend(self.backend).suffix}"
            files = {"onnx": str(onnx), "out": str(engine)}
            target.run({"mode": "build", "backend": self.backend, "options": self.options, **files})
        return Model(precision, engine, onnx, self.backend, self.shapes, self.options)


def side_of(project: Project) -> Side:
    """What a run exported."""
    run = project.run
    export = read_record(run / EXPORT, ExportReport)
    onnx = {name: run / export.onnx[name].path for name in get_args(Precision) if name in export.onnx}
    student = export.deployed(read_record(run / TRAINING, TrainingReport).student)
    engines = {name: run / engine.path for name, engine in export.engines.items()}
    return Side(
        name=run.path.name,
        onnx=onnx,
        backend=export.backend,
        options=export.backend_options,
        shapes={INPUT: (project.recipe.profile.batch, *export.input_shape)},
        engines={name: engine for name, engine in engines.items() if engine.is_file()},
        metrics=sizes(student) | onnx_bytes(onnx),
        run=project,
    )


@contextmanager
def other_side(text: str, new: Side, shapes: Shapes) -> Iterator[Side]:
    """What `--against` names: by its path where there is such a file or folder, else by a revision of git.

    Raises:
        KdedgeError: it is neither; or shapes are given for a run, which has its own.
        Incomparable: the revision has no kept run of the recipe.
    """
    path = Path(text)
    if path.exists() and not (path / RECIPE).is_file():
        yield file_side(path, new, shapes)
        return
    if shapes:
        raise KdedgeError("--shape", f"{text} is a run, whose shape is known", f"kdedge gate RUN --against {text}")
    if path.exists():
        yield side_of(reopen(path))
        return
    if path.suffix == ".onnx" or new.run is None:
        raise KdedgeError(f"--against {text}", "there is no such file", "kdedge gate RUN --against MODEL.onnx")
    with kept_run(text, new.run.recipe.name) as (commit, folder):
        yield replace(side_of(reopen(folder)), name=shown(text, commit))


def file_side(path: Path, new: Side, shapes: Shapes) -> Side:
    """An ONNX file, or a folder with one, which is deployed as the run is.

    Raises:
        KdedgeError: it is neither.
    """
    found = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    if len(found) != 1 or found[0].suffix != ".onnx":
        why = f"it holds {len(found)} ONNX files" if path.is_dir() else "neither a run's folder nor an ONNX file"
        raise KdedgeError(f"--against {path}", why, "kdedge gate RUN --against OTHER_RUN, or --against MODEL.onnx")
    precision = next((name for name in get_args(Precision) if found[0].stem.endswith(f".{name}")), "fp32")
    onnx = {precision: found[0]}
    return Side(found[0].name, onnx, new.backend, new.options, shapes, metrics=onnx_bytes(onnx))


def pictures(project: Project) -> list[Any] | None:
    """What tells whether two detectors were shown the same test pictures: ids, and the classes of their objects.

    Boxes do not, since they are in pixels of what the model sees.  None where the run has no such file.
    """
    path = project.run / EVAL
    if not path.is_file():
        return None
    known = read_labels(path)
    return [known.ids.tolist(), known.labels[..., 0].tolist()]


def onnx_bytes(onnx: dict[str, Path]) -> dict[str, Metric]:
    return {f"{name}/onnx_bytes": cost(path.stat().st_size, "bytes") for name, path in onnx.items()}
