"""What each hop on the way to the engine changed, and what the classes are worth there, as rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdedge.core.console import percent
from kdedge.core.quality import BoxQuality, Quality
from kdedge.core.report import ExportReport, Hop

TEXTS = ("compared with", "remarks")
"""Columns of words."""
LOGITS = ("hop", "compared with", "max error", "mean error", "agreement", "top-1", "top-5", "ECE", "remarks")
BOXES = ("hop", "compared with", "boxes kept", "least IoU", "score error", "mAP", "AP50", "AP75", "remarks")


@dataclass(frozen=True)
class ClassRow:
    """Of a class, or of the objects of one size."""

    label: str
    accuracies: tuple[float | None, ...]
    """By hop; None where there is nothing of it."""


def detects(export: ExportReport) -> bool:
    return any(isinstance(hop.quality, BoxQuality) for hop in export.hops)


def columns(export: ExportReport) -> tuple[str, ...]:
    return BOXES if detects(export) else LOGITS


def rows(export: ExportReport) -> list[list[str]]:
    return [
        [hop.name, hop.reference or "-", *measured(hop, hop.quality), "; ".join((*hop.problems, *hop.notes)) or "-"]
        for hop in export.hops
    ]


def measured(hop: Hop, quality: Quality | BoxQuality) -> list[str]:
    if isinstance(quality, BoxQuality):
        precisions = quality.mean_ap, quality.ap50, quality.ap75
        iou = "-" if hop.boxes is None or hop.boxes.least_iou is None else f"{hop.boxes.least_iou:.4f}"
        score = hop.boxes.score_error if hop.boxes else None
        return [percent(hop.agreement), iou, scientific(score), *map(percent, precisions)]
    accuracies = quality.top1, quality.top5, quality.ece
    return [scientific(hop.max_error), scientific(hop.mean_error), *map(percent, (hop.agreement, *accuracies))]


def scientific(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}" if value else "0"


def explained(export: ExportReport) -> str:
    """What was compared, and what the columns mean."""
    told = "Every step from the trained network to the engine"
    if not export.hops:
        return f"{told}: none was compared."
    judged = export.hops[0].quality
    told += f" on the same {judged.images} test images"
    if isinstance(judged, Quality):
        return f"{told}. Errors are relative to the largest reference output."
    scores = [f"{hop.boxes.score:.2f}" for hop in export.hops if hop.boxes]
    least = " to ".join(sorted({min(scores), max(scores)})) if scores else ""
    sure = f" that either hop gives a score of at least {least}" if least else ""
    return (
        f"{told} with {judged.objects} objects. Boxes{sure} are looked for among those of the other hop. Average "
        "precision is as COCO defines it: mAP over the IoU thresholds 0.50 to 0.95, AP50 and AP75 at one."
    )


def sizes_explained(judged: BoxQuality) -> str:
    pixels = "the original pictures" if judged.sizes_in == "picture" else "the square that the model sees"
    return f"Small objects are below 32 x 32 pixels of {pixels}, large ones from 96 x 96."


def size_rows(export: ExportReport) -> list[ClassRow]:
    """mAP of small, medium and large objects; none of a classifier."""
    found = [hop.quality for hop in class_columns(export) if isinstance(hop.quality, BoxQuality)]
    by_size = {
        "small": tuple(quality.small for quality in found),
        "medium": tuple(quality.medium for quality in found),
        "large": tuple(quality.large for quality in found),
    }
    return [ClassRow(size, precisions) for size, precisions in by_size.items() if precisions]


def class_columns(export: ExportReport) -> list[Hop]:
    """The network as trained, and the last hop of each precision; early exits are left out."""
    last = {hop.name.rpartition("-")[2]: hop for hop in export.hops if "/" not in hop.name}
    return list(last.values())


def class_rows(export: ExportReport, labels: Sequence[str]) -> list[ClassRow]:
    """Weakest class first."""
    hops = class_columns(export)
    count = max((len(hop.quality.per_class) for hop in hops), default=0)
    found = [
        ClassRow(
            labels[index] if index < len(labels) else f"class {index}",
            tuple(None if index in hop.quality.empty else hop.quality.per_class[index] for hop in hops),
        )
        for index in range(count)
    ]
    return sorted(found, key=lambda row: min((value for value in row.accuracies if value is not None), default=2.0))
