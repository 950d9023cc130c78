"""Numbers worked out by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from kdedge.core.stats import (
    calibration_error,
    classify,
    distribution,
    median_interval,
    output_error,
    percentile,
    share_interval,
    softmax,
    supported,
)


@pytest.mark.parametrize(
    ("n", "p", "value"),
    [
        (10, 90, 9),  # one of ten is left out: the ninth
        (10, 95, 10),  # half of one rounds down to none
        (11, 90, 10),
        (100, 90, 90),
        (100, 95, 95),
        (100, 99, 99),
        (1, 99, 1),
        (3, 0, 1),
        (5, 100, 5),
        (4, 50, 2.5),
        (5, 50, 3),
    ],
)
def test_percentile_is_the_nearest_rank_of_shuffled_samples(n: int, p: int, value: float) -> None:
    samples = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert percentile(samples, p) == value


@pytest.mark.parametrize(("n", "p", "enough"), [(99, 90, False), (100, 90, True), (999, 99, False), (1000, 99, True)])
def test_percentile_needs_ten_samples_above_it(n: int, p: int, enough: bool) -> None:
    assert supported(n, p) is enough


def test_median_interval_is_deterministic_and_holds_the_median() -> None:
    processes = [np.array([value, value, value]) for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    first, again = median_interval(processes), median_interval(processes)
    assert first == again == (1.0, 5.0)


def test_median_interval_draws_processes_and_not_queries() -> None:
    processes = [np.full(10_000, 1.0), np.full(10, 2.0)]
    assert median_interval(processes) == (1.0, 2.0)


def test_median_interval_needs_two_processes() -> None:
    assert median_interval([np.arange(100.0)]) is None


def test_distribution_keeps_outliers_in_every_figure() -> None:
    result = distribution([np.array([1.0, 2.0, 3.0]), np.array([4.0, 100.0])])
    assert (result.n, result.processes, result.min, result.max, result.median) == (5, 2, 1.0, 100.0, 3.0)
    assert result.mean == 22.0
    assert result.std == pytest.approx(43.6176, abs=1e-4)  # sqrt(7610 / 4)
    assert result.outliers == 1  # quartiles 2 and 4: above 4 + 3 * 2
    assert result.percentiles == {"p90": None, "p95": None, "p99": None}


def test_distribution_reports_only_the_percentiles_its_samples_support() -> None:
    result = distribution([np.arange(1.0, 201.0)])
    assert result.percentiles == {"p90": 180.0, "p95": 190.0, "p99": None}
    assert result.median_interval is None


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([[1000.0, 1000.0], [0.0, np.log(3)]])) == pytest.approx(
        np.array([[0.5, 0.5], [0.25, 0.75]])
    )


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 0, 0, 1])  # both sure ones right, one of the two unsure ones
    assert calibration_error(probabilities, labels, bins=10) == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)
    assert calibration_error(probabilities, 1 - labels, bins=10) == pytest.approx(0.5 * 0.95 + 0.5 * 0.05)


def test_calibration_error_is_zero_for_certain_and_right() -> None:
    assert calibration_error(np.eye(3), np.array([0, 1, 2])) == 0


def test_classify_by_hand() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1]]))
    quality = classify(logits, np.array([0, 1, 1, 0]))
    assert (quality.images, quality.top1, quality.top5) == (4, 0.75, None)
    assert quality.per_class == [1.0, 0.5, 0.0]
    assert quality.empty == [2]
    assert quality.ece == pytest.approx((0.3 + 0.2 + 0.6 + 0.5) / 4)  # each in a bin of its own


def test_classify_counts_top5_of_more_than_five_classes() -> None:
    logits = np.tile(np.arange(7.0), (3, 1))  # class 6 first, then 5, 4, 3, 2
    quality = classify(logits, np.array([6, 2, 1]))
    assert quality.top1 == pytest.approx(1 / 3)
    assert quality.top5 == pytest.approx(2 / 3)


def test_output_error_is_relative_to_the_largest_reference() -> None:
    worst, mean = output_error(np.array([[-4.0, 2.0]]), np.array([[-4.0, 1.0]]))
    assert (worst, mean) == (0.25, 0.125)


def test_output_error_of_zeros_is_zero() -> None:
    assert output_error(np.zeros(3), np.zeros(3)) == (0.0, 0.0)


@pytest.mark.parametrize(("right", "images"), [(0, 10), (3, 10), (10, 10), (9012, 10000)])
def test_share_interval_is_that_of_wilson(right: int, images: int) -> None:
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert share_interval(right / images, images) == pytest.approx((expected.low, expected.high), abs=1e-7)
