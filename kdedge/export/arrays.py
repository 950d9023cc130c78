"""Images, labels and image ids as `kdedge export` writes them for all that comes after it; needs no torch."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Arrays(NamedTuple):
    images: NDArray[Any]
    """(N, C, H, W) float32 normalized, or (N, H, W, C) uint8 where the graph prepares them."""
    labels: NDArray[Any]
    """(N,) int64; of pictures with boxes (N, M, 5) float32: class, x1, y1, x2, y2 in pixels of the image, and class -1
    in rows beyond a picture's boxes."""
    ids: NDArray[np.int64]
    scales: NDArray[np.float64] | None = None
    """(N,) by what each picture with boxes was scaled to its image; None for classifiers."""

    def first(self, count: int | None) -> "Arrays":
        """The first images, or all of them."""
        scales = None if self.scales is None else self.scales[:count]
        return Arrays(self.images[:count], self.labels[:count], self.ids[:count], scales)


def read_arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return Arrays(**{name: file[name] for name in Arrays._fields if name in file})


class Labels(NamedTuple):
    """As `Arrays` has them."""

    labels: NDArray[Any]
    ids: NDArray[np.int64]


def read_labels(path: Path) -> Labels:
    """All but the images, which are not even read."""
    with np.load(path, allow_pickle=False) as file:
        return Labels(*(file[name] for name in Labels._fields))
