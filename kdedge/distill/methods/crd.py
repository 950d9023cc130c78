"""Contrastive representation distillation: an image is near itself in both networks' embeddings, other classes far.

Y. Tian, D. Krishnan, P. Isola: "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699, sec. 3.

Both penultimate features are embedded: a linear layer, centering, unit length.  Banks keep what each network last made
of every training image.  For an embedding e, the other network's row p of the same image and rows n_k of K others,
    L = -log h(e, p) - sum_k log(1 - h(e, n_k)),    h(e, v) = x / (x + K z),  x = exp(e v / temperature)
which is taken for both networks (crd/student, crd/teacher), the mean over the samples.  After that the rows of the
batch become momentum * row + (1 - momentum) * embedding, again of unit length.  z is what the authors' code has in its
place, the mean of x over random rows: exp(1 / (2 d temperature^2)) in d dimensions, which they measure at the start.

What differs from the authors' code:
    Embeddings are centered, by a BN without scale and shift.  Features after a ReLU have a large part in common, which
    otherwise makes them nearly one vector at the start, and a short training ends before they have parted.
    Only images that were met are drawn, and one met for the first time gets its row before the loss.  There the rows
    are random at first, as positives too, and those of images that are not trained on (validation) remain so.
    The K rows are drawn once for the batch, not for each sample; those of the sample's own class do not count, and the
    others make up for them.  The expected loss is the same, and takes a matrix product where theirs copies N K rows.
The authors' weight is 0.8 whatever the batch and the map, and it is the default here.  Where several processes train,
each keeps the rows of all.  Banks take 8 d bytes for each training image, in memory and in every checkpoint.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, distributed, nn

from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.maps import pooled, products
from kdedge.distill.stages import last_stage


class CrdConfig(MethodConfig):
    dimensions: int = Field(128, ge=1)
    """Of the embeddings in which the networks are compared."""
    negatives: int = Field(16384, ge=1)
    """Other images that each image is held against."""
    temperature: float = Field(0.07, gt=0)
    """What the inner products of the embeddings are divided by."""
    momentum: float = Field(0.5, ge=0, lt=1)
    """Share of an image's row that stays when the image is seen again."""


def contrast_loss(embedding: Tensor, positive: Tensor, negatives: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Scalar, from (N, d), (N, d) and (K, d) of unit length; other (N, K) says which negatives count for a sample."""
    count, dimensions = negatives.shape
    offset = math.log(count) + 1 / (2 * dimensions * temperature**2)  # log(K z)
    near = (embedding * positive).sum(dim=1) / temperature - offset
    far = products(embedding, negatives) / temperature - offset
    rejected = (F.softplus(far) * other).sum(dim=1) * count / other.sum(dim=1).clamp_min(1)
    return (F.softplus(-near) + rejected).mean()


def of_all_processes(tensor: Tensor) -> Tensor:
    """(N, ...) -> (processes * N, ...): that of every process of the training, in their order."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


class Embedding(nn.Module):
    """Mean over the places, a linear layer, centering over the batch, unit length."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, dimensions, bias=False)
        self.center = nn.BatchNorm1d(dimensions, affine=False)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, d), float32."""
        return F.normalize(self.center(self.linear(pooled(feature)).float()), dim=1)


class Bank(nn.Module):
    """A vector of unit length for each training image."""

    rows: Tensor

    def __init__(self, images: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(images, dimensions))

    def blend(self, indices: Tensor, vectors: Tensor, keep: Tensor | float) -> None:
        """Move rows towards vectors (N, d); `keep`, one for all or (N, 1), is the share of the row that stays."""
        self.rows[indices] = F.normalize(keep * self.rows[indices] + (1 - keep) * vectors, dim=1)


@METHODS.register("crd")
class Crd(Method):
    Config = CrdConfig
    terms: ClassVar[Mapping[str, Term]] = {"*": Term(0.8)}
    presets: ClassVar[Mapping[str, Preset]] = {"paper": Preset(source="CIFAR-100, any batch and map (authors' code)")}
    labels: Tensor
    """Of each training image; -1 until it is met."""

    def __init__(self, config: CrdConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.config = config
        mine, theirs = last_stage(student), last_stage(teacher)
        self.student_features, self.teacher_features = (mine,), (theirs,)
        self.student = Embedding(student.features[mine].channels, config.dimensions)
        self.teacher = Embedding(teacher.features[theirs].channels, config.dimensions)
        self.student_bank, self.teacher_bank = (Bank(student.images, config.dimensions) for _ in range(2))
        self.register_buffer("labels", torch.full((student.images,), -1))

    def loss(self, step: Step) -> dict[str, Tensor]:
        student = self.student(step.student.features[self.student_features[0]])
        teacher = self.teacher(step.taught.features[self.teacher_features[0]].detach())
        indices, *vectors = (of_all_processes(x.detach()) for x in (step.indices, student, teacher))
        self.remember(indices, vectors, keep=(self.labels[indices] >= 0).float().unsqueeze(1))
        self.labels[indices] = of_all_processes(step.labels)
        drawn = self.draw()
        other = self.labels[drawn] != step.labels.unsqueeze(1)

        def contrast(embedding: Tensor, bank: Bank) -> Tensor:
            positive, negatives = bank.rows[step.indices], bank.rows[drawn]
            return contrast_loss(embedding, positive, negatives, other, self.config.temperature)

        terms = {
            "crd/student": contrast(student, self.teacher_bank),
            "crd/teacher": contrast(teacher, self.student_bank),
        }
        self.remember(indices, vectors, keep=self.config.momentum)
        return terms

    def remember(self, indices: Tensor, vectors: list[Tensor], keep: Tensor | float) -> None:
        """Blend the student's and the teacher's vectors into their banks."""
        for bank, vector in zip((self.student_bank, self.teacher_bank), vectors, strict=True):
            bank.blend(indices, vector, keep)

    def draw(self) -> Tensor:
        """(K,) indices of images that were met."""
        return torch.multinomial((self.labels >= 0).float(), self.config.negatives, replacement=True)
