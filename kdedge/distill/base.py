"""What a distillation method is: named loss terms computed from one training step.

Adding one takes a file in kdedge/distill/methods and a test.  The module's docstring cites the paper; the class has a
`Config` (its options in a recipe), says what tasks it suits and which features it needs, and returns terms that the
loop weighs and sums.
Losses are means over the samples and free of batch size and map size, so that a weight means the same everywhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from kdedge.core.quality import Task
from kdedge.core.registry import Registry
from kdedge.core.training import Schedule
from kdedge.distill.layout import Layout
from kdedge.models.features import FeaturePoint

DETECTORS: frozenset[Task] = frozenset({"detect"})
EITHER: frozenset[Task] = frozenset({"classify", "detect"})
"""Of a method's tasks."""


class MethodConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True)
class View:
    """What one network made of a batch."""

    logits: Tensor
    """(N, classes); of a detector its outputs (N, A, D), see kdedge.distill.layout."""
    features: dict[str, Tensor] = field(default_factory=dict)
    """By feature point; (N, C, H, W)."""


T = TypeVar("T")


def needed(teacher: T | None) -> T:
    """The teacher's side, which a method that needs a teacher never goes without: build_methods has refused that."""
    if teacher is None:
        raise TypeError("a method that needs a teacher was built without one")
    return teacher


@dataclass(frozen=True)
class Step:
    """One training step as a method sees it.  The teacher's tensors carry no gradient."""

    labels: Tensor
    """(N,); for detectors the targets (N, M, 5), see kdedge.distill.layout."""
    indices: Tensor
    """(N,) positions in the training set, the same image the same number in every epoch."""
    student: View
    teacher: View | None
    epoch: int
    progress: float
    """Share of the phase that is done, 0..1."""
    peers: tuple[View, ...] = ()
    """The networks that train beside the student; their tensors carry gradients."""

    @property
    def taught(self) -> View:
        """What the teacher made of the batch, for a method that needs one."""
        return needed(self.teacher)


@dataclass(frozen=True)
class Network:
    """What a method may know of a network before the first step."""

    features: dict[str, FeaturePoint]
    classes: int
    image_size: int
    images: int = 0
    """Training images: every index of a step is below this."""
    layout: Layout | None = None
    """Of a detector's outputs; a classifier has none."""

    @property
    def task(self) -> Task:
        return "detect" if self.layout else "classify"

    @property
    def stages(self) -> dict[str, FeaturePoint]:
        """The feature points that methods choose from unless told: a detector's levels, all of a classifier's."""
        if not self.layout:
            return self.features
        return {level.feature: self.features[level.feature] for level in self.layout.levels if level.feature}


@dataclass(frozen=True)
class Term:
    """What one of a method's terms is multiplied by, unless a recipe says otherwise."""

    weight: float = 1.0
    schedule: Schedule = field(default_factory=Schedule)


@dataclass(frozen=True)
class Preset:
    """Published settings, to paste into a recipe."""

    source: str
    """Where they come from, and for which batch and maps they are the same loss."""
    cross_entropy: float = 1.0
    """Weight of the labels beside it."""
    weight: float = 1.0
    schedule: Schedule = field(default_factory=Schedule)
    terms: Mapping[str, float] = field(default_factory=dict)
    """Weights by pattern of term."""
    options: Mapping[str, Any] = field(default_factory=dict)
    task: Task = "classify"


class Method(nn.Module, ABC):
    """One distillation method.  Layers of its own train with the student and are never part of it."""

    Config: ClassVar[type[MethodConfig]]
    needs_teacher: ClassVar[bool] = True
    needs_peers: ClassVar[bool] = False
    tasks: ClassVar[frozenset[Task]] = frozenset({"classify"})
    """What the networks may be for: classifiers, detectors, or either."""
    detector_options: ClassVar[Mapping[str, Any]] = {}
    """Defaults of options where the student is a detector, in so far as they are others there."""
    terms: ClassVar[Mapping[str, Term]] = {}
    """By pattern of a term's name after the method's, such as stage*; the first that fits counts, and 1 where none."""
    presets: ClassVar[Mapping[str, Preset]] = {}
    depends_on: ClassVar[Mapping[str, str]] = {}
    """Why its terms change with the size or "order" of the "batch", or the size of the "map", where they do."""
    dear: ClassVar[str] = ""
    """Why a step of it takes longer than one of plain KD, where it takes much longer."""
    calibration_batches: int = 0
    """Batches of training images that `prepare` is to see."""

    student_features: tuple[str, ...] = ()
    """Feature points of the student to tap; set in __init__."""
    teacher_features: tuple[str, ...] = ()

    @abstractmethod
    def __init__(self, config: MethodConfig, student: Network, teacher: Network | None) -> None:
        super().__init__()
        self._weighed: Callable[[str], bool] | None = None
        self.silent: set[str] = set()
        """Terms that were asked for and do not count."""

    def narrow(self, weighed: Callable[[str], bool]) -> None:
        """Go without the terms that are never weighed, by their names after the method's."""
        self._weighed = weighed
        self.prune()

    def counts(self, term: str) -> bool:
        """Whether a term is weighed at any time; one that is not need not be computed, and is told of by asking."""
        if self._weighed is None or self._weighed(term):
            return True
        self.silent.add(term)
        return False

    def prune(self) -> None:
        """Drop layers and features that only terms which do not count need."""

    @abstractmethod
    def loss(self, step: Step) -> dict[str, Tensor]:
        """Named scalar terms, each name starting with the method's own."""

    def prepare(self, views: Iterable[tuple[View, View | None]]) -> None:
        """Settle what only data can tell, before the first step: (student, teacher) of some batches, without gradients.

        What is found belongs into buffers, so that it is kept with the weights.
        """

    def exits(self, student: View) -> dict[str, Tensor]:  # noqa: ARG002
        """Logits (N, classes) of the early exits that this method trains, by stage; none here.

        An exit is computed from its own stage's feature.  A network that is cut short has only some of the features,
        and no logits: then there are only the exits that stand on those.
        """
        return {}

    @classmethod
    def control(cls, options: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:  # noqa: ARG003
        """What the method must be held against at the same budget: a name, and the options that make it; or nothing.

        It is trained beside the student, as the same student on the labels alone is.
        """
        return None

    @classmethod
    def check_order(cls, options: dict[str, Any], before: dict[str, Any] | None) -> None:
        """Raises ModelError when it cannot go on from its options in the phase before, None where it is not in that."""

    def forward(self, step: Step) -> dict[str, Tensor]:
        return self.loss(step)


METHODS: Registry[type[Method]] = Registry("method", "kdedge.distill.methods", "kdedge methods")
