"""Decoupled distillation: how sure the teacher is of the label, and what it thinks of the other classes, apart.

B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang: "Decoupled Knowledge Distillation", CVPR 2022, arXiv:2203.08679, sec. 3.

    target     T^2 KL([p_y, 1 - p_y] of the teacher || the same of the student)         weight alpha, 1
    nontarget  T^2 KL(softmax of the teacher's logits but y || the same of the student) weight beta, 2 here

with p = softmax(z / T) and the label y.  Distillation by KL is target + (1 - p_y of the teacher) nontarget, so a sure
teacher teaches little of the other classes; here that part has a weight of its own.
The authors take beta 2 for ResNet-56 -> ResNet-20 and ResNet-110 -> ResNet-32, 6 for WRN and VGG, 8 for ResNet-32x4 and
most pairs of unlike networks.  Both terms warm up over the first twelfth of the phase (20 of their 240 epochs), by step
where theirs go by epoch.
Their code subtracts 1000 from the label's logit and takes the logarithm of summed probabilities; here both parts are
log-softmaxes of what is compared, so that no logit, however large, gives an infinite loss or gradient.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from kdedge.core.training import Schedule
from kdedge.distill.base import METHODS, Method, Network, Preset, Step, Term
from kdedge.distill.methods.logits import LogitsConfig, check_classes, compared_logits, kd_loss, other_classes

WARM_UP = Schedule(warmup=1 / 12)


def label_or_other(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """(N, classes) -> (N, 2): softened logits of "it is the label" and "it is another class"."""
    scaled = logits.float() / temperature
    label = scaled.gather(1, labels[:, None])
    return torch.cat([label, other_classes(scaled, labels).logsumexp(dim=1, keepdim=True)], dim=1)


def target_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Scalar from (N, classes) logits: T^2 KL of the probabilities of label and not label, the mean over samples."""
    ours, theirs = (label_or_other(logits, labels, temperature) for logits in (student, teacher))
    return temperature**2 * kd_loss(ours, theirs, 1.0)


def nontarget_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Scalar from (N, classes) logits: T^2 KL among the classes that are not the label, the mean over samples."""
    return kd_loss(other_classes(student, labels), other_classes(teacher, labels), temperature)


@METHODS.register("dkd")
class Dkd(Method):
    Config = LogitsConfig
    terms: ClassVar[Mapping[str, Term]] = {"target": Term(1.0, WARM_UP), "nontarget": Term(2.0, WARM_UP)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "CIFAR-100, ResNet-56 -> ResNet-20 and ResNet-110 -> ResNet-32, 240 epochs",
            terms={"target": 1.0, "nontarget": 2.0},
            options={"temperature": 4.0},
        ),
        "imagenet": Preset(
            "ImageNet, ResNet-34 -> ResNet-18; there the warm-up is 1 of 100 epochs",
            terms={"target": 1.0, "nontarget": 0.5},
            options={"temperature": 1.0},
        ),
        "standardized": Preset(
            "CIFAR-100, ResNet-56 -> ResNet-20, standardized as Sun et al. do: nine times either weight",
            weight=9.0,
            terms={"target": 1.0, "nontarget": 2.0},
            options={"temperature": 2.0, "standardize": True},
        ),
    }

    def __init__(self, config: LogitsConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        check_classes("dkd", student, teacher, fewest=3)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = compared_logits(step, self.config.standardize)
        return {
            "dkd/target": target_loss(student, teacher, step.labels, self.config.temperature),
            "dkd/nontarget": nontarget_loss(student, teacher, step.labels, self.config.temperature),
        }
