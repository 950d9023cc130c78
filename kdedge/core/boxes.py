"""The records of a detector's boxes: what was found, and how good that is."""

from typing import Literal

from pydantic import Field

from kdedge.core.energy import Part
from kdedge.core.report import Record


class Box(Part):
    label: str
    score: float
    x1: float
    """In the picture's own pixels, as the other three."""
    y1: float
    x2: float
    y2: float


class Picture(Part):
    """What was found on one picture."""

    name: str
    """Of its file."""
    width: int
    height: int
    boxes: list[Box]
    """Best first."""
    drawn: str | None = None
    """The file with the boxes drawn, beside this record."""


class DetectReport(Record):
    model: str
    model_sha256: str
    score: float
    """Above which boxes are told."""
    pictures: list[Picture]
    failed: list[str] = Field([])
    """Pictures that could not be read, and folders without any."""


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
