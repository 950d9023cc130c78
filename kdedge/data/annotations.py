"""From what an annotation file says of pictures and objects to sets with boxes; what is wrong is left out and counted.

What is wrong with one object leaves out that object: a box that is outside its picture, without area, not of numbers
or without some of them, a class that `data.classes` does not name.  A box that reaches beyond its picture by more than
a pixel is cut there, and counted.  What is wrong with one picture leaves out that picture: its file or its annotation
is missing, or it is not of the size that the annotation was made at.  What is wrong with the whole is a DataError: a
file that cannot be parsed, a picture that cannot be decoded, no pictures, no objects, a class that no training picture
shows.  A picture without objects is one to learn from, and stays.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from kdedge.core.errors import DataError
from kdedge.core.quality import uncounted
from kdedge.core.recipe import Data
from kdedge.data.boxes import classes_of, pack, scale_to_fit, show_image, whole
from kdedge.data.decode import decode, picture_size, pixels
from kdedge.data.sets import BoxFolder, BoxSet, Fault, Splits

T = TypeVar("T")

BOX_SIDE = 320
IN_MEMORY = 2 << 30
"""Bytes of pixels up to which a part of a set is kept in memory, each picture in its square."""
SHOWN = 3
"""Places that are named for each kind of fault."""

UNKNOWN_CLASS, NOT_A_NUMBER, NO_AREA = "unknown class", "box not of numbers", "box without area"
OUTSIDE, CUT = "box outside the picture", "box cut at the picture's border"
NO_PICTURE, OTHER_SIZE = "picture missing", "picture of another size than its annotation"


class Thing(NamedTuple):
    """An object as it was annotated."""

    name: str
    corners: tuple[float, ...]
    """x1, y1, x2, y2 in pixels, counted from 0 and the last one beyond the box; nan where there is no such number."""
    place: str
    """File and line, or file and number."""
    counts: bool = True
    """Whether finding it is right and missing it wrong; else neither is."""


class Annotated(NamedTuple):
    """A picture as it was annotated."""

    path: Path
    size: tuple[int, int] | None
    """Height and width that the annotation gives, if it does."""
    things: Sequence[Thing]
    place: str


class Picture(NamedTuple):
    path: Path
    size: tuple[int, int]
    boxes: Tensor
    """(n, 5) in its own pixels."""


@dataclass
class Faults:
    """What was left out, and where."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        self.places.setdefault(reason, []).append(place)

    def found(self) -> tuple[Fault, ...]:
        return tuple(Fault(reason, len(all_), tuple(all_[:SHOWN])) for reason, all_ in self.places.items())


def assigned(parts: Mapping[str, T]) -> dict[str, T]:
    """What train, val and test are used as: val is validated on, or without a test it is the test.

    Parts that are empty are not there.
    """
    there = {part: each for part, each in parts.items() if each}
    uses = {"train": "train", "val": "validation" if "test" in there else "test", "test": "test"}
    return {uses[part]: each for part, each in there.items()}


def boxed_splits(
    source: Path,
    spec: Data,
    parts: Mapping[str, Sequence[Annotated]],
    names: Sequence[str],
    faults: Faults,
) -> Splits:
    """A checked set of the parts train, perhaps validation, and test; without `spec.classes` its classes are `names`.

    Raises:
        DataError: it names what is missing.
    """
    classes = spec.classes or tuple(names)
    if not classes:
        raise DataError(f"{source} has no objects", "none of its annotations has a box", f"ls {source}")
    pictures = {part: accepted(each, classes, faults) for part, each in parts.items()}
    check_some_left(source, pictures, faults)
    made = {part: boxed_part(each, spec.image_size or BOX_SIDE) for part, each in pictures.items()}
    train = made["train"]
    present = set(classes_of(train.labels).tolist())
    if absent := [name for label, name in enumerate(classes) if label not in present]:
        left = [name for name in classes if name not in absent]
        fix = f"--set 'data.classes={left}'" if left else "name other data.classes, or add boxes"
        raise DataError(f"{source}: class {absent[0]!r} has no training boxes", "every class needs some", fix)
    return Splits(train, made["test"], classes, made.get("validation"), faults.found())


def check_some_left(source: Path, pictures: dict[str, list[Picture]], faults: Faults) -> None:
    """Raises DataError when a part has no pictures."""
    for part, left in pictures.items():
        if not left:
            found = [f"{fault.reason}: {fault.times}, {fault.places[0]} first" for fault in faults.found()]
            why = "; ".join(found) or "none are listed"
            raise DataError(f"{source} has no {part} pictures", why, f"ls {source}")


def accepted(found: Sequence[Annotated], classes: Sequence[str], faults: Faults) -> list[Picture]:
    """The pictures that are there, and their sound boxes."""
    there = []
    for each in found:
        if each.path.is_file():
            there.append(each)
        else:
            faults.add(NO_PICTURE, each.place)
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(lambda each: picture_size(each.path), there))
    pictures = []
    for each, size in zip(there, sizes, strict=True):
        if each.size and each.size != size:
            faults.add(OTHER_SIZE, each.place)
        else:
            things = sorted(each.things, key=lambda thing: not thing.counts)
            boxes = [box for thing in things if (box := sound(thing, size, classes, faults))]
            pictures.append(Picture(each.path, size, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)))
    return pictures


def sound(thing: Thing, size: tuple[int, int], classes: Sequence[str], faults: Faults) -> list[float] | None:
    """The row of targets that an object is, or None."""
    height, width = size
    if thing.name not in classes:
        faults.add(UNKNOWN_CLASS, f"{thing.place} ({thing.name})")
        return None
    if not all(map(math.isfinite, thing.corners)):
        faults.add(NOT_A_NUMBER, thing.place)
        return None
    x1, y1, x2, y2 = thing.corners
    if x2 <= x1 or y2 <= y1:
        faults.add(NO_AREA, thing.place)
        return None
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        faults.add(OUTSIDE, thing.place)
        return None
    if min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:
        faults.add(CUT, thing.place)
    label = classes.index(thing.name)
    return [label if thing.counts else uncounted(label), max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)]


def boxed_part(pictures: Sequence[Picture], side: int) -> BoxSet | BoxFolder:
    """In memory if it fits, a folder whose pictures are decoded when they are asked for otherwise."""
    sizes = torch.tensor([picture.size for picture in pictures]).reshape(-1, 2)
    indices = torch.arange(len(pictures))
    targets = pack([in_square(picture, side) for picture in pictures])
    if len(pictures) * 3 * side * side > IN_MEMORY:
        return BoxFolder(tuple(picture.path for picture in pictures), targets, indices, side, sizes)
    return BoxSet(letterboxed(pictures, side), targets, indices, sizes)


def in_square(picture: Picture, side: int) -> Tensor:
    """Its boxes (n, 5) in pixels of the square."""
    boxes = picture.boxes.clone()
    boxes[:, 1:] *= scale_to_fit(*picture.size, side)
    return boxes


def letterboxed(pictures: Sequence[Picture], side: int) -> Tensor:
    """(N, 3, S, S) uint8; threads share the work, since Pillow decodes without holding the interpreter."""
    images = torch.empty(len(pictures), 3, side, side, dtype=torch.uint8)

    def fill(position: int) -> None:
        picture = pixels(decode(pictures[position].path))
        images[position] = show_image(picture, whole(picture), side)

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(pictures))))
    return images
