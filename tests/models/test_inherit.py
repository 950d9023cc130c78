import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdedge.core.errors import ModelError
from kdedge.models.inherit import inherit, least_squares
from kdedge.models.lighten import lighten
from kdedge.models.weights import load_weights
from kdedge.models.zoo import build_model

SHAPE = (3, 16, 16)


class Small(nn.Module):
    """Stem, a convolution whose kernels the test chooses, BN, classifier."""

    def __init__(self, channels=8, outputs=12):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.conv = nn.Conv2d(channels, outputs, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.linear = nn.Linear(outputs, 5)

    def forward(self, images):
        feature = self.bn(self.conv(self.stem(images).relu())).relu()
        return self.linear(feature.mean((2, 3)))


def images(count=64):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def dense_network(weight):
    torch.manual_seed(0)
    network = Small(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        network.conv.weight.copy_(weight)
    network.bn.momentum = None
    network.train()(images())  # BN statistics of exactly these images
    return network.eval()


def lightened(dense, conv, **options):
    light = copy.deepcopy(dense)
    plan = lighten(light, SHAPE, conv, **options)
    for module in (light.stem, light.linear):
        nn.init.zeros_(module.weight)
    inherit(light, dense, plan, images())
    return light


def correlation(a, b):
    return np.corrcoef(a.detach().flatten(), b.detach().flatten())[0, 1]


def test_least_squares_finds_weights_and_bias():
    random = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 5, generator=random), torch.tensor([1.0, -2.0, 0.5])
    given = torch.randn(4, 5, 50, generator=random)
    wanted = torch.einsum("oi,nip->nop", weight, given) + bias[:, None]
    found = least_squares(given, wanted)
    torch.testing.assert_close(found[0], weight, atol=5e-3, rtol=0)
    torch.testing.assert_close(found[1], bias, atol=5e-3, rtol=0)


def test_inherit_copies_what_was_not_rewritten():
    dense = dense_network(torch.randn(12, 8, 3, 3))
    light = lightened(dense, "depthwise")
    torch.testing.assert_close(light.stem.weight, dense.stem.weight)
    torch.testing.assert_close(light.linear.weight, dense.linear.weight)
    assert not light.training


@pytest.mark.parametrize("shuffle", [True, False])
def test_inherit_is_exact_where_a_grouped_convolution_can_be(shuffle):
    torch.manual_seed(3)
    weight = torch.zeros(12, 8, 3, 3)
    order = torch.arange(8).view(2, 4).T.flatten() if shuffle else torch.arange(8)
    for group in range(2):  # what two groups can compute after the shuffle
        weight[6 * group : 6 * group + 6, order[4 * group : 4 * group + 4]] = torch.randn(6, 4, 3, 3)
    dense = dense_network(weight)
    light = lightened(dense, "grouped", groups=2, shuffle=shuffle)
    assert correlation(light(images()), dense(images())) > 0.9999


def test_inherit_nearly_keeps_a_convolution_that_is_depthwise_separable():
    torch.manual_seed(3)
    shares, kernels = torch.randn(12, 8, 1, 1), torch.randn(1, 8, 3, 3)
    dense = dense_network(shares * kernels)
    assert correlation(lightened(dense, "depthwise")(images()), dense(images())) > 0.99


@pytest.mark.parametrize("conv", ["grouped", "depthwise"])
def test_inherit_is_nearer_to_the_dense_network_than_fresh_weights(conv):
    torch.manual_seed(3)
    dense = dense_network(torch.randn(12, 8, 3, 3))
    fresh = copy.deepcopy(dense)
    lighten(fresh, SHAPE, conv)
    fresh.train()(images())
    with_weights, without = lightened(dense, conv), fresh.eval()
    wanted = dense(images())
    assert correlation(with_weights(images()), wanted) > 0.8 > correlation(without(images()), wanted)


def test_inherit_takes_images_that_the_dense_network_has_in_another_normalization():
    dense = dense_network(torch.randn(12, 8, 3, 3))
    one, other = copy.deepcopy(dense), copy.deepcopy(dense)
    plan = lighten(one, SHAPE, "depthwise")
    lighten(other, SHAPE, "depthwise")
    inherit(one, dense, plan, images(), images())
    inherit(other, dense, plan, images())
    for key, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value)


def test_inherit_refuses_another_network():
    light = build_model("resnet20", {"shortcut": "B"}, 10, (3, 32, 32))
    plan = lighten(light, (3, 32, 32), "depthwise")
    dense = build_model("resnet20", {"shortcut": "A"}, 10, (3, 32, 32))
    with pytest.raises(ModelError, match=r"not the same network before lightening: layer2.0.shortcut"):
        inherit(light, dense, plan, torch.zeros(2, 3, 32, 32))


def test_inherit_keeps_most_of_a_trained_network(needs):
    root = Path(os.environ.get("KDEDGE_DATA", ""))
    weights, data = root / "cifar_teachers/resnet20-12fca82f.th", root / "cifar10.npz"
    needs(
        "KDEDGE_DATA" in os.environ and weights.is_file(),
        "set KDEDGE_DATA to a folder with cifar_teachers/ and cifar10.npz",
    )
    dense = build_model("resnet20", {"shortcut": "A"}, 10, (3, 32, 32))
    load_weights(dense, weights)
    light = build_model("resnet20", {"shortcut": "A"}, 10, (3, 32, 32))
    plan = lighten(light, (3, 32, 32), "depthwise")
    with np.load(data, allow_pickle=False) as file:
        pixels, labels = torch.from_numpy(file["test_images"][:500]), torch.from_numpy(file["test_labels"][:500])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normal = (pixels.permute(0, 3, 1, 2) / 255 - mean) / std if pixels.shape[-1] == 3 else (pixels / 255 - mean) / std
    inherit(light, dense, plan, normal[:128])
    with torch.no_grad():
        top1 = (light.eval()(normal).argmax(1) == labels).float().mean().item()
    assert top1 > 0.4  # fresh weights: 0.1, the dense network: 0.92
