"""Sets as COCO lays them out: annotations/instances_NAME.json, and the images in NAME/ or images/ beside it.

T.-Y. Lin et al.: Microsoft COCO: Common Objects in Context, ECCV 2014.  Polygons and masks are ignored.  A crowd is an
area where finds of its class do not count, and no object.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from math import nan
from pathlib import Path
from typing import Any

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data
from kdedge.data.annotations import NO_PICTURE, Annotated, Faults, Thing, assigned, boxed_splits
from kdedge.data.build import DATASETS
from kdedge.data.sets import Splits

PREFIX = "instances_"
NO_ENTRY = "annotation of a picture that is not listed"
LISTS = ("images", "annotations", "categories")

Id = int | str
Table = dict[str, list[dict[str, Any]]]


@DATASETS.register("coco")
def read_coco(source: Path, spec: Data) -> Splits:
    """Its parts are the files instances_train*, instances_val* and instances_test*.

    With a test file val is what is validated on; without, it is the test set.
    """
    faults = Faults()
    files = part_files(source)
    tables = {part: read(path) for part, path in files.items()}
    parts = {part: pictures(files[part], table, faults) for part, table in tables.items()}
    return boxed_splits(source.parent, spec, parts, class_names(tables.values()), faults)


def classes(source: Path) -> tuple[str, ...]:
    """The categories that have objects, in the order of their ids; no picture is read."""
    return class_names(map(read, part_files(source).values()))


def part_files(source: Path) -> dict[str, Path]:
    """Raises DataError when there is none to train or to test on, or two of a part."""
    files: dict[str, Path] = {}
    for part in ("train", "val", "test"):
        found = sorted(source.glob(f"{PREFIX}{part}*.json"))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{source} has {len(found)} files of {part}", names, f"move one of them out of {source}")
        if found:
            files[part] = found[0]
    chosen = assigned(files)
    for part in ("train", "test"):
        if part not in chosen:
            wanted = f"{PREFIX}train*.json" if part == "train" else f"{PREFIX}test*.json or {PREFIX}val*.json"
            raise DataError(f"{source} has no {part} annotations", f"looked for {wanted}", f"ls {source}")
    return chosen


def read(path: Path) -> Table:
    """Raises DataError when it is not JSON, is cut off, or has not the lists of COCO."""
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise DataError(f"{path}:{line} is not whole JSON", str(error), f"rm {path}   (and get it again)") from None
    for name in LISTS:
        entries = table.get(name) if isinstance(table, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            why = f"annotations of objects have the lists {', '.join(LISTS)}"
            raise DataError(f"{path} has no list {name!r} of entries", why, f"rm {path}   (and get it again)")
    return table  # type: ignore[no-any-return]


def class_names(tables: Iterable[Table]) -> tuple[str, ...]:
    names: dict[Id, str] = {}
    for table in tables:
        used = {identity(entry.get("category_id")) for entry in table["annotations"] if not entry.get("iscrowd")}
        names = {key: name for key, name in categories(table).items() if key in used} | names
    return tuple(dict.fromkeys(names[key] for key in sorted(names, key=lambda key: (isinstance(key, str), key))))


def categories(table: Table) -> dict[Id, str]:
    """Names by id; an entry without one of them names no class."""
    found = {identity(entry.get("id")): entry.get("name") for entry in table["categories"]}
    return {key: name for key, name in found.items() if key is not None and isinstance(name, str)}


def identity(value: object) -> Id | None:
    """An id, if it is one; some tools write text."""
    return value if isinstance(value, int | str) else None


def pictures(path: Path, table: Table, faults: Faults) -> list[Annotated]:
    """The images that a file lists, each with its objects."""
    images: dict[Id, dict[str, Any]] = {}
    for place, entry in enumerate(table["images"]):
        key = identity(entry.get("id"))
        if key is None or not isinstance(entry.get("file_name"), str):
            faults.add(NO_PICTURE, f"{path}: entry {place} of images")
        else:
            images[key] = entry
    things: dict[Id, list[Thing]] = defaultdict(list)
    names = categories(table)
    for place, entry in enumerate(table["annotations"]):
        where, key = f"{path}: annotation {entry.get('id', f'at {place}')}", identity(entry.get("image_id"))
        if key is None or key not in images:
            faults.add(NO_ENTRY, where)
        else:
            category = identity(entry.get("category_id"))
            name = names.get(category, f"id {category}") if category is not None else ""
            things[key].append(Thing(name, corners(entry.get("bbox")), where, counts=not entry.get("iscrowd")))
    folder = image_folder(path, images)
    return [
        Annotated(folder / entry["file_name"], size(entry), things[key], f"{path}: image {key}")
        for key, entry in images.items()
    ]


def corners(box: object) -> tuple[float, ...]:
    """From [x, y, width, height]; nan where that is not what it is."""
    try:
        left, top, width, height = map(float, box)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return (nan,) * 4
    return left, top, left + width, top + height


def size(entry: dict[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and height and width else None


def image_folder(path: Path, images: dict[Id, dict[str, Any]]) -> Path:
    """Where the first image that is found lies: NAME/, images/NAME/, images/, or beside these."""
    root, name = path.parent.parent, path.stem.removeprefix(PREFIX)
    places = (root / name, root / "images" / name, root / "images", root)
    present = (place for entry in images.values() for place in places if (place / entry["file_name"]).is_file())
    return next(present, places[0])
