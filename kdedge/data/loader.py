"""Batches of a data set on the device that trains, already cropped and mirrored.

An epoch's content follows from (seed, epoch, rank, world) alone: not from the device, the number of workers or any
global random state, all of which are left as they were.  Where there are fixed views, an image in an epoch follows from
its index and the number of the view alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from kdedge.core.errors import DataError
from kdedge.core.recipe import Augment, Normalize
from kdedge.data.augment import VIEWS, Draws, apply, draw, draw_view, generator, mix
from kdedge.data.boxes_augment import BoxView
from kdedge.data.decode import View, eval_view, train_view
from kdedge.data.plans import InOrder, Plan, Repeated, Shuffled, repeat_factors
from kdedge.data.sets import BoxFolder, BoxSet, FolderSet, ImageSet, Part

AUGMENT = 1
"""Parts an epoch's augmentation from its shuffling, in the key of the random numbers."""


class Batch(NamedTuple):
    images: Tensor
    """(N, C, H, W) uint8."""
    labels: Tensor
    """(N,) int64, or targets (N, M, 5) float32 as data/boxes.py has them."""
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


Item = tuple[Tensor, Tensor]
"""An image, and its label or target."""


class DecodedImages(TorchDataset[Item | Problem]):
    """What a worker process does.  A broken file is told, not raised: an exception from a worker arrives as text."""

    def __init__(self, part: FolderSet | BoxSet, view: Callable[[Any, Tensor], Item], seed: int) -> None:
        self.part, self.view, self.seed = part, view, seed

    def __getitem__(self, key: Key) -> Item | Problem:
        epoch, position = key
        try:
            image, label = self.part.load(position)
        except DataError as error:
            return error.args
        with torch.random.fork_rng(devices=[]):  # the views draw from the global generator
            torch.default_generator.manual_seed(mix(self.seed, epoch, int(self.part.indices[position])))
            return self.view(image, label)


def labelled(view: View, image: Image, label: Tensor) -> Item:
    """What a view that moves no box makes of both."""
    return view(image), label


class Requests:
    """What the workers are asked for, batch by batch; set anew for every epoch, so that the workers can stay."""

    def __init__(self, batch: int) -> None:
        self.batch, self.epoch, self.order = batch, 0, torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> Iterator[list[Key]]:
        for positions in torch.split(self.order, self.batch):
            yield [(self.epoch, position) for position in positions.tolist()]


def collate(items: list[Item | Problem]) -> Item | Problem:
    problem = next((item for item in items if isinstance(item[0], str)), None)
    return problem or tuple(map(torch.stack, zip(*items, strict=True)))  # type: ignore[arg-type]


class FolderBatches(Batches):
    """Decoded and cropped by worker processes, which live as long as this object."""

    def __init__(
        self,
        part: FolderSet | BoxSet,
        plan: Plan,
        device: torch.device,
        view: Callable[[Any, Tensor], Item],
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
        for loaded, rows in zip(self.loader, torch.split(order.to(self.device), self.plan.batch), strict=True):
            if isinstance(loaded[0], str):  # a problem
                raise DataError(*loaded)
            images, labels = (column.to(self.device, non_blocking=True) for column in loaded)
            yield Batch(images, labels, self.indices[rows])


def train_batches(
    part: Part,
    augment: Augment,
    batch: int,
    seed: int,
    device: torch.device,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    repeat_threshold: float | None = None,
) -> Batches:
    """Shuffled and augmented batches of this rank's share, with a threshold by repeat factors (data/plans.py).

    Args:
        workers: processes for a folder of large images, or for boxes that move.

    Raises:
        DataError: there are fewer images than ranks.
    """
    if len(part) < world:
        raise DataError(
            f"{len(part)} training images for {world} devices", "each device needs at least one", "--set run.devices=1"
        )
    plan = Shuffled(len(part), batch, seed, rank, world)
    if repeat_threshold:
        plan = Repeated(len(part), batch, seed, rank, world, repeat_factors(part.labels, repeat_threshold))
    return augmented(part, plan, augment, seed, device, workers)


def view_batches(part: Part, augment: Augment, batch: int, device: torch.device, workers: int = 0) -> Batches:
    """Every image once, in the set's order; the epoch of a view's number is that view."""
    return augmented(part, InOrder(len(part), batch), augment, 0, device, workers)


def augmented(part: Part, plan: Plan, augment: Augment, seed: int, device: torch.device, workers: int) -> Batches:
    if isinstance(part, BoxSet | BoxFolder):
        return FolderBatches(part, plan, device, BoxView(part.image_shape[1], augment), seed, workers, augment.views)
    if isinstance(part, FolderSet):
        view = partial(labelled, train_view(part.image_size, augment))
        return FolderBatches(part, plan, device, view, seed, workers, augment.views)
    return MemoryBatches(part, plan, device, augment, seed)


def eval_batches(part: Part, batch: int, device: torch.device, workers: int = 0) -> Batches:
    """Every image once, in the set's order, as it is.

    Only files are resized: cropped at the center, or with boxes put into their square whole.
    """
    plan = InOrder(len(part), batch)
    if isinstance(part, BoxFolder):
        return FolderBatches(part, plan, device, BoxView(part.image_size, Augment()), 0, workers)
    if isinstance(part, FolderSet):
        return FolderBatches(part, plan, device, partial(labelled, eval_view(part.image_size)), 0, workers)
    return MemoryBatches(part, plan, device, Augment(), 0)
