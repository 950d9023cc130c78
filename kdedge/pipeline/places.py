"""Every network and every phase of a recipe, with its place in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdedge.core.recipe import Model, Recipe, Teacher
from kdedge.core.source import KeyPath
from kdedge.core.training import Phase


@dataclass(frozen=True)
class Lesson:
    """A phase, who is trained by it, and whom that one learns from and with."""

    place: KeyPath
    phase: Phase
    student: Model
    teachers: tuple[Teacher, ...]
    peers: tuple[Model, ...] = ()
    before: Phase | None = None
    """The phase that it goes on from."""


def networks(recipe: Recipe) -> dict[KeyPath, Model]:
    peers: dict[KeyPath, Model] = {("peers", number): peer for number, peer in enumerate(recipe.peers)}
    return {("student",): recipe.student, **teachers_of(recipe.teachers), **peers}


def teachers_of(teachers: Sequence[Teacher], place: KeyPath = ()) -> dict[KeyPath, Teacher]:
    """Teachers, and their own teachers."""
    found: dict[KeyPath, Teacher] = {}
    for number, teacher in enumerate(teachers):
        path: KeyPath = (*place, "teachers", number)
        found |= {path: teacher, **teachers_of(teacher.teachers, path)}
    return found


def lessons(recipe: Recipe) -> Iterator[Lesson]:
    for path, teacher in teachers_of(recipe.teachers).items():
        if teacher.training:
            yield Lesson((*path, "training"), teacher.training, teacher, teacher.teachers)
    for index, phase in enumerate(recipe.phases):
        before = recipe.phases[index - 1] if index else None
        yield Lesson(("phases", index), phase, recipe.student, recipe.teachers, recipe.peers, before)
