import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdedge.core.errors import ModelError
from kdedge.models.shufflenet import UnitV1, UnitV2
from kdedge.models.zoo import build_model

IMAGE = (3, 32, 32)


def unit_v1(inputs, outputs, stride):
    """One whose branch gives a half everywhere."""
    made = UnitV1(inputs, outputs, stride).eval()
    nn.init.zeros_(made.bn.weight)
    nn.init.constant_(made.bn.bias, 0.5)
    return made


def test_v1_unit_adds_its_branch_before_the_activation():
    feature = torch.randn(2, 48, 6, 6)

    torch.testing.assert_close(unit_v1(48, 48, 1)(feature), F.relu(feature + 0.5))


def test_v1_unit_puts_its_branch_behind_the_pooled_input_where_it_halves_the_map():
    feature = torch.ones(2, 48, 6, 6)

    out = unit_v1(48, 72, 2)(feature)

    assert out.shape == (2, 72, 3, 3)
    assert out[:, 48:].unique().tolist() == [0.5]
    torch.testing.assert_close(out[0, 0, :2, :2], torch.tensor([[4 / 9, 6 / 9], [6 / 9, 1.0]]))  # the border counts


def test_v1_groups_its_pointwise_convolutions_but_the_one_behind_the_stem():
    with torch.device("meta"):
        model = build_model("shufflenetv1", {}, 10, IMAGE)
    units = [unit for unit in model.modules() if isinstance(unit, UnitV1)]

    assert [unit.reduce.conv.groups for unit in units] == [1] + [3] * 15
    assert {unit.expand.groups for unit in units} == {3}


def test_v2_unit_keeps_half_of_its_channels_and_deals_them_out():
    feature = torch.randn(2, 8, 6, 6)

    out = UnitV2(8, 8, 1).eval()(feature)

    assert out[:, ::2].equal(feature[:, :4])
    assert not out[:, 1::2].equal(feature[:, 4:])


def test_shufflenetv2_matches_torchvision_when_given_its_weights():
    theirs = build_model("torchvision:shufflenet_v2_x1_0", {}, 10, (3, 65, 65)).eval()
    ours = build_model("shufflenetv2", {}, 10, (3, 65, 65)).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 65, 65)

    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("name", ["shufflenetv1", "shufflenetv2"])
@pytest.mark.parametrize(
    ("options", "size", "strides"),
    [
        ({}, 64, [2, 4, 8]),
        ({}, 65, [8, 16, 32]),
        ({"stem": "large"}, 32, [8, 16, 32]),
        ({"stem": "small"}, 96, [2, 4, 8]),
    ],
)
def test_shufflenet_takes_its_stem_from_the_image_size_or_the_option(name, options, size, strides):
    with torch.device("meta"):
        model = build_model(name, options, 10, (3, size, size))

    assert [point.stride for point in model.feature_points.values()] == strides


@pytest.mark.parametrize("width", [0.25, 0.3, 0.55, 1.5, 2.0])
def test_shufflenetv1_builds_at_any_width_that_it_takes(width):
    with torch.device("meta"):
        model = build_model("shufflenetv1", {"width": width}, 10, IMAGE)

    assert all(point.channels % 24 == 0 for point in model.feature_points.values())


def test_shufflenetv1_names_the_least_width():
    with pytest.raises(ModelError, match=r"width: must be greater than or equal to 0.25, not 0.1"):
        build_model("shufflenetv1", {"width": 0.1}, 10, IMAGE)
