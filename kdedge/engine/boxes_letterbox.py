"""A picture of any size as a detector sees it, and boxes back in the picture's own pixels.

The picture is scaled by one factor until its longer side fills the square, and lies in its top left corner.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

GRAY = 114
"""What the rest of the square is filled with."""


def letterbox(picture: Array, size: int) -> Array:
    """(H, W, C) uint8 -> (size, size, C) uint8."""
    height, width = picture.shape[:2]
    high, wide = fitted(height, width, size)
    square = np.full((size, size, picture.shape[2]), GRAY, dtype=np.uint8)
    square[:high, :wide] = picture if (high, wide) == (height, width) else resize(picture, high, wide)
    return square


def fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of the picture in the square, whole pixels and never none."""
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def unletterbox(boxes: Array, height: int, width: int, size: int) -> Array:
    """(n, 4) of the square -> of a picture of this height and width, clipped to it."""
    scale = size / max(height, width)
    return (boxes / np.float32(scale)).clip(0, np.array([width, height, width, height], dtype=np.float32))


def resize(picture: Array, height: int, width: int) -> Array:
    """Bilinear with antialiasing, as Pillow and torchvision resize: within one gray level."""
    planes = picture.transpose(2, 0, 1).astype(np.float32)
    resized = _weights(picture.shape[0], height) @ planes @ _weights(picture.shape[1], width).T
    return np.rint(resized).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def _weights(given: int, wanted: int) -> Array:
    """(wanted, given): what each old pixel gives to a new one, a triangle as wide as the larger of the two pixels."""
    scale = given / wanted
    centers = (np.arange(wanted) + 0.5) * scale
    distances = np.abs(np.arange(given) + 0.5 - centers[:, None]) / max(scale, 1)
    weights = np.maximum(0, 1 - distances)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
