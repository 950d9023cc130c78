"""Decoding held against torchvision's own post-processing, and against values worked out by hand."""

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import detectors
import numpy as np
import pytest
import torch

import kdedge
from kdedge.core.errors import ModelError
from kdedge.engine.boxes import decode, detections_of, from_deltas, sigmoid, softmax
from kdedge.engine.boxes_decoding import read_decoding

LEVEL = {"grid": [1, 2], "stride": [10, 10], "offset": [0.5, 0.5], "cells": [[-4, -4, 4, 4]]}
PLAIN: dict[str, Any] = {
    "classes": 2,
    "image_size": 20,
    "coder": "deltas",
    "weights": [1.0, 1.0, 1.0, 1.0],
    "normalize_by_size": False,
    "scores": "sigmoid",
    "levels": [LEVEL],
    "clip": False,
    "score_threshold": 0.5,
    "nms_threshold": 0.5,
    "candidates": 10,
    "detections": 10,
}
"""Two anchors: (1, 1, 9, 9) and (11, 1, 19, 9)."""
OFF = -9.0


def decoded(rows: list[list[float]], **changes: Any) -> list[Any]:
    found = decode(np.array([rows], dtype=np.float32), read_decoding("m", PLAIN | changes))[0]
    return [found.boxes.tolist(), found.scores.tolist(), found.classes.tolist()]


@pytest.mark.parametrize("kind", detectors.KINDS)
@pytest.mark.parametrize("options", [{}, {"topk_candidates": 20, "detections_per_img": 7}], ids=["usual", "few"])
@pytest.mark.parametrize("classes", [1, detectors.CLASSES])
@pytest.mark.oracle
def test_decode_gives_torchvisions_boxes(kind, classes, options):
    torch.manual_seed(0)
    model = detectors.detector(kind, classes, **options)
    anchors, _, _ = detectors.anchors_of(model)
    extra = {"retinanet": 0, "fcos": 1, "ssdlite": 1}[kind]
    outputs = torch.randn(3, len(anchors), 4 + classes + extra)
    outputs[..., 4:] *= 2
    expected = detectors.postprocess(kind, model, outputs)
    decoding = read_decoding("m", detectors.decoding_of(kind, model, classes))
    for found, theirs in zip(decode(outputs.numpy(), decoding), expected, strict=True):
        assert len(theirs["boxes"]) > 0
        np.testing.assert_allclose(found.boxes, theirs["boxes"], atol=1e-4)
        np.testing.assert_allclose(found.scores, theirs["scores"], atol=1e-6)
        first = 1 if kind == "ssdlite" else 0  # the background
        assert (found.classes + first).tolist() == theirs["labels"].tolist()


@pytest.mark.parametrize("kind", detectors.KINDS)
@pytest.mark.oracle
def test_anchors_are_torchvisions(kind):
    model = detectors.detector(kind)
    anchors, _, counts = detectors.anchors_of(model)
    decoding = read_decoding("m", detectors.decoding_of(kind, model))
    np.testing.assert_allclose(decoding.anchors, anchors, atol=1e-4)
    assert list(decoding.levels) == counts


def test_decode_by_hand_moves_and_grows_the_anchor():
    # center (5, 5) and side 8: half a side to the right, a quarter down, twice as wide
    rows = [[0.5, 0.25, math.log(2), 0, 2.0, OFF], [0, 0, 0, 0, OFF, OFF]]
    boxes, scores, classes = decoded(rows)
    assert boxes == [pytest.approx([1, 3, 17, 11], abs=1e-5)]
    assert scores == [pytest.approx(0.880797, abs=1e-6)]  # 1 / (1 + e^-2)
    assert classes == [0]


def test_decode_divides_deltas_by_their_weights():
    rows = [[5.0, 2.5, 5 * math.log(2), 0, 2.0, OFF], [0, 0, 0, 0, OFF, OFF]]
    boxes, _, _ = decoded(rows, weights=[10.0, 10.0, 5.0, 5.0])
    assert boxes == [pytest.approx([1, 3, 17, 11], abs=1e-5)]


def test_decode_clips_to_the_picture():
    boxes, _, _ = decoded([[0, 0, 0, math.log(4), 2.0, OFF], [0, 0, math.log(4), 0, 1.0, OFF]])
    assert boxes == [pytest.approx([1, 0, 9, 20]), pytest.approx([0, 1, 20, 9])]


def test_decode_caps_the_growth_of_a_box():
    decoding = read_decoding("m", PLAIN)
    box = from_deltas(np.array([[0, 0, 50, 4]], np.float32), np.array([[0, 0, 16, 16]], np.float32), decoding)
    assert box.tolist() == [pytest.approx([8 - 500, 8 - 8 * math.exp(4), 8 + 500, 8 + 8 * math.exp(4)], rel=1e-5)]


