"""The sets that are folders of image files, one folder a class."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data
from kdedge.data.arrays import Array, memory_splits
from kdedge.data.build import DATASETS
from kdedge.data.decode import decode
from kdedge.data.sets import FolderSet, Splits

IMAGE_SIZE = 224
Listing = list[tuple[Path, int]]
"""(file, label)"""


@DATASETS.register("imagefolder")
def imagefolder(source: Path, spec: Data) -> Splits:
    """train/CLASS/ and test/CLASS/ (or val/CLASS/), images at any depth; a class's label is its rank by name."""
    root = source.parent
    other = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if other is None:
        raise DataError(
            f"{root} has neither test/ nor val/",
            "the final accuracy needs images of its own",
            f"mkdir -p {root}/test/CLASS",
        )
    names = class_folders(source)
    check_same_classes(source, names, other, class_folders(other))
    train, test = (folder_set(list_images(folder, names), spec.image_size or IMAGE_SIZE) for folder in (source, other))
    return Splits(train, test, names)


@DATASETS.register("tiny_imagenet")
def tiny_imagenet(source: Path, _: Data) -> Splits:
    """Stanford CS231n's 200 classes of 64x64 images, decoded into memory (1.3 GB); its val/ is the test set.

    A class's label is the rank of its WordNet id, as with `imagefolder`; its name is the first of its words.
    """
    ids = class_folders(source / "train")
    words = dict(pairs(source / "words.txt"))
    train = list_images(source / "train", ids)
    test = annotated(source / "val", ids)
    names = tuple(words.get(wnid, wnid).split(",")[0] for wnid in ids)
    return memory_splits(
        source, names, *((decode_all(part), np.array([label for _, label in part])) for part in (train, test))
    )


def class_folders(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    if not names:
        raise DataError(f"{folder} has no class folders", "each class has a folder of images", f"mkdir {folder}/CLASS")
    return names


def check_same_classes(train: Path, train_names: tuple[str, ...], test: Path, test_names: tuple[str, ...]) -> None:
    """Raises DataError with the classes that only one of the two folders has."""
    for here, names, there, others in ((train, train_names, test, test_names), (test, test_names, train, train_names)):
        if alone := sorted(set(names) - set(others)):
            raise DataError(
                f"{there} has no folder {alone[0]!r}",
                f"{here} has {', '.join(alone)}",
                f"mkdir {there / alone[0]}   (and fill it)",
            )


def list_images(folder: Path, names: tuple[str, ...]) -> Listing:
    """Every class's files, one of each class in turn, so that the first N are balanced."""
    found = []
    for label, name in enumerate(names):
        files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
        if not files:
            raise DataError(
                f"{folder / name} has no images",
                f"looked for {', '.join(IMG_EXTENSIONS)}",
                f"rmdir {folder / name}   (or fill it)",
            )
        found += [(rank, label, path) for rank, path in enumerate(files)]
    return [(path, label) for _, label, path in sorted(found)]


def annotated(folder: Path, ids: tuple[str, ...]) -> Listing:
    """The images that val_annotations.txt lists: file name, class and box in a line."""
    labels = {wnid: label for label, wnid in enumerate(ids)}
    listing = folder / "val_annotations.txt"
    rows = list(pairs(listing))
    for number, (_, wnid) in enumerate(rows, start=1):
        if wnid not in labels:
            raise DataError(
                f"{listing}:{number}: unknown class {wnid!r}",
                f"train/ has {len(ids)} other classes",
                "unpack the archive again",
            )
    if not rows:
        raise DataError(f"{listing} lists no images", "it is empty", "unpack the archive again")
    return [(folder / "images" / file, labels[wnid]) for file, wnid in rows]


def pairs(path: Path) -> Iterator[tuple[str, str]]:
    """The first two tab-separated fields of every line."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise DataError(f"{path}:{number}: {line!r} has one field", "it needs two", "unpack the archive again")
        yield fields[0], fields[1]


def folder_set(listing: Listing, size: int) -> FolderSet:
    labels = torch.tensor([label for _, label in listing])
    return FolderSet(tuple(path for path, _ in listing), labels, torch.arange(len(labels)), size)


def decode_all(listing: Listing) -> Array:
    """(N, H, W, 3) uint8; threads share the work, since Pillow decodes without holding the interpreter."""
    shape = np.asarray(decode(listing[0][0])).shape
    images = np.empty((len(listing), *shape), np.uint8)

    def fill(position: int) -> None:
        path = listing[position][0]
        image = np.asarray(decode(path))
        if image.shape != shape:
            raise DataError(
                f"{path} is {image.shape[1]}x{image.shape[0]}",
                f"the others are {shape[1]}x{shape[0]}",
                "unpack the archive again",
            )
        images[position] = image

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(listing))))
    return images
