"""Knowledge review: the student's stage, joined with all deeper ones, tells the teacher's stage.

P. Chen, S. Liu, H. Zhao, J. Jia: "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv:2104.09044.

Attention-based fusion goes from the deepest level to the first: a stage is taken to a common width (1x1 convolution,
BN), and joined with what the deeper levels gave, enlarged to its size, by two weights for each place, sigmoids of a 1x1
convolution over both.  What comes out goes on to the next level and, through a 3x3 convolution and BN, is held against
the teacher's stage.  The levels are the stages that both networks have and, above them, the last one's mean over the
places (reviewkd/pooled).

The hierarchical context loss of a level is a weighted mean of mean squared differences: of the maps (weight 1) and of
the maps averaged to 4x4, 2x2 and 1x1 places (1/2, 1/4, 1/8), where these are smaller.

As in the authors' code, whose features are those before the last ReLU of a stage; here they are the stages' outputs.
Their weight depends on the pair (CIFAR-100: 0.6 for ResNet-20, 1 for ResNet-32, 5 for WRN and ResNet-8x4, 8 for
ShuffleNetV2), whatever the batch and the map, and grows linearly for 20 of 240 epochs; here it is 1 with that warm-up.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.training import Schedule
from kdedge.distill.adapters import adapter
from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.stages import Stages, pair_stages, side
from kdedge.models.blocks import init_weights

POOLED = "pooled"
WIDEST = 512
"""Channels of the common width, at most."""


class ReviewConfig(MethodConfig):
    stages: Stages = "auto"
    """Stages to review, two at least, the deepest last: auto (all of one resolution), or names or pairs of names."""


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar, from (N, C, H, W) maps of one shape."""
    student, teacher = student.float(), teacher.float()
    pooled = [
        (F.adaptive_avg_pool2d(student, places), F.adaptive_avg_pool2d(teacher, places))
        for places in (4, 2, 1)
        if places < min(student.shape[2:])
    ]
    losses = torch.stack([F.mse_loss(left, right) for left, right in [(student, teacher), *pooled]])
    weights = 0.5 ** torch.arange(len(losses), device=losses.device)
    return (weights * losses).sum() / weights.sum()


class Fusion(nn.Module):
    """One level: the student's stage and the deeper levels make an estimate of the teacher's stage."""

    def __init__(self, channels: int, outputs: int, common: int, deepest: bool) -> None:
        super().__init__()
        self.reduce = adapter(channels, common, relu=False)
        self.weigh = None if deepest else nn.Conv2d(2 * common, 2, 1)
        self.expand = nn.Sequential(nn.Conv2d(common, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        init_weights(self)

    def forward(self, feature: Tensor, deeper: Tensor | None, size: Size) -> tuple[Tensor, Tensor]:
        """(N, channels, h, w), (N, common, ...) -> (N, outputs, *size), and (N, common, h, w) for the next level."""
        fused = self.reduce(feature)
        if self.weigh is not None and deeper is not None:
            deeper = F.interpolate(deeper, fused.shape[2:])
            weights = self.weigh(torch.cat([fused, deeper], dim=1)).sigmoid()  # (N, 2, h, w)
            fused = fused * weights[:, :1] + deeper * weights[:, 1:]
        return self.expand(F.interpolate(fused, size)), fused


@METHODS.register("reviewkd")
class ReviewKD(Method):
    Config = ReviewConfig
    tasks = EITHER
    terms: ClassVar[Mapping[str, Term]] = {"*": Term(1.0, Schedule(warmup=20 / 240))}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(source="CIFAR-100, ResNet-56 to ResNet-20, any batch and map (authors' code)", weight=0.6)
    }
    dear: ClassVar[str] = "every stage's map goes through convolutions as wide as the deepest stage"
    depends_on: ClassVar[Mapping[str, str]] = {"map": "its 3x3 convolutions see the neighbors of a place"}

    def __init__(self, config: ReviewConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("reviewkd", config.stages, student, teacher)
        if len(self.pairs) < 2:
            raise ModelError(
                f"reviewkd: only one stage to compare, {self.pairs[0][0]!r} of the student",
                "a stage is joined with the deeper ones",
                "name two or more pairs [student's, teacher's] in the option stages",
            )
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        widths = {s: (student.features[s].channels, teacher.features[t].channels) for s, t in self.pairs}
        deepest = self.student_features[-1]
        if side(student, deepest) > 1:
            widths[POOLED] = widths[deepest]
        self.names = list(widths)[::-1]
        """Of the levels, the deepest first."""
        common = min(WIDEST, student.features[deepest].channels)
        fusions = {name: Fusion(*widths[name], common, name == self.names[0]) for name in self.names}
        self.fusions = nn.ModuleDict(fusions)

    def loss(self, step: Step) -> dict[str, Tensor]:
        maps = {s: (step.student.features[s], step.taught.features[t].detach()) for s, t in self.pairs}
        student, teacher = maps[self.student_features[-1]]
        maps[POOLED] = student.mean((2, 3), keepdim=True), teacher.mean((2, 3), keepdim=True)
        terms, deeper = {}, None
        for name in self.names:
            student, teacher = maps[name]
            estimate, deeper = self.fusions[name](student, deeper, teacher.shape[2:])
            terms[f"reviewkd/{name}"] = context_loss(estimate, teacher)
        return terms
