"""Object detectors: torchvision's, below their own resizing, matching and post-processing of lists.

Such a network takes a batch of square images and gives one tensor, which its losses, the methods and the runtime read.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.registry import Registry
from kdedge.models.cost import Shape
from kdedge.models.features import FeaturePoint

DETECTORS: Registry[Callable[..., "Detector"]] = Registry("detector", "kdedge.models.detectors", "kdedge models")
"""Builders, called like those of MODELS."""

SMALLEST = 64
"""Pixels a side from which a detector has maps to look at."""
TERMS = {"classification": "classification", "bbox_regression": "boxes", "bbox_ctrness": "centerness"}
"""What torchvision calls a loss, and what it is called here."""

OLD_PYRAMID = r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"


class Detector(nn.Module):
    """Mixed into one of torchvision's detectors, ahead of it; `describe` follows the other's constructor."""

    coder: ClassVar[Literal["deltas", "distances"]] = "deltas"
    scores: ClassVar[Literal["sigmoid", "softmax", "centerness"]] = "sigmoid"
    offset: ClassVar[float] = 0.0
    """Of an anchor's center in its cell; 0.5 is the middle."""

    backbone: Any
    head: Any
    anchor_generator: Any
    box_coder: Any
    proposal_matcher: Any
    compute_loss: Callable[..., dict[str, Tensor]]

    classes: int
    image_size: int
    levels: tuple[int, ...]
    """Of the maps looked at, largest first: maps of level l have stride 2 ** l."""
    feature_points: dict[str, FeaturePoint]
    classifier_names: Mapping[str, str | None] = MappingProxyType({})
    """What the tensors of the classifier that the backbone was taken from are called here; None of its head's."""

    def describe(
        self,
        classes: int,
        image_size: int,
        levels: tuple[int, ...],
        points: dict[str, FeaturePoint],
        classifier: nn.Module | None = None,
    ) -> None:
        """Args:
        classifier: whose modules the backbone is made of.
        """
        self.classes, self.image_size, self.levels, self.feature_points = classes, image_size, levels, points
        own = {id(tensor): name for name, tensor in self.state_dict(keep_vars=True).items()}
        theirs = classifier.state_dict(keep_vars=True) if classifier else {}
        self.classifier_names = {name: own.get(id(tensor)) for name, tensor in theirs.items()}
        del self.transform  # images come resized and normalized

    @property
    def columns(self) -> dict[str, int]:
        """What a row of the output holds, by torchvision's names, and how many values each takes."""
        background = self.scores == "softmax"
        columns = {"bbox_regression": 4, "cls_logits": self.classes + background}
        return columns | ({"bbox_ctrness": 1} if self.scores == "centerness" else {})

    @property
    def sides(self) -> list[int]:
        """Of the maps, in cells; every stride of these networks rounds up."""
        return [-(-self.image_size // 2**level) for level in self.levels]

    @property
    def per_cell(self) -> list[int]:
        """Anchors in each cell of a level."""
        return list(self.anchor_generator.num_anchors_per_location())

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, anchors, 4 values of the box, classes' logits, centerness of an FCOS).

        Anchors go by level, row, column and anchor of the cell.  Softmax kinds have a logit of the background first.
        """
        found = self.head(list(self.backbone(images).values()))
        return torch.cat([found[name] for name in self.columns], dim=2)

    def anchors(self) -> Tensor:
        """(anchors, 4): x1, y1, x2, y2 in pixels, in the order of the output."""
        from torchvision.models.detection.image_list import ImageList

        device, size = next(self.parameters()).device, self.image_size
        images = ImageList(torch.empty(1, 0, size, size, device=device), [(size, size)])
        maps = [torch.empty(1, 0, side, side, device=device) for side in self.sides]
        anchors: Tensor = self.anchor_generator(images, maps)[0]
        return anchors

    def losses(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Torchvision's own losses of a batch: classification, boxes and, of an FCOS, centerness.

        Args:
            outputs: (N, anchors, columns), as forward gives them.
            targets: (N, M, 5), rows of class, x1, y1, x2, y2 in pixels; class -1 in rows without an object.

        Raises:
            ModelError: the outputs are of images of another size.
        """
        anchors = self.anchors()
        if outputs.shape[1] != len(anchors):
            what = f"{type(self).__name__} for images of {self.image_size}x{self.image_size}"
            raise ModelError(what, f"it has {len(anchors)} anchors, and these outputs are of {outputs.shape[1]}")
        parts = torch.split(outputs.float(), list(self.columns.values()), dim=2)
        objects = [image[image[:, 0] >= 0].float() for image in targets]
        first = int(self.scores == "softmax")
        wanted = [{"boxes": image[:, 1:], "labels": image[:, 0].long() + first} for image in objects]
        losses = self.matched_losses(dict(zip(self.columns, parts, strict=True)), wanted, [anchors] * len(outputs))
        return {term: losses[name] for name, term in TERMS.items() if name in losses}

    def matched_losses(
        self, found: dict[str, Tensor], wanted: list[dict[str, Tensor]], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """By torchvision's names; `wanted` and `anchors` are lists over images."""
        return self.compute_loss(wanted, found, anchors)

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of torchvision's first files under the names of today."""
        return {re.sub(OLD_PYRAMID, r"\1.0.\2", name): tensor for name, tensor in state.items()}

    def decoding(self) -> dict[str, Any]:
        """All that a program needs to make boxes of the outputs, in plain types.

        An anchor is a cell's box moved by (column + offset) * stride and (row + offset) * stride.  Candidates are kept
        of each level, with softmax of each class.
        """
        return {
            "classes": self.classes,
            "image_size": self.image_size,
            "coder": self.coder,
            "weights": list(getattr(self.box_coder, "weights", (1.0, 1.0, 1.0, 1.0))),
            "normalize_by_size": getattr(self.box_coder, "normalize_by_size", False),
            "scores": self.scores,
            "levels": self.decoding_levels(),
            "clip": False,
            "score_threshold": self.score_thresh,
            "nms_threshold": self.nms_thresh,
            "candidates": self.topk_candidates,
            "detections": self.detections_per_img,
        }

    def decoding_levels(self) -> list[dict[str, Any]]:
        anchors, levels, start = self.anchors().cpu(), [], 0
        for side, count in zip(self.sides, self.per_cell, strict=True):
            stride = self.image_size / side if self.offset else self.image_size // side
            cells = (anchors[start : start + count] - self.offset * stride).tolist()
            place = {"grid": [side, side], "stride": [stride, stride], "offset": [self.offset, self.offset]}
            levels.append(place | {"cells": cells})
            start += side * side * count
        return levels


def side_of(name: str, image_shape: Shape) -> int:
    """Raises ModelError for images that a detector does not take."""
    channels, height, width = image_shape
    what = f"{name} for images of {channels}x{height}x{width}"
    if channels != 3:
        raise ModelError(what, "a detector takes 3 channels")
    if height != width:
        raise ModelError(what, "a detector takes square ones")
    if height < SMALLEST:
        fix = "set data.image_size: 320, or --size 320"
        raise ModelError(what, f"a detector needs at least {SMALLEST}x{SMALLEST}", fix)
    return height
