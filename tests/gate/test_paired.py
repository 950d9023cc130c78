"""The rules of the gate against another model: limits by hand, McNemar's test against SciPy."""

import pytest
from boxruns import quality

from kdedge.core.paired import PairedTimes
from kdedge.core.report import Metric
from kdedge.gate.paired import (
    Answered,
    accuracy_check,
    advice,
    boxes_check,
    decide_paired,
    latency_check,
    size_checks,
    slow_down_allowed,
    vanished,
)


def times(**changes):
    values = {"name": "fp32", "outcome": "regression", "ratio": 1.052, "interval": (1.041, 1.063), "limit": 0.03}
    values |= {"ratios": [1.05] * 5, "base_ms": 1.0, "new_ms": 1.05, "seconds": 10.2, **changes}
    return PairedTimes.model_validate(values)


@pytest.mark.parametrize(("base_ms", "allowed"), [(1.0, 0.03), (100.0, 0.03), (0.1, 0.1), (0.01, 1.0)])
def test_slow_down_must_exceed_three_percent_and_ten_microseconds(base_ms, allowed):
    assert slow_down_allowed(base_ms) == pytest.approx(allowed)


def test_latency_check_tells_the_change_and_how_sure_it_is():
    check = latency_check(times())
    assert (check.verdict, check.value, check.baseline, check.unit) == ("regression", 1.05, 1.0, "ms")
    assert check.limit == "<= base + 3 %"
    assert check.reason == "+5.2 % (95 %: +4.1 to +6.3), 5 processes, 10 s"


def test_latency_check_of_a_fast_model_names_the_limit_in_time():
    assert latency_check(times(limit=0.5, base_ms=0.02)).limit == "<= base + 0.010 ms"


def test_latency_check_says_what_throttled_once():
    check = latency_check(times(outcome="unstable", ratio=None, interval=None, ratios=[], throttled=["hot", "hot"]))
    assert (check.verdict, check.reason) == ("unstable", "0 processes, 10 s; hot")


@pytest.mark.parametrize(
    ("new", "verdict"), [(1010, "pass"), (1011, "regression"), (1100, "regression"), (500, "pass")]
)
def test_bytes_may_grow_by_one_percent(new, verdict):
    metrics = [{"int8/onnx_bytes": Metric(value=value, unit="bytes", better="lower")} for value in (new, 1000)]
    (check,) = size_checks(*metrics)
    assert (check.metric, check.verdict, check.baseline) == ("int8/onnx_bytes", verdict, 1000)


def test_counts_may_not_grow_and_what_one_does_not_know_is_not_compared():
    base = {"student/params": Metric(value=10, unit="count", better="lower")}
    (check,) = size_checks({"student/params": Metric(value=11, unit="count", better="lower")}, base)
    assert (check.verdict, check.limit, check.reason) == ("regression", "<= base", "+10.0 %")
    assert size_checks({}, base) == []


@pytest.mark.parametrize(
    ("lost", "won", "verdict"),
    [
        (10, 0, "regression"),  # 1 point; p = 1/1024
        (30, 20, "pass"),  # 1 point as well; p = 0.10
        (0, 10, "pass"),
        (0, 0, "pass"),
    ],
)
def test_accuracy_is_judged_by_the_images_on_which_the_two_differ(lost, won, verdict):
    check = accuracy_check("fp32", Answered(1000, 900, 900 + won - lost, lost, won))
    assert (check.metric, check.verdict) == ("fp32/top1", verdict)


def test_loss_that_is_significant_but_within_a_tenth_of_a_point_passes():
    assert accuracy_check("fp32", Answered(10_000, 9000, 8990, 10, 0)).verdict == "pass"
    assert accuracy_check("fp32", Answered(10_000, 9000, 8989, 11, 0)).verdict == "regression"


@pytest.mark.parametrize(("new", "verdict"), [(0.4, "pass"), (0.39, "pass"), (0.3899, "regression"), (0.5, "pass")])
def test_average_precision_may_be_a_point_less(new, verdict):
    check = boxes_check("int8", quality(new), quality(0.4))
    assert (check.metric, check.value, check.baseline, check.unit) == ("int8/mean_ap", new, 0.4, "fraction")
    assert (check.verdict, check.limit) == (verdict, ">= base - 1 point")
    assert check.reason == f"{100 * (new - 0.4):+.2f} points"


@pytest.mark.oracle
def test_chance_is_that_of_scipy_s_binomial_test():
    from scipy.stats import binomtest

    check = accuracy_check("int8", Answered(1000, 900, 890, 25, 15))
    chance = binomtest(25, 40, 0.5, alternative="greater").pvalue
    assert check.reason == f"-1.00 points: 25 images lost, 15 won, p = {chance:.2g}"


def test_worst_check_is_the_verdict():
    assert decide_paired([latency_check(times(outcome="pass"))], [], "other").verdict == "pass"
    assert decide_paired([latency_check(times(outcome="pass")), vanished("int8")], [], "other").verdict == "regression"
    assert decide_paired([latency_check(times(outcome="unstable"))], ["hm"], "other").warnings == ["hm"]


def test_result_names_the_other_model():
    result = decide_paired([latency_check(times(outcome="pass"))], [], "other")
    assert (result.against, result.baseline) == ("other", None)


BOARD = "measure on one that does nothing else (--target ssh://user@board)"


@pytest.mark.parametrize(
    ("changes", "ways"),
    [
        ({"ratios": [1.0] * 7}, f"stop what else runs on the machine, or {BOARD}, or give it longer (--seconds 180)"),
        ({"ratios": [1.0] * 18}, f"stop what else runs on the machine, or {BOARD}"),
        ({"ratios": [], "throttled": ["hot"] * 4}, f"let the machine cool down, or {BOARD}"),
    ],
)
def test_advice_where_it_did_not_become_clear(changes, ways):
    """Longer helps only where the time was up before the most processes were measured."""
    clear, unclear = times(name="fp16", outcome="pass"), times(outcome="unstable", **changes)
    assert advice([clear, unclear], 60.0) == [f"fp32: too unsteady to tell; {ways}"]
    assert advice([clear], 60.0) == []
