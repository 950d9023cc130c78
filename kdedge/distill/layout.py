"""What methods know of a detector's outputs: its anchors, level by level, and how boxes and scores are coded.

Outputs are one tensor (N, A, D).  For every anchor, that is 4 box values, then a logit for each class (where the scores
are a softmax, the background's first) and, where there is centerness, its logit.  Anchors go by level, then by row,
column and cell of a place.  Targets are a tensor (N, M, 5) of rows [class, x1, y1, x2, y2] in pixels, class -1 in rows
beyond an image's boxes.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from kdedge.models.features import FeaturePoint

Scores = Literal["sigmoid", "softmax", "centerness"]
Coder = Literal["deltas", "distances"]
LEVEL = re.compile(r"p\d+")
"""Feature points that are a detector's levels, in their order."""
COCO_PLACES = {"p3": 100 * 167, "p4": 50 * 84, "p5": 25 * 42, "p6": 13 * 21, "p7": 7 * 11}
"""Of the levels of an image of 800x1333, for which weights are published."""


class Level(NamedTuple):
    feature: str
    """The feature point whose map the anchors stand on; empty where that is none."""
    rows: int
    columns: int
    cells: int
    """Anchors of a place."""


@dataclass(frozen=True, eq=False)
class Layout:
    levels: tuple[Level, ...]
    anchors: Tensor
    """(A, 4): x1, y1, x2, y2 in pixels of the image."""
    classes: int
    scores: Scores
    coder: Coder
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Of deltas."""
    normalize_by_size: bool = True
    """Whether distances are in sides of the anchor."""

    @classmethod
    def of(cls, decoding: Mapping[str, Any], points: Mapping[str, FeaturePoint]) -> "Layout":
        """From what a detector says of its outputs, and its feature points."""
        size = decoding["image_size"]
        anchors = torch.cat([level_anchors(**level) for level in decoding["levels"]])
        free = {name: math.ceil(size / point.stride) for name, point in points.items() if LEVEL.fullmatch(name)}
        levels = []
        for level in decoding["levels"]:
            rows, columns = level["grid"]
            feature = next((name for name, side in free.items() if (side, side) == (rows, columns)), "")
            free.pop(feature, None)
            levels.append(Level(feature, rows, columns, len(level["cells"])))
        return cls(
            levels=tuple(levels),
            anchors=anchors.clamp(0, size) if decoding["clip"] else anchors,
            classes=decoding["classes"],
            scores=decoding["scores"],
            coder=decoding["coder"],
            weights=tuple(decoding["weights"]),
            normalize_by_size=decoding["normalize_by_size"],
        )

    def logits(self, outputs: Tensor) -> Tensor:
        """(N, A, D) -> (N, A, classes), one more of a softmax, in float32."""
        return outputs[..., 4 : 4 + self.classes + (self.scores == "softmax")].float()

    def certainty(self, outputs: Tensor) -> Tensor:
        """(N, A, D) -> (N, A): the largest score that an anchor gives a class, 0..1."""
        logits = self.logits(outputs)
        if self.scores == "softmax":
            return logits.softmax(dim=2)[..., 1:].amax(dim=2)
        largest = logits.amax(dim=2).sigmoid()
        if self.scores == "centerness":
            return (largest * outputs[..., -1].float().sigmoid()).sqrt()
        return largest

    def boxes(self, outputs: Tensor, anchors: Tensor) -> Tensor:
        """(N, A, D) -> (N, A, 4): x1, y1, x2, y2 in pixels, in float32; the anchors on the outputs' device."""
        from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder  # slow to import

        codes = outputs[..., :4].float()
        if self.coder == "distances":
            decoded: Tensor = BoxLinearCoder(self.normalize_by_size).decode(codes, anchors)
        else:
            decoded = BoxCoder(self.weights).decode_single(codes.flatten(0, 1), anchors.repeat(len(codes), 1))
        return decoded.view_as(codes)

    def maps(self, values: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(N, A) -> of each level, by feature point, (N, rows, columns, cells)."""
        counts = [level.rows * level.columns * level.cells for level in self.levels]
        for level, part in zip(self.levels, torch.split(values, counts, dim=1), strict=True):
            yield level.feature, part.reshape(len(part), level.rows, level.columns, level.cells)


def level_anchors(grid: list[int], stride: list[float], offset: list[float], cells: list[list[float]]) -> Tensor:
    """(rows * columns * cells, 4): every cell at every place of a grid."""
    y, x = ((torch.arange(side) + shift) * step for side, step, shift in zip(grid, stride, offset, strict=True))
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    corners = torch.stack([columns, rows, columns, rows], dim=2).unsqueeze(2)
    return (corners + torch.tensor(cells)).flatten(0, 2).float()


def present(targets: Tensor) -> Tensor:
    """(N, M, 5) -> (N, M): which rows are boxes."""
    return targets[..., 0] >= 0
