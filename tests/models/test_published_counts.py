"""Sizes of the benchmark's networks as printed, for 32x32 images of 100 classes, and the pairs that it distills."""

from functools import cache

import pytest
import torch

from kdedge.models.cost import layers
from kdedge.models.features import feature_points, match_stages
from kdedge.models.zoo import build_model

IMAGE = (3, 32, 32)

PUBLISHED = {  # millions of parameters, MMAC of convolutions and linear layers, channels@size of the last stages
    "resnet20": ("0.278", "40.8", "16@32 32@16 64@8"),
    "resnet32": ("0.473", "69.1", "16@32 32@16 64@8"),
    "resnet56": ("0.862", "125.8", "16@32 32@16 64@8"),
    "resnet110": ("1.737", "253.2", "16@32 32@16 64@8"),
    "resnet8x4": ("1.234", "177.1", "64@32 128@16 256@8"),
    "resnet32x4": ("7.434", "1083", "64@32 128@16 256@8"),
    "wrn_16_2": ("0.703", "101.1", "32@32 64@16 128@8"),
    "wrn_40_1": ("0.570", "83.3", "16@32 32@16 64@8"),
    "wrn_40_2": ("2.255", "327.6", "32@32 64@16 128@8"),
    "vgg8": ("3.965", "96.2", "128@16 256@8 512@4 512@4"),
    "vgg11": ("9.277", "209.4", "128@16 256@8 512@4 512@4"),
    "vgg13": ("9.462", "284.9", "128@16 256@8 512@4 512@4"),
    "vgg19": ("20.087", "511.4", "128@16 256@8 512@4 512@4"),
    "shufflenetv1": ("0.949", "38.7", "240@16 480@8 960@4"),
    "shufflenetv2": ("1.356", "44.5", "116@16 232@8 464@4"),
    "mobilenetv2_x0_5": ("0.813", "6.5", "12@16 16@8 48@4 160@2"),
    "resnet18": ("11.22", "555.5", "64@32 128@16 256@8 512@4"),
    "resnet50": ("23.71", "1298", "256@32 512@16 1024@8 2048@4"),
}
PAIRS = [  # teacher, student, sides of the maps in both
    ("resnet56", "resnet20", [32, 16, 8]),
    ("resnet110", "resnet20", [32, 16, 8]),
    ("resnet110", "resnet32", [32, 16, 8]),
    ("resnet32x4", "resnet8x4", [32, 16, 8]),
    ("wrn_40_2", "wrn_16_2", [32, 16, 8]),
    ("wrn_40_2", "wrn_40_1", [32, 16, 8]),
    ("vgg13", "vgg8", [32, 16, 8, 4]),
    ("vgg13", "mobilenetv2_x0_5", [16, 8, 4]),
    ("resnet50", "mobilenetv2_x0_5", [16, 8, 4]),
    ("resnet50", "vgg8", [32, 16, 8, 4]),
    ("resnet32x4", "shufflenetv1", [16, 8]),
    ("resnet32x4", "shufflenetv2", [16, 8]),
    ("wrn_40_2", "shufflenetv1", [16, 8]),
]


@cache
def traced(name):
    with torch.device("meta"):
        model = build_model(name, {}, 100, IMAGE)
    return {layer.path: layer for layer in layers(model, IMAGE)}, feature_points(model, IMAGE)


def to_precision_of(printed, value):
    return f"{value:.{len(printed.partition('.')[2])}f}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_network_has_the_published_size(name):
    params, macs, stages = PUBLISHED[name]
    run, points = traced(name)
    shapes = [run[point.module].shape for point in points.values()]

    assert to_precision_of(params, run[""].params / 1e6) == params
    assert to_precision_of(macs, run[""].macs / 1e6) == macs
    assert " ".join(f"{channels}@{side}" for channels, side, _ in shapes).endswith(stages)


def test_mobilenet_pools_the_published_embedding():
    assert traced("mobilenetv2_x0_5")[0]["last"].shape == (1280, 2, 2)


@pytest.mark.parametrize(("teacher", "student", "sides"), PAIRS, ids=lambda value: value if type(value) is str else "")
def test_pair_shares_maps_of_equal_size(teacher, student, sides):
    (teacher_run, theirs), (student_run, mine) = traced(teacher), traced(student)
    pairs = match_stages(mine, theirs)

    assert [student_run[mine[stage].module].shape[1] for stage, _ in pairs] == sides
    assert [teacher_run[theirs[stage].module].shape[1] for _, stage in pairs] == sides
