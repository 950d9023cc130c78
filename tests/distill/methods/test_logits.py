import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from pydantic import ValidationError

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.logits import Logits, LogitsConfig, kd_loss, standardized

KL = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)  # KL((3/4, 1/4) || (1/2, 1/2))


def random_logits(samples=6, classes=10, scale=3.0, seed=0):
    return scale * torch.randn(samples, classes, generator=torch.Generator().manual_seed(seed))


def step(student, teacher):
    count = torch.arange(len(student))
    return Step(torch.zeros_like(count), count, View(student), View(teacher), epoch=0, progress=0.0)


def logits_method(classes=10, teacher_classes=10, **options):
    return Logits(LogitsConfig(**options), Network({}, classes, 8), Network({}, teacher_classes, 8))


@pytest.mark.parametrize(("temperature", "by_hand"), [(1.0, KL), (2.0, 4 * KL)])
def test_kd_loss_of_two_classes(temperature, by_hand):
    teacher = torch.tensor([[temperature * math.log(3), 0.0]])  # softened: 3/4, 1/4
    assert kd_loss(torch.zeros(1, 2), teacher, temperature).item() == pytest.approx(by_hand, rel=1e-6)


def test_kd_loss_is_the_mean_over_samples_not_over_classes():
    student, teacher = torch.zeros(4, 2), torch.tensor([[math.log(3), 0.0]] + 3 * [[0.0, 0.0]])
    assert kd_loss(student, teacher, 1.0).item() == pytest.approx(KL / 4, rel=1e-6)


def test_kd_loss_is_zero_for_equal_probabilities():
    logits = random_logits()
    assert kd_loss(logits, logits + 5, 4.0).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kd_loss_agrees_with_scipy(temperature):
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    p_student, p_teacher = (scipy.special.softmax(z.numpy() / temperature, axis=1) for z in (student, teacher))
    expected = temperature**2 * scipy.stats.entropy(p_teacher, p_student, axis=1).mean()
    assert kd_loss(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_kd_loss_gradient_is_temperature_times_the_gap_of_probabilities():
    student, teacher = random_logits(samples=1, seed=1).requires_grad_(), random_logits(samples=1, seed=2)
    kd_loss(student, teacher, 4.0).backward()
    expected = 4.0 * (torch.softmax(student / 4, 1) - torch.softmax(teacher / 4, 1))
    torch.testing.assert_close(student.grad, expected.detach(), rtol=1e-4, atol=1e-6)


def test_kd_loss_computes_half_precision_logits_in_float32():
    student, teacher = random_logits(seed=1).half(), random_logits(seed=2).half()
    loss = kd_loss(student, teacher, 4.0)
    assert loss.dtype == torch.float32
    assert loss.item() == kd_loss(student.float(), teacher.float(), 4.0).item()


def test_kd_loss_refuses_logits_of_other_classes():
    with pytest.raises(RuntimeError, match="size"):
        kd_loss(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)


def test_standardized_row_by_hand():
    logits = torch.tensor([[1.0, 2.0, 3.0], [10.0, 30.0, 50.0]])  # sample deviations 1 and 20
    torch.testing.assert_close(standardized(logits), torch.tensor([[-1.0, 0.0, 1.0]] * 2))


def test_standardized_agrees_with_scipy():
    logits = random_logits()
    np.testing.assert_allclose(
        standardized(logits), scipy.stats.zscore(logits.numpy(), axis=1, ddof=1), rtol=1e-4, atol=1e-6
    )


def test_standardized_constant_row_is_zero_with_a_finite_gradient():
    logits = torch.full((1, 4), 7.0, requires_grad=True)
    out = standardized(logits)
    out.square().sum().backward()
    assert torch.equal(out, torch.zeros(1, 4))
    assert logits.grad.isfinite().all()


def test_standardize_ignores_shift_and_scale_of_either_network():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    moved = step(5 * student - 3, 0.1 * teacher + 8)
    terms = [
        logits_method(temperature=2, standardize=True).loss(s)["logits/kd"] for s in (step(student, teacher), moved)
    ]
    torch.testing.assert_close(*terms, rtol=1e-4, atol=1e-6)
    plain = [logits_method(temperature=2).loss(s)["logits/kd"].item() for s in (step(student, teacher), moved)]
    assert abs(plain[0] - plain[1]) > 0.1


def test_logits_uses_its_temperature():
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]])
    loss = logits_method(classes=2, teacher_classes=2, temperature=2).loss(step(student, teacher))["logits/kd"]
    assert loss.item() == pytest.approx(4 * KL, rel=1e-6)


def test_logits_refuses_a_teacher_of_other_classes():
    with pytest.raises(ModelError, match="the teacher scores 100 classes and the student 10"):
        logits_method(teacher_classes=100)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": -4}, {"standardise": True}])
def test_logits_config_refuses(options):
    with pytest.raises(ValidationError):
        LogitsConfig(**options)
