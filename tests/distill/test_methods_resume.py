"""Every registered method goes on, after an interruption, as if there had been none; no teacher changes meanwhile."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fivelevels import FiveLevels, some_targets
from torch import Tensor, nn
from trainings import left, train_until

from kdedge.distill.base import METHODS, Method, Step, View
from kdedge.distill.job import Job
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import train
from kdedge.models.features import FeatureTap
from kdedge.models.zoo import build_model

SHAPE, CLASSES = (1, 8, 8), 4


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("resnet8", {}, CLASSES, SHAPE)


@pytest.mark.parametrize("name", [name for name in METHODS.names() if "classify" in METHODS.get(name).tasks])
def test_interrupted_training_by_a_method_ends_in_the_same_bytes_and_leaves_the_teacher_as_it_was(
    name: str, make_job: Callable[..., Job], teacher: FrozenTeacher, tmp_path: Path
) -> None:
    def job(folder: str) -> Job:
        parts: dict[str, Any] = {"student": network(1), "folder": tmp_path / folder}
        if METHODS.get(name).needs_teacher:
            parts["teachers"] = (teacher,)
        if METHODS.get(name).needs_peers:
            parts["peers"] = (network(2),)
        return make_job({"epochs": 3, "methods": [{"name": name}]}, **parts)  # four steps an epoch

    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    train(job("whole"))
    for step in (2, 6):
        train_until(job("parts"), step)
    train(job("parts"))
    assert left(job("parts")) == left(job("whole"))
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in teacher.parameters())


class DetectorTraining:
    """A detector that learns from a method alone, step by step; all that decides the next step is in its state."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(3)
        self.student, self.teacher = FiveLevels(4), FiveLevels(6).eval().requires_grad_(False)
        kind = METHODS.get(name)
        config = kind.Config.model_validate(kind.detector_options)
        self.method: Method = kind(config, self.student.network(), self.teacher.network())
        self.parts = nn.ModuleList([self.student, self.method])
        self.optimizer = torch.optim.SGD(self.parts.parameters(), lr=0.01, momentum=0.9)

    def step(self, number: int) -> None:
        images = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(number))
        views = []
        for network, wanted in (
            (self.student, self.method.student_features),
            (self.teacher, self.method.teacher_features),
        ):
            with FeatureTap(network, wanted) as tap:
                views.append(View(network(images), dict(tap.features)))
        student, teacher = views
        step = Step(some_targets(4), torch.arange(4), student, teacher, epoch=0, progress=0.5)
        self.optimizer.zero_grad()
        torch.stack(list(self.method(step).values())).sum().backward()
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        kept = {"parts": self.parts.state_dict(), "optimizer": self.optimizer.state_dict()}
        return copy.deepcopy(kept | {"random": torch.get_rng_state()})

    def load(self, state: dict[str, Any]) -> None:
        self.parts.load_state_dict(state["parts"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])


@pytest.mark.parametrize("name", [name for name in METHODS.names() if "detect" in METHODS.get(name).tasks])
def test_detector_goes_on_by_a_method_from_its_state_and_leaves_the_teacher_as_it_was(name: str) -> None:
    whole = DetectorTraining(name)
    before: dict[str, Tensor] = copy.deepcopy(whole.teacher.state_dict())
    whole.step(0)
    kept = whole.state()
    whole.step(1)
    parts = DetectorTraining(name)
    parts.load(kept)
    parts.step(1)
    torch.testing.assert_close(parts.parts.state_dict(), whole.parts.state_dict(), rtol=0, atol=0)
    assert not torch.equal(kept["parts"]["0.stem.0.weight"], whole.student.stem[0].weight)
    torch.testing.assert_close(whole.teacher.state_dict(), before, rtol=0, atol=0)
