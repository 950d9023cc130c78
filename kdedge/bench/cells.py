"""One training of a comparison: an ordinary run, measured; and the teacher that all of them share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from pydantic import AliasChoices, Field

from kdedge.bench.cost import Cost, cost_of
from kdedge.bench.memory import return_what_is_freed
from kdedge.core.load import LoadedRecipe
from kdedge.core.recipe import Recipe
from kdedge.core.record import Record
from kdedge.core.rundir import RunDir, read_record, write_json
from kdedge.core.source import Source
from kdedge.data.build import build_data
from kdedge.data.sets import Dataset
from kdedge.distill.cached import keep, wanted_features
from kdedge.distill.evaluate import predict
from kdedge.distill.job import Job, cpu_threads, make_fabric
from kdedge.distill.logs import read_rows
from kdedge.distill.teachers import FrozenTeacher
from kdedge.models.code import look_in
from kdedge.models.weights import save_weights
from kdedge.pipeline.distill import Distillation
from kdedge.pipeline.judges import judge_of
from kdedge.pipeline.networks import TeacherNet, build, build_peers, obtain_teacher
from kdedge.pipeline.project import Project, open_project

COMMAND, CELL, TEACHER = "bench", "cell.json", "teacher.json"
COST_COMMAND, COST = "cost", "cost.json"


@dataclass(frozen=True)
class Cell:
    contender: str
    recipe: Recipe
    folder: Path
    """Of the comparison."""
    beside: Path
    """Where the base recipe lies; a network's own Python file is looked for there too."""

    def project(self) -> Project:
        look_in(self.beside)
        loaded = LoadedRecipe(self.recipe, Source(f"contender {self.contender}"), self.folder)
        return open_project(loaded, self.folder / "runs")


class CellResult(Record):
    contender: str
    seed: int
    run: str
    epochs: int
    train_images: int
    test_images: int
    accuracy: float = Field(validation_alias=AliasChoices("accuracy", "top1"))
    """By the measure of the task, on the test split, after the last epoch."""
    validation_accuracy: float = Field(validation_alias=AliasChoices("validation_accuracy", "validation_top1"))
    epoch_seconds: list[float]
    """Of every epoch, with the pass over the validation images."""
    extra_params: int = 0
    """That only the training has, in its last phase."""


class TeacherResult(Record):
    model: str
    source: str
    accuracy: float = Field(validation_alias=AliasChoices("accuracy", "top1"))
    views: int | None
    """Fixed views of each image, whose answers were read and not computed; None: it was asked at every step."""
    device: str


def perform_cell(cell: Cell) -> CellResult:
    """Train, or go on; what is done already is read."""
    project = cell.project()
    run, key = project.run, project.student_key()
    with run.locked():
        if not run.fresh(COMMAND, key):
            project.save()
            result, artifacts = train_cell(cell, project)
            write_json(run / CELL, result)
            run.record(COMMAND, key, [*artifacts, CELL])
    return read_record(run / CELL, CellResult).model_copy(update={"contender": cell.contender})


def train_cell(cell: Cell, project: Project) -> tuple[CellResult, list[str]]:
    recipe, run = project.recipe, project.run
    torch.set_num_threads(cpu_threads(recipe.run))
    dataset = build_data(recipe.data, recipe.seed)
    work = Distillation(project, dataset)
    work.teachers = teachers_of(project, dataset)
    student = work.train_student()
    seconds = [row["seconds"] for row in read_rows(run / "student/log.csv")]
    assert student.validation_accuracy is not None
    result = CellResult(
        contender=cell.contender,
        seed=recipe.seed,
        run=run.path.name,
        epochs=student.epochs,
        train_images=len(dataset.train),
        test_images=len(dataset.test),
        accuracy=student.accuracy,
        validation_accuracy=student.validation_accuracy,
        epoch_seconds=seconds,
        extra_params=student.extra_params,
    )
    return result, work.artifacts


