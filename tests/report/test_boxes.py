"""A detector's finds judged: worked out by hand, and beside COCO's own library."""

from dataclasses import replace

import numpy as np
import pytest
from boxreport import boxed, made_up_boxes

from kdedge.core.quality import uncounted
from kdedge.engine.boxes import unpack
from kdedge.pipeline.boxes import box_quality
from kdedge.report.boxes import (
    BACKGROUND,
    MISPLACED,
    RIGHT,
    TWICE,
    WRONG_CLASS,
    average,
    best_score,
    class_rows,
    confused_rows,
    curve,
    iou,
    judge,
    summary,
)

CAT, DOG = 0, 1
NAMES = ["cat", "dog"]
SQUARE = (0, 0, 10, 10)
FAR = (50, 50, 60, 60)
WIDE = (0, 0, 16, 10)
"""IoU of 100 / 160 with SQUARE."""
OFF = (5, 0, 15, 10)
"""IoU of 50 / 150 with SQUARE."""


def judged(labels, found, names=NAMES):
    asked = boxed(labels, {"engine-fp32": found}, names)
    return asked, judge(asked, "engine-fp32", asked.deployed["engine-fp32"])


def kinds_of(labels, found):
    """Of one image, best first."""
    return judged([labels], [found])[1].finds.kinds.tolist()


def test_iou_is_the_shared_part_of_the_area_that_either_covers():
    ones = np.array([SQUARE, (0, 0, 0, 0)], float)
    found = iou(ones, np.array([SQUARE, WIDE, OFF, FAR, (0, 0, 0, 0)], float))
    assert found.tolist() == [[1, 100 / 160, 50 / 150, 0, 0], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("find", "kind"),
    [
        ((CAT, 0.9, *WIDE), RIGHT),
        ((DOG, 0.9, *WIDE), WRONG_CLASS),
        ((CAT, 0.9, *OFF), MISPLACED),
        ((DOG, 0.9, *OFF), BACKGROUND),
        ((CAT, 0.9, *FAR), BACKGROUND),
    ],
)
def test_find_is_of_a_kind_by_class_and_place(find, kind):
    assert kinds_of([(CAT, *SQUARE)], [find]) == [kind]


def test_second_find_of_an_object_is_false_however_well_it_fits():
    assert kinds_of([(CAT, *SQUARE)], [(CAT, 0.8, *SQUARE), (CAT, 0.9, *WIDE)]) == [RIGHT, TWICE]


def test_find_in_an_area_that_does_not_count_is_left_out_unless_it_is_right():
    crowd = (uncounted(CAT), 0, 0, 30, 30)
    half, less = (CAT, 0.8, 20, 25, 30, 35), (CAT, 0.7, 20, 26, 30, 36)
    assert kinds_of([(CAT, *SQUARE), crowd], [(CAT, 0.9, *SQUARE), half]) == [RIGHT]
    assert kinds_of([(CAT, *SQUARE), crowd], [(CAT, 0.9, *OFF), less]) == [BACKGROUND]
    assert kinds_of([(CAT, *SQUARE), crowd], [(DOG, 0.9, *SQUARE)]) == [WRONG_CLASS]


def test_best_find_takes_the_object_that_it_fits_best_and_leaves_the_other():
    objects = [(CAT, *WIDE), (CAT, *SQUARE)]
    _, found = judged([objects], [[(CAT, 0.9, *SQUARE), (CAT, 0.8, *SQUARE)]])
    assert found.finds.objects.tolist() == [1, 0]
    assert found.finds.kinds.tolist() == [RIGHT, RIGHT]


def test_image_without_objects_or_finds_counts_for_what_it_has():
    asked, found = judged([[(CAT, *SQUARE)], []], [[], [(CAT, 0.5, *SQUARE)]])
    assert found.totals.tolist() == [1, 0]
    assert (found.finds.images.tolist(), found.finds.kinds.tolist()) == ([1], [BACKGROUND])
    assert class_rows(found, asked.names)[0] == ["all", "1", "0.00 %", "0", "1", "0", "0", "0", "1"]


