"""Small data sets with boxes, as VOC and COCO lay them out."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Thing = tuple[str, float, float, float, float]
"""Class, xmin, ymin, xmax, ymax as VOC counts them."""
PICTURES: dict[str, list[Thing]] = {
    "a": [("cat", 1, 1, 10, 8)],
    "b": [("dog", 11, 5, 20, 16), ("cat", 3, 3, 6, 6)],
    "c": [],
    "d": [("cat", 5, 5, 12, 12)],
    "e": [("dog", 1, 1, 20, 16)],
    "f": [("cat", 2, 2, 8, 8), ("dog", 9, 9, 18, 14)],
}
LISTS = {"train": "abcd", "val": "e", "test": "f"}
SIZE = (16, 20)
"""Height and width."""


def write_picture(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def xml(things: Sequence[Thing], size: tuple[int, int] = SIZE) -> str:
    """An annotation; the object of number n, from 0, begins in line 3 + 4 n."""
    objects = "".join(
        f"  <object>\n    <name>{name}</name>\n"
        f"    <bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>\n  </object>\n"
        for name, x1, y1, x2, y2 in things
    )
    height, width = size
    return f"<annotation>\n  <size><width>{width}</width><height>{height}</height></size>\n{objects}</annotation>\n"


def write_voc(
    root: Path, pictures: dict[str, list[Thing]] | None = None, lists: dict[str, Sequence[str]] | None = None
) -> Path:
    """The set above, or another, 16 x 20 pixels each; returns root."""
    for number, (name, things) in enumerate((PICTURES if pictures is None else pictures).items()):
        write_picture(root / "JPEGImages" / f"{name}.png", number)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(xml(things))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for part, names in (LISTS if lists is None else lists).items():
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def write_coco(root: Path) -> Path:
    """The set above, its boxes where VOC has them; category ids 7 for dog and 3 for cat, and a 1 without objects."""
    numbers = {name: number for number, name in enumerate(PICTURES)}
    ids = {"dog": 7, "cat": 3}
    (root / "annotations").mkdir(parents=True)
    for part, names in LISTS.items():
        images, annotations = [], []
        for name in names:
            write_picture(root / f"{part}2017" / f"{name}.png", numbers[name])
            images.append({"id": 100 + numbers[name], "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]})
            for kind, x1, y1, x2, y2 in PICTURES[name]:
                box = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
                entry = {"id": len(annotations), "image_id": 100 + numbers[name], "category_id": ids[kind], "bbox": box}
                annotations.append({**entry, "iscrowd": 0, "segmentation": [[0, 0, 1, 1]]})
        categories = [{"id": 1, "name": "things"}, *({"id": key, "name": name} for name, key in ids.items())]
        table = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(table))
    return root
