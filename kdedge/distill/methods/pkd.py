"""PKD: match how a teacher's maps vary over places and images, whatever their scale and offset.

W. Cao, Y. Zhang, J. Gao, A. Cheng, K. Cheng, J. Cheng: "PKD: General Distillation Framework for Object Detectors via
Pearson Correlation Coefficient", NeurIPS 2022, arXiv:2207.02039, eq. (4) to (6).

    1/2 mean (norm(F_s) - norm(F_t))^2 = 1 - r

norm takes each channel to zero mean and unit variance over the samples and places of a batch, and r is the mean over
the channels of Pearson's correlation.  So there is one weight for every pair of detectors: 6 in the paper for two-stage
ones, 10 for RetinaNet.  It is compared on the levels of the feature pyramid, a term each; a student's map of another
size than the teacher's is resampled bilinearly, as in the authors' code.

A constant channel counts as uncorrelated.  Where the widths differ, a 1x1 convolution takes the student's to the
teacher's.  Being bounded, it needs no warm-up.  For classifiers the terms are their stages.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from kdedge.distill.adapters import aligners
from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.maps import resampled
from kdedge.distill.pearson import pearson_loss
from kdedge.distill.stages import Stages, pair_stages


class PkdConfig(MethodConfig):
    stages: Stages = "auto"
    """Levels or stages to match: auto (every shared size), middle, last, names, or pairs [student's, teacher's]."""


@METHODS.register("pkd")
class Pkd(Method):
    Config = PkdConfig
    tasks = EITHER
    terms: ClassVar[Mapping[str, Term]] = {"*": Term(6.0)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "COCO, one-stage detectors (RetinaNet); Faster R-CNN has 6; any batch and maps",
            terms={"*": 10.0},
            task="detect",
        )
    }

    def __init__(self, config: PkdConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("pkd", config.stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.aligners = aligners(self.pairs, student, teacher, bias=False)

    def loss(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student.features, step.taught.features
        return {
            f"pkd/{s}": pearson_loss(*resampled(self.aligners[s](student[s]), teacher[t].detach()))
            for s, t in self.pairs
        }
