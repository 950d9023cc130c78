"""The sequential test: its statistics against SciPy, its verdicts by hand, its errors by simulation."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdedge.gate.sequential import (
    LOOKS,
    NO_SLOWER,
    SLOWER,
    TRIM,
    judge,
    student_quantile,
    student_tail,
    trimmed,
)

LIMIT = 0.03
ROUNDS = 40_000


@pytest.mark.parametrize(
    ("tail", "freedom", "t"),
    [(0.025, 1, 12.706), (0.005, 4, 4.604), (0.025, 10, 2.228), (0.0005, 5, 6.869), (0.01, 17, 2.567)],
)
def test_student_quantile_is_that_of_printed_tables(tail, freedom, t):
    assert student_quantile(tail, freedom) == pytest.approx(t, abs=5e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 12, 17])
def test_student_tail_is_scipy_s(freedom):
    from scipy.stats import t as student

    for value in (-3.0, -0.5, 0.0, 0.3, 2.0, 9.0):
        assert student_tail(value, freedom) == pytest.approx(student.sf(value, freedom), rel=1e-9, abs=1e-14)


@pytest.mark.oracle
@given(st.floats(1e-4, 0.4999), st.integers(1, 40))
def test_student_quantile_is_scipy_s(tail, freedom):
    from scipy.stats import t as student

    assert student_quantile(tail, freedom) == pytest.approx(student.isf(tail, freedom), rel=1e-6, abs=1e-9)


@pytest.mark.oracle
@given(st.lists(st.floats(0.2, 5), min_size=2, max_size=30))
def test_trimmed_mean_is_scipy_s(ratios):
    from scipy.stats import trim_mean

    count = len(ratios)
    logs = np.log(ratios)
    assert trimmed(ratios).mean == pytest.approx(trim_mean(logs, (count // TRIM + 0.1) / count), rel=1e-9, abs=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("count", [5, 7, 10, 14, 18])
def test_trimmed_t_is_scipy_s_of_the_ratios_against_their_inverses(count):
    """Of two samples that mirror each other Yuen's t, as SciPy has it, is that of one by the square root of two."""
    from scipy.stats import ttest_ind

    logs = np.random.default_rng(count).standard_t(3, count) * 0.02 + 0.01
    estimate = trimmed(np.exp(logs))
    oracle = ttest_ind(logs, -logs, equal_var=False, trim=(count // TRIM + 0.1) / count)
    assert estimate.mean / estimate.error == pytest.approx(oracle.statistic / math.sqrt(2), rel=1e-9)
    assert 2 * estimate.freedom == pytest.approx(oracle.df)


def test_parts_of_the_errors_add_up_to_what_is_promised():
    assert len(LOOKS) == len(SLOWER) == len(NO_SLOWER)
    assert sum(SLOWER) == pytest.approx(0.005)
    assert sum(NO_SLOWER) == pytest.approx(0.05)


def test_judge_goes_on_between_the_looks():
    assert judge([1.1, 1.1, 1.1, 1.1], LIMIT) is None
    assert judge([1.1, 1.1, 1.1, 1.1, 1.1], LIMIT).outcome == "regression"
    assert judge([1.1, 1.1, 1.1, 1.1, 1.1, 1.1], LIMIT) is None


@pytest.mark.parametrize(
    ("ratios", "outcome"),
    [
        ([0.99, 1.0, 1.0, 1.0, 1.01], "pass"),
        ([1.02, 1.02, 1.02, 1.02, 1.02], "pass"),  # slower for sure, but by less than the limit
        ([1.10, 1.11, 1.10, 1.09, 1.10], "regression"),
        ([0.7, 1.4, 0.9, 1.3, 1.2], None),
    ],
)
def test_first_look_stops_only_where_the_answer_is_clear(ratios, outcome):
    found = judge(ratios, LIMIT)
    assert (found.outcome if found else None) == outcome


@pytest.mark.parametrize(
    ("ratios", "outcome"),
    [
        ([1.5, 1.5, 1.5], "insufficient"),
        ([], "insufficient"),
        ([0.7, 1.4, 0.9, 1.3, 1.2], "unstable"),
        ([1.0, 1.03, 0.99, 1.04, 0.98], "pass"),  # open at the first look, but 6 % is out of the question
    ],
)
def test_last_look_says_what_can_be_said(ratios, outcome):
    assert judge(ratios, LIMIT, last=True).outcome == outcome


def test_one_outlier_among_many_changes_nothing():
    steady = [1.1, 1.09, 1.11, 1.1, 1.1, 1.09]
    assert judge([*steady, 30.0], LIMIT).outcome == judge([*steady, 1.11], LIMIT).outcome == "regression"


@given(st.lists(st.floats(0.2, 5), min_size=5, max_size=18), st.floats(0.001, 0.5))
def test_interval_holds_the_ratio_and_a_wider_limit_never_makes_a_regression(ratios, limit):
    found = judge(ratios, limit, last=True)
    low, high = found.interval
    assert low <= found.ratio * (1 + 1e-12)
    assert found.ratio <= high * (1 + 1e-12)
    wider = judge(ratios, 2 * limit, last=True)
    assert found.outcome == "regression" or wider.outcome != "regression"


NOISES = {
    "normal": lambda draw, size: draw.normal(size=size),
    "t3": lambda draw, size: draw.standard_t(3, size) / math.sqrt(3),
    "contaminated": lambda draw, size: draw.normal(size=size) * np.where(draw.random(size) < 0.05, 6, 1),
}


@cache
def looks(noise):
    """Of ROUNDS gates with this noise of spread 1: trimmed mean, its error and its freedom at each look."""
    draws = NOISES[noise](np.random.default_rng(7), (ROUNDS, LOOKS[-1]))
    found = []
    for look in LOOKS:
        cut = look // TRIM
        ordered = np.sort(draws[:, :look], axis=1)
        kept = ordered[:, cut : look - cut]
        whole = np.clip(ordered, kept[:, :1], kept[:, -1:])
        count = kept.shape[1]
        found.append((kept.mean(axis=1), np.sqrt(whole.var(axis=1) * look / (count * (count - 1))), count - 1))
    return found


def called(noise, spread, slower):
    """Shares of ROUNDS gates that say regression and pass, all judged at once as `judge` does one."""
    outcome, allowed = np.zeros(ROUNDS), math.log1p(LIMIT)
    for (center, unit, freedom), slow, pass_ in zip(looks(noise), SLOWER, NO_SLOWER, strict=True):
        mean, error = math.log1p(slower) + spread * center, spread * unit
        regression = (mean > allowed) & (mean > error * student_quantile(slow, freedom))
        passed = mean + error * student_quantile(pass_, freedom) < allowed
        outcome[outcome == 0] = np.where(regression, 1, np.where(passed, 2, 0))[outcome == 0]
    return (outcome == 1).mean(), (outcome == 2).mean()


def test_simulation_judges_as_judge_does():
    draw = np.random.default_rng(7).normal(size=(ROUNDS, LOOKS[-1]))[:200]
    mine = []
    for ratios in np.exp(math.log1p(0.05) + 0.03 * draw).tolist():
        found = (judge(ratios[:look], LIMIT) for look in LOOKS)
        mine.append(next((one.outcome for one in found if one is not None), None))
    assert mine.count("regression") / 200 == pytest.approx(called("normal", 0.03, 0.05)[0], abs=0.05)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("spread", [0.01, 0.02, 0.04, 0.1])
def test_false_alarms_stay_below_half_a_percent(noise, spread):
    """0.5 % and three standard errors of 40,000 rounds."""
    assert called(noise, spread, 0.0)[0] <= 0.005 + 3 * math.sqrt(0.005 * 0.995 / ROUNDS)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("spread", [0.01, 0.02, 0.03, 0.04])
def test_slow_down_by_the_limit_seldom_passes(noise, spread):
    assert called(noise, spread, LIMIT)[1] <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / ROUNDS)


@pytest.mark.parametrize(
    ("noise", "spread", "slower", "least"),
    [
        ("normal", 0.01, 0.05, 0.99), ("normal", 0.03, 0.05, 0.95), ("normal", 0.04, 0.05, 0.85),
        ("t3", 0.03, 0.05, 0.95), ("contaminated", 0.02, 0.05, 0.95), ("contaminated", 0.03, 0.05, 0.90),
        ("normal", 0.04, 0.10, 0.99), ("t3", 0.04, 0.10, 0.99), ("contaminated", 0.04, 0.10, 0.97),
    ],
)  # fmt: skip
def test_slow_downs_are_found(noise, spread, slower, least):
    assert called(noise, spread, slower)[0] >= least
