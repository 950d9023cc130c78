"""The records of a detector's boxes: what was found, and how good that is."""

from pydantic import Field

from kdedge.core.record import Part, Record


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
    """Its file; of a run's, after the name of the run."""
    model_sha256: str
    score: float
    """Above which boxes are told."""
    pictures: list[Picture]
    failed: list[str] = Field([])
    """Pictures that could not be read, and folders without any."""
