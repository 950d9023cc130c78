"""Detectors take a batch of images and give one tensor, whose rows stand for torchvision's anchors."""

import copy
import json
from functools import cache

import numpy as np
import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from kdedge.core.errors import ModelError
from kdedge.models.detector import Detector
from kdedge.models.features import FeatureTap, feature_points, match_stages
from kdedge.models.zoo import build_model, model_names

CLASSES = 3
LIGHT = {
    "retinanet": {"backbone": "resnet18", "channels": 32},
    "fcos": {"backbone": "mobilenet_v3_small", "channels": 64},
    "ssdlite": {"backbone": "mobilenet_v3_small"},
}
BACKBONES = [
    (name, {"backbone": backbone})
    for name in ("retinanet", "fcos", "ssdlite")
    for backbone in ("resnet18", "resnet34", "resnet50", "mobilenet_v3_large", "mobilenet_v3_small")
    if name != "ssdlite" or backbone.startswith("mobilenet")
]
LEVELS = [("retinanet", {"levels": levels, "backbone": "resnet18"}) for levels in ("p2-p5", "p2-p7", "p3-p5")]


@cache
def detector(name, size=64, **options) -> Detector:
    """One that no test changes."""
    torch.manual_seed(0)
    return build_model(name, LIGHT[name] | options, CLASSES, (3, size, size), "detect").eval()


def on_meta(name, options, size):
    with torch.device("meta"):
        return build_model(name, options, CLASSES, (3, size, size), "detect")


def rebuilt(decoding):
    """Anchors by the text of Detector.decoding."""
    anchors = []
    for level in decoding["levels"]:
        (rows, columns), (dy, dx), (oy, ox) = level["grid"], level["stride"], level["offset"]
        for row in range(rows):
            for column in range(columns):
                x, y = (column + ox) * dx, (row + oy) * dy
                anchors += [[x1 + x, y1 + y, x2 + x, y2 + y] for x1, y1, x2, y2 in level["cells"]]
    return np.array(anchors)


def test_detectors_are_listed_apart_from_classifiers():
    assert model_names("detect") == ["fcos", "retinanet", "ssdlite"]


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize(("size", "count"), [(64, 1), (160, 2)])
def test_output_has_a_row_for_every_anchor(name, size, count):
    network = detector(name, size)
    with torch.no_grad():
        outputs = network(torch.randn(count, 3, size, size))
    columns = {"retinanet": 4 + CLASSES, "fcos": 4 + CLASSES + 1, "ssdlite": 4 + 1 + CLASSES}[name]

    assert outputs.shape == (count, len(network.anchors()), columns)


def test_rows_go_by_level_row_column_and_anchor_of_the_cell():
    network = copy.deepcopy(detector("retinanet"))
    with torch.no_grad():
        for bias in (network.head.regression_head.bbox_reg.bias, network.head.classification_head.cls_logits.bias):
            bias.copy_(torch.arange(len(bias)))
        for weight in (
            network.head.regression_head.bbox_reg.weight,
            network.head.classification_head.cls_logits.weight,
        ):
            weight.zero_()
        outputs = network(torch.zeros(1, 3, 64, 64))

    assert outputs.shape == (1, 9 * (64 + 16 + 4 + 1 + 1), 7)
    assert outputs[0, :2].tolist() == [[0, 1, 2, 3, 0, 1, 2], [4, 5, 6, 7, 3, 4, 5]]
    assert outputs[0, 9].tolist() == outputs[0, 0].tolist()


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("size", [100, 128, 160, 320])
def test_anchors_are_those_of_torchvision_on_the_real_maps(name, size):
    network = detector(name, size)
    with torch.no_grad():
        maps = list(network.backbone(torch.zeros(1, 3, size, size)).values())
    theirs = {
        "retinanet": AnchorGenerator(
            tuple(
                (4 * stride, int(4 * stride * 2 ** (1 / 3)), int(4 * stride * 2 ** (2 / 3)))
                for stride in (8, 16, 32, 64, 128)
            ),
            ((0.5, 1.0, 2.0),) * 5,
        ),
        "fcos": AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5),
        "ssdlite": DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95),
    }[name]
    if name == "retinanet":
        theirs.cell_anchors = [cell * 0.4 for cell in theirs.cell_anchors]
    expected = theirs(ImageList(torch.zeros(2, 3, size, size), [(size, size)] * 2), maps)[1]

    torch.testing.assert_close(network.anchors(), expected)
    np.testing.assert_allclose(rebuilt(network.decoding()), expected, atol=1e-3)


def test_retinanet_has_its_published_anchors_at_scale_1():
    cells = [level["cells"] for level in detector("retinanet", anchor_scale=1.0).decoding()["levels"]]

    assert cells[0] == [
        [-23, -11, 23, 11], [-28, -14, 28, 14], [-35, -18, 35, 18],
        [-16, -16, 16, 16], [-20, -20, 20, 20], [-25, -25, 25, 25],
        [-11, -23, 11, 23], [-14, -28, 14, 28], [-18, -35, 18, 35],
    ]  # fmt: skip
    assert cells[4][4] == [-322, -322, 322, 322]  # 645 / 2, rounded to even


