"""One cell of the grid: a network, how its convolutions are made, how it is trained, and a seed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kdedge.core.deployment import Export
from kdedge.core.load import load_recipe
from kdedge.core.report import TrainingReport
from kdedge.core.rundir import read_record, write_json
from kdedge.core.stats import classify
from kdedge.data.build import build_data
from kdedge.data.loader import Normalizer, eval_batches
from kdedge.data.sets import Dataset
from kdedge.distill.logs import read_rows
from kdedge.engine.base import backend
from kdedge.export.int8 import to_int8
from kdedge.export.onnx import export_onnx
from kdedge.models.weights import load_weights
from kdedge.pipeline.chain import perform
from kdedge.pipeline.networks import build
from kdedge.pipeline.project import TRAINING, Project, open_project

HERE = Path(__file__).parent
FROM_ORIGINAL = "self-distillation from the original"
"""The student starts from the original's weights and learns from its answers."""
BY_ENSEMBLE = "self-distillation by the ensemble"
"""All classifiers, the deepest too, learn from the mean of all."""
TRAININGS = {
    "labels": ["phases.0.methods=[]"],
    "deep supervision": ["phases.0.methods=[{name: self_distill, options: {alpha: 0}}]"],
    "self-distillation": ["phases.0.methods=[{name: self_distill}]"],
    BY_ENSEMBLE: ["phases.0.methods=[{name: self_distill, options: {target: ensemble}}]"],
    FROM_ORIGINAL: [
        "student.lighten.init=teacher",
        "phases.0.methods=[{name: logits, weight: 0.9}, {name: self_distill, weight: 0.3}]",
        "phases.0.cross_entropy={weight: 0.1}",
    ],
}
CONVS = {
    "dense": "null",
    "grouped 2": "{conv: grouped, groups: 2}",
    "grouped 4": "{conv: grouped, groups: 4}",
    "depthwise": "{conv: depthwise}",
}
GRIDS = {
    "cpu": {"resnet20": ("dense", "grouped 2"), "vgg11": ("dense", "grouped 4")},
    "few": {"resnet18": ("dense", "grouped 4"), "vgg11": ("dense", "grouped 2", "grouped 4")},
    "gpu": {"resnet18": ("dense", "grouped 4", "depthwise"), "vgg11": ("dense", "grouped 4", "depthwise")},
}
EQUAL = ("labels", "deep supervision", "self-distillation")
BUDGET_TRAININGS = {
    "cpu": (*EQUAL, FROM_ORIGINAL),
    "few": (*EQUAL, BY_ENSEMBLE),
    "gpu": (*EQUAL, BY_ENSEMBLE, FROM_ORIGINAL),
}
ONLY = {("few", BY_ENSEMBLE): {"vgg11 grouped 4"}}
"""Networks of a budget's training, where it was not for all."""
CALIBRATION = 256


@dataclass(frozen=True)
class Cell:
    network: str
    conv: str
    """A key of CONVS."""
    training: str
    seed: int

    @property
    def original(self) -> "Cell":
        return Cell(self.network, "dense", "labels", self.seed)

    @property
    def name(self) -> str:
        return "-".join([self.network, self.conv, self.training, str(self.seed)]).replace(" ", "_")

    def changes(self, budget: str) -> list[str]:
        return [
            f"name={budget}-{self.name}",
            f"seed={self.seed}",
            f"student.name={self.network}",
            f"student.lighten={CONVS[self.conv]}",
            *TRAININGS[self.training],
        ]


def grid(budget: str, seeds: int) -> list[Cell]:
    """The originals first, since some learn from them; they are trained on the labels alone."""
    cells = [
        Cell(network, conv, training, seed)
        for seed in range(seeds)
        for network, convs in GRIDS[budget].items()
        for conv in convs
        for training in (BUDGET_TRAININGS[budget] if conv != "dense" else ("labels",))
        if f"{network} {conv}" in ONLY.get((budget, training), {f"{network} {conv}"})
    ]
    return sorted(cells, key=lambda cell: cell.conv != "dense")


def perform_cell(cell: Cell, budget: str, changes: list[str], runs: Path) -> dict[str, Any]:
    """Train (or go on), export, quantize, and judge on the test split; what is done already is read."""
    project = open_cell(cell, budget, changes, runs)
    path, key = project.run / "cell.json", project.student_key()
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if found.get("key") != key:
        with project.run.locked():
            project.save()
            perform(project, "distill")
        found = {"key": key, **measure(cell, project)}
        write_json(path, found)
    return found | {"run": str(project.run.path)}


def open_cell(cell: Cell, budget: str, changes: list[str], runs: Path) -> Project:
    own = [*cell.changes(budget), *changes]
    if cell.training == FROM_ORIGINAL:
        weights = open_cell(cell.original, budget, changes, runs).run / "student/weights.safetensors"
        own.append(f"teachers=[{{name: {cell.network}, checkpoint: {json.dumps(str(weights))}}}]")
    return open_project(load_recipe(str(HERE / f"{budget}.yaml"), own), runs)


def measure(cell: Cell, project: Project) -> dict[str, Any]:
    student = read_record(project.run / TRAINING, TrainingReport).student
    dataset = build_data(project.recipe.data, project.recipe.seed)
    network = build(project.recipe.student, dataset, project.recipe.seed)
    load_weights(network, project.run / "student/weights.safetensors")
    fp32, int8 = export(network.eval(), dataset, project)
    epochs = [row["seconds"] for row in read_rows(project.run / "student/log.csv")]
    return {
        **asdict(cell),
        "images": len(dataset.train),
        "epochs": student.epochs,
        "params": student.params,
        "macs": student.macs,
        "training_params": student.extra_params,
        "exits": {**student.exits, "deepest": student.accuracy, "ensemble": student.ensemble},
        "seconds": sum(epochs),
        "fastest_epoch_seconds": min(epochs),
        "onnx": {"fp32": f"export/{fp32.name}", "int8": f"export/{int8.name}"},
        "bytes": {"fp32": fp32.stat().st_size, "int8": int8.stat().st_size},
        "int8_top1": int8_top1(int8, dataset),
    }


def export(network: nn.Module, dataset: Dataset, project: Project) -> tuple[Path, Path]:
    folder = project.run / "export"
    folder.mkdir(exist_ok=True)
    fp32, int8, settings = folder / "student.fp32.onnx", folder / "student.int8.onnx", Export()
    export_onnx(network, fp32, dataset.image_shape, settings, dataset.normalize, dataset.labels)
    some = dataset.train.subset(torch.linspace(0, len(dataset.train) - 1, CALIBRATION).long())
    pixels = next(eval_batches(some, CALIBRATION, torch.device("cpu")).epoch(0)).images
    to_int8(fp32, int8, Normalizer(dataset.normalize)(pixels).numpy(), settings)
    return fp32, int8


def int8_top1(path: Path, dataset: Dataset) -> float:
    """Of the test split, through ONNX Runtime."""
    normalizer, outputs, labels = Normalizer(dataset.normalize), [], []
    with backend("ort").open(path, {"threads": 1}) as session:
        for batch in eval_batches(dataset.test, 250, torch.device("cpu")).epoch(0):
            answer = session.run({"images": normalizer(batch.images).numpy()})
            outputs.append(answer["logits"])
            labels.append(batch.labels.numpy())
    return classify(np.concatenate(outputs), np.concatenate(labels)).top1
