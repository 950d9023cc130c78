"""A student and its exits as one network."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdedge.distill.base import Method, MethodConfig, Network, Step, View
from kdedge.distill.exits import Branched, exit_stages
from kdedge.distill.methods.self_distill import SelfDistill, SelfDistillConfig
from kdedge.models.cost import cost
from kdedge.models.features import FeaturePoint, feature_points
from kdedge.models.zoo import build_model

SHAPE = (3, 16, 16)
POINTS = {
    "stage1": FeaturePoint("one", 4, 1),
    "stage2": FeaturePoint("two", 8, 2),
    "stage3": FeaturePoint("three", 8, 4),
}


class Student(nn.Module):
    """Three convolutions of 3x3 on maps of 16, 8 and 4 pixels, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.two = nn.Conv2d(4, 8, 3, 2, 1, bias=False)
        self.three = nn.Conv2d(8, 8, 3, 2, 1, bias=False)
        self.classifier = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.three(self.two(self.one(images).relu()).relu()).mean(dim=(2, 3)))
        return out


class Heads(Method):
    """A linear exit after the first and the second stage, and a layer that is only for training."""

    Config = MethodConfig
    needs_teacher = False

    def __init__(self, config: MethodConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        self.student_features = ("stage1", "stage2")
        self.heads = nn.ModuleDict({"stage2": nn.Linear(8, 5), "stage1": nn.Linear(4, 5)})
        self.adapter = nn.Linear(100, 100)

    def loss(self, step: Step) -> dict[str, Tensor]:
        return {}

    def exits(self, student: View) -> dict[str, Tensor]:
        features = student.features
        return {name: head(features[name].mean(dim=(2, 3))) for name, head in self.heads.items() if name in features}


@pytest.fixture
def parts() -> tuple[Student, Heads]:
    torch.manual_seed(0)
    return Student(), Heads(MethodConfig(), Network(POINTS, 5, 16), None)


def test_exits_are_found_in_the_order_of_the_students_stages(parts: tuple[Student, Heads]) -> None:
    assert exit_stages(*parts, POINTS, SHAPE) == ["stage1", "stage2"]


def test_each_exit_is_its_head_on_its_stage(parts: tuple[Student, Heads]) -> None:
    student, method = parts
    images = torch.randn(2, *SHAPE)
    first = student.one(images)
    second = student.two(first.relu())
    wanted = [
        method.heads["stage1"](first.mean(dim=(2, 3))),
        method.heads["stage2"](second.mean(dim=(2, 3))),
        student(images),
    ]
    for stage, logits in zip(POINTS, wanted, strict=True):
        torch.testing.assert_close(Branched(student, method, POINTS, [stage])(images), logits)
    torch.testing.assert_close(Branched(student, method, POINTS, list(POINTS))(images), tuple(wanted))
    found = Branched(student, method, POINTS, list(POINTS), ["stage1", "stage2"])(images)
    torch.testing.assert_close(found, (*wanted, first, second))


@pytest.mark.parametrize(
    ("stages", "run"),
    [(["stage1"], ["one"]), (["stage2"], ["one", "two"]), (["stage1", "stage2"], ["one", "two"])],
)
def test_nothing_runs_behind_the_last_exit_that_is_wanted(
    parts: tuple[Student, Heads], stages: list[str], run: list[str]
) -> None:
    student, method = parts
    seen: list[str] = []
    for name, module in student.named_children():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))  # type: ignore[misc]
    Branched(student, method, POINTS, stages)(torch.randn(1, *SHAPE))
    assert seen == run
    assert len(student.one._forward_hooks) == len(student.three._forward_hooks) == 1


@pytest.mark.parametrize(
    ("stages", "params", "macs"),
    [
        (["stage1"], 108 + 25, 108 * 256 + 20),
        (["stage2"], 108 + 288 + 45, 108 * 256 + 288 * 64 + 40),
        (["stage1", "stage2"], 108 + 288 + 25 + 45, 108 * 256 + 288 * 64 + 60),
        (["stage3"], 108 + 288 + 576 + 45, 108 * 256 + 288 * 64 + 576 * 16 + 40),
        (list(POINTS), 108 + 288 + 576 + 45 + 70, 108 * 256 + 288 * 64 + 576 * 16 + 100),
    ],
)
def test_cost_is_that_of_what_is_run(parts: tuple[Student, Heads], stages: list[str], params: int, macs: int) -> None:
    found = Branched(*parts, POINTS, stages).cost(SHAPE)
    assert (found.params, found.macs, found.weight_bytes) == (params, macs, 4 * params)


def test_cost_counts_what_does_not_train(parts: tuple[Student, Heads]) -> None:
    """4 x 3 x 9 weights of the first convolution, 4 x 5 + 5 of its exit."""
    student, heads = parts
    heads.requires_grad_(False)
    price = Branched(student, heads, POINTS, ["stage1"]).cost(SHAPE)
    assert price.params == 108 + 25


@pytest.mark.parametrize(("name", "options"), [("resnet8", {"conv": "depthwise"}), ("vgg8", {"width": 0.25})])
def test_self_distilled_networks_end_in_the_student_itself(name: str, options: dict[str, Any]) -> None:
    student = build_model(name, options, 10, (3, 32, 32)).eval()
    points = feature_points(student, (3, 32, 32))
    method = SelfDistill(SelfDistillConfig(), Network(points, 10, 32), None).eval()
    stages = exit_stages(student, method, points, (3, 32, 32))
    assert stages == list(points)[:-1]
    alone, whole = cost(student, (3, 32, 32)), Branched(student, method, points, list(points)[-1:]).cost((3, 32, 32))
    assert (whole.params, whole.macs) == (alone.params, alone.macs)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        answers = Branched(student, method, points, list(points))(images)
        torch.testing.assert_close(answers[-1], student(images))
        for stage, logits in zip(stages, answers, strict=False):
            torch.testing.assert_close(Branched(student, method, points, [stage])(images), logits)
