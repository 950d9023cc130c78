import math

import pytest
import torch
import torch.nn.functional as F
from gradient import assert_gradient
from pydantic import ValidationError

from kdedge.core.errors import ModelError
from kdedge.distill.base import Network, Step, View
from kdedge.distill.methods.vid import VID, Gaussian, VIDConfig, inverse_softplus, vid_loss
from kdedge.models.features import FeaturePoint


def feature(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(width, **strides):
    points = {name: FeaturePoint(name, width * stride, stride) for name, stride in strides.items()}
    return Network(points, classes=10, image_size=16)


def step(student, teacher, samples=2):
    views = [View(torch.zeros(samples, 10), features) for features in (student, teacher)]
    return Step(torch.arange(samples), torch.arange(samples), *views, epoch=0, progress=0.0)


def test_vid_loss_by_hand():
    predicted, teacher = torch.tensor([[[[1.0]], [[5.0]]]]), torch.tensor([[[[4.0]], [[3.0]]]])  # (1, 2, 1, 1)
    variance = torch.tensor([9.0, 2.0])
    by_hand = (0.5 * (9 / 9 + math.log(9)) + 0.5 * (4 / 2 + math.log(2))) / 2
    assert vid_loss(predicted, teacher, variance).item() == pytest.approx(by_hand, rel=1e-6)


def test_vid_loss_of_a_right_prediction_is_the_entropy_of_its_variance():
    x = feature(2, 3, 4, 4)
    assert vid_loss(x, x, torch.full((3,), 5.0)).item() == pytest.approx(math.log(5) / 2, rel=1e-6)


def test_vid_loss_gradient():
    variance = torch.tensor([0.5, 1.0, 4.0])
    assert_gradient(vid_loss, feature(2, 3, 2, 2), feature(2, 3, 2, 2, seed=1), variance)


def test_vid_loss_depends_neither_on_batch_nor_on_map_size():
    predicted, teacher, variance = feature(2, 3, 4, 4), feature(2, 3, 4, 4, seed=1), torch.tensor([0.5, 1.0, 4.0])
    for change in (lambda x: torch.cat([x, x]), lambda x: F.interpolate(x, scale_factor=2)):
        changed = vid_loss(change(predicted), change(teacher), variance)
        torch.testing.assert_close(changed, vid_loss(predicted, teacher, variance))


def test_vid_loss_computes_half_precision_in_float32():
    predicted, teacher = 300 * feature(2, 3, 4, 4).half(), feature(2, 3, 4, 4, seed=1).half()  # squares beyond float16
    variance = torch.ones(3)
    assert (
        vid_loss(predicted, teacher, variance).item() == vid_loss(predicted.float(), teacher.float(), variance).item()
    )


@pytest.mark.parametrize("value", [1e-4, 1.0, 5.0, 200.0])
def test_inverse_softplus_is_undone_by_softplus(value):
    assert F.softplus(torch.tensor(inverse_softplus(value), dtype=torch.float64)).item() == pytest.approx(value)


@pytest.mark.parametrize("variance", [1e-3, 5.0])
def test_gaussian_starts_from_the_variance_asked_for(variance):
    mean, start = Gaussian(3, 4, variance)(feature(2, 3, 5, 5))
    assert mean.shape == (2, 4, 5, 5)
    assert start.tolist() == pytest.approx([variance] * 4, rel=1e-5)


def test_gaussian_trains_and_saves_its_variance():
    module = Gaussian(3, 4, 5.0)
    assert "alpha" in dict(module.named_parameters())
    assert "alpha" in module.state_dict()


def test_vid_benchmark_preset_is_the_published_loss():
    method = VID(VIDConfig(), network(2, stage1=1), network(3, stage1=1))
    student, teacher = feature(2, 2, 16, 16), feature(2, 3, 16, 16, seed=1)
    first, _, second, _, third = method.gaussians["stage1"].mean
    mean = third(F.relu(second(F.relu(first(student)))))
    alpha = math.log(math.exp(5 - 1e-5) - 1)
    variance = math.log(1 + math.exp(alpha)) + 1e-5
    published = torch.mean(0.5 * ((mean - teacher) ** 2 / variance + math.log(variance)))
    ours = VID.presets["benchmark"].weight * method.loss(step({"stage1": student}, {"stage1": teacher}))["vid/stage1"]
    torch.testing.assert_close(ours, published)


def test_vid_averages_the_larger_map_down_before_it_predicts():
    method = VID(VIDConfig(stages=[["stage1", "last"]]), network(2, stage1=1), network(3, last=8))
    student, teacher = feature(2, 2, 16, 16), feature(2, 24, 2, 2, seed=1)
    mean, variance = method.gaussians["stage1"](F.avg_pool2d(student, 8))
    terms = method.loss(step({"stage1": student}, {"last": teacher}))
    assert list(terms) == ["vid/stage1"]
    torch.testing.assert_close(terms["vid/stage1"], vid_loss(mean, teacher, variance))


def test_vid_refuses_networks_without_a_common_resolution():
    with pytest.raises(ModelError) as error:
        VID(VIDConfig(), network(2, stage1=1), network(2, stage1=2))
    assert error.value.what == "student and teacher have no feature maps of one size"


@pytest.mark.parametrize("variance", [0, 1e-5, -1, math.inf])
def test_vid_config_refuses(variance):
    with pytest.raises(ValidationError):
        VIDConfig(variance=variance)
