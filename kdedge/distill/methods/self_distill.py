"""Self-distillation: the deepest classifier teaches shallow ones, which reach back into the stages they stand on.

L. Zhang, J. Song, A. Gao, J. Chen, C. Bao, K. Ma: "Be Your Own Teacher", ICCV 2019, arXiv:1905.08094, sec. 3.
L. Zhang, C. Bao, K. Ma: "Self-Distillation: Towards Efficient and Compact Neural Networks", TPAMI 2021,
doi:10.1109/TPAMI.2021.3067100 (attention in the exit branches).

Each stage but the last gets an exit, and each exit the loss
    (1 - alpha) CE(labels) + alpha T^2 KL(p_target || p_exit) + feature_weight ||e_exit - e_deepest||^2
with the target side held fixed.  The target is the deepest classifier, or the mean of the logits of all classifiers
(target: ensemble), which then teaches the deepest one too.  The deepest classifier's own cross-entropy is the recipe's.
Differences from the papers: both embeddings have unit length, so that the feature term (0..4) depends neither on
width nor on scale, and its default weight is 0, since ResNet-18 on CIFAR-100 is reported no worse without it; T^2 keeps
alpha's meaning at every T.
alpha = 0 and feature_weight = 0 is deep supervision (Lee et al., AISTATS 2015, arXiv:1409.5185), which explains much of
the gain and is trained beside every recipe that asks for more.

The lightweight system of Ni and Ma (Journal of BUPT 2023(6), 66-71) that joins this with a light attention module and
grouped or depthwise convolutions is public as an abstract only: with those blocks in the student this is a
reconstruction, and ECA, the exits' shape and every number are choices made here.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.training import Schedule
from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Step, View
from kdedge.distill.methods.logits import kd_loss
from kdedge.distill.phases import schedule_factor
from kdedge.models.attention import Attention
from kdedge.models.features import FeaturePoint
from kdedge.models.heads import ExitHead


class SelfDistillConfig(MethodConfig):
    alpha: float = Field(0.3, ge=0, le=1)
    """Share of the target's answer in what an exit learns; the rest is the labels."""
    alpha_schedule: Schedule = Schedule()
    """How alpha moves through the phase; where it is 0, exits learn from the labels alone."""
    temperature: float = Field(3.0, gt=0)
    """What the logits of both sides are divided by."""
    target: Literal["deepest", "ensemble"] = "deepest"
    """Whom the exits learn from: the deepest classifier, or the mean logits of all."""
    feature_weight: float = Field(0.0, ge=0)
    """Weight of the distance between an exit's embedding and the deepest one."""
    feature_schedule: Schedule = Schedule()
    """How feature_weight moves through the phase."""
    attention: Attention = "eca"
    """Attention in the exit branches; the student itself has none."""


def embedding_loss(embedding: Tensor, deepest: Tensor) -> Tensor:
    """Scalar, 0..4: squared distance of the two (N, C) embeddings, each of unit length, the mean over samples."""
    gap = F.normalize(embedding.float(), dim=1) - F.normalize(deepest.float(), dim=1)
    return gap.square().sum(dim=1).mean()


@METHODS.register("self_distill")
class SelfDistill(Method):
    Config = SelfDistillConfig
    needs_teacher = False
    depends_on: ClassVar[Mapping[str, str]] = {"map": "the exits have strided convolutions"}

    def __init__(self, config: SelfDistillConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        if len(student.features) < 2:
            raise ModelError(
                "self_distill: the student has fewer than two stages",
                f"exits stand on every stage but the last, and its stages are: {', '.join(student.features) or 'none'}",
                "choose a student with more stages; kdedge models lists them",
            )
        *stages, self.last = self.student_features = tuple(student.features)
        deepest = student.features[self.last]
        heads = {name: exit_head(student.features[name], deepest, student.classes, config.attention) for name in stages}
        self.heads = nn.ModuleDict(heads)
        self.config = config

    @classmethod
    def control(cls, options: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        config = SelfDistillConfig.model_validate(options)
        if not config.alpha and not config.feature_weight:
            return None
        kept = {"attention": config.attention, "alpha": 0.0, "feature_weight": 0.0}
        return "deep supervision", kept

    def parts_of(self, stage: str) -> list[str]:
        """What an exit learns from at some time, by the options and by the terms' weights."""
        c = self.config
        asked = {
            "labels": c.alpha < 1 or c.alpha_schedule != Schedule(),
            "logits": c.alpha > 0,
            "feature": c.feature_weight > 0,
        }
        return [part for part, there in asked.items() if there and self.counts(f"{stage}/{part}")]

    def prune(self) -> None:
        for stage in [stage for stage in self.heads if not self.parts_of(stage)]:
            del self.heads[stage]

    def loss(self, step: Step) -> dict[str, Tensor]:
        """The terms of each exit, already weighed by the options; those that never weigh anything are left out."""
        c = self.config
        alpha = c.alpha * schedule_factor(c.alpha_schedule, step.progress)
        feature_weight = c.feature_weight * schedule_factor(c.feature_schedule, step.progress)
        answers = {stage: answer(head, step.student.features[stage]) for stage, head in self.heads.items()}
        deepest = step.student.features[self.last].detach().float().mean(dim=(2, 3))
        target = self.target(step.student.logits, [logits for _, logits in answers.values()])
        terms = {}
        for stage, (embedding, logits) in answers.items():
            name, parts = f"self_distill/{stage}", self.parts_of(stage)
            if "labels" in parts:
                terms[f"{name}/labels"] = (1 - alpha) * F.cross_entropy(logits.float(), step.labels)
            if "logits" in parts:
                terms[f"{name}/logits"] = alpha * kd_loss(logits, target, c.temperature)
            if "feature" in parts:
                terms[f"{name}/feature"] = feature_weight * embedding_loss(embedding, deepest)
        if c.alpha > 0 and c.target == "ensemble" and self.counts("deepest/logits"):
            terms["self_distill/deepest/logits"] = alpha * kd_loss(step.student.logits, target, c.temperature)
        return terms

    def target(self, deepest: Tensor, exits: list[Tensor]) -> Tensor:
        """Logits (N, classes) that the exits learn from, without gradients."""
        if self.config.target == "deepest":
            return deepest.detach()
        return torch.stack([deepest, *exits]).detach().float().mean(dim=0)

    def exits(self, student: View) -> dict[str, Tensor]:
        """Logits (N, classes) of each exit whose feature there is, by stage."""
        features = student.features
        return {stage: head(features[stage])[1] for stage, head in self.heads.items() if stage in features}


def answer(head: nn.Module, feature: Tensor) -> tuple[Tensor, Tensor]:
    """Embedding and logits of an exit while it trains.

    In float32 on a CPU whatever the rest is trained in: its depthwise convolutions take twice as long in bfloat16.
    """
    if feature.device.type == "cpu":
        feature = feature.float()
    with torch.autocast("cpu", enabled=False):
        found: tuple[Tensor, Tensor] = head(feature)
    return found


def exit_head(point: FeaturePoint, deepest: FeaturePoint, classes: int, attention: Attention) -> ExitHead:
    halvings = round(math.log2(deepest.stride / point.stride))
    return ExitHead(point.channels, deepest.channels, halvings, classes, attention)
