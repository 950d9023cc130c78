"""What one phase minimizes: the student's cross-entropy and the terms of its methods, weighed and named."""

from collections.abc import Iterable
from types import TracebackType

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.recipe import MethodUse, Phase
from kdedge.distill.base import METHODS, Method, Network, Step, View
from kdedge.distill.phases import schedule_factor
from kdedge.models.features import FeatureTap

LABELS = "cross_entropy"
Answer = tuple[Tensor, dict[str, Tensor]]


def build_methods(uses: Iterable[MethodUse], student: Network, teacher: Network | None) -> dict[str, Method]:
    """The methods of a phase, each with its checked options.

    Raises:
        ModelError: a method that needs a teacher has none, or its options do not fit it or the networks.
    """
    built = {}
    for use in uses:
        method = METHODS.get(use.name)
        if method.needs_teacher and teacher is None:
            raise ModelError(
                f"method {use.name!r} needs a teacher",
                "the recipe has none",
                "add a teachers: section, or drop the method",
            )
        try:
            config = method.Config.model_validate(use.options)
        except ValidationError as error:
            raise ModelError(f"options of method {use.name!r}", str(error), f"kdedge methods {use.name}") from None
        built[use.name] = method(config, student, teacher)
    return built


class Objective(nn.Module):
    """Student and methods as one module, so that one call runs both under autocast and DistributedDataParallel.

    Use as a context manager: its feature hooks live as long as the block.
    """

    def __init__(self, student: nn.Module, methods: dict[str, Method], phase: Phase, network: Network) -> None:
        super().__init__()
        self.student, self.phase = student, phase
        self.methods = nn.ModuleDict(methods)
        wanted = sorted({name for m in methods.values() for name in m.student_features})
        self.teacher_features = sorted({name for m in methods.values() for name in m.teacher_features})
        self._tap = FeatureTap(student, {name: network.features[name] for name in wanted})

    def __enter__(self) -> "Objective":
        self._tap.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tap.__exit__(kind, error, trace)

    def weights(self, progress: float) -> dict[str, float]:
        """Weight of the labels and of each method at this point of the phase."""
        labels = self.phase.cross_entropy
        own = {use.name: use.weight * schedule_factor(use.schedule, progress) for use in self.phase.methods}
        return {LABELS: labels.weight * schedule_factor(labels.schedule, progress), **own}

    def forward(
        self, images: Tensor, labels: Tensor, indices: Tensor, teacher: Answer | None, epoch: int, progress: float
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Total loss, its unweighted terms by name without gradients, and how many images the student got right."""
        logits = self.student(images)
        view = View(*teacher) if teacher is not None else None
        step = Step(labels, indices, View(logits, self._tap.features), view, epoch, progress)
        weights = self.weights(progress)
        terms = {
            LABELS: F.cross_entropy(logits.float(), labels, label_smoothing=self.phase.cross_entropy.label_smoothing)
        }
        total = weights[LABELS] * terms[LABELS]
        for name, method in self.methods.items():
            own = method(step)
            terms |= own
            for term in own.values():
                total = torch.add(total, term, alpha=weights[name])
        right = (logits.detach().argmax(1) == labels).sum()
        return total, {name: term.detach() for name, term in terms.items()}, right
