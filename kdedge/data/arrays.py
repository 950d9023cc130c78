"""Data sets that are arrays: checking them, and the .npz form that every set may have.

The archive holds train_images, test_images (uint8, NHWC or NHW), train_labels, test_labels (integers) and names.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data
from kdedge.data.build import DATASETS
from kdedge.data.sets import ImageSet, Splits

Array = NDArray[Any]
KEYS = ("train_images", "train_labels", "test_images", "test_labels", "names")
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError)
"""What numpy raises for an array that is garbled, or holds objects."""


@DATASETS.register("arrays")
def read_arrays(source: Path, _: Data) -> Splits:
    with open_archive(source) as archive:
        arrays = {key: load_array(source, archive, key) for key in KEYS}
    train, test = ((arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test"))
    return memory_splits(source, class_names(source, arrays["names"]), train, test)


def class_names(source: Path, names: Array) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(
            f"{source}: names is {describe(names)}",
            "class names are a list of text",
            "names=numpy.array(['cat', 'dog'])",
        )
    return tuple(names.tolist())


def archive_outline(path: Path) -> tuple[int, tuple[int, int, int]]:
    """Classes, and (C, H, W) from the header of the training images, which are not read."""
    with open_archive(path) as archive:
        classes = len(class_names(path, load_array(path, archive, "names")))
    with zipfile.ZipFile(path) as members, members.open("train_images.npy") as file:
        read_header = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}[npy.read_magic(file)[0]]
        shape, _, dtype = read_header(file)
    check_images(f"{path}: train", np.broadcast_to(np.zeros((), dtype), shape))  # of that shape, and no memory
    height, width, channels = (*shape[1:], 1)[:3]
    return classes, (channels, height, width)


@contextmanager
def open_archive(path: Path) -> Iterator[Any]:
    """The five arrays by name, each loaded when it is asked for.

    Raises:
        DataError: one is missing; pickled objects are never loaded.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise DataError(
                f"{path} is not an .npz archive",
                "it is of another kind, or cut off",
                f"ls -l {path}   (and write it again)",
            )
    with np.load(path, allow_pickle=False) as archive:
        if absent := [key for key in KEYS if key not in archive]:
            raise DataError(
                f"{path} has no {absent[0]}", f"it has {', '.join(archive) or 'nothing'}", f"write {', '.join(KEYS)}"
            )
        yield archive


def load_array(path: Path, archive: Any, key: str) -> Array:
    try:
        array: Array = archive[key]
    except BROKEN as error:
        raise DataError(f"{path}: {key} cannot be read", str(error), f"rm {path}   (and write it again)") from None
    return array


def memory_splits(
    source: Path, names: tuple[str, ...], train: tuple[Array, Array], test: tuple[Array, Array]
) -> Splits:
    """Checked sets from (images, labels) as a reader found them; images are NHWC or NHW.

    Raises:
        DataError: it names the source, and the image or the class that is wrong.
    """
    training, testing = image_set(f"{source}: train", *train, names), image_set(f"{source}: test", *test, names)
    if training.image_shape != testing.image_shape:
        what = f"{source}: train images are {training.image_shape} and test images {testing.image_shape}"
        raise DataError(what, "one network sees both", "write both in one size")
    check_classes(source, training.labels.numpy(), names)
    return Splits(training, testing, names)


def image_set(where: str, images: Array, labels: Array, names: tuple[str, ...]) -> ImageSet:
    check_images(where, images)
    check_labels(where, labels, names)
    if len(images) != len(labels):
        raise DataError(
            f"{where}_images has {len(images)} entries, and {len(labels)} labels",
            "each image needs one label",
            "write both again",
        )
    channels_last = images if images.ndim == 4 else images[..., None]
    pixels = torch.from_numpy(np.ascontiguousarray(channels_last.transpose(0, 3, 1, 2)))
    return ImageSet(pixels, torch.from_numpy(labels.astype(np.int64)), torch.arange(len(labels)))


def check_images(where: str, images: Array) -> None:
    fits = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if images.dtype != np.uint8 or not fits:
        raise DataError(
            f"{where}_images is {describe(images)}",
            "images are uint8 of shape (N, H, W, 3), (N, H, W, 1) or (N, H, W)",
            "convert it",
        )
    if 0 in images.shape:
        raise DataError(f"{where}_images is {describe(images)}", "there are no images in it", "write it again")


def check_labels(where: str, labels: Array, names: tuple[str, ...]) -> None:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{where}_labels is {describe(labels)}", "labels are integers of shape (N,)", "labels.astype('int64')"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        why = f"there are {len(names)} classes, 0 to {len(names) - 1}, and {len(wrong)} such labels"
        raise DataError(
            f"{where}_labels[{wrong[0]}] is {labels[wrong[0]]}", why, "correct the labels, or add the missing names"
        )


def check_classes(source: Path, labels: NDArray[np.int64], names: tuple[str, ...]) -> None:
    """Raises DataError when a class has no training image."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(empty):
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise DataError(
            f"{source}: class {names[empty[0]]!r} has no training images{more}",
            "every class needs some",
            "add images, or drop the class",
        )


def describe(array: Array) -> str:
    return f"{array.dtype} of shape {array.shape}"
