"""Variational information distillation: make the teacher's feature likely, given the student's.

S. Ahn, S. X. Hu, A. Damianou, N. D. Lawrence, Z. Dai: "Variational Information Distillation for Knowledge Transfer",
CVPR 2019, arXiv:1904.05835, sec. 2.  Minus the log-likelihood of a Gaussian, but for its constant:
    1/2 ((F_teacher - mu(F_student))^2 / sigma^2 + log sigma^2),   sigma^2 = softplus(alpha) + 1e-5 for each channel
mu being three 1x1 convolutions with ReLUs between them.

Mean over samples, channels and places, as in the authors' code (the paper sums), with weight 1.  It has no zero: the
better the prediction, the smaller sigma^2, and the loss falls below 0.  alpha is a parameter like any other, so that it
is trained, decayed and saved.  A larger map is averaged down to the smaller one's size before mu.
"""

import math
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, needed
from kdedge.distill.maps import same_size
from kdedge.distill.stages import Stages, pair_stages
from kdedge.models.blocks import init_weights

SMALLEST = 1e-5
"""Least variance."""


class VIDConfig(MethodConfig):
    stages: Stages = "auto"
    """Stages to match: auto (each shared resolution), middle, last, shared names, or pairs [student's, teacher's]."""
    variance: float = Field(5.0, gt=SMALLEST, allow_inf_nan=False)
    """What the variance of every channel starts from."""


def vid_loss(predicted: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """Scalar, from two (N, C, H, W) features of one size and the (C,) variances of the channels."""
    variance = variance.float().reshape(-1, 1, 1)
    return (((predicted.float() - teacher.float()).square() / variance + variance.log()) / 2).mean()


class Gaussian(nn.Module):
    """Mean and variance of the teacher's feature, given the student's."""

    def __init__(self, inputs: int, outputs: int, variance: float) -> None:
        super().__init__()
        widths = (inputs, outputs, outputs, outputs)
        first, second, third = (nn.Conv2d(*pair, 1, bias=False) for pair in pairwise(widths))
        self.mean = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True), third)
        self.alpha = nn.Parameter(torch.full((outputs,), inverse_softplus(variance - SMALLEST)))
        init_weights(self)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """(N, inputs, H, W) -> mean (N, outputs, H, W), variance (outputs,)."""
        return self.mean(feature), F.softplus(self.alpha.float()) + SMALLEST


def inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


@METHODS.register("vid")
class VID(Method):
    Config = VIDConfig
    tasks = EITHER
    presets: ClassVar = {"benchmark": Preset("CRD benchmark, CIFAR-100, any batch and maps")}

    def __init__(self, config: VIDConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("vid", config.stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        widths = {s: (student.features[s].channels, teacher.features[t].channels) for s, t in self.pairs}
        self.gaussians = nn.ModuleDict({s: Gaussian(*pair, config.variance) for s, pair in widths.items()})

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        for s, t in self.pairs:
            student, teacher = same_size(step.student.features[s], step.taught.features[t].detach())
            mean, variance = self.gaussians[s](student)
            terms[f"vid/{s}"] = vid_loss(mean, teacher, variance)
        return terms
