"""data -> arrays/{calibration,eval,validation}.npz: images as the exported model takes them, labels, image ids; of
pictures with boxes also by what they were scaled.

Below this line of the pipeline nothing knows a data set: export, engine, profile and a board see arrays.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdedge.core.deployment import Export
from kdedge.core.recipe import Normalize
from kdedge.core.rundir import atomic_path
from kdedge.data.boxes import scale_to_fit
from kdedge.data.loader import Normalizer, eval_batches
from kdedge.data.sets import BoxFolder, BoxSet, Dataset, FolderSet, ImageSet

LIMIT = 2**30
"""Bytes of evaluation images at most; of a larger set an even selection is taken."""


def write_arrays(dataset: Dataset, export: Export, folder: Path) -> list[str]:
    """Returns the names of the two files, relative to the run."""
    form = dataset.normalize, export.preprocess
    calibration = spread(len(dataset.train), export.calibration.images)
    evaluation = spread(len(dataset.test), limit(dataset, export.preprocess))
    write(folder / "calibration.npz", dataset.train.subset(calibration), *form, calibration)
    write(folder / "eval.npz", dataset.test.subset(evaluation), *form, evaluation)
    return [f"{folder.name}/calibration.npz", f"{folder.name}/eval.npz"]


def write_validation(dataset: Dataset, preprocess: bool, path: Path) -> None:
    """The images that choices about a finished model are made on, as evaluation has its own."""
    chosen = spread(len(dataset.validation), limit(dataset, preprocess))
    write(path, dataset.validation.subset(chosen), dataset.normalize, preprocess, chosen)


def limit(dataset: Dataset, preprocess: bool) -> int:
    return max(1, LIMIT // (math.prod(dataset.image_shape) * (1 if preprocess else 4)))


def spread(available: int, wanted: int) -> Tensor:
    """At most `wanted` positions, evenly over those available."""
    return torch.linspace(0, available - 1, min(wanted, available), dtype=torch.float64).round().long()


def write(path: Path, images: ImageSet | FolderSet, normalize: Normalize, preprocess: bool, ids: Tensor) -> None:
    parts, labels = [], []
    normalizer = Normalizer(normalize)
    for batch in eval_batches(images, 500, torch.device("cpu")).epoch(0):
        parts.append((batch.images.permute(0, 2, 3, 1) if preprocess else normalizer(batch.images)).numpy())
        labels.append(batch.labels.numpy())
    columns: dict[str, Any] = {"labels": np.concatenate(labels), "ids": ids.numpy()}
    if isinstance(images, BoxSet | BoxFolder):
        columns["scales"] = scales(images)
    with atomic_path(path) as temporary:
        np.savez(temporary, images=np.concatenate(parts), **columns)


def scales(images: BoxSet | BoxFolder) -> NDArray[np.float64]:
    """(N,) by what the pictures were scaled."""
    side = images.image_shape[1]
    return np.array([scale_to_fit(height, width, side) for height, width in images.sizes.tolist()])
