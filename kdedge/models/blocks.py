"""What kdedge's own networks are built from, and the registry that they stand in.

One switch says how the 3x3 convolutions are made; each of them is followed by the block's own BN and activation:

    dense      conv3x3
    grouped    channel shuffle (not where a 1x1 convolution comes before), conv3x3 in g groups
    depthwise  depthwise conv3x3, BN, ReLU, pointwise conv1x1

The stem is always dense.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.registry import Registry
from kdedge.models.cost import Shape

MODELS: Registry[Callable[..., nn.Module]] = Registry("model", "kdedge.models")
"""Builders, called with classes, image_shape and the options that their signatures name."""

Conv = Literal["dense", "grouped", "depthwise"]
Groups = Annotated[int, Field(ge=1)]
Width = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Stem = Literal["small", "large"]

SMALL_IMAGE = 64
"""Pixels a side up to which ImageNet networks get the stem for small images."""


@dataclass(frozen=True)
class Spatial:
    """How a network's 3x3 convolutions are made.

    Raises:
        ModelError: groups given for convolutions without groups; on use, channels that groups do not divide.
    """

    conv: Conv = "dense"
    groups: int | None = None
    """Of grouped convolutions; 4 when not given."""

    def __post_init__(self) -> None:
        if self.groups is not None and self.conv != "grouped":
            raise ModelError(
                f"groups {self.groups} with conv {self.conv!r}",
                "only grouped convolutions have groups",
                "set conv: grouped, or leave groups out",
            )

    def __call__(
        self, inputs: int, outputs: int, stride: int = 1, bias: bool = False, shuffle: bool = True
    ) -> nn.Module:
        """A 3x3 convolution that keeps the map's size, or halves it."""
        if self.conv == "depthwise":
            return depthwise_separable(inputs, outputs, stride, norm=False, bias=bias)
        if self.conv == "dense":
            return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
        groups = 4 if self.groups is None else self.groups
        self._check(inputs, outputs, groups)
        grouped = nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=groups, bias=bias)
        return nn.Sequential(OrderedDict(shuffle=ChannelShuffle(groups), grouped=grouped)) if shuffle else grouped

    @staticmethod
    def _check(inputs: int, outputs: int, groups: int) -> None:
        valid = [n for n in range(1, min(inputs, outputs) + 1) if inputs % n == 0 and outputs % n == 0]
        if groups not in valid:
            raise ModelError(
                f"groups {groups} does not divide a convolution of {inputs} -> {outputs} channels",
                f"valid there: {', '.join(map(str, valid))}",
            )


class ChannelShuffle(nn.Module):
    """Deals the channels of each group out to all groups (ShuffleNet, arXiv:1707.01083, fig. 1)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, feature: Tensor) -> Tensor:
        count, channels, height, width = feature.shape
        split = feature.view(count, self.groups, channels // self.groups, height, width)
        return split.transpose(1, 2).reshape(count, channels, height, width)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


def depthwise_separable(
    inputs: int, outputs: int, stride: int = 1, norm: bool = True, bias: bool = False
) -> nn.Sequential:
    """Depthwise 3x3, BN, ReLU, pointwise 1x1; with `norm` another BN and ReLU."""
    layers = OrderedDict[str, nn.Module](
        depthwise=nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        bn1=nn.BatchNorm2d(inputs),
        relu1=nn.ReLU(inplace=True),
        pointwise=nn.Conv2d(inputs, outputs, 1, bias=bias),
    )
    if norm:
        layers.update(bn2=nn.BatchNorm2d(outputs), relu2=nn.ReLU(inplace=True))
    return nn.Sequential(layers)


def conv_norm_relu(conv: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))


def scaled(widths: Sequence[int], factor: float) -> list[int]:
    """Channels times a width multiplier, each to the nearest multiple of 8 and at least 8; as they are at 1."""
    return list(widths) if factor == 1 else [max(8, int(width * factor / 8 + 0.5) * 8) for width in widths]


def stem_for(image_shape: Shape) -> Stem:
    return "small" if max(image_shape[1:]) <= SMALL_IMAGE else "large"


def init_weights(model: nn.Module) -> None:
    """He initialization (fan in) of the 2-D convolutions, which suits grouped and depthwise ones as well."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
