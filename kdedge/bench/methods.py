"""The comparison: every contender for every seed, KD tuned on the validation images, and what is written of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kdedge.bench import plot, table
from kdedge.bench.cells import (
    TEACHER_WEIGHTS,
    Cell,
    CellResult,
    TeacherResult,
    measure_cost,
    perform_cell,
    prepare_teacher,
)
from kdedge.bench.contenders import LABELS, STANDARDIZED, TUNED, Contender, contender, tuning
from kdedge.bench.cost import Cost
from kdedge.bench.table import Comparison
from kdedge.bench.workers import perform_all
from kdedge.core import console
from kdedge.core.console import percent
from kdedge.core.deployment import Export, Gate
from kdedge.core.errors import KdedgeError
from kdedge.core.load import LoadedRecipe, load_recipe, validate
from kdedge.core.recipe import Recipe
from kdedge.core.rundir import write_json, write_text
from kdedge.core.source import Source
from kdedge.distill.base import METHODS
from kdedge.distill.job import cpu_threads
from kdedge.pipeline.distill import labels_only
from kdedge.pipeline.environment import environment
from kdedge.pipeline.names import check_names, check_networks
from kdedge.pipeline.project import Project, open_project

BASE = Path(__file__).parent / "base.yaml"


@dataclass(frozen=True)
class Asked:
    """What was typed."""

    methods: Sequence[str]
    seeds: int = 3
    recipe: str | None = None
    """Gives data, teacher, student, batch and optimizer."""
    pair: str | None = None
    data: str | None = None
    epochs: int | None = None
    changes: Sequence[str] = ()
    jobs: int = 1
    out: Path | None = None


def compare(asked: Asked) -> None:
    """Train what is not trained yet; write methods.json, methods.md and methods.svg.

    Raises:
        KdedgeError: what cannot be trained, before anything is; or, when all else is written, what failed.
    """
    grid = Grid(asked)
    first = [grid.cell(each, grid.seeds[0]) for each in (*grid.contenders, *grid.trials)]
    grid.check(first[: len(grid.contenders) + 1])
    teacher = grid.prepare(first)
    tried = grid.tune()
    chosen = max(tried, key=lambda result: result.validation_top1).contender
    console.say(f"{TUNED}: {chosen}")
    tuned = next(replace(each, label=TUNED, run=chosen) for each in grid.trials if each.label == chosen)
    contenders = [*grid.contenders[:1], tuned, *grid.contenders[1:]]
    cells = [grid.cell(each, seed) for each in contenders for seed in grid.seeds]
    costs = grid.measure(*(grid.cell(each, grid.seeds[0]) for each in (tuned, *contenders)))
    results, errors = grid.train(cells)
    recipe = grid.base.recipe.model_dump(mode="json", include={"data", "student", "teachers", "phases", "run"})
    made = Comparison(
        contenders=[each.label for each in contenders],
        seeds=grid.seeds,
        tuned=chosen,
        tuning={each.contender: each.validation_top1 for each in tried},
        cells=results,
        costs=costs,
        failed=errors,
        teacher=teacher,
        recipe=recipe,
        environment=environment(),
    )
    write(made, grid.folder)
    if errors:
        raise KdedgeError(f"{len(errors)} of {len(cells)} trainings failed", "", "\n  ".join(errors))


class Grid:
    """One comparison: its base recipe, its contenders, its folder."""

    def __init__(self, asked: Asked) -> None:
        self.base, self.jobs = load_base(asked), asked.jobs
        recipe = self.base.recipe
        wanted = dict.fromkeys((LABELS, STANDARDIZED, *asked.methods))
        self.contenders, self.trials = [contender(item, recipe) for item in wanted], tuning(recipe)
        self.seeds = [recipe.seed + number for number in range(asked.seeds)]
        pair = (recipe.data.name, Path(recipe.teachers[0].name).name, Path(recipe.student.name).name)
        self.folder = (asked.out or Path("bench") / "-".join(pair).replace(":", "-")).absolute()

    def cell(self, each: Contender, seed: int) -> Cell:
        """One contender's training by one seed, from the comparison's own copy of the teacher's weights."""
        base = self.base.recipe
        teacher = base.teachers[0].model_copy(update={"checkpoint": TEACHER_WEIGHTS, "training": None, "teachers": ()})
        listens = any(METHODS.get(use.name).needs_teacher for phase in each.phases for use in phase.methods)
        starts = base.student.lighten is not None and base.student.lighten.init == "teacher"
        cores = max(1, cpu_threads(base.run) // self.jobs)
        changes = {
            "name": f"{each.run_name}-{seed}",
            "seed": seed,
            "phases": each.phases,
            "peers": each.peers,
            "teachers": (teacher,) if listens or starts else (),
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
        """The base recipe itself, its teacher's checkpoint by its full path."""
        base = self.base.recipe
        if base.teachers[0].checkpoint:
            path = open_project(self.base, self.folder).checkpoint(base.teachers[0])
            teacher = base.teachers[0].model_copy(update={"checkpoint": str(path.absolute())})
            base = base.model_copy(update={"teachers": (teacher,)})
        return Cell("base", base, self.folder, self.base.folder)

    def prepare(self, cells: Sequence[Cell]) -> TeacherResult:
        name = self.base.recipe.teachers[0].name
        console.say(f"teacher {name}: loading or training it, and asking it what the methods want to know")
        [found] = perform_all(partial(prepare_teacher, list(cells)), [self.whole()], 1)
        if isinstance(found, KdedgeError):
            raise found
        console.say(f"teacher {name}: {percent(found.top1)} top-1 on the test images")
        return found

    def tune(self) -> list[CellResult]:
        """Plain KD by every temperature and weight, for the first seed."""
        results, errors = self.train([self.cell(each, self.seeds[0]) for each in self.trials])
        if errors:
            raise KdedgeError("plain KD could not be tuned", "", "\n  ".join(errors))
        return results

    def measure(self, reference: Cell, *cells: Cell) -> dict[str, Cost]:
        """What each contender costs; one that cannot be measured is told of when it is trained."""
        found = zip(cells, perform_all(partial(measure_cost, reference), cells, self.jobs), strict=True)
        return {cell.contender: cost for cell, cost in found if isinstance(cost, Cost)}

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


def load_base(asked: Asked) -> LoadedRecipe:
    """The recipe that all contenders share, changed as asked, without methods and what comes after training.

    Raises:
        KdedgeError: it has not one teacher and one phase.
    """
    name = asked.recipe or str(BASE)
    found = load_recipe(name, [*changes(asked, load_recipe(name).recipe), *asked.changes])
    recipe = found.recipe
    if len(recipe.teachers) != 1 or len(recipe.phases) != 1:
        why = "contenders share one teacher and the budget of one phase"
        raise KdedgeError(f"{name} has {len(recipe.teachers)} teachers and {len(recipe.phases)} phases", why)
    shared = {"phases": (labels_only(recipe.phases[0]),), "baseline": False, "export": Export(), "gate": Gate()}
    return replace(found, recipe=recipe.model_copy(update=shared))


def changes(asked: Asked, given: Recipe) -> Iterator[str]:
    """--data, --pair and --epochs as changes of a recipe; a network that it does not name starts without options."""
    if asked.data:
        yield f"data.name={asked.data}"
    if asked.pair:
        teacher, _, student = asked.pair.partition(":")
        if not teacher or not student or ":" in student:
            fix = "--pair resnet56:resnet20; networks of other libraries are named in a recipe"
            raise KdedgeError(f"--pair {asked.pair}", "it is TEACHER:STUDENT", fix)
        if not given.teachers or teacher != given.teachers[0].name:
            budget = given.phases[0].model_dump(mode="json", include={"epochs", "batch", "optimizer"})
            yield f"teachers={json.dumps([{'name': teacher, 'training': budget}])}"
        if student != given.student.name:
            yield f"student={json.dumps({'name': student})}"
    if asked.epochs:
        yield f"phases.0.epochs={asked.epochs}"
        if not asked.recipe:
            yield f"teachers.0.training.epochs={asked.epochs}"


def write(made: Comparison, folder: Path) -> None:
    """The three files, and the table and its warnings for who waits for them."""
    lines = table.lines(made)
    write_json(folder / "methods.json", made)
    write_text(folder / "methods.md", table.markdown(made, lines))
    write_text(folder / "methods.svg", plot.figure(made, lines))
    console.show_table("methods", table.COLUMNS, [line.row() for line in lines])
    for text in table.warnings(lines):
        console.warn(text)
    console.say(f"{folder / 'methods.md'}, methods.json and methods.svg beside it")
    console.emit(made)
