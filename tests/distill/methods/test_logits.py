import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from pydantic import ValidationError
from steps import logit_step, preset_total, random_logits

from kdedge.core.errors import ModelError
from kdedge.distill.base import METHODS, Network
from kdedge.distill.methods.logits import Logits, LogitsConfig, kd_loss, other_classes, standardized

KL = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)  # KL((3/4, 1/4) || (1/2, 1/2))


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


def test_kd_loss_gradient_is_that_of_its_finite_differences():
    teacher = random_logits(seed=2)
    assert_gradient(lambda student: kd_loss(student, teacher, 4.0), random_logits(seed=1))
    assert_gradient(lambda student: kd_loss(standardized(student), teacher, 2.0), random_logits(seed=1))


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


def test_other_classes_are_all_but_the_label():
    logits = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert other_classes(logits, torch.tensor([0, 1, 2])).tolist() == [[2.0, 3.0], [3.0, 1.0], [1.0, 2.0]]


@pytest.mark.parametrize("name", ["logits", "dkd", "nkd", "dist"])
def test_standardize_ignores_shift_and_scale_of_either_network(name):
    kind, ten = METHODS.get(name), Network({}, 10, 8)
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    steps = [logit_step(student, teacher), logit_step(5 * student - 3, 0.1 * teacher + 8)]
    asked, plain = (kind(kind.Config(temperature=2, standardize=on), ten, ten) for on in (True, False))
    torch.testing.assert_close(asked(steps[0]), asked(steps[1]), rtol=1e-4, atol=1e-6)
    for term, value in plain(steps[0]).items():
        assert abs(value - plain(steps[1])[term]) > 0.05


@pytest.mark.parametrize(
    ("preset", "temperature", "weight", "labels", "scale"),
    [("cifar", 4, 0.9, 0.1, False), ("imagenet", 1, 0.5, 0.5, False), ("standardized", 2, 9, 0.1, True)],
)
def test_logits_preset_is_the_published_loss(preset, temperature, weight, labels, scale):
    student, teacher, ten = random_logits(seed=1), random_logits(seed=2), Network({}, 10, 8)
    z_student, z_teacher = (
        (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True) if scale else z for z in (student, teacher)
    )
    p, q = F.softmax(z_teacher / temperature, 1), F.softmax(z_student / temperature, 1)
    published = weight * (p * (p / q).log()).sum(1).mean() * temperature**2
    ours = preset_total("logits", preset, logit_step(student, teacher), ten, ten)
    torch.testing.assert_close(ours, published, rtol=1e-4, atol=0)
    assert Logits.presets[preset].cross_entropy == labels


def test_logits_uses_its_temperature():
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]])
    loss = logits_method(classes=2, teacher_classes=2, temperature=2).loss(logit_step(student, teacher))["logits/kd"]
    assert loss.item() == pytest.approx(4 * KL, rel=1e-6)


def test_logits_refuses_a_teacher_of_other_classes():
    with pytest.raises(ModelError, match="the teacher scores 100 classes and the student 10"):
        logits_method(teacher_classes=100)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": -4}, {"standardise": True}])
def test_logits_config_refuses(options):
    with pytest.raises(ValidationError):
        LogitsConfig(**options)
