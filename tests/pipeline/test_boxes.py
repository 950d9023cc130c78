"""Average precision on sets so small that it is worked out by hand."""

import json

import numpy as np
import pytest

from kdedge.core.errors import DataError
from kdedge.core.quality import BoxQuality, uncounted
from kdedge.engine.boxes import Detections
from kdedge.pipeline.boxes import box_quality

OBJECT = [0, 10, 10, 20, 20]
"""Of class 0, with 10 x 10 pixels."""
NOTHING = [-1, 0, 0, 0, 0]


def found(*rows):
    """Each x1, y1, x2, y2, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def quality(detections, *targets, labels=("cell",), scales=None) -> BoxQuality:
    most = max(1, *map(len, targets))
    padded = [[*rows, *[NOTHING] * (most - len(rows))] for rows in targets]
    return box_quality(detections, np.array(padded, np.float32), labels, scales)


HIT = (10, 10, 20, 20, 0.9, 0)


def test_one_hit_of_one_object_is_perfect():
    got = quality([found(HIT)], [OBJECT])
    assert (got.mean_ap, got.ap50, got.ap75, got.per_class) == (1, 1, 1, [1])
    assert (got.images, got.objects, got.empty) == (1, 1, [])


def test_false_alarm_below_the_hit_costs_nothing():
    assert quality([found(HIT, (40, 40, 50, 50, 0.5, 0))], [OBJECT]).mean_ap == 1


def test_false_alarm_above_the_hit_halves_the_precision():
    assert quality([found(HIT, (40, 40, 50, 50, 0.95, 0))], [OBJECT]).mean_ap == 0.5


def test_find_in_an_area_that_does_not_count_is_neither_right_nor_wrong():
    """Six tenths of the find are in the crowd: it is out at the IoUs up to 0.60, and halves the precision beyond."""
    crowd = [uncounted(0), 40, 40, 80, 80]
    beside, inside = (40, 34, 50, 49, 0.95, 0), (50, 50, 60, 60, 0.95, 0)
    assert quality([found(inside, HIT)], [OBJECT]).mean_ap == 0.5
    got = quality([found(inside, HIT)], [OBJECT, crowd])
    assert (got.mean_ap, got.objects) == (1, 1)
    assert quality([found(beside, HIT)], [OBJECT, crowd]).mean_ap == pytest.approx(0.3 * 1 + 0.7 * 0.5)
    other = (*inside[:5], 1)
    assert quality([found(other, HIT)], [OBJECT, [1, 0, 0, 5, 5], crowd], labels=("cell", "disc")).ap50 == 0.5
    assert quality([found(HIT, inside), found()], [crowd], [OBJECT]).mean_ap == 0


def test_second_detection_of_an_object_is_a_false_alarm():
    # the lesser one is tried last and finds the object taken; the second object is then found by one of three
    other = [0, 40, 40, 50, 50]
    got = quality([found(HIT, (10, 10, 20, 20, 0.8, 0), (40, 40, 50, 50, 0.7, 0))], [OBJECT, other])
    # recall 0 to 0.5 at precision 1 (51 of COCO's 101 steps), 0.51 to 1 at 2/3 (50 steps)
    assert got.mean_ap == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_missed_object_ends_the_curve_at_half_the_recall():
    assert quality([found(HIT)], [OBJECT, [0, 40, 40, 50, 50]]).mean_ap == pytest.approx(51 / 101)


def test_overlap_of_six_tenths_counts_at_three_of_ten_thresholds():
    got = quality([found((10, 10, 20, 16, 0.9, 0))], [OBJECT])  # 60 of 100 pixels: 0.50, 0.55 and 0.60
    assert (got.mean_ap, got.ap50, got.ap75) == (pytest.approx(0.3), 1, 0)


def test_box_of_another_class_is_no_hit_and_the_mean_is_over_classes():
    targets = [OBJECT, [1, 40, 40, 50, 50]]
    got = quality([found(HIT, (40, 40, 50, 50, 0.8, 0))], targets, labels=("red", "white"))
    assert got.per_class == [1, 0]
    assert got.mean_ap == 0.5


def test_class_without_objects_is_named_and_in_no_mean():
    got = quality([found(HIT, (1, 1, 5, 5, 0.9, 1))], [OBJECT], labels=("red", "white", "plate"))
    assert got.per_class == [1, 0, 0]
    assert got.empty == [1, 2]
    assert got.mean_ap == 1


def test_picture_without_objects_can_only_add_false_alarms():
    assert quality([found(HIT), found()], [OBJECT], []).mean_ap == 1
    got = quality([found(HIT), found((1, 1, 5, 5, 0.95, 0))], [OBJECT], [])
    assert (got.mean_ap, got.images, got.objects) == (0.5, 2, 1)


def test_hit_on_another_picture_is_none():
    assert quality([found(), found(HIT)], [OBJECT], []).mean_ap == 0


def test_no_detection_at_all_gives_zero():
    got = quality([found()], [OBJECT])
    assert (got.mean_ap, got.ap50, got.per_class, got.empty) == (0, 0, [0], [])


def test_no_object_at_all_is_an_error():
    with pytest.raises(DataError, match="no picture has an object"):
        quality([found(HIT)], [])


SIDES = [[0, 0, 0, 20, 20], [0, 100, 100, 150, 150], [0, 200, 200, 300, 300]]


def test_sizes_are_of_the_input_unless_scales_are_given():
    got = quality([found((0, 0, 20, 20, 0.9, 0), (200, 200, 300, 300, 0.8, 0))], SIDES)
    assert (got.small, got.medium, got.large) == (1, 0, 1)
    assert got.sizes_in == "input"


def test_sizes_are_of_the_picture_where_scales_are_given():
    # shown at half its size: sides of 40, 100 and 200 in the picture, so that one is medium, two are large, none small
    got = quality([found((0, 0, 20, 20, 0.9, 0))], SIDES, scales=[0.5])
    assert (got.small, got.medium, got.large) == (None, 1, 0)
    assert got.sizes_in == "picture"


def test_scales_belong_to_their_pictures():
    got = quality([found(HIT), found()], [OBJECT], [OBJECT], scales=[0.1, 1])
    assert (got.small, got.medium, got.large) == (0, None, 1)


def test_only_the_hundred_best_of_a_class_and_picture_count():
    alarms = [(40, 40, 50, 50, 0.95, 0)] * 100
    assert quality([found(*alarms, HIT)], [OBJECT]).mean_ap == 0
    assert quality([found(*alarms[1:], HIT)], [OBJECT]).mean_ap == pytest.approx(0.01)


def test_measuring_prints_nothing(capfd):
    quality([found(HIT)], [OBJECT])
    assert capfd.readouterr() == ("", "")


def test_record_is_plain_json():
    got = quality([found(HIT)], [OBJECT])
    assert BoxQuality.model_validate(json.loads(got.model_dump_json())) == got
