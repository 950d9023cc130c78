"""Sets as Pascal VOC lays them out: Annotations/NAME.xml, JPEGImages/NAME.jpg, ImageSets/Main/train.txt and so on.

M. Everingham et al.: The Pascal Visual Object Classes (VOC) Challenge, IJCV 2010.  Coordinates are those of pixels
counted from 1, the last one inside the box.  Objects marked difficult are there to learn from; where a set is measured,
finding them does not count, as in the challenge.
"""

from collections.abc import Iterable, Iterator
from math import inf, nan
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from torchvision.datasets.folder import IMG_EXTENSIONS

from kdedge.core.errors import DataError
from kdedge.core.recipe import Data
from kdedge.data.annotations import Annotated, Faults, Thing, assigned, boxed_splits
from kdedge.data.build import DATASETS
from kdedge.data.sets import Splits

NO_ANNOTATION = "annotation missing"
LINE = "line"
"""The attribute under which an element keeps where it stands."""


@DATASETS.register("voc")
def read_voc(source: Path, spec: Data) -> Splits:
    """The parts are those of its lists; several years, such as VOC2007 and VOC2012, are one set.

    Where there are train.txt and val.txt, it is val.txt that is validated on; trainval.txt is the training set of a
    year without train.txt.  Without any test.txt, val.txt is the test set.
    """
    faults = Faults()
    parts = listed(source, faults)
    return boxed_splits(source, spec, parts, named(parts), faults)


def classes(source: Path) -> tuple[str, ...]:
    """All that the annotations name, sorted; no picture is read."""
    return named(listed(source, Faults()))


def named(parts: dict[str, list[Annotated]]) -> tuple[str, ...]:
    things = (thing for part in parts.values() for each in part for thing in each.things if thing.counts)
    return tuple(sorted({thing.name for thing in things} - {""}))


def listed(source: Path, faults: Faults) -> dict[str, list[Annotated]]:
    """The pictures of the parts train, perhaps validation, and test.

    Raises:
        DataError: a list or an annotation is missing or broken.
    """
    parts: dict[str, list[Annotated]] = {"train": [], "val": [], "test": []}
    for year in years(source):
        lists = {path.stem: path for path in (year / "ImageSets" / "Main").glob("*.txt")}
        chosen = {"train": lists.get("train", lists.get("trainval")), "test": lists.get("test")}
        if "train" in lists:
            chosen["val"] = lists.get("val")
        files = {path.stem: path for path in folder(year / "JPEGImages") if path.suffix.lower() in IMG_EXTENSIONS}
        for part, path in chosen.items():
            parts[part] += pictures(year, path, files, part == "train", faults) if path else []
    used = assigned(parts)
    for part in ("train", "test"):
        if part not in used:
            wanted = "train.txt or trainval.txt" if part == "train" else "test.txt or val.txt"
            where = source.parent if source.name == "Annotations" else source
            fix = "write it: the name of a picture a line, without .jpg"
            raise DataError(f"{where} has no {part} pictures", f"looked for {wanted} in ImageSets/Main", fix)
    return used


def years(source: Path) -> list[Path]:
    """The folders that have Annotations: the one of that name's, or its siblings of other years, or those in it."""
    if source.name == "Annotations":
        return [source.parent]
    if (source / "Annotations").is_dir():
        return sorted(path for path in source.parent.glob("VOC20*") if (path / "Annotations").is_dir())
    if found := sorted(path.parent for path in source.glob("*/Annotations")):
        return found
    raise DataError(f"{source} has no folder Annotations", "nor has a folder in it", f"ls {source}")


def folder(path: Path) -> Iterable[Path]:
    return path.iterdir() if path.is_dir() else ()


def pictures(year: Path, names: Path, files: dict[str, Path], learned: bool, faults: Faults) -> Iterator[Annotated]:
    """What a list names.  learned: to train on it, so that difficult objects count."""
    for line, text in enumerate(names.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not (name := text.strip()):
            continue
        annotation = year / "Annotations" / f"{name}.xml"
        if annotation.is_file():
            yield annotated(annotation, files.get(name, year / "JPEGImages" / f"{name}.jpg"), learned)
        else:
            faults.add(NO_ANNOTATION, f"{names}:{line} ({name})")


def annotated(path: Path, picture: Path, learned: bool) -> Annotated:
    root = parse(path)
    size = root.find("size")
    height, width = (number(size, name) for name in ("height", "width"))
    known = (int(height), int(width)) if 0 < height < inf and 0 < width < inf else None
    things = [thing(path, each, learned) for each in root.iter("object")]
    return Annotated(picture, known, things, f"{path}:{root.get(LINE)}")


def thing(path: Path, element: Element, learned: bool) -> Thing:
    name = (element.findtext("name") or "").strip()
    box = element.find("bndbox")
    left, top, right, bottom = (number(box, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    first = right > left and bottom > top  # else it is a click, though it would be one pixel in VOC's terms
    corners = left - first, top - first, right, bottom
    counts = learned or (element.findtext("difficult") or "0").strip() == "0"
    return Thing(name, corners, f"{path}:{element.get(LINE)}", counts)


def number(element: Element | None, name: str) -> float:
    """nan where there is none."""
    try:
        return float(element.findtext(name) or "") if element is not None else nan
    except ValueError:
        return nan


def parse(path: Path) -> Element:
    """An XML file whose elements know their lines.  It may declare no entities, and nothing outside it is read.

    Raises:
        DataError: it is not XML, or cut off; it names file and line.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, LINE: str(parser.CurrentLineNumber)})

    def entity(name: str, *_: object) -> NoReturn:
        why = f"entity {name!r} is declared: it could grow without bounds"
        raise DataError(f"{path}:{parser.CurrentLineNumber} is no annotation", why, f"rm {path}   (or replace it)")

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(path.read_bytes(), True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two of an encoding it does not know
        where = f"{path}:{parser.CurrentLineNumber}"
        raise DataError(f"{where} is not whole XML", str(error), f"rm {path}   (or replace it)") from None
    return builder.close()
