"""Relational distillation: keep the distances between samples, and the angles that three of them make.

W. Park, D. Kim, Y. Lu, M. Cho: "Relational Knowledge Distillation", CVPR 2019, arXiv:1904.05068, sec. 3.2.
    distance    huber(d_s(i, j) - d_t(i, j)),        d the L2 distance over the batch's mean distance
    angle       huber(a_s(i, j, k) - a_t(i, j, k)),  a the cosine of the angle that i and k make at j
on penultimate features, huber(x) being x^2 / 2 up to 1 and |x| - 1/2 beyond.

Means over all N^2 pairs and N^3 triples, as in the authors' code (the paper writes sums); where samples coincide, as
each does with itself, distance and angle count as 0.  The weights 25 and 50, those of the benchmark of Y. Tian et al.
(ICLR 2020, arXiv:1910.10699), are the default.
The angles are N^3 numbers: beyond 8 million they are computed again for the gradient rather than kept.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.maps import SHORTEST, pooled, products, unit
from kdedge.distill.stages import last_stage

CHUNK = 1 << 23
"""Floats that a network's angles, or the differences they are made of, may take at once."""


class RKDConfig(MethodConfig):
    pass


def relative_distances(vectors: Tensor) -> Tensor:
    """(N, C) -> (N, N): L2 distances over the mean of those that are not zero, in float32."""
    vectors = vectors.float()
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")  # 0 for equal samples
    mean = distances.sum() / distances.count_nonzero().clamp_min(1)
    return distances / mean.clamp_min(SHORTEST)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar, from (N, C) vectors of any widths."""
    return F.smooth_l1_loss(relative_distances(student), relative_distances(teacher))


def angles(vertices: Tensor, vectors: Tensor) -> Tensor:
    """(M, C), (N, C) -> (M, N, N): cosine at each vertex of the angle between each two vectors."""
    rays = unit(vectors - vertices.unsqueeze(1))  # (M, N, C)
    return products(rays, rays)


def angle_loss(student: Tensor, teacher: Tensor, chunk: int = CHUNK) -> Tensor:
    """Scalar, from (N, C) vectors of any widths."""
    student, teacher = student.float(), teacher.float()
    count = len(student)
    rows = max(1, chunk // (count * max(count, student.shape[1], teacher.shape[1])))

    def part(left: Tensor, right: Tensor) -> Tensor:
        return F.smooth_l1_loss(angles(left, student), angles(right, teacher), reduction="sum")

    parts = list(zip(torch.split(student, rows), torch.split(teacher, rows), strict=True))
    if len(parts) == 1:
        return part(student, teacher) / count**3
    again = (checkpoint(part, *each, use_reentrant=False, preserve_rng_state=False) for each in parts)
    return torch.stack(list(again)).sum() / count**3


@METHODS.register("rkd")
class RKD(Method):
    Config = RKDConfig
    terms: ClassVar = {"distance": Term(25.0), "angle": Term(50.0)}
    presets: ClassVar = {
        "benchmark": Preset("CRD benchmark, CIFAR-100, any batch", terms={"distance": 25.0, "angle": 50.0})
    }

    def __init__(self, config: RKDConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.student_features, self.teacher_features = (last_stage(student),), (last_stage(teacher),)

    def loss(self, step: Step) -> dict[str, Tensor]:
        [student], [teacher] = self.student_features, self.teacher_features
        vectors = pooled(step.student.features[student]), pooled(step.taught.features[teacher]).detach()
        return {"rkd/distance": distance_loss(*vectors), "rkd/angle": angle_loss(*vectors)}
