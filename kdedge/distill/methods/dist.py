"""DIST: match how probabilities relate, over the classes of a sample and over the samples of a class, not their values.

T. Huang, S. You, F. Wang, C. Qian, C. Xu: "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022,
arXiv:2205.10536, sec. 3.

    inter  T^2 (1 - mean over samples of corr(p[i, :], q[i, :]))    weight beta, 2
    intra  T^2 (1 - mean over classes of corr(p[:, k], q[:, k]))    weight gamma, 2

with Pearson's correlation and p, q = softmax(z / T) of the teacher and the student; T is 4 on CIFAR, 1 on ImageNet.
intra looks along the batch: 32 samples or more make it steady.
The authors add 1e-8 to the product of the two deviations.  Here a row whose deviation is below a thousandth of its own
length fades to correlation 0, however small its probabilities are, so that the gradient of a student that says the
same of every image is bounded.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdedge.distill.base import METHODS, Method, Network, Preset, Step, Term
from kdedge.distill.methods.logits import LogitsConfig, check_classes, compared_logits

CONSTANT = 1e-3
"""Deviation over length of a row, below which it counts as constant."""


def correlation(left: Tensor, right: Tensor) -> Tensor:
    """(A, B) twice -> (A,): Pearson's correlation of each row with the other's; 0 where one is constant."""
    return (deviation(left) * deviation(right)).sum(dim=1)


def deviation(rows: Tensor) -> Tensor:
    """(A, B) -> (A, B): each row less its mean, of length 1, or shorter where it hardly deviates."""
    gap = rows - rows.mean(dim=1, keepdim=True)
    least = (CONSTANT * rows.detach().norm(dim=1, keepdim=True)).clamp_min(1e-12)
    length: Tensor = gap.norm(dim=1, keepdim=True)
    return gap / length.maximum(least)


def relation_losses(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Scalars inter and intra, each 0..2 T^2, from (N, classes) logits."""
    ours, theirs = (F.softmax(logits.float() / temperature, dim=1) for logits in (student, teacher))
    inter, intra = correlation(ours, theirs), correlation(ours.T, theirs.T)
    return temperature**2 * (1 - inter.mean()), temperature**2 * (1 - intra.mean())


@METHODS.register("dist")
class Dist(Method):
    Config = LogitsConfig
    terms: ClassVar[Mapping[str, Term]] = {"inter": Term(2.0), "intra": Term(2.0)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "CIFAR-100, 240 epochs (authors' code)", terms={"inter": 2.0, "intra": 2.0}, options={"temperature": 4.0}
        ),
        "imagenet": Preset(
            "ImageNet (authors' code)", terms={"inter": 2.0, "intra": 2.0}, options={"temperature": 1.0}
        ),
    }

    def __init__(self, config: LogitsConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        check_classes("dist", student, teacher)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = compared_logits(step, self.config.standardize)
        inter, intra = relation_losses(student, teacher, self.config.temperature)
        return {"dist/inter": inter, "dist/intra": intra}
