"""A recipe: everything that decides a student, its engine, its measurement and its gate, as plain data.

Structure only.  Whether a model, data set, method or backend of that name exists is the pipeline's question.
Fractions are of the phase they stand in: 0 is its start and 1 its end.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
NUMBERS = (int, int | None, float, float | None, Literal[1])
Precision = Literal["fp32", "fp16", "int8"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in NUMBERS:
            raise ValueError("must be a number, not true or false")
        return value


class Normalize(Section):
    """Per-channel mean and standard deviation of pixels in 0..1."""

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _same_length(self) -> "Normalize":
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std differ in length: {len(self.mean)} and {len(self.std)}")
        return self


class Augment(Section):
    crop_padding: int = Field(0, ge=0)
    """Pixels of zero padding before a random crop back to the image size (sets in memory)."""
    flip: bool = False
    """Mirror half of the images."""
    crop_scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Area range of the random resized crop (folders of large images)."""


class Data(Section):
    name: str
    root: str | None = None
    """Folder that holds the set; without it KDEDGE_DATA, then the user's cache folder."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the training images set aside for every choice that is made."""
    train_limit: int | None = Field(None, ge=1)
    """Train on the first N images only."""
    image_size: int | None = Field(None, ge=8)
    """Side in pixels of what the model sees (folders of large images; 224 there)."""
    normalize: Normalize | None = None
    """Without it: the set's own training statistics."""
    augment: Augment = Augment()
    workers: int = Field(2, ge=0)
    """Loader processes (folders of large images)."""


class Lighten(Section):
    """A network's k x k convolutions made grouped or depthwise-separable, whatever network it is."""

    conv: Literal["grouped", "depthwise", "auto"]
    """auto: grouped in residual branches, depthwise elsewhere between maps of the same 128 or more channels."""
    groups: int | None = Field(None, ge=2)
    """Of grouped convolutions; 4 when not given."""
    shuffle: bool = True
    """Deal channels out to all groups before a grouped convolution."""
    init: Literal["random", "teacher"] = "random"
    """teacher: start from the first teacher's weights, which must be those of the same network before lightening."""


class Model(Section):
    name: str
    options: dict[str, Any] = {}
    lighten: Lighten | None = None


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


class MethodUse(Section):
    name: str
    weight: float = Field(1.0, ge=0)
    schedule: Schedule = Schedule()
    options: dict[str, Any] = {}


class CrossEntropy(Section):
    weight: float = Field(1.0, ge=0)
    label_smoothing: Fraction = 0.0
    schedule: Schedule = Schedule()


class Optimizer(Section):
    """SGD and its learning rate over the phase."""

    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: float = Field(0.1, gt=0, le=1)
    warmup: Fraction = 0.0
    clip_norm: float | None = Field(None, gt=0)
    scale_lr: bool = False
    """Multiply lr by (batch x devices) / 128."""


class Phase(Section):
    epochs: int = Field(ge=1)
    batch: int = Field(128, ge=2)
    """Images per device and step."""
    cross_entropy: CrossEntropy = CrossEntropy()
    methods: tuple[MethodUse, ...] = ()
    optimizer: Optimizer = Optimizer()
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which then is what counts."""

    @field_validator("methods")
    @classmethod
    def _unique(cls, methods: tuple[MethodUse, ...]) -> tuple[MethodUse, ...]:
        names = [method.name for method in methods]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return methods


class Teacher(Model):
    checkpoint: str | None = None
    """Weights (.safetensors, or .pt/.pth/.th read with weights_only); relative to the recipe, then to KDEDGE_DATA."""
    normalize: Normalize | None = None
    """What its images were normalized with, when not as the data section says."""
    training: Phase | None = None
    """Train it by this instead, once; the result is kept in the user's cache folder."""

    @model_validator(mode="after")
    def _one_source(self) -> "Teacher":
        if self.checkpoint is None and self.training is None:
            raise ValueError("needs a checkpoint, or a training section of its own")
        if self.checkpoint is not None and self.training is not None:
            raise ValueError("takes a checkpoint or a training section, not both")
        if self.training and self.training.methods:
            raise ValueError("a teacher's own training takes no distillation methods")
        if self.lighten and self.lighten.init == "teacher":
            raise ValueError("lighten.init: teacher is for the student; a teacher has none to start from")
        return self


