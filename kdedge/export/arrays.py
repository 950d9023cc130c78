"""Images, labels and image ids as `kdedge export` writes them for all that comes after it; needs no torch."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Arrays(NamedTuple):
    images: NDArray[Any]
    """(N, C, H, W) float32 normalized, or (N, H, W, C) uint8 where the graph prepares them."""
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


def read_arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return Arrays(*(file[name] for name in Arrays._fields))


class Labels(NamedTuple):
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


def read_labels(path: Path) -> Labels:
    """All but the images, which are not even read."""
    with np.load(path, allow_pickle=False) as file:
        return Labels(*(file[name] for name in Labels._fields))
