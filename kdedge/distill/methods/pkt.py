"""Probabilistic knowledge transfer: the student learns how the teacher's samples are distributed around each other.

N. Passalis, A. Tefas: "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018,
arXiv:1803.10837.
    K(a, b) = (cos(a, b) + 1) / 2;   p(i | j) = K(x_i, x_j) / sum_k K(x_k, x_j);   sum_ij p_t log(p_t / p_s)
on penultimate features.

As in the authors' code, a sample is among its own neighbors (k = j).  The code takes the mean over the N^2 pairs; here
it is the mean over the N samples, which does not depend on the batch.  The weight 30000 of the benchmark of Y. Tian et
al. (ICLR 2020, arXiv:1910.10699) then is 30000 / N, 469 at batch 64, which is the default.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.maps import pooled, products, unit
from kdedge.distill.stages import last_stage

SMALLEST = 1e-7
"""The least affinity of two samples: opposite ones would have none, and its logarithm no gradient."""


class PKTConfig(MethodConfig):
    pass


def neighbor_probabilities(vectors: Tensor) -> Tensor:
    """(N, C) -> (N, N): how likely each sample is to be taken for a row's neighbor; rows sum to 1."""
    directions = unit(vectors)
    affinity = ((products(directions, directions) + 1) / 2).clamp_min(SMALLEST)
    return affinity / affinity.sum(dim=1, keepdim=True)


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar: KL of the neighbor probabilities, the mean over samples, from (N, C) vectors of any widths."""
    left, right = neighbor_probabilities(student), neighbor_probabilities(teacher)
    return F.kl_div(left.log(), right.log(), reduction="batchmean", log_target=True)


@METHODS.register("pkt")
class PKT(Method):
    Config = PKTConfig
    terms: ClassVar = {"*": Term(30000 / 64)}
    presets: ClassVar = {"benchmark": Preset("CRD benchmark, CIFAR-100, batch 64", terms={"*": 30000 / 64})}

    def __init__(self, config: PKTConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.student_features, self.teacher_features = (last_stage(student),), (last_stage(teacher),)

    def loss(self, step: Step) -> dict[str, Tensor]:
        [student], [teacher] = self.student_features, self.teacher_features
        vectors = pooled(step.student.features[student]), pooled(step.taught.features[teacher]).detach()
        return {"pkt/neighbors": pkt_loss(*vectors)}
