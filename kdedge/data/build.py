"""A data set as training takes it: train, validation and test images, their names and their normalization."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdedge.core.console import warn
from kdedge.core.errors import DataError
from kdedge.core.recipe import Augment, Data, Normalize
from kdedge.core.registry import Registry
from kdedge.data.boxes import classes_of, strata
from kdedge.data.locate import locate, readable
from kdedge.data.sets import BoxFolder, BoxSet, Dataset, FolderSet, ImageSet, Part, Splits

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CHUNK = 1024

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
    check_carved(spec, train, validation, splits.labels, splits.validation is not None)
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


def check_carved(spec: Data, train: Part, validation: Part, names: tuple[str, ...], own: bool) -> None:
    """Raises DataError when a class is left without training images, or there is none, or no object, to validate on.

    own: the set says itself what to validate on.
    """
    limit = f"data.train_limit {spec.train_limit}" if spec.train_limit else ""
    what = " with ".join(filter(None, (limit, "" if own else f"data.validation {spec.validation}")))
    why = f"of the training images {len(train)} are left"
    absent = np.flatnonzero(np.bincount(classes_of(train.labels).numpy(), minlength=len(names)) == 0)
    if len(absent):
        fix = "raise data.train_limit" if limit else "add images of it" if own else "lower data.validation"
        raise DataError(f"{what or spec.name} leaves none of class {names[absent[0]]!r} to train on", why, fix)
    if own and not len(classes_of(validation.labels)):
        why, fix = f"{len(validation)} are in its own list", "put images with objects into it"
        raise DataError(f"{spec.name} has no validation image with an object", why, fix)
    if not len(classes_of(validation.labels)):
        objects = " with an object" if len(validation) else ""
        raise DataError(f"{what} leaves no validation image{objects}", why, "raise data.validation")
