"""FGD without its global block: learn objects and background apart, most where the teacher looks.

Z. Yang, Z. Li, X. Jiang, Y. Gong, Z. Yuan, D. Zhao, C. Yuan: "Focal and Global Knowledge Distillation for Detectors",
CVPR 2022, arXiv:2111.11837, sec. 3.1.  Of a map (N, C, H, W):

    S = H W softmax(mean_c |F| / T), A = C softmax(mean_hw |F| / T)      spatial and channel attention
    foreground, background   sum_hw M mean_c S_t A_t (F_t - F_s)^2       M the mask of the objects, of the rest
    spatial, channel         mean |S_s - S_t|, mean |A_s - A_t|

A box has the weight 1, spread over what it covers: a place that is covered in part counts in part, and of boxes that
overlap there the smaller one counts.  The background of an image has the weight 1, spread over what no box covers.
Foreground is the mean over the boxes of a batch, the others over its images; without an object it is 0.  The global
block (a relation of all places, by GcNet) is left out: hence FGD-lite.

The authors sum over boxes, channels and places.  For RetinaNet on COCO (T 0.5, alpha 1e-3, beta and gamma 5e-4, 7.3
boxes an image, 256 channels, images of 800x1333) the weights of these means are those of the preset; the defaults are
these, rounded, with that of spatial for the level in the middle.  Their students start from the teacher's neck and
head, which is part of their numbers.  A 1x1 convolution takes the student's map to the teacher's width where that is
another; one of another size is resampled bilinearly.  The first 5 percent of a phase warm up.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kdedge.core.training import Schedule
from kdedge.distill.adapters import aligners
from kdedge.distill.base import DETECTORS, METHODS, Method, MethodConfig, Network, Preset, Step, Term, needed
from kdedge.distill.layout import COCO_PLACES, present
from kdedge.distill.maps import SHORTEST, resampled
from kdedge.distill.stages import Stages, pair_stages

WARM_UP = Schedule(warmup=0.05)


class FgdConfig(MethodConfig):
    stages: Stages = "auto"
    """Levels to match: auto (each shared resolution), middle, last, names, or pairs [student's, teacher's]."""
    temperature: float = Field(0.5, gt=0)
    """What mean activations are divided by before the softmax; the smaller, the sharper the attention."""


class Masks(NamedTuple):
    """What each place (N, H, W) counts for."""

    foreground: Tensor
    """Over an image, at most the number of its boxes."""
    background: Tensor
    """1 over an image, or 0 where boxes cover all of it."""
    boxes: Tensor
    """(): in the batch."""


def covered(low: Tensor, high: Tensor, places: int) -> Tensor:
    """(N, M) ends of boxes in places -> (N, M, places): the share of each place that is between them."""
    start = torch.arange(places, device=low.device)
    return (torch.minimum(high[..., None], start + 1) - torch.maximum(low[..., None], start)).clamp_min(0)


def object_masks(targets: Tensor, height: int, width: int, image_size: int) -> Masks:
    """From (N, M, 5), for a map of this size."""
    targets = F.pad(targets.float(), (0, 0, 0, 1), value=-1)  # one row at least
    there = present(targets).float()
    x1, x2 = (targets[..., side] * width / image_size for side in (1, 3))
    y1, y2 = (targets[..., side] * height / image_size for side in (2, 4))
    share = covered(y1, y2, height).unsqueeze(3) * covered(x1, x2, width).unsqueeze(2)  # (N, M, H, W)
    share = share * there[..., None, None]
    weight = there / ((x2 - x1) * (y2 - y1)).clamp_min(SHORTEST)
    rest = 1 - share.amax(dim=1)
    return Masks(
        foreground=(share * weight[..., None, None]).amax(dim=1),
        background=rest / rest.sum(dim=(1, 2), keepdim=True).clamp_min(SHORTEST),
        boxes=there.sum(),
    )


def spatial_attention(feature: Tensor, temperature: float) -> Tensor:
    """(N, C, H, W) -> (N, H, W) of mean 1."""
    logits = feature.abs().mean(dim=1) / temperature
    return logits.flatten(1).softmax(dim=1).view_as(logits) * logits[0].numel()


def channel_attention(feature: Tensor, temperature: float) -> Tensor:
    """(N, C, H, W) -> (N, C) of mean 1."""
    return (feature.abs().mean(dim=(2, 3)) / temperature).softmax(dim=1) * feature.shape[1]


def fgd_losses(student: Tensor, teacher: Tensor, masks: Masks, temperature: float) -> dict[str, Tensor]:
    """Scalars by term, from (N, C, H, W) features of one size in float32."""
    spatial, its_spatial = (spatial_attention(x, temperature) for x in (student, teacher))
    channel, its_channel = (channel_attention(x, temperature) for x in (student, teacher))
    gap = its_spatial * (its_channel[..., None, None] * (student - teacher).square()).mean(dim=1)
    return {
        "foreground": (masks.foreground * gap).sum() / masks.boxes.clamp_min(1),
        "background": (masks.background * gap).sum() / len(gap),
        "spatial": (spatial - its_spatial).abs().mean(),
        "channel": (channel - its_channel).abs().mean(),
    }


PARTS = ("foreground", "background", "spatial", "channel")


@METHODS.register("fgd")
class Fgd(Method):
    Config = FgdConfig
    tasks = DETECTORS
    terms: ClassVar[Mapping[str, Term]] = {
        "foreground/*": Term(2.0, WARM_UP),
        "background/*": Term(0.1, WARM_UP),
        "spatial/*": Term(0.5, WARM_UP),
        "channel/*": Term(0.1, WARM_UP),
    }
    presets: ClassVar[Mapping[str, Preset]] = {
        "retinanet": Preset(
            "COCO, RetinaNet, images of 800x1333, levels p3 to p7 of 256 channels, any batch (authors' code)",
            terms={
                "foreground/*": round(1e-3 * 256 * 7.3, 4),
                "background/*": 5e-4 * 256,
                **{f"spatial/{level}": round(5e-4 * places, 4) for level, places in COCO_PLACES.items()},
                "channel/*": 5e-4 * 256,
            },
            options={"temperature": 0.5},
            task="detect",
        )
    }
    depends_on: ClassVar[Mapping[str, str]] = {"map": "of boxes that overlap within a place, one counts for all of it"}

    def __init__(self, config: FgdConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("fgd", config.stages, student, teacher)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.aligners = aligners(self.pairs, student, teacher)
        self.config, self.image_size = config, student.image_size

    def prune(self) -> None:
        for s, _ in self.pairs:
            if not [part for part in PARTS if self.counts(f"{part}/{s}")]:
                del self.aligners[s]
        self.pairs = [pair for pair in self.pairs if pair[0] in self.aligners]
        self.student_features = tuple(s for s, _ in self.pairs)
        self.teacher_features = tuple(t for _, t in self.pairs)

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for s, t in self.pairs:
            student = self.aligners[s](step.student.features[s])
            student, teacher = resampled(student, step.taught.features[t].detach())
            masks = object_masks(step.labels, teacher.shape[2], teacher.shape[3], self.image_size)
            found = fgd_losses(student, teacher, masks, self.config.temperature)
            terms |= {f"fgd/{part}/{s}": value for part, value in found.items() if self.counts(f"{part}/{s}")}
        return terms
