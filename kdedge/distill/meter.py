"""Loss terms of an epoch, kept on the device, so that a step never waits for a number."""

from collections.abc import Callable

import torch
from torch import Tensor

from kdedge.core.errors import TrainingError

NEVER = 2**31


Reduce = Callable[[Tensor, str], Tensor]
"""A tensor and how ("min", "mean" or "sum") -> the same over the processes of a training."""


class TermMeter:
    """Means of the named terms over an epoch.  Steps only put theirs aside; `check` looks at them and adds them up."""

    def __init__(self, reduce: Reduce = lambda tensor, _: tensor) -> None:
        self.reduce = reduce
        self.names: list[str] = []
        self.counts = False
        self.steps = self.images = 0
        self._new: list[Tensor] = []
        self._sums = torch.zeros(())

    def add(self, total: Tensor, terms: dict[str, Tensor], right: Tensor | None, images: int) -> None:
        """Args:
        right: how many images were; None where there is nothing to count.
        """
        self.names, self.counts = ["loss", *terms], right is not None
        count = torch.zeros_like(total) if right is None else right
        self._new.append(torch.stack([total, *terms.values(), count]).detach())
        self.steps += 1
        self.images += images

    def check(self, label: str, epoch: int) -> None:
        """Raises TrainingError naming the term that was not finite first; a sum only when no term of it was."""
        if not self._new:
            return
        new, self._new = torch.stack(self._new).float(), []  # (steps, terms and right answers)
        self._sums = self._sums + new.sum(0)
        numbers = torch.arange(self.steps - len(new), self.steps, device=new.device)[:, None]
        broken = self.reduce(torch.where(new.isfinite(), NEVER, numbers).amin(0), "min").tolist()
        first = min(broken)
        if first < NEVER:
            name = next(name for name, step in reversed(list(zip(self.names, broken, strict=False))) if step == first)
            raise TrainingError(
                f"{label}: the loss term {name!r} is not finite",
                f"first in epoch {epoch}, step {first + 1}",
                "lower optimizer.lr, set optimizer.clip_norm, or train with --set run.precision=32-true",
            )

    def means(self) -> dict[str, float]:
        """Over all that was checked; train_top1 is the share of right answers, where they are counted."""
        means = dict(zip(self.names, self.reduce(self._sums[:-1] / self.steps, "mean").tolist(), strict=True))
        if not self.counts:
            return means
        seen = torch.full_like(self._sums[-1], self.images)
        right, images = self.reduce(torch.stack([self._sums[-1], seen]), "sum").tolist()
        return means | {"train_top1": right / images}
