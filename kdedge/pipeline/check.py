"""A recipe tried without training: data, networks, teacher's accuracy, memory, time per epoch."""

import os
import tempfile
import time
from itertools import islice
from pathlib import Path

import psutil
import torch

from kdedge.core import console
from kdedge.core.console import many, percent, size
from kdedge.core.recipe import Model
from kdedge.data.build import Dataset, build_data
from kdedge.distill.evaluate import accuracy, predict
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.meter import TermMeter
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import PhaseRun
from kdedge.models.features import feature_points
from kdedge.models.weights import load_weights
from kdedge.pipeline.names import check_names, check_networks
from kdedge.pipeline.networks import build, describe
from kdedge.pipeline.project import Project

STEPS = 4


def run(project: Project) -> None:
    """Raises RecipeError for names and options that do not exist, DataError and ModelError for files."""
    check_names(project)
    recipe = project.recipe
    dataset = build_data(recipe.data, recipe.seed)
    check_networks(project, dataset)
    device = make_fabric(recipe.run.model_copy(update={"devices": 1})).device
    frozen, found = teacher_of(project, dataset, device)
    networks = {"student": recipe.student} | ({"teacher": recipe.teachers[0]} if recipe.teachers else {})
    console.show_table(
        f"{recipe.name}: {recipe.data.name}, {len(dataset.train)} training, {len(dataset.validation)} validation, "
        f"{len(dataset.test)} test images of {'x'.join(map(str, dataset.image_shape))}, {len(dataset.labels)} classes",
        ("network", "model", "top-1", "parameters", "MACs", "weights", "stages (channels at stride)"),
        [
            network_row(project, dataset, name, model, found if name == "teacher" else "-")
            for name, model in networks.items()
        ],
    )
    phases = [phase_row(project, dataset, frozen, index) for index in range(len(recipe.phases))]
    console.show_table(
        "phases", ("phase", "methods", "epochs", "batch", "seconds per epoch", "total", "peak memory"), phases
    )
    console.emit({"recipe": recipe.name, "run": str(project.run.path), "teacher": found, "phases": phases})
    console.say(f"the run would be in {project.run.path}")


def teacher_of(project: Project, dataset: Dataset, device: torch.device) -> tuple[FrozenTeacher | None, str]:
    """The teacher and its test top-1 as text; one that is still to be trained stands there with random weights."""
    if not project.recipe.teachers:
        return None, "-"
    chosen = project.recipe.teachers[0]
    network = build(chosen, dataset, project.recipe.seed).to(device)
    normalize = chosen.normalize or dataset.normalize
    if not chosen.checkpoint:
        return FrozenTeacher(network, normalize), "to be trained"
    load_weights(network, project.checkpoint(chosen))
    top1 = accuracy(*predict(network, dataset.test, normalize, device, project.recipe.data.workers))
    return FrozenTeacher(network, normalize), percent(top1)


def network_row(project: Project, dataset: Dataset, name: str, model: Model, top1: str) -> list[str]:
    network = build(model, dataset, project.recipe.seed)
    about = describe(model, network, dataset, top1=0)
    points = feature_points(network, dataset.image_shape)
    stages = ", ".join(f"{key} {point.channels}@{point.stride}" for key, point in points.items())
    return [name, model.name, top1, many(about.params), many(about.macs), size(about.weight_bytes), stages]


def phase_row(project: Project, dataset: Dataset, teacher: FrozenTeacher | None, index: int) -> list[str]:
    recipe, phase = project.recipe, project.recipe.phases[index]
    network = build(recipe.student, dataset, recipe.seed)
    with tempfile.TemporaryDirectory() as folder:
        one = recipe.run.model_copy(update={"devices": 1})
        job = Job("check", network, dataset, recipe.data, recipe.phases, one, recipe.seed, Path(folder), "", teacher)
        seconds = epoch_seconds(PhaseRun(make_fabric(one), job, index, 0, None, None))
    methods = ", ".join(use.name for use in phase.methods) or "labels only"
    total = time.strftime("%H:%M:%S", time.gmtime(seconds * phase.epochs))
    return [str(index), methods, str(phase.epochs), str(phase.batch), f"{seconds:.1f}", total, size(peak_memory())]


def epoch_seconds(phase: PhaseRun) -> float:
    """From a few real steps, the first of which is not counted."""
    meter = TermMeter()
    with phase.objective, phase.teacher_tap() as tap:
        phase.module.train()
        for number, batch in enumerate(islice(phase.loader.epoch(0), STEPS + 1)):
            if number == 1:
                began = time.perf_counter()
            phase.step(batch, tap, 0, 0.0, meter)
        meter.check("check", 1)
    steps = max(meter.steps - 1, 1)
    return (time.perf_counter() - began) / steps * len(phase.loader) if meter.steps > 1 else 0.0


def peak_memory() -> int:
    """Of the accelerator where there is one, of this process otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return int(psutil.Process(os.getpid()).memory_info().rss)
