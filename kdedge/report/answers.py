"""What the deployed student said to the test images: which classes it confuses, and where it is most wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.core.console import percent
from kdedge.core.recipe import Normalize
from kdedge.core.stats import softmax

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Counts = NDArray[np.int64]
WHOLE = 20
"""Classes up to which the matrix has all of them."""
PART = 12
"""Classes of the part that is shown of a larger one."""
MOST_PAIRS = 12
WORST = 24
LOWER_ONLY = 12
"""Images that only a lower precision gets wrong."""
PAIRS = ("class", "taken for", "images", "of the class")


@dataclass(frozen=True)
class Asked:
    """The test images and what was said of them; every row of outputs is of the image in that place."""

    images: NDArray[Any]
    """(N, C, H, W) float32 normalized, or (N, H, W, C) uint8."""
    normalize: Normalize | None
    """How the images were normalized; None where they were not."""
    labels: NDArray[Any]
    """(N,) classes; of objects (N, M, 5) rows of class, x1, y1, x2, y2 in pixels of the images, class -1 for none."""
    ids: Labels
    names: Sequence[str]
    """Of the classes."""
    deployed: dict[str, Logits]
    """By the hop that said it (engine-fp32, onnx-int8), highest precision first; (N, classes) logits each, or
    (N, rows, 6) of class, score, x1, y1, x2, y2 of what was found, class -1 for none."""
    others: dict[str, Logits] = field(default_factory=dict)
    """Networks to compare with, such as the teacher."""


@dataclass(frozen=True)
class Cell:
    images: int
    share: float
    """Of the images of its class."""
    right: bool


@dataclass(frozen=True)
class Matrix:
    """Rows are classes, columns what was said of their images."""

    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    note: str


@dataclass(frozen=True)
class Opinion:
    who: str
    said: str
    right: bool


@dataclass(frozen=True)
class Mistake:
    """One image and what each network takes it for."""

    place: int
    """In `Asked.images`."""
    id: int
    label: str
    loss: float
    opinions: list[Opinion]


def name_of(asked: Asked, index: int) -> str:
    return asked.names[index] if index < len(asked.names) else f"class {index}"


def said(outputs: Logits) -> Labels:
    """The class of each row; -1 where the outputs are not finite."""
    return np.where(np.isfinite(outputs).all(axis=1), outputs.argmax(axis=1), -1)


def confusion(labels: Labels, answers: Labels, classes: int) -> Counts:
    """(classes, classes) images by class and by what was said; those without an answer are left out."""
    given = answers >= 0
    pairs = labels[given] * classes + answers[given]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def counts_of(asked: Asked, hop: str) -> Counts:
    outputs = asked.deployed[hop]
    return confusion(asked.labels, said(outputs), outputs.shape[1])


def matrix(asked: Asked, hop: str) -> Matrix:
    """The whole matrix of few classes; of many the classes with most errors, the others summed in a last column."""
    counts = counts_of(asked, hop)
    classes = len(counts)
    shown = list(range(classes)) if classes <= WHOLE else troubled(counts, PART)
    totals = counts.sum(axis=1)
    rows = []
    for index in shown:
        total = max(int(totals[index]), 1)
        cells = [Cell(int(n := counts[index, other]), n / total, index == other) for other in shown]
        rest = int(totals[index] - counts[index, shown].sum())
        cells += [Cell(rest, rest / total, False)] if classes > WHOLE else []
        rows.append((name_of(asked, index), cells))
    columns = [name_of(asked, index) for index in shown] + (["any other"] if classes > WHOLE else [])
    return Matrix(columns, rows, matrix_note(asked, hop, classes))


def matrix_note(asked: Asked, hop: str, classes: int) -> str:
    broken = int((said(asked.deployed[hop]) < 0).sum())
    part = f" The {PART} of {classes} classes with most errors." if classes > WHOLE else ""
    lost = f" {broken} images are left out: their outputs are not finite." if broken else ""
    return f"Rows: the class. Columns: what {hop} said. {len(asked.labels)} test images.{part}{lost}"


def troubled(counts: Counts, most: int) -> list[int]:
    """Classes with most errors, those of others' images taken for them included; in their own order."""
    right = np.diag(counts)
    errors = counts.sum(axis=1) + counts.sum(axis=0) - 2 * right
    return sorted(np.argsort(-errors, kind="stable")[:most].tolist())


def pair_rows(asked: Asked, hop: str) -> list[list[str]]:
    """The most confused pairs of classes, most images first."""
    counts = counts_of(asked, hop)
    totals, wrong = counts.sum(axis=1), counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    found = [(*divmod(int(place), len(counts)), int(wrong.flat[place])) for place in order]
    return [
        [name_of(asked, label), name_of(asked, other), str(images), percent(images / totals[label])]
        for label, other, images in found
        if images
    ]


def losses(outputs: Logits, labels: Labels) -> NDArray[np.float64]:
    """Cross-entropy of each row; infinite where the outputs are not finite."""
    finite = np.asarray(np.isfinite(outputs).all(axis=1))
    scores = np.where(finite[:, None], outputs, 0).astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    found = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]
    return np.where(finite, found, np.inf)


def worst(asked: Asked, hop: str) -> list[Mistake]:
    """The images of the highest loss."""
    order = np.argsort(-losses(asked.deployed[hop], asked.labels), kind="stable")[:WORST]
    return list(mistakes(asked, hop, order, {hop: asked.deployed[hop]}))


def lower_only(asked: Asked) -> list[Mistake]:
    """Images that the lowest precision gets wrong and the highest right, highest loss first."""
    if len(asked.deployed) < 2:
        return []
    high, low = next(iter(asked.deployed)), lowest(asked)
    outputs = asked.deployed[low]
    lost = (said(outputs) != asked.labels) & (said(asked.deployed[high]) == asked.labels)
    order = np.argsort(-np.where(lost, losses(outputs, asked.labels), -1), kind="stable")
    chosen = order[: min(LOWER_ONLY, int(lost.sum()))]
    return list(mistakes(asked, low, chosen, {low: outputs, high: asked.deployed[high]}))


def lowest(asked: Asked) -> str:
    """The hop of the lowest precision: what a device runs where several were made."""
    return list(asked.deployed)[-1]


def mistakes(asked: Asked, hop: str, places: Labels, own: dict[str, Logits]) -> Iterator[Mistake]:
    loss = losses(asked.deployed[hop], asked.labels)
    for place in places.tolist():
        opinions = [opinion(asked, who, rows[place], place) for who, rows in (own | asked.others).items()]
        label = name_of(asked, int(asked.labels[place]))
        yield Mistake(place, int(asked.ids[place]), label, float(loss[place]), opinions)


def opinion(asked: Asked, who: str, outputs: Logits, place: int) -> Opinion:
    if not np.isfinite(outputs).all():
        return Opinion(who, "not finite", False)
    index = int(outputs.argmax())
    confidence = softmax(outputs[None].astype(np.float64))[0, index]
    return Opinion(who, f"{name_of(asked, index)}, {percent(confidence)}", index == asked.labels[place])
