import math

import pytest

from kdedge.core.console import quantity
from kdedge.core.deployment import Budget, Gate
from kdedge.core.gating import Baseline, Snapshot
from kdedge.core.report import GateResult, Metric
from kdedge.gate.rules import decide, exit_code, worst

HERE = {"match": {"cpu": "A", "threads": 2}, "note": {"kernel": "6.1"}}
THERE = {"match": {"cpu": "B", "threads": 2}, "note": {"kernel": "6.1"}}


def top1(value: float) -> Metric:
    return Metric(value=value, unit="fraction", better="higher")


def latency(value: float, trouble: str = "", count: int = 5) -> Metric:
    """Of processes that agree within half a percent."""
    samples = [value * (1 + 0.001 * number) for number in range(count)]
    return Metric(value=value, unit="ms", better="lower", stable=not trouble, trouble=trouble, samples=samples)


def count(value: float) -> Metric:
    return Metric(value=value, unit="count", better="lower")


def size_of(value: float) -> Metric:
    return Metric(value=value, unit="bytes", better="lower")


def shows(metrics: dict[str, Metric], where: dict = HERE) -> Snapshot:
    return Snapshot(fingerprint=where, metrics=metrics)


def judged(name: str, metric: Metric, before: Metric | None = None, where: dict = HERE, **limits) -> GateResult:
    baseline = Baseline(fingerprint=where, metrics={name: before}) if before else None
    return decide(shows({name: metric}), Gate(budgets=(Budget(metric=name, **limits),)), baseline)


@pytest.mark.parametrize(
    ("metric", "limits", "verdict", "limit", "reason"),
    [
        (top1(0.95), {"min": 0.95}, "pass", ">= 95.00 %", ""),
        (top1(0.9), {"min": 0.95}, "regression", ">= 95.00 %", "missed by 5 points"),
        (top1(0.94999), {"min": 0.95}, "regression", ">= 95.00 %", "missed by 0.001 points"),
        (size_of(61440), {"max": 61440}, "pass", "<= 60.0 KiB", ""),
        (size_of(61445), {"max": 61440}, "regression", "<= 60.0 KiB", "missed by 5 B"),
        (latency(2.5), {"max": 2.0}, "regression", "<= 2.000 ms", "missed by 0.500 ms"),
        (count(80_001), {"max": 80_000}, "regression", "<= 80k", "missed by 1"),
        (top1(math.nan), {"min": 0.0}, "regression", ">= 0.00 %", "not a number"),
        (latency(math.inf), {"max": 2.0}, "regression", "<= 2.000 ms", "missed by inf ms"),
    ],
)
def test_decide_absolute_limit(metric, limits, verdict, limit, reason):
    (check,) = judged("x/any", metric, **limits).checks
    assert (check.verdict, check.limit, check.reason) == (verdict, limit, reason)


@pytest.mark.parametrize(
    ("now", "before", "allowed", "verdict", "reason"),
    [
        (top1(0.94), top1(0.95), 0.01, "pass", "-1.00 points"),  # 0.95 - 0.94 is more than 0.01 in floating point
        (top1(0.9399), top1(0.95), 0.01, "regression", "-1.01 points"),
        (top1(0.99), top1(0.95), 0.0, "pass", "+4.00 points"),
        (size_of(105), size_of(100), 0.05, "pass", "+5.0 %"),
        (size_of(106), size_of(100), 0.05, "regression", "+6.0 %"),
        (size_of(50), size_of(100), 0.0, "pass", "-50.0 %"),
        (size_of(1), size_of(0), 0.5, "regression", "from 0 B"),
        (size_of(0), size_of(0), 0.0, "pass", "from 0 B"),
    ],
)
def test_decide_change_is_points_for_accuracy_and_a_share_for_costs(now, before, allowed, verdict, reason):
    (check,) = judged("x/any", now, before, max_change=allowed).checks
    told = reason + ("; not known by image" if now.unit == "fraction" else "")
    assert (check.verdict, check.reason, check.baseline) == (verdict, told, before.value)


@pytest.mark.parametrize("name", ["int8/latency_median_ms", "int8/latency_p95_ms", "int8/peak_memory_bytes"])
def test_decide_measured_metric_is_incomparable_when_the_machine_differs(name):
    (check,) = judged(name, latency(9.0), latency(1.0), where=THERE, max_change=0.05).checks
    assert check.verdict == "incomparable"
    assert check.reason == "cpu was B, is A"


