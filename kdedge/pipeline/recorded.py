"""What was answered and measured of a run as it is exported now, for its report; what an earlier export left is not."""

from pathlib import Path
from typing import get_args

import numpy as np

from kdedge.core.deployment import Precision
from kdedge.core.device import DeviceReport
from kdedge.core.paired import AgainstReport
from kdedge.core.profiling import LayersReport, ProfileReport
from kdedge.core.recipe import Normalize
from kdedge.core.report import ExportReport, TrainingReport
from kdedge.core.rundir import read_record
from kdedge.export.arrays import Arrays, read_arrays
from kdedge.export.footprint import footprint
from kdedge.export.onnx import read_metadata
from kdedge.export.parity import Logits, Predictions
from kdedge.pipeline.device import EVAL
from kdedge.pipeline.project import DEVICE, DEVICES, Project
from kdedge.report.answers import Asked
from kdedge.report.devices import Measured, board
from kdedge.report.layers import LayersView

AGAINST = "against.json"
OTHERS = {"teacher": "teacher", "labels alone": "baseline"}
"""Networks that the student is compared with, by whose predictions are kept under which name."""


def asked(project: Project, training: TrainingReport, export: ExportReport) -> Asked | None:
    """The test images with every answer to them; None where the run has no answers of the exported student."""
    run, known = project.run, project.run.manifest.artifacts
    if EVAL not in known or not (run / EVAL).is_file():
        return None
    arrays = read_arrays(run / EVAL)
    hops = [hop.name for precision in get_args(Precision) if (hop := export.hop(precision))]
    deployed = {hop: rows for hop in hops if (rows := answers(project, hop, arrays)) is not None}
    if not deployed:
        return None
    others = {who: rows for who, name in OTHERS.items() if (rows := answers(project, name, arrays)) is not None}
    normalized = arrays.images.dtype != np.uint8
    made = read_metadata(run / next(iter(export.onnx.values())).path) if normalized else {}
    return Asked(
        images=arrays.images,
        normalize=Normalize.model_validate(made["normalize"]) if normalized else None,
        labels=arrays.labels,
        ids=arrays.ids,
        names=training.labels,
        deployed=deployed,
        others=others,
    )


def answers(project: Project, name: str, arrays: Arrays) -> Logits | None:
    """One network's, in the order of the images; None where they are not kept, or not of all of the images."""
    file = f"predictions/{name}.npz"
    if file not in project.run.manifest.artifacts:
        return None
    found = Predictions.load(project.run / file)
    places = {image: place for place, image in enumerate(found.ids.tolist())}
    wanted = [places.get(image, -1) for image in arrays.ids.tolist()]
    return None if -1 in wanted else found.outputs[wanted]


def layers(project: Project, export: ExportReport) -> list[LayersView]:
    """Of every precision, and of other networks where their layers were timed."""
    batch, found = project.recipe.profile.batch, []
    for name, file in export.onnx.items():
        times = layer_times(project, export, name)
        if times or name in get_args(Precision):
            found.append(LayersView(name, footprint(project.run / file.path, batch), times))
    return found


def layer_times(project: Project, export: ExportReport, name: str) -> LayersReport | None:
    path, engine = f"profile/layers-{name}.json", export.engines.get(name)
    if engine is None or path not in project.run.manifest.artifacts:
        return None
    report = read_record(project.run / path, LayersReport)
    return report if report.model_sha256 == engine.sha256 else None


def against(project: Project, export: ExportReport) -> AgainstReport | None:
    """The last gate by paired measurement."""
    if AGAINST not in project.run.manifest.artifacts:
        return None
    report = read_record(project.run / AGAINST, AgainstReport)
    return report if report.onnx.items() <= export.hashes().items() and report.onnx else None


def devices(project: Project, export: ExportReport) -> tuple[list[Measured], list[str]]:
    """Every board that measured this export; and the names of those that measured an earlier one."""
    found, earlier = [], []
    for name, entry in project.run.manifest.commands.items():
        if not name.startswith(f"{DEVICES}/"):
            continue
        report = read_record(project.run / name / DEVICE, DeviceReport)
        if report.onnx != export.hashes():
            earlier.append(Path(name).name)
            continue
        paths = [path for path in entry.artifacts if path.startswith(f"{name}/profile/")]
        found.append(board(report, [read_record(project.run / path, ProfileReport) for path in paths]))
    return found, earlier