def test_decode_of_distances_by_hand():
    # from the center (5, 5): 2 left, 1 up, 3 right, 0 down; the score is the root of 0.9 * 0.4
    rows = [[2, 1, 3, 0, math.log(9), OFF, math.log(2 / 3)], [0, 0, 0, 0, OFF, OFF, OFF]]
    boxes, scores, _ = decoded(rows, coder="distances", scores="centerness")
    assert boxes == [[3, 4, 8, 5]]
    assert scores == [pytest.approx(0.6)]


def test_decode_of_distances_in_anchor_sizes():
    rows = [[0.25, 0.125, 0.375, 0, 9, OFF, 9], [0, 0, 0, 0, OFF, OFF, OFF]]
    boxes, _, _ = decoded(rows, coder="distances", scores="centerness", normalize_by_size=True)
    assert boxes == [[3, 4, 8, 5]]


def test_decode_of_a_softmax_leaves_the_background_out():
    # shares of the background and two classes: 1/10, 6/10, 3/10 and 8/10, 1/10, 1/10
    rows = [[0, 0, 0, 0, math.log(1), math.log(6), math.log(3)], [0, 0, 0, 0, math.log(8), 0, 0]]
    boxes, scores, classes = decoded(rows, scores="softmax", score_threshold=0.25)
    assert boxes == [[1, 1, 9, 9], [1, 1, 9, 9]]
    assert scores == [pytest.approx(0.6), pytest.approx(0.3)]
    assert classes == [0, 1]


def test_decode_keeps_the_best_candidates_of_each_level():
    rows = [[0, 0, 0, 0, 3.0, OFF], [0, 0, 0, 0, OFF, 2.0], [0, 0, 0, 0, OFF, 1.0], [0, 0, 0, 0, 0.5, OFF]]
    far = {**LEVEL, "offset": [1.5, 0.5]}  # the same, ten pixels lower
    boxes, _, classes = decoded(rows, levels=[LEVEL, far], candidates=1)
    assert boxes == [[1, 1, 9, 9], [1, 11, 9, 19]]
    assert classes == [0, 1]


def test_decode_keeps_the_best_candidates_of_a_class_over_all_levels_of_a_softmax():
    rows = [[0, 0, 0, 0, 0, 3.0, OFF], [0, 0, 0, 0, 0, OFF, 2.0], [0, 0, 0, 0, 0, OFF, 1.0], [0, 0, 0, 0, 0, 2.0, OFF]]
    boxes, _, classes = decoded(rows, scores="softmax", levels=[LEVEL, {**LEVEL, "offset": [1.5, 0.5]}], candidates=1)
    assert boxes == [[1, 1, 9, 9], [11, 1, 19, 9]]
    assert classes == [0, 1]


def test_decode_takes_only_what_is_above_the_threshold():
    assert decoded([[0, 0, 0, 0, 0.0, OFF], [0, 0, 0, 0, OFF, OFF]]) == [[], [], []]  # 0.5 is not above 0.5


@pytest.mark.parametrize("scores", ["sigmoid", "softmax", "centerness"])
def test_decode_without_candidates_gives_empty_arrays(scores):
    decoding = read_decoding("m", {**PLAIN, "scores": scores})
    outputs = np.zeros((2, 2, decoding.width), np.float32)
    outputs[..., 4:] = OFF
    outputs[..., 4] = -OFF if scores == "softmax" else OFF
    for found in decode(outputs, decoding):
        assert [column.shape for column in found] == [(0, 4), (0,), (0,)]
        assert [column.dtype.name for column in found] == ["float32", "float32", "int64"]


@pytest.mark.parametrize("threshold", [0, 1])
def test_decode_takes_thresholds_at_the_ends(threshold):
    boxes, _, _ = decoded([[0, 0, 0, 0, 200.0, OFF], [0, 0, 0, 0, OFF, -200.0]], score_threshold=threshold)
    assert len(boxes) == (3 if threshold == 0 else 0)  # a score of 0 is not above 0


def test_decode_refuses_another_shape():
    with pytest.raises(ModelError, match=r"\(1, 2, 7\).*\(N, 2, 6\)"):
        decode(np.zeros((1, 2, 7), np.float32), read_decoding("m", PLAIN))


def test_decode_refuses_what_is_no_number():
    outputs = np.zeros((1, 2, 6), np.float32)
    outputs[0, 1, 3] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        decode(outputs, read_decoding("m", PLAIN))


