"""Each term of a recipe's loss added and left out, at one budget: what it is worth, over several seeds.

Other methods may stand beside them, to be held against the whole.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kdedge.bench.cells import CellResult, TeacherResult
from kdedge.bench.contenders import LABELS, Contender, contender, share_out
from kdedge.bench.grid import Grid
from kdedge.bench.terms import By, Part, find_parts, is_preparation, without
from kdedge.core import console
from kdedge.core.deployment import Export, Gate
from kdedge.core.errors import KdedgeError
from kdedge.core.load import LoadedRecipe, load_recipe
from kdedge.core.recipe import Recipe
from kdedge.core.rundir import RunDir, digest, write_json, write_text
from kdedge.distill.base import METHODS
from kdedge.pipeline.environment import environment
from kdedge.pipeline.names import check_names, check_networks
from kdedge.pipeline.project import RECIPE, Project, open_project, reopen
from kdedge.report import ablation as report
from kdedge.report.ablation import RECORD, Ablation, AblationTeacher, Role, Trained
from kdedge.report.svg import standalone

Mode = Literal["add", "drop", "both"]
COMMAND, WHOLE = "ablation", "whole"


@dataclass(frozen=True)
class Asked:
    """What was typed."""

    recipe: str
    """Or the folder of a run, which then keeps the result."""
    mode: Mode = "both"
    by: By = "term"
    seeds: int = 3
    epochs: int | None = None
    changes: Sequence[str] = ()
    jobs: int = 1
    out: Path | None = None
    beside: Sequence[str] = ()
    """Methods and recipes to hold the terms against, as `kdedge bench methods` names them."""

    @property
    def keeps(self) -> bool:
        """Whether a run keeps the result."""
        return self.out is None and (Path(self.recipe) / RECIPE).is_file()


@dataclass(frozen=True)
class Row:
    """A line of the table before it is trained."""

    label: str
    role: Role
    dropped: tuple[Part, ...]
    term: str = ""
    beside: str = ""

    def contender(self, recipe: Recipe, parts: Sequence[Part]) -> Contender:
        if self.role == "beside":
            return contender(self.label, recipe)
        phases = without(recipe, self.dropped, parts)
        needed = any(METHODS.get(use.name).needs_peers for phase in phases for use in phase.methods)
        run = {"added": f"with {self.term}", "left out": f"without {self.term}"}.get(self.role, self.label)
        return Contender(self.label, phases, recipe.peers if needed else (), run)


def ablate(asked: Asked) -> None:
    """Train what is not trained yet; write ablation.json, ablation.md and ablation.svg.

    Raises:
        KdedgeError: what cannot be trained, before anything is; or, when all else is written, what failed.
    """
    project = opened(asked)
    check_names(project)
    check_networks(project)
    parts = find_parts(project, asked.by)
    if not parts:
        why = "its loss has no terms beside the labels"
        raise KdedgeError(f"{project.recipe.name} has nothing to leave out", why, "add methods to a phase")
    lines = [*plan(parts, asked.mode), *beside(asked, project.recipe)]
    contenders = {row.label: row.contender(project.recipe, parts) for row in lines}
    owners = {label: first_like(each, contenders) for label, each in contenders.items()}
    unique = [contenders[label] for label in dict.fromkeys(owners.values())]
    grid = Grid(bare(project), unique, asked.seeds, folder_of(asked, project), asked.jobs)
    first = [grid.cell(each, grid.seeds[0]) for each in unique]
    grid.check(first)
    with project.run.locked() if asked.keeps else nullcontext():
        teachers = grid.prepare(first)
        cells, failed = grid.train([grid.cell(each, seed) for each in unique for seed in grid.seeds])
        found = {row.label: [cell for cell in cells if cell.contender == owners[row.label]] for row in lines}
        trained = [trained_row(row, found[row.label]) for row in lines if found[row.label]]
        if trained:
            made = record(project, grid, teachers, cells[0], trained, failed)
            write(made, grid.folder, project.run if asked.keeps else None)
    if failed:
        raise KdedgeError(f"{len(failed)} trainings failed", "", "\n  ".join(failed))


def opened(asked: Asked) -> Project:
    """The recipe as it is to be trained.

    Raises:
        KdedgeError: a run's recipe is to be changed, or the epochs are fewer than its phases.
    """
    if asked.keeps and asked.changes:
        why = "the result belongs to the run, and to its recipe as it is"
        raise KdedgeError("--set with a run", why, "kdedge bench ablation RECIPE --set ...")
    project = reopen(Path(asked.recipe)) if asked.keeps else open_project(load_recipe(asked.recipe, asked.changes))
    recipe, total = project.recipe, asked.epochs
    if total is None:
        return project
    epochs = share_out(recipe.name, [phase.epochs for phase in recipe.phases], total)
    pairs = zip(recipe.phases, epochs, strict=True)
    phases = tuple(phase.model_copy(update={"epochs": count}) for phase, count in pairs)
    return replace(project, recipe=recipe.model_copy(update={"phases": phases}))


def folder_of(asked: Asked, project: Project) -> Path:
    """Of the trainings and the result."""
    if asked.keeps:
        return (project.run / RECORD).parent
    return asked.out or Path("bench") / f"ablation-{project.recipe.name}"


def bare(project: Project) -> LoadedRecipe:
    """The recipe without what comes after training."""
    recipe = project.recipe.model_copy(update={"baseline": False, "export": Export(), "gate": Gate()})
    return LoadedRecipe(recipe, project.source, project.folder)


def plan(parts: Sequence[Part], mode: Mode) -> Iterator[Row]:
    """The lines of the table in their order."""
    every, added, before = tuple(parts), () if mode == "drop" else parts[:-1], LABELS
    yield Row(LABELS, "labels", every)
    for number, part in enumerate(added, 1):
        yield Row(f"+ {part.label}", "added", every[number:], part.label, before)
        before = f"+ {part.label}"
    all_but_one = len(added) == len(parts) - 1
    yield Row(WHOLE, "whole", (), *((parts[-1].label, before) if all_but_one else ()))
    if mode != "add" and len(parts) > 1:
        for part in parts:
            yield Row(f"- {part.label}", "left out", (part,), part.label, WHOLE)


def beside(asked: Asked, recipe: Recipe) -> Iterator[Row]:
    """The lines of other methods, by the recipe's optimizer and epochs.

    Raises:
        KdedgeError: the recipe has several phases, and so not one budget.
    """
    if asked.beside and len(recipe.phases) > 1:
        why = "what stands beside its terms has the budget of one phase"
        raise KdedgeError(f"{recipe.name} has {len(recipe.phases)} phases", why, "kdedge bench methods --recipe RECIPE")
    return (Row(item, "beside", ()) for item in dict.fromkeys(asked.beside) if item != LABELS)


def first_like(contender: Contender, contenders: Mapping[str, Contender]) -> str:
    """The label of the first that trains the same: the last term left out is all before it added."""
    same = (contender.phases, contender.peers)
    return next(label for label, other in contenders.items() if (other.phases, other.peers) == same)


def trained_row(row: Row, cells: Sequence[CellResult]) -> Trained:
    return Trained(
        label=row.label,
        role=row.role,
        term=row.term,
        beside=row.beside,
        accuracy={cell.seed: cell.accuracy for cell in cells},
        seconds=statistics.median(second for cell in cells for second in cell.epoch_seconds),
        extra_params=cells[0].extra_params,
    )


def record(
    project: Project,
    grid: Grid,
    teachers: Sequence[TeacherResult],
    cell: CellResult,
    trained: list[Trained],
    failed: list[str],
) -> Ablation:
    recipe = project.recipe
    settings = recipe.model_dump(
        mode="json",
        include={"data", "student", "teachers", "peers", "phases", "run"},
        exclude={"data": {"root"}},
    )
    return Ablation(
        recipe=recipe.name,
        task=recipe.task,
        student=recipe.student.name,
        data=recipe.data.name,
        teachers=[AblationTeacher(name=each.model, accuracy=each.accuracy, source=each.source) for each in teachers],
        seeds=grid.seeds,
        epochs=sum(phase.epochs for phase in recipe.phases if not is_preparation(phase)),
        train_images=cell.train_images,
        test_images=cell.test_images,
        trained=trained,
        failed=failed,
        settings=settings,
        environment=environment(),
    )


def write(made: Ablation, folder: Path, run: RunDir | None) -> None:
    """The three files, and the table and its warnings for who waits for them."""
    write_json(folder / "ablation.json", made)
    write_text(folder / "ablation.md", report.markdown(made))
    write_text(folder / "ablation.svg", standalone(report.figure(made)))
    if run:
        files = [f"{folder.name}/ablation.{kind}" for kind in ("json", "md", "svg")]
        run.record(COMMAND, digest(made.settings), files)
    console.show_table("ablation", report.columns(made), report.rows(made))
    for text in report.warnings(made):
        console.warn(text)
    console.say(f"{folder / 'ablation.md'}, ablation.json and ablation.svg beside it")
    if run:
        console.say(f"kdedge report {run.path}   (shows it)")
    console.emit(made)
