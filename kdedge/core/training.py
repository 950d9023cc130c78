"""The sections of a recipe about a training: its phases, what each minimizes, and how.  Structure only.

Fractions are of the phase they stand in: 0 is its start and 1 its end.
"""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from kdedge.core.section import Fraction, Section, without_unused


class Schedule(Section):
    """How a term's weight moves through the phase: off outside start..end, linear warm-up, then steps of decay."""

    start: Fraction = 0.0
    end: Fraction = 1.0
    warmup: Fraction = 0.0
    decay_at: tuple[Fraction, ...] = ()
    decay: float = Field(0.1, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Schedule":
        if self.start >= self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        return self


class TermUse(Section):
    """One of a method's terms, in so far as it is not to be as the method has it."""

    weight: float | None = Field(None, ge=0)
    schedule: Schedule | None = None


class MethodUse(Section):
    name: str
    weight: float = Field(1.0, ge=0)
    """Of all its terms, beside their own."""
    schedule: Schedule = Schedule()
    terms: dict[str, TermUse] = Field({})
    """By pattern of the term's name after the method's, such as stage*; the first that fits counts."""
    teacher: int | Literal["mean"] | None = None
    """Which of several teachers it learns from, counted from 0; mean: from the mean of all their logits."""
    options: dict[str, Any] = Field({})

    @field_validator("teacher", mode="before")
    @classmethod
    def _number_or_mean(cls, teacher: object) -> object:
        counted = isinstance(teacher, int) and not isinstance(teacher, bool) and teacher >= 0
        if teacher is not None and teacher != "mean" and not counted:
            raise ValueError(f"must be a whole number from 0, or mean, not {teacher!r}")
        return teacher


class CrossEntropy(Section):
    weight: float = Field(1.0, ge=0)
    label_smoothing: Fraction = 0.0
    schedule: Schedule = Schedule()


class DetectionLoss(Section):
    """Weights of a detector's own losses."""

    classification: float = Field(1.0, ge=0)
    boxes: float = Field(1.0, ge=0)
    centerness: float = Field(1.0, ge=0)
    """Of an FCOS."""
    schedule: Schedule = Schedule()


class Optimizer(Section):
    """SGD or AdamW, and its learning rate over the phase."""

    name: Literal["sgd", "adamw"] = "sgd"
    """adamw is for what starts from scratch with few images, such as a detector; it wants an lr of about 0.001."""
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of AdamW its first beta; the second is 0.999."""
    nesterov: bool = False
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: float = Field(0.1, gt=0, le=1)
    warmup: Fraction = 0.0
    clip_norm: float | None = Field(None, gt=0)
    scale_lr: bool = False
    """Multiply lr by (batch x devices) / 128."""

    @model_serializer(mode="wrap")
    def _as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(self, dump(self), ("name",))

    @model_validator(mode="after")
    def _nesterov_of_sgd(self) -> "Optimizer":
        if self.nesterov and self.name != "sgd":
            raise ValueError(f"nesterov is a form of sgd, and the optimizer is {self.name}")
        return self


class Quantize(Section):
    """The student computes as int8 will, rounding included.  The file's own layout is export.quantization."""

    activations: Literal["uint8", "int8"] = "uint8"
    symmetric: bool = False
    reduce_range: bool = False
    """Weights of 7 bits, for x86 CPUs without VNNI."""
    calibration_batches: int = Field(8, ge=1)
    """Batches of training images that give the first ranges."""


class Phase(Section):
    epochs: int = Field(ge=1)
    batch: int = Field(128, ge=2)
    """Images per device and step."""
    cross_entropy: CrossEntropy = CrossEntropy()
    """What a classifier learns from the labels by."""
    detection: DetectionLoss = DetectionLoss()
    """What a detector learns from the boxes by."""
    methods: tuple[MethodUse, ...] = ()
    """One that the phase before has too goes on with the layers it trained there."""
    freeze: tuple[str, ...] = ()
    """Patterns of module paths of the student that do not train, batch norm statistics neither; * is all of it."""
    optimizer: Optimizer = Optimizer()
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which then is what counts."""
    quantize: Quantize | None = None
    """Train for int8 (quantization-aware); needs the extra qat.  A short last phase at a low learning rate will do."""

    @model_serializer(mode="wrap")
    def _as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unused(self, dump(self), ("detection", "quantize"))

    @model_validator(mode="after")
    def _quantize_alone(self) -> "Phase":
        if self.quantize and self.ema:
            raise ValueError("quantize and ema: a phase takes one of them")
        return self

    @field_validator("methods")
    @classmethod
    def _unique(cls, methods: tuple[MethodUse, ...]) -> tuple[MethodUse, ...]:
        names = [method.name for method in methods]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return methods


def check_chosen_teachers(phase: Phase, teachers: int) -> None:
    """Raises ValueError when a method is to learn from a teacher that is not there."""
    for use in phase.methods:
        if isinstance(use.teacher, int) and use.teacher >= teachers:
            raise ValueError(f"method {use.name}: teacher {use.teacher} of {teachers}, counted from 0")
