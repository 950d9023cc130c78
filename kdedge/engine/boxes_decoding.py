"""How a detector's outputs become boxes: the plain dict that travels in its ONNX file, read and checked.

Its keys: `classes`; `image_size`, the side of the square picture; `coder`, deltas (RetinaNet, SSD) or distances (FCOS);
`weights` of the deltas; `normalize_by_size`, whether distances are in sizes of their anchor; `scores`, from a sigmoid,
a softmax with the background first, or a sigmoid and centerness; `levels`, each with its `grid` [rows, columns],
`stride` and `offset` [y, x] and the boxes of its `cells`; `clip`, whether anchors end at the picture's border;
`score_threshold`, `nms_threshold`; `candidates`, the most of a level (of a class where scores are a softmax's) that NMS
sees; and `detections`, the most of a picture.  A file that takes squares of any side says besides by how many pixels
the places of each level are apart (`steps`); the rest of its dict is for squares of `image_size`.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdedge.core.errors import ModelError

KEY = "kdedge.boxes"
"""Of the ONNX file's metadata."""
MULTIPLE = 32
"""Of which the side of a square has to be one, where it is free: what a backbone halves five times."""
CODERS = ("deltas", "distances")
SCORES = ("sigmoid", "softmax", "centerness")


@dataclass(frozen=True)
class Decoding:
    """The dict, with its levels made anchors: level by level, then by rows, columns and the boxes of a cell."""

    classes: int
    image_size: int
    coder: str
    weights: tuple[float, ...]
    normalize_by_size: bool
    scores: str
    score_threshold: float
    nms_threshold: float
    candidates: int
    detections: int
    anchors: np.ndarray[Any, Any]
    """(A, 4) float32: x1, y1, x2, y2 in pixels."""
    levels: tuple[int, ...]
    """How many of the anchors each level has."""

    @property
    def width(self) -> int:
        """Values of an anchor: its box, its class logits, and what else the scores need."""
        return 4 + self.classes + (self.scores != "sigmoid")


def read_decoding(source: str, given: str | Mapping[str, Any], side: int | None = None) -> Decoding:
    """From the dict or its JSON; `source` is what a message names.

    Args:
        side: of the squares, where it is not `image_size`.

    Raises:
        ModelError: a key is missing, unknown, or has a value that it cannot have, or the file takes no such squares.
    """
    values = dict(_parsed(source, given) if isinstance(given, str) else given)
    steps = values.pop("steps", None)
    for key in sorted(set(values) ^ set(_KEYS)):
        raise _damaged(source, f"{key!r} is " + ("missing" if key in _KEYS else "not known to this kdedge"))
    for key, (fits, expected) in _KEYS.items():
        if not fits(values[key]):
            raise _damaged(source, f"{key}: expected {expected}, given {values[key]!r}")
    if side not in (None, values["image_size"]):
        values = _at_side(source, values, steps, side)
    plain = {key: value for key, value in values.items() if key not in ("levels", "clip")}
    grids = [_level_anchors(level) for level in values["levels"]]
    anchors = np.concatenate(grids)
    if values["clip"]:
        anchors = anchors.clip(0, values["image_size"])
    return Decoding(
        **{**plain, "weights": tuple(values["weights"])},
        anchors=anchors.astype(np.float32),
        levels=tuple(len(grid) for grid in grids),
    )


def _at_side(source: str, values: dict[str, Any], steps: Any, side: Any) -> dict[str, Any]:
    """Places in the middle of their cells stretch with the image, and so do their boxes (SSD's are shares of it)."""
    size, levels = values["image_size"], values["levels"]
    if steps is None:
        why = "it was exported for one size (export.dynamic_size)"
        raise ModelError(f"{source} takes squares of {size}x{size}", why, f"--size {size}")
    if not _several(_count, len(levels))(steps):
        raise _damaged(source, f"steps: expected a whole number for each level, given {steps!r}")
    if side < MULTIPLE or side % MULTIPLE:
        nearest = max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE)
        raise ModelError(
            f"squares of {side}x{side}", f"the side has to be a multiple of {MULTIPLE}", f"--size {nearest}"
        )
    moved = []
    for level, step in zip(levels, steps):  # noqa: B905
        grid, centered = -(-side // step), any(level["offset"])
        stride = side / grid if centered else side // grid
        cells = np.array(level["cells"], dtype=np.float64) * (side / size if centered else 1)
        moved.append({**level, "grid": [grid, grid], "stride": [stride, stride], "cells": cells.tolist()})
    return {**values, "image_size": side, "levels": moved}


def _level_anchors(level: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """(rows * columns * cells, 4)"""
    y, x = ((np.arange(level["grid"][axis]) + level["offset"][axis]) * level["stride"][axis] for axis in (0, 1))
    y, x = np.meshgrid(y, x, indexing="ij")
    shifts = np.stack([x, y, x, y], axis=-1)[:, :, None]
    return (shifts + np.array(level["cells"], dtype=np.float64)).reshape(-1, 4)


def _parsed(source: str, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise _damaged(source, f"it is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise _damaged(source, "it is not a JSON object")
    return values


def _damaged(source: str, why: str) -> ModelError:
    return ModelError(f"{source}: its {KEY}", why, "kdedge export   (writes the model again)")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and bool(np.isfinite(value))


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _several(fits: Callable[[Any], bool], length: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and len(value) == length and all(map(fits, value))


def _level(value: Any) -> bool:
    pair, box = _several(_number, 2), _several(_number, 4)
    return (
        isinstance(value, dict)
        and set(value) == {"grid", "stride", "offset", "cells"}
        and _several(_count, 2)(value["grid"])
        and pair(value["stride"])
        and pair(value["offset"])
        and isinstance(value["cells"], (list, tuple))
        and len(value["cells"]) > 0
        and all(map(box, value["cells"]))
    )


_KEYS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "classes": (_count, "a whole number from 1 on"),
    "image_size": (_count, "a whole number from 1 on"),
    "coder": (lambda value: value in CODERS, " or ".join(CODERS)),
    "weights": (lambda value: _several(_number, 4)(value) and all(value), "four numbers other than 0"),
    "normalize_by_size": (lambda value: type(value) is bool, "true or false"),
    "scores": (lambda value: value in SCORES, " or ".join(SCORES)),
    "levels": (
        lambda value: isinstance(value, (list, tuple)) and len(value) > 0 and all(map(_level, value)),
        "a list of levels, each with grid, stride, offset and cells",
    ),
    "clip": (lambda value: type(value) is bool, "true or false"),
    "score_threshold": (_share, "a number from 0 to 1"),
    "nms_threshold": (_share, "a number from 0 to 1"),
    "candidates": (_count, "a whole number from 1 on"),
    "detections": (_count, "a whole number from 1 on"),
}
