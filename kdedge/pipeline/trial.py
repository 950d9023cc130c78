"""The losses of a phase on a few images of noise: do its methods suit its networks?"""

from pathlib import Path

from kdedge.core.recipe import Recipe
from kdedge.data.sets import Dataset
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.trainer import PhaseRun
from kdedge.pipeline.networks import build, build_peers, untrained_teacher
from kdedge.pipeline.places import Lesson

TRIAL_IMAGES = 4


def try_lesson(recipe: Recipe, lesson: Lesson, dataset: Dataset) -> None:
    """Raises KdedgeError when the phase cannot train."""
    trial = trial_of(recipe, lesson, dataset)
    with trial.objective, trial.staff() as staff:
        trial.module.train()
        trial.forward_backward(next(iter(trial.loader.epoch(0))), staff, 0, 0.0)


def trial_of(recipe: Recipe, lesson: Lesson, dataset: Dataset) -> PhaseRun:
    """The phase before its first step, from random weights, on batches of the few images."""
    phase = lesson.phase.model_copy(update={"batch": TRIAL_IMAGES})
    run = recipe.run.model_copy(update={"devices": 1, "compile": False})
    teachers = tuple(untrained_teacher(teacher, dataset, recipe.seed) for teacher in lesson.teachers)
    peers = build_peers(lesson.peers, dataset, recipe.seed)
    student = build(lesson.student, dataset, recipe.seed)
    nowhere = Path()  # nothing is written
    job = Job("trial", student, dataset, recipe.data, (phase,), run, recipe.seed, nowhere, "", teachers, peers)
    return PhaseRun(make_fabric(run), job, 0, 0, None, None)
