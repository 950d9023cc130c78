"""A data set as training takes it: train, validation and test images, their names and their normalization."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data, Normalize
from kdedge.core.registry import Registry
from kdedge.data.decode import decode, eval_view
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

    def subset(self, positions: Tensor) -> "ImageSet":
        return ImageSet(self.images[positions], self.labels[positions], self.indices[positions])

    def sample(self) -> Tensor:
        """The first image, (1, C, H, W) uint8."""
        return self.images[:1]


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

    def subset(self, positions: Tensor) -> "FolderSet":
        paths = tuple(self.paths[position] for position in positions.tolist())
        return FolderSet(paths, self.labels[positions], self.indices[positions], self.image_size)

    def sample(self) -> Tensor:
        """The first image, (1, 3, H, W) uint8."""
        return eval_view(self.image_size)(decode(self.paths[0]))[None]


Part = ImageSet | FolderSet


@dataclass(frozen=True, eq=False)
class Splits:
    """A set as it was published."""

    train: Part
    test: Part
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Dataset:
    """`validation` comes out of the published training images; every choice is made on it, never on `test`."""

    name: str
    train: Part
    validation: Part
    test: Part
    labels: tuple[str, ...]
    """Class names, by label."""
    normalize: Normalize
    image_shape: tuple[int, int, int]
    """(C, H, W)."""


Reader = Callable[[Path, Data], Splits]
"""Reads a set from the file or folder where `locate` found it."""

DATASETS: Registry[Reader] = Registry("data set", "kdedge.data")


def build_data(spec: Data, seed: int) -> Dataset:
    """Read the set and carve the validation images out of the training images.

    The seed decides which ones.  Without `spec.normalize` the images are normalized by the statistics of the whole
    published training set when they are in memory, and by ImageNet's when they are a folder of large images.

    Raises:
        DataError: the set is missing or broken, or the data section does not fit it.
    """
    source = locate(spec)
    with readable(source):
        splits = DATASETS.get("arrays" if source.suffix == ".npz" else spec.name)(source, spec)
    check_options(spec, splits.train)
    published = splits.train
    first = np.arange(min(len(published), spec.train_limit or len(published)))
    stay, aside = carve(published.labels.numpy()[first], spec.validation, seed)
    check_carved(spec, published.labels.numpy()[stay], len(aside), splits.labels)
    return Dataset(
        name=spec.name,
        train=published.subset(torch.from_numpy(stay)),
        validation=published.subset(torch.from_numpy(aside)),
        test=splits.test,
        labels=splits.labels,
        normalize=spec.normalize or statistics(published, source),
        image_shape=published.image_shape,
    )


def carve(labels: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted positions of what stays and of what is set aside: that share of all, of each class within one image."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    taken = np.diff(np.rint(np.arange(len(labels) + 1) * share)) > 0  # evenly spaced, so every class gives its share
    return np.sort(by_class[~taken]), np.sort(by_class[taken])


def statistics(part: Part, source: Path) -> Normalize:
    """Mean and standard deviation of every channel over all pixels; ImageNet's for a folder of large images."""
    if isinstance(part, FolderSet):
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
    if isinstance(part, FolderSet) and spec.augment.crop_padding:
        why = f"{spec.name} is a folder of images, cropped as crop_scale says"
        raise DataError("data.augment.crop_padding is for sets in memory", why, "--set data.augment.crop_padding=0")
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


def check_carved(spec: Data, labels: NDArray[np.int64], aside: int, names: tuple[str, ...]) -> None:
    """Raises DataError when the data section leaves a class without training images, or no validation image."""
    limit = f"data.train_limit {spec.train_limit} with " if spec.train_limit else ""
    what, why = f"{limit}data.validation {spec.validation}", f"of the training images {len(labels)} are left"
    absent = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(absent):
        fix = "raise data.train_limit" if limit else "lower data.validation"
        raise DataError(f"{what} leaves none of class {names[absent[0]]!r} to train on", why, fix)
    if not aside:
        raise DataError(f"{what} leaves no validation image", why, "raise data.validation")
