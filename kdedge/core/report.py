"""The records that cross from one command to the next as JSON: what was trained, exported, measured and decided."""

from typing import Any, Literal

from pydantic import AliasChoices, Field

from kdedge.core.correctness import Correctness
from kdedge.core.precision import Fragility, Layout
from kdedge.core.quality import MEASURES, BoxAgreement, BoxQuality, Measure, Quality, Task
from kdedge.core.record import Record


class TrainedModel(Record):
    model: str
    options: dict[str, Any] = Field({})
    params: int
    macs: int
    """Multiply-accumulates of convolutions and fully connected layers for one image."""
    weight_bytes: int
    input_shape: list[int]
    """Of one image, channels first."""
    epochs: int = 0
    seconds: float = 0.0
    """Training time, the time of earlier, interrupted starts included."""
    accuracy: float = Field(validation_alias=AliasChoices("accuracy", "top1"))
    """By the measure of the task (top-1, mAP), on the test split, after the last epoch."""
    validation_accuracy: float | None = Field(
        None, validation_alias=AliasChoices("validation_accuracy", "validation_top1")
    )
    exits: dict[str, float] = Field({})
    """Test top-1 of each early exit, by stage."""
    ensemble: float | None = None
    """Test top-1 of the mean of all classifiers' probabilities; None without exits."""
    extra_params: int = 0
    """Parameters that only the training had: adapters, heads."""
    source: str = ""
    """Where the weights came from: a checkpoint's name and sha256, trained, or trained (cached)."""


class TrainingReport(Record):
    recipe: str
    task: Task = "classify"
    seed: int
    train_images: int
    validation_images: int
    test_images: int
    labels: list[str]
    methods: list[str]
    student: TrainedModel
    teachers: list[TrainedModel] = Field([])
    peers: list[TrainedModel] = Field([])
    """Trained beside the student."""
    baseline: TrainedModel | None = None
    controls: dict[str, TrainedModel] = Field({})
    """The student trained by what its methods must be held against, such as deep supervision, by name."""
    environment: dict[str, str] = Field({})

    @property
    def measure(self) -> Measure:
        """What every accuracy in here is."""
        return MEASURES[self.task]

    @property
    def teacher(self) -> TrainedModel | None:
        """The first one, which the student is held against."""
        return self.teachers[0] if self.teachers else None

    def others(self) -> dict[str, TrainedModel]:
        """The networks beside the first teacher and the student, by what to call them."""
        teachers = {f"teacher {number}": net for number, net in enumerate(self.teachers) if number}
        return teachers | {f"peer {number}": net for number, net in enumerate(self.peers)}


class Hop(Record):
    """One step of the way to the engine, compared with the step it came from."""

    name: str
    """torch, onnx-fp32, onnx-fp16, onnx-int8, engine-fp32, ..."""
    reference: str | None = None
    max_error: float | None = None
    """Largest absolute difference, relative to the largest absolute reference output."""
    mean_error: float | None = None
    """Mean absolute difference, relative in the same way."""
    agreement: float | None = None
    """Share of the images with the same top-1 class; of boxes, of those that either hop is sure of."""
    boxes: BoxAgreement | None = None
    """None for classifiers, and where there is no hop before."""
    quality: Quality | BoxQuality
    correctness: Correctness | None = None
    """None for detectors, and in records of before it was kept."""
    problems: list[str] = Field([])
    """Tolerances that were exceeded."""
    notes: list[str] = Field([])


class ExportedFile(Record):
    path: str
    bytes: int
    sha256: str
    layers: int | None = None
    """Nodes of an ONNX file."""
    notes: list[str] = Field([])
    """Such as 'fp16 storage, fp32 compute on this provider'."""


class ExitPoint(Record):
    """One exit of what was exported, the student's own classifier included."""

    name: str
    """1/4, 2/4, ..."""
    stage: str
    """Feature point that it stands on; of the last, where the network ends."""
    output: str
    """exit1, exit2, ..., logits"""
    params: int
    """Of all that runs for an image that stops here, in `all` the heads of the exits before included."""
    macs: int


class Original(Record):
    """The network that a lightened student was made of."""

    name: str
    """Of its ONNX file and engine: original, with random weights since only its speed is asked for; or teacher."""
    model: str
    params: int
    macs: int


