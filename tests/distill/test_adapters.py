import torch
from torch import nn

from kdedge.distill.adapters import adapter, adapters, aligners
from kdedge.distill.base import Network
from kdedge.models.features import FeaturePoint


def test_adapter_takes_a_map_to_another_width():
    out = adapter(3, 5)(torch.randn(4, 3, 6, 6))
    assert out.shape == (4, 5, 6, 6)
    assert out.min() == 0


def test_adapter_without_relu_keeps_what_is_negative():
    module = adapter(3, 5, relu=False)
    assert [type(layer) for layer in module] == [nn.Conv2d, nn.BatchNorm2d]
    assert module(torch.randn(4, 3, 6, 6)).min() < 0


def test_adapters_have_one_for_each_pair_under_the_stage_of_the_student():
    student = Network({"a": FeaturePoint("a", 4, 1), "b": FeaturePoint("b", 8, 2)}, classes=10, image_size=16)
    teacher = Network({"x": FeaturePoint("x", 16, 1), "y": FeaturePoint("y", 32, 2)}, classes=10, image_size=16)
    modules = adapters([("b", "y"), ("a", "x")], student, teacher)
    assert {stage: (m.conv.in_channels, m.conv.out_channels) for stage, m in modules.items()} == {
        "b": (8, 32),
        "a": (4, 16),
    }


def test_aligners_change_other_widths_only():
    points = [{"a": FeaturePoint("", first, 1), "b": FeaturePoint("", 8, 2)} for first in (4, 6)]
    student, teacher = (Network(each, classes=10, image_size=8) for each in points)
    layers = aligners([("a", "a"), ("b", "b")], student, teacher, bias=False)
    assert {name: tuple(p.shape) for name, p in layers.named_parameters()} == {"a.weight": (6, 4, 1, 1)}
    x = torch.randn(2, 8, 3, 3)
    assert layers["b"](x) is x
