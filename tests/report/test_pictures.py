"""Test images with marks on them: which, and where."""

from dataclasses import replace

import numpy as np
import pytest
from boxreport import CELLS, boxed

from kdedge.report.boxes import judge
from kdedge.report.pictures import inset, lost, missing, without_margin, worst

RBC, WBC, _ = range(3)
LEFT, RIGHT = (0, 20, 50, 70), (50, 20, 100, 70)
LABELS = [[(RBC, *LEFT)], [(RBC, *LEFT), (WBC, *RIGHT)], [(RBC, *LEFT), (RBC, *RIGHT)], []]
FOUND = [[(RBC, 0.9, *LEFT)], [(WBC, 0.8, *LEFT)], [(RBC, 0.7, *RIGHT)], []]
ALL = [[(RBC, 0.9, *LEFT)], [(RBC, 0.8, *LEFT), (WBC, 0.8, *RIGHT)], [(RBC, 0.7, *RIGHT)], []]


@pytest.fixture
def asked():
    return boxed(LABELS, {"engine-fp32": ALL, "engine-int8": FOUND})


def judged(asked, who):
    return replace(judge(asked, who, asked.deployed[who]), score=0.5)


def test_missing_are_objects_without_a_right_find(asked):
    found = missing(asked, judged(asked, "engine-int8").shown)
    assert found.tolist() == [[False, False], [True, True], [True, False], [False, False]]


def test_image_with_the_most_errors_is_first_and_one_without_is_left_out(asked):
    first, second = worst(asked, judged(asked, "engine-int8"), [judged(asked, "engine-fp32")])
    assert (first.id, first.title) == (10, "2 missed, 1 false")
    assert [(each.who, each.said, each.right) for each in first.opinions] == [
        ("missed", "RBC, WBC", False),
        ("false", "WBC (wrong class)", False),
        ("engine-fp32", "2 of 2 found, 0 false", True),
    ]
    assert (second.id, second.title) == (20, "1 missed, 0 false")
    assert [(each.who, each.said) for each in second.opinions] == [
        ("missed", "RBC"),
        ("engine-fp32", "1 of 2 found, 0 false"),
    ]


def test_marks_are_what_is_missed_false_and_right(asked):
    first, second = worst(asked, judged(asked, "engine-int8"), [])
    assert [(mark.kind, mark.text) for mark in first.marks] == [
        ("missed", "missed: RBC"),
        ("missed", "missed: WBC"),
        ("false", "WBC 0.80, wrong class"),
    ]
    assert [(mark.kind, mark.text) for mark in second.marks] == [("missed", "missed: RBC"), ("right", "RBC 0.70")]


def test_lost_are_images_whose_objects_the_higher_precision_finds(asked):
    (only,) = lost(asked, judged(asked, "engine-int8"), judged(asked, "engine-fp32"))
    assert only.id == 10


def test_precisions_are_held_against_each_other_at_one_score(asked):
    lower, higher = judged(asked, "engine-int8"), judged(asked, "engine-fp32")
    assert lost(asked, lower, replace(higher, score=0.99))
    assert lost(asked, replace(lower, score=0.85), higher) == []  # neither finds them there


def test_equal_misses_are_told_once_with_their_number():
    asked = boxed([[(WBC, *LEFT), (WBC, *RIGHT)]], {"torch": [[]]})
    (only,) = worst(asked, judged(asked, "torch"), [])
    assert only.opinions[0].said == "2 WBC"


def test_inset_is_the_way_from_each_side_in_percent():
    assert inset((10, 20, 60, 80), (100, 200, 3)) == "20.00% 70.00% 20.00% 5.00%"
    assert inset((-5, 0, 300, 50), (100, 200)) == "0.00% 0.00% 50.00% 0.00%"


@pytest.mark.parametrize(("box", "size"), [((0, 0, 1, 1), (30, 40)), ((0, 0, 39.5, 35.2), (36, 40))])
def test_margin_is_cut_off_unless_a_box_reaches_into_it(box, size):
    image = np.full((40, 40, 3), 114, np.uint8)
    image[:30, :] = np.arange(40, dtype=np.uint8)[:, None]
    assert without_margin(image, np.array([box])).shape[:2] == size


def test_image_of_one_color_keeps_its_boxes():
    assert without_margin(np.full((40, 40), 114, np.uint8), np.array([(0, 0, 20, 10)])).shape == (10, 20)


def test_picture_is_as_wide_and_high_as_what_is_shown_of_it():
    asked = boxed([[(RBC, 0, 0, 100, 50)]], {"torch": [[]]}, CELLS)
    (only,) = worst(asked, judged(asked, "torch"), [])
    assert only.ratio == 2  # black, so that the boxes alone say how much is shown
    assert only.thumbnail.address.startswith("data:image/jpeg;base64,")
