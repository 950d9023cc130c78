"""The sets that are read into memory: small images, all of one size.

Downloading is left to the user; torchvision checks the files that it reads against their published hashes.
"""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10, CIFAR100, STL10, SVHN, FashionMNIST

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data
from kdedge.data.arrays import Array, memory_splits
from kdedge.data.build import DATASETS, carve
from kdedge.data.locate import layout_of
from kdedge.data.sets import Splits

DIGITS_TEST = 360
DIGITS = tuple("0123456789")
UBYTE = b"\x00\x00\x08"


@DATASETS.register("digits")
def digits(source: Path, _: Data) -> Splits:
    """1,797 scanned digits, 8x8 gray: 1,437 to train and a fixed 360 to test, the same share of each class.

    E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bundled = load_digits()
    images = np.rint(bundled.images * (255 / 16)).astype(np.uint8)
    train, test = carve(bundled.target, DIGITS_TEST / len(images), seed=0)
    return memory_splits(source, DIGITS, (images[train], bundled.target[train]), (images[test], bundled.target[test]))


@DATASETS.register("cifar10")
def cifar10(source: Path, _: Data) -> Splits:
    """A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009."""
    train, test = torchvision_parts("cifar10", source, lambda train: CIFAR10(source.parent, train=train))
    return memory_splits(source, tuple(train.classes), *((part.data, np.array(part.targets)) for part in (train, test)))


@DATASETS.register("cifar100")
def cifar100(source: Path, _: Data) -> Splits:
    """A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.  The 100 fine labels."""
    train, test = torchvision_parts("cifar100", source, lambda train: CIFAR100(source.parent, train=train))
    return memory_splits(source, tuple(train.classes), *((part.data, np.array(part.targets)) for part in (train, test)))


@DATASETS.register("svhn")
def svhn(source: Path, _: Data) -> Splits:
    """Y. Netzer et al.: Reading Digits in Natural Images with Unsupervised Feature Learning, 2011."""
    parts = torchvision_parts("svhn", source, lambda train: SVHN(source.parent, "train" if train else "test"))
    return memory_splits(source, DIGITS, *((part.data.transpose(0, 2, 3, 1), part.labels) for part in parts))


@DATASETS.register("stl10")
def stl10(source: Path, _: Data) -> Splits:
    """A. Coates, H. Lee, A. Y. Ng: An Analysis of Single-Layer Networks, AISTATS 2011.  The labeled images."""
    train, test = torchvision_parts("stl10", source, lambda train: STL10(source.parent, "train" if train else "test"))
    if not hasattr(train, "classes"):
        raise incomplete("stl10", source, f"{STL10.class_names_file} is missing")
    return memory_splits(
        source, tuple(train.classes), *((part.data.transpose(0, 2, 3, 1), part.labels) for part in (train, test))
    )


@DATASETS.register("fashion_mnist")
def fashion_mnist(source: Path, _: Data) -> Splits:
    """H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, 2017, arXiv:1708.07747.  IDX files, gzipped or not."""
    train, test = (
        (read_idx(source, f"{part}-images-idx3-ubyte"), read_idx(source, f"{part}-labels-idx1-ubyte"))
        for part in ("train", "t10k")
    )
    return memory_splits(source, tuple(FashionMNIST.classes), train, test)


def torchvision_parts(name: str, source: Path, read: Callable[[bool], Any]) -> tuple[Any, Any]:
    """torchvision's own (train, test)."""
    try:
        return read(True), read(False)
    except RuntimeError as error:
        raise incomplete(name, source, str(error).split(" You can")[0]) from None


def incomplete(name: str, source: Path, why: str) -> DataError:
    fix = layout_of(name).get.format(root=source.parent)
    return DataError(f"{source} is incomplete or damaged", why, f"{fix}   (after rm -r {source})")


def read_idx(folder: Path, name: str) -> Array:
    """An IDX file of unsigned bytes: three bytes of type, one of rank, big-endian uint32 sizes, then the data."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)
    if path is None:
        raise DataError(f"{folder} has neither {name} nor {name}.gz", "the set has four such files", f"ls {folder}")
    content = unpacked(path)
    rank = content[3] if len(content) > 3 else 0
    shape = np.frombuffer(content[4 : 4 + 4 * rank], ">u4").astype(int)
    if content[:3] != UBYTE or len(content) != 4 + 4 * rank + shape.prod():
        raise DataError(
            f"{path} is not an IDX file of bytes, or is cut off",
            f"it has {len(content)} bytes",
            f"rm {path}   (and get it again)",
        )
    data: NDArray[np.uint8] = np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * rank).reshape(shape)
    return data


def unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a whole gzip file", str(error), f"rm {path}   (and get it again)") from None
