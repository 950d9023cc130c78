"""FitNets: a layer in the middle of the student learns to predict the teacher's feature there.

A. Romero, N. Ballas, S. E. Kahou, A. Chassang, C. Gatta, Y. Bengio: "FitNets: Hints for Thin Deep Nets", ICLR 2015,
arXiv:1412.6550, sec. 2.2, eq. (3): 1/2 ||F_teacher - r(F_student)||^2, r being a convolution that is trained along.

Here: the mean of the squared difference over samples, channels and places instead of half the sum, so that the weight
means the same at every size.  r is a 1x1 convolution, BN and ReLU, and a larger map is averaged down to the smaller
one's size.  The paper trains the lower half of the student on the hint alone and then the whole of it on labels and
soft targets; as one term beside the labels, with weight 100, it is what the benchmark of Y. Tian et al. (ICLR 2020,
arXiv:1910.10699) trains.  For the paper's order put it into a phase of its own, with cross_entropy at 0.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdedge.distill.adapters import adapters
from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.maps import same_size
from kdedge.distill.stages import Stages, pair_stages


class FitNetConfig(MethodConfig):
    stages: Stages = "middle"
    """Stages to match: auto (each shared resolution), middle, last, shared names, or pairs [student's, teacher's]."""
    relu: bool = True
    """End the student's adapter in a ReLU; false for a teacher whose stages have negative outputs (MobileNetV2)."""


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar: mean squared difference of two (N, C, H, W) features, the larger averaged down to the smaller's size."""
    return F.mse_loss(*same_size(student.float(), teacher.float()))


@METHODS.register("fitnet")
class FitNet(Method):
    Config = FitNetConfig
    tasks = EITHER
    detector_options: ClassVar = {"stages": "auto", "relu": False}
    terms: ClassVar = {"*": Term(100.0)}
    presets: ClassVar = {"benchmark": Preset("CRD benchmark, CIFAR-100, any batch and maps", terms={"*": 100.0})}

    def __init__(self, config: FitNetConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("fitnet", config.stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.adapters = adapters(self.pairs, student, teacher, config.relu)

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student.features, step.taught.features
        return {f"fitnet/{s}": hint_loss(self.adapters[s](student[s]), teacher[t].detach()) for s, t in self.pairs}
