"""The quality of a detector's boxes: COCO's average precision, by the library that everyone's numbers come from"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.core.errors import DataError, require
from kdedge.core.quality import NO_BOX, BoxQuality, uncounted
from kdedge.engine.boxes import Detections

SIZES = ("small", "medium", "large")
"""COCO's ranges of area, in the library's order."""


def box_quality(
    detections: Sequence[Detections],
    targets: NDArray[np.float32],
    labels: Sequence[str],
    scales: Sequence[float] | NDArray[np.float64] | None = None,
) -> BoxQuality:
    """Of each class and picture the 100 best detections count.

    Args:
        targets: (N, M, 5) rows of class, x1, y1, x2, y2, as data/boxes.py has them.  A find that lies in an area where
            its class does not count is neither right nor wrong, as in a crowd of COCO's.
        scales: by what each picture was scaled to what its boxes are in.  With them small, medium and large are in the
            pictures' own pixels; the precisions are the same.

    Raises:
        DataError: no picture has an object.
        MissingTool: the library is not installed.
    """
    present = targets[..., 0] >= 0
    if not present.any():
        raise DataError("no picture has an object", "average precision needs at least one")
    factors = np.ones(len(targets)) if scales is None else 1 / np.asarray(scales)
    truth = [rows[rows[:, 0] != NO_BOX] for rows in targets]
    precision = precisions(
        list(annotations((rows[:, 1:] for rows in truth), (rows[:, 0] for rows in truth), factors)),
        list(scored(detections, factors)),
        len(targets),
        len(labels),
    )
    everything, *by_size = (precision[..., area] for area in range(1 + len(SIZES)))
    per_class = [mean(everything[:, :, number]) for number in range(len(labels))]
    return BoxQuality(
        images=len(targets),
        objects=int(present.sum()),
        mean_ap=mean(everything) or 0.0,
        ap50=mean(everything[0]) or 0.0,
        ap75=mean(everything[5]) or 0.0,
        **dict(zip(SIZES, map(mean, by_size), strict=True)),
        sizes_in="input" if scales is None else "picture",
        per_class=[value or 0.0 for value in per_class],
        empty=[number for number, value in enumerate(per_class) if value is None],
    )


def mean(precision: NDArray[np.float64]) -> float | None:
    """Of what is defined: -1 marks what has no object."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None


def precisions(truth: list[Any], found: list[Any], images: int, classes: int) -> NDArray[np.float64]:
    """(10 IoU thresholds, 101 recalls, classes, 4 ranges of area), -1 where there is no object."""
    coco = require("faster_coco_eval", "train", "average precision")
    whole = coco.COCO(
        {
            "images": [{"id": number} for number in range(images)],
            "categories": [{"id": number} for number in range(classes)],
            "annotations": truth,
        }
    )
    evaluation = coco.COCOeval_faster(whole, whole.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[..., -1]


def annotations(boxes: Any, classes: Any, factors: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    """COCO's form of every picture's boxes, numbered from 1; areas that do not count are crowds."""
    number = 0
    for image, (sides, kinds, factor) in enumerate(zip(boxes, classes, factors, strict=True)):
        for (x1, y1, x2, y2), kind in zip((sides * factor).tolist(), kinds.tolist(), strict=True):
            number += 1
            box = [x1, y1, x2 - x1, y2 - y1]
            crowd, area = kind < NO_BOX, box[2] * box[3]
            label = int(uncounted(kind) if crowd else kind)
            entry = {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area}
            yield {**entry, "iscrowd": int(crowd)}


def scored(detections: Sequence[Detections], factors: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    scores = (score for each in detections for score in each.scores.tolist())
    boxes = annotations((each.boxes for each in detections), (each.classes for each in detections), factors)
    return ({**box, "score": score} for box, score in zip(boxes, scores, strict=True))