@pytest.mark.parametrize("name", ["int8/onnx_bytes", "int8/top1", "student/macs"])
def test_decide_other_metrics_compare_across_machines(name):
    assert judged(name, size_of(9.0), size_of(9.0), where=THERE, max_change=0.0).verdict == "pass"


def test_decide_absolute_latency_needs_no_baseline_machine():
    checks = judged("int8/latency_median_ms", latency(1.0), latency(1.0), where=THERE, max=2.0).checks
    assert [(check.limit, check.verdict) for check in checks] == [
        ("<= 2.000 ms", "pass"),
        ("<= baseline + 3 %", "incomparable"),
    ]


def test_decide_is_incomparable_when_the_machine_is_unknown():
    result = judged("a/latency_median_ms", latency(1.0), latency(1.0), where={}, max_change=0.1)
    assert result.checks[0].reason == "the baseline does not say on what machine it was measured"


@pytest.mark.parametrize("value", [1.0, 9.0])
def test_decide_unsettled_measurement_is_unstable_within_and_beyond_the_limit(value):
    assert judged("a/latency_median_ms", latency(value, "it was hot"), max=2.0).verdict == "unstable"


def test_decide_unsettled_baseline_is_unstable():
    (check,) = judged("a/latency_median_ms", latency(1.0), latency(1.0, "it was hot"), max_change=0.1).checks
    assert check.verdict == "unstable"
    assert "update the baseline" in check.reason


def test_decide_change_is_insufficient_when_there_is_no_baseline():
    (check,) = judged("a/top1", top1(0.9), max_change=0.1).checks
    assert (check.verdict, check.reason) == ("insufficient", "no baseline at hand")


def test_decide_change_is_insufficient_when_the_baseline_lacks_the_metric():
    baseline = Baseline(fingerprint=HERE, metrics={})
    result = decide(shows({"a/top1": top1(0.9)}), Gate(budgets=(Budget(metric="a/top1", max_change=0.1),)), baseline)
    assert result.verdict == "insufficient"
    assert result.warnings == ["not in the baseline yet: a/top1"]


def test_decide_misspelt_metric_fails_and_names_the_nearest():
    result = decide(shows({"int8/top1": top1(0.9)}), Gate(budgets=(Budget(metric="int8/top_1", min=0.5),)), None)
    (check,) = result.checks
    assert (check.verdict, check.value) == ("regression", None)
    assert "did you mean 'int8/top1'?" in check.reason


def test_decide_says_why_a_percentile_is_absent():
    gate = Gate(budgets=(Budget(metric="a/latency_p95_ms", max=2.0),))
    (check,) = decide(shows({"a/latency_median_ms": latency(1.0)}), gate, None).checks
    assert check.reason == "too few samples for a 95th percentile; raise profile.seconds"


@pytest.mark.parametrize("budgets", [(), (Budget(metric="int8/onnx_bytes", max=2048),)])
def test_decide_metric_that_vanished_fails_once(budgets):
    baseline = Baseline(fingerprint=HERE, metrics={"int8/onnx_bytes": size_of(1024)})
    (check,) = decide(shows({}), Gate(budgets=budgets), baseline).checks
    assert (check.verdict, check.baseline) == ("regression", 1024)
    assert check.reason.startswith("vanished")
    assert check.limit == ("<= 2.0 KiB" if budgets else "no worse than the baseline")


def test_decide_one_check_per_limit():
    result = judged("a/top1", top1(0.9), top1(0.95), min=0.8, max=1.0, max_change=0.01)
    assert [check.verdict for check in result.checks] == ["pass", "pass", "regression"]


def held(metrics: dict[str, Metric], before: dict[str, Metric], *budgets: Budget) -> dict[str, tuple[str, bool]]:
    """Verdict of each check, and whether it is advisory, by metric."""
    baseline = Baseline(fingerprint=HERE, metrics=before)
    checks = decide(shows(metrics), Gate(budgets=budgets), baseline).checks
    return {check.metric: (check.verdict, check.advisory) for check in checks}


def test_decide_holds_every_metric_against_the_baseline_without_a_budget():
    before = {"int8/onnx_bytes": size_of(1000), "student/params": count(10), "int8/latency_median_ms": latency(1.0)}
    now = {"int8/onnx_bytes": size_of(1010), "student/params": count(11), "int8/latency_median_ms": latency(1.04)}
    assert held(now, before) == {
        "int8/onnx_bytes": ("pass", False),
        "student/params": ("regression", False),
        "int8/latency_median_ms": ("regression", False),
    }


