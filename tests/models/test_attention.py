import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdedge.models.attention import ECA, KINDS, SE, SepConvAttention, SimAM, eca_kernel, make_attention


@pytest.mark.parametrize(("channels", "kernel"), [(16, 3), (32, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5)])
def test_eca_kernel_by_hand(channels, kernel):
    assert eca_kernel(channels) == kernel


def test_eca_scales_each_channel_by_its_neighbours_means():
    attention = ECA(16)
    with torch.no_grad():
        attention.conv.weight.copy_(torch.tensor([[[0.5, 1.0, 2.0]]]))
    feature = torch.zeros(1, 16, 2, 2)
    feature[0, 1] = 1
    feature[0, 2] = torch.tensor([[0, 4], [4, 0]])  # mean 2

    out = attention(feature)

    assert out[0, 1, 0, 0].item() == pytest.approx(1 / (1 + math.exp(-(0.5 * 0 + 1 * 1 + 2 * 2))))
    assert out[0, 2].flatten().tolist() == pytest.approx([0, *[4 / (1 + math.exp(-(0.5 * 1 + 1 * 2 + 2 * 0)))] * 2, 0])
    assert sum(weight.numel() for weight in attention.parameters()) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 16, 8, 8), (1, 8, 5, 3), (2, 8, 1, 1)])
def test_attention_scales_a_map_and_keeps_its_shape(kind, shape):
    torch.manual_seed(0)
    attention = make_attention(kind, shape[1]).eval()
    feature = torch.rand(shape) + 0.1
    out = attention(feature)
    assert out.shape == shape
    assert ((out > 0) & (out <= feature)).all()


def test_se_by_hand():
    attention = SE(16)
    assert (attention.squeeze.out_channels, attention.excite.out_channels) == (8, 16)
    with torch.no_grad():
        for layer in (attention.squeeze, attention.excite):
            layer.weight.zero_()
            layer.bias.zero_()
        attention.squeeze.weight[0, 1] = 2.0  # hidden 0 = 2 x mean of channel 1
        attention.excite.weight[3, 0] = 0.5  # channel 3 is scaled by sigmoid(hidden 0 / 2)
    feature = torch.zeros(1, 16, 1, 2)
    feature[0, 1] = torch.tensor([1.0, 3.0])
    feature[0, 3] = torch.tensor([4.0, 8.0])
    out = attention(feature)
    scale = 1 / (1 + math.exp(-2.0))
    assert out[0, 3, 0].tolist() == pytest.approx([4 * scale, 8 * scale])
    assert out[0, 1, 0].tolist() == pytest.approx([0.5, 1.5])


def test_simam_by_hand():
    feature = torch.tensor([1.0, 1.0, 1.0, 5.0]).view(1, 1, 2, 2)  # mean 2, squares 1 1 1 9, variance 12 / 3
    out = SimAM(1)(feature).flatten()
    expected = [x / (1 + math.exp(-(d / (4 * (4 + 1e-4)) + 0.5))) for x, d in ((1, 1), (1, 1), (1, 1), (5, 9))]
    assert out.tolist() == pytest.approx(expected)
    assert list(SimAM(1).parameters()) == []


def test_sepconv_attention_is_the_enlarged_mask_through_a_sigmoid():
    torch.manual_seed(0)
    attention, feature = SepConvAttention(8).eval(), torch.randn(2, 8, 6, 6)
    mask = attention.mask(feature)
    assert mask.shape == (2, 8, 3, 3)
    wide = F.interpolate(mask, (6, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(attention(feature), feature * wide.sigmoid())


def test_attention_weights_grow_in_this_order():
    sizes = [
        sum(p.numel() for p in make_attention(kind, 64).parameters())
        for kind in ("none", "simam", "eca", "se", "sepconv")
    ]
    assert sizes == [0, 0, 3, 64 * 8 + 8 + 8 * 64 + 64, 64 * 9 + 64 * 2 + 64 * 64 + 64 * 2]
    assert isinstance(make_attention("none", 64), nn.Identity)
