"""Flow of the solution procedure: match how one stage's channels go together with the next one's.

J. Yim, D. Joo, J. Bae, J. Kim: "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
Transfer Learning", CVPR 2017, eq. (1) and (2).

Two stages of a network, brought to one size by averaging the larger map, make the matrix
    G_ij = 1 / (H W) sum_hw F1_ihw F2_jhw    (N, C1, C2)
and the loss is the squared distance of the student's matrices and the teacher's, the mean over samples.  A matrix is
made for each stage and the next one of those that both networks have.  Where a student's stage has another width than
the teacher's, a 1x1 convolution and BN, which train with it, take it to the teacher's: the paper has equal widths only.

form: normalized (default) compares matrices of unit length, so that a distance is 0..4 whatever the widths and the
scale of the features.  form: plain is the mean over the entries of the squared difference, as RepDistiller has it.  The
paper and RepDistiller train in two phases: on this loss alone, with weight 1 (the 50 of RepDistiller's script reaches a
term that is 0), then on the labels alone.  They start at the stem; here the first stage is the first.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.distill.adapters import adapter
from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, needed
from kdedge.distill.maps import products, same_size
from kdedge.distill.stages import Stages, pair_stages

Form = Literal["normalized", "plain"]
Maps = tuple[Tensor, Tensor]
"""Two stages of one network, (N, C1, H1, W1) and (N, C2, H2, W2)."""


class FspConfig(MethodConfig):
    stages: Stages = "auto"
    """Stages to connect, two at least, in their order: auto (all of one resolution), or names or pairs of names."""
    form: Form = "normalized"
    """Distance of matrices of unit length, or the mean squared difference of their entries."""


def flow(first: Tensor, second: Tensor) -> Tensor:
    """(N, C1, H1, W1), (N, C2, H2, W2) -> (N, C1, C2): the mean over the places of each product of two channels."""
    first, second = (feature.flatten(2) for feature in same_size(first.float(), second.float()))
    return products(first, second) / first.shape[2]


def fsp_loss(student: Maps, teacher: Maps, form: Form) -> Tensor:
    """Scalar, from two stages of each network, of the same widths in both."""
    left, right = flow(*student), flow(*teacher)
    if form == "plain":
        return F.mse_loss(left, right)
    left, right = (F.normalize(matrix.flatten(1), dim=1) for matrix in (left, right))
    return (left - right).square().sum(dim=1).mean()


@METHODS.register("fsp")
class Fsp(Method):
    Config = FspConfig
    tasks = EITHER
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            source="any batch and map; the first of two phases (RepDistiller: 30 epochs), the labels alone follow",
            cross_entropy=0.0,
            options={"form": "plain"},
        )
    }

    def __init__(self, config: FspConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("fsp", config.stages, student, teacher)
        if len(self.pairs) < 2:
            raise ModelError(
                f"fsp: only one stage to compare, {self.pairs[0][0]!r} of the student",
                "a matrix is made from a stage and the next one",
                "name two or more pairs [student's, teacher's] in the option stages",
            )
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        widths = {s: (student.features[s].channels, teacher.features[t].channels) for s, t in self.pairs}
        self.guides = nn.ModuleDict(
            {s: adapter(*width, relu=False) for s, width in widths.items() if len({*width}) > 1}
        )
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        mine = step.student.features | {s: guide(step.student.features[s]) for s, guide in self.guides.items()}
        wanted = {t: step.taught.features[t].detach() for t in self.teacher_features}
        return {
            f"fsp/{s1}-{s2}": fsp_loss((mine[s1], mine[s2]), (wanted[t1], wanted[t2]), self.config.form)
            for (s1, t1), (s2, t2) in pairwise(self.pairs)
        }
