"""Layers that take a student's feature to the teacher's width; they train with the student and are left behind."""

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn

from kdedge.distill.base import Network
from kdedge.distill.stages import Pair
from kdedge.models.blocks import init_weights


def adapter(inputs: int, outputs: int, relu: bool = True) -> nn.Sequential:
    """1x1 convolution and BN, with `relu` a ReLU: for teachers whose stages end in one, as most do."""
    layers = OrderedDict[str, nn.Module](conv=nn.Conv2d(inputs, outputs, 1, bias=False), bn=nn.BatchNorm2d(outputs))
    if relu:
        layers["relu"] = nn.ReLU(inplace=True)
    module = nn.Sequential(layers)
    init_weights(module)
    return module


def aligners(pairs: Iterable[Pair], student: Network, teacher: Network, bias: bool = True) -> nn.ModuleDict:
    """By the student's stage: a 1x1 convolution where the teacher's is of another width, and else nothing."""
    widths = {s: (student.features[s].channels, teacher.features[t].channels) for s, t in pairs}
    layers = {s: nn.Conv2d(*width, 1, bias=bias) if len({*width}) > 1 else nn.Identity() for s, width in widths.items()}
    modules = nn.ModuleDict(layers)
    init_weights(modules)
    return modules


def adapters(pairs: Iterable[Pair], student: Network, teacher: Network, relu: bool = True) -> nn.ModuleDict:
    """One for each pair, by the student's stage."""
    return nn.ModuleDict(
        {s: adapter(student.features[s].channels, teacher.features[t].channels, relu) for s, t in pairs}
    )
