"""Compression of any convolutional network: its k x k convolutions made grouped or depthwise-separable.

Each one is rewritten where it stands, so that the BN and the activation that follow it stay its own:

    grouped    channel shuffle (not where a 1x1 convolution comes right before), convolution in g groups
    depthwise  depthwise convolution, BN, ReLU, pointwise 1x1 (A. Howard et al.: "MobileNets", arXiv:1704.04861)
    auto       grouped in residual branches, depthwise elsewhere between two maps of the same 128 or more channels;
               what g does not divide, and what neither rule takes, stays dense

The stem, which is the first convolution that runs, is never touched, nor are 1x1 and grouped convolutions.  The layers
are those of kdedge's own networks built with conv: grouped or conv: depthwise, with the same names.  A convolution that
runs on several maps, as those of a detector's heads do, gets group normalization (GN) instead of BN: BN's running
statistics would be those of no map.
"""

import copy
import fnmatch
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

from kdedge.core.errors import ModelError
from kdedge.core.lightening import LightConv
from kdedge.models.blocks import ChannelShuffle, init_weights
from kdedge.models.cost import Layer, Shape, run_once
from kdedge.models.cost import layers as run_layers

WIDE = 128
"""Channels from which `auto` takes a plain convolution apart."""
ADDITIONS = {"add", "add_", "__add__", "__iadd__", "__radd__"}


@dataclass(frozen=True)
class Rewritten:
    """What became of one convolution."""

    path: str
    conv: Literal["grouped", "depthwise"]


def lighten(
    model: nn.Module,
    image_shape: Shape,
    conv: LightConv,
    groups: int | None = None,
    shuffle: bool = True,
    layers: Sequence[str] = ("*",),
) -> list[Rewritten]:
    """Rewrite a network's convolutions, in place and with fresh weights (He initialization); biases are kept.

    Args:
        groups: of grouped convolutions; 4 when not given.
        shuffle: deal channels out to all groups before a grouped convolution.
        layers: patterns of module paths (layer3.*); only the convolutions that one fits are rewritten.

    Raises:
        ModelError: no convolution, none that can be rewritten, or one that the groups do not divide.
    """
    if groups is not None and conv == "depthwise":
        why = "only grouped convolutions have groups"
        raise ModelError(f"groups {groups} with conv 'depthwise'", why, "set conv: grouped, or leave groups out")
    ran = [layer for layer in run_layers(model, image_shape) if layer.is_conv]
    candidates = chosen(rewritable(model, ran), layers)
    for path, module in candidates.items():
        check_plain(path, module)
    plan = planned(model, image_shape, candidates, conv, groups or 4)
    mixed, shared = after_pointwise(model, ran), {layer.path for layer in ran if layer.calls > 1}
    for step in plan:
        dense = model.get_submodule(step.path)
        assert isinstance(dense, nn.Conv2d)
        light = (
            separable(dense, step.path in shared)
            if step.conv == "depthwise"
            else grouped(dense, groups or 4, shuffle and step.path not in mixed)
        )
        *_, last = light.modules()
        last.register_parameter("bias", dense._parameters["bias"])  # it may say how rare an object is
        model.set_submodule(step.path, light)
    run_once(model, image_shape)
    return plan


@dataclass(frozen=True)
class Change:
    """One layer before and after; bytes are four times the parameters."""

    path: str
    layer: str
    became: str
    """Empty where nothing changed."""
    params: tuple[int, int]
    macs: tuple[int, int]


def compare(model: nn.Module, image_shape: Shape, **how: Any) -> list[Change]:
    """Lighten a network, in place; returns its convolutions and linear layers before and after, and the whole.

    Args:
        how: what `lighten` takes.

    Raises:
        ModelError: as `lighten` does.
    """
    named = {path: spelled(module) for path, module in model.named_modules()}
    before = {layer.path: layer for layer in run_layers(model, image_shape)}
    became = {step.path: step.conv for step in lighten(model, image_shape, **how)}
    after = {layer.path: layer for layer in run_layers(model, image_shape)}
    return [
        Change(
            path or "all",
            named[path],
            became.get(path, ""),
            (layer.params, after[path].params),
            (layer.macs, after[path].macs),
        )
        for path, layer in before.items()
        if named[path] or not path
    ]


