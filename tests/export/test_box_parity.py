"""Two hops' boxes compared, on boxes whose overlaps are worked out by hand."""

from functools import partial

import numpy as np
import pytest

from kdedge.core.deployment import Tolerance
from kdedge.core.errors import ModelError
from kdedge.core.quality import BoxQuality
from kdedge.core.report import Hop
from kdedge.engine.boxes import Detections, pack
from kdedge.export.box_parity import compare_boxes, overlaps, sure_score
from kdedge.export.parity import Predictions
from kdedge.pipeline.boxes import box_quality

SQUARE, LOWER, FAR = (10, 10, 20, 20), (10, 15, 20, 25), (60, 60, 80, 80)
"""The second overlaps the first by 50 of 150 pixels."""
FP32 = Tolerance(agreement=0.999, least_iou=0.99, score_error=1e-3)


def predictions(*images):
    """Each image's boxes as (class, score, corners)."""
    found = [
        Detections(
            np.array([box for _, _, box in image], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in image], np.float32),
            np.array([number for number, _, _ in image], np.int64),
        )
        for image in images
    ]
    return Predictions(np.arange(len(images)), pack(found, 8))


def compared(candidate, reference, tolerance=FP32, boxes=1) -> Hop:
    """With `boxes` objects of class 0 in every image, all where SQUARE is."""
    labels = np.array([[[0, *SQUARE]] * boxes] * len(candidate.ids), np.float32)
    quality = partial(box_quality, targets=labels, labels=("cell", "plate"))
    return compare_boxes("fp16", candidate, reference, labels, tolerance, lambda rows: quality(unpacked(rows)))


def unpacked(rows):
    return [Detections(image[:, 2:], image[:, 1], image[:, 0]) for image in (r[r[:, 0] >= 0] for r in rows)]


def test_first_hop_has_quality_alone():
    hop = compared(predictions([(0, 0.9, SQUARE)]), None)
    assert isinstance(hop.quality, BoxQuality)
    assert (hop.quality.mean_ap, hop.agreement, hop.boxes, hop.correctness, hop.problems) == (1, None, None, None, [])


def test_overlap_is_shared_pixels_over_all_pixels():
    ones = np.array([SQUARE, FAR], np.float32)
    others = np.array([SQUARE, LOWER, (10, 10, 20, 15), (0, 0, 5, 5)], np.float32)
    np.testing.assert_allclose(overlaps(ones, others), [[1, 1 / 3, 0.5, 0], [0, 0, 0, 0]])


def test_boxes_next_to_nothing_are_not_compared():
    line, thin, wide = (0, 0.9, (5, 5, 5, 9)), (0, 0.8, (5, 5, 5.9, 9)), (0, 0.7, (5, 5, 6.1, 9))
    reference = predictions([line, thin, wide])
    assert compared(predictions([wide]), reference, boxes=9).boxes.boxes == 2
    assert sure_score(reference.outputs, 1) == 0.3
    assert sure_score(predictions([line]).outputs, 1) == 0.3
    hop = compared(predictions([(0, 0.7, (5, 5, 5.99, 9))]), predictions([(0, 0.7, (5, 5, 6.01, 9))]))
    assert (hop.agreement, hop.boxes.boxes) == (1, 1)


def test_boxes_of_both_are_looked_for_in_the_other():
    """Of three in one hop and two in the other, two pairs: 4 of 5."""
    reference = predictions([(0, 0.9, SQUARE), (1, 0.8, FAR), (0, 0.7, FAR)])
    candidate = predictions([(0, 0.85, SQUARE), (1, 0.8, FAR)])
    hop = compared(candidate, reference)
    assert (hop.agreement, hop.boxes.boxes) == (0.8, 5)
    assert hop.boxes.least_iou == 1
    assert hop.boxes.score_error == pytest.approx(0.05)
    assert hop.problems == [
        "80 % of 5 boxes are found again, limit 99.9 %",
        "2 of 5 boxes are found again with scores more than 0.001 apart, 0 may",
    ]


def test_box_of_another_class_is_another_box():
    hop = compared(predictions([(1, 0.9, SQUARE)]), predictions([(0, 0.9, SQUARE)]))
    assert (hop.agreement, hop.boxes.boxes, hop.boxes.least_iou, hop.boxes.score_error) == (0, 2, None, None)


def test_box_that_moved_is_the_same_from_half_its_overlap():
    """By 1 of 10 pixels 90 of 110 are shared, by 4 60 of 140."""
    reference = predictions([(0, 0.9, SQUARE)])
    hop = compared(predictions([(0, 0.9, (11, 10, 21, 20))]), reference)
    assert (hop.agreement, hop.boxes.least_iou) == (1, pytest.approx(9 / 11))
    assert hop.problems == ["2 of 2 boxes are found again with an IoU below 0.99, 0 may"]
    assert compared(predictions([(0, 0.9, (14, 10, 24, 20))]), reference).agreement == 0


