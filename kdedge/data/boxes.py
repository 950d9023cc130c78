"""Boxes of objects as tensors: how they are packed, counted, and moved with the part of a picture that is shown.

Targets are float32 (N, M, 5) with rows [class, x1, y1, x2, y2] in pixels; the rows beyond an image's boxes are
[-1, 0, 0, 0, 0].  An image without objects has such rows alone.  After an image's boxes come the areas where finds of
a class c count neither as right nor as wrong: rows of class `uncounted(c)`, below -1.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from kdedge.core.quality import NO_BOX

GRAY = 114
"""What a picture is surrounded by where it does not fill its square."""
LEAST_SHARE = 0.2
"""Of its area that a box must keep to remain when a picture is cropped."""
SMALL, MEDIUM = 32.0**2, 96.0**2
"""Areas in pixels below which COCO calls an object small, and medium."""


class Window(NamedTuple):
    """A part of a picture in its pixels, possibly reaching beyond it."""

    left: int
    top: int
    width: int
    height: int


def pack(boxes: list[Tensor], rows: int | None = None) -> Tensor:
    """(n, 5) each -> (N, M, 5), where M is `rows`, or the largest n and at least 1."""
    most = max([1, *map(len, boxes)]) if rows is None else rows
    targets = torch.zeros(len(boxes), most, 5)
    targets[..., 0] = NO_BOX
    for row, found in zip(targets, boxes, strict=True):
        row[: len(found)] = found
    return targets


def unpack(target: Tensor) -> Tensor:
    """(M, 5) -> its n boxes, (n, 5)."""
    return target[target[:, 0] >= 0]


def classes_of(labels: Tensor) -> Tensor:
    """The class of every label: (N,) as it is, that of every box of targets (N, M, 5) flattened, int64."""
    if labels.ndim == 1:
        return labels
    classes = labels[..., 0].flatten()
    return classes[classes >= 0].long()


def presence(labels: Tensor) -> Tensor:
    """(N, classes) bool: whether an image has that label, or a box of that class; classes up to the highest one."""
    classes = labels[:, None] if labels.ndim == 1 else labels[..., 0]
    return (classes[..., None] == torch.arange(max(1, int(classes.max()) + 1))).any(dim=1)


def strata(labels: Tensor) -> Tensor:
    """(N,) int64, what to take equal shares of: the label, or the class that is on the fewest images, -1 if none."""
    if labels.ndim == 1:
        return labels
    present = presence(labels)
    rarity = torch.where(present, present.sum(dim=0), len(labels) + 1)
    return torch.where(present.any(dim=1), rarity.argmin(dim=1), NO_BOX)


def areas(boxes: Tensor) -> Tensor:
    """(..., 5) -> (...)"""
    return (boxes[..., 3] - boxes[..., 1]) * (boxes[..., 4] - boxes[..., 2])


def scale_to_fit(height: float, width: float, side: int) -> float:
    """The factor that makes the longer side fill the square."""
    return side / max(height, width)


def fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of a picture in its square, whole pixels and never none."""
    scale = scale_to_fit(height, width, side)
    return max(1, round(height * scale)), max(1, round(width * scale))


def whole(picture: Tensor) -> Window:
    """All of a picture (3, H, W)."""
    return Window(0, 0, picture.shape[2], picture.shape[1])


def show_image(picture: Tensor, window: Window, side: int) -> Tensor:
    """The window of a picture (3, H, W) uint8, scaled until its longer side fills the square; gray elsewhere."""
    scale = scale_to_fit(window.height, window.width, side)
    left, top = max(0, window.left), max(0, window.top)
    right = min(picture.shape[2], window.left + window.width)
    bottom = min(picture.shape[1], window.top + window.height)
    x, y = round((left - window.left) * scale), round((top - window.top) * scale)
    width = min(side - x, max(1, round((right - left) * scale)))
    height = min(side - y, max(1, round((bottom - top) * scale)))
    part = F.resize(picture[:, top:bottom, left:right], [height, width], antialias=True)
    padded: Tensor = F.pad(part, [x, y, side - x - width, side - y - height], fill=GRAY)
    return padded


def show_boxes(boxes: Tensor, window: Window, side: int) -> Tensor:
    """(n, 5) in pixels of the picture -> those that the window shows enough of, clipped to it, in the square's."""
    scale = scale_to_fit(window.height, window.width, side)
    moved = boxes.clone()
    moved[:, 1:] = (boxes[:, 1:] - torch.tensor([window.left, window.top] * 2)) * scale
    shown = moved.clone()
    shown[:, 1::2] = moved[:, 1::2].clamp(0, window.width * scale)
    shown[:, 2::2] = moved[:, 2::2].clamp(0, window.height * scale)
    return shown[areas(shown) >= LEAST_SHARE * areas(moved)]


def mirror(boxes: Tensor, width: float) -> Tensor:
    """(n, 5) in a picture of this width, as they are when it is mirrored."""
    return torch.stack([boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1], boxes[:, 4]], dim=1)
