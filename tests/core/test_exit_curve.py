"""Early exits in numbers: four images and three exits by hand, and what holds for any."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdedge.core.errors import KdedgeError
from kdedge.core.exits import OperatingPoint
from kdedge.core.stats import Answers, Costs, choose, exit_curve, judge, operating_point, stops, thresholds

CONFIDENCE = np.array([[0.9, 0.6, 0.5, 0.4], [0.8, 0.9, 0.7, 0.5], [0.3, 0.3, 0.3, 0.3]])
RIGHT = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 1]], dtype=bool)
ANSWERS = Answers(CONFIDENCE, RIGHT)
COSTS = Costs(np.array([10.0, 30.0, 100.0]), np.array([1.0, 2.0, 4.0]))


@pytest.mark.parametrize(
    ("threshold", "by_hand"),
    [
        (0.0, [0, 0, 0, 0]),
        (0.5, [0, 0, 0, 1]),
        (0.65, [0, 1, 1, 2]),
        (0.85, [0, 1, 2, 2]),
        (0.9, [0, 1, 2, 2]),
        (1.0, [2, 2, 2, 2]),
    ],
)
def test_image_stops_at_the_first_exit_that_is_sure(threshold: float, by_hand: list[int]) -> None:
    assert stops(CONFIDENCE, threshold).tolist() == by_hand


def test_stops_leaves_the_confidences_as_they_are() -> None:
    kept = CONFIDENCE.copy()
    stops(CONFIDENCE, 0.5)
    assert np.array_equal(CONFIDENCE, kept)


def test_operating_point_by_hand() -> None:
    point = operating_point(ANSWERS, COSTS, 0.65)  # stop at exits 0, 1, 1, 2: all four are right
    assert point == OperatingPoint(threshold=0.65, top1=1.0, macs=170 / 4, latency_ms=9 / 4, shares=[0.25, 0.5, 0.25])


def test_judge_takes_the_largest_probability_and_whether_it_is_the_label() -> None:
    logits = np.log(np.array([[[0.7, 0.2, 0.1]], [[0.2, 0.2, 0.6]]], dtype=np.float32)) + np.float32(5)
    answers = judge(logits, np.array([2]))
    np.testing.assert_allclose(answers.confidence, [[0.7], [0.6]], rtol=1e-6)
    assert answers.right.tolist() == [[False], [True]]


def test_thresholds_lie_between_the_confidences_of_all_exits_but_the_last() -> None:
    assert thresholds(CONFIDENCE).tolist() == pytest.approx([0, 0.45, 0.55, 0.65, 0.75, 0.85, 1])


def test_thresholds_of_many_images_are_an_even_selection_with_both_ends() -> None:
    confidence = np.stack([np.linspace(0.1, 0.99, 10_000), np.ones(10_000)])
    chosen = thresholds(confidence, 102)
    assert len(chosen) == 102
    assert (chosen[0], chosen[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(np.diff(chosen[1:-1]), 0.89 / 99, rtol=0.02)


def test_thresholds_of_an_exit_that_is_always_as_sure_are_the_ends() -> None:
    assert thresholds(np.full((2, 5), 0.4)).tolist() == [0, 1]


def test_choose_takes_the_cheapest_that_is_accurate_enough() -> None:
    curve = exit_curve(ANSWERS, COSTS)
    found = [(round(point.threshold, 9), point.top1, point.macs) for point in curve]
    assert found == [
        (0.0, 0.5, 10),
        (0.45, 0.5, 15),
        (0.55, 0.75, 37.5),
        (0.65, 1.0, 42.5),
        (0.75, 0.75, 60),
        (0.85, 0.75, 60),
        (1.0, 0.75, 100),
    ]
    assert choose(curve, 0.75).macs == 37.5
    assert choose(curve, 0.76).macs == 42.5
    assert choose(curve, 0.0).threshold == 0.0


def test_choose_names_the_best_that_can_be_had() -> None:
    curve = [point for point in exit_curve(ANSWERS, COSTS) if point.top1 < 1]
    with pytest.raises(KdedgeError, match=r"accuracy 80\.00 %: no threshold reaches .* the best 75\.00 %") as error:
        choose(curve, 0.8)
    assert error.value.fix == "kdedge exits --accuracy 75.00%"


@st.composite
def any_answers(draw: st.DrawFn) -> Answers:
    shape = draw(st.integers(2, 4)), draw(st.integers(1, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    digits = draw(st.integers(1, 6))  # with few of them many are equal
    return Answers(random.random(shape).round(digits) * 0.99, random.random(shape) < 0.5)


@settings(max_examples=60)
@given(any_answers())
def test_higher_threshold_never_costs_less(answers: Answers) -> None:
    exits = len(answers.confidence)
    curve = exit_curve(answers, Costs(np.arange(1.0, exits + 1), np.cumsum(np.full(exits, 0.5))))
    macs = [point.macs for point in curve]
    assert macs == sorted(macs)
    assert all(sum(point.shares) == pytest.approx(1) for point in curve)
    assert curve[0].shares[0] == 1
    assert curve[0].top1 == pytest.approx(answers.right[0].mean())


@settings(max_examples=60)
@given(any_answers(), st.floats(0, 1))
def test_chosen_point_is_the_cheapest_of_all_thresholds(answers: Answers, wanted: float) -> None:
    exits = len(answers.confidence)
    costs = Costs(np.arange(1.0, exits + 1), np.ones(exits))
    every = [operating_point(answers, costs, threshold) for threshold in (*answers.confidence.flat, 1.0)]
    enough = [point.macs for point in every if point.top1 >= wanted]
    if enough:
        assert choose(exit_curve(answers, costs), wanted).macs == min(enough)
    else:
        with pytest.raises(KdedgeError, match="no threshold reaches it"):
            choose(exit_curve(answers, costs), wanted)
