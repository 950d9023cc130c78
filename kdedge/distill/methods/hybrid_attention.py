"""Hybrid attention transfer: match where two networks look and which channels they use, the teacher's most active ones.

Y. Qu, W. Deng, J. Hu: "H-AT: Hybrid Attention Transfer for Knowledge Distillation", PRCV 2020,
doi:10.1007/978-3-030-60636-7_21, and the authors' code.  For each stage
    spatial   ||a_s - a_t||^2,       a = the mean over channels of |F|^2 at each place, as a vector of unit length
    channel   (1 - cos(e_s, e_t))^2,  e = the mean over the places of ReLU(F) of each channel
and where the teacher is wider, e_t has only as many channels as the student's, those that are most active: the ones
whose share of the unit vector e_t / ||e_t|| deviates most (select: std) from image to image.

Differences from the authors' code: channels are chosen at every stage, from 10 batches seen by a teacher in eval mode,
and kept with the weights, rather than at the last stage, from the first batch, in train mode, in a list that is lost on
resume; a map is made of all the teacher's channels.  Where nothing is chosen and the widths differ, the student's
channels go through a 1x1 convolution, BN and ReLU that train with it.  The code takes F after the BN that follows a
stage; a feature point of a network with pre-activation (WRN) is the sum before that BN.

The spatial term here is free of the map's size.  The authors' weights, at stages 1 to 3, are 10, 100, 1000 for the
mean over the places of its square, and 0.1, 1, 10 for the channels: the preset.  Default are 4 and 10 at every stage: 4
is the geometric mean of what the 1000 of attention transfer is at maps of 32, 16 and 8, 10 that of the last stage.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from kdedge.distill.adapters import adapter
from kdedge.distill.base import EITHER, METHODS, Method, MethodConfig, Network, Preset, Step, Term, View, needed
from kdedge.distill.maps import pooled, unit
from kdedge.distill.methods.attention import attention_loss
from kdedge.distill.stages import Stages, pair_stages


class HybridAttentionConfig(MethodConfig):
    stages: Stages = "auto"
    """Stages to match: auto (each shared resolution), middle, last, shared names, or pairs [student's, teacher's]."""
    p: int = Field(2, ge=1, le=4)
    """Power of |activation| that is averaged over the channels for the map of a stage."""
    select: Literal["none", "std", "mean", "l2"] = "std"
    """What a wider teacher's channels are chosen by: deviation, mean or root mean square over images; or none are."""
    calibration_batches: int = Field(10, ge=1)
    """Training batches that the choice is made from."""
    last_only: bool = False
    """Choose at the last stage alone; an earlier one of other width then has no channel term."""
    select_spatial: bool = False
    """Make the teacher's map of the chosen channels too."""


def activations(feature: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C): mean over the places of each channel's ReLU, in float32."""
    return pooled(feature.relu())


def channel_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar, 0..1 for activations: (1 - cos)^2 of the (N, C) vectors, the mean over samples."""
    cosine = (unit(student) * unit(teacher)).sum(dim=1)
    return (1 - cosine).square().mean()


@dataclass
class Moments:
    """Mean and variance of the columns of rows that come in batches, by Welford's recurrence."""

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Sum of the squared deviations from the mean."""

    def add(self, rows: Tensor) -> None:
        """(N, C)"""
        mean, total = rows.mean(dim=0), self.count + len(rows)
        gap, share = mean - self.mean, len(rows) / total
        self.squares = self.squares + (rows - mean).square().sum(dim=0) + gap.square() * (self.count * share)
        self.mean, self.count = self.mean + gap * share, total

    def score(self, kind: str) -> Tensor:
        """(C,), by std, mean or l2."""
        variance = self.squares / self.count
        return {"std": variance.sqrt(), "mean": self.mean, "l2": (variance + self.mean.square()).sqrt()}[kind]


class Selection(nn.Module):
    """Some of a teacher's channels, kept as a mask: a moving average of the weights would spoil their numbers."""

    chosen: Tensor

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.register_buffer("chosen", torch.arange(channels) < count)

    def choose(self, score: Tensor) -> None:
        """Take the channels of the highest score (C,), as many as before."""
        best = score.argsort(descending=True, stable=True)[: int(self.chosen.sum())]
        self.chosen.zero_()[best] = True

    def forward(self, channels: Tensor) -> Tensor:
        """(N, C, ...) -> (N, chosen, ...)"""
        return channels[:, self.chosen]