@pytest.mark.parametrize(
    "budget", [{"metric": "student/params", "max_change": 0.1}, {"metric": "*/params", "max_change": 0.1}], ids=str
)
def test_decide_takes_the_recipe_s_limit_on_change_instead_of_the_default(budget):
    now, before = {"student/params": count(11)}, {"student/params": count(10)}
    assert held(now, before, Budget(**budget)) == {"student/params": ("pass", False)}


def test_decide_pattern_makes_a_kind_of_metric_advisory():
    names = ("fp32/latency_p95_ms", "int8/latency_p95_ms")
    now, before = {name: latency(2.0) for name in names}, {name: latency(1.0) for name in names}
    found = held(now, before, Budget(metric="*/latency_p95_ms", advisory=True))
    assert found == dict.fromkeys(names, ("regression", True))


def test_decide_absolute_budget_stays_beside_the_default_limit():
    result = judged("student/params", count(11), count(10), max=20)
    assert [(check.limit, check.verdict) for check in result.checks] == [
        ("<= 20", "pass"),
        ("<= baseline", "regression"),
    ]


ASIDE = (
    "teacher/onnx_bytes", "original/params", "student/top1_gain", "student/mean_ap_gain", "int8/engine_layers",
    "int8/ap50", "int8/ap75",
)  # fmt: skip


@pytest.mark.parametrize("name", ASIDE)
def test_decide_only_tells_of_what_is_not_deployed(name):
    assert held({name: count(11)}, {name: count(10)}) == {name: ("regression", True)}
    assert held({name: count(11)}, {name: count(10)}, Budget(metric=name, max=99))[name] == ("regression", False)


def test_decide_pattern_of_nothing_fails():
    (check,) = decide(shows({}), Gate(budgets=(Budget(metric="*/latency", max=1),)), None).checks
    assert check.verdict == "regression"


def test_decide_advisory_breach_does_not_fail():
    result = judged("a/top1", top1(0.1), min=0.9, advisory=True)
    assert result.checks[0].verdict == "regression"
    assert result.checks[0].advisory
    assert result.verdict == "pass"


@pytest.mark.parametrize("gain", ["student/top1_gain", "student/mean_ap_gain"])
@pytest.mark.parametrize(("value", "points"), [(-0.012, "1.2 points"), (-0.01, "1 point")])
def test_decide_warns_when_the_student_is_below_its_own_baseline(gain, value, points):
    gate = Gate(budgets=(Budget(metric=gain, min=-1),))
    warned = decide(shows({gain: top1(value)}), gate, None).warnings
    assert warned == [f"the student is {points} below the whole network trained on the labels alone"]
    assert decide(shows({gain: top1(0.0)}), gate, None).warnings == []


def test_decide_says_when_nothing_was_checked():
    result = decide(shows({"a/top1": top1(0.9)}), Gate(), None)
    assert result.verdict == "pass"
    assert "no budgets" in result.warnings[0]


def test_decide_remarks_on_another_kernel():
    other = {"match": HERE["match"], "note": {"kernel": "6.6"}}
    assert judged("a/top1", top1(0.9), top1(0.9), where=other, min=0.5).warnings == [
        "since the baseline: kernel was 6.6, is 6.1"
    ]


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        ([], "pass", 0),
        (["pass", "insufficient"], "insufficient", 3),
        (["insufficient", "unstable"], "unstable", 4),
        (["unstable", "incomparable"], "incomparable", 3),
        (["incomparable", "regression", "pass"], "regression", 1),
    ],
)
def test_worst_verdict_and_its_exit_code(verdicts, expected, code):
    assert worst(verdicts) == expected
    assert exit_code(GateResult(verdict=expected, checks=[])) == code


def test_quantity_of_an_unknown_unit_keeps_it():
    assert quantity(1.5, "J") == "1.5 J"


@pytest.mark.parametrize(
    ("verdict", "code"), [("pass", 0), ("regression", 1), ("incomparable", 3), ("insufficient", 3), ("unstable", 4)]
)
def test_exit_code_is_0_for_every_verdict_of_a_gate_that_only_advises(verdict, code):
    result = GateResult(verdict=verdict, checks=[])
    assert exit_code(result) == code
    assert exit_code(result, advisory=True) == 0
