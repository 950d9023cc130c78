"""The networks of a recipe: built, loaded or trained, measured, and described."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdedge.core import console
from kdedge.core.recipe import Model, Normalize, Recipe, Teacher
from kdedge.core.report import TrainedModel
from kdedge.core.rundir import RunDir, cache_folder, digest, sha256_file
from kdedge.data.loader import Normalizer, eval_batches
from kdedge.data.locate import stamp
from kdedge.data.sets import Dataset
from kdedge.distill.job import Job
from kdedge.distill.logs import read_rows
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import train
from kdedge.models.cost import cost
from kdedge.models.inherit import check_same_network, inherit
from kdedge.models.lighten import Rewritten, lighten
from kdedge.models.weights import load_backbone, load_weights
from kdedge.models.zoo import build_model
from kdedge.pipeline.arrays import spread
from kdedge.pipeline.judges import judge_of
from kdedge.pipeline.places import teachers_of
from kdedge.pipeline.project import Project, code_hashes, plain, training_sections

WEIGHTS, LOG = "weights.safetensors", "log.csv"
INHERIT_IMAGES, INHERIT_VALUES = 256, 2**21
"""Images that a student which starts from its teacher is fitted on, at most, and pixel values of them all together."""


def build(model: Model, dataset: Dataset, seed: int) -> nn.Module:
    """With weights that only the seed decides."""
    return build_and_lighten(model, dataset, seed)[0]


def build_and_lighten(
    model: Model, dataset: Dataset, seed: int, backbone: Path | None = None
) -> tuple[nn.Module, list[Rewritten]]:
    """A network, and what of it was rewritten.

    Args:
        backbone: weights of a detector's, of which those that are rewritten are lost.
    """
    torch.manual_seed(seed)
    network = build_model(model.name, model.options, len(dataset.labels), dataset.image_shape, dataset.task)
    if backbone:
        load_backbone(network, backbone)
    how = model.lighten
    return network, lighten(network, dataset.image_shape, **how.rewriting()) if how else []


def check_start(recipe: Recipe, dataset: Dataset) -> None:
    """Raises ModelError when the student is to start from a teacher that it was not made of."""
    how = recipe.student.lighten
    if how and how.init == "teacher":
        network, rewritten = build_and_lighten(recipe.student, dataset, 0)
        check_same_network(network, build(recipe.teachers[0], dataset, 0), [step.path for step in rewritten])


def dense_form(model: Model) -> Model | None:
    """The network that a lightened one was made of, or None."""
    if model.lighten:
        return model.model_copy(update={"lighten": None})
    if model.options.get("conv", "dense") != "dense":
        kept = {key: value for key, value in model.options.items() if key not in ("conv", "groups")}
        return model.model_copy(update={"options": kept})
    return None


def start(project: Project, model: Model, dataset: Dataset) -> tuple[nn.Module, list[Rewritten]]:
    """A network before its first step: fresh, or on the backbone that the recipe names; and what of it was rewritten.

    Raises:
        ModelError: the backbone's file is missing or does not fit.
    """
    return build_and_lighten(model, dataset, project.recipe.seed, project.backbone(model))


def start_student(project: Project, dataset: Dataset, teachers: Sequence[FrozenTeacher]) -> nn.Module:
    """As `start`, or with what it can keep of its first teacher's weights."""
    recipe = project.recipe
    network, rewritten = start(project, recipe.student, dataset)
    if recipe.student.lighten and recipe.student.lighten.init == "teacher":
        teacher = teachers[0]
        device = next(teacher.model.parameters()).device
        count = max(8, min(INHERIT_IMAGES, INHERIT_VALUES // math.prod(dataset.image_shape)))
        some = dataset.train.subset(spread(len(dataset.train), count))
        pixels = next(eval_batches(some, len(some), device).epoch(0)).images
        own = Normalizer(dataset.normalize).to(device)
        inherit(network.to(device), teacher.model, rewritten, own(pixels), teacher.normalize(pixels))
    return network


def untrained_teacher(teacher: Teacher, dataset: Dataset, seed: int) -> FrozenTeacher:
    return FrozenTeacher(build(teacher, dataset, seed), teacher.normalize or dataset.normalize)


def build_peers(peers: Sequence[Model], dataset: Dataset, seed: int) -> tuple[nn.Module, ...]:
    """Each from a start of its own, or one like the student would answer as it does."""
    return tuple(build(peer, dataset, seed + 1 + number) for number, peer in enumerate(peers))


def lightened(model: Model) -> dict[str, Any]:
    """What of its lightening a reader should see beside its options."""
    return model.lighten.model_dump(exclude_defaults=True) if model.lighten else {}


def describe(model: Model, network: nn.Module, dataset: Dataset, **measured: Any) -> TrainedModel:
    price = cost(network, dataset.image_shape)
    return TrainedModel(
        model=model.name,
        options=model.options | lightened(model),
        params=price.params,
        macs=price.macs,
        weight_bytes=price.weight_bytes,
        input_shape=list(dataset.image_shape),
        **measured,
    )


@dataclass(frozen=True)
class TeacherNet:
    network: nn.Module
    normalize: Normalize
    source: str
    folder: Path | None = None
    """Where it was trained."""
    seconds: float = 0.0
    epochs: int = 0


def obtain_teacher(project: Project, teacher: Teacher, dataset: Dataset, place: str = "teachers.0") -> TeacherNet:
    """Load a teacher from its checkpoint, or from the cache, or train it into the cache.

    Args:
        place: where it stands in the recipe.
    """
    network = start(project, teacher, dataset)[0]
    normalize = teacher.normalize or dataset.normalize
    if teacher.checkpoint:
        path = project.checkpoint(teacher)
        load_weights(network, path)
        return TeacherNet(network, normalize, stamped(path))
    return train_teacher(project, teacher, network, replace(dataset, normalize=normalize), place)


def train_teacher(project: Project, teacher: Teacher, network: nn.Module, dataset: Dataset, place: str) -> TeacherNet:
    """Once: the cache is keyed by everything that decides its weights."""
    assert teacher.training
    recipe, own = project.recipe, [teacher, *teachers_of(teacher.teachers).values()]
    files = [*project.checkpoints(teacher.teachers), *project.backbones(own), *code_hashes(own)]
    key = digest([plain(teacher), training_sections(recipe), files, stamp(recipe.data), recipe.seed, version("kdedge")])
    cache = RunDir(cache_folder() / "teachers" / f"{teacher.name.replace(':', '-')}-{key[:12]}")
    with cache.locked():
        if cache.fresh("train", key):
            console.say(f"teacher {teacher.name}: cached ({cache.path})")
            load_weights(network, cache / WEIGHTS)
            return trained_teacher(network, dataset, f"{origin(project, teacher)} (cached)", cache)
        whom = [
            obtain_teacher(project, one, dataset, f"{place}.teachers.{n}") for n, one in enumerate(teacher.teachers)
        ]
        console.say(f"teacher {teacher.name}: training it once ({cache.path})")
        job = Job(
            f"teacher {teacher.name}", network, dataset, recipe.data, (teacher.training,), recipe.run, recipe.seed,
            cache.path, key, tuple(FrozenTeacher(net.network, net.normalize) for net in whom),
            setting=f"{place}.training", judge=judge_of(network, dataset),
        )  # fmt: skip
        train(job)
        cache.record("train", key, [WEIGHTS, LOG])
        return trained_teacher(network, dataset, origin(project, teacher), cache)


def origin(project: Project, model: Model) -> str:
    """trained by resnet110 from resnet18.pth sha256:0123456789ab"""
    teachers = " and ".join(each.name for each in model.teachers) if isinstance(model, Teacher) else ""
    backbone = project.backbone(model)
    return "trained" + (f" by {teachers}" if teachers else "") + (f" from {stamped(backbone)}" if backbone else "")


def stamped(path: Path) -> str:
    return f"{path.name} sha256:{sha256_file(path)[:12]}"


def trained_teacher(network: nn.Module, dataset: Dataset, source: str, cache: RunDir) -> TeacherNet:
    rows = read_rows(cache / LOG)
    seconds = sum(row["seconds"] for row in rows)
    return TeacherNet(network, dataset.normalize, source, cache.path, seconds, len(rows))
