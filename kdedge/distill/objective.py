"""What one phase minimizes: the student's cross-entropy and the terms of its methods, weighed and named."""

from collections.abc import Iterable
from types import TracebackType
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.recipe import MethodUse, Phase
from kdedge.distill.base import METHODS, Method, Network, Step, View
from kdedge.distill.phases import schedule_factor
from kdedge.distill.weights import check_terms, term_weight
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

    def weights(self, terms: Iterable[str], progress: float) -> dict[str, float]:
        """What each term is multiplied by at this point of the phase."""
        labels = self.phase.cross_entropy
        found = {LABELS: labels.weight * schedule_factor(labels.schedule, progress)}
        uses = {use.name: use for use in self.phase.methods}
        for term in terms:
            if term != LABELS:
                name = term.partition("/")[0]
                own = cast(Method, self.methods[name]).terms
                found[term] = term_weight(uses[name], own, term, progress)
        return found

    def forward(
        self, images: Tensor, labels: Tensor, indices: Tensor, teacher: Answer | None, epoch: int, progress: float
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Total loss, its unweighted terms by name without gradients, and how many images the student got right."""
        logits = self.student(images)
        view = View(*teacher) if teacher is not None else None
        step = Step(labels, indices, View(logits, self._tap.features), view, epoch, progress)
        terms = {
            LABELS: F.cross_entropy(logits.float(), labels, label_smoothing=self.phase.cross_entropy.label_smoothing)
        }
        for method in self.methods.values():
            terms |= method(step)
        self.check_terms(terms)
        total = torch.zeros((), device=logits.device)
        for name, weight in self.weights(terms, progress).items():
            total = torch.add(total, terms[name], alpha=weight)
        right = (logits.detach().argmax(1) == labels).sum()
        return total, {name: term.detach() for name, term in terms.items()}, right

    def check_terms(self, terms: Iterable[str]) -> None:
        """Raises ModelError when the recipe speaks of a term that no method has."""
        for use in self.phase.methods:
            if use.terms:
                check_terms(use, [term for term in terms if term.startswith(f"{use.name}/")])
