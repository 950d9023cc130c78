"""A run's engines, or any model, looked at closer than their latency: a sweep over batches and streams, or layers"""

import abc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdedge.core import console
from kdedge.core.deployment import Profile
from kdedge.core.errors import KdedgeError
from kdedge.core.profiling import LayersReport, SweepReport
from kdedge.core.report import ExportReport
from kdedge.core.rundir import read_record, write_json
from kdedge.engine.base import backend
from kdedge.export.trace import INPUT
from kdedge.pipeline.device import slug
from kdedge.pipeline.profile import library_of, opened_by, read_engines
from kdedge.pipeline.project import DEVICES, EXPORT, Project
from kdedge.pipeline.show_profile import show_layers, show_sweeps
from kdedge.profile.layer_costs import profile_layers
from kdedge.profile.measure import Model, Shapes, parse_shapes
from kdedge.profile.sweep import Axes, parse_counts, sweep_model
from kdedge.profile.targets import LocalTarget, Target


class Look(abc.ABC):
    """What is measured; `kind` begins the names of its files."""

    kind: str

    def largest(self, batch: int) -> int:
        """Of the batches that are measured, where the profile has `batch`."""
        return batch

    @abc.abstractmethod
    def measure(self, model: Model, spec: Profile, target: Target) -> SweepReport | LayersReport: ...

    @abc.abstractmethod
    def show(self, reports: Any) -> None: ...


@dataclass(frozen=True)
class Sweep(Look):
    axes: Axes
    kind = "sweep"

    def largest(self, batch: int) -> int:
        return max(self.axes.batches, default=batch)

    def measure(self, model: Model, spec: Profile, target: Target) -> SweepReport:
        return sweep_model(model, spec, self.axes, target)

    def show(self, reports: list[SweepReport]) -> None:
        show_sweeps(reports)


class Layers(Look):
    kind = "layers"

    def measure(self, model: Model, spec: Profile, target: Target) -> LayersReport:
        return profile_layers(model, spec, target)

    def show(self, reports: list[LayersReport]) -> None:
        show_layers(reports)


def asked(*, layers: bool, batches: str | None, streams: str | None, energy: bool, batch: int | None) -> Look:
    """What the options of `kdedge profile` ask for.

    Raises:
        KdedgeError: two things at once, or a list that is none.
    """
    chosen = {"--layers": layers, "--batches": batches, "--streams": streams, "--energy": energy}
    names = [name for name, value in chosen.items() if value not in (None, False)]
    if len(names) > 1 and names != ["--batches", "--streams"]:
        raise KdedgeError(" and ".join(names), "each is measured by itself", f"kdedge profile {names[0]}")
    if batches is not None and batch:
        raise KdedgeError("--batch and --batches", "the list takes the place of the one", f"--batches {batches}")
    if layers:
        return Layers()
    counts = {"batches": batches, "streams": streams}
    return Sweep(Axes(**{name: parse_counts(f"--{name}", text) for name, text in counts.items() if text is not None}))


def look_at_run(project: Project, look: Look, target: Target) -> None:
    """Every engine of a run, on a device built anew; the records lie in the profile folder of the run or the device."""
    with project.run.locked(), target:
        local = isinstance(target, LocalTarget)
        export = read_engines(project) if local else read_record(project.run / EXPORT, ExportReport)
        device = "" if local else slug(target.describe(export.backend))
        folder = Path(DEVICES, device) if device else Path()
        reports, artifacts = [], []
        with engines_here(project, export) if local else engines_there(project, export, target) as models:
            for model in models:
                reports.append(look.measure(model, project.recipe.profile, target))
                artifacts.append(str(folder / f"profile/{look.kind}-{model.name}.json"))
                write_json(project.run / artifacts[-1], reports[-1])
        project.run.record(f"{look.kind} on {device}" if device else look.kind, project.key("profile"), artifacts)
    look.show(reports)
    console.emit([report.model_dump(mode="json") for report in reports])


@contextmanager
def engines_here(project: Project, export: ExportReport) -> Iterator[Iterator[Model]]:
    yield (model_of(project, export, name, project.run / engine.path) for name, engine in export.engines.items())


@contextmanager
def engines_there(project: Project, export: ExportReport, target: Target) -> Iterator[Iterator[Model]]:
    """Built for this alone: those that the run keeps of a device are the ones that were compared and measured."""
    with TemporaryDirectory(prefix="kdedge-") as folder:
        yield (build(project, export, name, Path(folder), target) for name in export.onnx)


def build(project: Project, export: ExportReport, name: str, folder: Path, target: Target) -> Model:
    engine = folder / f"{name}{backend(export.backend).suffix}"
    files = {"onnx": str(project.run / export.onnx[name].path), "out": str(engine)}
    target.run({"mode": "build", "backend": export.backend, "options": export.backend_options, **files})
    return model_of(project, export, name, engine)


def model_of(project: Project, export: ExportReport, name: str, engine: Path) -> Model:
    onnx = project.run / export.onnx[name].path
    shapes: Shapes = {INPUT: (project.recipe.profile.batch, *export.input_shape)}
    return Model(name, engine, onnx, export.backend, shapes, export.backend_options)


def look_at_file(
    path: Path, look: Look, changes: dict[str, Any], shapes: list[str], target: Target, library: str | None = None
) -> None:
    """An ONNX model or an engine that belongs to no run; prints, writes nothing."""
    library = library_of(path, library)
    onnx = None if path.name.endswith(backend(library).suffix) else path
    with target, opened_by(library, path, target, look.largest(changes.get("batch", 1))) as opened:
        model = Model(path.stem, opened, onnx, library, parse_shapes(shapes), {})
        report = look.measure(model, Profile().model_copy(update=changes), target)
    look.show([report])
    console.emit(report)
