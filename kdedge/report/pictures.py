"""Test images with their objects and what was found marked on them: where a detector errs most, and what int8 loses."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.report.answers import Asked, Opinion, name_of
from kdedge.report.boxes import KINDS, RIGHT, Finds, Judged
from kdedge.report.thumbnails import Thumbnail, encoded, pixels

SIDE = 320
"""Pixels that an image has at most on its longer side."""
WORST = 12
LOST = 6
"""Images on which a lower precision misses most of what a higher one finds."""


@dataclass(frozen=True)
class Mark:
    """A rectangle on an image."""

    kind: str
    """right, missed or false; of an object that is found, the find is marked."""
    text: str
    inset: str
    """The rectangle's distances from top, right, bottom and left, as CSS takes them."""


@dataclass(frozen=True)
class Picture:
    id: int
    thumbnail: Thumbnail
    ratio: float
    """Of width to height."""
    marks: list[Mark]
    """The last on top."""
    opinions: list[Opinion]
    """What is missed, what is false, and how other networks do."""

    @property
    def title(self) -> str:
        count = Counter(mark.kind for mark in self.marks)
        return f"{count['missed']} missed, {count['false']} false"


def worst(asked: Asked, judged: Judged, others: Sequence[Judged]) -> list[Picture]:
    """The images with the most objects missed and false finds."""
    false = judged.shown.where(judged.shown.kinds != RIGHT)
    errors = missing(asked, judged.shown).sum(axis=1) + np.bincount(false.images, minlength=len(asked.labels))
    return [picture(asked, place, judged, others) for place in most(errors, WORST)]


def lost(asked: Asked, lower: Judged, higher: Judged) -> list[Picture]:
    """The images with the most objects that the higher precision finds and the lower one misses, at one score."""
    higher = replace(higher, score=lower.score)
    errors = (missing(asked, lower.shown) & ~missing(asked, higher.shown)).sum(axis=1)
    return [picture(asked, place, lower, [higher]) for place in most(errors, LOST)]


def most(errors: NDArray[Any], count: int) -> list[int]:
    order = np.argsort(-errors, kind="stable")[:count]
    return [place for place in order.tolist() if errors[place]]


def missing(asked: Asked, finds: Finds) -> NDArray[np.bool_]:
    """(N, M) of the labels' rows: objects that no find is right about."""
    unseen: NDArray[np.bool_] = asked.labels[..., 0] >= 0
    right = finds.where(finds.kinds == RIGHT)
    unseen[right.images, right.objects] = False
    return unseen


def picture(asked: Asked, place: int, judged: Judged, others: Sequence[Judged]) -> Picture:
    image, objects = pixels(asked.images[place], asked.normalize), asked.labels[place]
    image = without_margin(image, objects[:, 1:])
    finds = on_image(judged, place)
    missed = objects[missing(asked, finds)[place]]
    marks = [*missed_marks(asked, missed, image.shape), *find_marks(asked, finds, image.shape)]
    false = finds.where(finds.kinds != RIGHT)
    errors = {
        "missed": counted(name_of(asked, int(label)) for label in missed[:, 0]),
        "false": counted(
            f"{name_of(asked, label)} ({KINDS[kind]})" for label, kind in zip(false.classes, false.kinds, strict=True)
        ),
    }
    opinions = [Opinion(what, text, False) for what, text in errors.items() if text]
    opinions += [opinion(asked, place, other) for other in others]
    height, width = image.shape[:2]
    return Picture(int(asked.ids[place]), encoded(image, SIDE, photo=True), width / height, marks, opinions)


def on_image(judged: Judged, place: int) -> Finds:
    return judged.shown.where(judged.shown.images == place)


def without_margin(image: NDArray[np.uint8], boxes: NDArray[Any]) -> NDArray[np.uint8]:
    """Without the rows and columns of one color, right and below, that made it a square; all boxes stay inside."""
    other = image != image[-1, -1]
    inside = other.any(axis=2) if other.ndim == 3 else other
    x, y = (int(np.ceil(boxes[:, side].max(initial=0))) for side in (2, 3))
    height, width = (np.flatnonzero(inside.any(axis=axis)).max(initial=0) + 1 for axis in (1, 0))
    return image[: max(height, y), : max(width, x)]


def missed_marks(asked: Asked, missed: NDArray[Any], shape: tuple[int, ...]) -> Iterator[Mark]:
    for label, *box in missed.tolist():
        yield Mark("missed", f"missed: {name_of(asked, int(label))}", inset(box, shape))


def find_marks(asked: Asked, finds: Finds, shape: tuple[int, ...]) -> Iterator[Mark]:
    """The best one last."""
    columns = (finds.classes, finds.scores, finds.kinds, finds.boxes)
    for label, score, kind, box in reversed(list(zip(*(column.tolist() for column in columns), strict=True))):
        text = f"{name_of(asked, label)} {score:.2f}"
        if kind == RIGHT:
            yield Mark("right", text, inset(box, shape))
        else:
            yield Mark("false", f"{text}, {KINDS[kind]}", inset(box, shape))


def inset(box: Sequence[float], shape: tuple[int, ...]) -> str:
    """A box of x1, y1, x2, y2 in an image (height, width, ...), what lies outside cut off."""
    height, width = shape[:2]
    x1, y1, x2, y2 = box
    distances = (y1 / height, 1 - x2 / width, 1 - y2 / height, x1 / width)
    return " ".join(f"{100 * min(max(distance, 0), 1):.2f}%" for distance in distances)


def counted(names: Iterable[str]) -> str:
    """Each once, with how often where more."""
    times = Counter(names)
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in times.items())


def opinion(asked: Asked, place: int, judged: Judged) -> Opinion:
    finds = on_image(judged, place)
    objects, found = int((asked.labels[place, :, 0] >= 0).sum()), int((finds.kinds == RIGHT).sum())
    false = len(finds.kinds) - found
    return Opinion(judged.who, f"{found} of {objects} found, {false} false", found == objects and not false)