def spelled(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        kernel = "x".join(map(str, module.kernel_size))
        groups = f", {module.groups} groups" if module.groups > 1 else ""
        return f"conv {kernel} {module.in_channels} -> {module.out_channels}{groups}"
    return f"linear {module.in_features} -> {module.out_features}" if isinstance(module, nn.Linear) else ""


def rewritable(model: nn.Module, ran: list[Layer]) -> dict[str, nn.Conv2d]:
    """By path: the k x k convolutions that see every channel, but for the stem."""
    if not ran:
        raise ModelError(f"{type(model).__name__} cannot be lightened", "it has no convolution", "kdedge models")
    found = {}
    for layer in ran[1:]:
        module = model.get_submodule(layer.path)
        if isinstance(module, nn.Conv2d) and module.groups == 1 and max(module.kernel_size) > 1:
            found[layer.path] = module
    if not found:
        why = "every convolution but the stem is 1x1 or grouped already"
        raise ModelError(f"{type(model).__name__} cannot be lightened", why, "leave lighten out: it is light already")
    return found


def check_plain(path: str, conv: nn.Conv2d) -> None:
    """Raises ModelError for a convolution with weights of its own kind, which a lighter one would lose."""
    others = sorted(set(conv._parameters) - {"weight", "bias"})
    if others or is_parametrized(conv):
        what = ", ".join(others) or "a parametrization"
        why = f"this {type(conv).__name__} has {what} beside its weight"
        raise ModelError(f"{path} cannot be lightened", why, "leave it out by lighten.layers, or take another network")


def chosen(candidates: dict[str, nn.Conv2d], patterns: Sequence[str]) -> dict[str, nn.Conv2d]:
    """Those whose path a pattern fits; raises ModelError for a pattern that fits none."""
    for pattern in patterns:
        if not fnmatch.filter(candidates, pattern):
            raise ModelError(
                f"lighten.layers {pattern!r} fits no convolution that can be rewritten",
                f"such as {', '.join(list(candidates)[:4])}",
                "kdedge layers MODEL lists the modules",
            )
    return {path: conv for path, conv in candidates.items() if any(fnmatch.fnmatchcase(path, p) for p in patterns)}


def planned(
    model: nn.Module, image_shape: Shape, candidates: dict[str, nn.Conv2d], conv: LightConv, groups: int
) -> list[Rewritten]:
    if conv == "depthwise":
        return [Rewritten(path, "depthwise") for path in candidates]
    if conv == "grouped":
        check_groups(candidates, groups)
        return [Rewritten(path, "grouped") for path in candidates]
    adding = residual_blocks(model, image_shape)
    plan = []
    for path, module in candidates.items():
        inputs, outputs = module.in_channels, module.out_channels
        if any(path.startswith(f"{block}.") or not block for block in adding):
            if inputs % groups == outputs % groups == 0:
                plan.append(Rewritten(path, "grouped"))
        elif inputs == outputs >= WIDE:
            plan.append(Rewritten(path, "depthwise"))
    if not plan:
        why = f"no residual branch that {groups} groups divide, and no convolution between maps of {WIDE} channels"
        raise ModelError(f"{type(model).__name__}: auto finds nothing to rewrite", why, "set conv: depthwise")
    return plan


def check_groups(candidates: dict[str, nn.Conv2d], groups: int) -> None:
    """Raises ModelError with the convolutions that the groups do not divide, and what divides them all."""
    refused = [
        f"{path} ({module.in_channels} -> {module.out_channels})"
        for path, module in candidates.items()
        if module.in_channels % groups or module.out_channels % groups
    ]
    if refused:
        common = gcd(*(n for module in candidates.values() for n in (module.in_channels, module.out_channels)))
        valid = [n for n in range(2, common + 1) if common % n == 0]
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise ModelError(
            f"groups {groups} does not divide the channels of {', '.join(refused[:3])}{more}",
            f"valid for every convolution of this network: {', '.join(map(str, valid)) or 'none'}",
            f"lighten.groups: {min(valid, key=lambda n: abs(n - groups))}"
            if valid
            else "lighten.conv: depthwise, or leave them out by lighten.layers",
        )


def after_pointwise(model: nn.Module, ran: list[Layer]) -> set[str]:
    """Convolutions that directly follow a dense 1x1 one of the same block, which has mixed their channels already."""
    mixed = set()
    for before, layer in pairwise(ran):
        first = model.get_submodule(before.path)
        siblings = before.path.rpartition(".")[0] == layer.path.rpartition(".")[0]
        pointwise = isinstance(first, nn.Conv2d) and first.kernel_size == (1, 1) and first.groups == 1
        if siblings and pointwise and layer.input == before.shape:
            mixed.add(layer.path)
    return mixed


def residual_blocks(model: nn.Module, image_shape: Shape) -> set[str]:
    """Paths of the modules that add two feature maps in their own forward; the network's own path is ''."""
    stack, adding = [""], set()

    class Additions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            tensors = [value for value in args if isinstance(value, Tensor)]
            if getattr(func, "__name__", "") in ADDITIONS and len(tensors) == 2 and same_maps(*tensors):
                adding.add(stack[-1])
            return func(*args, **(kwargs or {}))

    def leave(*_: Any) -> None:
        stack.pop()

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: stack.append(path)))
        handles.append(module.register_forward_hook(leave))
    try:
        with Additions():
            run_once(model, image_shape)
    finally:
        for handle in handles:
            handle.remove()
    return adding


