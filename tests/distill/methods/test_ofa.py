import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from pydantic import ValidationError
from steps import logit_step, preset_total, random_logits

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, View
from kdedge.distill.methods.ofa import Ofa, OfaConfig, ofa_loss
from kdedge.models.features import FeaturePoint

LABELS = torch.tensor([3, 0, 9, 3, 7, 1])
POINTS = {"stage1": FeaturePoint("a", 4, 1), "stage2": FeaturePoint("b", 6, 2), "stage3": FeaturePoint("c", 8, 4)}
SIDE = 8


def student_network(points=POINTS, classes=10):
    return Network(points, classes, SIDE)


def teacher_network(classes=10):
    """Of any kind: not one of its features is looked at."""
    return Network({}, classes, SIDE)


def ofa(points=POINTS, **options):
    torch.manual_seed(0)
    return Ofa(OfaConfig(**options), student_network(points), teacher_network())


def staged_step():
    generator = torch.Generator().manual_seed(5)
    features = {
        name: torch.rand(6, point.channels, SIDE // point.stride, SIDE // point.stride, generator=generator)
        for name, point in POINTS.items()
    }
    step = logit_step(random_logits(seed=1), random_logits(seed=2), LABELS)
    return dataclasses.replace(step, student=View(step.student.logits, features))


def published_loss(student, teacher, labels, gamma):
    """The authors' sum, sample by sample, at temperature 1."""
    total = 0.0
    for z_student, z_teacher, label in zip(student, teacher, labels, strict=True):
        p, log_q = F.softmax(z_teacher, dim=0), F.softmax(z_student, dim=0).log()
        for k in range(len(p)):
            own = float(k == label)
            total -= ((p[k] + own) ** gamma - own) * log_q[k]
    return total / len(labels)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_ofa_loss_by_hand(temperature):
    # Teacher (1/4, 3/4), student (1/2, 1/2), label 0, gamma 2: ((5/4)^2 - 1 + (3/4)^2) log 2.
    teacher, student = temperature * torch.tensor([[1.0, 3.0]]).log(), torch.zeros(1, 2)
    loss = ofa_loss(student, teacher, torch.tensor([0]), 2.0, temperature)
    assert loss.item() == pytest.approx(temperature**2 * (25 / 16 - 1 + 9 / 16) * math.log(2), rel=1e-5)


def test_ofa_loss_without_lift_is_the_cross_entropy_with_the_teachers_answer():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    expected = F.cross_entropy(student, F.softmax(teacher, dim=1))
    torch.testing.assert_close(ofa_loss(student, teacher, LABELS, 1.0, 1.0), expected)


def test_ofa_loss_without_lift_is_least_where_the_student_says_what_the_teacher_says():
    teacher = random_logits(seed=2)
    student = teacher.clone().requires_grad_()
    ofa_loss(student, teacher, LABELS, 1.0, 4.0).backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-6)


def test_ofa_lift_pulls_towards_the_label():
    teacher = random_logits(seed=2)
    student = teacher.clone().requires_grad_()
    ofa_loss(student, teacher, LABELS, 1.5, 1.0).backward()
    assert (student.grad.gather(1, LABELS[:, None]) < 0).all()


@pytest.mark.parametrize("gamma", [1.0, 1.5])
def test_ofa_gradient_is_that_of_its_finite_differences(gamma):
    teacher = random_logits(seed=2)
    assert_gradient(lambda student: ofa_loss(student, teacher, LABELS, gamma, 2.0), random_logits(seed=1))


def test_ofa_gradient_reaches_every_stage_through_its_classifier():
    step = staged_step()
    for feature in step.student.features.values():
        feature.requires_grad_()
    terms = ofa()(step)
    for name, feature in step.student.features.items():
        (gradient,) = torch.autograd.grad(terms[f"ofa/{name}"], feature)
        assert gradient.any()


def test_ofa_computes_half_precision_logits_in_float32():
    student, teacher = (random_logits(scale=300.0, seed=n).half() for n in (1, 2))
    loss = ofa_loss(student, teacher, LABELS, 1.5, 1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == ofa_loss(student.float(), teacher.float(), LABELS, 1.5, 1.0).item()


def test_ofa_has_a_term_for_every_stage_and_the_students_own_logits():
    assert set(ofa()(staged_step())) == {"ofa/logits", "ofa/stage1", "ofa/stage2", "ofa/stage3"}


def test_ofa_looks_at_the_chosen_stages_alone():
    method = ofa(stages=("stage3", "stage1"))
    assert method.student_features == ("stage1", "stage3")
    assert method.teacher_features == ()
    assert set(method(staged_step())) == {"ofa/logits", "ofa/stage1", "ofa/stage3"}


def test_ofa_standardize_ignores_shift_and_scale_of_every_classifier():
    method, step = ofa(standardize=True), staged_step()
    before = method(step)
    with torch.no_grad():
        for head in method.heads.values():
            head.linear.weight.mul_(5)
            head.linear.bias.mul_(5).add_(3)
    moved = View(5 * step.student.logits - 3, step.student.features)
    after = method(dataclasses.replace(step, student=moved, teacher=View(0.1 * step.teacher.logits + 8)))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("preset", "gamma"), [("paper", 1.0), ("imagenet", 1.5)])
def test_ofa_preset_is_the_published_loss(preset, gamma):
    step = staged_step()
    torch.manual_seed(0)
    ours = preset_total("ofa", preset, step, student_network(), teacher_network())
    heads, features = ofa().heads, step.student.features  # the same seed, so the same classifiers
    answers = [step.student.logits, *(head(features[stage])[1] for stage, head in heads.items())]
    published = sum(published_loss(logits, step.teacher.logits, LABELS, gamma) for logits in answers)
    torch.testing.assert_close(ours, published, rtol=1e-4, atol=0)
    assert Ofa.presets[preset].cross_entropy == 1


@pytest.mark.parametrize(
    ("points", "classes", "options", "line"),
    [
        (
            POINTS,
            100,
            {},
            "ofa: the teacher scores 100 classes and the student 10: their probabilities are compared class by class",
        ),
        ({}, 10, {}, "ofa: the student has no stages: its classifiers stand on feature maps"),
        (POINTS, 10, {"stages": ("stage4",)}, "ofa: the student has no stage 'stage4': did you mean 'stage3'?"),
    ],
)
def test_ofa_refuses(points, classes, options, line):
    with pytest.raises(ModelError) as error:
        Ofa(OfaConfig(**options), student_network(points), teacher_network(classes))
    assert str(error.value).splitlines()[0] == line


@pytest.mark.parametrize("options", [{"gamma": 0.5}, {"temperature": 0}, {"stages": ()}, {"stages": "all"}])
def test_ofa_config_refuses(options):
    with pytest.raises(ValidationError):
        OfaConfig(**options)
