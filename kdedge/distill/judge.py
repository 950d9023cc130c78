"""How what a network answers is judged: by the measure of its task."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from kdedge.core.quality import MEASURES, BoxQuality, Measure, Quality
from kdedge.core.stats import classify


class Judge(ABC):
    measure: ClassVar[Measure]

    @abstractmethod
    def read(self, outputs: Tensor) -> Tensor:
        """What is kept of a batch's outputs, in float32 on the CPU."""

    @abstractmethod
    def quality(self, kept: Tensor, labels: Tensor) -> Quality | BoxQuality:
        """Of a whole set."""


class ClassJudge(Judge):
    """Keeps logits (N, classes); labels are (N,)."""

    measure = MEASURES["classify"]

    def read(self, outputs: Tensor) -> Tensor:
        return outputs

    def quality(self, kept: Tensor, labels: Tensor) -> Quality:
        return classify(kept.numpy(), labels.numpy())
