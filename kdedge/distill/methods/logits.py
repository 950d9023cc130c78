"""Knowledge distillation: match the teacher's softened class probabilities.

G. Hinton, O. Vinyals, J. Dean: "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, sec. 2.
Standardized logits: S. Sun, W. Ren, J. Li, R. Wang, X. Cao: "Logit Standardization in Knowledge Distillation",
CVPR 2024, arXiv:2403.01427.

Usual settings (temperature; weight of the labels, weight of this):
    CIFAR                4; 0.1, 0.9
    ImageNet             1; 0.5, 0.5
    CIFAR, standardized  2; 0.1, 9      standardized logits all have unit spread, so this temperature suits any teacher
"""

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.core.errors import ModelError
from kdedge.distill.base import METHODS, Method, MethodConfig, Network, Step


class LogitsConfig(MethodConfig):
    temperature: float = Field(4.0, gt=0)
    """What both networks' logits are divided by."""
    standardize: bool = False
    """Bring each sample's logits to zero mean and unit spread first; goes with temperature 2."""


def standardized(logits: Tensor) -> Tensor:
    """(N, classes) -> (N, classes), each row of zero mean and unit sample deviation (zero if the row is constant)."""
    logits = logits.float()
    return (logits - logits.mean(dim=1, keepdim=True)) / (logits.std(dim=1, keepdim=True) + 1e-7)


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Scalar: T^2 KL(p_teacher || p_student), the mean over samples, from (N, classes) logits."""
    student = F.log_softmax(student.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


@METHODS.register("logits")
class Logits(Method):
    Config = LogitsConfig

    def __init__(self, config: LogitsConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        if teacher is not None and teacher.classes != student.classes:
            raise ModelError(
                f"logits: the teacher scores {teacher.classes} classes and the student {student.classes}",
                "their probabilities are compared class by class",
                "choose a teacher trained on the same classes, or the method attention",
            )
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        assert step.teacher is not None
        logits = step.student.logits, step.teacher.logits.detach()
        student, teacher = map(standardized, logits) if self.config.standardize else logits
        return {"logits/kd": kd_loss(student, teacher, self.config.temperature)}
