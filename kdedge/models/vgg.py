"""VGG with batch normalization and one linear layer.

K. Simonyan, A. Zisserman: "Very Deep Convolutional Networks", ICLR 2015, arXiv:1409.1556, table 1
(11: A, 13: B, 19: E).  Laid out for small images as by Y. Tian et al., ICLR 2020, arXiv:1910.10699, who
add VGG-8; their parameter names too.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.blocks import MODELS, Conv, Groups, Spatial, Width, init_weights, scaled
from kdedge.models.cost import Shape
from kdedge.models.features import FeaturePoint

FIVE_POOLS = 64
"""Pixels a side from which the map is halved before the last stage too."""


class VGG(nn.Module):
    """Five stages, block0 to block4, each halved on the way to the next.

    The first convolution is the stem; the last pooling takes whatever size is left.
    """

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], classes: int, image_shape: Shape, spatial: Spatial
    ) -> None:
        super().__init__()
        self.pools = 4 if min(image_shape[1:]) >= FIVE_POOLS else 3
        self.feature_points: dict[str, FeaturePoint] = {}
        channels = image_shape[0]
        for n, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            layers: list[nn.Module] = []
            for inputs in [channels] + [width] * (depth - 1):
                conv = spatial(inputs, width, bias=True) if n or layers else nn.Conv2d(inputs, width, 3, padding=1)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            self.add_module(f"block{n}", nn.Sequential(*layers))
            self.feature_points[f"stage{n + 1}"] = FeaturePoint(f"block{n}", width, 1 << min(n, self.pools))
            channels = width
        self.classifier = nn.Linear(channels, classes)
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes)."""
        out = images
        for n, point in enumerate(self.feature_points.values()):
            if 0 < n <= self.pools:
                out = F.max_pool2d(out, 2)
            out = getattr(self, point.module)(out)
        return self.classifier(F.adaptive_avg_pool2d(out, 1).flatten(1))  # type: ignore[no-any-return]


def vgg(
    depths: Sequence[int],
    classes: int,
    image_shape: Shape,
    *,
    conv: Conv = "dense",
    groups: Groups | None = None,
    width: Width = 1.0,
) -> VGG:
    """Args: depths: convolutions of each stage."""
    return VGG(depths, scaled((64, 128, 256, 512, 512), width), classes, image_shape, Spatial(conv, groups))


MODELS.register("vgg8")(partial(vgg, (1, 1, 1, 1, 1)))
MODELS.register("vgg11")(partial(vgg, (1, 1, 2, 2, 2)))
MODELS.register("vgg13")(partial(vgg, (2, 2, 2, 2, 2)))
MODELS.register("vgg19")(partial(vgg, (2, 2, 4, 4, 4)))
