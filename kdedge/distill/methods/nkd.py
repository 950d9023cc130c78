"""Normalized distillation: the label as far as the teacher is sure of it, and the shares of the other classes.

Z. Yang, A. Zeng, Z. Li, T. Zhang, C. Yuan, Y. Li: "From Knowledge Distillation to Self-Knowledge Distillation: A
Unified Approach with Normalized Loss and Customized Soft Labels", ICCV 2023, arXiv:2303.13005.

    target     -p_y log q_y                        weight 1
    nontarget  -T^2 sum over k of p'_k log q'_k    weight gamma

with the label y, p and q the softmax of the teacher's and the student's logits, p' and q' of those but y, divided by T.
Both are cross-entropies, as in the paper, so that neither is zero where the student says what the teacher says.
The label's cross-entropy beside them is the recipe's, with weight 1.
gamma and T are the authors': 3.5 and 3 on CIFAR-100 (the default), 1.5 and 1 on ImageNet.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.distill.base import METHODS, Method, Network, Preset, Step, Term
from kdedge.distill.methods.logits import LogitsConfig, check_classes, compared_logits, other_classes


class NkdConfig(LogitsConfig):
    temperature: float = Field(3.0, gt=0)
    """What the logits of every class but the label are divided by, in both networks."""


def target_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Scalar from (N, classes) logits: the label's cross-entropy, weighed by the teacher's probability of it."""
    sure = F.softmax(teacher.float(), dim=1).gather(1, labels[:, None])
    return -(sure * F.log_softmax(student.float(), dim=1).gather(1, labels[:, None])).mean()


def nontarget_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Scalar from (N, classes) logits: T^2 times the cross-entropy among the other classes, the mean over samples."""
    others = (other_classes(logits.float(), labels) / temperature for logits in (student, teacher))
    ours, theirs = (F.log_softmax(logits, dim=1) for logits in others)
    return -(temperature**2) * (theirs.exp() * ours).sum(dim=1).mean()


@METHODS.register("nkd")
class Nkd(Method):
    Config = NkdConfig
    terms: ClassVar[Mapping[str, Term]] = {"target": Term(1.0), "nontarget": Term(3.5)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "CIFAR-100, ResNet-34 -> ResNet-18 (authors' code)",
            terms={"target": 1.0, "nontarget": 3.5},
            options={"temperature": 3.0},
        ),
        "imagenet": Preset(
            "ImageNet, ResNet-34 -> ResNet-18 (authors' code)",
            terms={"target": 1.0, "nontarget": 1.5},
            options={"temperature": 1.0},
        ),
    }

    def __init__(self, config: NkdConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        check_classes("nkd", student, teacher, fewest=3)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = compared_logits(step, self.config.standardize)
        return {
            "nkd/target": target_loss(student, teacher, step.labels),
            "nkd/nontarget": nontarget_loss(student, teacher, step.labels, self.config.temperature),
        }
