"""A grid of trainings: contenders by seeds, from one base recipe and one copy of its teachers, in a folder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kdedge.bench.cells import Cell, CellResult, TeacherResult, perform_cell, prepare_teachers, teacher_weights
from kdedge.bench.contenders import Contender
from kdedge.bench.workers import perform_all
from kdedge.core import console
from kdedge.core.console import percent
from kdedge.core.errors import KdedgeError
from kdedge.core.load import LoadedRecipe, validate
from kdedge.core.recipe import Recipe, Teacher
from kdedge.core.source import Source
from kdedge.distill.base import METHODS
from kdedge.distill.job import cpu_threads
from kdedge.pipeline.names import check_names, check_networks
from kdedge.pipeline.project import Project, open_project


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
        copied = {"training": None, "teachers": ()}
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
        """The base recipe itself, its teachers' checkpoints by their full paths."""
        project = open_project(self.base, self.folder)
        teachers = tuple(located(project, teacher) for teacher in self.base.recipe.teachers)
        recipe = self.base.recipe.model_copy(update={"teachers": teachers})
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
        for each in found:
            console.say(f"teacher {each.model}: {percent(each.top1)} top-1 on the test images")
        return found

    def train(self, cells: Sequence[Cell]) -> tuple[list[CellResult], list[str]]:
        """Results, and what went wrong with the others."""

        def said(cell: Cell, result: CellResult) -> None:
            console.say(f"{cell.contender}, seed {result.seed}: {percent(result.top1)}")

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


def located(project: Project, teacher: Teacher) -> Teacher:
    """With the full path of its checkpoint, and of its own teachers'."""
    path = str(project.checkpoint(teacher).absolute()) if teacher.checkpoint else None
    teachers = tuple(located(project, each) for each in teacher.teachers)
    return teacher.model_copy(update={"checkpoint": path, "teachers": teachers})
