import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from steps import logit_step, preset_total, random_logits

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network
from kdedge.distill.methods.dist import Dist, correlation, relation_losses
from kdedge.distill.methods.logits import LogitsConfig


def network(classes=10):
    return Network({}, classes, 8)


def test_correlation_by_hand():
    left = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 0.0, 3.0]])
    right = torch.tensor([[2.0, 4.0, 6.0], [6.0, 4.0, 2.0], [0.0, 3.0, 0.0]])
    assert correlation(left, right).tolist() == pytest.approx([1.0, -1.0, -0.5])


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_correlation_agrees_with_numpy_at_any_size(size):
    left, right = random_logits(seed=1), random_logits(seed=2)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(left.numpy(), right.numpy(), strict=True)]
    assert correlation(size * left, right).tolist() == pytest.approx(expected, abs=1e-5)


def test_correlation_of_a_constant_row_is_zero():
    rows = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [0.3, 0.3 + 1e-7, 0.3]])
    assert correlation(rows, torch.tensor([[0.1, 0.2, 0.7]] * 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-3)


def test_dist_losses_by_hand():
    # Two samples of three classes with probabilities in quarters.  Rows: (2, 1, 1) and (1, 1, 2) of the teacher against
    # (2, 1, 1) and (1, 2, 1): correlations 1 and -1/2.  Columns: (2, 1), (1, 1), (1, 2) against (2, 1), (1, 2), (1, 1):
    # 1, and 0 twice, since one side is constant.
    teacher = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]).log()
    student = torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0]]).log()
    inter, intra = relation_losses(student, teacher, 1.0)
    assert inter.item() == pytest.approx(1 - (1 - 0.5) / 2, rel=1e-5)
    assert intra.item() == pytest.approx(1 - 1 / 3, rel=1e-5)
    softened = relation_losses(3 * student, 3 * teacher, 3.0)
    assert [loss.item() for loss in softened] == pytest.approx([9 * inter.item(), 9 * intra.item()], rel=1e-5)


def test_dist_losses_are_zero_for_equal_probabilities():
    logits = random_logits()
    for loss in relation_losses(logits, logits + 5, 4.0):
        assert loss.item() == pytest.approx(0, abs=1e-4)


def test_dist_inter_ignores_what_keeps_the_relations_of_a_row():
    p = F.softmax(random_logits(), dim=1)
    flatter = (0.5 * p + 0.05).log()  # rows still sum to one
    assert relation_losses(flatter, p.log(), 1.0)[0].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("which", [0, 1], ids=["inter", "intra"])
def test_dist_gradient_is_that_of_its_finite_differences(which):
    teacher = random_logits(seed=2)
    assert_gradient(lambda student: relation_losses(student, teacher, 4.0)[which], random_logits(seed=1))


def test_dist_gradient_of_a_student_that_says_the_same_of_every_image_is_bounded():
    student = torch.zeros(8, 10, requires_grad=True)
    torch.stack(relation_losses(student, random_logits(8), 1.0)).sum().backward()
    assert 0 < student.grad.norm() < 1 / 1e-3


def test_dist_gradient_of_a_batch_of_one_is_finite():
    student = random_logits(1, seed=1).requires_grad_()
    torch.stack(relation_losses(student, random_logits(1, seed=2), 4.0)).sum().backward()
    assert student.grad.isfinite().all()


def test_dist_computes_half_precision_logits_in_float32():
    student, teacher = (random_logits(scale=30.0, seed=n).half() for n in (1, 2))
    pairs = relation_losses(student, teacher, 4.0), relation_losses(student.float(), teacher.float(), 4.0)
    assert all(loss.dtype == torch.float32 for loss in pairs[0])
    assert [loss.item() for loss in pairs[0]] == [loss.item() for loss in pairs[1]]


@pytest.mark.parametrize(("preset", "temperature"), [("paper", 4), ("imagenet", 1)])
def test_dist_preset_is_the_published_loss(preset, temperature):
    student, teacher = random_logits(32, seed=1), random_logits(32, seed=2)
    p, q = (F.softmax(z.double() / temperature, dim=1).numpy() for z in (teacher, student))
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    published = temperature**2 * (2 * inter + 2 * intra)
    ours = preset_total("dist", preset, logit_step(student, teacher), network(), network())
    assert math.isclose(ours.item(), published, rel_tol=1e-4)
    assert Dist.presets[preset].cross_entropy == 1


def test_dist_refuses_a_teacher_of_other_classes():
    with pytest.raises(ModelError) as error:
        Dist(LogitsConfig(), network(), network(100))
    line = "dist: the teacher scores 100 classes and the student 10: their probabilities are compared class by class"
    assert str(error.value).splitlines()[0] == line
