"""What a network is for, and how good it is at that."""

from typing import Literal, NamedTuple

from pydantic import Field

from kdedge.core.record import Part, Record

Task = Literal["classify", "detect"]
NO_BOX = -1
"""The class of a row of targets that is no box."""


def uncounted(label: int) -> int:
    """The class of a row that is an area where finds of a class are neither right nor wrong; its own inverse."""
    return -2 - label


class Measure(NamedTuple):
    """The one number that a task is judged by, 0..1."""

    key: str
    """In logs and in the names of metrics."""
    label: str


MEASURES: dict[Task, Measure] = {"classify": Measure("top1", "top-1"), "detect": Measure("mean_ap", "mAP")}


class Quality(Record):
    """Classification of one set of images by one hop."""

    images: int
    top1: float
    top5: float | None = None
    """None with five classes or fewer."""
    per_class: list[float]
    """Accuracy of each class; nan-free: a class without images counts 0 and is named in `empty`."""
    empty: list[int] = Field([])
    ece: float
    """Expected calibration error, 15 equal-width bins of confidence."""

    @property
    def accuracy(self) -> float:
        return self.top1


class BoxQuality(Record):
    """Average precision as COCO defines it, each the mean over the classes that have objects."""

    images: int
    objects: int
    mean_ap: float
    """Mean over the IoU thresholds 0.50, 0.55, ..., 0.95 as well."""
    ap50: float
    ap75: float
    small: float | None
    """mean_ap of objects below 32 x 32 pixels; None where there are none, as for the next two."""
    medium: float | None
    """From there to 96 x 96."""
    large: float | None
    sizes_in: Literal["picture", "input"]
    """Whose pixels those are: the original pictures', or those of the square that the model sees."""
    per_class: list[float]
    """mean_ap of each class; nan-free: a class without objects counts 0 here, in no mean, and is named in `empty`."""
    empty: list[int] = Field([])

    @property
    def accuracy(self) -> float:
        return self.mean_ap

    @property
    def by_size(self) -> dict[str, float | None]:
        return {"small": self.small, "medium": self.medium, "large": self.large}


class BoxAgreement(Part):
    """How the boxes of two hops that either is sure of differ from the other's, which need not be sure of them."""

    score: float
    """From which a hop is sure of a box."""
    boxes: int
    """How many such boxes there are, of the two hops together."""
    least_iou: float | None = None
    """Of those that the other hop has, too; None where it has none of them, as is the next."""
    score_error: float | None = None
    """Largest difference of their scores."""
