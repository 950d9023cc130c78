import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from pydantic import ValidationError
from steps import logit_step, preset_total, random_logits

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network
from kdedge.distill.methods.nkd import Nkd, NkdConfig, nontarget_loss, target_loss

LABELS = torch.tensor([3, 0, 9, 3, 7, 1])


def network(classes=10):
    return Network({}, classes, 8)


def published_loss(student, teacher, labels, temperature, gamma):
    """The paper's sums, sample by sample."""
    total = 0.0
    for z_student, z_teacher, label in zip(student, teacher, labels, strict=True):
        p, q = F.softmax(z_teacher, dim=0), F.softmax(z_student, dim=0)
        rest = torch.arange(len(p)) != label
        p_soft, q_soft = F.softmax(z_teacher / temperature, dim=0), F.softmax(z_student / temperature, dim=0)
        p_rest, q_rest = (x[rest] / x[rest].sum() for x in (p_soft, q_soft))
        total -= p[label] * q[label].log() + gamma * temperature**2 * (p_rest * q_rest.log()).sum()
    return total / len(labels)


def test_nkd_losses_by_hand():
    # Teacher (1/2, 3/8, 1/8), student (1/4, 1/4, 1/2), label 0.
    teacher, student = torch.tensor([[4.0, 3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0, 2.0]]).log()
    label = torch.tensor([0])
    assert target_loss(student, teacher, label).item() == pytest.approx(-0.5 * math.log(1 / 4), rel=1e-5)
    by_hand = -(0.75 * math.log(1 / 3) + 0.25 * math.log(2 / 3))
    assert nontarget_loss(student, teacher, label, 1.0).item() == pytest.approx(by_hand, rel=1e-5)
    assert nontarget_loss(2 * student, 2 * teacher, label, 2.0).item() == pytest.approx(4 * by_hand, rel=1e-5)


def test_nkd_nontarget_is_least_where_the_student_says_what_the_teacher_says():
    teacher = random_logits(seed=2)
    student = teacher.clone().requires_grad_()
    nontarget_loss(student, teacher, LABELS, 3.0).backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-6)


def test_nkd_target_gradient_is_the_labels_times_how_sure_the_teacher_is():
    student, teacher = random_logits(1, seed=1).requires_grad_(), random_logits(1, seed=2)
    target_loss(student, teacher, torch.tensor([3])).backward()
    sure = F.softmax(teacher, dim=1)[0, 3]
    expected = sure * (F.softmax(student, dim=1) - F.one_hot(torch.tensor([3]), 10))
    torch.testing.assert_close(student.grad, expected.detach())


def test_nkd_gradients_are_those_of_finite_differences():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    assert_gradient(lambda z: target_loss(z, teacher, LABELS), student)
    assert_gradient(lambda z: nontarget_loss(z, teacher, LABELS, 3.0), student)


def test_nkd_computes_half_precision_logits_in_float32():
    student, teacher = (random_logits(scale=300.0, seed=n).half() for n in (1, 2))
    for loss in (target_loss, lambda *pair: nontarget_loss(*pair, 3.0)):
        value = loss(student, teacher, LABELS)
        assert value.dtype == torch.float32
        assert value.item() == loss(student.float(), teacher.float(), LABELS).item()


@pytest.mark.parametrize(("preset", "temperature", "gamma"), [("paper", 3, 3.5), ("imagenet", 1, 1.5)])
def test_nkd_preset_is_the_published_loss(preset, temperature, gamma):
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    ours = preset_total("nkd", preset, logit_step(student, teacher, LABELS), network(), network())
    published = published_loss(student, teacher, LABELS, temperature, gamma)
    torch.testing.assert_close(ours, published, rtol=1e-5, atol=0)
    assert Nkd.presets[preset].cross_entropy == 1


@pytest.mark.parametrize(
    ("classes", "teacher_classes", "line"),
    [
        (
            10,
            100,
            "nkd: the teacher scores 100 classes and the student 10: their probabilities are compared class by class",
        ),
        (2, 2, "nkd: the networks score 2 classes: it compares the wrong ones with each other, which takes 3 in all"),
    ],
)
def test_nkd_refuses(classes, teacher_classes, line):
    with pytest.raises(ModelError) as error:
        Nkd(NkdConfig(), network(classes), network(teacher_classes))
    assert str(error.value).splitlines()[0] == line


def test_nkd_config_refuses_a_temperature_of_zero():
    with pytest.raises(ValidationError):
        NkdConfig(temperature=0)
