"""Whether a detector's hop still finds the boxes that the one before it found.

What is compared are the boxes that either hop is sure of; the other must have each, however sure it is of it, so that
a box next to a threshold is none too few.  Which of two boxes that overlap NMS keeps is decided by rounding where
their scores are almost equal, or their overlap almost the threshold: that much may differ in any sound hop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdedge.core.deployment import Tolerance
from kdedge.core.quality import BoxAgreement, BoxQuality
from kdedge.core.report import Hop
from kdedge.engine.boxes import Detections, unpack
from kdedge.export.parity import ROUNDING, Logits, Predictions, check_same, fallen

SURE = 0.3
"""Score of a box that a hop is sure of; less where fewer boxes than there are objects have it."""
SAME_IOU = 0.5
"""Of boxes that are the same one."""
LEAST_SIDE = 1.0
"""Pixels; the IoU of thinner boxes is all rounding, and they are not compared."""
TIES, PER_TIE = 2, 50
"""Boxes that may differ in any hop since NMS decides ties, at most, and one for this many."""

Floats = NDArray[np.float64]


class Matched(NamedTuple):
    """Boxes that one hop is sure of, (n,) each."""

    iou: Floats
    """With the nearest box that the other hop has of that class, 0 without one."""
    score_error: Floats
    """Difference of the two's scores."""


def compare_boxes(
    name: str,
    candidate: Predictions,
    reference: Predictions | None,
    labels: NDArray[Any],
    tolerance: Tolerance,
    quality: Callable[[Logits], BoxQuality],
    *,
    reference_name: str | None = None,
) -> Hop:
    """As `compare`, of predictions that are packed boxes.

    Images whose outputs are not finite have no boxes.

    Args:
        labels: (N, M, 5) of the same images, in the same order.
        quality: of such boxes against these labels.

    Raises:
        ModelError: the two hops, or the labels, are not of the same images.
    """
    check_same(name, candidate, reference, labels)
    hop = Hop(name=name, reference=reference_name, quality=quality(candidate.outputs))
    if broken := int((~np.isfinite(candidate.outputs).all(axis=(1, 2))).sum()):
        hop.problems.append(f"{broken} of {len(labels)} images have outputs that are not finite")
    if reference is None:
        return hop
    before = quality(reference.outputs)
    score = sure_score(reference.outputs, before.objects)
    found = matched(candidate.outputs, reference.outputs, score)
    there = found.iou >= SAME_IOU
    hop.boxes = BoxAgreement(score=score, boxes=len(there))
    if len(there):
        hop.agreement = float(there.mean())
    if there.any():
        hop.boxes.least_iou = float(found.iou[there].min())
        hop.boxes.score_error = float(found.score_error[there].max())
    check(hop, found, tolerance)
    hop.problems += fallen(hop, before.accuracy - hop.quality.accuracy, tolerance)
    return hop


def sure_score(packed: Logits, objects: int) -> float:
    """What a hop is sure from: low enough that there are as many such boxes as there are objects, if there are."""
    scores = np.sort(np.concatenate([found.scores[is_wide(found)] for found in unpack(packed)]))[::-1]
    return min(SURE, int(100 * scores[:objects][-1]) / 100) if len(scores) else SURE


def is_wide(found: Detections) -> NDArray[np.bool_]:
    """(n,): whether they are wide and high enough to be compared."""
    return np.asarray((found.boxes[:, 2:] - found.boxes[:, :2]).min(axis=1, initial=np.inf) >= LEAST_SIDE)


def matched(one: Logits, other: Logits, score: float) -> Matched:
    """The sure boxes of both, each with the nearest box that the other has."""
    pairs = list(zip(unpack(one), unpack(other), strict=True))
    parts = [nearest(*pair, score) for a, b in pairs for pair in ((a, b), (b, a))]
    return Matched(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def nearest(mine: Detections, others: Detections, score: float) -> Matched:
    """Of one image's sure boxes of `mine`."""
    sure = np.flatnonzero((mine.scores >= score) & is_wide(mine))
    if not len(sure) or not len(others.scores):
        return Matched(np.zeros(len(sure)), np.zeros(len(sure)))
    same = mine.classes[sure, None] == others.classes
    ious = np.where(same, overlaps(mine.boxes[sure], others.boxes), 0)
    best = ious.argmax(axis=1)
    return Matched(ious[np.arange(len(sure)), best], np.abs(mine.scores[sure] - others.scores[best]).astype(np.float64))


def overlaps(ones: NDArray[np.float32], others: NDArray[np.float32]) -> Floats:
    """IoU of (n, 4), of which none is without area, with (m, 4): (n, m)."""
    one, other = ones[:, None].astype(np.float64), others[None].astype(np.float64)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = sides.clip(0).prod(axis=2)
    areas = [(box[..., 2:] - box[..., :2]).clip(0).prod(axis=2) for box in (one, other)]
    return np.asarray(shared / (areas[0] + areas[1] - shared))


def check(hop: Hop, found: Matched, tolerance: Tolerance) -> None:
    """Note what passes a limit: a problem where it is more boxes than may."""
    boxes, there = len(found.iou), found.iou >= SAME_IOU
    share = 1.0 if tolerance.agreement is None else tolerance.agreement
    may = max(min(TIES, boxes // PER_TIE), int(boxes * (1 - share) + ROUNDING))
    if tolerance.agreement is not None and (~there).sum() > may:
        hop.problems.append(f"{100 * there.mean():.4g} % of {boxes} boxes are found again, limit {100 * share:g} %")
    off = {}
    if tolerance.least_iou is not None:
        off[f"an IoU below {tolerance.least_iou:g}"] = found.iou < tolerance.least_iou
    if tolerance.score_error is not None:
        off[f"scores more than {tolerance.score_error:g} apart"] = found.score_error > tolerance.score_error
    for what, passes in off.items():
        if count := int((there & passes).sum()):
            sentence = f"{count} of {boxes} boxes are found again with {what}"
            if count > may:
                hop.problems.append(f"{sentence}, {may} may")
            else:
                hop.notes.append(f"{sentence}, as NMS decides ties by rounding")
