"""Which layers cost int8 its accuracy, and how few of them must stay in float so that the loss is within a limit.

Layers are ranked one by one: that layer alone in int8, how far off are the logits?  The worst are left in float, as
many as it takes.  What is judged is the whole model each time, so that errors that add up are seen.
"""

import tempfile
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.core.errors import ModelError
from kdedge.core.report import Sensitivity
from kdedge.core.stats import classify
from kdedge.engine.base import backend
from kdedge.engine.rows import run_rows
from kdedge.export.int8 import Calibrated
from kdedge.export.onnx import OUTPUT
from kdedge.export.parity import judged

RANKED_ON = 256
"""Images at most; for a ranking a few are enough."""

Images = NDArray[Any]
Labels = NDArray[np.int64]


class Judge:
    """Models made from one calibrated file, by what they answer to the same labeled images."""

    def __init__(self, calibrated: Calibrated, images: Images, labels: Labels) -> None:
        self.calibrated, self.images, self.labels = calibrated, images, labels
        self.exact = ask(calibrated.source, images)
        self.top1 = self.accuracy(self.exact)

    def accuracy(self, logits: NDArray[np.float32]) -> float:
        return classify(judged(logits, self.labels), self.labels).top1

    def drop(self, keep: list[str]) -> float:
        """Top-1 that is lost with these layers in float and all others in int8."""
        return self.top1 - self.accuracy(self.quantized(self.images, keep=keep))

    def errors(self) -> dict[str, float]:
        """By layer, the worst first."""
        images, exact = self.images[:RANKED_ON], self.exact[:RANKED_ON]
        found = {name: relative_error(exact, self.quantized(images, only=[name])) for name in self.calibrated.layers}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def quantized(self, images: Images, **layers: list[str]) -> NDArray[np.float32]:
        with tempfile.TemporaryDirectory(prefix="kdedge-sensitivity-") as folder:
            path = Path(folder) / "int8.onnx"
            self.calibrated.quantize(path, **layers)
            return ask(path, images)


def ask(path: Path, images: Images) -> NDArray[np.float32]:
    """Logits (N, classes)."""
    with backend("ort").open(path, {}) as session:
        return np.asarray(run_rows(session, images)[OUTPUT])


def relative_error(exact: NDArray[np.float32], answer: NDArray[np.float32]) -> float:
    return float(np.square(answer - exact).mean() / np.square(exact).mean())


def within_limit(judge: Judge, limit: float, split: str) -> Sensitivity:
    """As few layers in float as it takes, the worst first.

    Args:
        limit: top-1 that may be lost, as a fraction.
        split: what the images are called in the report.

    Raises:
        ModelError: even one layer in int8 loses more.
    """
    everywhere = judge.drop([])
    found = {"images": len(judge.labels), "split": split, "limit": limit, "drop_everywhere": everywhere}
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
            f"everywhere it loses {100 * everywhere:.2f} points of {len(judge.labels)} {split} images",
            "see export.calibration.method, or leave int8 out of export.precisions",
        )
    count = counts[index]
    return Sensitivity(**found, drop=drops[count], errors=errors, left_in_float=ranked[:count])
