"""The record of early exits: what each gives by itself, and all of them with a threshold."""

from kdedge.core.record import Record


class OperatingPoint(Record):
    """A cascade of exits where every image stops at the first exit that is sure enough."""

    threshold: float
    """Of the largest softmax probability."""
    top1: float
    macs: float
    """Mean over the images."""
    latency_ms: float
    """Mean over the images of the medians of the stages that each went through."""
    shares: list[float]
    """Of the images that stop at each exit."""


class ExitQuality(Record):
    """One exit by itself: every image stops there."""

    name: str
    """1/4, 2/4, ..."""
    stage: str
    params: int
    macs: int
    latency_ms: float
    """Sum of its stage's median and of those before it."""
    validation_top1: float
    test_top1: float


class MeasuredCascade(Record):
    """The cascade as it is deployed, one test image at a time."""

    images: int
    processes: int
    """Fresh ones, each with all of these images."""
    top1: float
    mean_ms: float
    median_ms: float
    predicted_ms: float
    """Mean for these images as the medians of their stages say."""
    shares: list[float]
    """Of these images that stopped at each exit."""


class WithoutExits(Record):
    """The student alone in one engine: no heads, nothing handed from stage to stage."""

    params: int
    macs: int
    latency_ms: float
    """Median."""
    mean_ms: float


class ExitsReport(Record):
    precision: str
    backend: str
    threads: int
    exits: list[ExitQuality]
    curve: list[OperatingPoint]
    """On the validation images, by rising threshold."""
    wanted: float | None
    """Validation accuracy the threshold was chosen for; None where the threshold was given."""
    validation_images: int
    test_images: int
    validation: OperatingPoint
    test: OperatingPoint
    measured: MeasuredCascade
    without: WithoutExits
    notes: list[str]
