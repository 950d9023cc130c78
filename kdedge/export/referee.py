"""What is kept of a network's outputs, how good that is, and how alike two networks' are: a referee for each task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from kdedge.core.deployment import Tolerance
from kdedge.core.quality import BoxQuality, Quality
from kdedge.core.report import Hop
from kdedge.core.stats import classify
from kdedge.engine.rows import BATCH
from kdedge.export.arrays import Arrays
from kdedge.export.onnx import OUTPUT
from kdedge.export.parity import Logits, Predictions, compare, judged

Outputs = dict[str, NDArray[Any]]
"""By name, a row an image."""


class Referee(ABC):
    batch: ClassVar[int] = BATCH
    """Images to ask about at a time."""
    decoding: Mapping[str, Any] | None = None
    """How a detector's outputs become boxes, see engine/boxes_decoding."""
    ranked_on: ClassVar[int] = 256
    """Images that `parts` are looked at of, at most; for a ranking of layers a few are enough."""

    @abstractmethod
    def keep(self, outputs: Outputs) -> Outputs:
        """Of a batch's outputs, a row an image."""

    @abstractmethod
    def parts(self, outputs: Outputs) -> list[NDArray[Any]]:
        """Of raw outputs, what is off by a share of its own size where a layer loses precision."""

    @abstractmethod
    def quality(self, kept: Logits, arrays: Arrays) -> Quality | BoxQuality: ...

    def drop(self, before: Logits, after: Logits, arrays: Arrays) -> float:
        """Accuracy that is lost."""
        return self.quality(before, arrays).accuracy - self.quality(after, arrays).accuracy

    @abstractmethod
    def compare(
        self,
        name: str,
        candidate: Predictions,
        reference: Predictions | None,
        arrays: Arrays,
        tolerance: Tolerance,
        reference_name: str | None = None,
    ) -> Hop:
        """One hop beside the one it came from, None for the first; predictions and arrays are of the same images.

        Raises:
            ModelError: they are not.
        """


class ClassReferee(Referee):
    """Keeps logits (N, classes) as they are."""

    def keep(self, outputs: Outputs) -> Outputs:
        return outputs

    def parts(self, outputs: Outputs) -> list[NDArray[Any]]:
        return [outputs[OUTPUT]]

    def quality(self, kept: Logits, arrays: Arrays) -> Quality:
        return classify(judged(kept, arrays.labels), arrays.labels)

    def compare(
        self,
        name: str,
        candidate: Predictions,
        reference: Predictions | None,
        arrays: Arrays,
        tolerance: Tolerance,
        reference_name: str | None = None,
    ) -> Hop:
        return compare(name, candidate, reference, arrays.labels, tolerance, reference_name=reference_name)
