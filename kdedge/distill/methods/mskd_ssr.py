"""MSKD-SSR: the teacher teaches at every stage, and the student goes over what its earlier stages have learned.

J. Gou, X. Xiong, B. Yu, L. Du, Y. Zhan, D. Tao: "Multi-target Knowledge Distillation via Student Self-reflection",
IJCV 131(7), 2023, doi:10.1007/s11263-023-01792-z.  This is a reconstruction from the abstract, which names three parts:
stage-wise channel distillation, stage-wise response distillation and a cross-stage review, in which the student distils
responses of its own after each stage.  The formulas, the heads' shape and every number are choices made here.

Each of the K stages of student and teacher answers, the last by the network's own classifier, the others by a head:
separable convolutions down to the last stage's size, pooling, a linear layer.  Of the student's answers p^k the loss is
    labels    CE(p^k) / K                                              k < K; that of p^K is the recipe's
    response  alpha / K  T^2 KL(p_teacher^k || p^k)                    each k
    feature   beta  mean of (A mean(F^k) - mean(F_teacher^k))^2        each k; mean over places, A linear with bias
    review    gamma T^2 [p^j is right] KL(p^j || p^k), p^j held fixed  each k but one
with j the stage before k ("review what earlier stages learned"), or the one behind it, which is the direction of Be
Your Own Teacher (arXiv:1905.08094).  Only samples that stage j gets right are reviewed: a weak shallow head would do
harm.  KL and squares are means over all samples; the last three grow linearly through the first tenth of the phase.
With alpha = beta = gamma = 0 it is deep supervision (arXiv:1409.5185), beside which it is always trained.

The teacher's heads learn from the labels on its frozen layers.  They do so in the phase that uses them, or one ahead:
    - {epochs: 100, freeze: ["*"], cross_entropy: {weight: 0},
       methods: [{name: mskd_ssr, options: {teacher_heads: train}}]}
    - {epochs: 200, methods: [{name: mskd_ssr, options: {teacher_heads: frozen}}]}
The student's heads are exits; neither these nor the teacher's are part of the student.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.training import Schedule
from kdedge.distill.base import METHODS, Method, Network, Step, Term, View, needed
from kdedge.distill.maps import pooled
from kdedge.distill.methods.ccskd import channel_loss, weighted_kd_loss
from kdedge.distill.methods.logits import LogitsConfig, check_classes, compared, kd_loss
from kdedge.distill.methods.self_distill import answer, exit_head
from kdedge.distill.stages import Stages, last_stage, pair_stages


class MskdSsrConfig(LogitsConfig):
    stages: Stages = "auto"
    """Stages that answer besides the classifiers: auto (each shared resolution), middle, or names or pairs of names."""
    alpha: float = Field(0.9, ge=0)
    """Weight of what the teacher's stages answer, shared out among the stages."""
    beta: float = Field(6.0, ge=0)
    """Weight of the teacher's channels at every stage."""
    gamma: float = Field(0.1, ge=0)
    """Weight of every review."""
    review: Literal["shallow_to_deep", "deep_to_shallow"] = "shallow_to_deep"
    """Who learns from whom in it: a stage from the one before it, or from the one behind it."""
    teacher_heads: Literal["together", "train", "frozen"] = "together"
    """Train the teacher's heads with the student, alone (the student learns nothing then), or take them over as the
    phase before has trained them."""