def test_retinanet_anchors_keep_their_share_of_the_image_down_to_320_pixels():
    small, medium, large = (rebuilt(detector("retinanet", size).decoding())[4] for size in (160, 320, 640))

    assert small.tolist() == pytest.approx([-8, -8, 8, 8])  # as with 320
    assert medium.tolist() == pytest.approx([-8, -8, 8, 8])  # 20 * 320 / 800
    assert large.tolist() == pytest.approx([-16, -16, 16, 16])


def test_ssdlite_boxes_take_the_shares_of_the_image_that_are_asked_for():
    levels = detector("ssdlite", 100, min_ratio=0.1, max_ratio=0.6).decoding()["levels"]
    sides = [level["cells"][0][2] - level["cells"][0][0] for level in levels]

    assert sides == pytest.approx([10, 20, 30, 40, 50, 60], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("retinanet", ("deltas", [1, 1, 1, 1], False, "sigmoid", 0.05, 0.5, 1000, 300)),
        ("fcos", ("distances", [1, 1, 1, 1], True, "centerness", 0.2, 0.6, 1000, 100)),
        ("ssdlite", ("deltas", [10, 10, 5, 5], False, "softmax", 0.001, 0.55, 300, 300)),
    ],
)
def test_decoding_is_plain_and_complete(name, expected):
    decoding = detector(name).decoding()
    keys = ["coder", "weights", "normalize_by_size", "scores", "score_threshold", "nms_threshold", "candidates"]

    assert json.loads(json.dumps(decoding)) == decoding
    assert tuple(decoding[key] for key in [*keys, "detections"]) == expected
    assert (decoding["classes"], decoding["image_size"], decoding["clip"]) == (CLASSES, 64, False)


@pytest.mark.parametrize(("name", "options"), BACKBONES + LEVELS)
def test_feature_points_are_the_levels_with_their_channels_and_strides(name, options):
    size = 100
    network = on_meta(name, options, size)
    points = feature_points(network, (3, size, size))
    with torch.device("meta"), FeatureTap(network, points) as tap:
        network(torch.zeros(2, 3, size, size))
        features = tap.features
    levels = [point for point in points if point.startswith("p")]

    assert [features[level].shape[2] for level in levels] == network.sides
    assert [points[level].stride for level in levels] == [2 ** int(level[1:]) for level in levels]
    for point, feature in features.items():
        side = -(-size // points[point].stride)
        assert feature.shape == (2, points[point].channels, side, side), point


def test_stages_of_equal_stride_are_matched_by_levels():
    large, small = (
        on_meta("retinanet", {}, 128),
        on_meta("fcos", {"backbone": "mobilenet_v3_small", "channels": 64}, 128),
    )

    assert match_stages(small.feature_points, large.feature_points) == [
        ("stage1", "stage1"), ("p3", "p3"), ("p4", "p4"), ("p5", "p5"), ("p6", "p6"), ("p7", "p7"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("retinanet", (3, 32, 32), {}, r"images of 3x32x32: .* at least 64x64\n  set data.image_size: 320"),
        ("fcos", (1, 64, 64), {}, "fcos for images of 1x64x64: a detector takes 3 channels"),
        ("ssdlite", (3, 64, 96), {}, "a detector takes square ones"),
        ("ssdlite", (3, 64, 64), {"backbone": "resnet18"}, "backbone: must be 'mobilenet_v3_large' or"),
        ("ssdlite", (3, 64, 64), {"min_ratio": 0.9, "max_ratio": 0.5}, "boxes grow from map to map"),
        ("fcos", (3, 64, 64), {"channels": 48}, r"32 equal groups, each of two .*\n  set channels: 64, or norm: none"),
        ("retinanet", (3, 64, 64), {"channels": 32, "norm": "group"}, "set channels: 64, or norm: none"),
        ("retinanet", (3, 64, 64), {"anchor_scale": 0.0}, "anchor_scale: must be greater than 0"),
        ("retinanet", (3, 64, 64), {"levels": "p3-p6"}, "levels: must be 'p2-p5', 'p2-p7', 'p3-p5' or 'p3-p7'"),
        ("retina", (3, 64, 64), {}, "unknown detector 'retina': did you mean 'retinanet'"),
        ("resnet18", (3, 64, 64), {}, "resnet18 is a classifier, not a detector: detectors are fcos, "),
        ("torchvision:fcos_resnet50_fpn", (3, 64, 64), {}, "for detection: detectors are fcos, retinanet, ssdlite"),
    ],
)  # fmt: skip
def test_detector_refuses_what_it_cannot_be(name, shape, options, message):
    with pytest.raises(ModelError, match=message), torch.device("meta"):
        build_model(name, options, CLASSES, shape, "detect")


def test_classification_refuses_a_detector():
    with pytest.raises(ModelError, match="fcos is a detector, not a classifier: classifiers are mobilenetv2, "):
        build_model("fcos", {}, 10, (3, 64, 64))
