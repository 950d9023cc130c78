"""What a detector found on the test images: each find judged, precision by recall, and counts by class.

A find is right about an object of its class at an IoU of 0.5 or more that no better find is right about.  Counted as
COCO does: the 100 best of each class and image; a find that is not right but lies in an area where its class does not
count, such as a crowd, is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdedge.core.console import percent
from kdedge.core.quality import NO_BOX, uncounted
from kdedge.report.answers import Asked, name_of

Floats = NDArray[np.floating[Any]]
Numbers = NDArray[np.int64]
IOU = 0.5
TOUCHING = 0.1
"""IoU from which a find that is not right is taken for one of that object."""
MOST = 100
RECALLS = np.linspace(0, 1, 101)
RIGHT, TWICE, WRONG_CLASS, MISPLACED, BACKGROUND = range(5)
KINDS = ("right", "twice", "wrong class", "misplaced", "background")
COLUMNS = ("class", "objects", "AP50", "found", "missed", *KINDS[1:])
CONFUSED = ("class", "found as", "times")
MOST_PAIRS = 12
EXPLAINED = (
    "The last four columns count false finds of the class: of an object that a better find has (twice), on an object "
    f"of another class, on one of its own at an IoU from {TOUCHING:g} (misplaced), on nothing (background)."
)


class Finds(NamedTuple):
    """Of one network on all images, (n,) each, best first."""

    images: Numbers
    """Places in `Asked.images`."""
    boxes: Floats
    """(n, 4)"""
    scores: Floats
    classes: Numbers
    kinds: Numbers
    """Places in KINDS."""
    objects: Numbers
    """Rows of the image's labels: what a find is about; -1 for one on the background."""

    def above(self, score: float) -> "Finds":
        return self.where(self.scores >= score)

    def where(self, chosen: NDArray[Any]) -> "Finds":
        return Finds(*(column[chosen] for column in self))


@dataclass(frozen=True)
class Judged:
    """One network's finds beside the objects that there are."""

    who: str
    finds: Finds
    totals: Numbers
    """Objects of each class."""
    score: float
    """From which on finds are shown: where F1 over all classes is highest."""

    @cached_property
    def shown(self) -> Finds:
        return self.finds.above(self.score)

    @cached_property
    def curves(self) -> list[Floats | None]:
        """By class, as `curve` gives them; None where there is no object."""
        classes, right = self.finds.classes, self.finds.kinds == RIGHT
        return [
            curve(right[classes == label], int(total)) if total else None for label, total in enumerate(self.totals)
        ]


