"""The comparison: every contender for every seed, KD tuned on the validation images, and what is written of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kdedge.bench import plot, table
from kdedge.bench.cells import Cell, CellResult, measure_cost
from kdedge.bench.contenders import REFERENCES, TUNED, contender, tuning
from kdedge.bench.cost import Cost
from kdedge.bench.grid import Grid
from kdedge.bench.table import Comparison
from kdedge.bench.workers import perform_all
from kdedge.core import console
from kdedge.core.deployment import Export, Gate
from kdedge.core.errors import KdedgeError
from kdedge.core.load import LoadedRecipe, load_recipe
from kdedge.core.recipe import Recipe
from kdedge.core.rundir import write_json, write_text
from kdedge.pipeline.distill import labels_only
from kdedge.pipeline.environment import environment

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
    grid = MethodGrid(asked)
    first = [grid.cell(each, grid.seeds[0]) for each in (*grid.contenders, *grid.trials)]
    grid.check(first[: len(grid.contenders) + 1])
    [teacher] = grid.prepare(first)
    tried, [labels, *others] = grid.tune(), grid.contenders
    chosen = best_of(tried)
    tuned = [replace(each, label=TUNED, run=chosen) for each in grid.trials if each.label == chosen]
    contenders, reference = [labels, *tuned, *others], (*tuned, labels)[0]
    cells = [grid.cell(each, seed) for each in contenders for seed in grid.seeds]
    costs = grid.measure(*(grid.cell(each, grid.seeds[0]) for each in (reference, *contenders)))
    results, errors = grid.train(cells)
    recipe = grid.base.recipe.model_dump(mode="json", include={"data", "student", "teachers", "phases", "run"})
    made = Comparison(
        task=grid.base.recipe.task,
        contenders=[each.label for each in contenders],
        seeds=grid.seeds,
        tuned=chosen,
        tuning={each.contender: each.validation_accuracy for each in tried},
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


def best_of(tried: Sequence[CellResult]) -> str:
    """The trial that is best on the validation images; none where nothing was tuned."""
    if not tried:
        return ""
    chosen = max(tried, key=lambda result: result.validation_accuracy).contender
    console.say(f"{TUNED}: {chosen}")
    return chosen


class MethodGrid(Grid):
    """The grid of what was asked for, with the trials that plain KD is tuned by."""

    def __init__(self, asked: Asked) -> None:
        base = load_base(asked)
        recipe = base.recipe
        always = (name for name in REFERENCES[recipe.task] if name != TUNED)
        wanted = dict.fromkeys((*always, *asked.methods))
        pair = (recipe.data.name, Path(recipe.teachers[0].name).name, Path(recipe.student.name).name)
        folder = asked.out or Path("bench") / "-".join(pair).replace(":", "-")
        super().__init__(base, [contender(item, recipe) for item in wanted], asked.seeds, folder, asked.jobs)
        self.trials = tuning(recipe)

    def tune(self) -> list[CellResult]:
        """Plain KD by every temperature and weight, for the first seed; nothing for detectors."""
        if not self.trials:
            return []
        results, errors = self.train([self.cell(each, self.seeds[0]) for each in self.trials])
        if errors:
            raise KdedgeError("plain KD could not be tuned", "", "\n  ".join(errors))
        return results

    def measure(self, reference: Cell, *cells: Cell) -> dict[str, Cost]:
        """What each contender costs; one that cannot be measured is told of when it is trained."""
        found = zip(cells, perform_all(partial(measure_cost, reference), cells, self.jobs), strict=True)
        return {cell.contender: cost for cell, cost in found if isinstance(cost, Cost)}


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
    console.show_table("methods", table.columns(made.task), [line.row() for line in lines])
    for text in table.warnings(lines):
        console.warn(text)
    console.say(f"{folder / 'methods.md'}, methods.json and methods.svg beside it")
    console.emit(made)
