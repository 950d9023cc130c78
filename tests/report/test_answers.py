"""Confusion and worst images of answers that can be worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest

from kdedge.report.answers import (
    PART,
    Asked,
    Cell,
    confusion,
    losses,
    lower_only,
    lowest,
    matrix,
    pair_rows,
    said,
    troubled,
    worst,
)


def asked(labels: list[int], deployed: dict[str, Any], classes: int = 3, **more: Any) -> Asked:
    return Asked(
        images=np.zeros((len(labels), 1, 2, 2), np.float32),
        normalize=None,
        labels=np.array(labels),
        ids=np.arange(100, 100 + len(labels)),
        names=["ant", "bee", "cow"],
        deployed={hop: np.array(rows, np.float32) for hop, rows in deployed.items()},
        **more,
    )


def sure(answers: list[int], classes: int = 3, height: float = 4.0) -> list[list[float]]:
    return (height * np.eye(classes)[answers]).tolist()


def test_confusion_counts_class_by_answer() -> None:
    counts = confusion(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, -1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_outputs_that_are_not_finite_are_no_answer() -> None:
    outputs = np.array([[1, 2], [np.nan, 1], [np.inf, 0]])
    assert said(outputs).tolist() == [1, -1, -1]
    note = matrix(asked([0, 1], {"onnx-fp32": [[1, 0, 0], [np.nan, 0, 0]]}), "onnx-fp32").note
    assert "2 test images. 1 images are left out: their outputs are not finite." in note


def test_losses_are_cross_entropies() -> None:
    outputs = np.array([[0, 0], [math.log(3), 0], [1000, 0], [np.nan, 0]])
    found = losses(outputs, np.array([0, 1, 1, 0]))
    assert found == pytest.approx([math.log(2), math.log(4), 1000, math.inf])


def test_matrix_of_few_classes_has_them_all() -> None:
    found = matrix(asked([0, 0, 0, 1], {"engine-int8": sure([0, 0, 2, 1])}), "engine-int8")
    assert found.columns == ["ant", "bee", "cow"]
    assert found.rows == [
        ("ant", [Cell(2, 2 / 3, True), Cell(0, 0.0, False), Cell(1, 1 / 3, False)]),
        ("bee", [Cell(0, 0.0, False), Cell(1, 1.0, True), Cell(0, 0.0, False)]),
        ("cow", [Cell(0, 0.0, False), Cell(0, 0.0, False), Cell(0, 0.0, True)]),  # without images
    ]


def test_matrix_of_many_classes_is_its_worst_part_with_the_rest_summed() -> None:
    labels = [*range(30), 29, 29, 17]
    answers = [*range(30), 28, 0, 3]  # 29 taken for 28 and 0, 17 for 3
    many = asked(labels, {"engine-fp32": sure(answers, 30)}, 30)
    found = matrix(many, "engine-fp32")
    assert len(found.rows) == PART
    assert found.columns[-1] == "any other"
    assert {"ant", "class 3", "class 17", "class 28", "class 29"} <= set(found.columns)
    rows = dict(found.rows)
    assert [cell.images for cell in rows["class 29"] if cell.images] == [1, 1, 1]
    assert all(cells[-1].images == 0 for _, cells in found.rows)
    assert "The 12 of 30 classes with most errors." in found.note


def test_last_column_of_a_part_has_what_is_not_shown() -> None:
    counts = np.eye(30, dtype=np.int64)
    counts[0, 1:] = 1  # the first is taken for every other class
    assert troubled(counts, 3) == [0, 1, 2]
    labels, answers = [0] * 29, list(range(1, 30))
    (first, *_), *_ = [row[1] for row in matrix(asked(labels, {"e": sure(answers, 30)}, 30), "e").rows]
    cells = matrix(asked(labels, {"e": sure(answers, 30)}, 30), "e").rows[0][1]
    assert first.images == 0
    assert (cells[-1].images, sum(cell.images for cell in cells)) == (29 - (PART - 1), 29)


def test_pairs_are_the_most_confused_with_their_share_of_the_class() -> None:
    rows = pair_rows(asked([0, 0, 0, 0, 1, 2], {"e": sure([1, 1, 0, 2, 1, 0])}), "e")
    assert rows == [
        ["ant", "bee", "2", "50.00 %"],
        ["ant", "cow", "1", "25.00 %"],
        ["cow", "ant", "1", "100.00 %"],
    ]


def test_no_pairs_without_an_error() -> None:
    assert pair_rows(asked([0, 1], {"e": sure([0, 1])}), "e") == []


def test_worst_images_come_by_their_loss_with_what_others_say() -> None:
    outputs = [[math.log(8), 0, 0], [0, math.log(2), 0], [0, 0, 0]]
    teacher = np.array([[0, 9.0, 0], [0, 9.0, 0], [0, np.nan, 0]])
    found = worst(asked([1, 1, 1], {"engine-int8": outputs}, others={"teacher": teacher}), "engine-int8")
    assert [(mistake.place, mistake.id) for mistake in found] == [(0, 100), (2, 102), (1, 101)]
    first = found[0]
    assert (first.label, round(first.loss, 6)) == ("bee", round(math.log(10), 6))
    assert [(each.who, each.said, each.right) for each in first.opinions] == [
        ("engine-int8", "ant, 80.00 %", False),
        ("teacher", "bee, 99.98 %", True),
    ]
    assert found[1].opinions[1].said == "not finite"


def test_images_that_only_the_lower_precision_gets_wrong() -> None:
    both = {"engine-fp32": sure([0, 1, 2, 0]), "engine-int8": [[0, 1, 0], [0, 4, 0], [3, 0, 0], [0, 9, 0]]}
    found = lower_only(asked([0, 1, 2, 2], both))  # the last one is wrong in both
    assert [mistake.place for mistake in found] == [2, 0]
    assert [opinion.who for opinion in found[0].opinions] == ["engine-int8", "engine-fp32"]
    assert lower_only(asked([0], {"engine-fp32": sure([1])})) == []


def test_lowest_precision_is_the_last_one() -> None:
    assert lowest(asked([0], {"engine-fp32": sure([0]), "onnx-int8": sure([0])})) == "onnx-int8"
