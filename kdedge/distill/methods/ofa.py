"""One for all: every stage of the student learns the teacher's logits through a classifier of its own.

Z. Hao, J. Guo, K. Han, Y. Tang, H. Hu, Y. Wang, C. Xu: "One-for-All: Bridge the Gap Between Heterogeneous Architectures
in Knowledge Distillation", NeurIPS 2023, arXiv:2310.19444, sec. 3; the form of the loss is that of the authors' code.

    -T^2 sum over k of ((p_k + [k = y])^gamma - [k = y]) log q_k

with the label y and p, q = softmax(z / T) of the teacher and of a stage's classifier, or of the student itself.
Features of unlike networks (a transformer, an MLP) cannot be compared, what they say of the classes can: of the teacher
only the logits are used, so it may be anything.  gamma = 1 is the cross-entropy with the teacher's answer; above it the
label counts for more, and the other classes for less.  It is not zero where q = p.
The authors give each term weight 1, and gamma 1 on CIFAR-100, 1.5 on ImageNet; T is 1.  T^2 is added here and keeps the
size of the gradient at other temperatures.
The classifiers are the exits of self_distill without attention: one separable convolution for each halving, as wide as
the student's last stage, where the authors take two, as wide as the wider network.  They are dropped afterwards.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdedge.core.errors import ModelError, nearest
from kdedge.distill.base import METHODS, Method, Network, Preset, Step
from kdedge.distill.methods.logits import LogitsConfig, check_classes, compared, compared_logits
from kdedge.distill.methods.self_distill import exit_head


class OfaConfig(LogitsConfig):
    temperature: float = Field(1.0, gt=0)
    """What the logits of both sides are divided by."""
    gamma: float = Field(1.0, ge=1)
    """Exponent that lifts the label above what the teacher says of it; 1 lifts nothing."""
    stages: Literal["auto"] | tuple[str, ...] = Field("auto", min_length=1)
    """Stages of the student that get a classifier; auto is every one."""


def ofa_loss(student: Tensor, teacher: Tensor, labels: Tensor, gamma: float, temperature: float) -> Tensor:
    """Scalar from (N, classes) logits: T^2 times the cross-entropy with the lifted answer, the mean over samples."""
    label = F.one_hot(labels, student.shape[1])
    lifted = (F.softmax(teacher.float() / temperature, dim=1) + label) ** gamma - label
    return -(temperature**2) * (lifted * F.log_softmax(student.float() / temperature, dim=1)).sum(dim=1).mean()


def chosen_stages(config: OfaConfig, student: Network) -> tuple[str, ...]:
    """The stages that get a classifier, in the student's order.

    Raises:
        ModelError: the student has no such stage, or none at all.
    """
    wanted = student.features if config.stages == "auto" else config.stages
    for name in sorted(wanted):
        if name not in student.features:
            raise ModelError(f"ofa: the student has no stage {name!r}", nearest(name, student.features))
    if not wanted:
        raise ModelError(
            "ofa: the student has no stages",
            "its classifiers stand on feature maps",
            "choose the method logits, or a convolutional student",
        )
    return tuple(name for name in student.features if name in wanted)


@METHODS.register("ofa")
class Ofa(Method):
    Config = OfaConfig
    depends_on: ClassVar[Mapping[str, str]] = {"map": "a stage's classifier has strided convolutions"}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset("CIFAR-100, 300 epochs (authors' code)", options={"temperature": 1.0, "gamma": 1.0}),
        "imagenet": Preset("ImageNet, DeiT-T -> ResNet-18 (authors' code)", options={"temperature": 1.0, "gamma": 1.5}),
    }

    def __init__(self, config: OfaConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        check_classes("ofa", student, teacher)
        self.student_features = chosen_stages(config, student)
        points = student.features
        *_, deepest = points.values()
        self.heads = nn.ModuleDict(
            {name: exit_head(points[name], deepest, student.classes, "none") for name in self.student_features}
        )
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        c = self.config
        student, teacher = compared_logits(step, c.standardize)
        terms = {"ofa/logits": ofa_loss(student, teacher, step.labels, c.gamma, c.temperature)}
        for stage, head in self.heads.items():
            _, logits = head(step.student.features[stage])
            logits = compared(logits, c.standardize)
            terms[f"ofa/{stage}"] = ofa_loss(logits, teacher, step.labels, c.gamma, c.temperature)
        return terms