def test_hundred_finds_of_a_class_count_in_an_image():
    false = [(CAT, 0.9, *FAR)] * 100
    _, found = judged([[(CAT, *SQUARE), (DOG, *FAR)]], [[*false, (CAT, 0.8, *SQUARE), (DOG, 0.1, *FAR)]])
    assert len(found.finds.scores) == 101
    assert (found.finds.kinds == RIGHT).sum() == 1


def test_curve_is_the_best_precision_at_a_recall_or_beyond():
    # right, false, right, of 4 objects: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 2/4, and nothing beyond
    found = curve(np.array([True, False, True]), 4)
    assert found[:26].tolist() == [1.0] * 26
    assert found[26:51] == pytest.approx([2 / 3] * 25)
    assert found[51:].tolist() == [0.0] * 50
    assert curve(np.zeros(0, bool), 4).tolist() == [0.0] * 101


def test_average_is_of_the_classes_that_have_objects():
    names = [*NAMES, "cow"]
    _, found = judged([[(CAT, *SQUARE), (DOG, *FAR)]], [[(CAT, 0.9, *SQUARE), (2, 0.8, *FAR)]], names)
    assert average(found).tolist() == [0.5] * 101
    assert found.curves[2] is None


@pytest.mark.oracle
@pytest.mark.parametrize("hop", ["engine-fp32", "engine-int8"])
def test_precision_is_that_of_cocos_library(hop):
    asked = made_up_boxes(images=12)
    theirs = box_quality(unpack(asked.deployed[hop]), asked.labels, asked.names)
    assert average(judge(asked, hop, asked.deployed[hop])).mean() == pytest.approx(theirs.ap50, abs=1e-9)


def test_score_is_where_f1_is_best():
    # of 2 objects: after each find F1 is 2/3, 2/4, 4/5, 4/6
    finds = [(CAT, 0.9, *SQUARE), (CAT, 0.8, *OFF), (CAT, 0.7, *FAR), (CAT, 0.6, *OFF)]
    _, found = judged([[(CAT, *SQUARE), (CAT, *FAR)]], [finds])
    assert found.score == pytest.approx(0.7)
    assert found.shown.kinds.tolist() == [RIGHT, MISPLACED, RIGHT]


def test_finds_of_one_score_are_taken_together():
    _, found = judged([[(CAT, *SQUARE)]], [[(CAT, 0.5, *SQUARE), (CAT, 0.5, *FAR)]])
    assert len(found.shown.scores) == 2
    assert best_score(found.finds.above(2.0), 1) == 1.0


def test_rows_count_what_is_found_and_what_is_false_of_each_class():
    labels = [[(CAT, *SQUARE), (CAT, *FAR), (DOG, *FAR)]]
    finds = [(CAT, 0.9, *SQUARE), (CAT, 0.8, *FAR), (CAT, 0.7, *OFF), (CAT, 0.6, 20, 20, 30, 30), (DOG, 0.6, *SQUARE)]
    asked, found = judged(labels, [finds])
    everything = replace(found, score=0.0)
    assert class_rows(everything, asked.names) == [
        ["all", "3", "50.00 %", "2", "1", "0", "1", "1", "1"],
        ["dog", "1", "0.00 %", "0", "1", "0", "1", "0", "0"],
        ["cat", "2", "100.00 %", "2", "0", "0", "0", "1", "1"],
    ]
    assert confused_rows(everything, asked) == [["cat", "dog", "1"]]


def test_summary_says_how_it_was_counted():
    asked, found = judged([[(CAT, *SQUARE)], []], [[(CAT, 0.5, *SQUARE)], []])
    assert summary(found, asked) == (
        "engine-fp32 on 2 test images with 1 objects. Counted are finds with a score of at least 0.50, where their F1 "
        "is best; right at an IoU of at least 0.5."
    )