def test_box_next_to_the_threshold_is_found_again():
    hop = compared(predictions([(0, 0.2996, SQUARE)]), predictions([(0, 0.3004, SQUARE)]))
    assert (hop.agreement, hop.boxes.boxes, hop.boxes.score, hop.problems) == (1, 1, 0.3, [])


def test_boxes_that_no_hop_is_sure_of_are_not_compared():
    reference = predictions([(0, 0.9, SQUARE), (0, 0.29, FAR)])
    assert compared(predictions([(0, 0.9, SQUARE)]), reference).boxes.boxes == 2


def test_as_many_boxes_are_compared_as_there_are_objects():
    """A hop that is sure of nothing is held to its best boxes."""
    reference = predictions([(0, 0.2, SQUARE), (0, 0.1, FAR)])
    assert sure_score(reference.outputs, 1) == 0.2
    assert sure_score(reference.outputs, 2) == sure_score(reference.outputs, 9) == 0.1
    candidate = predictions([(0, 0.2, SQUARE)])
    assert compared(candidate, reference, boxes=1).agreement == 1
    assert compared(candidate, reference, boxes=2).agreement == pytest.approx(2 / 3)


def test_hops_without_boxes_have_nothing_to_agree_on():
    hop = compared(predictions([]), predictions([]))
    assert (hop.agreement, hop.boxes.boxes, hop.quality.mean_ap, hop.problems) == (None, 0, 0, [])


def test_hop_that_lost_all_its_boxes_does_not_agree():
    hop = compared(predictions([]), predictions([(0, 0.9, SQUARE)]), Tolerance(agreement=0.99, accuracy_drop=0.01))
    assert hop.agreement == 0
    assert hop.problems == ["0 % of 1 boxes are found again, limit 99 %", "mAP fell by 100 points, limit 1"]


def many(count, *changes):
    """An image for each box; the last ones are changed."""
    return predictions(*[[(0, 0.9, SQUARE)]] * (count - len(changes)), *changes)


def test_boxes_that_nms_chose_otherwise_are_noted_and_no_problem():
    """Of 100 boxes, 50 in either hop, one pair of almost equal scores: the one hop keeps one, the other the other."""
    hop = compared(many(50, [(0, 0.9001, (12, 10, 22, 20))]), many(50))
    assert (hop.agreement, hop.problems) == (1, [])
    assert hop.boxes.least_iou == pytest.approx(8 / 12)
    assert hop.notes == ["2 of 100 boxes are found again with an IoU below 0.99, as NMS decides ties by rounding"]


def test_more_boxes_than_ties_explain_are_a_problem():
    moved = [(0, 0.9, (12, 10, 22, 20))]
    hop = compared(many(51, moved, moved), many(51))
    assert hop.problems == ["4 of 102 boxes are found again with an IoU below 0.99, 2 may"]
    assert hop.notes == []


def test_share_of_boxes_that_may_differ_is_that_of_the_agreement():
    moved = [(0, 0.9, (12, 10, 22, 20))]
    limits = Tolerance(agreement=0.9, least_iou=0.99)
    assert compared(many(20, moved, moved), many(20), limits).problems == []
    assert len(compared(many(20, moved, moved, moved), many(20), limits).problems) == 1


def test_image_without_finite_outputs_is_told_and_has_no_boxes():
    reference = predictions([(0, 0.9, SQUARE)], [(0, 0.8, SQUARE)])
    broken = Predictions(reference.ids, reference.outputs.copy())
    broken.outputs[1] = np.nan
    broken.outputs[1, :, 0] = -1
    hop = compared(broken, reference, Tolerance(agreement=0.5))
    assert (hop.agreement, hop.boxes.boxes) == (pytest.approx(2 / 3), 3)
    assert hop.problems == ["1 of 2 images have outputs that are not finite"]


def test_hops_of_different_images_are_refused():
    one, other = predictions([(0, 0.9, SQUARE)]), predictions([(0, 0.9, SQUARE)])
    with pytest.raises(ModelError, match="different images: the ids differ"):
        compared(one, Predictions(other.ids + 1, other.outputs))


def test_record_survives_json():
    hop = compared(predictions([(0, 0.9, SQUARE)]), predictions([(0, 0.9, SQUARE)]))
    assert Hop.model_validate_json(hop.model_dump_json()) == hop
