"""pictures and a detector -> a table, and in a folder detections.json and the pictures with their boxes"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kdedge.core import console
from kdedge.core.boxes import Box, DetectReport, Picture
from kdedge.core.errors import DataError, KdedgeError
from kdedge.core.pictures import read_picture
from kdedge.core.rundir import atomic_path, sha256_file, write_json
from kdedge.engine.boxes import Detections
from kdedge.pipeline.deployed import Deployed
from kdedge.pipeline.detector import Detector, open_detector
from kdedge.pipeline.draw import draw_boxes

RECORD = "detections.json"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Of the files that are taken from a folder; a file that is named may have any."""
LOSSY = (".jpg", ".jpeg")


def detect(images: Sequence[Path], model: Deployed, out: Path | None, score: float, side: int | None = None) -> None:
    """What cannot be read is told, and the others done.

    Args:
        side: of the squares that pictures are put into, where it is not that of the training.

    Raises:
        ModelError: no detector.
        DataError: at the end, when there was no picture where one was given.
    """
    check_out(out, images)
    broken: dict[Path, DataError] = {}
    paths, found = list(pictures_of(images, broken)), []
    with open_detector(model, score, side) as detector, console.progress_bar("detect", len(paths)) as bar:
        for path, file in zip(paths, names_of_drawn(paths, out), strict=True):
            try:
                found.append(look_at(path, detector, out / file if out else None))
            except DataError as error:
                broken[path] = error
            bar.advance()
    for reason in broken.values():
        console.fail(f"{reason.what}: {reason.why}")
    failed = [path.name for path in broken]
    digest = sha256_file(model.path)
    report = DetectReport(model=model.name, model_sha256=digest, score=score, pictures=found, failed=failed)
    if out:
        write_json(out / RECORD, report)
    show(report, out)
    console.emit(report)
    if broken:
        raise DataError(f"{len(broken)} of {len(broken) + len(found)} could not be read", "each is told above")


def look_at(path: Path, detector: Detector, drawn: Path | None) -> Picture:
    """Raises DataError when the picture cannot be read."""
    picture, labels = read_picture(path), detector.described.labels
    boxes = list(boxes_of(detector.detect(np.asarray(picture)), labels))
    if drawn:
        with atomic_path(drawn) as temporary:
            draw_boxes(picture, boxes, labels).save(temporary, quality=92)
    name = drawn.name if drawn else None
    return Picture(name=path.name, width=picture.width, height=picture.height, boxes=boxes, drawn=name)


def pictures_of(images: Sequence[Path], broken: dict[Path, DataError]) -> Iterator[Path]:
    """Files as they are, and the pictures of folders by name; a folder without any goes to `broken`."""
    for image in images:
        if not image.is_dir():
            yield image
            continue
        found = sorted(path for path in image.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        yield from found
        if not found:
            broken[image] = DataError(f"{image} has no pictures", f"looked for {', '.join(SUFFIXES)}")


def check_out(out: Path | None, images: Sequence[Path]) -> None:
    """Raises KdedgeError when the folder to write is a file, or one whose pictures are read."""
    if not out:
        return
    if out.exists() and not out.is_dir():
        raise KdedgeError(f"--out {out}", "it is a file, and should be a folder", f"--out {out.with_suffix('')}_boxes")
    if out.resolve() in [image.resolve() for image in images]:
        raise KdedgeError(f"--out {out}", "its pictures are what is looked at", f"--out {out / 'boxes'}")


def names_of_drawn(paths: Sequence[Path], out: Path | None) -> Iterator[str]:
    """A file name for each, none twice and none that is a picture looked at."""
    taken = {path.resolve() for path in paths}
    for path in paths:
        stem, suffix = path.stem, ".jpg" if path.suffix.lower() in LOSSY else ".png"
        number, name = 1, f"{stem}.boxes{suffix}"
        while (drawn := (out or Path()).resolve() / name) in taken:
            number += 1
            name = f"{stem}.boxes-{number}{suffix}"
        taken.add(drawn)
        yield name


def boxes_of(found: Detections, labels: Sequence[str]) -> Iterator[Box]:
    for sides, score, number in zip(*(column.tolist() for column in found), strict=True):
        x1, y1, x2, y2 = (round(side, 2) for side in sides)
        yield Box(label=labels[number], score=round(score, 4), x1=x1, y1=y1, x2=x2, y2=y2)


def show(report: DetectReport, out: Path | None) -> None:
    rows = [
        [picture.name, f"{picture.width}x{picture.height}", str(len(picture.boxes)), counted(picture), best(picture)]
        for picture in report.pictures
    ]
    caption = f"boxes drawn, and {RECORD}, in {out}" if out else None
    columns = ("picture", "size", "boxes", "of what", "best score")
    console.show_table(f"detect: {report.model}, scores above {report.score:g}", columns, rows, caption)


def counted(picture: Picture) -> str:
    """cat 3, dog 1"""
    return ", ".join(f"{label} {count}" for label, count in Counter(box.label for box in picture.boxes).most_common())


def best(picture: Picture) -> str:
    return f"{picture.boxes[0].score:.2f}" if picture.boxes else "-"
