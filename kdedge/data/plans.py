"""Which images of a set make an epoch, and in which order."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from kdedge.data.augment import generator
from kdedge.data.boxes import presence


class Plan(ABC):
    """Which images make which batch of an epoch."""

    batch: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def order(self, epoch: int) -> Tensor:
        """Positions in the set, batch after batch."""


@dataclass(frozen=True)
class InOrder(Plan):
    """Every image once, the last batch smaller."""

    images: int
    batch: int

    def __len__(self) -> int:
        return ceil(self.images / self.batch)

    def order(self, epoch: int) -> Tensor:  # noqa: ARG002
        return torch.arange(self.images)


@dataclass(frozen=True)
class Shuffled(Plan):
    """An equal share for every rank, no image twice; only full batches, unless the share is smaller than one."""

    images: int
    batch: int
    seed: int
    rank: int
    world: int

    def __len__(self) -> int:
        return max(1, self.images // self.world // self.batch)

    def order(self, epoch: int) -> Tensor:
        shared = self.images // self.world * self.world
        everyone = torch.randperm(self.images, generator=generator(self.seed, epoch))
        return everyone[self.rank : shared : self.world][: len(self) * self.batch]


@dataclass(frozen=True, eq=False)
class Repeated(Shuffled):
    """As many images as ever, drawn among copies: an image has as many as its repeat factor, rounded by chance.

    A. Gupta, P. Dollar, R. Girshick: LVIS, CVPR 2019, repeat factor sampling; there the epoch is longer instead.
    """

    factors: Tensor
    """(N,), at least 1."""

    def order(self, epoch: int) -> Tensor:
        random = generator(self.seed, epoch)
        whole = self.factors.floor()
        copies = whole + (torch.rand(self.images, generator=random) < self.factors - whole)
        drawn = torch.arange(self.images).repeat_interleave(copies.long())
        everyone = drawn[torch.randperm(len(drawn), generator=random)]
        shared = self.images // self.world * self.world
        return everyone[self.rank : shared : self.world][: len(self) * self.batch]


def repeat_factors(labels: Tensor, threshold: float) -> Tensor:
    """(N,) float64: the largest of max(1, sqrt(threshold / f)) over an image's classes, 1 without any.

    Here f is the share of the images that have the class (LVIS, section 4.2, equation 1).
    """
    present = presence(labels)
    shares = present.double().mean(dim=0)
    of_class = (threshold / shares).sqrt().clamp(min=1)
    return torch.where(present, of_class, 1.0).amax(dim=1)