def teachers_of(project: Project, dataset: Dataset) -> tuple[FrozenTeacher, ...]:
    found = [obtain_teacher(project, teacher, dataset) for teacher in project.recipe.teachers]
    return tuple(FrozenTeacher(each.network, each.normalize) for each in found)


def measure_cost(reference: Cell, cell: Cell) -> Cost:
    """Take a few steps in this process, which then is good for nothing else; what was measured already is read."""
    project, other = cell.project(), reference.project()
    run, key = project.run, f"{project.student_key()} {other.student_key()}"
    with run.locked():
        if not run.fresh(COST_COMMAND, key):
            return_what_is_freed()
            torch.set_num_threads(cpu_threads(cell.recipe.run))
            dataset = build_data(project.recipe.data, project.recipe.seed)
            write_json(run / COST, cost_of(*(partial(fresh_job, each, dataset) for each in (project, other))))
            run.record(COST_COMMAND, key, [COST])
    return read_record(run / COST, Cost)


def fresh_job(project: Project, dataset: Dataset) -> Job:
    """With teachers of its own, since those are tapped where their student's methods listen."""
    return make_job(project, dataset, teachers_of(project, dataset))


def make_job(project: Project, dataset: Dataset, teachers: tuple[FrozenTeacher, ...]) -> Job:
    """A training from random weights, to look at and not to keep."""
    recipe = project.recipe
    return Job(
        "bench", build(recipe.student, dataset, recipe.seed), dataset, recipe.data, recipe.phases,
        recipe.run.model_copy(update={"devices": 1}), recipe.seed, project.run.path, "", teachers,
        build_peers(recipe.peers, dataset, recipe.seed),
    )  # fmt: skip


def teacher_weights(number: int) -> str:
    """Within the comparison's folder."""
    return f"runs/teacher{number or ''}/weights.safetensors"


def prepare_teachers(cells: Sequence[Cell], base: Cell) -> list[TeacherResult]:
    """Load or train the teachers, measure them, and keep what these trainings will ask them."""
    project, recipe = base.project(), base.recipe
    torch.set_num_threads(cpu_threads(recipe.run))
    dataset = build_data(recipe.data, recipe.seed)
    found = [obtain_teacher(project, each, dataset, f"teachers.{n}") for n, each in enumerate(recipe.teachers)]
    frozen = tuple(FrozenTeacher(each.network, each.normalize) for each in found)
    device = make_fabric(recipe.run.model_copy(update={"devices": 1})).device
    if recipe.data.augment.views:
        jobs = [make_job(cell.project(), dataset, frozen) for cell in cells if cell.recipe.teachers]
        for number, teacher in enumerate(frozen):
            heard = [names for job in jobs if (names := wanted_features(job)[number]) is not None]
            if heard:
                keep(teacher, set[str]().union(*heard), dataset, recipe.data, device)
    return [measure_teacher(project, number, each, dataset, device) for number, each in enumerate(found)]


def measure_teacher(
    project: Project, number: int, teacher: TeacherNet, dataset: Dataset, device: torch.device
) -> TeacherResult:
    """Its accuracy, and a copy of its weights for all trainings."""
    recipe, weights = project.recipe, project.folder / teacher_weights(number)
    run, key = RunDir(weights.parent), project.student_key()
    with run.locked():
        if not run.fresh(COMMAND, key):
            network = teacher.network.to(device)
            judge, workers = judge_of(network, dataset), recipe.data.workers
            kept, labels = predict(network, dataset.test, teacher.normalize, device, workers, judge)
            result = TeacherResult(
                model=recipe.teachers[number].name,
                source=teacher.source,
                accuracy=judge.quality(kept, labels).accuracy,
                views=recipe.data.augment.views,
                device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            )
            save_weights(network, weights)
            write_json(run / TEACHER, result)
            run.record(COMMAND, key, [TEACHER, weights.name])
    return read_record(run / TEACHER, TeacherResult)
