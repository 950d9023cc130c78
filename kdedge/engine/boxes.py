"""A detector's outputs decoded into boxes, as torchvision's RetinaNet, FCOS and SSD do it.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kdedge.core.errors import ModelError
from kdedge.engine.boxes_nms import nms

if TYPE_CHECKING:
    from kdedge.engine.boxes_decoding import Decoding

    Array = np.ndarray[Any, Any]

CHOSEN = ("boxes", "scores", "classes", "count")
"""Outputs of a model with NMS in its graph: (N, D, 4), (N, D), (N, D) and how many of the D of an image count, (N,)."""
KINDS = (np.float32, np.float32, np.int64)
"""Of the columns of Detections."""
LARGEST = math.log(1000 / 16)
"""Of a delta of width or height, so that its exponential stays a size."""
CLEARLY = 0.01
"""By how much a logit must lie below the threshold's to be dropped before its score is computed."""


class Detections(NamedTuple):
    """Of one picture, best first."""

    boxes: Array
    """(n, 4) float32: x1, y1, x2, y2 in pixels."""
    scores: Array
    """(n,) float32, 0 to 1."""
    classes: Array
    """(n,) int64, from 0."""


class Candidates(NamedTuple):
    """What NMS chooses from, (n,) each."""

    anchors: Array
    classes: Array
    scores: Array


def detections_of(outputs: Mapping[str, Array], decoding: Decoding) -> list[Detections]:
    """The boxes of each image of a batch, whether the model gives raw heads or has chosen the boxes itself.

    With NMS in the graph no score is at or below the threshold that the model was exported with, whatever `decoding`
    says; a higher one, or fewer detections, hold as they do for raw heads.

    Args:
        outputs: of a session, by name: one tensor as `decode` takes it, or those named in CHOSEN.

    Raises:
        ModelError: neither, or not in the shapes of `decoding`.
    """
    if set(outputs) == set(CHOSEN):
        return chosen(outputs, decoding)
    if len(outputs) != 1:
        raise ModelError(
            "outputs {}".format(", ".join(sorted(outputs)) or "none"),
            "a detector gives one tensor, or {}".format(", ".join(CHOSEN)),
        )
    return decode(next(iter(outputs.values())), decoding)


def chosen(outputs: Mapping[str, Array], decoding: Decoding) -> list[Detections]:
    """What NMS in the graph left of each image, best first.

    Raises:
        ModelError: the shapes do not fit each other, or values that are no numbers.
    """
    boxes, scores, classes, count = (outputs[name] for name in CHOSEN)
    rows = scores.shape
    given = [boxes.shape, rows, classes.shape, count.shape]
    if len(rows) != 2 or given != [(*rows, 4), rows, rows, rows[:1]]:
        raise ModelError(
            "{} of shapes {}".format(", ".join(CHOSEN), ", ".join(map(str, given))),
            "a detector's are (N, D, 4), (N, D), (N, D) and (N,)",
        )
    counted = np.arange(rows[1]) < count[:, None]
    if np.isnan(boxes[counted]).any() or np.isnan(scores[counted]).any():
        raise ModelError("a detector's outputs", "some are no numbers (NaN)")
    found = []
    for image, above in enumerate(counted & (scores > decoding.score_threshold)):
        best = np.flatnonzero(above)[: decoding.detections]
        columns = boxes[image, best], scores[image, best], classes[image, best]
        found.append(Detections(*(column.astype(kind) for column, kind in zip(columns, KINDS))))  # noqa: B905
    return found


def decode(outputs: Array, decoding: Decoding) -> list[Detections]:
    """Score threshold, best candidates, box coder, clipping to the picture, NMS within each class.

    Args:
        outputs: (N, A, D): for every anchor its box values, class logits, and where `scores` is centerness its logit.

    Raises:
        ModelError: another shape, or values that are no numbers.
    """
    expected = (len(decoding.anchors), decoding.width)
    if outputs.ndim != 3 or outputs.shape[1:] != expected:
        raise ModelError(f"outputs of shape {outputs.shape}", f"the detector's are (N, {expected[0]}, {expected[1]})")
    if np.isnan(outputs).any():
        raise ModelError("a detector's outputs", "some are no numbers (NaN)")
    return [_decode_one(rows.astype(np.float32, copy=False), decoding) for rows in outputs]


