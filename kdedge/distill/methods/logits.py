"""Knowledge distillation: match the teacher's softened class probabilities.

G. Hinton, O. Vinyals, J. Dean: "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, sec. 2.
Standardized logits: S. Sun, W. Ren, J. Li, R. Wang, X. Cao: "Logit Standardization in Knowledge Distillation",
CVPR 2024, arXiv:2403.01427.

    T^2 KL(softmax(z_teacher / T) || softmax(z_student / T))

T^2 keeps the size of the gradient at every temperature.  Standardized logits all have unit spread, so that one
temperature suits any teacher; every method that compares logits has that option.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.core.errors import ModelError
from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Preset, Step


class LogitsConfig(MethodConfig):
    temperature: float = Field(4.0, gt=0)
    """What both networks' logits are divided by."""
    standardize: bool = False
    """Bring each sample's logits to zero mean and unit spread first; goes with temperature 2."""


def standardized(logits: Tensor) -> Tensor:
    """(N, classes) -> (N, classes), each row of zero mean and unit sample deviation (zero if the row is constant)."""
    logits = logits.float()
    return (logits - logits.mean(dim=1, keepdim=True)) / (logits.std(dim=1, keepdim=True) + 1e-7)


def compared(logits: Tensor, standardize: bool) -> Tensor:
    """(N, classes) -> (N, classes) in float32, as a method that has the option compares them."""
    return standardized(logits) if standardize else logits.float()


def compared_logits(step: Step, standardize: bool) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's (N, classes); no gradient reaches the teacher."""
    return compared(step.student.logits, standardize), compared(step.taught.logits.detach(), standardize)


def other_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, classes) -> (N, classes - 1): those of every class but the label, in order from the one after it."""
    classes = logits.shape[1]
    places = (labels[:, None] + torch.arange(1, classes, device=labels.device)) % classes
    return logits.gather(1, places)


def check_classes(method: str, student: Network, teacher: Network | None, fewest: int = 1) -> None:
    """Raises ModelError when the two networks' logits cannot be compared, or are fewer than the method can use."""
    if teacher is not None and teacher.classes != student.classes:
        raise ModelError(
            f"{method}: the teacher scores {teacher.classes} classes and the student {student.classes}",
            "their probabilities are compared class by class",
            "choose a teacher trained on the same classes, or the method attention",
        )
    if student.classes < fewest:
        raise ModelError(
            f"{method}: the networks score {student.classes} classes",
            f"it compares the wrong ones with each other, which takes {fewest} in all",
            "choose the method logits",
        )


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Scalar: T^2 KL(p_teacher || p_student), the mean over samples, from (N, classes) logits."""
    student = F.log_softmax(student.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


@METHODS.register("logits")
class Logits(Method):
    Config = LogitsConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "cifar": Preset("CIFAR-100, 240 epochs", cross_entropy=0.1, weight=0.9, options={"temperature": 4.0}),
        "imagenet": Preset(
            "ImageNet, ResNet-34 -> ResNet-18, 100 epochs",
            cross_entropy=0.5,
            weight=0.5,
            options={"temperature": 1.0},
        ),
        "standardized": Preset(
            "CIFAR-100, 240 epochs (Sun et al.)",
            cross_entropy=0.1,
            weight=9.0,
            options={"temperature": 2.0, "standardize": True},
        ),
    }

    def __init__(self, config: LogitsConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        check_classes("logits", student, teacher)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = compared_logits(step, self.config.standardize)
        return {"logits/kd": kd_loss(student, teacher, self.config.temperature)}
