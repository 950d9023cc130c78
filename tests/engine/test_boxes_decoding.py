"""The dict that says how to decode: read from JSON, made anchors, and refused where it is damaged."""

import json
from typing import Any

import pytest

from kdedge.core.errors import ModelError
from kdedge.engine.boxes_decoding import read_decoding

LEVELS = [
    {"grid": [2, 1], "stride": [8, 6], "offset": [0.5, 0], "cells": [[-3, -2, 3, 2], [-1, -1, 1, 1]]},
    {"grid": [1, 1], "stride": [16, 16], "offset": [0.5, 0.5], "cells": [[-10, -4, 10, 4]]},
]
WHOLE: dict[str, Any] = {
    "classes": 3,
    "image_size": 16,
    "coder": "deltas",
    "weights": [10, 10, 5, 5],
    "normalize_by_size": False,
    "scores": "softmax",
    "levels": LEVELS,
    "clip": False,
    "score_threshold": 0.05,
    "nms_threshold": 0.5,
    "candidates": 100,
    "detections": 50,
}


def test_anchors_run_by_level_row_column_and_cell():
    decoding = read_decoding("m.onnx", WHOLE)
    assert decoding.anchors.tolist() == [
        [-3, 2, 3, 6],  # row 0 lies at y = 0.5 * 8, column 0 at x = 0
        [-1, 3, 1, 5],
        [-3, 10, 3, 14],
        [-1, 11, 1, 13],
        [-2, 4, 18, 12],
    ]
    assert decoding.levels == (4, 1)


def test_anchors_run_by_columns_within_a_row():
    level = {"grid": [2, 2], "stride": [8, 4], "offset": [0, 0], "cells": [[0, 0, 1, 1]]}
    anchors = read_decoding("m.onnx", {**WHOLE, "levels": [level]}).anchors
    assert anchors[:, :2].tolist() == [[0, 0], [4, 0], [0, 8], [4, 8]]


def test_anchors_end_at_the_border_where_so_asked():
    decoding = read_decoding("m.onnx", WHOLE | {"clip": True})
    assert decoding.anchors[[0, 4]].tolist() == [[0, 2, 3, 6], [0, 4, 16, 12]]


@pytest.mark.parametrize(("scores", "width"), [("sigmoid", 7), ("softmax", 8), ("centerness", 8)])
def test_width_counts_the_box_the_classes_and_what_else_there_is(scores, width):
    assert read_decoding("m.onnx", WHOLE | {"scores": scores}).width == width


def test_read_decoding_takes_json():
    assert read_decoding("m.onnx", json.dumps(WHOLE)).weights == (10, 10, 5, 5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": 0}, "classes: expected a whole number from 1 on, given 0"),
        ({"image_size": "16"}, "image_size: expected a whole number from 1 on, given '16'"),
        ({"coder": "corners"}, "coder: expected deltas or distances, given 'corners'"),
        ({"weights": [1, 1, 1]}, r"weights: expected four numbers other than 0"),
        ({"weights": [1, 1, 0, 1]}, r"weights: expected four numbers other than 0"),
        ({"normalize_by_size": 1}, "normalize_by_size: expected true or false, given 1"),
        ({"scores": []}, r"scores: expected sigmoid or softmax or centerness, given \[\]"),
        ({"levels": []}, "levels: expected a list of levels"),
        ({"levels": [{**LEVELS[0], "cells": [[0, 0, 1]]}]}, "levels: expected"),
        ({"levels": [{**LEVELS[0], "grid": [2.0, 1]}]}, "levels: expected"),
        ({"levels": [{"grid": [2, 1]}]}, "levels: expected"),
        ({"score_threshold": float("nan")}, "score_threshold: expected a number from 0 to 1, given nan"),
        ({"nms_threshold": 2}, "nms_threshold: expected a number from 0 to 1, given 2"),
        ({"candidates": True}, "candidates: expected a whole number from 1 on, given True"),
        ({"soft_nms": 1}, "'soft_nms' is not known to this kdedge"),
    ],
)
def test_read_decoding_names_what_is_damaged(change, said):
    with pytest.raises(ModelError, match=said) as caught:
        read_decoding("m.onnx", WHOLE | change)
    assert caught.value.what == "m.onnx: its kdedge.boxes"


def test_read_decoding_names_what_is_missing():
    with pytest.raises(ModelError, match="'levels' is missing"):
        read_decoding("m.onnx", {key: value for key, value in WHOLE.items() if key != "levels"})


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("[1]", "not a JSON object")])
def test_read_decoding_refuses_other_text(text, said):
    with pytest.raises(ModelError, match=said):
        read_decoding("m.onnx", text)
