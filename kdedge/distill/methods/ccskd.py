"""CCSKD: channel features, their correlation between samples, and less of the teacher where it is wrong.

J. Gou, X. Xiong, B. Yu, Y. Zhan, Z. Yi: "Channel-Correlation-Based Selective Knowledge Distillation", IEEE
Transactions on Cognitive and Developmental Systems 2022, doi:10.1109/TCDS.2022.3232569; what the abstract leaves open
is as in the authors' code.  With v the mean over the places of a stage's feature, the student's through a 1x1
convolution, BN and ReLU to the teacher's width, and with the distance and the angle of rkd:

    channel      mean of (v_student - v_teacher)^2 over samples and channels
    correlation  distance(v_student, v_teacher) + 2 angle(v_student, v_teacher)
    kd           T^2 KL(p_teacher || p_student)
    selective    T^2 w_i KL(p_teacher || p_student), w_i = 1 where the teacher is right, decay^periods where it is wrong

The first two are summed over the stages.  A period is 30 of the authors' 200 epochs: a wrong answer counts for less and
less.  In the code the factor m_i = (1 + [teacher is right]) decay^periods stands inside the logarithm,
kl(m_i log p_student, m_i p_teacher), and fades right answers too; its gradient is m_i^2 that of the KL.  `reference`
gives those weights outside the logarithm: the same gradient, without the offset that makes the code's loss negative.
Weights are the authors': 6 for the channels, which decays by 0.9 at 0.3 and 0.8 of the phase ("early decay"), 6 for the
correlation, 0.1 for kd and, from 0.3 on, 0.1 for selective.  Their labels start there as well, for which the phase says
`cross_entropy: {schedule: {start: 0.3}}`.  Their teacher's batch norms are in training mode; here nothing of it moves.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.core.training import Schedule
from kdedge.distill.adapters import adapters
from kdedge.distill.base import METHODS, Method, Network, Preset, Step, Term, needed
from kdedge.distill.maps import pooled
from kdedge.distill.methods.logits import LogitsConfig, check_classes, compared_logits, kd_loss
from kdedge.distill.methods.rkd import angle_loss, distance_loss
from kdedge.distill.stages import Stages, pair_stages


class CcskdConfig(LogitsConfig):
    temperature: float = Field(1.0, gt=0)
    """What both networks' logits are divided by."""
    stages: Stages = "auto"
    """Stages to compare: auto (each shared resolution), middle, last, shared names, or pairs [student's, teacher's]."""
    decay: float = Field(0.9, gt=0, le=1)
    """What the weight of a wrong answer is multiplied by after every period."""
    every: float = Field(0.15, gt=0, le=1)
    """Length of a period, a fraction of the phase."""
    reference: bool = False
    """Weigh as the authors' code does: right answers four times as much as wrong ones, and both fade."""


def channel_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar: mean squared difference of two (N, C) means over the places."""
    return F.mse_loss(student.float(), teacher.float())


def weighted_kd_loss(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Scalar: T^2 w_i KL(p_teacher || p_student), the mean over samples, from (N, classes) logits and (N,) weights."""
    student = F.log_softmax(student.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * (weights * divergence).mean()


def answer_weights(right: Tensor, fading: float, reference: bool) -> Tensor:
    """(N,) whether the teacher is right -> (N,) weights of its answers, `fading` being decay^periods."""
    if reference:
        return (1.0 + right.float()).square() * fading**2
    return torch.where(right, 1.0, fading)


FEATURE_LOSSES = {"channel": channel_loss, "distance": distance_loss, "angle": angle_loss}


@METHODS.register("ccskd")
class Ccskd(Method):
    Config = CcskdConfig
    terms: ClassVar = {
        "*/channel": Term(6.0, Schedule(decay_at=(0.3, 0.8), decay=0.9)),
        "*/distance": Term(6.0),
        "*/angle": Term(12.0),
        "kd": Term(0.1),
        "selective": Term(0.1, Schedule(start=0.3)),
    }
    presets: ClassVar = {
        "paper": Preset(
            "CIFAR-100, ResNet-34 -> ResNet-18, 200 epochs, any batch and maps (authors' code)",
            terms={"*/channel": 6.0, "*/distance": 6.0, "*/angle": 12.0, "kd": 0.1, "selective": 0.1},
            options={"temperature": 1.0, "decay": 0.9, "every": 0.15, "reference": True},
        )
    }

    def __init__(self, config: CcskdConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        check_classes("ccskd", student, teacher)
        self.pairs = pair_stages("ccskd", config.stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.adapters = adapters(self.pairs, student, teacher)
        self.config = config

    def prune(self) -> None:
        for s, _ in self.pairs:
            if not any(self.counts(f"{s}/{part}") for part in FEATURE_LOSSES):
                del self.adapters[s]
        self.pairs = [pair for pair in self.pairs if pair[0] in self.adapters]
        self.student_features = tuple(s for s, _ in self.pairs)
        self.teacher_features = tuple(t for _, t in self.pairs)

    def loss(self, step: Step) -> dict[str, Tensor]:
        c = self.config
        terms = self.feature_terms(step)
        student, teacher = compared_logits(step, c.standardize)
        if self.counts("kd"):
            terms["ccskd/kd"] = kd_loss(student, teacher, c.temperature)
        if self.counts("selective"):
            fading = c.decay ** int(step.progress / c.every)
            weights = answer_weights(teacher.argmax(dim=1) == step.labels, fading, c.reference)
            terms["ccskd/selective"] = weighted_kd_loss(student, teacher, weights, c.temperature)
        return terms

    def feature_terms(self, step: Step) -> dict[str, Tensor]:
        """Of every stage: its channels, and how they correlate between the samples."""
        terms: dict[str, Tensor] = {}
        for s, t in self.pairs:
            student = pooled(self.adapters[s](step.student.features[s]))
            teacher = pooled(step.taught.features[t]).detach()
            wanted = {part: loss for part, loss in FEATURE_LOSSES.items() if self.counts(f"{s}/{part}")}
            terms |= {f"ccskd/{s}/{part}": loss(student, teacher) for part, loss in wanted.items()}
        return terms
