import pytest
import torch
from fivelevels import FiveLevels, level

from kdedge.distill.layout import Layout, present
from kdedge.models.features import FeaturePoint
from kdedge.models.zoo import build_model


def decoding(**changes):
    usual = {
        "classes": 2,
        "image_size": 8,
        "coder": "deltas",
        "weights": [1.0, 1.0, 1.0, 1.0],
        "normalize_by_size": True,
        "scores": "sigmoid",
        "levels": [level(2, 4, 1), {"grid": [1, 1], "stride": [8, 8], "offset": [0.0, 0.5], "cells": [[-2, -1, 2, 1]]}],
        "clip": False,
    }
    return usual | changes


def layout(**changes):
    points = {"stage1": FeaturePoint("", 8, 4), "p2": FeaturePoint("", 8, 4), "p3": FeaturePoint("", 8, 8)}
    return Layout.of(decoding(**changes), points)


def logit(probability):
    return torch.tensor(probability).logit().item()


def test_layout_puts_every_cell_at_every_place_row_by_row():
    expected = [[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8], [2, -1, 6, 1]]
    assert layout().anchors.tolist() == expected


def test_layout_clips_anchors_where_the_detector_does():
    assert layout(clip=True).anchors[-1].tolist() == [2, 0, 6, 1]


def test_layout_levels_stand_on_the_feature_points_of_their_size():
    assert [tuple(each) for each in layout().levels] == [("p2", 2, 2, 1), ("p3", 1, 1, 1)]


def test_layout_gives_levels_of_one_size_a_feature_point_each():
    points = {f"p{n}": FeaturePoint("", 8, 2**n) for n in (3, 4, 5)}
    found = Layout.of(decoding(levels=[level(1, 8, 1)] * 3), points | {"p5": FeaturePoint("", 8, 1)})
    assert [each.feature for each in found.levels] == ["p3", "p4", ""]


@pytest.mark.parametrize("name", ["fcos", "retinanet", "ssdlite"])
def test_layout_has_the_anchors_of_the_networks(name):
    network = build_model(name, {}, 3, (3, 96, 96), "detect")
    found = Layout.of(network.decoding(), network.feature_points)
    torch.testing.assert_close(found.anchors, network.anchors(), rtol=0, atol=1e-3)
    assert all(each.feature in network.feature_points for each in found.levels)


def test_layout_parts_values_by_level():
    parts = dict(layout().maps(torch.arange(10).reshape(2, 5)))
    assert parts["p2"][1].squeeze(2).tolist() == [[5, 6], [7, 8]]
    assert parts["p3"].flatten().tolist() == [4, 9]


def test_certainty_is_the_largest_score_of_a_class():
    boxes = [0.0] * 4
    sigmoid = torch.tensor([[[*boxes, logit(0.2), logit(0.7)]]])
    assert layout().certainty(sigmoid).item() == pytest.approx(0.7)
    softmax = torch.tensor([[[*boxes, *torch.tensor([0.7, 0.1, 0.2]).log().tolist()]]])
    assert layout(scores="softmax").certainty(softmax).item() == pytest.approx(0.2)
    centerness = torch.tensor([[[*boxes, logit(0.2), logit(0.5), logit(0.18)]]])
    assert layout(scores="centerness").certainty(centerness).item() == pytest.approx(0.3)  # sqrt(0.5 * 0.18)


@pytest.mark.parametrize(
    ("changes", "codes", "expected"),
    [
        ({}, [0.0, 0.0, 0.0, 0.0], [0, 0, 4, 4]),
        ({}, [0.5, 0.0, 0.0, 2.0], [2, 2 - 2 * torch.e**2, 6, 2 + 2 * torch.e**2]),
        ({"weights": [10.0, 10.0, 5.0, 5.0]}, [5.0, 0.0, 0.0, 10.0], [2, 2 - 2 * torch.e**2, 6, 2 + 2 * torch.e**2]),
        ({"coder": "distances"}, [0.25, 0.5, 0.75, 1.0], [1, 0, 5, 6]),
        ({"coder": "distances", "normalize_by_size": False}, [1.0, 2.0, 3.0, 4.0], [1, 0, 5, 6]),
    ],
)
def test_boxes_are_decoded_from_their_anchors(changes, codes, expected):
    found = layout(**changes)
    outputs = torch.zeros(2, 5, 6)
    outputs[1, 0, :4] = torch.tensor(codes)
    boxes = found.boxes(outputs, found.anchors)
    assert boxes[1, 0].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_network_stages_of_a_detector_are_its_levels():
    network = FiveLevels(4).network()
    assert list(network.stages) == ["p3", "p4", "p5", "p6", "p7"]
    assert "stage1" in network.features
    assert network.task == "detect"


def test_present_rows_are_those_of_a_class():
    assert present(torch.tensor([[[0.0, 1, 1, 2, 2], [-1.0, 0, 0, 0, 0]]])).tolist() == [[True, False]]
