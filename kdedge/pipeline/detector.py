"""A detector as it is deployed, its ONNX file or an engine: pictures in, boxes in the pictures' own pixels out"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from kdedge.core.errors import ModelError
from kdedge.core.recipe import Normalize
from kdedge.core.rundir import sha256_file
from kdedge.engine.base import Session, backend
from kdedge.engine.boxes import Detections, detections_of
from kdedge.engine.boxes_decoding import KEY, Decoding, read_decoding
from kdedge.engine.boxes_letterbox import letterbox, unletterbox
from kdedge.engine.rows import run_rows
from kdedge.engine.sidecar import read_sidecar
from kdedge.export.onnx import load, metadata_of
from kdedge.pipeline.deployed import Deployed
from kdedge.pipeline.profile import library_of

LEVELS = 5
"""Folders that an engine of a run lies below the run's at most, and one more."""


@dataclass(frozen=True)
class Described:
    """What the ONNX file says of itself."""

    decoding: Decoding
    labels: tuple[str, ...]
    normalize: Normalize | None
    """None where the model takes uint8 pixels (N, H, W, C)."""

    def feed(self, square: NDArray[np.uint8]) -> NDArray[Any]:
        """(S, S, 3) -> a batch of one, as the model takes it."""
        if self.normalize is None:
            return square[None]
        mean, std = (np.array(values, np.float32) for values in (self.normalize.mean, self.normalize.std))
        normalized = (square.astype(np.float32) / 255 - mean) / std
        return np.ascontiguousarray(normalized.transpose(2, 0, 1)[None])


@dataclass(frozen=True)
class Detector:
    session: Session
    described: Described

    def detect(self, picture: NDArray[np.uint8]) -> Detections:
        """Of a picture (H, W, 3) of any size."""
        decoding, (height, width) = self.described.decoding, picture.shape[:2]
        outputs = run_rows(self.session, self.described.feed(letterbox(picture, decoding.image_size)))
        found = detections_of(outputs, decoding)[0]
        return found._replace(boxes=unletterbox(found.boxes, height, width, decoding.image_size))


@contextmanager
def open_detector(model: Deployed, score: float, side: int | None = None) -> Iterator[Detector]:
    """With boxes whose score is above `score`.

    Args:
        side: of the squares that pictures are put into, where it is not that of the training.

    Raises:
        ModelError: no model, or one that does not say how its outputs become boxes.
    """
    described = describe(model.path, side)
    described = replace(described, decoding=replace(described.decoding, score_threshold=score))
    with backend(model.library).open(model.path, model.options) as session:
        yield Detector(session, described)


def describe(path: Path, side: int | None = None) -> Described:
    """Of an ONNX file, or of the one that an engine was built from."""
    source = path if path.suffix == ".onnx" else source_of(path)
    graph = load(source)
    noted = {entry.key: entry.value for entry in graph.metadata_props}
    if KEY not in noted:
        raise ModelError(f"{path} is no detector", f"{source.name} does not say how its outputs become boxes ({KEY})")
    decoding = read_decoding(str(source), noted[KEY], side)
    labels, normalize = of_pictures(source, graph)
    if len(labels) != decoding.classes:
        raise ModelError(f"{source} has {len(labels)} labels", f"its boxes have {decoding.classes} classes")
    return Described(decoding, labels, normalize)


def of_pictures(source: Path, graph: ModelProto) -> tuple[tuple[str, ...], Normalize | None]:
    """The names of the classes, and how pixels are normalized."""
    noted = metadata_of(graph)
    try:
        return tuple(noted["labels"]), None if noted["preprocess"] else Normalize(**noted["normalize"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{source} does not say what it takes", f"its metadata: {error}", "kdedge export   (writes it again)"
        ) from None


def source_of(engine: Path) -> Path:
    """The ONNX file of an engine: beside it, or where a run has it, known by its hash."""
    wanted = read_sidecar(engine, library_of(engine)).get("onnx_sha256")
    folders = (engine.parent, *(parent / "export" for parent in list(engine.absolute().parents)[1:LEVELS]))
    for path in (path for folder in folders for path in sorted(folder.glob("*.onnx"))):
        if sha256_file(path) == wanted:
            return path
    raise ModelError(
        f"engine {engine}",
        "how its outputs become boxes stands in the ONNX file it was built from, which is not beside it",
        f"cp STUDENT.onnx {engine.parent}",
    )
