"""What one phase minimizes: the student's loss on the labels and the terms of its methods, weighed and named."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from kdedge.core.errors import ModelError
from kdedge.core.training import MethodUse, Phase
from kdedge.distill.base import METHODS, Method, Network, Step, View
from kdedge.distill.int8 import FakeInt8
from kdedge.distill.phases import schedule_factor
from kdedge.distill.teachers import Answer, mean_answer
from kdedge.distill.weights import check_terms, counts, term_weight
from kdedge.models.detector import Detector
from kdedge.models.features import FeatureTap

LABELS = "cross_entropy"
MEAN: Literal["mean"] = "mean"
"""Of a recipe's `teacher:`."""


def build_methods(
    uses: Iterable[MethodUse], student: Network, teachers: Sequence[Network], peers: int = 0
) -> dict[str, Method]:
    """The methods of a phase, each with its checked options and the teacher it listens to.

    Raises:
        ModelError: a method that needs a teacher or peers has none, is for another task, or its options do not fit it
            or the networks.
    """
    built = {}
    for use in uses:
        kind = METHODS.get(use.name)
        if kind.needs_peers and not peers:
            raise ModelError(f"method {use.name!r} needs peers", "the recipe has none", "add a peers: section")
        chosen = listens_to(use, kind.needs_teacher, len(teachers))
        teacher = None if chosen is None else teachers[0 if chosen == MEAN else chosen]
        check_task(use.name, student)
        try:
            usual = kind.detector_options if student.layout else {}
            config = kind.Config.model_validate({**usual, **use.options})
        except ValidationError as error:
            raise ModelError(f"options of method {use.name!r}", str(error), f"kdedge methods {use.name}") from None
        method = kind(config, student, teacher)
        if chosen == MEAN and method.teacher_features:
            why = "it looks at features, and several teachers have no mean of those"
            raise ModelError(f"method {use.name!r} cannot learn from the mean", why, "teacher: 0")
        method.narrow(partial(counts, use, kind.terms))
        built[use.name] = method
    return built


def check_task(name: str, student: Network) -> None:
    """Raises ModelError when a method is not for what the student is for."""
    if student.task not in METHODS.get(name).tasks:
        kinds = ("detectors", "classifier") if student.task == "classify" else ("classifiers", "detector")
        able = ", ".join(other for other in METHODS.names() if student.task in METHODS.get(other).tasks)
        raise ModelError(f"method {name!r} is for {kinds[0]}", f"the student is a {kinds[1]}", f"choose one of: {able}")


def listens_to(use: MethodUse, needs_teacher: bool, teachers: int) -> int | Literal["mean"] | None:
    """The teacher that a method learns from: its index, the mean of all, or none.

    Raises:
        ModelError: it needs one and there is none, or there are several and the recipe does not say which.
    """
    if not needs_teacher:
        return None
    if not teachers:
        fix = "add a teachers: section, or drop the method"
        raise ModelError(f"method {use.name!r} needs a teacher", "the recipe has none", fix)
    if use.teacher is None and teachers > 1:
        what = f"method {use.name!r} must say which of the {teachers} teachers it learns from"
        raise ModelError(what, "", "teacher: 0, or teacher: mean")
    return 0 if use.teacher is None else use.teacher


class Objective(nn.Module):
    """Student and methods as one module, so that one call runs both under autocast and DistributedDataParallel.

    Use as a context manager: its feature hooks live as long as the block.
    """

    def __init__(
        self,
        student: nn.Module,
        methods: dict[str, Method],
        phase: Phase,
        network: Network,
        teachers: int = 0,
        peers: Iterable[nn.Module] = (),
        int8: FakeInt8 | None = None,
    ) -> None:
        super().__init__()
        self.student, self.phase, self.int8 = student, phase, int8
        self.methods, self.peers = nn.ModuleDict(methods), nn.ModuleList(peers)
        self._listens = {use.name: listens_to(use, methods[use.name].needs_teacher, teachers) for use in phase.methods}
        wanted = sorted({name for m in methods.values() for name in m.student_features})
        self._tap = FeatureTap(student, {name: network.features[name] for name in wanted})

    def teacher_features(self, teacher: int) -> list[str] | None:
        """The feature points that methods want of one teacher; None where no method listens to it."""
        listening = [
            cast(Method, self.methods[name]) for name, whom in self._listens.items() if whom in (teacher, MEAN)
        ]
        return sorted({name for m in listening for name in m.teacher_features}) if listening else None

    def __enter__(self) -> "Objective":
        self._tap.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tap.__exit__(kind, error, trace)

    def weights(self, terms: Iterable[str], progress: float) -> dict[str, float]:
        """What each term is multiplied by at this point of the phase."""
        uses, found = {use.name: use for use in self.phase.methods}, {}
        for term in terms:
            name = term.partition("/")[0]
            if name in uses:
                own = cast(Method, self.methods[name]).terms
                found[term] = term_weight(uses[name], own, term, progress)
            else:
                found[term] = self.label_weight(term, progress)
        return found

    def label_weight(self, term: str, progress: float) -> float:
        """Of a term that no method computes."""
        phase = self.phase
        weight: float = phase.cross_entropy.weight if term == LABELS else getattr(phase.detection, term)
        schedule = phase.cross_entropy.schedule if term == LABELS else phase.detection.schedule
        return weight * schedule_factor(schedule, progress)

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        teachers: Sequence[Answer | None],
        epoch: int,
        progress: float,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Total loss, its unweighted terms by name without gradients, and how many images a classifier got right."""
        logits, terms = self.terms(images, labels, indices, teachers, epoch, progress)
        self.check_terms(terms)
        total = torch.zeros((), device=logits.device)
        for name, weight in self.weights(terms, progress).items():
            total = torch.add(total, terms[name], alpha=weight)
        right = (logits.detach().argmax(1) == labels).sum() if LABELS in terms else None
        return total, {name: term.detach() for name, term in terms.items()}, right

    def terms(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        teachers: Sequence[Answer | None],
        epoch: int,
        progress: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's outputs, and every term of the loss by its name, unweighted."""
        student = self.observe(images)
        peers = tuple(View(peer(images)) for peer in self.peers)
        step = Step(labels, indices, student, None, epoch, progress, peers)
        terms = self.label_terms(student.logits, labels)
        for name, method in self.methods.items():
            terms |= method(replace(step, teacher=self.heard(name, teachers)))
        return student.logits, terms

    def label_terms(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What the labels say: a classifier's cross-entropy, a detector's own losses."""
        if isinstance(self.student, Detector):
            return self.student.losses(outputs, labels)
        smoothing = self.phase.cross_entropy.label_smoothing
        return {LABELS: F.cross_entropy(outputs.float(), labels, label_smoothing=smoothing)}

    def observe(self, images: Tensor) -> View:
        """What the student makes of a batch."""
        return View(self.trained(images), self._tap.features)

    @property
    def trained(self) -> nn.Module:
        """The student as the phase trains it: itself, or what computes with it as in int8."""
        return self.student if self.int8 is None else self.int8

    def heard(self, method: str, teachers: Sequence[Answer | None]) -> View | None:
        """What a method learns from."""
        whom = self._listens[method]
        answer = mean_answer(teachers) if whom == MEAN else None if whom is None else teachers[whom]
        return View(*answer) if answer else None

    def check_terms(self, terms: Iterable[str]) -> None:
        """Raises ModelError when the recipe speaks of a term that no method has."""
        for use in self.phase.methods:
            if use.terms:
                silent = cast(Method, self.methods[use.name]).silent
                check_terms(use, [*silent, *(term for term in terms if term.startswith(f"{use.name}/"))])
