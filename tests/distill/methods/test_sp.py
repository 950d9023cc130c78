import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.sp import SP, SPConfig, similarities, sp_loss
from kdedge.models.features import FeaturePoint


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(**strides):
    points = {name: FeaturePoint(name, 4 * stride, stride) for name, stride in strides.items()}
    return Network(points, classes=10, image_size=16)


def test_similarities_by_hand():
    samples = torch.tensor([[[[3.0, 0.0]]], [[[4.0, 0.0]]]])  # products 9, 12 and 12, 16
    torch.testing.assert_close(similarities(samples), torch.tensor([[0.6, 0.8], [0.6, 0.8]]))


def test_sp_loss_by_hand():
    alike, apart = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    # rows (1, 1) / sqrt 2 against (1, 0) and (0, 1): squared distance 2 - sqrt 2 each
    assert sp_loss(apart, alike).item() == pytest.approx(2 - math.sqrt(2), rel=1e-6)


def test_sp_loss_is_the_mean_over_samples():
    student, teacher = torch.eye(3), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # only the last two are alike
    assert sp_loss(student, teacher).item() == pytest.approx(2 / 3 * (2 - math.sqrt(2)), rel=1e-6)


def test_sp_loss_is_zero_for_features_that_differ_by_scale_and_width():
    x = feature(5, 3, 4, 4)
    assert sp_loss(x, -3 * x.repeat(1, 2, 1, 1)).item() == pytest.approx(0, abs=1e-12)


def test_sp_loss_gradient():
    assert_gradient(sp_loss, feature(4, 2, 3, 3), feature(4, 5, 2, 2, seed=1))


def test_sp_loss_depends_neither_on_batch_nor_on_map_size():
    student, teacher = feature(4, 3, 4, 4), feature(4, 5, 2, 2, seed=1)
    for change in (lambda x: torch.cat([x, x]), lambda x: F.interpolate(x, scale_factor=2)):
        torch.testing.assert_close(sp_loss(change(student), change(teacher)), sp_loss(student, teacher))


@pytest.mark.parametrize("dead", [slice(0, 1), slice(0, 3)], ids=["one", "all"])
def test_sp_loss_of_dead_features_has_a_moderate_gradient(dead):
    student = feature(3, 2, 4, 4)
    student[dead] = 0
    student.requires_grad_()
    sp_loss(student, feature(3, 2, 4, 4, seed=1)).backward()
    assert student.grad.abs().max() < 1


def test_sp_loss_computes_half_precision_in_float32():
    student, teacher = 300 * feature(3, 4, 4, 4).half(), feature(3, 4, 4, 4, seed=1).half()  # products beyond float16
    with torch.autocast("cpu", torch.float16):
        loss = sp_loss(student, teacher)
    assert loss.item() == sp_loss(student.float(), teacher.float()).item()


def test_sp_benchmark_preset_is_the_published_loss_at_batch_64():
    student, teacher = feature(64, 3, 8, 8), feature(64, 5, 8, 8, seed=1)
    left, right = (x.view(64, -1) for x in (student, teacher))
    left, right = (x.mm(x.t()) for x in (left, right))
    left, right = (x / x.norm(dim=1, keepdim=True) for x in (left, right))
    [weight] = SP.presets["benchmark"].terms.values()
    torch.testing.assert_close(weight * sp_loss(student, teacher), 3000 * (left - right).pow(2).sum() / 64**2)


def test_sp_compares_the_last_stages_of_any_size():
    method = SP(SPConfig(), network(a=1, b=4), network(a=1, b=2, c=8))
    assert (method.student_features, method.teacher_features) == (("b",), ("c",))
    student, teacher = feature(3, 16, 4, 4), feature(3, 32, 2, 2, seed=1)
    views = [View(torch.zeros(3, 10), features) for features in ({"b": student}, {"c": teacher})]
    terms = method.loss(Step(torch.arange(3), torch.arange(3), *views, epoch=0, progress=0.0))
    assert {name: term.item() for name, term in terms.items()} == {"sp/b": sp_loss(student, teacher).item()}


def test_sp_refuses_a_stage_that_there_is_not():
    with pytest.raises(ModelError) as error:
        SP(SPConfig(stages=[["a", "z"]]), network(a=1), network(a=1))
    assert error.value.what == "sp: the teacher has no stage 'z'"
