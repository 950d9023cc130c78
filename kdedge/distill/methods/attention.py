"""Attention transfer: match where two networks look rather than what they compute.

S. Zagoruyko, N. Komodakis: "Paying More Attention to Attention", ICLR 2017, arXiv:1612.03928, sec. 3.1.

The paper's eq. (2) takes the L2 norm of the difference of two normalized maps; the authors' code the mean square over
the batch and the H*W places, with weight 1000 for each stage.  Here: the squared L2 norm, the mean over samples, which
does not depend on the size of the map.  Their 1000 then is 1000 / (H*W): 1.0 at 32x32, 3.9 at 16x16, 15.6 at 8x8.
A weight of about 1 suits every size.  A map of one place is constant once normalized, so such stages teach nothing.
"""

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, needed
from kdedge.distill.maps import same_size
from kdedge.distill.stages import Stages, pair_stages

Form = Literal["squared", "paper"]


class AttentionConfig(MethodConfig):
    stages: Stages = "auto"
    """Stages to match: auto (each shared resolution), middle, last, shared names, or pairs [student's, teacher's]."""
    p: int = Field(2, ge=1, le=4)
    """Power of |activation| that is averaged over the channels."""
    form: Form = "squared"
    """Squared L2 norm of the difference of the maps, or the paper's plain L2 norm."""


def attention_map(feature: Tensor, p: int) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W): mean over the channels of |activation|^p, in float32."""
    values = feature.float() if p % 2 == 0 else feature.float().abs()
    return values.pow(p).sum(dim=1, keepdim=True) / feature.shape[1]  # mean()'s gradient is slow for channels_last


def attention_loss(student: Tensor, teacher: Tensor, p: int, form: Form) -> Tensor:
    """Scalar, from (N, C, H, W) features of any widths; the larger map is averaged down to the smaller one's size."""
    maps = same_size(attention_map(student, p), attention_map(teacher, p))
    left, right = (F.normalize(each.flatten(1), dim=1) for each in maps)
    gap = left - right  # (N, H*W)
    return gap.norm(dim=1).mean() if form == "paper" else gap.square().sum(dim=1).mean()


@METHODS.register("attention")
class Attention(Method):
    Config = AttentionConfig
    tasks = EITHER
    presets: ClassVar = {
        "paper": Preset(
            "CIFAR, maps of 32, 16 and 8 (authors' code)",
            terms={"stage1": 1000 / 32**2, "stage2": 1000 / 16**2, "stage3": 1000 / 8**2},
        )
    }

    def __init__(self, config: AttentionConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("attention", config.stages, student, teacher, places=True)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher, c = step.student.features, step.taught.features, self.config
        return {f"attention/{s}": attention_loss(student[s], teacher[t].detach(), c.p, c.form) for s, t in self.pairs}
