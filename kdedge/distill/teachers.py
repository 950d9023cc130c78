"""The teachers of a training: frozen, in eval mode, each fed what it was trained on."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
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


class Source(ABC):
    """Where a teacher's answers come from."""

    @abstractmethod
    def ask(self, images: Tensor, indices: Tensor, epoch: int) -> Answer:
        """What it makes of (N, C, H, W) pixels, uint8, of the images with these indices as they are in this epoch."""


class Live(Source):
    """The teacher itself, tapped at these feature points inside a with-block."""

    def __init__(self, teacher: FrozenTeacher, points: Mapping[str, FeaturePoint]) -> None:
        self._teacher, self._tap = teacher, FeatureTap(teacher.model, points)

    def __enter__(self) -> Self:
        self._tap.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tap.__exit__(kind, error, trace)

    def ask(self, images: Tensor, indices: Tensor, epoch: int) -> Answer:  # noqa: ARG002
        return self._teacher(images), self._tap.features


class Keeper(ABC):
    """A teacher's answers to every training image, computed before."""

    @abstractmethod
    def reading(self, names: Iterable[str]) -> AbstractContextManager[Source]:
        """For use in a with-block: its logits, and the features of these names."""


class Staff:
    """The teachers that a phase listens to, asked inside a with-block.

    Args:
        wanted: for each teacher the feature points to tap, or None where nobody listens: then it is not asked.
        kept: for each teacher its kept answers, or None where it is to be asked itself; nothing for all of them.
    """

    def __init__(
        self,
        teachers: Sequence[FrozenTeacher],
        wanted: Sequence[Mapping[str, FeaturePoint] | None],
        kept: Sequence[Keeper | None] = (),
    ) -> None:
        keepers = kept or [None] * len(teachers)
        self._sources = [
            None if points is None else keeper.reading(points) if keeper else Live(teacher, points)
            for teacher, points, keeper in zip(teachers, wanted, keepers, strict=True)
        ]
        self._open = ExitStack()
        self._asked: list[Source | None] = []

    def __enter__(self) -> Self:
        self._asked = [self._open.enter_context(source) if source else None for source in self._sources]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def ask(self, images: Tensor, indices: Tensor, epoch: int) -> list[Answer | None]:
        """What each teacher makes of a batch; None for those that nobody listens to.

        Args:
            images: (N, C, H, W) pixels, uint8.
            indices: (N,) of the images.
            epoch: counted over all phases, as the loader's is; it tells the view of the images.
        """
        return [source.ask(images, indices, epoch) if source else None for source in self._asked]


def mean_answer(answers: Sequence[Answer | None]) -> Answer:
    """Several teachers as one: the mean of their logits, and no features."""
    logits = [answer[0].float() for answer in answers if answer]
    return torch.stack(logits).mean(dim=0), {}
