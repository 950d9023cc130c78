"""The moving average of a training's weights and buffers."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

Tensors = list[Tensor] | tuple[Tensor, ...]
Blend = Callable[[Tensors, Tensors, Tensor | int], None]


def moving_average(decay: float) -> Blend:
    """For AveragedModel.  Whole numbers, such as indices and counts, have no average: those are the last ones."""
    blend = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(averages: Tensors, current: Tensors, updates: Tensor | int) -> None:
        if averages[0].is_floating_point():
            blend(averages, current, updates)
        else:
            torch._foreach_copy_(averages, current)

    return update
