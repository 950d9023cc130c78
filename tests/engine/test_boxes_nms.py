"""Non-maximum suppression held against torchvision's batched_nms, ties and thresholds by hand."""

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from kdedge.engine.boxes_nms import nms

ALL = 10**6


def crowd(count, classes, seed=0):
    """Boxes around a few centers, so that many overlap."""
    generator = np.random.default_rng(seed)
    centers = generator.uniform(20, 300, (40, 2))[generator.integers(0, 40, count)] + generator.normal(0, 4, (count, 2))
    sides = generator.uniform(10, 60, (count, 2))
    boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1).astype(np.float32)
    return boxes, generator.random(count, dtype=np.float32), generator.integers(0, classes, count)


@pytest.mark.parametrize(("count", "classes"), [(0, 1), (1, 1), (50, 1), (999, 4), (1500, 1), (1500, 20)])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.6, 1.0])
@pytest.mark.oracle
def test_nms_keeps_what_torchvision_keeps(count, classes, threshold):
    boxes, scores, labels = crowd(count, classes)
    kept = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), threshold).tolist()
    assert nms(boxes, scores, labels, threshold, ALL).tolist() == kept
    assert nms(boxes, scores, labels, threshold, 10).tolist() == kept[:10]


@pytest.mark.oracle
def test_nms_of_equal_scores_keeps_the_first_as_torchvision_does():
    boxes, _, _ = crowd(400, 1)
    scores, labels = np.full(400, 0.5, np.float32), np.zeros(400, np.int64)
    kept = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), 0.5).tolist()
    assert nms(boxes, scores, labels, 0.5, ALL).tolist() == kept


def of_one_class(boxes, scores, threshold):
    return nms(np.array(boxes, np.float32), np.array(scores, np.float32), np.zeros(len(boxes)), threshold, ALL).tolist()


def test_nms_drops_only_what_overlaps_more_than_the_threshold():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5]]  # they share half of the larger
    assert of_one_class(boxes, [0.9, 0.8], 0.5) == [0, 1]
    assert of_one_class(boxes, [0.9, 0.8], 0.49) == [0]


@pytest.mark.oracle
def test_nms_compares_as_torchvision_where_the_overlap_is_the_threshold():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 6]]  # 0.6 in float32 lies above 0.6
    theirs = batched_nms(torch.tensor(boxes).float(), torch.tensor([0.9, 0.8]), torch.zeros(2), 0.6).tolist()
    assert of_one_class(boxes, [0.9, 0.8], 0.6) == theirs == [0]


def test_nms_leaves_boxes_that_a_dropped_one_covers():
    # b overlaps a and c by more than half each; a and c hardly touch, and b goes first
    boxes = [[0, 0, 10, 10], [0, 3, 10, 13], [0, 6, 10, 16]]
    assert of_one_class(boxes, [0.9, 0.8, 0.7], 0.5) == [0, 2]


def test_nms_leaves_other_classes_alone():
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    assert nms(boxes, np.array([0.5, 0.9, 0.7], np.float32), np.array([0, 1, 0]), 0.5, ALL).tolist() == [1, 2]


def test_nms_keeps_boxes_without_an_area():
    assert of_one_class([[5, 5, 5, 5], [5, 5, 5, 5]], [0.9, 0.8], 0.5) == [0, 1]
