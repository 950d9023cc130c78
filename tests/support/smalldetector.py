"""A detector of two levels, with a head for boxes and one for scores, that exports in a second."""

from typing import Any, Literal

import torch
from fivelevels import CLASSES, SIDE, level
from torch import Tensor, nn

from kdedge.models.detector import Detector

SHAPE = (3, SIDE, SIDE)
LABELS = ("ant", "bee", "cat")


class SmallDetector(Detector):
    """Images (N, 3, 128, 128) -> (N, 640, D), of two anchors a place on maps of 16 and 8 places a side."""

    classes, image_size, cells = CLASSES, SIDE, 2

    def __init__(self, scores: Literal["sigmoid", "softmax"] = "sigmoid") -> None:
        torch.manual_seed(0)
        nn.Module.__init__(self)
        self.scores = scores
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 16, 3, 2, padding=1), nn.ReLU())
        self.boxes = nn.Conv2d(16, 4 * self.cells, 1)
        self.logits = nn.Conv2d(16, (CLASSES + (scores == "softmax")) * self.cells, 1)
        for layer in (self.boxes, self.logits):
            nn.init.normal_(layer.weight, std=0.5)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        large = self.stem(images)
        maps = large, self.down(large)
        parts = [torch.cat([rows(head(x), self.cells) for x in maps], dim=1) for head in (self.boxes, self.logits)]
        return torch.cat(parts, dim=2)

    def decoding(self) -> dict[str, Any]:
        return {
            "classes": CLASSES,
            "image_size": SIDE,
            "coder": "deltas",
            "weights": [1.0, 1.0, 1.0, 1.0],
            "normalize_by_size": False,
            "scores": self.scores,
            "levels": [level(16, 8, self.cells), level(8, 16, self.cells)],
            "clip": False,
            "score_threshold": 0.05,
            "nms_threshold": 0.5,
            "candidates": 200,
            "detections": 50,
        }


def rows(values: Tensor, cells: int) -> Tensor:
    """(N, cells * D, H, W) -> (N, H * W * cells, D)"""
    batch, channels, height, width = values.shape
    split = values.view(batch, cells, channels // cells, height, width)
    return split.permute(0, 3, 4, 1, 2).reshape(batch, -1, channels // cells)
