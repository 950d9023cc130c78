"""Feature pyramids: a backbone's stages merged from the top down into maps of equal channels.

T.-Y. Lin et al.: "Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv:1612.03144.
"""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn
from torchvision import models
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from kdedge.core.errors import ModelError
from kdedge.models.features import FeaturePoint

Backbone = Literal["resnet18", "resnet34", "resnet50", "mobilenet_v3_large", "mobilenet_v3_small"]
Channels = Annotated[int, Field(ge=8)]
Levels = Literal["p2-p5", "p2-p7", "p3-p5", "p3-p7"]
Norm = Literal["none", "group"]
Source = Literal["p5", "c5"]
STAGES = 4
GROUPS = 32


def pyramid(
    backbone: Backbone, channels: int, levels: Levels, p6: Source
) -> tuple[nn.Module, tuple[int, ...], dict[str, FeaturePoint], nn.Module]:
    """The backbone and the pyramid on it, the levels of its maps, its feature points, and whose the backbone was."""
    first, last = int(levels[1]), int(levels[-1])
    classifier = models.get_model(backbone, weights=None)
    body, stages = trunk(backbone, classifier)
    merged = stages[first - 2 :]
    source = channels if p6 == "p5" else stages[-1][1]
    network = BackboneWithFPN(
        body,
        {name: str(n) for n, (name, _) in enumerate(merged)},
        [width for _, width in merged],
        channels,
        extra_blocks=LastLevelP6P7(source, channels),
    )
    if last == 5:
        network.fpn.extra_blocks = None
    points = {
        f"stage{n}": FeaturePoint(f"backbone.body.{name}", width, 2 << n) for n, (name, width) in enumerate(stages, 1)
    }
    for level in range(first, last + 1):
        module = f"layer_blocks.{level - first}" if level <= 5 else f"extra_blocks.p{level}"
        points[f"p{level}"] = FeaturePoint(f"backbone.fpn.{module}", channels, 2**level)
    return network, tuple(range(first, last + 1)), points, classifier


def trunk(backbone: Backbone, classifier: Any) -> tuple[nn.Module, list[tuple[str, int]]]:
    """A classifier without its head, and the last module of each stride from 4 to 32 with its channels."""
    if backbone.startswith("resnet"):
        return classifier, [(f"layer{n}", classifier.inplanes >> (STAGES - n)) for n in range(1, STAGES + 1)]
    blocks = classifier.features
    ends = [n - 1 for n, block in enumerate(blocks) if getattr(block, "_is_cn", False)] + [len(blocks) - 1]
    return blocks, [(str(n), blocks[n].out_channels) for n in ends[-STAGES:]]


def norm_layer(norm: Norm, channels: int) -> partial[nn.GroupNorm] | None:
    """Raises ModelError for channels that do not make these groups."""
    if norm == "none":
        return None
    if channels % GROUPS or channels == GROUPS:
        raise ModelError(
            f"channels {channels} with norm 'group'",
            f"group normalization makes {GROUPS} equal groups, each of two channels or more",
            f"set channels: {max(2, round(channels / GROUPS)) * GROUPS}, or norm: none",
        )
    return partial(nn.GroupNorm, GROUPS)
