"""Attention transfer: match where two networks look rather than what they compute.

S. Zagoruyko, N. Komodakis: "Paying More Attention to Attention", ICLR 2017, arXiv:1612.03928, sec. 3.1.

The paper's eq. (2) takes the L2 norm of the difference of two normalized maps; the authors' code the mean square over
the batch and the H*W places, with weight 1000 for each stage.  Here: the squared L2 norm, the mean over samples, which
does not depend on the size of the map.  Their 1000 then is 1000 / (H*W): 1.0 at 32x32, 3.9 at 16x16, 15.6 at 8x8.
A weight of about 1 suits every size.  A map of one place is constant once normalized, so such stages teach nothing.
"""

import math
from typing import Literal

import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from kdedge.core.errors import ModelError, nearest
from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Step
from kdedge.models.features import match_stages

Pair = tuple[str, str]
Form = Literal["squared", "paper"]


class AttentionConfig(MethodConfig):
    stages: Literal["auto"] | tuple[str | Pair, ...] = Field("auto", min_length=1)
    """Stages to match: a name both networks have, or a pair [student's, teacher's]; auto pairs them by resolution."""
    p: int = Field(2, ge=1, le=4)
    """Power of |activation| that is averaged over the channels."""
    form: Form = "squared"
    """Squared L2 norm of the difference of the maps, or the paper's plain L2 norm."""

    @field_validator("stages")
    @classmethod
    def _each_once(cls, stages: Literal["auto"] | tuple[str | Pair, ...]) -> Literal["auto"] | tuple[str | Pair, ...]:
        names = [] if stages == "auto" else [student for student, _ in map(as_pair, stages)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"student stage listed twice: {', '.join(twice)}")
        return stages


def as_pair(stage: str | Pair) -> Pair:
    return (stage, stage) if isinstance(stage, str) else stage


def attention_map(feature: Tensor, p: int) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W): mean over the channels of |activation|^p, in float32."""
    return feature.float().abs().pow(p).mean(dim=1, keepdim=True)


def attention_loss(student: Tensor, teacher: Tensor, p: int, form: Form) -> Tensor:
    """Scalar, from (N, C, H, W) features of any widths; the larger map is averaged down to the smaller one's size."""
    maps = [attention_map(feature, p) for feature in (student, teacher)]
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    left, right = (F.normalize(F.adaptive_avg_pool2d(each, size).flatten(1), dim=1) for each in maps)
    gap = left - right  # (N, H*W)
    return gap.norm(dim=1).mean() if form == "paper" else gap.square().sum(dim=1).mean()


def named_pairs(stages: tuple[str | Pair, ...], student: Network, teacher: Network) -> list[Pair]:
    """The pairs asked for.

    Raises:
        ModelError: a network has no such stage, or it is a single place.
    """
    pairs = [as_pair(stage) for stage in stages]
    for whose, network, names in zip(("student", "teacher"), (student, teacher), zip(*pairs, strict=True), strict=True):
        for name in names:
            if name not in network.features:
                raise ModelError(f"attention: the {whose} has no stage {name!r}", nearest(name, network.features))
            if side(network, name) < 2:
                raise one_place(whose, name)
    return pairs


def matched_pairs(student: Network, teacher: Network) -> list[Pair]:
    """Every stage the two networks share by resolution, but for maps of one place.

    Raises:
        ModelError: there is none.
    """
    shared = match_stages(student.features, teacher.features)
    pairs = [(s, t) for s, t in shared if min(side(student, s), side(teacher, t)) > 1]
    if not pairs:
        raise one_place("student", shared[0][0])
    return pairs


def one_place(whose: str, stage: str) -> ModelError:
    return ModelError(
        f"attention: {stage!r} of the {whose} is a map of one place",
        "once normalized it is the same for every image",
        "name an earlier stage, or use larger images",
    )


def side(network: Network, stage: str) -> int:
    """Side of the stage's map."""
    return math.ceil(network.image_size / network.features[stage].stride)


@METHODS.register("attention")
class Attention(Method):
    Config = AttentionConfig

    def __init__(self, config: AttentionConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        assert teacher is not None
        stages = config.stages
        self.pairs = matched_pairs(student, teacher) if stages == "auto" else named_pairs(stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        assert step.teacher is not None
        student, teacher, c = step.student.features, step.teacher.features, self.config
        return {f"attention/{s}": attention_loss(student[s], teacher[t].detach(), c.p, c.form) for s, t in self.pairs}