def _decode_one(rows: Array, decoding: Decoding) -> Detections:
    best = (_best_of_classes if decoding.scores == "softmax" else _best_of_levels)(rows, decoding)
    coder = from_deltas if decoding.coder == "deltas" else from_distances
    boxes = coder(rows[best.anchors, :4], decoding.anchors[best.anchors], decoding).clip(0, decoding.image_size)
    kept = nms(boxes, best.scores, best.classes, decoding.nms_threshold, decoding.detections)
    return Detections(boxes[kept], best.scores[kept], best.classes[kept])


def _best_of_levels(rows: Array, decoding: Decoding) -> Candidates:
    """The best of each level, whatever their class."""
    found, start = [], 0
    for count in decoding.levels:
        level = _scored(rows[start : start + count], decoding)
        found.append(_best(level._replace(anchors=level.anchors + start), decoding))
        start += count
    return _joined(found)


def _best_of_classes(rows: Array, decoding: Decoding) -> Candidates:
    """The best of each class, whatever their level."""
    shares = softmax(rows[:, 4:])[:, 1:]
    everywhere = np.arange(len(rows))
    return _joined(
        [
            _best(Candidates(everywhere, np.full(len(rows), label), shares[:, label]), decoding)
            for label in range(decoding.classes)
        ]
    )


def _scored(rows: Array, decoding: Decoding) -> Candidates:
    """All that may be above the threshold: most logits are far below it."""
    centered = decoding.scores == "centerness"
    logits = rows[:, 4 : 4 + decoding.classes]
    anchors, classes = np.nonzero(logits > _logit(decoding.score_threshold ** (2 if centered else 1)) - CLEARLY)
    scores = sigmoid(logits[anchors, classes])
    if centered:
        scores = np.sqrt(scores * sigmoid(rows[anchors, -1]))
    return Candidates(anchors, classes, scores)


def _best(found: Candidates, decoding: Decoding) -> Candidates:
    above = np.flatnonzero(found.scores > decoding.score_threshold)
    order = above[np.argsort(-found.scores[above], kind="stable")[: decoding.candidates]]
    return Candidates(*(column[order] for column in found))


def _joined(parts: list[Candidates]) -> Candidates:
    return Candidates(*(np.concatenate([part[column] for part in parts]) for column in range(3)))


def _logit(share: float) -> float:
    return math.log(share / (1 - share)) if 0 < share < 1 else -math.inf


def sigmoid(values: Array) -> Array:
    with np.errstate(over="ignore"):  # far below 0 the exponential is infinite, and the result 0
        return 1 / (1 + np.exp(-values))


def softmax(values: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def from_deltas(values: Array, anchors: Array, decoding: Decoding) -> Array:
    """(n, 4): the center's way from the anchor's in sizes of it, and the logarithm of the size relative to its."""
    values = values / np.array(decoding.weights, dtype=np.float32)
    sizes = anchors[:, 2:] - anchors[:, :2]
    centers = anchors[:, :2] + 0.5 * sizes + values[:, :2] * sizes
    half = 0.5 * sizes * np.exp(np.minimum(values[:, 2:], LARGEST))
    return np.concatenate([centers - half, centers + half], axis=1)


def from_distances(values: Array, anchors: Array, decoding: Decoding) -> Array:
    """(n, 4): how far left, top, right and bottom are from the anchor's center."""
    centers = 0.5 * (anchors[:, :2] + anchors[:, 2:])
    if decoding.normalize_by_size:
        values = values * np.tile(anchors[:, 2:] - anchors[:, :2], 2)
    return np.concatenate([centers - values[:, :2], centers + values[:, 2:]], axis=1)


def pack(found: list[Detections], rows: int) -> Array:
    """(N, rows, 6) of class, score, x1, y1, x2, y2, best first; class -1 and zeros beyond an image's boxes."""
    packed = np.zeros((len(found), rows, 6), dtype=np.float32)
    packed[..., 0] = -1
    for image, each in zip(packed, found):  # noqa: B905
        columns = np.column_stack([each.classes, each.scores, each.boxes])[:rows]
        image[: len(columns)] = columns
    return packed


def unpack(packed: Array) -> list[Detections]:
    return [
        Detections(rows[:, 2:], rows[:, 1], rows[:, 0].astype(np.int64))
        for rows in (image[image[:, 0] >= 0] for image in packed)
    ]
