"""Similarity preserving: samples that are alike to the teacher shall be alike to the student.

F. Tung, G. Mori: "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv:1907.09682, sec. 3:
    G = F F^T for the batch's features F (N, C*H*W), each row of G to unit length;  ||G_teacher - G_student||^2 / N^2

Here: / N instead, the mean over samples, which does not depend on the batch: a row's squared distance, 0..4, is the
same however often the batch is repeated.  The weight 3000 of the benchmark of Y. Tian et al. (ICLR 2020,
arXiv:1910.10699) then is 3000 / N, 46.9 at batch 64, which is the default.  The two maps may differ in width and size.
"""

from typing import ClassVar

from torch import Tensor

from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.maps import products, unit
from kdedge.distill.stages import Stages, pair_stages


class SPConfig(MethodConfig):
    stages: Stages = "last"
    """Stages to compare: last, middle, auto (each shared resolution), shared names, or pairs [student's, teacher's]."""


def similarities(feature: Tensor) -> Tensor:
    """(N, ...) -> (N, N): inner product of each two samples, rows of unit length."""
    flat = feature.flatten(1)
    return unit(products(flat, flat))


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar, 0..4: squared distance of the samples' similarities, the mean over samples, from (N, ...) features."""
    return (similarities(student) - similarities(teacher)).square().sum(dim=1).mean()


@METHODS.register("sp")
class SP(Method):
    Config = SPConfig
    terms: ClassVar = {"*": Term(3000 / 64)}
    presets: ClassVar = {"benchmark": Preset("CRD benchmark, CIFAR-100, batch 64", terms={"*": 3000 / 64})}

    def __init__(self, config: SPConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("sp", config.stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student.features, step.taught.features
        return {f"sp/{s}": sp_loss(student[s], teacher[t].detach()) for s, t in self.pairs}
