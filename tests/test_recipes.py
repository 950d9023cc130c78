"""Every shipped recipe, found by walking: it builds, and its networks and methods suit each other."""

import pytest
import torch

from kdedge.core.load import load_recipe, shipped
from kdedge.data.locate import LAYOUTS
from kdedge.data.outline import Outline, stand_in
from kdedge.distill.trainer import PhaseRun
from kdedge.pipeline import trial
from kdedge.pipeline.places import lessons

RECIPES = {name: load_recipe(str(path)).recipe for name, path in shipped("recipes").items()}
LESSONS = {
    f"{name}-{'.'.join(map(str, one.place))}": (RECIPES[name], one)
    for name in RECIPES
    for one in lessons(RECIPES[name])
}


def known(data):
    """As the set is published; of detectors one size is as good as another, and a small one quick."""
    layout = LAYOUTS[data.name]
    return Outline(20, (3, 96, 96)) if layout.boxes else Outline(layout.classes, layout.shape)


@pytest.mark.parametrize(("recipe", "lesson"), LESSONS.values(), ids=LESSONS)
def test_phase_of_a_recipe_takes_a_step_without_touching_its_teachers(recipe, lesson, monkeypatch):
    steps = []
    monkeypatch.setattr(trial, "PhaseRun", lambda *parts: steps.append(PhaseRun(*parts)) or steps[-1])
    trial.try_lesson(recipe, lesson, stand_in(recipe.data, known(recipe.data), trial.TRIAL_IMAGES))
    (phase,) = steps
    trained = [p for p in phase.objective.parameters() if p.requires_grad]
    assert all(p.grad.isfinite().all() for p in trained if p.grad is not None)
    assert any(p.grad is not None and p.grad.any() for p in trained)
    assert not any(p.requires_grad or p.grad is not None for teacher in phase.teachers for p in teacher.parameters())
    before = [p.detach().clone() for p in trained]
    phase.stepper.step()
    assert any(not torch.equal(p, old) for p, old in zip(trained, before, strict=True))
