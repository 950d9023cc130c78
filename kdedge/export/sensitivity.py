"""Which layers cost int8 its accuracy, and how few of them must stay in float so that the loss is within a limit.

Layers are ranked one by one: that layer alone in int8, how far off are the outputs?  The worst are left in float, as
many as it takes.  What is judged is the whole model each time, so that errors that add up are seen.
"""

import tempfile
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.core.errors import ModelError
from kdedge.core.report import Sensitivity
from kdedge.engine.base import backend
from kdedge.engine.rows import run_rows
from kdedge.export.arrays import Arrays
from kdedge.export.int8 import Calibrated
from kdedge.export.onnx import OUTPUT, save
from kdedge.export.referee import Referee


class Judge:
    """Models made from one calibrated file, by what they answer to the same labeled images."""

    def __init__(self, calibrated: Calibrated, arrays: Arrays, referee: Referee) -> None:
        self.calibrated, self.arrays, self.referee = calibrated, arrays, referee
        self.exact = self.accuracy(calibrated.source)

    def accuracy(self, path: Path) -> float:
        return self.referee.quality(ask(path, self.arrays, self.referee), self.arrays).accuracy

    def drop(self, keep: list[str]) -> float:
        """Accuracy that is lost with these layers in float and all others in int8."""
        with self.quantized(keep=keep) as path:
            return self.exact - self.accuracy(path)

    def errors(self) -> dict[str, float]:
        """By layer, the worst first."""
        with written(partial(save, self.calibrated.model)) as path:
            exact = self.raw(path)
        found = {}
        for name in self.calibrated.layers:
            with self.quantized(only=[name]) as path:
                pairs = zip(exact, self.raw(path), strict=True)
                found[name] = float(np.mean([relative_error(*pair) for pair in pairs]))
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def raw(self, path: Path) -> list[NDArray[Any]]:
        images = self.arrays.images[: self.referee.ranked_on]
        with backend("ort").open(path, {}) as session:
            return self.referee.parts(run_rows(session, images, self.referee.batch))

    def quantized(self, keep: Collection[str] = (), only: Collection[str] = ()) -> AbstractContextManager[Path]:
        return written(partial(self.calibrated.quantize, keep=keep, only=only))


@contextmanager
def written(write: Callable[[Path], None]) -> Iterator[Path]:
    """A model's file for the block."""
    with tempfile.TemporaryDirectory(prefix="kdedge-sensitivity-") as folder:
        path = Path(folder) / "model.onnx"
        write(path)
        yield path


def ask(path: Path, arrays: Arrays, referee: Referee) -> NDArray[np.float32]:
    """What is kept of the last output, (N, ...)."""
    with backend("ort").open(path, {}) as session:
        return np.asarray(run_rows(session, arrays.images, referee.batch, referee.keep)[OUTPUT])


def relative_error(exact: NDArray[np.float32], answer: NDArray[np.float32]) -> float:
    return float(np.square(answer - exact).mean() / np.square(exact).mean())


def within_limit(judge: Judge, limit: float, split: str) -> Sensitivity:
    """As few layers in float as it takes, the worst first.

    Args:
        limit: accuracy that may be lost, as a fraction.
        split: what the images are called in the report.

    Raises:
        ModelError: even one layer in int8 loses more.
    """
    everywhere = judge.drop([])
    found = {"images": len(judge.arrays.labels), "split": split, "limit": limit, "drop_everywhere": everywhere}
    if everywhere <= limit:
        return Sensitivity(**found, drop=everywhere)
    errors = judge.errors()
    ranked = list(errors)
    counts = range(1, len(ranked))
    drops: dict[int, float] = {}

    def is_within(count: int) -> bool:
        drops[count] = judge.drop(ranked[:count])
        return drops[count] <= limit

    index = bisect_left(counts, True, key=is_within)
    if index == len(counts):
        raise ModelError(
            f"int8 loses more than {100 * limit:g} points with all but one layer in float",
            f"everywhere it loses {100 * everywhere:.2f} points of {len(judge.arrays.labels)} {split} images",
            "see export.calibration.method, or leave int8 out of export.precisions",
        )
    count = counts[index]
    return Sensitivity(**found, drop=drops[count], errors=errors, left_in_float=ranked[:count])
