"""Channel-wise distillation: of each channel, match at which places it is active.

C. Shu, Y. Liu, J. Gao, Z. Yan, C. Shen: "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021,
arXiv:2011.13256, eq. (3) and (4).

    tau^2 / C  sum_c KL(softmax(F_t / tau) || softmax(F_s / tau))

The softmax of a channel goes over its H*W places, so that the divergence does not depend on the size of the map; the
loss is the mean over the samples.  It is compared on the levels of the feature pyramid, a term each, at tau 1, where
the authors' code has the weight 5 for RetinaNet.  A 1x1 convolution takes the student's map to the teacher's width
where that is another.  A student's map of another size is resampled bilinearly.  For classifiers the terms are their
stages.  A map of one place has nothing to say, so such levels are left out.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.distill.adapters import aligners
from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.maps import resampled
from kdedge.distill.stages import Stages, pair_stages


class CwdConfig(MethodConfig):
    stages: Stages = "auto"
    """Levels or stages to match: auto (every shared size), middle, last, names, or pairs [student's, teacher's]."""
    tau: float = Field(1.0, gt=0)
    """Temperature of the softmax over the places; the larger, the more places count."""


def cwd_loss(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Scalar, from (N, C, H, W) features of one width; the student's is resampled to the teacher's size."""
    ours, theirs = (F.log_softmax(x.flatten(2) / tau, dim=2) for x in resampled(student, teacher))
    return tau**2 * F.kl_div(ours, theirs, reduction="sum", log_target=True) / ours.shape[:2].numel()


@METHODS.register("cwd")
class Cwd(Method):
    Config = CwdConfig
    tasks = EITHER
    terms: ClassVar[Mapping[str, Term]] = {"*": Term(5.0)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "retinanet": Preset(
            "COCO, RetinaNet, any batch and maps (authors' code)",
            terms={"*": 5.0},
            options={"tau": 1.0},
            task="detect",
        )
    }

    def __init__(self, config: CwdConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("cwd", config.stages, student, teacher, places=True)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.aligners = aligners(self.pairs, student, teacher, bias=False)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student.features, step.taught.features
        return {
            f"cwd/{s}": cwd_loss(self.aligners[s](student[s]), teacher[t].detach(), self.config.tau)
            for s, t in self.pairs
        }
