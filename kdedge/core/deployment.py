"""The sections of a recipe about what comes after training: export, profile, gate, card.  Structure only."""

from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from kdedge.core.section import Fraction, Section

Precision = Literal["fp32", "fp16", "int8"]


class Calibration(Section):
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    images: int = Field(512, ge=1)
    percentile: float = Field(99.99, gt=50, le=100)
    chunk: int = Field(64, ge=1)
    """Images whose activations are in memory at a time."""


ANY_SIZE = ("ort", "ort_cuda")
"""Backends that take images of any size."""
Cpu = Literal["host", "x86", "x86_vnni", "arm"]


class Quantization(Section):
    activations: Literal["auto", "uint8", "int8"] = "uint8"
    """auto: the type, and what is not given of `symmetric` and `reduce_range`, as ONNX Runtime wants them on `cpu`."""
    cpu: Cpu = "host"
    """What auto chooses for: the machine that exports, or another kind of CPU."""
    symmetric: bool | None = None
    """Zero has the code 0; without it not, or as auto chooses."""
    reduce_range: bool | None = None
    """Weights of 7 bits instead of 8, which saturate no CPU's 16-bit sums; without it not, or as auto
    chooses."""
    quantize_bias: bool = True
    rest: Literal["fp32", "fp16"] = "fp32"
    """What the layers compute in that are not quantized."""
    sensitivity: bool = True
    """Leave the layers in float that cost most, where int8 everywhere loses more than `tolerance.int8.accuracy_drop` of
    the validation images."""


class Tolerance(Section):
    """What a hop may lose against the hop it came from; a limit that is not given is not checked."""

    max_error: float | None = Field(None, ge=0)
    """Largest absolute difference of any output, relative to the largest absolute reference output (classifiers)."""
    agreement: Fraction | None = None
    """Least share of images with the same top-1 class; for detectors of the boxes that either hop is sure of, which
    the other must have, too: of the same class, with an IoU of 0.5."""
    accuracy_drop: Fraction | None = None
    """Largest loss of top-1 accuracy or mAP, as a fraction."""
    least_iou: Fraction | None = None
    """Least IoU of such a box with the other hop's (detectors)."""
    score_error: Fraction | None = None
    """Largest difference of their scores (detectors)."""


class Int8Tolerance(Tolerance):
    extra_drop: Fraction | None = 0.01
    """Top-1 that the distilled student may lose beyond what the same student trained on the labels alone loses; more is
    warned of where the difference is significant.  null: do not compare the two."""


class Tolerances(Section):
    fp32: Tolerance = Tolerance(max_error=1e-3, agreement=0.999, least_iou=0.99, score_error=1e-3)
    fp16: Tolerance = Tolerance(agreement=0.99, accuracy_drop=0.005)
    int8: Int8Tolerance = Int8Tolerance(accuracy_drop=0.02)


class Export(Section):
    preset: str | None = None
    """A shipped preset (kdedge ls) or a YAML file; the keys given here win over its."""
    opset: int = Field(18, ge=17, le=23)
    dynamic_batch: bool = True
    preprocess: bool = False
    """Put resize and normalise into the graph: its input is uint8 NHWC pixels.  Of a detector only normalization is in
    it: its pixels are the letterboxed square, which `kdedge detect` makes of a picture."""
    boxes: Literal["heads", "nms"] = "heads"
    """What a detector's files give: its raw heads, of which the runtime makes boxes; or boxes, after non-maximum
    suppression in the graph."""
    dynamic_size: bool = False
    """A detector's files take squares of any side that is a multiple of 32 pixels (raw heads, ONNX Runtime)."""
    precisions: tuple[Precision, ...] = Field(("fp32", "fp16", "int8"), min_length=1)
    exits: str = Field("none", pattern=r"^(none|all|\d+/\d+)$")
    """Early exits that self-distillation trained: none; K/N (the network up to its Kth exit); all, and a cascade."""
    calibration: Calibration = Calibration()
    quantization: Quantization = Quantization()
    tolerance: Tolerances = Tolerances()
    backend: str = "ort"
    backend_options: dict[str, Any] = Field({})
    engines: Literal["here", "device"] = "here"
    """Where engines are built; device: not by the export but by kdedge profile --target, on the board that will run
    them, so that `backend`'s library need not be here."""

    @model_validator(mode="after")
    def _any_size_where_it_can_be(self) -> "Export":
        if self.dynamic_size and (self.boxes == "nms" or self.preprocess):
            other = "boxes: nms" if self.boxes == "nms" else "preprocess"
            raise ValueError(f"dynamic_size and {other}, which is for one size: take one of them")
        if self.dynamic_size and self.backend not in ANY_SIZE:
            raise ValueError(f"dynamic_size: {self.backend} builds for one size; {' and '.join(ANY_SIZE)} take any")
        return self

    @field_validator("precisions")
    @classmethod
    def _with_fp32(cls, precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
        """In the order in which they are made, however they were listed."""
        if "fp32" not in precisions:
            raise ValueError("fp32 must be among them: the others are made from it")
        return tuple(precision for precision in get_args(Precision) if precision in precisions)


class Profile(Section):
    processes: int = Field(5, ge=1)
    """Fresh processes; the process is the unit of the statistics."""
    seconds: float = Field(1.0, gt=0)
    """Measured time in each process, after the warm-up."""
    warmup_cap: float = Field(2.0, gt=0)
    """Seconds after which a warm-up that does not settle is given up and reported."""
    batch: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    energy: bool = False
    """Measure the energy of an inference as well, after and apart from latency: four times 30 s a model."""
    lock_clocks: bool = False
    """Pin the clocks to the highest while measuring (needs root there), and put them back."""
    power_mode: str | None = None
    """Name of a Jetson's power mode (nvpmodel) to measure in, put back afterwards."""


class Budget(Section):
    """A limit on one metric: absolute, or as a change against a baseline."""

    metric: str
    """As the gate prints it, such as int8/top1, or a pattern, such as */latency_p95_ms."""
    min: float | None = None
    max: float | None = None
    max_change: float | None = Field(None, ge=0)
    """Largest change for the worse against the baseline, instead of the default: a fraction of it, or points for
    accuracy."""
    advisory: bool = False
    """Report a breach, or a change for the worse, but do not fail."""

    @model_validator(mode="after")
    def _some_limit(self) -> "Budget":
        if self.min is None and self.max is None and self.max_change is None and not self.advisory:
            raise ValueError("give min, max, max_change or advisory: true")
        return self


class Gate(Section):
    budgets: tuple[Budget, ...] = ()
    baseline: str | None = None
    """JSON file written by kdedge gate --update; relative to the recipe."""
    look_back: int = Field(10, ge=0, le=20)
    """Earlier baselines that the oldest is looked for among, against which the limits on change hold as well, so that
    slow creep is seen; 0: none."""


class Licenses(Section):
    model: str | None = None
    """As hubs know it, such as apache-2.0, or in words; so the others."""
    teacher: str | None = None
    data: str | None = None


class Card(Section):
    """What the model card tells that no run can know; of what is left out it says that it is not given."""

    intended_use: str | None = None
    licenses: Licenses = Licenses()
