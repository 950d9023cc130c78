"""The second half of recipe checking: do the names and options in it exist, and where stands each that does not."""

from collections.abc import Callable, Iterator
from functools import partial

from pydantic import ValidationError

from kdedge.core import console
from kdedge.core.errors import KdedgeError
from kdedge.core.load import explain
from kdedge.core.recipe import Model, Recipe
from kdedge.core.source import KeyPath, Problem, report_problems
from kdedge.core.training import MethodUse
from kdedge.data.build import DATASETS
from kdedge.data.locate import LAYOUTS, layout_of
from kdedge.data.outline import outline, stand_in
from kdedge.data.sets import Dataset
from kdedge.distill.base import METHODS
from kdedge.distill.objective import listens_to
from kdedge.engine.base import backend
from kdedge.models.zoo import own_builder
from kdedge.pipeline.heads import choose_exits
from kdedge.pipeline.networks import build, check_start, start
from kdedge.pipeline.places import Lesson, lessons, networks
from kdedge.pipeline.project import Project
from kdedge.pipeline.trial import TRIAL_IMAGES, try_lesson


def check_names(project: Project) -> None:
    """Raises RecipeError with every data set, network, backbone, backend, method or option that does not exist."""
    recipe = project.recipe
    looked_up: list[tuple[KeyPath, Callable[[], object]]] = [
        (("data", "name"), lambda: check_data(recipe)),
        (("export", "backend"), lambda: backend(recipe.export.backend)),
    ]
    for path, model in networks(recipe).items():
        if ":" not in model.name:  # torchvision's and timm's are looked up where they are built
            looked_up.append(((*path, "name"), lambda name=model.name: own_builder(name, recipe.task)))  # type: ignore[misc]
        if model.backbone:
            looked_up.append(((*path, "backbone"), lambda model=model: project.backbone(model)))  # type: ignore[misc]
    problems = [found for path, look_up in looked_up if (found := attempt(project, path, look_up))]
    for lesson in lessons(recipe):
        problems += check_methods(project, lesson)
    if not problems:
        problems = [found for lesson in lessons(recipe) for found in check_order(project, lesson)]
    if problems:
        raise report_problems(project.source.name, problems)


def check_data(recipe: Recipe) -> None:
    """Raises KdedgeError for a data set that does not exist, or is not of the recipe's task."""
    DATASETS.get(recipe.data.name)
    boxes = layout_of(recipe.data.name).boxes
    if recipe.task == "classify" and boxes:
        why = "task: classify is for one label an image"
        raise KdedgeError(f"data set {recipe.data.name!r} has boxes", why, "task: detect")
    if recipe.task == "detect" and not boxes:
        able = ", ".join(name for name, layout in LAYOUTS.items() if layout.boxes)
        raise KdedgeError(f"data set {recipe.data.name!r} has no boxes", f"task: detect is for {able}")


def check_methods(project: Project, lesson: Lesson) -> Iterator[Problem]:
    for number, use in enumerate(lesson.phase.methods):
        path: KeyPath = (*lesson.place, "methods", number)
        if found := attempt(project, (*path, "name"), lambda use=use: METHODS.get(use.name)):  # type: ignore[misc]
            yield found
            continue
        kind = METHODS.get(use.name)
        teachers = len(lesson.teachers)
        listening = partial(listens_to, use, kind.needs_teacher, teachers)
        if found := attempt(project, (*path, "name"), listening):
            yield found
        if kind.needs_peers and not lesson.peers:
            yield project.source.problem((*path, "name"), f"{use.name} needs peers, and the recipe has none")
        yield from check_options(project, use, (*path, "options"))


def check_options(project: Project, use: MethodUse, path: KeyPath) -> Iterator[Problem]:
    config = METHODS.get(use.name).Config
    try:
        config.model_validate(use.options)
    except ValidationError as error:
        for detail in error.errors():
            yield explain(project.source, detail, config, path)


def check_order(project: Project, lesson: Lesson) -> Iterator[Problem]:
    before = {use.name: use.options for use in lesson.before.methods} if lesson.before else {}
    for number, use in enumerate(lesson.phase.methods):
        going_on = partial(METHODS.get(use.name).check_order, use.options, before.get(use.name))
        if found := attempt(project, (*lesson.place, "methods", number), going_on):
            yield found


def check_networks(project: Project) -> None:
    """Try the recipe on a few images of noise, before any data is read.

    Raises:
        RecipeError: with every network that does not build under its name and options or has not the exits to export,
            and every phase whose methods do not suit the networks.
    """
    data = project.recipe.data
    dataset = stand_in(data, outline(data), TRIAL_IMAGES)
    problems = [
        found
        for path, model in networks(project.recipe).items()
        if (found := attempt(project, path, lambda model=model: try_start(project, model, dataset)))  # type: ignore[misc]
    ]
    if not problems:
        found = attempt(project, ("student", "lighten"), lambda: check_start(project.recipe, dataset))
        problems = [found] if found else []
    if not problems:
        student = build(project.recipe.student, dataset, 0)
        found = attempt(project, ("export", "exits"), lambda: choose_exits(project.recipe, dataset, student))
        problems = [found] if found else []
    if not problems:
        trials = {each.place: partial(try_lesson, project.recipe, each, dataset) for each in lessons(project.recipe)}
        problems = [found for place, trial in trials.items() if (found := attempt(project, place, trial))]
    if problems:
        raise report_problems(project.source.name, problems)


def try_start(project: Project, model: Model, dataset: Dataset) -> None:
    """Build a network as its training begins with it, and say what of its backbone is not kept."""
    _, rewritten = start(project, model, dataset)
    fresh = sum(step.path.startswith("backbone.") for step in rewritten)
    if model.backbone and fresh:
        console.say(f"{model.name}: {fresh} lightened convolutions of its backbone do not start from {model.backbone}")


def attempt(project: Project, path: KeyPath, look_up: Callable[[], object]) -> Problem | None:
    try:
        look_up()
    except KdedgeError as error:
        return project.source.problem(path, str(error).replace("\n  ", "; "))
    return None
