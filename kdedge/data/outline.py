"""What is known of a data set before its images are read, and a stand-in to try networks and methods on."""

from dataclasses import dataclass
from pathlib import Path

import torch

from kdedge.core.recipe import Data, Normalize
from kdedge.data import coco, voc
from kdedge.data.annotations import BOX_SIDE
from kdedge.data.arrays import archive_outline
from kdedge.data.boxes import pack
from kdedge.data.folders import IMAGE_SIZE, class_folders
from kdedge.data.locate import layout_of, locate, readable
from kdedge.data.sets import BoxSet, Dataset, ImageSet


@dataclass(frozen=True)
class Outline:
    classes: int
    image_shape: tuple[int, int, int]
    """(C, H, W)."""


def outline(spec: Data) -> Outline:
    """As the set was published, or from an archive's headers, or a folder's folders.

    Raises:
        DataError: the set is missing or broken.
    """
    source, layout = locate(spec), layout_of(spec.name)
    with readable(source):
        if source.suffix == ".npz":
            return Outline(*archive_outline(source))
        if layout.classes:
            return Outline(layout.classes, layout.shape)
        side = spec.image_size or (BOX_SIDE if layout.boxes else IMAGE_SIZE)
        names = annotated_classes(source, spec) if layout.boxes else class_folders(source)
        return Outline(len(names), (3, side, side))


def annotated_classes(source: Path, spec: Data) -> tuple[str, ...]:
    return spec.classes or {"voc": voc.classes, "coco": coco.classes}[spec.name](source)


def stand_in(spec: Data, known: Outline, images: int) -> Dataset:
    """A set of that outline whose few images are noise, the same at every call.

    A set with boxes has one on every image but the last, over its middle half.
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, *known.image_shape), dtype=torch.uint8, generator=generator)
    labels = torch.arange(images) % known.classes
    part = ImageSet(pixels, labels, torch.arange(images))
    if layout_of(spec.name).boxes:
        side = known.image_shape[1]
        middle = [side / 4, side / 4, side * 3 / 4, side * 3 / 4]
        boxes = [torch.tensor([[label, *middle]]) for label in labels[:-1].tolist()]
        targets = pack([*boxes, torch.zeros(0, 5)])
        part = BoxSet(pixels, targets, part.indices, torch.full((images, 2), side))
    channels = known.image_shape[0]
    normalize = spec.normalize or Normalize(mean=(0.5,) * channels, std=(0.25,) * channels)
    names = tuple(map(str, range(known.classes)))
    return Dataset(spec.name, part, part, part, names, normalize, known.image_shape)