def same_maps(first: Tensor, second: Tensor) -> bool:
    return first.ndim == 4 and first.shape == second.shape


def grouped(dense: nn.Conv2d, groups: int, shuffle: bool) -> nn.Module:
    light = thinned(dense, dense.out_channels, groups, bias=dense.bias is not None)
    return nn.Sequential(OrderedDict(shuffle=ChannelShuffle(groups), grouped=light)) if shuffle else light


def separable(dense: nn.Conv2d, shared: bool) -> nn.Sequential:
    channels = dense.in_channels
    light = nn.Sequential(
        OrderedDict[str, nn.Module](
            depthwise=thinned(dense, channels, channels, bias=False),
            **({"gn1": group_norm(channels)} if shared else {"bn1": nn.BatchNorm2d(channels)}),
            relu1=nn.ReLU(inplace=True),
            pointwise=nn.Conv2d(channels, dense.out_channels, 1, bias=dense.bias is not None),
        )
    )
    init_weights(light)
    return light.to(dense.weight.device, dense.weight.dtype)


def group_norm(channels: int) -> nn.GroupNorm:
    """With the 16 channels a group of Y. Wu, K. He: "Group Normalization", ECCV 2018, arXiv:1803.08494, table 3."""
    return nn.GroupNorm(gcd(channels, max(1, channels // 16)), channels)


def thinned(dense: nn.Conv2d, outputs: int, groups: int, bias: bool) -> nn.Conv2d:
    """A convolution of the same class, kernel, stride, padding and dilation in groups, with fresh weights."""
    light = copy.copy(dense)
    light._parameters = {}
    light.out_channels, light.groups = outputs, groups
    weight = dense.weight.new_empty(outputs, dense.in_channels // groups, *dense.kernel_size)
    light.weight = nn.Parameter(weight)
    light.register_parameter("bias", nn.Parameter(weight.new_zeros(outputs)) if bias else None)
    init_weights(light)
    return light
