"""Batches of a data set on the device that trains, already cropped and mirrored.

An epoch's content follows from (seed, epoch, rank, world) alone: not from the device, the number of workers or any
global random state, all of which are left as they were.  Where there are fixed views, an image in an epoch follows from
its index and the number of the view alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from kdedge.core.errors import DataError
from kdedge.core.recipe import Augment, Normalize
from kdedge.data.augment import VIEWS, Draws, apply, draw, draw_view, generator, mix
from kdedge.data.build import FolderSet, ImageSet, Part
from kdedge.data.decode import View, decode, eval_view, train_view

AUGMENT = 1
"""Parts an epoch's augmentation from its shuffling, in the key of the random numbers."""


class Batch(NamedTuple):
    images: Tensor
    """(N, C, H, W) uint8."""
    labels: Tensor
    """(N,) int64."""
    indices: Tensor
    """(N,) int64, positions in the full training set or test set."""


class Normalizer(nn.Module):
    """Pixels 0..255, (N, C, H, W) of any type -> float32 (pixel / 255 - mean) / std, in the same memory format."""

    scale: Tensor
    shift: Tensor

    def __init__(self, normalize: Normalize) -> None:
        super().__init__()
        mean, std = (torch.tensor(value).reshape(1, -1, 1, 1) for value in (normalize.mean, normalize.std))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images, self.scale)


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


class Batches(ABC):
    """Epochs of batches; `len()` is the number of batches in one."""

    def __init__(self, part: Part, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.labels, self.indices = part.labels.to(device), part.indices.to(device)

    def __len__(self) -> int:
        return len(self.plan)

    @abstractmethod
    def epoch(self, number: int) -> Iterator[Batch]: ...


class MemoryBatches(Batches):
    """The images lie on the device when they fit there, and are copied batch by batch from pinned memory otherwise."""

    def __init__(self, part: ImageSet, plan: Plan, device: torch.device, augment: Augment, seed: int) -> None:
        super().__init__(part, plan, device)
        self.augment, self.seed = augment, seed
        self.resident = fits(part.images, device)
        self.images = part.images.to(device) if self.resident else part.images

    def epoch(self, number: int) -> Iterator[Batch]:
        order = self.plan.order(number)
        rows, sources = order.to(self.device), order.to(self.images.device)
        columns = (sources, self.labels[rows], self.indices[rows], *self.draws(number, order).to(self.device))
        for here, labels, indices, *drawn in zip(*(torch.split(c, self.plan.batch) for c in columns), strict=True):
            yield Batch(apply(self.take(here), Draws(*drawn), self.augment), labels, indices)

    def draws(self, number: int, order: Tensor) -> Draws:
        """What happens to these images in an epoch."""
        if self.augment.views is None:
            return draw(len(self.images), self.augment, generator(self.seed, number, AUGMENT)).rows(order)
        indices = self.indices.cpu()
        return draw_view(int(indices.max()) + 1, self.augment, number % self.augment.views).rows(indices[order])

    def take(self, positions: Tensor) -> Tensor:
        images = self.images.index_select(0, positions)
        return images if self.resident else images.pin_memory().to(self.device, non_blocking=True)


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether the set takes at most half of what the GPU has free, which leaves the rest to training."""
    return device.type != "cuda" or images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2


Key = tuple[int, int]
"""(epoch, position): enough for a worker to know all that is random about an image."""

Problem = tuple[str, ...]
"""What a DataError says.  The error itself would hold on to its frames, and they to the workers."""


class DecodedImages(TorchDataset[Tensor | Problem]):
    """What a worker process does.  A broken file is told, not raised: an exception from a worker arrives as text."""

    def __init__(self, part: FolderSet, view: View, seed: int) -> None:
        self.part, self.view, self.seed = part, view, seed

    def __getitem__(self, key: Key) -> Tensor | Problem:
        epoch, position = key
        try:
            image = decode(self.part.paths[position])
        except DataError as error:
            return error.args
        with torch.random.fork_rng(devices=[]):  # the views draw from the global generator
            torch.default_generator.manual_seed(mix(self.seed, epoch, int(self.part.indices[position])))
            return self.view(image)


class Requests:
    """What the workers are asked for, batch by batch; set anew for every epoch, so that the workers can stay."""

    def __init__(self, batch: int) -> None:
        self.batch, self.epoch, self.order = batch, 0, torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> Iterator[list[Key]]:
        for positions in torch.split(self.order, self.batch):
            yield [(self.epoch, position) for position in positions.tolist()]


def collate(images: list[Tensor | Problem]) -> Tensor | Problem:
    problem = next((image for image in images if isinstance(image, tuple)), None)
    return problem or torch.stack([image for image in images if isinstance(image, Tensor)])


class FolderBatches(Batches):
    """Decoded and cropped by worker processes, which live as long as this object."""

    def __init__(
        self,
        part: FolderSet,
        plan: Plan,
        device: torch.device,
        view: View,
        seed: int,
        workers: int,
        views: int | None = None,
    ) -> None:
        super().__init__(part, plan, device)
        self.requests, self.views = Requests(plan.batch), views
        self.loader: DataLoader[Any] = DataLoader(
            DecodedImages(part, view, VIEWS if views else seed),
            batch_sampler=self.requests,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else it would draw its workers' seeds from the global one
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        """Raises DataError with the name of a file that cannot be decoded."""
        order = self.plan.order(number)
        self.requests.epoch, self.requests.order = number % self.views if self.views else number, order
        for images, rows in zip(self.loader, torch.split(order.to(self.device), self.plan.batch), strict=True):
            if not isinstance(images, Tensor):  # a problem; the thread that pins memory makes a list of it
                raise DataError(*images)
            yield Batch(images.to(self.device, non_blocking=True), self.labels[rows], self.indices[rows])


def train_batches(
    part: Part,
    augment: Augment,
    batch: int,
    seed: int,
    device: torch.device,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Batches:
    """Shuffled and augmented batches of this rank's share; `workers` are processes for a folder of large images.

    Raises:
        DataError: there are fewer images than ranks.
    """
    if len(part) < world:
        raise DataError(
            f"{len(part)} training images for {world} devices", "each device needs at least one", "--set run.devices=1"
        )
    return augmented(part, Shuffled(len(part), batch, seed, rank, world), augment, seed, device, workers)


def view_batches(part: Part, augment: Augment, batch: int, device: torch.device, workers: int = 0) -> Batches:
    """Every image once, in the set's order; the epoch of a view's number is that view."""
    return augmented(part, InOrder(len(part), batch), augment, 0, device, workers)


def augmented(part: Part, plan: Plan, augment: Augment, seed: int, device: torch.device, workers: int) -> Batches:
    if isinstance(part, FolderSet):
        view = train_view(part.image_size, augment)
        return FolderBatches(part, plan, device, view, seed, workers, augment.views)
    return MemoryBatches(part, plan, device, augment, seed)


def eval_batches(part: Part, batch: int, device: torch.device, workers: int = 0) -> Batches:
    """Every image once, in the set's order, as it is; only files are resized and cropped at the center."""
    plan = InOrder(len(part), batch)
    if isinstance(part, FolderSet):
        return FolderBatches(part, plan, device, eval_view(part.image_size), 0, workers)
    return MemoryBatches(part, plan, device, Augment(), 0)
