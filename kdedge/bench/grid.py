"""A grid of trainings: contenders by seeds, from one base recipe and one copy of its teachers, in a folder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kdedge.bench.cells import Cell, CellResult, TeacherResult, perform_cell, prepare_teachers, teacher_weights
from kdedge.bench.contenders import Contender
from kdedge.bench.workers import perform_all
from kdedge.core import console
from kdedge.core.console import percent
from kdedge.core.errors import KdedgeError
from kdedge.core.load import LoadedRecipe, validate
from kdedge.core.quality import MEASURES
from kdedge.core.recipe import Model, Recipe, Teacher
from kdedge.core.source import Source
from kdedge.distill.base import METHODS
from kdedge.distill.job import cpu_threads
from kdedge.pipeline.names import check_names, check_networks
from kdedge.pipeline.project import Project, open_project

M = TypeVar("M", bound=Model)


class Grid:
    """One comparison: its base recipe, its contenders, its folder."""

    def __init__(
        self, base: LoadedRecipe, contenders: Sequence[Contender], seeds: int, folder: Path, jobs: int = 1
    ) -> None:
        self.base, self.contenders, self.jobs = base, list(contenders), jobs
        self.seeds = [base.recipe.seed + number for number in range(seeds)]
        self.folder = folder.absolute()

    def cell(self, each: Contender, seed: int) -> Cell:
        """One contender's training by one seed, from the comparison's own copy of the teachers' weights."""
        base = self.base.recipe
        copied = {"backbone": None, "training": None, "teachers": ()}
        teachers = tuple(
            teacher.model_copy(update={"checkpoint": teacher_weights(number), **copied})
            for number, teacher in enumerate(base.teachers)
        )
        listens = any(METHODS.get(use.name).needs_teacher for phase in each.phases for use in phase.methods)
        starts = base.student.lighten is not None and base.student.lighten.init == "teacher"
        cores = max(1, cpu_threads(base.run) // self.jobs)
        changes = {
            "name": f"{each.run_name}-{seed}",
            "seed": seed,
            "student": located(open_project(self.base, self.folder), base.student),
            "phases": each.phases,
            "peers": each.peers,
            "teachers": teachers if listens or starts else (),
            "run": base.run.model_copy(update={"threads": base.run.threads or cores}),
        }
        source = Source(each.label, base.model_copy(update=changes).model_dump(mode="json"))
        return Cell(each.label, validate(Recipe, source), self.folder, self.base.folder)

    def check(self, cells: Sequence[Cell]) -> None:
        """Raises RecipeError when names, options, networks and methods do not fit."""
        check_networks(checked(self.whole().project()))
        for cell in cells:
            check_networks(checked(cell.project()))

    def whole(self) -> Cell:
        """The base recipe itself, the files of weights that it names by their full paths."""
        project, recipe = open_project(self.base, self.folder), self.base.recipe
        teachers = tuple(located(project, teacher) for teacher in recipe.teachers)
        recipe = recipe.model_copy(update={"student": located(project, recipe.student), "teachers": teachers})
        return Cell("base", recipe, self.folder, self.base.folder)

    def prepare(self, cells: Sequence[Cell]) -> list[TeacherResult]:
        """The teachers, of which these cells want to know something."""
        teachers = self.base.recipe.teachers
        if not teachers:
            return []
        names = ", ".join(teacher.name for teacher in teachers)
        console.say(f"teacher {names}: loading or training it, and asking it what the methods want to know")
        [found] = perform_all(partial(prepare_teachers, list(cells)), [self.whole()], 1)
        if isinstance(found, KdedgeError):
            raise found
        measure = MEASURES[self.base.recipe.task].label
        for each in found:
            console.say(f"teacher {each.model}: {percent(each.accuracy)} {measure} on the test images")
        return found

    def train(self, cells: Sequence[Cell]) -> tuple[list[CellResult], list[str]]:
        """Results, and what went wrong with the others."""

        def said(cell: Cell, result: CellResult) -> None:
            console.say(f"{cell.contender}, seed {result.seed}: {percent(result.accuracy)}")

        found = perform_all(perform_cell, cells, self.jobs, said)
        failed = [
            f"{cell.contender}, seed {cell.recipe.seed}: {each}"
            for cell, each in zip(cells, found, strict=True)
            if isinstance(each, KdedgeError)
        ]
        return [each for each in found if isinstance(each, CellResult)], failed


def checked(project: Project) -> Project:
    check_names(project)
    return project


def located(project: Project, model: M) -> M:
    """With the full path of the file that it starts from, and of its own teachers'."""
    backbone = project.backbone(model)
    changes: dict[str, Any] = {"backbone": backbone and str(backbone.absolute())}
    if isinstance(model, Teacher):
        changes["checkpoint"] = str(project.checkpoint(model).absolute()) if model.checkpoint else None
        changes["teachers"] = tuple(located(project, each) for each in model.teachers)
    return model.model_copy(update=changes)
