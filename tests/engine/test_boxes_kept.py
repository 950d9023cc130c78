"""What is kept of a batch of outputs of a detector with two anchors."""

import numpy as np
import pytest
from tinydetector import DECODING, LEFT, OFF, RIGHT

from kdedge.core.errors import ModelError
from kdedge.engine.boxes import unpack
from kdedge.engine.boxes_decoding import read_decoding
from kdedge.engine.boxes_kept import kept

KNOWN = read_decoding("tiny", DECODING | {"detections": 3})
HEADS = np.array([[0, 0, 0, 0, 0, OFF], [0, 0, 0, 0, OFF, OFF]], np.float32)
"""A red box on the left, whose score is a half."""


def test_boxes_are_kept_in_rows():
    other = HEADS.copy()
    other[1, 5] = np.log(3)
    rows = kept({"outputs": np.stack([HEADS, other])}, KNOWN)
    nothing = [-1, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(rows[0], [[0, 0.5, *LEFT], nothing, nothing], atol=1e-6)
    np.testing.assert_allclose(rows[1], [[1, 0.75, *RIGHT], [0, 0.5, *LEFT], nothing], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_image_with_an_output_that_is_not_finite_has_no_boxes(value):
    broken = HEADS.copy()
    broken[1, 2] = value
    rows = kept({"outputs": np.stack([broken, HEADS])}, KNOWN)
    assert [len(found.scores) for found in unpack(rows)] == [0, 1]
    assert np.isnan(rows[0, :, 1:]).all()
    assert np.isfinite(rows[1]).all()


def test_batch_without_any_finite_output_is_kept():
    rows = kept({"outputs": np.full((2, 2, 6), np.nan, np.float32)}, KNOWN)
    assert rows[..., 0].tolist() == [[-1] * 3] * 2


def test_boxes_that_the_model_chose_are_kept_alike():
    boxes, scores = np.array([[RIGHT, LEFT]], np.float32), np.array([[0.75, 0.5]], np.float32)
    chosen = {"boxes": boxes, "scores": scores, "classes": np.array([[1, 0]]), "count": np.array([1])}
    rows = kept(chosen, KNOWN)
    assert rows.shape == (1, 3, 6)
    assert rows[0, 0].tolist() == [1, 0.75, *RIGHT]
    assert rows[0, 1, 0] == -1
    broken = kept(chosen | {"scores": np.full((1, 2), np.nan, np.float32)}, KNOWN)
    assert (broken[0, 0, 0], np.isnan(broken[0, 0, 1])) == (-1, True)


def test_outputs_of_another_model_are_refused():
    with pytest.raises(ModelError, match=r"outputs of shape \(1, 3, 6\)"):
        kept({"outputs": np.zeros((1, 3, 6), np.float32)}, KNOWN)
