"""Where a data set lies, what it consists of, and how to get one that is missing.

Imports no torch, so that a command whose inputs are unchanged is skipped without it.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kdedge.core.errors import DataError, KdedgeError, MissingTool, nearest
from kdedge.core.recipe import Data
from kdedge.core.rundir import cache_folder, digest


class Layout(NamedTuple):
    """How a set lies on disk.  Places are relative to the root, or absolute."""

    places: tuple[str, ...]
    """The first that exists is the set."""
    get: str
    """The line that gets it."""
    beside: tuple[str, ...] = ()
    """Its other files and folders, next to that place."""
    classes: int = 0
    shape: tuple[int, int, int] = (0, 0, 0)
    """(C, H, W) as published; like the classes 0 where the files decide."""
    boxes: bool = False
    """Whether its labels are boxes."""


def torchvision_line(reader: str, call: str = "D('{root}', download=True)") -> str:
    return f'python -c "from torchvision.datasets import {reader} as D; {call}"'


ARRAYS = "numpy.savez('{root}/set.npz', train_images=.., train_labels=.., test_images=.., test_labels=.., names=..)"
FOLDERS = "mkdir -p {root}/train/CLASS {root}/test/CLASS   (and put each class's images there)"
TINY = "curl -LO http://cs231n.stanford.edu/tiny-imagenet-200.zip && unzip tiny-imagenet-200.zip -d {root}"
FASHION = torchvision_line("FashionMNIST") + "   (on Debian: apt install dataset-fashion-mnist)"
DEBIAN = "/usr/share/datasets"
VOC = torchvision_line("VOCDetection", "[D('{root}', '2007', part, download=True) for part in ('trainval', 'test')]")
COCO = (
    "curl -LO 'http://images.cocodataset.org/{{annotations/annotations_trainval2017,zips/train2017,zips/val2017}}.zip'"
    " && unzip '*2017.zip' -d {root}"
)

LAYOUTS = {
    "arrays": Layout(("*.npz",), ARRAYS),
    "cifar10": Layout(("cifar-10-batches-py", "cifar10.npz"), torchvision_line("CIFAR10"), (), 10, (3, 32, 32)),
    "cifar100": Layout(("cifar-100-python", "cifar100.npz"), torchvision_line("CIFAR100"), (), 100, (3, 32, 32)),
    "coco": Layout(
        ("annotations",),
        COCO,
        ("images", *(f"{part}{year}" for part in ("train", "val", "test") for year in ("", "2014", "2017"))),
        boxes=True,
    ),
    "digits": Layout((), 'pip install "kdedge[train]"', (), 10, (1, 8, 8)),
    "fashion_mnist": Layout(
        ("FashionMNIST/raw", "fashion_mnist.npz", f"{DEBIAN}/fashion-mnist"), FASHION, (), 10, (1, 28, 28)
    ),
    "imagefolder": Layout(("train", "imagefolder.npz"), FOLDERS, beside=("test", "val")),
    "stl10": Layout(("stl10_binary", "stl10.npz"), torchvision_line("STL10"), (), 10, (3, 96, 96)),
    "svhn": Layout(
        ("train_32x32.mat", "svhn.npz"),
        torchvision_line("SVHN", "[D('{root}', part, download=True) for part in ('train', 'test')]"),
        ("test_32x32.mat",),
        10,
        (3, 32, 32),
    ),
    "tiny_imagenet": Layout(("tiny-imagenet-200", "tiny_imagenet.npz"), TINY, (), 200, (3, 64, 64)),
    "voc": Layout(
        ("Annotations", "VOCdevkit", "VOC2007", "VOC2012"),
        VOC,
        ("JPEGImages", "ImageSets", "VOC2007", "VOC2012"),
        boxes=True,
    ),
}
"""Every data set by name."""


def data_root(spec: Data) -> Path:
    """data.root, else KDEDGE_DATA, else `data` in the user's cache folder."""
    chosen = spec.root or os.environ.get("KDEDGE_DATA")
    return Path(chosen).expanduser() if chosen else cache_folder() / "data"


def locate(spec: Data) -> Path:
    """The file or folder that the set is read from; for digits, the package that bundles it.

    Raises:
        DataError: it is not there; the message says where it was looked for and how to get it.
    """
    layout, root = layout_of(spec.name), data_root(spec)
    if spec.name == "digits":
        return package_folder("sklearn")
    with readable(root):
        if spec.name == "arrays":
            return only_archive(root)
        for place in layout.places:
            if (root / place).exists():
                return root / place
    looked = ", ".join(str(root / place) for place in layout.places)
    raise missing(spec.name, root, f"looked for {looked}")


def only_archive(root: Path) -> Path:
    if root.is_file():
        return root
    found = sorted(root.glob("*.npz"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            f"{root} has {len(found)} .npz files", names, f"--set data.root={found[0]}   (name the one that is meant)"
        )
    if not found:
        raise missing("arrays", root, f"looked for {root}/*.npz")
    return found[0]


def missing(name: str, root: Path, why: str) -> DataError:
    get = layout_of(name).get.format(root=root)
    return DataError(
        f"no {name} in {root}", why, f"{get}\n  KDEDGE_DATA=FOLDER, or data.root in the recipe, says where it lies"
    )


def layout_of(name: str) -> Layout:
    if name not in LAYOUTS:
        raise KdedgeError(f"unknown data set {name!r}", nearest(name, LAYOUTS))
    return LAYOUTS[name]


def package_folder(package: str) -> Path:
    """Where a package is installed; it is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MissingTool(
            f"{package} is not installed", "the digits data set comes with it", 'pip install "kdedge[train]"'
        )
    return Path(found.origin).parent


def stamp(spec: Data) -> str:
    """What tells one state of the set's files from another: names, sizes and times; for digits the package's version.

    Raises:
        DataError: the set is not there, or cannot be read.
    """
    source = locate(spec)
    if spec.name == "digits":
        return f"scikit-learn {importlib.metadata.version('scikit-learn')}"
    with readable(source):
        return digest([facts(path, source.parent) for path in sorted(contents(spec.name, source))])


def contents(name: str, source: Path) -> Iterator[Path]:
    """Every file of the set."""
    beside = LAYOUTS[name].beside if source.suffix != ".npz" else ()
    for place in dict.fromkeys((source, *(source.parent / other for other in beside))):
        if place.is_file():
            yield place
        for folder, _, files in os.walk(place):
            yield from (Path(folder, file) for file in files)


def facts(path: Path, base: Path) -> tuple[str, int, int]:
    status = path.stat()
    return path.relative_to(base).as_posix(), status.st_size, status.st_mtime_ns


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What the system says of a file that cannot be read, in a user's words."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        raise DataError(f"{place} cannot be read", error.strerror or str(error), f"ls -ld {place}") from None
