"""ShuffleNetV1 (three groups) and ShuffleNetV2, with a stem for small images.

X. Zhang et al.: "ShuffleNet", CVPR 2018, arXiv:1707.01083, fig. 2 and table 1;
N. Ma et al.: "ShuffleNet V2", ECCV 2018, arXiv:1807.11164, fig. 3c, 3d and table 5.
The small stem is a 1x1 convolution that keeps the size, as in the benchmark of Y. Tian et al., ICLR 2020,
arXiv:1910.10699; its ShuffleNetV1 too: the bottleneck of a unit has a quarter of the channels that its branch puts out.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.blocks import MODELS, ChannelShuffle, Stem, Width, conv_norm_relu, init_weights, scaled, stem_for
from kdedge.models.cost import Shape
from kdedge.models.features import FeaturePoint

STEM = 24
"""Channels of the stem, at every width."""
GROUPS = 3
"""Of ShuffleNetV1's 1x1 convolutions."""
EMBEDDING = 1024
"""Channels of ShuffleNetV2's last convolution, at every width."""
DEPTHS = (4, 8, 4)

WidthV1 = Annotated[float, Field(ge=0.25, allow_inf_nan=False)]
"""From where on every stage has more channels than the one before, as concatenation needs."""


def pointwise(inputs: int, outputs: int, groups: int = 1) -> nn.Sequential:
    """1x1 convolution, BN, ReLU."""
    return conv_norm_relu(nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False), outputs)


def depthwise(channels: int, stride: int) -> nn.Sequential:
    """3x3 convolution of each channel by itself and BN; both papers leave the ReLU out."""
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels)))


def make_stem(in_channels: int, stem: Stem) -> nn.Sequential:
    if stem == "small":
        return pointwise(in_channels, STEM)
    layers = conv_norm_relu(nn.Conv2d(in_channels, STEM, 3, 2, padding=1, bias=False), STEM)
    layers.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    return layers


class UnitV1(nn.Module):
    """Adds a branch to its input; with stride 2, concatenates it to the pooled input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        branch = outputs if stride == 1 else outputs - inputs
        mid = branch // 4
        groups = 1 if inputs == STEM else GROUPS
        self.pool = None if stride == 1 else nn.AvgPool2d(3, stride, padding=1)
        self.reduce = pointwise(inputs, mid, groups)
        self.shuffle = nn.Identity() if groups == 1 else ChannelShuffle(groups)
        self.depthwise = depthwise(mid, stride)
        self.expand = nn.Conv2d(mid, branch, 1, groups=GROUPS, bias=False)
        self.bn = nn.BatchNorm2d(branch)

    def forward(self, feature: Tensor) -> Tensor:
        out = self.bn(self.expand(self.depthwise(self.shuffle(self.reduce(feature)))))
        return F.relu(feature + out if self.pool is None else torch.cat((self.pool(feature), out), dim=1))


class UnitV2(nn.Module):
    """Half of the channels pass untouched, the others a branch; with stride 2, all of them each of two branches."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left = None if stride == 1 else nn.Sequential(depthwise(inputs, stride), pointwise(inputs, half))
        self.right = nn.Sequential(
            pointwise(half if stride == 1 else inputs, half), depthwise(half, stride), pointwise(half, half)
        )
        self.shuffle = ChannelShuffle(2)

    def forward(self, feature: Tensor) -> Tensor:
        left, right = feature.chunk(2, dim=1) if self.left is None else (self.left(feature), feature)
        return self.shuffle(torch.cat((left, self.right(right)), dim=1))  # type: ignore[no-any-return]


class ShuffleNet(nn.Module):
    """Stem, then stages layer1 to layer3, each of which halves the map.

    Args:
        widths: channels of each stage.
        embedding: channels of a last 1x1 convolution; None without one.
    """

    def __init__(
        self,
        unit: type[UnitV1 | UnitV2],
        widths: Sequence[int],
        embedding: int | None,
        classes: int,
        in_channels: int,
        stem: Stem,
    ) -> None:
        super().__init__()
        self.stem = make_stem(in_channels, stem)
        reduction = 2 if stem == "small" else 8
        channels = STEM
        self.feature_points: dict[str, FeaturePoint] = {}
        for n, (depth, width) in enumerate(zip(DEPTHS, widths, strict=True)):
            rest = [unit(width, width, 1) for _ in range(depth - 1)]
            self.add_module(f"layer{n + 1}", nn.Sequential(unit(channels, width, 2), *rest))
            self.feature_points[f"stage{n + 1}"] = FeaturePoint(f"layer{n + 1}", width, reduction << n)
            channels = width
        self.last = nn.Identity() if embedding is None else pointwise(channels, embedding)
        self.linear = nn.Linear(embedding or channels, classes)
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes)."""
        out = self.stem(images)
        for point in self.feature_points.values():
            out = getattr(self, point.module)(out)
        return self.linear(F.adaptive_avg_pool2d(self.last(out), 1).flatten(1))  # type: ignore[no-any-return]


@MODELS.register("shufflenetv1")
def shufflenetv1(classes: int, image_shape: Shape, *, width: WidthV1 = 1.0, stem: Stem | None = None) -> ShuffleNet:
    """Without `stem`, the image size chooses it; other widths give multiples of 24 channels, so that groups divide."""
    widths = [GROUPS * channels for channels in scaled((80, 160, 320), width)]
    return ShuffleNet(UnitV1, widths, None, classes, image_shape[0], stem or stem_for(image_shape))


@MODELS.register("shufflenetv2")
def shufflenetv2(classes: int, image_shape: Shape, *, width: Width = 1.0, stem: Stem | None = None) -> ShuffleNet:
    """Without `stem`, the image size chooses it; other widths multiply those of 1x, which is not what table 5 has."""
    widths = scaled((116, 232, 464), width)
    return ShuffleNet(UnitV2, widths, EMBEDDING, classes, image_shape[0], stem or stem_for(image_shape))
