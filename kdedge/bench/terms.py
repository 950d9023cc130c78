"""The terms of a recipe's loss, found by computing it once on noise; and the recipe's phases without some of them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, cast

from torch.autograd import grad

from kdedge.bench.cost import MIDDLE
from kdedge.core.recipe import Recipe
from kdedge.core.training import MethodUse, Phase, TermUse
from kdedge.data.outline import outline, stand_in
from kdedge.data.sets import Dataset
from kdedge.distill.base import Method
from kdedge.distill.weights import counts, short_name
from kdedge.pipeline.distill import labels_only
from kdedge.pipeline.places import Lesson, lessons
from kdedge.pipeline.project import Project
from kdedge.pipeline.trial import TRIAL_IMAGES, trial_of

By = Literal["term", "method"]


@dataclass(frozen=True)
class Part:
    """What is left out or not: a term of a method, for all stages and in all phases; or all terms of a method."""

    method: str
    pattern: str
    """Of the terms' names after the method's."""
    names: tuple[frozenset[str], ...]
    """Of the terms, by phase; empty in one that has none of them."""
    label: str = ""


def find_parts(project: Project, by: By) -> list[Part]:
    """In the order of the recipe; of those terms that teach the student something."""
    recipe = project.recipe
    dataset = stand_in(recipe.data, outline(recipe.data), TRIAL_IMAGES)
    phases = [lesson for lesson in lessons(recipe) if lesson.place[0] == "phases"]
    found: dict[tuple[str, str], list[set[str]]] = {}
    for number, lesson in enumerate(phases):
        if not is_preparation(lesson.phase):
            for method, pattern, name in terms_of(recipe, lesson, dataset, by):
                found.setdefault((method, pattern), [set() for _ in phases])[number].add(name)
    several = [method for method, _ in found]
    return [
        Part(
            method,
            pattern,
            tuple(map(frozenset, names)),
            f"{method}/{pattern}" if several.count(method) > 1 else method,
        )
        for (method, pattern), names in found.items()
    ]


def terms_of(recipe: Recipe, lesson: Lesson, dataset: Dataset, by: By) -> Iterator[tuple[str, str, str]]:
    """Method, pattern and full name of every term that is weighed at some time and reaches the student."""
    trial = trial_of(recipe, lesson, dataset)
    uses = {use.name: use for use in lesson.phase.methods}
    weights = [weight for weight in trial.objective.student.parameters() if weight.requires_grad]
    with trial.objective, trial.staff() as staff:
        trial.module.train()
        batch = next(iter(trial.loader.epoch(0)))
        answers = staff.ask(batch.images, batch.indices, 0)
        images = trial.normalize(batch.images)
        _, terms = trial.objective.terms(images, batch.labels, batch.indices, answers, 0, MIDDLE)
        for name, term in terms.items():
            use = uses.get(name.partition("/")[0])
            if use is None or not term.requires_grad:
                continue
            method = cast(Method, trial.objective.methods[use.name])
            reached = weights and grad(term, weights, retain_graph=True, allow_unused=True)
            if any(each is not None for each in reached) and counts(use, method.terms, name):
                yield use.name, "*" if by == "method" else pattern_of(method, short_name(use, name)), name


def pattern_of(method: Method, name: str) -> str:
    """What stands for a term and its like at other stages: the method's own pattern, or its name without the stage."""
    stages = set(method.student_features)
    plain = "/".join("*" if part in stages else part for part in name.split("/"))
    return next((pattern for pattern in method.terms if fnmatchcase(name, pattern)), plain)


def is_preparation(phase: Phase) -> bool:
    """Whether the student learns nothing in it."""
    return "*" in phase.freeze


def without(recipe: Recipe, dropped: Collection[Part], parts: Collection[Part]) -> tuple[Phase, ...]:
    """The recipe's phases without some of its parts; with none of them, the student on the labels alone.

    A method that has nothing left to say goes, and with it the phases that only prepared it.  A phase that is left
    with nothing to learn from learns from the labels, so that the student's epochs are always the same.
    """
    if len(dropped) == len(parts):
        return tuple(labels_only(phase) for phase in recipe.phases if not is_preparation(phase))
    silent = [silenced(phase, number, dropped, parts) for number, phase in enumerate(recipe.phases)]
    left = {use.name for phase in silent if not is_preparation(phase) for use in phase.methods}
    found = []
    for phase in silent:
        if is_preparation(phase):
            uses = tuple(use for use in phase.methods if use.name in left)
            found += [phase.model_copy(update={"methods": uses})] if uses else []
        else:
            found.append(phase if phase.methods or phase.cross_entropy.weight else labels_only(phase))
    return tuple(found)


def silenced(phase: Phase, number: int, dropped: Collection[Part], parts: Collection[Part]) -> Phase:
    """One phase with the parts' terms at weight 0, and without the methods that had no others."""
    uses = []
    for use in phase.methods:
        off = names_of(use, number, dropped)
        if not off or off < names_of(use, number, parts):
            zero = {short_name(use, name): TermUse(weight=0) for name in sorted(off)}
            kept = {pattern: term for pattern, term in use.terms.items() if pattern not in zero}
            uses.append(use.model_copy(update={"terms": zero | kept}))
    return phase.model_copy(update={"methods": tuple(uses)})


def names_of(use: MethodUse, number: int, parts: Collection[Part]) -> set[str]:
    return {name for part in parts if part.method == use.name for name in part.names[number]}
