"""A data set as training takes it: train, validation and test images, their names and their normalization."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdedge.core.console import warn
from kdedge.core.errors import DataError
from kdedge.core.quality import Task
from kdedge.core.recipe import Augment, Data, Normalize
from kdedge.core.registry import Registry
from kdedge.data.boxes import classes_of, fitted, scale_to_fit, show_image, strata, whole
from kdedge.data.decode import decode, eval_view, pixels
from kdedge.data.locate import locate, readable

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CHUNK = 1024


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory."""

    images: Tensor
    """(N, C, H, W) uint8."""
    labels: Tensor
    """(N,) int64."""
    indices: Tensor
    """(N,) int64, positions in the full training set or test set."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def subset(self, positions: Tensor) -> Self:
        return replace(self, **{each.name: getattr(self, each.name)[positions] for each in fields(self)})

    def sample(self) -> Tensor:
        """The first image, (1, C, H, W) uint8."""
        return self.images[:1]


@dataclass(frozen=True, eq=False)
class BoxSet(ImageSet):
    """Pictures with boxes, in memory, each in the top left of its gray square.

    `labels` are targets (N, M, 5) float32 as data/boxes.py has them, in pixels of the square.
    """

    sizes: Tensor
    """(N, 2) int64, height and width of the pictures before they were scaled."""

    def load(self, position: int) -> tuple[Tensor, Tensor]:
        """The picture without what is gray around it, (3, H, W) uint8, and its target (M, 5) in its pixels."""
        before_height, before_width = self.sizes[position].tolist()
        height, width = fitted(before_height, before_width, self.images.shape[2])
        return self.images[position, :, :height, :width], self.labels[position]


@dataclass(frozen=True, eq=False)
class FolderSet:
    """Image files, decoded when a batch asks for them and cropped to image_size x image_size."""

    paths: tuple[Path, ...]
    labels: Tensor
    """(N,) int64."""
    indices: Tensor
    """(N,) int64, positions in the full training set or test set."""
    image_size: int

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.image_size, self.image_size

    def subset(self, positions: Tensor) -> Self:
        columns = {each.name: getattr(self, each.name) for each in fields(self)}
        chosen: dict[str, Any] = {
            name: column[positions] for name, column in columns.items() if isinstance(column, Tensor)
        }
        return replace(self, paths=tuple(self.paths[position] for position in positions.tolist()), **chosen)

    def load(self, position: int) -> tuple[Any, Tensor]:
        """The image as its file has it, and its label.

        Raises:
            DataError: it cannot be decoded; the message names the file.
        """
        return decode(self.paths[position]), self.labels[position]

    def sample(self) -> Tensor:
        """The first image, (1, 3, H, W) uint8."""
        return eval_view(self.image_size)(decode(self.paths[0]))[None]


@dataclass(frozen=True, eq=False)
class BoxFolder(FolderSet):
    """Files of pictures with boxes, decoded when a batch asks for them and put into the top left of a gray square.

    `labels` are targets (N, M, 5) float32 as data/boxes.py has them, in pixels of the square.
    """

    sizes: Tensor
    """(N, 2) int64, height and width of the pictures in their files."""

    def load(self, position: int) -> tuple[Tensor, Tensor]:
        """The picture (3, H, W) uint8, and its target (M, 5) in its pixels."""
        picture, target = pixels(decode(self.paths[position])), self.labels[position].clone()
        target[:, 1:] /= scale_to_fit(picture.shape[1], picture.shape[2], self.image_size)
        return picture, target

    def sample(self) -> Tensor:
        picture, _ = self.load(0)
        return show_image(picture, whole(picture), self.image_size)[None]


Part = ImageSet | FolderSet


class Fault(NamedTuple):
    """What was found wrong with a set's files, and left out."""

    reason: str
    times: int
    places: tuple[str, ...]
    """The first few."""


@dataclass(frozen=True, eq=False)
class Splits:
    """A set as it was published."""

    train: Part
    test: Part
    labels: tuple[str, ...]
    validation: Part | None = None
    """Where the set says what to validate on."""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """`validation` comes out of the published training images, unless the set has its own; every choice is made on it,
    never on `test`."""

    name: str
    train: Part
    validation: Part
    test: Part
    labels: tuple[str, ...]
    """Class names, by label."""
    normalize: Normalize
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    faults: tuple[Fault, ...] = ()

    @property
    def task(self) -> Task:
        return "detect" if isinstance(self.train, BoxSet | BoxFolder) else "classify"


Reader = Callable[[Path, Data], Splits]
"""Reads a set from the file or folder where `locate` found it."""

DATASETS: Registry[Reader] = Registry("data set", "kdedge.data")


