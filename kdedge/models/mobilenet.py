"""MobileNetV2: inverted residuals with linear bottlenecks, and a layout for small images.

M. Sandler et al.: "MobileNetV2", CVPR 2018, arXiv:1801.04381, tables 1 and 2.
On small images the second halving is left out.  mobilenetv2_x0_5 has half of every width, not rounded to multiples
of 8, as in the benchmark of Y. Tian et al., ICLR 2020, arXiv:1910.10699.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.blocks import MODELS, Stem, Width, init_weights, scaled, stem_for
from kdedge.models.cost import Shape
from kdedge.models.features import FeaturePoint

WIDTHS = (32, 16, 24, 32, 64, 96, 160, 320)
"""Channels of the stem and of each row of table 2."""

EMBEDDING = 1280
"""Channels of the last convolution, which narrower networks keep."""


def conv_norm_relu6(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False),
            bn=nn.BatchNorm2d(outputs),
            relu=nn.ReLU6(inplace=True),
        )
    )


class InvertedResidual(nn.Module):
    """1x1 convolution to `expansion` times the channels, depthwise 3x3, 1x1 convolution without activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Identity() if expansion == 1 else conv_norm_relu6(inputs, hidden)
        self.depthwise = conv_norm_relu6(hidden, hidden, 3, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, feature: Tensor) -> Tensor:
        out: Tensor = self.bn(self.project(self.depthwise(self.expand(feature))))
        return feature + out if self.residual else out


def row(inputs: int, outputs: int, depth: int, stride: int, expansion: int = 6) -> list[nn.Module]:
    """Blocks as a row of table 2 has them."""
    first = InvertedResidual(inputs, outputs, stride, expansion)
    return [first, *(InvertedResidual(outputs, outputs, 1, expansion) for _ in range(depth - 1))]


class MobileNetV2(nn.Module):
    """A stem that halves the map, then stages layer1 to layer4; they halve it too, but for layer1 of a small image.

    A feature point is the end of a linear bottleneck: its values may be negative.

    Args:
        widths: channels of the stem and of the seven rows of blocks.
        embedding: channels of the last convolution.
    """

    def __init__(self, widths: Sequence[int], embedding: int, classes: int, in_channels: int, stem: Stem) -> None:
        super().__init__()
        w = widths
        stride = 1 if stem == "small" else 2
        self.stem = conv_norm_relu6(in_channels, w[0], 3, stride=2)
        stages = (
            (w[2], row(w[0], w[1], 1, 1, expansion=1) + row(w[1], w[2], 2, stride)),
            (w[3], row(w[2], w[3], 3, 2)),
            (w[5], row(w[3], w[4], 4, 2) + row(w[4], w[5], 3, 1)),
            (w[7], row(w[5], w[6], 3, 2) + row(w[6], w[7], 1, 1)),
        )
        self.feature_points: dict[str, FeaturePoint] = {}
        for n, (channels, blocks) in enumerate(stages):
            self.add_module(f"layer{n + 1}", nn.Sequential(*blocks))
            self.feature_points[f"stage{n + 1}"] = FeaturePoint(f"layer{n + 1}", channels, 2 * stride << n)
        self.last = conv_norm_relu6(w[7], embedding)
        self.linear = nn.Linear(embedding, classes)
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes)."""
        out = self.stem(images)
        for point in self.feature_points.values():
            out = getattr(self, point.module)(out)
        return self.linear(F.adaptive_avg_pool2d(self.last(out), 1).flatten(1))  # type: ignore[no-any-return]


def mobilenetv2(
    widths: Sequence[int], classes: int, image_shape: Shape, *, width: Width = 1.0, stem: Stem | None = None
) -> MobileNetV2:
    """Without `stem`, the image size chooses it; the last convolution is never narrowed."""
    embedding = max(EMBEDDING, *scaled((EMBEDDING,), width))
    return MobileNetV2(scaled(widths, width), embedding, classes, image_shape[0], stem or stem_for(image_shape))


MODELS.register("mobilenetv2")(partial(mobilenetv2, WIDTHS))
MODELS.register("mobilenetv2_x0_5")(partial(mobilenetv2, [channels // 2 for channels in WIDTHS]))
