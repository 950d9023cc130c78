"""Self-distillation: the deepest classifier teaches shallow ones, which reach back into the stages they stand on.

L. Zhang, J. Song, A. Gao, J. Chen, C. Bao, K. Ma: "Be Your Own Teacher", ICCV 2019, arXiv:1905.08094, sec. 3.
L. Zhang, C. Bao, K. Ma: "Self-Distillation: Towards Efficient and Compact Neural Networks", TPAMI 2021,
doi:10.1109/TPAMI.2021.3067100 (attention in the exit branches).
Q. Wang et al.: "ECA-Net", CVPR 2020, arXiv:1910.03151 (the light attention used here).

Each stage but the last gets an exit, and each exit the loss
    (1 - alpha) CE(labels) + alpha T^2 KL(p_deepest || p_exit) + feature_weight ||e_exit - e_deepest||^2
with the deepest side held fixed.  The deepest classifier's own cross-entropy is the recipe's.
Differences from the papers: both embeddings have unit length, so that the feature term (0..4) depends neither on
width nor on scale, and its default weight is 0, since ResNet-18 on CIFAR-100 is reported no worse without it; T^2 keeps
alpha's meaning at every T.
alpha = 0 and feature_weight = 0 is deep supervision (Lee et al., AISTATS 2015, arXiv:1409.5185).

The lightweight system of Ni and Ma (Journal of BUPT 2023(6), 66-71) that joins this with a light attention module and
grouped or depthwise convolutions is public as an abstract only: with those blocks in the student this is a
reconstruction, and ECA, the exits' shape and every number are choices made here.
"""

import math

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Step, View
from kdedge.distill.methods.logits import kd_loss
from kdedge.models.features import FeaturePoint
from kdedge.models.heads import Attention, ExitHead


class SelfDistillConfig(MethodConfig):
    alpha: float = Field(0.3, ge=0, le=1)
    """Share of the deepest exit's answer in what an exit learns; the rest is the labels."""
    temperature: float = Field(3.0, gt=0)
    """What the logits of both exits are divided by."""
    feature_weight: float = Field(0.0, ge=0)
    """Weight of the distance between an exit's embedding and the deepest one."""
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

    def loss(self, step: Step) -> dict[str, Tensor]:
        """The terms of each exit, already weighed by the options; those of weight 0 are left out."""
        c = self.config
        logits, feature = step.student.logits.detach(), step.student.features[self.last].detach()
        deepest = feature.float().mean(dim=(2, 3))
        terms = {}
        for stage, head in self.heads.items():
            embedding, answer = head(step.student.features[stage])
            name = f"self_distill/{stage}"
            if c.alpha < 1:
                terms[f"{name}/labels"] = (1 - c.alpha) * F.cross_entropy(answer.float(), step.labels)
            if c.alpha > 0:
                terms[f"{name}/logits"] = c.alpha * kd_loss(answer, logits, c.temperature)
            if c.feature_weight > 0:
                terms[f"{name}/feature"] = c.feature_weight * embedding_loss(embedding, deepest)
        return terms

    def exits(self, student: View) -> dict[str, Tensor]:
        """Logits (N, classes) of each exit, by stage."""
        return {stage: head(student.features[stage])[1] for stage, head in self.heads.items()}


def exit_head(point: FeaturePoint, deepest: FeaturePoint, classes: int, attention: Attention) -> ExitHead:
    halvings = round(math.log2(deepest.stride / point.stride))
    return ExitHead(point.channels, deepest.channels, halvings, classes, attention)
