"""Residual networks: the narrow ones for CIFAR and the ImageNet ones, with a stem for small images.

K. He et al.: "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385, sec. 3.3 and 4.2.
The x4 widths, and projection shortcuts everywhere, are those of Y. Tian et al., ICLR 2020, arXiv:1910.10699.
Parameters are called as in the public CIFAR checkpoints: conv1, bn1, layer1.0.conv1, ..., linear.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.core.errors import ModelError
from kdedge.models.blocks import MODELS, Conv, Groups, Spatial, Stem, Width, init_weights, scaled, stem_for
from kdedge.models.cost import Shape
from kdedge.models.features import FeaturePoint

Shortcut = Literal["A", "B"]


class ZeroPadShortcut(nn.Module):
    """Option A: every stride-th pixel, and channels of zeros on both sides; no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, feature: Tensor) -> Tensor:
        return F.pad(feature[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def make_shortcut(kind: Shortcut, inputs: int, outputs: int, stride: int) -> nn.Module:
    """Identity where nothing changes; otherwise A (zero padding) or B (1x1 projection and BN)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "A":
        if outputs < inputs:
            raise ModelError(
                f"shortcut A from {inputs} to {outputs} channels",
                "zero padding cannot take channels away",
                "set shortcut: B",
            )
        return ZeroPadShortcut(inputs, outputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int, spatial: Spatial, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = spatial(inputs, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = spatial(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = make_shortcut(shortcut, inputs, channels, stride)

    def forward(self, feature: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(feature)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(feature))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int, spatial: Spatial, shortcut: Shortcut) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = spatial(channels, channels, stride, shuffle=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = make_shortcut(shortcut, inputs, outputs, stride)

    def forward(self, feature: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(feature)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(feature))


class ResNet(nn.Module):
    """Stem, then stages layer1, layer2, ...; each but the first halves the map.

    Args:
        depths: blocks of each stage.
        widths: channels of the stem and of each stage, before a bottleneck's expansion.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: Sequence[int],
        widths: Sequence[int],
        classes: int,
        in_channels: int,
        spatial: Spatial,
        shortcut: Shortcut,
        stem: Stem = "small",
    ) -> None:
        super().__init__()
        size, stride, reduction = (3, 1, 1) if stem == "small" else (7, 2, 4)
        channels = widths[0]
        self.conv1 = nn.Conv2d(in_channels, channels, size, stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pool = nn.Identity() if stem == "small" else nn.MaxPool2d(3, stride=2, padding=1)
        self.feature_points: dict[str, FeaturePoint] = {}
        for n, (depth, width) in enumerate(zip(depths, widths[1:], strict=True)):
            outputs = width * block.expansion
            first = block(channels, width, 1 if n == 0 else 2, spatial, shortcut)
            rest = [block(outputs, width, 1, spatial, shortcut) for _ in range(depth - 1)]
            self.add_module(f"layer{n + 1}", nn.Sequential(first, *rest))
            self.feature_points[f"stage{n + 1}"] = FeaturePoint(f"layer{n + 1}", outputs, reduction << n)
            channels = outputs
        self.linear = nn.Linear(channels, classes)
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes)."""
        out = self.pool(F.relu(self.bn1(self.conv1(images))))
        for point in self.feature_points.values():
            out = getattr(self, point.module)(out)
        return self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))  # type: ignore[no-any-return]


def cifar_resnet(
    depth: int,
    widths: Sequence[int],
    classes: int,
    image_shape: Shape,
    *,
    conv: Conv = "dense",
    groups: Groups | None = None,
    width: Width = 1.0,
    shortcut: Shortcut = "B",
) -> ResNet:
    """Three stages of (depth - 2) / 6 basic blocks."""
    depths = [(depth - 2) // 6] * 3
    return ResNet(BasicBlock, depths, scaled(widths, width), classes, image_shape[0], Spatial(conv, groups), shortcut)


def imagenet_resnet(
    block: type[BasicBlock | Bottleneck],
    depths: Sequence[int],
    classes: int,
    image_shape: Shape,
    *,
    conv: Conv = "dense",
    groups: Groups | None = None,
    width: Width = 1.0,
    shortcut: Shortcut = "B",
    stem: Stem | None = None,
) -> ResNet:
    """Four stages; without `stem`, the image size chooses it."""
    widths = scaled((64, 64, 128, 256, 512), width)
    spatial = Spatial(conv, groups)
    return ResNet(block, depths, widths, classes, image_shape[0], spatial, shortcut, stem or stem_for(image_shape))


for depth in (8, 14, 20, 32, 44, 56, 110):
    MODELS.register(f"resnet{depth}")(partial(cifar_resnet, depth, (16, 16, 32, 64)))
for depth in (8, 32):
    MODELS.register(f"resnet{depth}x4")(partial(cifar_resnet, depth, (32, 64, 128, 256)))
MODELS.register("resnet18")(partial(imagenet_resnet, BasicBlock, (2, 2, 2, 2)))
MODELS.register("resnet34")(partial(imagenet_resnet, BasicBlock, (3, 4, 6, 3)))
MODELS.register("resnet50")(partial(imagenet_resnet, Bottleneck, (3, 4, 6, 3)))
