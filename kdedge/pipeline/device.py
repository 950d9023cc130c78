"""export/*.onnx -> devices/<device>/: engines built there, compared with their ONNX files, and measured"""

import re
from pathlib import Path
from typing import Any, get_args

from kdedge.core import console
from kdedge.core.deployment import Precision, Tolerance
from kdedge.core.device import DeviceReport
from kdedge.core.report import ExportReport, Hop, ProfileReport, TrainingReport
from kdedge.core.rundir import read_record, write_json
from kdedge.engine.base import backend
from kdedge.export.arrays import read_arrays
from kdedge.export.onnx import INPUT, OUTPUT
from kdedge.export.parity import LOWER, Predictions, compare, refuse
from kdedge.pipeline.profile import note_lightening, note_no_gain
from kdedge.pipeline.project import EXPORT, TRAINING, Project
from kdedge.pipeline.show import show_hops, show_profiles
from kdedge.profile.measure import profile_model
from kdedge.profile.predict import predict
from kdedge.profile.targets import Target

DEVICE = "device.json"


def run_on(project: Project, target: Target) -> None:
    """Everything that a run exported; holds the run's lock and the device.

    Raises:
        ModelError: an engine loses more against its ONNX file than the recipe tolerates.
    """
    export = read_record(project.run / EXPORT, ExportReport)
    with project.run.locked(), target:
        device = target.describe(export.backend)
        work = OnDevice(project, export, target, f"devices/{slug(device)}")
        profiles = {name: work.measure(name) for name in export.onnx}
        precisions = [name for name in get_args(Precision) if name in profiles]
        training = read_record(project.run / TRAINING, TrainingReport)
        note_no_gain([profiles[name] for name in precisions])
        note_lightening(profiles, export, export.deployed(training.student).macs)
        for name, profile in profiles.items():
            work.keep(f"profile/{name}.json", profile)
        report = DeviceReport(device=device, backend=export.backend, hops=work.hops, profiles=sorted(profiles))
        work.keep(DEVICE, report)
        project.run.record(work.folder, project.key("profile"), work.artifacts)
    show_hops(f"{device_name(device)}: {export.backend}", work.hops)
    show_profiles(list(profiles.values()))
    console.emit({"device": report, "profiles": list(profiles.values())})
    refuse(work.hops)


def device_name(device: dict[str, Any]) -> str:
    """Of the board; of the CPU where there is no board."""
    return str(device["match"].get("board") or device["match"]["cpu"])


def slug(device: dict[str, Any]) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


class OnDevice:
    """One run's models on one device; `folder` is relative to the run's."""

    def __init__(self, project: Project, export: ExportReport, target: Target, folder: str) -> None:
        self.project, self.export, self.target, self.folder = project, export, target, folder
        self.run, self.spec = project.run, project.recipe.profile
        own = project.recipe.export
        self.options = own.backend_options if own.backend == export.backend else {}
        self.hops: list[Hop] = []
        self.artifacts: list[str] = []

    def measure(self, name: str) -> ProfileReport:
        engine = self.build(name)
        if name in get_args(Precision):
            self.hops.append(self.compare(name, engine))
        return profile_model(
            engine,
            self.export.backend,
            self.spec,
            name=name,
            precision=name if name in get_args(Precision) else "fp32",
            shapes={INPUT: (self.spec.batch, *self.export.input_shape)},
            options=self.options,
            target=self.target,
        )

    def build(self, name: str) -> Path:
        """From the same ONNX file as here; an engine is bound to the machine that built it."""
        onnx = self.run / self.export.onnx[name].path
        suffix = backend(self.export.backend).suffix
        engine = self.path(f"engine/{onnx.name.removesuffix('.onnx')}{suffix}")
        request = {"onnx": str(onnx), "out": str(engine), "options": self.options}
        self.target.run({"mode": "build", "backend": self.export.backend, **request})
        self.artifacts += [f"{self.folder}/engine/{made}" for made in (engine.name, f"{engine.name}.json")]
        return engine

    def compare(self, precision: str, engine: Path) -> Hop:
        """With what the ONNX file predicts here, on the same test images."""
        path = self.run / "arrays/eval.npz"
        answer, images = predict(self.target, self.export.backend, engine, path, self.options), read_arrays(path)
        found, name = Predictions(images.ids, answer[OUTPUT]), f"predictions/engine-{precision}.npz"
        found.save(self.path(name))
        self.artifacts.append(f"{self.folder}/{name}")
        before = Predictions.load(self.run / f"predictions/onnx-{precision}.npz")
        limit: Tolerance = self.project.recipe.export.tolerance.fp32 if precision == "fp32" else LOWER
        reference = f"onnx-{precision}"
        return compare(f"engine-{precision}", found, before, images.labels, limit, reference_name=reference)

    def keep(self, name: str, record: Any) -> None:
        write_json(self.path(name), record)
        self.artifacts.append(f"{self.folder}/{name}")

    def path(self, name: str) -> Path:
        path = self.run / self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
