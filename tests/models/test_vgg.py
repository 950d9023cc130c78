from itertools import pairwise

import pytest
import torch
from torch import nn

from kdedge.models.zoo import build_model


@pytest.mark.parametrize(("size", "strides"), [(32, [1, 2, 4, 8, 8]), (64, [1, 2, 4, 8, 16])])
def test_vgg_halves_the_map_before_the_last_stage_of_larger_images_only(size, strides):
    model = build_model("vgg8", {"width": 0.125}, 10, (3, size, size))

    assert [point.stride for point in model.feature_points.values()] == strides
    assert model(torch.zeros(1, 3, size, size)).shape == (1, 10)


@pytest.mark.parametrize("layers", [8, 11, 13, 19])
def test_vgg_has_the_layers_of_its_name(layers):
    with torch.device("meta"):
        model = build_model(f"vgg{layers}", {}, 10, (3, 32, 32))
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())

    assert convolutions == {8: 5, 11: 8, 13: 10, 19: 16}[layers]  # VGG-11 and up count three linear layers


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, lambda i, o: 9 * i * o),
        ({"conv": "grouped", "groups": 2}, lambda i, o: 9 * i * o // 2),
        ({"conv": "grouped"}, lambda i, o: 9 * i * o // 4),
        ({"conv": "depthwise"}, lambda i, o: 9 * i + 2 * i + i * o),
    ],
)
def test_vgg11_shrinks_with_its_convolutions(options, weights):
    with torch.device("meta"):
        model = build_model("vgg11", options, 100, (3, 32, 32))
    channels = [64, 128, 256, 256, 512, 512, 512, 512]

    spatial = sum(weights(inputs, outputs) for inputs, outputs in pairwise(channels))
    rest = 9 * 3 * 64 + 3 * sum(channels) + 512 * 100 + 100  # stem; bias and BN of each convolution; linear
    assert sum(parameter.numel() for parameter in model.parameters()) == spatial + rest