def test_decode_of_half_precision_is_in_float32():
    outputs = np.array([[[0, 0, 0, 0, 2, OFF], [0, 0, 0, 0, OFF, OFF]]], np.float16)
    assert decode(outputs, read_decoding("m", PLAIN))[0].boxes.dtype == np.float32


CHOSEN: dict[str, Any] = {
    "boxes": np.array([[[1, 1, 9, 9], [11, 1, 19, 9], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 3], np.float32),
    "scores": np.array([[0.9, 0.6, 0], [0, 0, 0]], np.float32),
    "classes": np.array([[1, 0, 0], [0, 0, 0]], np.int32),
    "count": np.array([2, 0], np.int32),
}
"""What a model with NMS in its graph gives for two images, the second without a box."""


def test_detections_of_raw_heads_are_decoded():
    outputs = np.array([[[0, 0, 0, 0, 2, OFF], [0, 0, 0, 0, OFF, 1]]], np.float32)
    known = read_decoding("m", PLAIN)
    found, expected = detections_of({"any name": outputs}, known)[0], decode(outputs, known)[0]
    assert [column.tolist() for column in found] == [column.tolist() for column in expected]
    assert len(found.boxes) == 2


def test_detections_of_boxes_are_those_that_count():
    first, second = detections_of(CHOSEN, read_decoding("m", PLAIN))
    assert first.boxes.tolist() == [[1, 1, 9, 9], [11, 1, 19, 9]]
    assert first.scores.tolist() == pytest.approx([0.9, 0.6])
    assert first.classes.tolist() == [1, 0]
    assert [column.shape for column in second] == [(0, 4), (0,), (0,)]
    assert [column.dtype.name for column in second] == ["float32", "float32", "int64"]


@pytest.mark.parametrize("changes", [{"score_threshold": 0.7}, {"detections": 1}])
def test_detections_of_boxes_are_held_to_what_is_asked_for_now(changes):
    first, _ = detections_of(CHOSEN, read_decoding("m", PLAIN | changes))
    assert first.classes.tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.zeros((2, 4), np.float32)}, r"shapes \(2, 3, 4\), \(2, 4\), .* are \(N, D, 4\)"),
        ({"count": np.zeros((2, 1), np.int32)}, "count of shapes"),
        ({"scores": np.full((2, 3), np.nan, np.float32)}, "NaN"),
        ({"more": np.zeros(2)}, "outputs boxes, classes, count, more, scores: a detector gives one tensor, or boxes, "),
    ],
)
def test_detections_of_what_is_no_detectors_are_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        detections_of(CHOSEN | changes, read_decoding("m", PLAIN))


def test_detections_of_no_outputs_are_refused():
    with pytest.raises(ModelError, match="outputs none"):
        detections_of({}, read_decoding("m", PLAIN))


def test_sigmoid_and_softmax_stay_finite_far_out():
    assert sigmoid(np.array([-1e4, 0, 1e4], np.float32)).tolist() == [0, 0.5, 1]
    assert softmax(np.array([1e4, -1e4], np.float32)).tolist() == [1, 0]


OLD = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from kdedge.engine.boxes import decode
from kdedge.engine.boxes_decoding import read_decoding
from kdedge.engine.boxes_letterbox import letterbox, unletterbox
found = decode(np.load(sys.argv[2]), read_decoding("m", sys.argv[3]))[0]
square = letterbox(np.full((4, 8, 3), 7, np.uint8), 20)
print(json.dumps([unletterbox(found.boxes, 4, 8, 20).tolist(), found.classes.tolist(), int(square[..., 0].sum())]))
"""


def test_old_python_and_numpy_of_a_board_decode_as_well(needs, tmp_path):
    python = os.environ.get("KDEDGE_PYTHON38")
    needs(python, "set KDEDGE_PYTHON38 to a Python 3.8 with numpy")
    np.save(tmp_path / "o.npy", np.array([[[0, 0, 0, 0, 2, OFF], [0, 0, 0, 0, OFF, 1]]], np.float32))
    line = [python, "-c", OLD, str(Path(kdedge.__file__).parents[1]), str(tmp_path / "o.npy"), json.dumps(PLAIN)]
    done = subprocess.run(line, capture_output=True, text=True)
    # 2.5 pixels of the square to one of the picture, which ends at 8 x 4; gray below the ten rows that it fills
    boxes = [[pytest.approx(each) for each in box] for box in ([0.4, 0.4, 3.6, 3.6], [4.4, 0.4, 7.6, 3.6])]
    assert json.loads(done.stdout) == [boxes, [0, 1], 7 * 200 + 114 * 200], done.stderr
