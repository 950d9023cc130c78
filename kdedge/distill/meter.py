"""Sums of loss terms kept on the device, so that a step never waits for a number."""

from collections.abc import Callable

import torch
from torch import Tensor

from kdedge.core.errors import TrainingError

NEVER = 2**31


Reduce = Callable[[Tensor, str], Tensor]
"""A tensor and how ("min", "mean" or "sum") -> the same over the processes of a training."""


class TermMeter:
    """Means of the named terms over an epoch, and the step at which each first stopped being finite."""

    def __init__(self, reduce: Reduce = lambda tensor, _: tensor) -> None:
        self.reduce = reduce
        self.names: list[str] = []
        self.steps = self.images = 0
        self._sums = self._right = self._broken = torch.empty(0)

    def add(self, total: Tensor, terms: dict[str, Tensor], right: Tensor, images: int) -> None:
        values = torch.stack([total, *terms.values()]).detach().float()
        if not self.names:
            self.names = ["loss", *terms]
            self._sums, self._right = torch.zeros_like(values), torch.zeros_like(right)
            self._broken = torch.full_like(values, NEVER)
        self._sums += values
        self._right += right
        self._broken = self._broken.minimum(torch.where(values.isfinite(), NEVER, float(self.steps)))
        self.steps += 1
        self.images += images

    def check(self, label: str, epoch: int) -> None:
        """Raises TrainingError naming the term that was not finite first; a sum only when no term of it was."""
        broken = self.reduce(self._broken, "min").tolist()
        first = min(broken, default=NEVER)
        if first < NEVER:
            name = next(name for name, step in reversed(list(zip(self.names, broken, strict=True))) if step == first)
            raise TrainingError(
                f"{label}: the loss term {name!r} is not finite",
                f"first in epoch {epoch}, step {int(first) + 1}",
                "lower optimizer.lr, set optimizer.clip_norm, or train with --set run.precision=32-true",
            )

    def means(self) -> dict[str, float]:
        means = self.reduce(self._sums / self.steps, "mean").tolist()
        seen = torch.full_like(self._right, self.images)
        right, images = self.reduce(torch.stack([self._right, seen]), "sum").tolist()
        return dict(zip(self.names, means, strict=True)) | {"train_top1": right / images}
