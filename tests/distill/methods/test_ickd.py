import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.ickd import ICKD, ICKDConfig, channel_correlations, ickd_loss
from kdedge.models.features import FeaturePoint


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(width, **strides):
    points = {name: FeaturePoint(name, width * stride, stride) for name, stride in strides.items()}
    return Network(points, classes=10, image_size=16)


def test_channel_correlations_by_hand():
    channels = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])  # products 9, 12 and 12, 16
    torch.testing.assert_close(channel_correlations(channels), torch.tensor([[[0.6, 0.8], [0.6, 0.8]]]))


def test_ickd_loss_by_hand():
    alike, apart = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    # rows (1, 1) / sqrt 2 against (1, 0) and (0, 1): squared distance 2 - sqrt 2 each
    assert ickd_loss(apart, alike).item() == pytest.approx(2 - math.sqrt(2), rel=1e-6)
    batch = ickd_loss(torch.cat([apart, apart]), torch.cat([alike, apart]))
    assert batch.item() == pytest.approx((2 - math.sqrt(2)) / 2, rel=1e-6)


def test_ickd_loss_is_zero_for_maps_that_differ_by_scale_and_order_of_places():
    x = feature(2, 3, 4, 4)
    assert ickd_loss(x, 5 * x.flip(2)).item() == pytest.approx(0, abs=1e-12)


def test_ickd_loss_gradient():
    assert_gradient(ickd_loss, feature(2, 3, 3, 3), feature(2, 3, 2, 2, seed=1))


def test_ickd_loss_depends_neither_on_batch_nor_on_map_size():
    student, teacher = feature(2, 3, 4, 4), feature(2, 3, 2, 2, seed=1)
    for change in (lambda x: torch.cat([x, x]), lambda x: F.interpolate(x, scale_factor=2)):
        torch.testing.assert_close(ickd_loss(change(student), change(teacher)), ickd_loss(student, teacher))


def test_ickd_loss_of_a_dead_channel_has_a_moderate_gradient():
    student = feature(2, 3, 4, 4)
    student[:, 1] = 0
    student.requires_grad_()
    ickd_loss(student, feature(2, 3, 4, 4, seed=1)).backward()
    assert student.grad.abs().max() < 1


def test_ickd_loss_computes_half_precision_in_float32():
    student, teacher = 300 * feature(2, 3, 4, 4).half(), feature(2, 3, 4, 4, seed=1).half()  # products beyond float16
    with torch.autocast("cpu", torch.float16):
        loss = ickd_loss(student, teacher)
    assert loss.item() == ickd_loss(student.float(), teacher.float()).item()


def test_ickd_paper_preset_is_the_released_loss():
    student, teacher = feature(4, 6, 8, 8), feature(4, 6, 8, 8, seed=1)
    left, right = (torch.einsum("ncp,ndp->ncd", x.flatten(2), x.flatten(2)) for x in (student, teacher))
    left, right = (x / x.norm(dim=2, keepdim=True) for x in (left, right))
    [weight] = ICKD.presets["paper"].terms.values()
    torch.testing.assert_close(weight * ickd_loss(student, teacher), 2.5 * (left - right).pow(2).sum() / (6 * 4))


def test_ickd_takes_the_last_stage_of_the_student_to_the_width_of_the_teacher():
    method = ICKD(ICKDConfig(), network(2, a=1, b=4), network(3, a=1, b=2, c=8))
    assert (method.student_features, method.teacher_features) == (("b",), ("c",))
    student, teacher = feature(2, 8, 4, 4), feature(2, 24, 2, 2, seed=1)
    views = [View(torch.zeros(2, 10), features) for features in ({"b": student}, {"c": teacher})]
    terms = method.loss(Step(torch.arange(2), torch.arange(2), *views, epoch=0, progress=0.0))
    assert list(terms) == ["ickd/b"]
    torch.testing.assert_close(terms["ickd/b"], ickd_loss(method.adapters["b"](student), teacher))


def test_ickd_refuses_a_stage_that_there_is_not():
    with pytest.raises(ModelError) as error:
        ICKD(ICKDConfig(stages=["z"]), network(2, a=1), network(2, a=1))
    assert error.value.what == "ickd: the student has no stage 'z'"
