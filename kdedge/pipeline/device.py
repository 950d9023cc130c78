"""export/*.onnx -> devices/<device>/: engines built there, compared with their ONNX files, and measured"""

import re
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast, get_args

import numpy as np

from kdedge.core import console
from kdedge.core.deployment import Precision, Tolerance
from kdedge.core.device import DeviceReport
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import ExportedFile, ExportReport, Hop, TrainingReport
from kdedge.core.rundir import read_record, sha256_file, write_json
from kdedge.engine.base import backend
from kdedge.export.arrays import Arrays, read_arrays
from kdedge.export.onnx import OUTPUT
from kdedge.export.parity import LOWER, Logits, Predictions, refuse
from kdedge.export.referee import Referee
from kdedge.export.trace import INPUT
from kdedge.pipeline.profile import note_lightening, note_no_gain
from kdedge.pipeline.project import DEVICE, DEVICES, EXPORT, TRAINING, Project
from kdedge.pipeline.referees import referee_of
from kdedge.pipeline.show import show_hops
from kdedge.pipeline.show_profile import show_profiles
from kdedge.profile.measure import profile_model
from kdedge.profile.predict import predict
from kdedge.profile.targets import Target

EVAL = "arrays/eval.npz"
SLOWLY_ASKED = 128
"""Images for engines that can only be asked with trtexec, which is started for each batch."""
BATCH = 64
"""Images asked at a time, at most."""


def run_on(project: Project, target: Target) -> None:
    """Everything that a run exported; holds the run's lock and the device.

    Raises:
        ModelError: an engine loses more against its ONNX file than the recipe tolerates.
    """
    export = read_record(project.run / EXPORT, ExportReport)
    with project.run.locked(), target:
        device = target.describe(export.backend)
        training = read_record(project.run / TRAINING, TrainingReport)
        work = OnDevice(project, export, training.labels, target, device)
        profiles = {name: work.measure(name) for name in export.onnx}
        precisions = [name for name in get_args(Precision) if name in profiles]
        note_no_gain([profiles[name] for name in precisions])
        note_lightening(profiles, export, export.deployed(training.student).macs)
        for name, profile in profiles.items():
            work.keep(f"profile/{name}.json", profile)
        report = DeviceReport(
            device=device,
            backend=export.backend,
            onnx=export.hashes(),
            engines=work.engines,
            hops=work.hops,
            profiles=sorted(profiles),
        )
        work.keep(DEVICE, report)
        project.run.record(work.folder, project.key("profile"), work.artifacts)
    show_hops(f"{device_name(device)}: {export.backend}", work.hops)
    for note in dict.fromkeys(note for hop in work.hops for note in hop.notes):
        console.say(note)
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

    def __init__(
        self, project: Project, export: ExportReport, labels: list[str], target: Target, device: dict[str, Any]
    ) -> None:
        self.project, self.export, self.target = project, export, target
        self.fp32, self.labels = project.run / export.onnx["fp32"].path, labels
        self.run, self.spec, self.options = project.run, project.recipe.profile, export.backend_options
        self.folder = f"{DEVICES}/{slug(device)}"
        self.most = SLOWLY_ASKED if "trtexec" in device["match"] else None
        self.engines: dict[str, ExportedFile] = {}
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
        made = [f"{self.folder}/engine/{file}" for file in (engine.name, f"{engine.name}.json")]
        self.engines[name] = ExportedFile(path=made[0], bytes=engine.stat().st_size, sha256=sha256_file(engine))
        self.artifacts += made
        return engine

    def compare(self, precision: str, engine: Path) -> Hop:
        """With what the ONNX file predicts here, on the same test images."""
        reference, count = f"onnx-{precision}", len(self.arrays.ids)
        found = Predictions(self.arrays.ids, self.ask(engine))
        name = f"predictions/engine-{precision}.npz"
        found.save(self.path(name))
        self.artifacts.append(f"{self.folder}/{name}")
        whole = Predictions.load(self.run / f"predictions/{reference}.npz")
        before = Predictions(whole.ids[:count], whole.outputs[:count])
        limit: Tolerance = self.project.recipe.export.tolerance.fp32 if precision == "fp32" else LOWER
        hop = self.referee.compare(f"engine-{precision}", found, before, self.arrays, limit, reference)
        if count < len(whole.ids):
            asked = f"{count} of {len(whole.ids)} test images"
            hop.notes.append(f"engines were compared on {asked}, as trtexec starts anew for each batch")
        return hop

    def ask(self, engine: Path) -> Logits:
        """What is kept of the answers to `arrays`."""
        with TemporaryDirectory(prefix="kdedge-") as folder:
            path = self.run / EVAL
            if self.most:
                path = Path(folder, "images.npz")
                np.savez(path, **cast("Any", {INPUT: self.arrays.images}))
            library, batch = self.export.backend, min(BATCH, self.referee.batch)
            answer = predict(self.target, library, engine, path, self.options, batch, self.referee.decoding)
        return answer["boxes" if self.referee.decoding else OUTPUT]

    @cached_property
    def referee(self) -> Referee:
        return referee_of(self.project.recipe.task, self.fp32, self.labels)

    @cached_property
    def arrays(self) -> Arrays:
        """All test images, or as many as are asked of what is slow to ask."""
        return read_arrays(self.run / EVAL).first(self.most)

    def keep(self, name: str, record: Any) -> None:
        write_json(self.path(name), record)
        self.artifacts.append(f"{self.folder}/{name}")

    def path(self, name: str) -> Path:
        path = self.run / self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