def build_data(spec: Data, seed: int) -> Dataset:
    """Read the set and carve the validation images out of the training images.

    The seed decides which ones.  Without `spec.normalize` the images are normalized by the statistics of the whole
    published training set when they are in memory, and by ImageNet's when they are a folder of large images or have
    boxes.  What is wrong with single boxes or pictures is warned of once.

    Raises:
        DataError: the set is missing or broken, or the data section does not fit it.
    """
    source = locate(spec)
    with readable(source):
        splits = DATASETS.get("arrays" if source.suffix == ".npz" else spec.name)(source, spec)
    check_options(spec, splits.train)
    for fault in splits.faults:
        warn_once(f"{spec.name}: {fault.times} x {fault.reason}, {fault.places[0]} first")
    published = splits.train
    first = torch.arange(min(len(published), spec.train_limit or len(published)))
    if splits.validation:
        train, validation = published.subset(first), splits.validation
    else:
        stay, aside = map(torch.from_numpy, carve(strata(published.labels)[first].numpy(), spec.validation, seed))
        train, validation = published.subset(stay), published.subset(aside)
    check_carved(spec, train, validation, splits.labels)
    return Dataset(
        name=spec.name,
        train=train,
        validation=validation,
        test=splits.test,
        labels=splits.labels,
        normalize=spec.normalize or statistics(published, source),
        image_shape=published.image_shape,
        faults=splits.faults,
    )


@cache
def warn_once(text: str) -> None:
    warn(text)


def carve(labels: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted positions of what stays and of what is set aside: that share of all, of each class within one image."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    taken = np.diff(np.rint(np.arange(len(labels) + 1) * share)) > 0  # evenly spaced, so every class gives its share
    return np.sort(by_class[~taken]), np.sort(by_class[taken])


def statistics(part: Part, source: Path) -> Normalize:
    """Mean and standard deviation of every channel over all pixels; ImageNet's for large images, or with boxes."""
    if isinstance(part, FolderSet | BoxSet):
        return IMAGENET
    total = torch.zeros(part.image_shape[0], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for chunk in torch.split(part.images, CHUNK):
        pixels = chunk.double()  # sums of whole numbers: exact below 2^53
        total += pixels.sum(dim=(0, 2, 3))
        squares += pixels.square().sum(dim=(0, 2, 3))
    count = part.images.numel() // len(total)
    mean = total / count
    variance = squares / count - mean.square()
    if (variance <= 0).any():
        channel = int((variance <= 0).nonzero()[0])
        raise DataError(
            f"{source}: channel {channel} has one value in every training image",
            "it cannot be normalized",
            "give data.normalize",
        )
    return Normalize(mean=tuple((mean / 255).tolist()), std=tuple((variance.sqrt() / 255).tolist()))


def check_options(spec: Data, part: Part) -> None:
    """Raises DataError when the data section asks for what this kind of set does not do."""
    channels, height, width = part.image_shape
    check_augment(spec, part)
    if isinstance(part, ImageSet) and spec.image_size and {spec.image_size} != {height, width}:
        why = f"the images of {spec.name} are {width}x{height} and used as they are"
        raise DataError(f"data.image_size is {spec.image_size}", why, "take image_size out of the data section")
    if spec.normalize and len(spec.normalize.mean) != channels:
        why = f"the images of {spec.name} have {channels}"
        raise DataError(
            f"data.normalize is for {len(spec.normalize.mean)} channels",
            why,
            f"give {channels} values of mean and of std",
        )


def check_augment(spec: Data, part: Part) -> None:
    """Raises DataError for an option of augmentation, or of boxes, that would change nothing."""
    augment, usual = spec.augment, Augment()
    if isinstance(part, FolderSet) and augment.crop_padding:
        why = f"{spec.name} is a folder of images, cropped as crop_scale says"
        raise DataError("data.augment.crop_padding is for sets in memory", why, "--set data.augment.crop_padding=0")
    boxed = isinstance(part, BoxSet | BoxFolder)
    for name in ("crop_padding", "crop_scale") if boxed else ("zoom", "iou_crop", "color"):
        if getattr(augment, name) != getattr(usual, name):
            why = f"{spec.name} has boxes, which zoom and iou_crop move" if boxed else f"{spec.name} has none"
            what = f"data.augment.{name} is for sets with{'out' if boxed else ''} boxes"
            raise DataError(what, why, f"take {name} out of data.augment")
    if spec.classes and not boxed:
        raise DataError("data.classes is for sets with boxes", f"{spec.name} has none", "take classes out of data")
    if augment.zoom[0] > augment.zoom[1]:
        low, high = augment.zoom
        raise DataError(
            "data.augment.zoom is empty", f"{low} is above {high}", f"--set data.augment.zoom=[{high},{low}]"
        )


def check_carved(spec: Data, train: Part, validation: Part, names: tuple[str, ...]) -> None:
    """Raises DataError when the data section leaves a class without training images, or no validation image."""
    limit = f"data.train_limit {spec.train_limit} with " if spec.train_limit else ""
    what, why = f"{limit}data.validation {spec.validation}", f"of the training images {len(train)} are left"
    absent = np.flatnonzero(np.bincount(classes_of(train.labels).numpy(), minlength=len(names)) == 0)
    if len(absent):
        fix = "raise data.train_limit" if limit else "lower data.validation"
        raise DataError(f"{what} leaves none of class {names[absent[0]]!r} to train on", why, fix)
    if not len(classes_of(validation.labels)):
        objects = " with an object" if len(validation) else ""
        raise DataError(f"{what} leaves no validation image{objects}", why, "raise data.validation")
