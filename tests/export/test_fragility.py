"""What int8 costs two students, on images whose answers are written out."""

import numpy as np
import pytest

from kdedge.core.precision import Fragility
from kdedge.export.fragility import Pair, costs, fragility
from kdedge.export.parity import Logits

LABELS = np.zeros(10, np.int64)


def answers(right: str) -> Logits:
    """`+` is an image of class 0 that is given right, `-` one that is not."""
    return np.array([[1, 0] if sign == "+" else [0, 1] for sign in right], np.float32)


def test_costs_are_counted_image_by_image() -> None:
    pair = Pair(answers("++--++++++"), answers("+-+-++++++"))
    assert costs(pair, LABELS).tolist() == [0, 1, -1, 0, 0, 0, 0, 0, 0, 0]


def test_student_that_loses_more_than_its_twin_is_fragile() -> None:
    distilled = Pair(answers("++++++++++"), answers("------++++"))
    twin = Pair(answers("+++++++++-"), answers("+++++++-++"))
    found = fragility(distilled, twin, LABELS, 0.01)
    assert (found.drop, found.baseline_drop, found.images) == (0.6, 0.0, 10)
    # The first six are worse; the eighth and the tenth: 0 against 1 and 0 against -1.
    assert (found.worse, found.better) == (7, 1)
    assert found.p_value == pytest.approx((8 + 1) / 256)
    assert found.fragile
    assert found.told() == []
    assert found.warned() == [
        "int8 costs the distilled student 60.00 points and the undistilled one 0.00: over 1 points more "
        "(7 of 10 images against 1, p = 0.035); see export.calibration.method and quantize"
    ]


@pytest.mark.parametrize(
    ("int8", "limit"),
    [("----++++++", 0.01), ("------++++", 0.7), ("++++++++++", 0.0)],
    ids=["by chance", "tolerated", "loses nothing"],
)
def test_student_is_not_fragile(int8: str, limit: float) -> None:
    exact = answers("++++++++++")
    found = fragility(Pair(exact, answers(int8)), Pair(exact, exact), LABELS, limit)
    assert not found.fragile
    assert found.warned() == []
    assert found.told()[0].startswith("int8 costs the distilled student ")


def test_answers_that_are_no_numbers_are_wrong() -> None:
    exact = answers("++++++++++")
    broken = exact.copy()
    broken[:6] = np.nan
    assert fragility(Pair(exact, broken), Pair(exact, exact), LABELS, 0.01).drop == 0.6


def test_record_survives_json() -> None:
    record = Fragility(images=9, drop=0.1, baseline_drop=0.0, worse=1, better=0, p_value=0.5, limit=0.01)
    assert Fragility.model_validate_json(record.model_dump_json()) == record
