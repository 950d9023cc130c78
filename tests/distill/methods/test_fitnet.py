import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from pydantic import ValidationError
from torch import nn

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.fitnet import FitNet, FitNetConfig, hint_loss
from kdedge.models.features import FeaturePoint


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(width, strides=(1, 2, 4)):
    points = {f"stage{n}": FeaturePoint(f"stage{n}", width * stride, stride) for n, stride in enumerate(strides, 1)}
    return Network(points, classes=10, image_size=16)


def fitnet(student=2, teacher=3, **options):
    return FitNet(FitNetConfig(**options), network(student), network(teacher))


def step(student, teacher):
    count = torch.arange(len(student["stage2"]))
    views = [View(torch.zeros(len(count), 10), features) for features in (student, teacher)]
    return Step(count, count, *views, epoch=0, progress=0.0)


def test_hint_loss_by_hand():
    student, teacher = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]]), torch.tensor([[[[3.0, 2.0]]], [[[0.0, -4.0]]]])
    assert hint_loss(student, teacher).item() == (2**2 + 0 + 0 + 4**2) / 4


def test_hint_loss_is_zero_for_equal_features():
    assert hint_loss(feature(2, 3, 4, 4), feature(2, 3, 4, 4)).item() == 0


def test_hint_loss_averages_the_larger_map_down():
    large, small = torch.tensor([[[[2.0, 4.0, 8.0, 0.0]]]]), torch.tensor([[[[3.0, 6.0]]]])  # 3, 4 and 3, 6
    assert hint_loss(large, small).item() == hint_loss(small, large).item() == 2


def test_hint_loss_gradient():
    assert_gradient(hint_loss, feature(2, 3, 4, 4), feature(2, 3, 2, 2, seed=1))


def test_hint_loss_depends_neither_on_batch_nor_on_map_size():
    student, teacher = feature(2, 3, 4, 4), feature(2, 3, 4, 4, seed=1)
    for change in (lambda x: torch.cat([x, x]), lambda x: F.interpolate(x, scale_factor=2)):
        torch.testing.assert_close(hint_loss(change(student), change(teacher)), hint_loss(student, teacher))


def test_hint_loss_computes_half_precision_in_float32():
    student, teacher = 300 * feature(2, 3, 4, 4).half(), feature(2, 3, 4, 4, seed=1).half()  # squares beyond float16
    assert hint_loss(student, teacher).item() == hint_loss(student.float(), teacher.float()).item()


def test_fitnet_matches_the_middle_stage_through_its_adapter():
    method = fitnet()
    student, teacher = {"stage2": feature(2, 4, 8, 8)}, {"stage2": feature(2, 6, 8, 8, seed=1)}
    assert (method.student_features, method.teacher_features) == (("stage2",), ("stage2",))
    terms = method.loss(step(student, teacher))
    conv, bn = method.adapters["stage2"].conv, nn.BatchNorm2d(6)
    assert list(terms) == ["fitnet/stage2"]
    expected = F.mse_loss(F.relu(bn(conv(student["stage2"]))), teacher["stage2"])
    torch.testing.assert_close(terms["fitnet/stage2"], expected)


def test_fitnet_without_relu_reaches_negative_features():
    method = fitnet(relu=False)
    student = feature(2, 4, 8, 8)
    below = method.adapters["stage2"](student).detach()
    assert below.min() < 0
    assert method.loss(step({"stage2": student}, {"stage2": below}))["fitnet/stage2"].item() == 0


def test_fitnet_benchmark_preset_is_the_weight_of_the_mean_square():
    student, teacher = feature(64, 4, 8, 8), feature(64, 4, 8, 8, seed=1)
    [weight] = FitNet.presets["benchmark"].terms.values()
    torch.testing.assert_close(weight * hint_loss(student, teacher), 100 * (student - teacher).pow(2).mean())


def test_fitnet_refuses_a_stage_that_there_is_not():
    with pytest.raises(ModelError) as error:
        fitnet(stages=["stage7"])
    assert error.value.what == "fitnet: the student has no stage 'stage7'"


def test_fitnet_config_refuses_no_stages():
    with pytest.raises(ValidationError):
        FitNetConfig(stages=[])
