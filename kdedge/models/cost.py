"""What a network costs: parameters, multiply-accumulates of convolutions and linear layers, bytes of weights."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdedge.core.errors import ModelError

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


@dataclass(frozen=True)
class Cost:
    """Of one image in eval mode."""

    params: int
    macs: int
    weight_bytes: int
    """Parameters and buffers as they are held now."""


@dataclass(frozen=True)
class Layer:
    """One module as a forward pass met it, in the order in which modules finish."""

    path: str
    kind: str
    is_conv: bool
    shape: tuple[int, ...]
    """Of its output, without the batch; empty when that is not a tensor."""
    input: tuple[int, ...] | None
    """Of its first input, likewise; None when that is not a feature map."""
    params: int
    macs: int
    calls: int


def cost(model: nn.Module, image_shape: Shape) -> Cost:
    """Parameters, MACs and bytes of a network; one that lives on the meta device will do.

    Raises:
        ModelError: the network does not run on such images.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        run_once(model, image_shape)
    held = [*model.parameters(), *model.buffers()]
    return Cost(
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=counter.get_total_flops() // 2,
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in held),
    )


def layers(model: nn.Module, image_shape: Shape) -> list[Layer]:
    """Every module that one forward pass runs; a module that runs twice stands where it ran last.

    Raises:
        ModelError: the network does not run on such images.
    """
    calls: Counter[str] = Counter()
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]] = {}

    def watch(path: str) -> Any:
        def hook(_module: nn.Module, inputs: Any, output: Any) -> None:
            calls[path] += 1
            shapes.pop(path, None)
            given = inputs[0] if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4 else None
            shapes[path] = (
                tuple(output.shape[1:]) if isinstance(output, Tensor) else (),
                None if given is None else tuple(given.shape[1:]),
            )

        return hook

    modules = dict(model.named_modules())
    handles = [module.register_forward_hook(watch(path)) for path, module in modules.items()]
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            run_once(model, image_shape)
    finally:
        for handle in handles:
            handle.remove()
    flops = {
        name.partition(".")[2]: sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name != "Global"
    }
    return [
        Layer(
            path=path,
            kind=type(modules[path]).__name__,
            is_conv=isinstance(modules[path], nn.Conv2d),
            shape=shape,
            input=given,
            params=sum(parameter.numel() for parameter in modules[path].parameters()),
            macs=flops.get(path, 0) // 2,
            calls=calls[path],
        )
        for path, (shape, given) in shapes.items()
    ]


def run_once(model: nn.Module, image_shape: Shape) -> Any:
    """The output for one black image, in eval mode and without gradients.

    Raises:
        ModelError: the network does not run on such images.
    """
    tensor = next(model.parameters(), torch.empty(0))
    image = torch.zeros(1, *image_shape, device=tensor.device, dtype=tensor.dtype)
    try:
        with eval_mode(model), torch.no_grad():
            return model(image)
    except (RuntimeError, ValueError, AssertionError) as error:
        size = "x".join(map(str, image_shape))
        raise ModelError(
            f"{type(model).__name__} does not run on images of {size}",
            (str(error) or type(error).__name__).splitlines()[0],
        ) from error


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