def judge(asked: Asked, who: str, outputs: Floats) -> Judged:
    """Of boxes (N, rows, 6), see engine/boxes, beside the labels (N, M, 5) of the same images."""
    parts = [judge_image(place, *pair) for place, pair in enumerate(zip(outputs, asked.labels, strict=True))]
    together = Finds(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    classes = asked.labels[..., 0].astype(np.int64)
    totals = np.bincount(classes[classes >= 0], minlength=len(asked.names))
    finds = together.where(np.argsort(-together.scores, kind="stable"))
    return Judged(who, finds, totals, best_score(finds, int(totals.sum())))


def judge_image(place: int, found: Floats, labels: Floats) -> Finds:
    """Best first; labels have their objects before all other rows."""
    areas = labels[labels[:, 0] < NO_BOX].astype(np.float64)
    found, labels = (rows[rows[:, 0] >= 0].astype(np.float64) for rows in (found, labels))
    found = found[np.argsort(-found[:, 1], kind="stable")]
    found = found[rank_in_class(found[:, 0]) < MOST]
    overlaps = iou(found[:, 2:], labels[:, 1:])
    own = np.where(found[:, :1] == labels[:, 0], overlaps, 0)
    objects = matches(own)
    kinds = np.where(objects >= 0, RIGHT, BACKGROUND)
    for kind, near, least in ((TWICE, own, IOU), (WRONG_CLASS, overlaps, IOU), (MISPLACED, own, TOUCHING)):
        about = (kinds == BACKGROUND) & (near.max(axis=1, initial=0) >= least)
        if about.any():
            kinds[about], objects[about] = kind, near[about].argmax(axis=1)
    finds = Finds(np.full(len(found), place), found[:, 2:], found[:, 1], found[:, 0].astype(np.int64), kinds, objects)
    return finds.where((kinds == RIGHT) | ~lie_in(found, areas)) if len(areas) else finds


def lie_in(found: Floats, areas: Floats) -> NDArray[np.bool_]:
    """(n,) of finds (n, 6): whether half of one or more is in an area (m, 5) of its class."""
    inside = intersections(found[:, 2:], areas[:, 1:]) >= IOU * sizes(found[:, 2:])[:, None]
    labels = [uncounted(int(label)) for label in areas[:, 0]]
    there: NDArray[np.bool_] = (inside & (found[:, :1] == labels)).any(axis=1)
    return there


def matches(overlaps: Floats) -> Numbers:
    """Of finds (n, objects), best first, the object that each is right about, or -1."""
    found, free = np.full(len(overlaps), -1), np.ones(overlaps.shape[1])
    for number in np.flatnonzero(overlaps.max(axis=1, initial=0) >= IOU):
        best = int((overlaps[number] * free).argmax())
        if overlaps[number, best] * free[best] >= IOU:
            found[number], free[best] = best, 0
    return found


def rank_in_class(classes: Floats) -> Numbers:
    """How many of the same class come before each."""
    before: Numbers = np.tril(classes[:, None] == classes, -1).sum(axis=1)
    return before


def iou(ones: Floats, others: Floats) -> Floats:
    """(n, m) of boxes (n, 4) and (m, 4)."""
    both = intersections(ones, others)
    either = sizes(ones)[:, None] + sizes(others) - both
    shares: Floats = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return shares


def intersections(ones: Floats, others: Floats) -> Floats:
    """Areas (n, m) that boxes (n, 4) and (m, 4) share."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    both: Floats = (high - low).clip(0).prod(axis=2)
    return both


def sizes(boxes: Floats) -> Floats:
    """Areas (n,) of boxes (n, 4)."""
    areas: Floats = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    return areas


def best_score(finds: Finds, objects: int) -> float:
    """Score of the last find that is worth taking by F1; with nothing found, 1."""
    if not len(finds.scores):
        return 1.0
    counts = np.arange(1, len(finds.scores) + 1)
    f1 = 2 * np.cumsum(finds.kinds == RIGHT) / (counts + objects)
    last = np.append(np.diff(finds.scores) != 0, True)  # of those with equal scores, all or none are taken
    return float(finds.scores[np.where(last, f1, -1).argmax()])


def curve(right: NDArray[np.bool_], objects: int) -> Floats:
    """(101,) precision at each of RECALLS: the best at that recall or beyond, 0 where it is not reached."""
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return np.append(best, 0.0)[np.searchsorted(hits / objects, RECALLS)]


def class_rows(judged: Judged, names: Sequence[str]) -> list[list[str]]:
    """Under COLUMNS, the class of the lowest AP50 first, all together above them."""
    shown, totals, curves = judged.shown, judged.totals, judged.curves
    counts = np.zeros((len(totals), len(KINDS)), np.int64)
    np.add.at(counts, (shown.classes, shown.kinds), 1)
    precisions = [None if each is None else float(each.mean()) for each in curves]
    rows = [
        class_row(names[label], int(totals[label]), precisions[label], counts[label].tolist())
        for label in sorted(range(len(totals)), key=lambda label: (precisions[label] is None, precisions[label]))
        if totals[label] or counts[label].any()
    ]
    mean = average(judged)
    everything = None if mean is None else float(mean.mean())
    return [class_row("all", int(totals.sum()), everything, counts.sum(axis=0).tolist()), *rows]


def class_row(name: str, objects: int, precision: float | None, counts: Sequence[int]) -> list[str]:
    right, *wrong = counts
    return [name, str(objects), percent(precision), str(right), str(objects - right), *map(str, wrong)]


def average(judged: Judged) -> Floats | None:
    """The mean of the classes' curves, whose own mean is AP50."""
    known = [each for each in judged.curves if each is not None]
    return np.mean(known, axis=0) if known else None


def confused_rows(judged: Judged, asked: Asked) -> list[list[str]]:
    """Under CONFUSED, the most frequent first."""
    finds = judged.shown.where(judged.shown.kinds == WRONG_CLASS)
    real = asked.labels[finds.images, finds.objects, 0].astype(np.int64)
    pairs, times = np.unique(np.column_stack([real, finds.classes]), axis=0, return_counts=True)
    order = np.argsort(-times, kind="stable")[:MOST_PAIRS]
    return [[name_of(asked, pairs[at, 0]), name_of(asked, pairs[at, 1]), str(times[at])] for at in order]


def summary(judged: Judged, asked: Asked) -> str:
    return (
        f"{judged.who} on {len(asked.labels)} test images with {judged.totals.sum()} objects. Counted are finds with "
        f"a score of at least {judged.score:.2f}, where their F1 is best; right at an IoU of at least {IOU:g}."
    )
