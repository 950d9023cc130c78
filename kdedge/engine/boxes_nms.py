"""Non-maximum suppression, as torchvision's batched_nms: a box goes where a better one of its class covers it.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


def nms(boxes: Array, scores: Array, classes: Array, threshold: float, most: int) -> Array:
    """Indices of the boxes to keep, best first; of equal scores the first one wins.

    Args:
        boxes: (n, 4) float32.
        threshold: intersection over union above which the lesser of two boxes of a class goes.
        most: how many to keep.
    """
    order = np.argsort(-scores, kind="stable")
    sides = np.ascontiguousarray(boxes[order].T)
    areas, labels = (sides[2] - sides[0]) * (sides[3] - sides[1]), classes[order]
    standing = np.ones(len(order), dtype=bool)
    kept = []
    for best in range(len(order)):
        if standing[best]:
            kept.append(best)
            if len(kept) == most:
                break
            rivals = best + 1 + np.flatnonzero((labels[best + 1 :] == labels[best]) & standing[best + 1 :])
            standing[rivals[_overlaps(sides, areas, best, rivals) > threshold]] = False
    return order[kept]


def _overlaps(sides: Array, areas: Array, best: int, rivals: Array) -> Array:
    """Intersection over union of one box with others, in float64 for the comparison: 0.6 in float32 is above 0.6."""
    left, top, right, bottom = sides[:, rivals]
    width = np.minimum(right, sides[2, best]) - np.maximum(left, sides[0, best])
    height = np.minimum(bottom, sides[3, best]) - np.maximum(top, sides[1, best])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(invalid="ignore"):  # two boxes without an area overlap by 0 / 0, which is above nothing
        return np.asarray(shared / (areas[best] + areas[rivals] - shared), dtype=np.float64)
