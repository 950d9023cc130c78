"""A look at a data set: some images with their boxes or labels, and counts of everything."""

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, make_grid

from kdedge.core import console
from kdedge.core.errors import KdedgeError, nearest
from kdedge.core.load import load_recipe, shipped, validate
from kdedge.core.quality import NO_BOX
from kdedge.core.recipe import Data
from kdedge.core.rundir import atomic_path
from kdedge.core.section import Section
from kdedge.core.source import Source, override, report_problems
from kdedge.data.boxes import MEDIUM, SMALL, areas, presence, unpack
from kdedge.data.build import build_data
from kdedge.data.loader import Batch, eval_batches, view_batches
from kdedge.data.locate import LAYOUTS
from kdedge.data.sets import Dataset, Part

SPLITS = ("train", "validation", "test")
TILE = 256
"""Pixels that a small image is enlarged to, about."""
STRIP = 18
"""Height of the line above each image."""
SIZES = ("small", "medium", "large")


class Request(NamedTuple):
    split: str = "train"
    images: int = 16
    augmented: bool = False
    root: Path | None = None
    out: Path | None = None


class Looked(Section):
    """What of a recipe is looked at."""

    data: Data
    seed: int = 0


def show_data(name: str, changes: Sequence[str], request: Request) -> None:
    """Raises KdedgeError for a split or a file that there cannot be, DataError for a set that is missing or broken."""
    if request.split not in SPLITS:
        raise KdedgeError(f"--split {request.split}", nearest(request.split, SPLITS), f"--split {SPLITS[0]}")
    looked = section(name, changes)
    spec = looked.data.model_copy(update={"root": str(request.root)}) if request.root else looked.data
    out = request.out or Path(f"{Path(name).stem}_{request.split}.png")
    if out.suffix.lower() != ".png":
        raise KdedgeError(f"--out {out}", "a PNG file is written", f"--out {out.with_suffix('.png')}")
    dataset = build_data(spec, looked.seed)
    part: Part = getattr(dataset, request.split)
    some = part.subset(torch.arange(min(request.images, len(part))))
    loader = (
        view_batches(some, spec.augment, len(some), CPU) if request.augmented else eval_batches(some, len(some), CPU)
    )
    with atomic_path(out) as temporary:
        F.to_pil_image(contact_sheet(next(iter(loader.epoch(0))), dataset.labels)).save(temporary, "PNG")
    census = count(part.labels, dataset.labels)
    show_tables(f"{spec.name}, {request.split}", part, census, dataset)
    console.say(f"{out}")
    console.emit(
        {
            "data": spec.name,
            "split": request.split,
            "images": len(part),
            "without_boxes": without_boxes(part.labels),
            "uncounted_areas": uncounted_areas(part.labels),
            "classes": census,
            "left_out": [fault._asdict() for fault in dataset.faults],
            "drawn": str(out),
        }
    )


CPU = torch.device("cpu")


def section(name: str, changes: Sequence[str]) -> Looked:
    """The data section of a recipe, or of a data set by its name.

    Raises:
        KdedgeError: neither, or a change that cannot be made.
    """
    if name not in LAYOUTS:
        if not Path(name).is_file() and name not in shipped("recipes"):
            known = [*LAYOUTS, *shipped("recipes")]
            raise KdedgeError(f"no data set or recipe {name!r}", nearest(name, known), "kdedge ls")
        recipe = load_recipe(name, changes).recipe
        return Looked(data=recipe.data, seed=recipe.seed)
    source = Source(name, {"data": {"name": name}})
    for change in changes:
        override(source, change)
    if source.problems:
        raise report_problems(name, source.problems)
    return validate(Looked, source)


def count(labels: Tensor, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """By class the images that have it, and of sets with boxes how many, in all and of COCO's three sizes."""
    present = presence(labels)
    images = torch.nn.functional.pad(present.sum(dim=0), (0, len(names) - present.shape[1])).tolist()
    census = {name: {"images": number} for name, number in zip(names, images, strict=True)}
    if labels.ndim == 1:
        return census
    boxes = unpack(labels.flatten(0, 1))
    sizes = torch.bucketize(areas(boxes), torch.tensor([SMALL, MEDIUM]), right=True)
    for label, name in enumerate(names):
        own = sizes[boxes[:, 0] == label]
        census[name] |= {"boxes": len(own), **dict(zip(SIZES, own.bincount(minlength=3).tolist(), strict=True))}
    return census


def without_boxes(labels: Tensor) -> int:
    return int((labels[..., 0] < 0).all(dim=1).sum()) if labels.ndim > 1 else 0


def uncounted_areas(labels: Tensor) -> int:
    return int((labels[..., 0] < NO_BOX).sum()) if labels.ndim > 1 else 0


def show_tables(title: str, part: Part, census: dict[str, dict[str, int]], dataset: Dataset) -> None:
    columns = list(next(iter(census.values())))
    rows = [[name, *map(str, counts.values())] for name, counts in census.items()]
    caption = f"{len(part)} images"
    if "boxes" in columns:
        sums = [sum(counts[column] for counts in census.values()) for column in columns[1:]]
        rows.append(["all", str(len(part) - without_boxes(part.labels)), *map(str, sums)])
        side = part.image_shape[1]
        caption += f", {without_boxes(part.labels)} without boxes"
        if apart := uncounted_areas(part.labels):
            caption += f", {apart} area{'s' * (apart > 1)} where finds do not count"
        caption += f"; sizes as COCO has them, in pixels of {side}x{side}"
    console.show_table(title, ("class", *columns), rows, caption)
    if dataset.faults:
        faults = [[fault.reason, str(fault.times), "\n".join(fault.places)] for fault in dataset.faults]
        console.show_table("left out, in all splits", ("what", "times", "where, the first"), faults)


def contact_sheet(batch: Batch, names: Sequence[str]) -> Tensor:
    """(3, H, W) uint8, the images of a batch in a grid."""
    tiles = [tile(*each, names) for each in zip(*batch, strict=True)]
    sheet: Tensor = make_grid(tiles, nrow=ceil(sqrt(len(tiles))), padding=4, pad_value=255)
    return sheet


def tile(image: Tensor, label: Tensor, index: Tensor, names: Sequence[str]) -> Tensor:
    """An image (C, H, W) uint8 with its boxes, and its place in the set and its label in a line above."""
    times = max(1, round(TILE / image.shape[2]))
    large = image.expand(3, -1, -1).repeat_interleave(times, 1).repeat_interleave(times, 2)
    if label.ndim == 0:
        return torch.cat([strip(f"{int(index)}: {names[int(label)]}", large.shape[2]), large], dim=1)
    boxes = unpack(label)
    if len(boxes):
        classes = boxes[:, 0].long().tolist()
        large = draw_bounding_boxes(
            large,
            boxes[:, 1:] * times,
            labels=[names[each] for each in classes],
            colors=[color(each) for each in classes],
            width=2,
            font=font_file(),
            font_size=12,
        )
    objects = f"{len(boxes)} object{'' if len(boxes) == 1 else 's'}"
    return torch.cat([strip(f"{int(index)}: {objects}", large.shape[2]), large], dim=1)


def strip(text: str, width: int) -> Tensor:
    line = Image.new("RGB", (width, STRIP), "white")
    ImageDraw.Draw(line).text((2, 1), text, "black", ImageFont.truetype(font_file(), 13))
    pixels: Tensor = F.pil_to_tensor(line)
    return pixels


def font_file() -> str:
    """A font that comes with matplotlib, so that the picture is the same everywhere."""
    return str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


def color(label: int) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in mpl.colormaps["tab10"](label % 10)[:3])
    return red, green, blue
