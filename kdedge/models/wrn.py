"""Wide residual networks with pre-activation: WRN-depth-k has k times the channels of the narrow ones for CIFAR.

S. Zagoruyko, N. Komodakis: "Wide Residual Networks", BMVC 2016, arXiv:1605.07146, table 1 and fig. 1d.
Blocks are BN, ReLU, conv, BN, ReLU, conv; where the shape changes, the shortcut is a 1x1 convolution of the first ReLU.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.blocks import MODELS, Conv, Groups, Spatial, Width, init_weights, scaled
from kdedge.models.cost import Shape
from kdedge.models.features import FeaturePoint

Dropout = Annotated[float, Field(ge=0, lt=1)]


class PreActBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, spatial: Spatial, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = spatial(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = dropout
        self.conv2 = spatial(outputs, outputs)
        projects = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projects else None

    def forward(self, feature: Tensor) -> Tensor:
        active = F.relu(self.bn1(feature))
        shortcut = feature if self.shortcut is None else self.shortcut(active)
        out = F.relu(self.bn2(self.conv1(active)))
        if self.dropout:
            out = F.dropout(out, self.dropout, self.training)
        return shortcut + self.conv2(out)  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Convolution, stages layer1 to layer3 (the later ones halve the map), BN, ReLU, pooling and one linear layer.

    A feature point is a stage's sum, before the BN and ReLU that the next block, or the end, begins with: its values
    may be negative.

    Args:
        depth: of each stage, in blocks.
        widths: channels of the stem and of each stage.
    """

    def __init__(
        self, depth: int, widths: Sequence[int], classes: int, in_channels: int, spatial: Spatial, dropout: float
    ) -> None:
        super().__init__()
        channels = widths[0]
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.feature_points: dict[str, FeaturePoint] = {}
        for n, width in enumerate(widths[1:]):
            first = PreActBlock(channels, width, 1 if n == 0 else 2, spatial, dropout)
            rest = [PreActBlock(width, width, 1, spatial, dropout) for _ in range(depth - 1)]
            self.add_module(f"layer{n + 1}", nn.Sequential(first, *rest))
            self.feature_points[f"stage{n + 1}"] = FeaturePoint(f"layer{n + 1}", width, 1 << n)
            channels = width
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, classes)
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes)."""
        out = self.conv1(images)
        for point in self.feature_points.values():
            out = getattr(self, point.module)(out)
        out = F.relu(self.bn(out))
        return self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))  # type: ignore[no-any-return]


def wrn(
    depth: int,
    k: int,
    classes: int,
    image_shape: Shape,
    *,
    conv: Conv = "dense",
    groups: Groups | None = None,
    width: Width = 1.0,
    dropout: Dropout = 0.0,
) -> WideResNet:
    """Three stages of (depth - 4) / 6 blocks; `width` multiplies what k gives."""
    widths = scaled((16, 16 * k, 32 * k, 64 * k), width)
    return WideResNet((depth - 4) // 6, widths, classes, image_shape[0], Spatial(conv, groups), dropout)


for depth, k in ((16, 1), (16, 2), (16, 4), (28, 2), (28, 4), (28, 10), (40, 1), (40, 2), (40, 4)):
    MODELS.register(f"wrn_{depth}_{k}")(partial(wrn, depth, k))
