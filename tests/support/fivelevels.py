"""A detector of five levels that takes milliseconds, with what methods may know of it."""

from typing import Any

import torch
from torch import Tensor, nn

from kdedge.distill.base import Network
from kdedge.distill.layout import Layout, Scores
from kdedge.models.features import FeaturePoint

SIDE, CLASSES, LEVELS = 128, 3, ("p3", "p4", "p5", "p6", "p7")
NOTHING = [-1.0, 0.0, 0.0, 0.0, 0.0]
"""A row of an image's targets beyond its boxes."""


class FiveLevels(nn.Module):
    """Images (N, 3, 128, 128) -> (N, A, D), of two anchors a place on maps of 16, 8, 4, 2 and 1 places a side."""

    def __init__(self, width: int, scores: Scores = "sigmoid", levels: int = 5, cells: int = 2) -> None:
        super().__init__()
        self.scores, self.cells, self.levels = scores, cells, LEVELS[:levels]
        self.values = 4 + CLASSES + (scores != "sigmoid")
        self.stem = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.BatchNorm2d(width), nn.ReLU())
        down = {name: nn.Conv2d(width, width, 3, 2, padding=1) for name in self.levels[1:]}
        self.pyramid = nn.ModuleDict({"p3": nn.Conv2d(width, width, 1)} | down)
        self.head = nn.Conv2d(width, cells * self.values, 1)
        points = {name: FeaturePoint(f"pyramid.{name}", width, 8 << n) for n, name in enumerate(self.levels)}
        self.feature_points = {"stage1": FeaturePoint("stem", width, 8)} | points

    def forward(self, images: Tensor) -> Tensor:
        outputs, x = [], self.stem(images)
        for name in self.levels:
            x = self.pyramid[name](x)
            outputs.append(self.head(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.values))
        return torch.cat(outputs, dim=1)

    def decoding(self) -> dict[str, Any]:
        return {
            "classes": CLASSES,
            "image_size": SIDE,
            "coder": "distances" if self.scores == "centerness" else "deltas",
            "weights": [1.0, 1.0, 1.0, 1.0],
            "normalize_by_size": True,
            "scores": self.scores,
            "levels": [level(SIDE >> 3 + n, 8 << n, self.cells) for n, _ in enumerate(self.levels)],
            "clip": False,
            "score_threshold": 0.05,
            "nms_threshold": 0.5,
            "candidates": 100,
            "detections": 20,
        }

    def network(self) -> Network:
        layout = Layout.of(self.decoding(), self.feature_points)
        return Network(self.feature_points, CLASSES, SIDE, images=12, layout=layout)


def level(side: int, stride: int, cells: int) -> dict[str, Any]:
    """Square anchors around the middles of the places, as large as their stride, twice as large, and so on."""
    halves = [stride * (1 + cell) / 2 for cell in range(cells)]
    boxes = [[-half, -half, half, half] for half in halves]
    return {"grid": [side, side], "stride": [stride, stride], "offset": [0.5, 0.5], "cells": boxes}


def detectors(levels: int = 5) -> tuple[Network, Network]:
    """A student and a teacher of another width."""
    return FiveLevels(4, levels=levels).network(), FiveLevels(6, levels=levels).network()


def targets(*images: list[list[float]]) -> Tensor:
    return torch.tensor(images, dtype=torch.float32)


def some_targets(images: int) -> Tensor:
    """(images, 3, 5): the first image has two boxes that overlap, the second none, the others one, small to large."""
    found = torch.zeros(images, 3, 5)
    found[:, :, 0] = -1
    found[0, :2] = torch.tensor([[0.0, 8, 12, 52, 50], [2.0, 30, 30, 90, 120]])
    for n in range(2, images):
        side = SIDE * (n - 1) / (images - 2) - 2
        found[n, 0] = torch.tensor([n % CLASSES, 1.0, 1.0, 1 + side, 1 + side])
    found[2:3, 0, 1:] = torch.tensor([18.0, 50.0, 29.0, 60.0])
    return found