@METHODS.register("hybrid_attention")
class HybridAttention(Method):
    Config = HybridAttentionConfig
    tasks = EITHER
    terms: ClassVar[Mapping[str, Term]] = {"spatial/*": Term(4.0), "channel/*": Term(10.0)}
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "CIFAR-10, any batch, maps of 32, 16 and 8 (authors' code); of other widths, without channel/stage1 and 2",
            terms={
                "spatial/stage1": 10 / 32**2,
                "spatial/stage2": 100 / 16**2,
                "spatial/stage3": 1000 / 8**2,
                "channel/stage1": 0.1,
                "channel/stage2": 1.0,
                "channel/stage3": 10.0,
            },
            options={"calibration_batches": 1, "last_only": True, "select_spatial": True},
        )
    }

    def __init__(self, config: HybridAttentionConfig, student: Network, teacher: Network | None) -> None:
        super().__init__(config, student, teacher)
        teacher = needed(teacher)
        self.pairs = pair_stages("hybrid_attention", config.stages, student, teacher, places=True)
        self.student_features, self.teacher_features = zip(*self.pairs, strict=True)
        self.selections, self.adapters = nn.ModuleDict(), nn.ModuleDict()
        self.compared = []
        for s, t in self.pairs:
            mine, its = student.features[s].channels, teacher.features[t].channels
            if mine != its and config.last_only and (s, t) != self.pairs[-1]:
                continue
            self.compared.append(s)
            if mine < its and config.select != "none":
                self.selections[s] = Selection(its, mine)
            elif mine != its:
                self.adapters[s] = adapter(mine, its)
        self.calibration_batches = config.calibration_batches if self.selections else 0
        self.config = config

    def prune(self) -> None:
        shown = [s for s, _ in self.pairs if self.counts(f"spatial/{s}")]
        self.compared = [s for s in self.compared if self.counts(f"channel/{s}")]
        selecting = {*self.compared, *(shown if self.config.select_spatial else ())}
        for layers, users in ((self.selections, selecting), (self.adapters, self.compared)):
            for s in [s for s in layers if s not in users]:
                del layers[s]
        self.pairs = [pair for pair in self.pairs if pair[0] in {*shown, *self.compared}]
        self.student_features = tuple(s for s, _ in self.pairs)
        self.teacher_features = tuple(t for _, t in self.pairs)
        self.calibration_batches = self.calibration_batches if self.selections else 0

    def prepare(self, views: Iterable[tuple[View, View | None]]) -> None:
        """Choose the teacher's channels."""
        found = {s: Moments() for s in self.selections}
        for _, teacher in views:
            teacher = needed(teacher)
            for s, t in self.pairs:
                if s in found:
                    found[s].add(unit(activations(teacher.features[t])))
        for s, selection in self.selections.items():
            assert isinstance(selection, Selection)
            selection.choose(found[s].score(self.config.select))

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        for s, t in self.pairs:
            student, teacher = step.student.features[s], step.taught.features[t].detach()
            if self.counts(f"spatial/{s}"):
                shown = self.active(s, teacher) if self.config.select_spatial else teacher
                terms[f"hybrid_attention/spatial/{s}"] = attention_loss(student, shown, self.config.p, "squared")
            if s in self.compared:
                adapted = self.adapters[s](student) if s in self.adapters else student
                used = self.active(s, activations(teacher))
                terms[f"hybrid_attention/channel/{s}"] = channel_loss(activations(adapted), used)
        return terms

    def active(self, stage: str, channels: Tensor) -> Tensor:
        """(N, C, ...) of the teacher -> (N, chosen, ...); as they are where none are chosen."""
        return self.selections[stage](channels) if stage in self.selections else channels