class Sensitivity(Record):
    """What int8 costs, layer by layer, and which layers were left in float for it."""

    images: int
    split: str
    """Whose images it was judged on; never those of the test."""
    limit: float
    """Accuracy that int8 may lose, as a fraction."""
    drop_everywhere: float
    """Accuracy that is lost with every layer in int8."""
    drop: float
    """Accuracy that is lost by what was kept."""
    errors: dict[str, float] = Field({})
    """Mean squared error of the outputs over their mean square, with this layer alone in int8; worst first."""
    left_in_float: list[str] = Field([])

    def told(self) -> list[str]:
        """One sentence where layers were left in float."""
        kept = ", ".join(self.left_in_float)
        lost = f"{100 * self.drop_everywhere:.2f} points of {self.images} {self.split} images"
        return [f"int8 everywhere loses {lost}, with {kept} left in float {100 * self.drop:.2f}"] if kept else []


class ExportReport(Record):
    onnx: dict[str, ExportedFile]
    engines: dict[str, ExportedFile] = Field({})
    hops: list[Hop] = Field([])
    """Of early exits as well, as exit1/onnx-fp32; cascade-fp32 is the cascade with nothing stopped early."""
    exit: str | None = None
    """The exit that the network was cut after (K/N), or all; None: the student without exits."""
    exits: list[ExitPoint] = Field([])
    """In order; one where the network was cut."""
    input_shape: list[int] = Field([])
    """Of one image as the files take it."""
    original: Original | None = None
    """None for a student that was not lightened."""
    layout: Layout | None = None
    """None without int8, as are the next two."""
    sensitivity: Sensitivity | None = None
    """None where no limit is set."""
    fragility: Fragility | None = None
    """None without a distilled student and the same undistilled; of detectors a note on the int8 hop says as much."""
    opset: int
    backend: str = ""
    backend_options: dict[str, Any] = Field({})
    environment: dict[str, str] = Field({})

    def deployed(self, student: TrainedModel) -> TrainedModel:
        """The student as it was exported: up to its exit, or with all its heads."""
        if not self.exits:
            return student
        end = self.exits[-1]
        accuracy = next((hop.quality.accuracy for hop in self.hops if hop.name == "torch"), student.accuracy)
        return student.model_copy(update={"params": end.params, "macs": end.macs, "accuracy": accuracy})

    def hashes(self) -> dict[str, str]:
        """Of the ONNX files."""
        return {name: file.sha256 for name, file in self.onnx.items()}

    def told(self) -> list[str]:
        """What a reader should know of int8, a sentence each."""
        parts = (self.layout, self.sensitivity, self.fragility)
        return [sentence for part in parts if part for sentence in part.told()]

    def warned(self) -> list[str]:
        """What a reader should be warned of."""
        return self.fragility.warned() if self.fragility else []

    def hop(self, precision: str, output: str = "logits") -> Hop | None:
        """Of the built engine; of the ONNX file where no engine was compared."""
        found = {hop.name: hop for hop in self.hops}
        exit_ = "" if output == "logits" else f"{output}/"
        return found.get(f"{exit_}engine-{precision}") or found.get(f"{exit_}onnx-{precision}")

    def quality(self, precision: str, output: str = "logits") -> Quality | BoxQuality | None:
        """Of that hop."""
        hop = self.hop(precision, output)
        return hop.quality if hop else None


Verdict = Literal["pass", "regression", "incomparable", "unstable", "insufficient"]


class Metric(Record):
    value: float
    unit: str
    better: Literal["higher", "lower"]
    stable: bool = True
    """False when the measurement behind it did not settle, or was throttled."""
    trouble: str = ""
    """Why it is not stable."""
    samples: list[float] = Field([])
    """Of a measured one: the value of each process that counts; of energy, of each repeat."""


class Check(Record):
    metric: str
    value: float | None
    unit: str = ""
    limit: str
    """As a person reads it, such as '<= 60.0 KiB'."""
    baseline: float | None = None
    verdict: Verdict
    advisory: bool = False
    reason: str = ""


class GateResult(Record):
    verdict: Verdict
    """The worst of the checks that are not advisory."""
    checks: list[Check]
    warnings: list[str] = Field([])
    metrics: dict[str, Metric] = Field(default_factory=dict)
    baseline: str | None = None
    against: str = ""
    """Name of the other model, where two were measured in turns; empty where budgets were held."""

    @property
    def folded(self) -> tuple[list[Check], list[Check]]:
        """What a reader should see at once, and what is merely no worse than the baseline."""
        at_once: list[Check] = []
        quiet: list[Check] = []
        for check in self.checks:
            passed = check.verdict == "pass" and check.baseline is not None and not self.against
            (quiet if passed else at_once).append(check)
        return at_once, quiet
