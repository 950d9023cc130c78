"""Distillation of a detector's answers: of each anchor, match the teacher's class scores and box.

G. Chen, W. Choi, X. Yu, T. Han, M. Chandraker: "Learning Efficient Object Detection Models with Knowledge
Distillation", NeurIPS 2017, for two-stage detectors; here in the form for dense heads, whose scores may be sigmoids:

    classification  T^2 KL(teacher || student) of an anchor's scores: of each class's sigmoid, summed over the classes,
                    or of the softmax over classes and background
    boxes           1 - GIoU of the student's box and the teacher's (H. Rezatofighi et al., CVPR 2019)
    centerness      KL of its sigmoid, where both heads have one

Each is a mean over the anchors of the batch, weighed by the largest score that the teacher gives one of the classes: it
is nearly 0 on the background, of which there is most.  An image counts for one certain anchor at least, so that images
without objects teach little and not nothing.

Both detectors must have the same anchors and the same kind of scores, which detectors of one family have on images of
one size; of others compare features, as pkd does.  Localization distillation (Z. Zheng et al., CVPR 2022) is not here:
it takes heads that put out a distribution for each side of a box, and torchvision's detectors have none.

The weights are 1; nothing published fits this form.  The first 5 percent of a phase warm up.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.core.errors import ModelError
from kdedge.core.training import Schedule
from kdedge.distill.base import DETECTORS, METHODS, Method, MethodConfig, Network, Step, Term, needed
from kdedge.distill.layout import Layout
from kdedge.distill.methods.logits import check_classes

WARM_UP = Schedule(warmup=0.05)
SAME = 0.01
"""Pixels that equal anchors may differ by."""


class BoxLogitsConfig(MethodConfig):
    temperature: float = Field(1.0, gt=0)
    """What both networks' class logits are divided by."""


def check_anchors(method: str, student: Network, teacher: Network, fix: str) -> Layout:
    """The student's layout; raises ModelError unless the teacher's answers are of the same anchors and kind."""
    check_classes(method, student, teacher)
    ours, theirs = student.layout, teacher.layout
    if ours is None or theirs is None:
        raise ModelError(f"{method}: one of the networks has no anchors", "it is no detector", fix)
    if ours.scores != theirs.scores:
        what = f"{method}: the student's scores are of the kind {ours.scores}, the teacher's {theirs.scores}"
        raise ModelError(what, "", fix)
    if ours.anchors.shape != theirs.anchors.shape or not torch.allclose(ours.anchors, theirs.anchors, 0, SAME):
        what = f"{method}: student and teacher have other anchors, {len(ours.anchors)} and {len(theirs.anchors)}"
        raise ModelError(what, "their answers are compared anchor by anchor", fix)
    return ours


def binary_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of the sigmoid of each logit."""
    student, teacher = student / temperature, teacher / temperature
    entropy = partial(F.binary_cross_entropy_with_logits, target=teacher.sigmoid(), reduction="none")
    return temperature**2 * (entropy(student) - entropy(teacher))


def weighed_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Scalar, from (N, A); the weights of a batch sum to N at least."""
    return (values * weights).sum() / weights.sum().clamp_min(len(weights))


def classification_loss(student: Tensor, teacher: Tensor, layout: Layout, temperature: float) -> Tensor:
    """Scalar, from outputs (N, A, D) of the same anchors."""
    ours, theirs = layout.logits(student), layout.logits(teacher)
    if layout.scores == "softmax":
        ours, theirs = (F.log_softmax(logits / temperature, dim=2) for logits in (ours, theirs))
        divergence = temperature**2 * F.kl_div(ours, theirs, reduction="none", log_target=True)
    else:
        divergence = binary_divergence(ours, theirs, temperature)
    return weighed_mean(divergence.sum(dim=2), layout.certainty(teacher))


def boxes_loss(student: Tensor, teacher: Tensor, certainty: Tensor) -> Tensor:
    """Scalar, 0..2, from boxes (N, A, 4) of the same anchors and the teacher's certainty (N, A)."""
    from torchvision.ops import generalized_box_iou_loss  # slow to import

    return weighed_mean(generalized_box_iou_loss(student, teacher), certainty)


def centerness_loss(student: Tensor, teacher: Tensor, certainty: Tensor) -> Tensor:
    """Scalar, from logits (N, A)."""
    return weighed_mean(binary_divergence(student.float(), teacher.float()), certainty)


@METHODS.register("box_logits")
class BoxLogits(Method):
    Config = BoxLogitsConfig
    tasks = DETECTORS
    terms: ClassVar[Mapping[str, Term]] = {"*": Term(1.0, WARM_UP)}
    anchors: Tensor

    def __init__(self, config: BoxLogitsConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.layout = check_anchors("box_logits", student, teacher, "choose a teacher of one family, or the method pkd")
        self.teacher_layout = needed(teacher.layout)
        self.register_buffer("anchors", self.layout.anchors, persistent=False)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student.logits, step.taught.logits.detach()
        terms, certainty = {}, self.layout.certainty(teacher)
        if self.counts("classification"):
            terms["classification"] = classification_loss(student, teacher, self.layout, self.config.temperature)
        if self.counts("boxes"):
            wanted = self.teacher_layout.boxes(teacher, self.anchors)
            terms["boxes"] = boxes_loss(self.layout.boxes(student, self.anchors), wanted, certainty)
        if self.layout.scores == "centerness" and self.counts("centerness"):
            terms["centerness"] = centerness_loss(student[..., -1], teacher[..., -1], certainty)
        return {f"box_logits/{name}": term for name, term in terms.items()}
