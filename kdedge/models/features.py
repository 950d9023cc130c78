"""Where a network may be tapped, and the tap itself.

A feature point is a module whose output a method may look at.  kdedge's own networks declare theirs; those of any
other convolutional network are found by tracing one forward pass.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log2
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from kdedge.core.errors import ModelError, nearest
from kdedge.models.cost import Layer, Shape, layers


@dataclass(frozen=True)
class FeaturePoint:
    module: str
    """Path of the module inside the network, as named_modules() spells it."""
    channels: int
    stride: int
    """Image side over map side."""


def bare(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of DDP, torch.compile and lightning-fabric."""
    if isinstance(model, DistributedDataParallel):
        return bare(model.module)
    for attribute in ("_orig_mod", "_original_module"):  # the wrappers' classes are slow to import
        if isinstance(inner := getattr(model, attribute, None), nn.Module):
            return bare(inner)
    return model


class FeatureTap:
    """Keeps what the feature points of a network put out, from one forward pass to the next.

    with FeatureTap(student, ["stage2", "stage3"]) as tap:
        logits = student(images)
        tap.features["stage3"]  # (N, C, H, W), part of the graph

    Wrapped networks (compile, DDP, fabric) can be tapped as well, but enter the tap before a compiled network's first
    pass: what is compiled without hooks stays without.  Compiled code is not checked for in-place overwriting.

    Raises:
        ModelError: on entry for a module that is not there, in the forward pass for one that runs twice or whose
            output is not a tensor, on reading `features` for one that did not run or was overwritten in place.
    """

    def __init__(self, model: nn.Module, points: Mapping[str, FeaturePoint] | Iterable[str]) -> None:
        self._model = bare(model)
        self.points = dict(points) if isinstance(points, Mapping) else named_points(self._model, points)
        self._features: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        modules = dict(self._model.named_modules())
        for name, point in self.points.items():
            if point.module not in modules:
                raise ModelError(
                    f"{type(self._model).__name__} has no module {point.module!r} (feature {name})",
                    nearest(point.module, modules),
                )
        self._handles = [
            modules[point.module].register_forward_hook(self._keep(name)) for name, point in self.points.items()
        ]
        self._handles.append(self._model.register_forward_pre_hook(self._forget))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    @property
    def features(self) -> dict[str, Tensor]:
        """By name, of the last forward pass."""
        for name, point in self.points.items():
            if name not in self._features:
                raise ModelError(
                    f"feature {name} is missing",
                    f"the forward pass has not run module {point.module!r}",
                    "tap a compiled network before its first pass; otherwise kdedge layers MODEL lists what runs",
                )
            if name in self._versions and version(self._features[name]) != self._versions[name]:
                raise ModelError(
                    f"feature {name} was overwritten in place",
                    f"an in-place operation, such as nn.ReLU(inplace=True), follows module {point.module!r}",
                    "tap the module that does it instead; kdedge layers MODEL lists them",
                )
        return dict(self._features)

    def clear(self) -> None:
        """Let go of the tensors."""
        self._features.clear()
        self._versions.clear()

    def _forget(self, *_: Any) -> None:
        self.clear()

    def _keep(self, name: str) -> Any:
        path = self.points[name].module

        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name in self._features:
                raise ModelError(
                    f"feature {name} is ambiguous",
                    f"module {path!r} runs more than once in one forward pass",
                    "tap the block around it",
                )
            if not isinstance(output, Tensor):
                raise ModelError(
                    f"feature {name} is not a tensor",
                    f"module {path!r} puts out a {type(output).__name__}",
                    "tap a module inside it",
                )
            self._features[name] = output
            if not torch.compiler.is_compiling():
                self._versions[name] = version(output)

        return hook


def version(tensor: Tensor) -> int:
    """Counts the in-place writes; inference tensors keep no count."""
    return 0 if tensor.is_inference() else tensor._version


def named_points(model: nn.Module, names: Iterable[str]) -> dict[str, FeaturePoint]:
    """Some of a network's own feature points.

    Raises:
        ModelError: an unknown name, or a network that declares none.
    """
    known: dict[str, FeaturePoint] = getattr(model, "feature_points", {})
    points = {}
    for name in names:
        if name not in known:
            raise ModelError(f"{type(model).__name__} has no feature point {name!r}", nearest(name, known))
        points[name] = known[name]
    return points


def feature_points(model: nn.Module, image_shape: Shape) -> dict[str, FeaturePoint]:
    """A network's feature points by name, stage1 (largest map) onwards: its own, or those of a traced forward pass.

    Raises:
        ModelError: no module puts out a map (N, C, H, W).
    """
    declared: dict[str, FeaturePoint] | None = getattr(bare(model), "feature_points", None)
    return dict(declared) if declared else traced_points(layers(bare(model), image_shape), image_shape[1])


def traced_points(run: Iterable[Layer], image_size: int) -> dict[str, FeaturePoint]:
    """The last module at each resolution.

    Not taken are: a module that runs twice; a map that has grown again; 1x1 maps, unless there is nothing else; what is
    inside a block that halves the map and still has the size before; and the largest map when a single convolution
    makes it, which is the stem.
    """
    maps = [layer for layer in run if layer.path and layer.calls == 1 and len(layer.shape) == 3]
    if not maps:
        raise ModelError("the network has no feature maps", "none of its modules puts out a tensor (N, C, H, W)")
    halving = [layer for layer in maps if is_halving_block(layer)]
    trunk = [
        layer for layer in maps if layer.shape[1:] != (1, 1) and not any(is_before(layer, block) for block in halving)
    ]
    last: dict[int, Layer] = {}
    for layer in trunk or maps[-1:]:
        if stride_of(layer, image_size) >= max(last, default=0):
            last[stride_of(layer, image_size)] = layer
    first, *others = last
    if others and sum(layer.is_conv and stride_of(layer, image_size) == first for layer in trunk) == 1:
        del last[first]
    return {
        f"stage{n}": FeaturePoint(last[stride].path, last[stride].shape[0], stride) for n, stride in enumerate(last, 1)
    }


def is_halving_block(layer: Layer) -> bool:
    return layer.kind != "Sequential" and layer.input is not None and round(layer.input[1] / layer.shape[1]) == 2


def is_before(layer: Layer, block: Layer) -> bool:
    """Whether a layer is inside a block that halves the map, ahead of the halving."""
    return layer.path.startswith(f"{block.path}.") and layer.shape[1] > block.shape[1]


def stride_of(layer: Layer, image_size: int) -> int:
    """To the nearest power of two: padding and rounding make sides a little off."""
    return 1 << max(0, round(log2(image_size / layer.shape[1])))


def match_stages(student: Mapping[str, FeaturePoint], teacher: Mapping[str, FeaturePoint]) -> list[tuple[str, str]]:
    """Pairs (student's, teacher's) of feature points of one stride; of several at a stride, the deepest.

    Raises:
        ModelError: no stride in common.
    """
    deepest = {point.stride: name for name, point in teacher.items()}
    mine = {point.stride: name for name, point in student.items()}
    pairs = [(mine[stride], deepest[stride]) for stride in sorted(mine) if stride in deepest]
    if not pairs:
        raise ModelError(
            "student and teacher have no feature maps of one size",
            f"strides {', '.join(map(str, sorted(mine)))} against {', '.join(map(str, sorted(deepest)))}",
            "name the stages in the method's options, or take a student with the teacher's stem",
        )
    return pairs
