"""The teachers of a training: frozen, in eval mode, each fed what it was trained on."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from kdedge.core.recipe import Normalize
from kdedge.data.loader import Normalizer
from kdedge.models.features import FeaturePoint, FeatureTap

Answer = tuple[Tensor, dict[str, Tensor]]
"""A teacher's logits and features; plain, as what goes into a wrapped module must be."""


class FrozenTeacher(nn.Module):
    """A network that only answers; `train()` leaves it, and so its batch norms, in eval mode."""

    model: nn.Module

    def __init__(self, model: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.normalize = Normalizer(normalize)

    def train(self, mode: bool = True) -> "FrozenTeacher":  # noqa: ARG002
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) pixels, uint8 -> (N, classes)."""
        logits: Tensor = self.model(self.normalize(images))
        return logits


class Staff:
    """The teachers that a phase listens to, tapped inside a with-block.

    Args:
        wanted: for each teacher the feature points to tap, or None where nobody listens: then it is not asked.
    """

    def __init__(self, teachers: Sequence[FrozenTeacher], wanted: Sequence[Mapping[str, FeaturePoint] | None]) -> None:
        self._taps = [
            (teacher, FeatureTap(teacher.model, points)) if points is not None else None
            for teacher, points in zip(teachers, wanted, strict=True)
        ]
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for tapped in self._taps:
            if tapped:
                self._open.enter_context(tapped[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def ask(self, images: Tensor) -> list[Answer | None]:
        """What each teacher makes of (N, C, H, W) pixels, uint8; None for those that nobody listens to."""
        return [(tapped[0](images), tapped[1].features) if tapped else None for tapped in self._taps]


def mean_answer(answers: Sequence[Answer | None]) -> Answer:
    """Several teachers as one: the mean of their logits, and no features."""
    logits = [answer[0].float() for answer in answers if answer]
    return torch.stack(logits).mean(dim=0), {}
