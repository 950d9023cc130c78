import pytest
import torch

from kdedge.core.errors import ModelError
from kdedge.models.blocks import ChannelShuffle, Spatial, scaled


def weights(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_spatial_convolution_has_the_weights_of_its_kind():
    assert weights(Spatial()(8, 16)) == 8 * 16 * 9
    assert weights(Spatial("grouped", 4)(8, 16)) == 8 * 16 * 9 // 4
    assert weights(Spatial("depthwise")(8, 16)) == 8 * 9 + 2 * 8 + 8 * 16  # depthwise, BN, pointwise


@pytest.mark.parametrize(
    "spatial", [Spatial(), Spatial("grouped"), Spatial("depthwise")], ids=lambda spatial: spatial.conv
)
@pytest.mark.parametrize(("stride", "side"), [(1, 7), (2, 4)])
def test_spatial_convolution_keeps_or_halves_the_map(spatial, stride, side):
    assert spatial(8, 16, stride)(torch.zeros(2, 8, 7, 7)).shape == (2, 16, side, side)


def test_spatial_lists_the_groups_that_divide_the_channels():
    with pytest.raises(ModelError, match=r"groups 3 .* 8 -> 12 channels: valid there: 1, 2, 4$"):
        Spatial("grouped", 3)(8, 12)


def test_spatial_refuses_groups_for_convolutions_without():
    with pytest.raises(ModelError, match="only grouped convolutions have groups"):
        Spatial("dense", 4)


def test_channel_shuffle_deals_groups_out():
    feature = torch.arange(6.0).view(1, 6, 1, 1)

    assert ChannelShuffle(2)(feature).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_scaled_rounds_to_multiples_of_eight_but_not_at_width_one():
    assert scaled((16, 32, 64), 0.5) == [8, 16, 32]
    assert scaled((16, 20, 64), 0.75) == [16, 16, 48]  # 12 and 15 are nearest to 16
    assert scaled((16,), 0.1) == [8]
    assert scaled((3, 5), 1.0) == [3, 5]
