"""Spatial attention distillation: fit the teacher's distribution of samples, then show where it looks, and all else.

L. Wang, Y. Liu: "Knowledge distillation algorithm based on spatial attention map", Application Research of Computers
41(6), 2024, 1693-1698, doi:10.19734/j.issn.1001-3695.2023.10.0496.

Only the abstract is public, so this is a reconstruction.  It says: a conditional probability distribution is fitted to
the teacher's middle layers in feature space; spatial attention maps, similar after that, are passed on "together with
other beneficial information" through a small convolution that narrows the gap between the networks.  Chosen here, with
F_s the student's stage after a 1x1 convolution, BN and ReLU to the teacher's width, for the last two stages:
    fit        PKT of the features' means over the places: who is whose neighbor in the batch (method pkt)
    attention  squared distance of the maps, of unit length, of |F|^2 over the channels (method attention)
    feature    1 - Pearson's correlation of each channel with the teacher's, over samples and places (PKD)
    logits     T^2 KL of the class probabilities (method logits)
The fit is trained for the first half of a phase; the maps and the features come in over its first fifth.  Weights and
schedules are those of the terms, to be changed in a recipe; fit has that of the CRD benchmark at batch 64 (30000 / 64).
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from kdedge.core.training import Schedule
from kdedge.distill.adapters import adapters
from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Step, Term, needed
from kdedge.distill.maps import pooled
from kdedge.distill.methods.attention import attention_loss
from kdedge.distill.methods.logits import check_classes, compared_logits, kd_loss
from kdedge.distill.methods.pkt import pkt_loss
from kdedge.distill.pearson import pearson_loss
from kdedge.distill.stages import Stages, pair_stages

RAMP = Schedule(warmup=0.2)
FEATURE_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fit": lambda student, teacher: pkt_loss(pooled(student), pooled(teacher)),
    "attention": lambda student, teacher: attention_loss(student, teacher, 2, "squared"),
    "feature": pearson_loss,
}


class SpatialAttentionConfig(MethodConfig):
    stages: Stages = "auto"
    """Stages to match: auto (the last two shared resolutions), middle, last, shared names, or pairs."""
    temperature: float = Field(4.0, gt=0)
    """What both networks' logits are divided by."""
    standardize: bool = False
    """Bring each sample's logits to zero mean and unit spread first; goes with temperature 2."""
    relu: bool = True
    """End the student's adapters in a ReLU; false for a teacher whose stages have negative outputs (MobileNetV2)."""


@METHODS.register("spatial_attention")
class SpatialAttention(Method):
    Config = SpatialAttentionConfig
    terms: ClassVar[Mapping[str, Term]] = {
        "fit/*": Term(30000 / 64, Schedule(end=0.5)),
        "attention/*": Term(1.0, RAMP),
        "feature/*": Term(1.0, RAMP),
        "logits": Term(0.9),
    }

    def __init__(self, config: SpatialAttentionConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        check_classes("spatial_attention", student, teacher)
        pairs = pair_stages("spatial_attention", config.stages, student, teacher, places=True)
        self.pairs = pairs[-2:] if config.stages == "auto" else pairs
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.adapters = adapters(self.pairs, student, teacher, config.relu)
        self.config = config

    def prune(self) -> None:
        for s, _ in self.pairs:
            if not any(self.counts(f"{part}/{s}") for part in FEATURE_LOSSES):
                del self.adapters[s]
        self.pairs = [pair for pair in self.pairs if pair[0] in self.adapters]
        self.student_features = tuple(s for s, _ in self.pairs)
        self.teacher_features = tuple(t for _, t in self.pairs)

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        if self.counts("logits"):
            logits = compared_logits(step, self.config.standardize)
            terms["spatial_attention/logits"] = kd_loss(*logits, self.config.temperature)
        for s, t in self.pairs:
            student, teacher = self.adapters[s](step.student.features[s]), step.taught.features[t].detach()
            wanted = {part: loss for part, loss in FEATURE_LOSSES.items() if self.counts(f"{part}/{s}")}
            terms |= {f"spatial_attention/{part}/{s}": loss(student, teacher) for part, loss in wanted.items()}
        return terms
