import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient

from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.rkd import RKD, RKDConfig, angle_loss, angles, distance_loss, relative_distances
from kdedge.models.features import FeaturePoint

LOSSES = pytest.mark.parametrize("loss", [distance_loss, angle_loss])
TRIANGLE = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])  # sides 3, 4, 5


def vectors(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_relative_distances_by_hand():
    by_hand = torch.tensor([[0.0, 3.0, 4.0], [3.0, 0.0, 5.0], [4.0, 5.0, 0.0]]) / 4  # their mean is 4
    torch.testing.assert_close(relative_distances(TRIANGLE), by_hand)


def test_distance_loss_by_hand():
    line = torch.tensor([[0.0], [1.0], [3.0]])  # distances 1, 3, 2 of mean 2
    gaps = 3 / 4 - 1 / 2, 4 / 4 - 3 / 2, 5 / 4 - 2 / 2
    assert distance_loss(line, TRIANGLE).item() == pytest.approx(2 * sum(gap**2 / 2 for gap in gaps) / 9, rel=1e-5)


def test_distance_loss_is_linear_beyond_one():
    line = torch.tensor([[0.0], [0.1], [0.2], [20.0]])  # distances .1, .1, .2, 20, 19.9, 19.8 of mean 60.1 / 6
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # four sides, two diagonals
    mean, side_mean = 60.1 / 6, (4 + 2 * math.sqrt(2)) / 6
    sides, diagonals = (0.1, 0.2, 19.9, 19.8), (0.1, 20.0)
    gaps = [1 / side_mean - d / mean for d in sides] + [math.sqrt(2) / side_mean - d / mean for d in diagonals]
    assert max(map(abs, gaps)) > 1
    huber = [gap**2 / 2 if abs(gap) < 1 else abs(gap) - 0.5 for gap in gaps]
    assert distance_loss(line, square).item() == pytest.approx(2 * sum(huber) / 16, rel=1e-5)


def test_angles_by_hand():
    right, at_three, at_four = angles(TRIANGLE, TRIANGLE)
    torch.testing.assert_close(right, torch.diag(torch.tensor([0.0, 1.0, 1.0])), rtol=0, atol=1e-6)
    torch.testing.assert_close(at_three, torch.tensor([[1.0, 0.0, 0.6], [0.0, 0.0, 0.0], [0.6, 0.0, 1.0]]))
    torch.testing.assert_close(at_four, torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 0.0]]))


def test_angle_loss_by_hand():
    line = torch.tensor([[0.0], [3.0], [9.0]])  # cosines 1, -1 and 1 where the triangle has 0, .6 and .8
    gaps = 1, 1.6, 0.2
    huber = [0.5, 1.6 - 0.5, 0.02]
    assert [gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps] == pytest.approx(huber)
    assert angle_loss(line, TRIANGLE).item() == pytest.approx(2 * sum(huber) / 27, rel=1e-5)


@LOSSES
def test_rkd_loss_is_zero_for_vectors_that_differ_by_scale_shift_and_width(loss):
    x = vectors(6, 4)
    assert loss(x, 3 * torch.cat([x, -x], dim=1) + 2).item() == pytest.approx(0, abs=1e-10)


@LOSSES
def test_rkd_loss_gradient(loss):
    assert_gradient(loss, vectors(5, 3), vectors(5, 4, seed=1))


@LOSSES
def test_rkd_loss_does_not_depend_on_the_size_of_the_batch(loss):
    student, teacher = vectors(5, 3), vectors(5, 4, seed=1)
    twice = loss(torch.cat([student, student]), torch.cat([teacher, teacher]))
    torch.testing.assert_close(twice, loss(student, teacher))


@LOSSES
@pytest.mark.parametrize("samples", [[[1.0, 2.0]] * 3, [[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]], [[0.0, 0.0]] * 3])
def test_rkd_loss_of_samples_that_coincide_has_a_moderate_gradient(loss, samples):
    student = torch.tensor(samples, requires_grad=True)
    value = loss(student, vectors(3, 4))
    value.backward()
    assert value.isfinite()
    assert student.grad.abs().max() < 10


@LOSSES
def test_rkd_loss_computes_half_precision_in_float32(loss):
    student, teacher = 300 * vectors(5, 3).half(), vectors(5, 4, seed=1).half()
    with torch.autocast("cpu", torch.float16):
        value = loss(student, teacher)
    assert value.item() == loss(student.float(), teacher.float()).item()


@pytest.mark.parametrize("chunk", [1, 7 * 7, 3 * 7 * 7])
def test_angle_loss_in_parts_is_the_same(chunk):
    student, teacher = vectors(7, 3).requires_grad_(), vectors(7, 5, seed=1)
    whole, parts = angle_loss(student, teacher), angle_loss(student, teacher, chunk)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student) for loss in (parts, whole)))


def kept(function):
    """The most numbers that any tensor saved for the gradient has."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        function()
    return max(sizes)


def test_angle_loss_in_parts_keeps_no_angles():
    student, teacher = vectors(32, 4).requires_grad_(), vectors(32, 4, seed=1)
    assert kept(lambda: angle_loss(student, teacher)) >= 32**3
    assert kept(lambda: angle_loss(student, teacher, chunk=32**2)) <= 32**2


def test_rkd_benchmark_preset_is_the_published_loss():
    def distances(x):
        d = (x.pow(2).sum(1).unsqueeze(1) + x.pow(2).sum(1).unsqueeze(0) - 2 * x @ x.t()).clamp(min=1e-12).sqrt()
        d = d.clone().fill_diagonal_(0)
        return d / d[d > 0].mean()

    def cosines(x):
        rays = F.normalize(x.unsqueeze(0) - x.unsqueeze(1), p=2, dim=2)
        return torch.bmm(rays, rays.transpose(1, 2)).view(-1)

    student, teacher = vectors(16, 8), vectors(16, 12, seed=1)
    published = 25 * F.smooth_l1_loss(distances(student), distances(teacher))
    published = published + 50 * F.smooth_l1_loss(cosines(student), cosines(teacher))
    weights = RKD.presets["benchmark"].terms
    ours = weights["distance"] * distance_loss(student, teacher) + weights["angle"] * angle_loss(student, teacher)
    torch.testing.assert_close(ours, published, rtol=1e-4, atol=0)


def test_rkd_compares_penultimate_features():
    points = {"stage1": FeaturePoint("stage1", 4, 1), "stage2": FeaturePoint("stage2", 8, 2)}
    student, teacher = Network(points, 10, 8), Network({"only": FeaturePoint("only", 6, 4)}, 10, 8)
    method = RKD(RKDConfig(), student, teacher)
    maps = {"stage2": vectors(3, 8, 4, 4)}, {"only": vectors(3, 6, 2, 2, seed=1)}
    assert (method.student_features, method.teacher_features) == (("stage2",), ("only",))
    views = [View(torch.zeros(3, 10), features) for features in maps]
    terms = method.loss(Step(torch.arange(3), torch.arange(3), *views, epoch=0, progress=0.0))
    means = maps[0]["stage2"].mean((2, 3)), maps[1]["only"].mean((2, 3))
    expected = {"rkd/distance": distance_loss(*means).item(), "rkd/angle": angle_loss(*means).item()}
    assert {name: term.item() for name, term in terms.items()} == expected
