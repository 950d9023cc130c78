"""Fine-grained feature imitation: learn the teacher's map where anchors are near an object.

T. Wang, L. Yuan, X. Zhang, J. Feng: "Distilling Object Detectors with Fine-grained Feature Imitation", CVPR 2019,
arXiv:1906.03609, sec. 3.

    1 / 2N_p  sum_hw I  sum_c (r(F_s) - F_t)^2

I is 1 at the N_p places with an anchor whose IoU with an object is above psi times the largest that any anchor has with
it; r is an adaptation layer that trains with the student, here a 1x1 convolution and BN, as a feature pyramid's levels
have negative values.  The paper has one map; here the levels of a pyramid have a term each, and the largest IoU is that
of all levels, so that an object is imitated where its size belongs.

The squared difference is averaged over the channels instead of summed and halved.  The paper's weight of 0.01 then is
2.56 for a map of 512 channels, and for 256 1.28.  N_p is that of the batch; a level without such a place has a loss of
0.  As the authors warm up for 400 steps, so does this for the first 5 percent of a phase.  The mask is that of the
student's anchors; a student's map of another size is resampled bilinearly.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.core.errors import ModelError
from kdedge.core.training import Schedule
from kdedge.distill.adapters import adapters
from kdedge.distill.base import DETECTORS, METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.layout import Layout, present
from kdedge.distill.maps import resampled
from kdedge.distill.stages import Stages, pair_stages


class FgfiConfig(MethodConfig):
    stages: Stages = "auto"
    """Levels to match: auto (each shared resolution), middle, last, names, or pairs [student's, teacher's]."""
    psi: float = Field(0.5, ge=0, lt=1)
    """Share of an object's largest IoU above which an anchor is near it; 0 takes every anchor that touches it."""


def near_anchors(anchors: Tensor, targets: Tensor, psi: float) -> Tensor:
    """Anchors (A, 4) and targets (N, M, 5) -> (N, A): which are near an object."""
    from torchvision.ops import box_iou  # slow to import

    near = []
    for rows in targets:
        iou = box_iou(rows[:, 1:].float(), anchors) * present(rows).unsqueeze(1)
        near.append((iou > psi * iou.amax(dim=1, keepdim=True)).any(dim=0))
    return torch.stack(near)


def imitation_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Scalar, from (N, C, H, W) features of one width and a mask (N, h, w) that is enlarged to the teacher's size."""
    student, teacher = resampled(student, teacher)
    chosen = F.interpolate(mask.float().unsqueeze(1), teacher.shape[2:]).squeeze(1)
    gap = (student - teacher).square().mean(dim=1)
    return (chosen * gap).sum() / chosen.sum().clamp_min(1)


@METHODS.register("fgfi")
class Fgfi(Method):
    Config = FgfiConfig
    tasks = DETECTORS
    terms: ClassVar[Mapping[str, Term]] = {"*": Term(1.28, Schedule(warmup=0.05))}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "Faster R-CNN, VGG-16 to VGG-11, one map of 512 channels of any size, any batch",
            terms={"*": 0.01 / 2 * 512},
            options={"psi": 0.5},
            task="detect",
        )
    }
    anchors: Tensor

    def __init__(self, config: FgfiConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("fgfi", config.stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.layout = with_anchors("fgfi", student, self.student_features)
        self.adapters = adapters(self.pairs, student, teacher, relu=False)
        self.register_buffer("anchors", self.layout.anchors, persistent=False)
        self.config = config

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student.features, step.taught.features
        near = near_anchors(self.anchors, step.labels, self.config.psi)
        masks = {name: values.any(dim=3) for name, values in self.layout.maps(near)}
        return {
            f"fgfi/{s}": imitation_loss(self.adapters[s](student[s]), teacher[t].detach(), masks[s])
            for s, t in self.pairs
        }


def with_anchors(method: str, student: Network, names: tuple[str, ...]) -> Layout:
    """The student's layout; raises ModelError where no anchors stand on one of its feature points."""
    for name in names:
        if student.layout is None or name not in student.stages:
            why = f"they stand on: {', '.join(student.stages) or 'none'}"
            raise ModelError(f"{method}: no anchors stand on {name!r} of the student", why, "name others in stages")
    return needed(student.layout)
