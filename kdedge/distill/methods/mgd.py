"""Masked generative distillation: from a part of its own feature the student is to make the teacher's whole one.

Z. Yang, Z. Li, M. Shao, D. Shi, Z. Yuan, C. Yuan: "Masked Generative Distillation", ECCV 2022, arXiv:2205.01529.

The student's feature (N, C, H, W), taken to the teacher's width by a 1x1 convolution where that is another, is masked,
and two 3x3 convolutions with a ReLU between make the teacher's of the rest.  A mask is drawn for every sample and step,
from torch's random state: of channels, as the authors have it for classification, or of places, as for detection.

The authors sum the squared difference over C, H and W; here it is their mean.  Their weight of 7e-5 at 512x7x7
(ImageNet, ResNet-34 to ResNet-18) then is 1.8, and 1.2e-3 at 512x4x4 (CIFAR-100, the same pair) 9.8; the default is 2.

For detectors the usual options are the authors' for dense ones: 65 percent of the places are hidden, of every level.
Their 2e-5 for RetinaNet, summed over 256 channels and the places of an image of 800x1333, then is 86 for p3 and less by
four from level to level, down to 0.4 for p7.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.layout import COCO_PLACES
from kdedge.distill.maps import same_size
from kdedge.distill.stages import Stages, pair_stages
from kdedge.models.blocks import init_weights

Masked = Literal["channels", "places"]


class MgdConfig(MethodConfig):
    stages: Stages = "last"
    """Stages to generate: last, middle, auto (all of one resolution), or names or pairs [student's, teacher's]."""
    masked: Masked = "channels"
    """What is hidden, of each sample another part: channels, or places of the map."""
    fraction: float = Field(0.15, ge=0, lt=1)
    """Share that is hidden, on average."""


def random_mask(feature: Tensor, masked: Masked, fraction: float) -> Tensor:
    """Zeros and ones, (N, C, 1, 1) or (N, 1, H, W) for a feature (N, C, H, W)."""
    count, channels, height, width = feature.shape
    shape = (count, channels, 1, 1) if masked == "channels" else (count, 1, height, width)
    return (torch.rand(shape, device=feature.device) >= fraction).to(feature.dtype)


def mgd_loss(generated: Tensor, teacher: Tensor) -> Tensor:
    """Scalar, from (N, C, H, W) features; the larger map is averaged down to the smaller one's size."""
    return F.mse_loss(*same_size(generated.float(), teacher.float()))


class Generator(nn.Module):
    """Makes the teacher's feature of what is left of the student's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.align = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.generate = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        init_weights(self)

    def forward(self, feature: Tensor, masked: Masked, fraction: float) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        aligned = self.align(feature)
        generated: Tensor = self.generate(aligned * random_mask(aligned, masked, fraction))
        return generated


@METHODS.register("mgd")
class Mgd(Method):
    Config = MgdConfig
    tasks = EITHER
    detector_options: ClassVar[Mapping[str, Any]] = {"stages": "auto", "masked": "places", "fraction": 0.65}
    terms: ClassVar[Mapping[str, Term]] = {"*": Term(2.0)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            source="ImageNet, ResNet-34 to ResNet-18, any batch, map of 512x7x7 (authors' code)",
            terms={"*": 7e-5 * 512 * 7 * 7},
        ),
        "cifar": Preset(
            source="CIFAR-100, ResNet-34 to ResNet-18, any batch, map of 512x4x4 (code of the authors' later NKD)",
            terms={"*": 1.2e-3 * 512 * 4 * 4},
        ),
        "retinanet": Preset(
            source="COCO, RetinaNet, images of 800x1333, levels p3 to p7 of 256 channels, any batch (authors' code)",
            terms={level: round(2e-5 * 256 * places, 3) for level, places in COCO_PLACES.items()},
            options={"stages": "auto", "masked": "places", "fraction": 0.65},
            task="detect",
        ),
    }
    depends_on: ClassVar[Mapping[str, str]] = {
        "batch": "every sample draws a mask of its own",
        "order": "every sample draws a mask of its own",
        "map": "its 3x3 convolutions see the neighbors of a place",
    }

    def __init__(self, config: MgdConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("mgd", config.stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.generators = nn.ModuleDict(
            {s: Generator(student.features[s].channels, teacher.features[t].channels) for s, t in self.pairs}
        )
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        for s, t in self.pairs:
            generated = self.generators[s](step.student.features[s], self.config.masked, self.config.fraction)
            terms[f"mgd/{s}"] = mgd_loss(generated, step.taught.features[t].detach())
        return terms