def review_loss(student: Tensor, reviewed: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Scalar from (N, classes) logits, `reviewed` held fixed: the mean over samples, 0 for those that it gets wrong."""
    right = reviewed.argmax(dim=1) == labels
    return weighted_kd_loss(student, reviewed.detach(), right, temperature)


@METHODS.register("mskd_ssr")
class MskdSsr(Method):
    Config = MskdSsrConfig
    terms: ClassVar = {part: Term(1.0, Schedule(warmup=0.1)) for part in ("*/response", "*/feature", "*/review")}
    depends_on: ClassVar[Mapping[str, str]] = {"map": "the stage heads have strided convolutions"}

    def __init__(self, config: MskdSsrConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        check_classes("mskd_ssr", student, teacher)
        self.config, self.last = config, last_stage(student)
        depth = list(student.features).index
        self.pairs = sorted(pair_stages("mskd_ssr", config.stages, student, teacher), key=lambda pair: depth(pair[0]))
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.teaches_student = config.teacher_heads != "train"
        self.uses_teacher_heads = config.alpha > 0 or not self.teaches_student
        self.trains_teacher_heads = self.uses_teacher_heads and config.teacher_heads != "frozen"
        self.make_layers(student, teacher)
        self.train()

    def make_layers(self, student: Network, teacher: Network) -> None:
        """The same whichever of them train, so that one phase can hand them on to the next."""
        shallow = [(s, t) for s, t in self.pairs if s != self.last]
        if not shallow:
            raise ModelError(
                f"mskd_ssr: only one stage to compare, {self.last!r} of the student",
                "its own classifier stands on that, and an earlier stage is to answer as well",
                "name earlier pairs [student's, teacher's] in the option stages",
            )
        mine, theirs, classes = student.features, teacher.features, student.classes
        end, their_end = mine[self.last], theirs[last_stage(teacher)]
        self.heads = nn.ModuleDict({s: exit_head(mine[s], end, classes, "none") for s, _ in shallow})
        self.teacher_heads = nn.ModuleDict({s: exit_head(theirs[t], their_end, classes, "none") for s, t in shallow})
        self.adapters = nn.ModuleDict({s: nn.Linear(mine[s].channels, theirs[t].channels) for s, t in self.pairs})
        self.heads.requires_grad_(self.teaches_student)
        self.teacher_heads.requires_grad_(self.trains_teacher_heads)
        self.adapters.requires_grad_(self.teaches_student and self.config.beta > 0)

    def prune(self) -> None:
        """Layers stay, so that one phase can hand them on to the next; those that nothing reaches do not train."""
        if not self.teaches_student:
            return
        if not any(self.counts(f"{stage}/response") for stage in (*self.heads, self.last)):
            self.uses_teacher_heads = self.trains_teacher_heads = False
            self.teacher_heads.requires_grad_(False)
        for stage, adapter in self.adapters.items():
            if not self.counts(f"{stage}/feature"):
                adapter.requires_grad_(False)

    def train(self, mode: bool = True) -> "MskdSsr":
        """Teacher's heads that do not learn keep the statistics of their batch norms."""
        super().train(mode)
        self.teacher_heads.train(mode and self.trains_teacher_heads)
        return self

    @classmethod
    def control(cls, options: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        config = MskdSsrConfig.model_validate(options)
        if config.teacher_heads == "train" or not (config.alpha or config.beta or config.gamma):
            return None
        kept = {key: options[key] for key in ("stages", "teacher_heads") if key in options}
        return "deep supervision", kept | {"alpha": 0.0, "beta": 0.0, "gamma": 0.0}

    @classmethod
    def check_order(cls, options: dict[str, Any], before: dict[str, Any] | None) -> None:
        config = MskdSsrConfig.model_validate(options)
        if config.teacher_heads != "frozen" or config.alpha == 0:
            return
        earlier = None if before is None else MskdSsrConfig.model_validate(before)
        trained = earlier and (earlier.alpha > 0 or earlier.teacher_heads == "train")
        if not earlier or not trained or earlier.stages != config.stages:
            raise ModelError(
                "mskd_ssr: the teacher's heads are frozen and were never trained",
                "the phase before does not train them for the same stages",
                "a phase before it with teacher_heads: train, or teacher_heads: together in this one",
            )

    def loss(self, step: Step) -> dict[str, Tensor]:
        """The terms, already weighed by the options; those that never weigh anything are left out."""
        theirs = self.teacher_answers(step) if self.uses_teacher_heads else {}
        terms = {}
        if self.trains_teacher_heads:
            for stage, logits in theirs.items():
                terms[f"mskd_ssr/teacher/{stage}"] = F.cross_entropy(logits.float(), step.labels)
        return terms | self.student_terms(step, theirs) if self.teaches_student else terms

    def teacher_answers(self, step: Step) -> dict[str, Tensor]:
        """Logits (N, classes) of the teacher's heads, by the student's stage."""
        features = {s: step.taught.features[t].detach() for s, t in self.pairs}
        return {s: answer(head, features[s])[1] for s, head in self.teacher_heads.items()}

    def student_terms(self, step: Step, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        c, terms = self.config, {}
        mine = {s: answer(head, step.student.features[s])[1] for s, head in self.heads.items()}
        for stage, logits in mine.items():
            if self.counts(f"{stage}/labels"):
                terms[f"mskd_ssr/{stage}/labels"] = F.cross_entropy(logits.float(), step.labels) / (len(mine) + 1)
        mine |= {self.last: step.student.logits}
        if c.alpha > 0:
            terms |= self.response_terms(mine, theirs | {self.last: step.taught.logits})
        if c.beta > 0:
            terms |= self.feature_terms(step.student, step.taught)
        if c.gamma > 0:
            terms |= self.review_terms(mine, step.labels)
        return terms

    def response_terms(self, mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        c, terms = self.config, {}
        for stage, logits in mine.items():
            if not self.counts(f"{stage}/response"):
                continue
            pair = compared(logits, c.standardize), compared(theirs[stage].detach(), c.standardize)
            terms[f"mskd_ssr/{stage}/response"] = c.alpha / len(mine) * kd_loss(*pair, c.temperature)
        return terms

    def feature_terms(self, mine: View, theirs: View) -> dict[str, Tensor]:
        """Of the channels, whose 1x1 convolution may as well come after the mean over the places."""
        terms = {}
        for s, t in self.pairs:
            if not self.counts(f"{s}/feature"):
                continue
            vectors = self.adapters[s](pooled(mine.features[s])), pooled(theirs.features[t]).detach()
            terms[f"mskd_ssr/{s}/feature"] = self.config.beta * channel_loss(*vectors)
        return terms

    def review_terms(self, mine: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        c, terms = self.config, {}
        for reviewed, stage in pairwise(mine if c.review == "shallow_to_deep" else reversed(mine)):
            if not self.counts(f"{stage}/review"):
                continue
            pair = compared(mine[stage], c.standardize), compared(mine[reviewed], c.standardize)
            terms[f"mskd_ssr/{stage}/review"] = c.gamma * review_loss(*pair, labels, c.temperature)
        return terms

    def exits(self, student: View) -> dict[str, Tensor]:
        """Logits (N, classes) of each stage's head whose feature there is; none where the student learns nothing."""
        if not self.teaches_student:
            return {}
        return {s: head(student.features[s])[1] for s, head in self.heads.items() if s in student.features}