class Run(Section):
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(1, ge=1)
    """Of this machine; more than one trains with DistributedDataParallel."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    threads: int | None = Field(None, ge=1)
    """CPU threads; without it the physical cores this process may use."""
    channels_last: bool = False
    compile: bool = False
    """Compile the student with torch.compile."""


class Calibration(Section):
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    images: int = Field(512, ge=1)
    percentile: float = Field(99.99, gt=50, le=100)
    chunk: int = Field(64, ge=1)
    """Images whose activations are in memory at a time."""


class Quantization(Section):
    activations: Literal["uint8", "int8"] = "uint8"
    symmetric: bool = False
    quantize_bias: bool = True


class Tolerance(Section):
    """What a hop may lose against the hop it came from; a limit that is not given is not checked."""

    max_error: float | None = Field(None, ge=0)
    """Largest absolute difference of any output, relative to the largest absolute reference output."""
    agreement: Fraction | None = None
    """Least share of images with the same top-1 class."""
    top1_drop: Fraction | None = None
    """Largest loss of top-1 accuracy, as a fraction."""


class Tolerances(Section):
    fp32: Tolerance = Tolerance(max_error=1e-3, agreement=0.999)
    fp16: Tolerance = Tolerance(agreement=0.99, top1_drop=0.005)
    int8: Tolerance = Tolerance(top1_drop=0.02)


class Export(Section):
    preset: str | None = None
    """A shipped preset (kdedge ls) or a YAML file; the keys given here win over its."""
    opset: int = Field(18, ge=17, le=23)
    dynamic_batch: bool = True
    preprocess: bool = False
    """Put resize and normalise into the graph: its input is uint8 NHWC pixels."""
    precisions: tuple[Precision, ...] = Field(("fp32", "fp16", "int8"), min_length=1)
    exits: str = Field("none", pattern=r"^(none|all|\d+/\d+)$")
    """Early exits that self-distillation trained: none; K/N (the network up to its Kth exit); all, and a cascade."""
    calibration: Calibration = Calibration()
    quantization: Quantization = Quantization()
    tolerance: Tolerances = Tolerances()
    backend: str = "ort"
    backend_options: dict[str, Any] = {}

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


class Budget(Section):
    """A limit on one metric: absolute, or as a change against a baseline."""

    metric: str
    """As the gate prints it, such as int8/top1 or fp32/latency_median_ms."""
    min: float | None = None
    max: float | None = None
    max_change: float | None = Field(None, ge=0)
    """Largest change for the worse against the baseline: a fraction of it, or points for accuracy."""
    advisory: bool = False
    """Report a breach, but do not fail."""

    @model_validator(mode="after")
    def _some_limit(self) -> "Budget":
        if self.min is None and self.max is None and self.max_change is None:
            raise ValueError("give min, max or max_change")
        return self


class Gate(Section):
    budgets: tuple[Budget, ...] = ()
    baseline: str | None = None
    """JSON file written by kdedge gate --update; relative to the recipe."""


class Recipe(Section):
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("name"))

    version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Without it: the file's name."""
    task: Literal["classify"] = "classify"
    seed: int = Field(0, ge=0)
    data: Data
    student: Model
    teachers: tuple[Teacher, ...] = Field((), max_length=1)
    phases: tuple[Phase, ...] = Field(min_length=1)
    """Trained one after the other, the weights handed on."""
    baseline: bool = True
    """Also train what the gain is measured from: the student on the labels alone, and what its methods name besides."""
    run: Run = Run()
    export: Export = Export()
    profile: Profile = Profile()
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _someone_to_start_from(self) -> "Recipe":
        if self.student.lighten and self.student.lighten.init == "teacher" and not self.teachers:
            raise ValueError("student.lighten.init is teacher, and the recipe has no teachers")
        return self
