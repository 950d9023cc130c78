"""Inter-channel correlation: channels that go together in the teacher shall go together in the student.

L. Liu, Q. Huang, S. Lin, H. Xie, B. Wang, X. Chang, X. Liang: "Exploring Inter-Channel Correlation for
Diversity-preserved Knowledge Distillation", ICCV 2021, arXiv:2202.03680.
    G = F F^T for a sample's feature F (C, H*W), each row of G to unit length;  ||G_teacher - G_student||^2 / C
the mean over samples, with weight 2.5 on CIFAR, which is the default.  A 1x1 convolution and BN take the student to the
teacher's width.

This is the authors' code, whose loss depends on neither batch, map nor width: the mean over samples and channels of the
squared distance (0..4) of two unit rows.  The two maps may be of different sizes.  G has C^2 numbers for each sample:
64 samples of 2048 channels are 1 GB.
"""

from typing import ClassVar

from torch import Tensor

from kdedge.distill.adapters import adapters
from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.maps import products, unit
from kdedge.distill.stages import Stages, pair_stages


class ICKDConfig(MethodConfig):
    stages: Stages = "last"
    """Stages to compare: last, middle, auto (each shared resolution), shared names, or pairs [student's, teacher's]."""


def channel_correlations(feature: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, C): inner product of each two channels, rows of unit length."""
    flat = feature.flatten(2)
    return unit(products(flat, flat))


def ickd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar, 0..4, from (N, C, H, W) features of one width and any sizes; the mean over samples and channels."""
    gap = channel_correlations(student) - channel_correlations(teacher)
    return gap.square().sum(dim=2).mean()


@METHODS.register("ickd")
class ICKD(Method):
    Config = ICKDConfig
    tasks = EITHER
    detector_options: ClassVar = {"stages": "auto"}
    terms: ClassVar = {"*": Term(2.5)}
    presets: ClassVar = {"paper": Preset("CIFAR-100, any batch and maps (authors' code)", terms={"*": 2.5})}

    def __init__(self, config: ICKDConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("ickd", config.stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.adapters = adapters(self.pairs, student, teacher, relu=False)

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student.features, step.taught.features
        return {f"ickd/{s}": ickd_loss(self.adapters[s](student[s]), teacher[t].detach()) for s, t in self.pairs}
