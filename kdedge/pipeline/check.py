"""A recipe tried without training: data, networks, teacher's accuracy, memory, time per epoch."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import psutil
import torch
from torch import nn

from kdedge.core import console
from kdedge.core.console import many, percent, size
from kdedge.core.quality import MEASURES
from kdedge.core.recipe import Model, Recipe, Teacher
from kdedge.core.report import TrainedModel
from kdedge.data.build import build_data
from kdedge.data.sets import Dataset
from kdedge.distill.evaluate import predict
from kdedge.distill.job import Job, cpu_threads, make_fabric
from kdedge.distill.meter import TermMeter
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import PhaseRun
from kdedge.models.features import feature_points
from kdedge.models.weights import load_weights
from kdedge.pipeline.judges import judge_of
from kdedge.pipeline.names import check_names, check_networks
from kdedge.pipeline.networks import build, build_peers, describe, untrained_teacher
from kdedge.pipeline.project import Project

STEPS = 4


@dataclass(frozen=True)
class PhaseCost:
    """What a phase takes, from a few of its steps."""

    methods: list[str]
    epochs: int
    batch: int
    epoch_seconds: float
    memory_bytes: int
    int8: bool
    """Whether the student computes as in int8."""

    def row(self, index: int) -> list[str]:
        total = str(timedelta(seconds=round(self.epoch_seconds * self.epochs)))
        methods = (", ".join(self.methods) or "labels only") + (", in int8" if self.int8 else "")
        seconds = f"{self.epoch_seconds:.1f}"
        return [str(index), methods, str(self.epochs), str(self.batch), seconds, total, size(self.memory_bytes)]


def run(project: Project) -> None:
    """Raises RecipeError for names and options that do not exist, DataError and ModelError for files."""
    check_names(project)
    recipe, measure = project.recipe, MEASURES[project.recipe.task]
    check_networks(project)
    dataset = build_data(recipe.data, recipe.seed)
    torch.set_num_threads(cpu_threads(recipe.run))
    device = make_fabric(recipe.run.model_copy(update={"devices": 1})).device
    teachers, accuracies = [], {}
    for number, teacher in enumerate(recipe.teachers):
        frozen, accuracies[f"teacher{number or ''}"] = try_teacher(project, teacher, dataset, device)
        teachers.append(frozen)
    built = {role: (model, build(model, dataset, recipe.seed)) for role, model in roles(recipe).items()}
    abouts = {role: describe(*pair, dataset, accuracy=accuracies.get(role) or 0) for role, pair in built.items()}
    shown = dict.fromkeys(built, "-") | {
        role: "to be trained" if accuracy is None else percent(accuracy) for role, accuracy in accuracies.items()
    }
    console.show_table(
        f"{recipe.name}: {recipe.data.name}, {len(dataset.train)} training, {len(dataset.validation)} validation, "
        f"{len(dataset.test)} test images of {'x'.join(map(str, dataset.image_shape))}, {len(dataset.labels)} classes",
        ("network", "model", measure.label, "parameters", "MACs", "weights", "stages (channels at stride)"),
        [[role, *network_row(about, shown[role]), stages(built[role][1], dataset)] for role, about in abouts.items()],
    )
    phases = [phase_cost(project, dataset, teachers, index) for index in range(len(recipe.phases))]
    columns = ("phase", "methods", "epochs", "batch", "seconds per epoch", "total", "memory")
    console.show_table("phases", columns, [phase.row(index) for index, phase in enumerate(phases)])
    console.emit(
        {
            "recipe": recipe.name,
            "run": str(project.run.path),
            f"teacher_{measure.key}": accuracies.get("teacher"),
            "networks": {role: about.model_dump(include={"model", "params", "macs"}) for role, about in abouts.items()},
            "phases": [asdict(phase) for phase in phases],
        }
    )
    console.say(f"the run would be in {project.run.path}")


def roles(recipe: Recipe) -> dict[str, Model]:
    """Student, teachers and peers, by what they are called."""
    teachers = {f"teacher{number or ''}": teacher for number, teacher in enumerate(recipe.teachers)}
    return {"student": recipe.student, **teachers} | {f"peer{n}": peer for n, peer in enumerate(recipe.peers)}


def try_teacher(
    project: Project, teacher: Teacher, dataset: Dataset, device: torch.device
) -> tuple[FrozenTeacher, float | None]:
    """A teacher and its accuracy on the test images; one still to be trained has random weights and no accuracy."""
    frozen = untrained_teacher(teacher, dataset, project.recipe.seed).to(device)
    if not teacher.checkpoint:
        return frozen, None
    load_weights(frozen.model, project.checkpoint(teacher))
    normalize, workers = teacher.normalize or dataset.normalize, project.recipe.data.workers
    judge = judge_of(frozen.model, dataset)
    return frozen, judge.quality(*predict(frozen.model, dataset.test, normalize, device, workers, judge)).accuracy


def network_row(about: TrainedModel, accuracy: str) -> list[str]:
    return [about.model, accuracy, many(about.params), many(about.macs), size(about.weight_bytes)]


def stages(network: nn.Module, dataset: Dataset) -> str:
    points = feature_points(network, dataset.image_shape)
    return ", ".join(f"{name} {point.channels}@{point.stride}" for name, point in points.items())


def phase_cost(project: Project, dataset: Dataset, teachers: Sequence[FrozenTeacher], index: int) -> PhaseCost:
    recipe, phase = project.recipe, project.recipe.phases[index]
    network, peers = build(recipe.student, dataset, recipe.seed), build_peers(recipe.peers, dataset, recipe.seed)
    with tempfile.TemporaryDirectory() as folder:
        one = recipe.run.model_copy(update={"devices": 1})
        job = Job(
            "check", network, dataset, recipe.data, recipe.phases, one, recipe.seed, Path(folder), "",
            tuple(teachers), peers,
        )  # fmt: skip
        seconds = epoch_seconds(PhaseRun(make_fabric(one), job, index, 0, None, None))
    methods, int8 = [use.name for use in phase.methods], phase.quantize is not None
    return PhaseCost(methods, phase.epochs, phase.batch, seconds, memory_used(), int8)


def epoch_seconds(phase: PhaseRun) -> float:
    """From a few real steps, the first of which is not counted."""
    meter = TermMeter()
    with phase.objective, phase.staff() as staff:
        phase.module.train()
        for number, batch in enumerate(islice(phase.loader.epoch(0), STEPS + 1)):
            if number == 1:
                began = time.perf_counter()
            phase.step(batch, staff, 0, 0.0, meter)
        meter.check("check", 1)
    steps = max(meter.steps - 1, 1)
    return (time.perf_counter() - began) / steps * len(phase.loader) if meter.steps > 1 else 0.0


def memory_used() -> int:
    """At most on the accelerator where there is one, now by this process otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return int(psutil.Process(os.getpid()).memory_info().rss)
