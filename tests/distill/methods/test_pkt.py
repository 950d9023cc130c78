import math

import pytest
import torch
from gradient import assert_gradient

from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.pkt import PKT, PKTConfig, neighbor_probabilities, pkt_loss
from kdedge.models.features import FeaturePoint


def vectors(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_neighbor_probabilities_by_hand():
    samples = torch.tensor([[2.0, 0.0], [0.0, 5.0]])  # affinities 1 and 1/2
    torch.testing.assert_close(neighbor_probabilities(samples), torch.tensor([[2 / 3, 1 / 3], [1 / 3, 2 / 3]]))


def test_pkt_loss_by_hand():
    apart, alike = torch.eye(2), torch.ones(2, 3)  # rows (2/3, 1/3) against (1/2, 1/2)
    expected = (math.log((1 / 2) / (2 / 3)) + math.log((1 / 2) / (1 / 3))) / 2
    assert pkt_loss(apart, alike).item() == pytest.approx(expected, rel=1e-5)


def test_pkt_loss_is_zero_for_vectors_that_differ_by_scale_and_width():
    x = vectors(6, 4)
    assert pkt_loss(x, 3 * x.repeat(1, 2)).item() == pytest.approx(0, abs=1e-6)


def test_pkt_loss_gradient():
    assert_gradient(pkt_loss, vectors(5, 3), vectors(5, 4, seed=1))


def test_pkt_loss_does_not_depend_on_the_size_of_the_batch():
    student, teacher = vectors(5, 3), vectors(5, 4, seed=1)
    twice = pkt_loss(torch.cat([student, student]), torch.cat([teacher, teacher]))
    torch.testing.assert_close(twice, pkt_loss(student, teacher), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("other", [[-1.0, 0.0], [0.0, 0.0]], ids=["opposite", "dead"])
def test_pkt_loss_of_degenerate_vectors_has_a_moderate_gradient(other):
    student = torch.tensor([[1.0, 0.0], other, [1.0, 1.0]], requires_grad=True)
    loss = pkt_loss(student, vectors(3, 3))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.abs().max() < 10


def test_pkt_loss_computes_half_precision_in_float32():
    student, teacher = 300 * vectors(5, 3).half(), vectors(5, 4, seed=1).half()
    with torch.autocast("cpu", torch.float16):
        loss = pkt_loss(student, teacher)
    assert loss.item() == pkt_loss(student.float(), teacher.float()).item()


def test_pkt_benchmark_preset_is_the_published_loss_at_batch_64():
    def probabilities(x):
        x = x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-7)
        affinity = (x.mm(x.t()) + 1) / 2
        return affinity / affinity.sum(1, keepdim=True)

    student, teacher = vectors(64, 16), vectors(64, 32, seed=1)
    p_student, p_teacher = probabilities(student), probabilities(teacher)
    published = 30000 * (p_teacher * torch.log((p_teacher + 1e-7) / (p_student + 1e-7))).mean()
    [weight] = PKT.presets["benchmark"].terms.values()
    torch.testing.assert_close(weight * pkt_loss(student, teacher), published, rtol=1e-4, atol=0)


def test_pkt_compares_penultimate_features():
    points = {"stage1": FeaturePoint("stage1", 4, 1), "stage2": FeaturePoint("stage2", 8, 2)}
    student, teacher = Network(points, 10, 8), Network({"only": FeaturePoint("only", 6, 4)}, 10, 8)
    method = PKT(PKTConfig(), student, teacher)
    maps = {"stage2": vectors(3, 8, 4, 4)}, {"only": vectors(3, 6, 2, 2, seed=1)}
    assert (method.student_features, method.teacher_features) == (("stage2",), ("only",))
    views = [View(torch.zeros(3, 10), features) for features in maps]
    terms = method.loss(Step(torch.arange(3), torch.arange(3), *views, epoch=0, progress=0.0))
    expected = pkt_loss(maps[0]["stage2"].mean((2, 3)), maps[1]["only"].mean((2, 3)))
    assert {name: term.item() for name, term in terms.items()} == {"pkt/neighbors": expected.item()}
