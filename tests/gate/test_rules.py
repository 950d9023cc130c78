import math

import pytest

from kdedge.core.console import quantity
from kdedge.core.deployment import Budget, Gate
from kdedge.core.profiling import ProcessSample, ProfileReport
from kdedge.core.report import (
    Baseline,
    ExitPoint,
    ExportedFile,
    ExportReport,
    GateResult,
    Hop,
    Metric,
    Quality,
    TrainedModel,
    TrainingReport,
)
from kdedge.core.stats import distribution
from kdedge.gate.rules import change_limit, collect, decide, exit_code, profiled, worst

HERE = {"match": {"cpu": "A", "threads": 2}, "note": {"kernel": "6.1"}}
THERE = {"match": {"cpu": "B", "threads": 2}, "note": {"kernel": "6.1"}}


def top1(value: float) -> Metric:
    return Metric(value=value, unit="fraction", better="higher")


def latency(value: float, stable: bool = True) -> Metric:
    return Metric(value=value, unit="ms", better="lower", stable=stable)


def size_of(value: float) -> Metric:
    return Metric(value=value, unit="bytes", better="lower")


def judged(name: str, metric: Metric, before: Metric | None = None, where: dict = HERE, **limits) -> GateResult:
    baseline = Baseline(fingerprint=where, metrics={name: before}) if before else None
    return decide({name: metric}, Gate(budgets=(Budget(metric=name, **limits),)), baseline, HERE)


@pytest.mark.parametrize(
    ("metric", "limits", "verdict", "limit", "reason"),
    [
        (top1(0.95), {"min": 0.95}, "pass", ">= 95.00 %", ""),
        (top1(0.9), {"min": 0.95}, "regression", ">= 95.00 %", "missed by 5 points"),
        (top1(0.94999), {"min": 0.95}, "regression", ">= 95.00 %", "missed by 0.001 points"),
        (size_of(61440), {"max": 61440}, "pass", "<= 60.0 KiB", ""),
        (size_of(61445), {"max": 61440}, "regression", "<= 60.0 KiB", "missed by 5 B"),
        (latency(2.5), {"max": 2.0}, "regression", "<= 2.000 ms", "missed by 0.500 ms"),
        (Metric(value=80_001, unit="count", better="lower"), {"max": 80_000}, "regression", "<= 80k", "missed by 1"),
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
        (latency(1.05), latency(1.0), 0.05, "pass", "+5.0 %"),
        (latency(1.06), latency(1.0), 0.05, "regression", "+6.0 %"),
        (latency(0.5), latency(1.0), 0.0, "pass", "-50.0 %"),
        (size_of(1), size_of(0), 0.5, "regression", "from 0 B"),
        (size_of(0), size_of(0), 0.0, "pass", "from 0 B"),
    ],
)
def test_decide_change_is_points_for_accuracy_and_a_share_for_costs(now, before, allowed, verdict, reason):
    (check,) = judged("x/any", now, before, max_change=allowed).checks
    assert (check.verdict, check.reason, check.baseline) == (verdict, reason, before.value)


def test_change_limit_names_direction_and_unit():
    assert change_limit(latency(1.0), 0.05) == "<= baseline + 5 %"
    assert change_limit(top1(0.9), 0.005) == ">= baseline - 0.5 points"


@pytest.mark.parametrize("name", ["int8/latency_median_ms", "int8/latency_p95_ms", "int8/peak_memory_bytes"])
def test_decide_measured_metric_is_incomparable_when_the_machine_differs(name):
    (check,) = judged(name, latency(9.0), latency(1.0), where=THERE, max_change=0.05).checks
    assert check.verdict == "incomparable"
    assert check.reason == "cpu was B, is A"


@pytest.mark.parametrize("name", ["int8/onnx_bytes", "int8/top1", "student/macs"])
def test_decide_other_metrics_compare_across_machines(name):
    assert judged(name, size_of(9.0), size_of(9.0), where=THERE, max_change=0.0).verdict == "pass"


def test_decide_absolute_latency_needs_no_baseline_machine():
    assert judged("int8/latency_median_ms", latency(1.0), latency(1.0), where=THERE, max=2.0).verdict == "pass"


def test_decide_is_incomparable_when_the_machine_is_unknown():
    result = judged("a/latency_median_ms", latency(1.0), latency(1.0), where={}, max_change=0.1)
    assert result.checks[0].reason == "the baseline does not say on what machine it was measured"


@pytest.mark.parametrize("value", [1.0, 9.0])
def test_decide_unsettled_measurement_is_unstable_within_and_beyond_the_limit(value):
    assert judged("a/latency_median_ms", latency(value, stable=False), max=2.0).verdict == "unstable"


def test_decide_unsettled_baseline_is_unstable():
    (check,) = judged("a/latency_median_ms", latency(1.0), latency(1.0, stable=False), max_change=0.1).checks
    assert check.verdict == "unstable"
    assert "update the baseline" in check.reason


def test_decide_change_is_insufficient_when_there_is_no_baseline():
    (check,) = judged("a/top1", top1(0.9), max_change=0.1).checks
    assert (check.verdict, check.reason) == ("insufficient", "no baseline at hand")


def test_decide_change_is_insufficient_when_the_baseline_lacks_the_metric():
    baseline = Baseline(fingerprint=HERE, metrics={})
    result = decide({"a/top1": top1(0.9)}, Gate(budgets=(Budget(metric="a/top1", max_change=0.1),)), baseline, HERE)
    assert result.verdict == "insufficient"
    assert result.warnings == ["not in the baseline yet: a/top1"]


def test_decide_misspelt_metric_fails_and_names_the_nearest():
    result = decide({"int8/top1": top1(0.9)}, Gate(budgets=(Budget(metric="int8/top_1", min=0.5),)), None, {})
    (check,) = result.checks
    assert (check.verdict, check.value) == ("regression", None)
    assert "did you mean 'int8/top1'?" in check.reason


def test_decide_says_why_a_percentile_is_absent():
    gate = Gate(budgets=(Budget(metric="a/latency_p95_ms", max=2.0),))
    (check,) = decide({"a/latency_median_ms": latency(1.0)}, gate, None, {}).checks
    assert check.reason == "too few samples for a 95th percentile; raise profile.seconds"


@pytest.mark.parametrize("budgets", [(), (Budget(metric="int8/onnx_bytes", max=2048),)])
def test_decide_metric_that_vanished_fails_once(budgets):
    baseline = Baseline(fingerprint=HERE, metrics={"int8/onnx_bytes": size_of(1024)})
    (check,) = decide({}, Gate(budgets=budgets), baseline, HERE).checks
    assert (check.verdict, check.baseline) == ("regression", 1024)
    assert check.reason.startswith("vanished")
    assert check.limit == ("<= 2.0 KiB" if budgets else "no worse than the baseline")


def test_decide_one_check_per_limit():
    result = judged("a/top1", top1(0.9), top1(0.95), min=0.8, max=1.0, max_change=0.01)
    assert [check.verdict for check in result.checks] == ["pass", "pass", "regression"]


def test_decide_advisory_breach_does_not_fail():
    result = judged("a/top1", top1(0.1), min=0.9, advisory=True)
    assert result.checks[0].verdict == "regression"
    assert result.checks[0].advisory
    assert result.verdict == "pass"


def test_decide_warns_when_the_student_is_below_its_own_baseline():
    gate = Gate(budgets=(Budget(metric="student/top1_gain", min=-1),))
    warned = decide({"student/top1_gain": top1(-0.012)}, gate, None, {}).warnings
    assert warned == ["the student is 1.2 points below the whole network trained on the labels alone"]
    assert decide({"student/top1_gain": top1(0.0)}, gate, None, {}).warnings == []


def test_decide_says_when_nothing_was_checked():
    result = decide({"a/top1": top1(0.9)}, Gate(), None, {})
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


def trained(top: float, params: int) -> TrainedModel:
    return TrainedModel(
        model="m", params=params, macs=10 * params, weight_bytes=4 * params, input_shape=[1, 8, 8], top1=top
    )


def hop(name: str, top: float) -> Hop:
    return Hop(name=name, quality=Quality(images=10, top1=top, per_class=[top], ece=0.0))


def profile(name: str, settled: bool, count: int) -> ProfileReport:
    values = [0.1 * (i + 1) for i in range(count)]
    sample = ProcessSample(
        latency_ms=values,
        open_ms=1,
        first_ms=1,
        warmup_queries=1,
        warmup_ms=1,
        settled=settled,
        baseline_bytes=1,
        peak_bytes=4097,
    )
    return ProfileReport(
        name=name,
        model="m.ort",
        model_bytes=1,
        model_sha256="0" * 64,
        backend="ort",
        provider="CPU",
        shapes={},
        batch=1,
        threads=1,
        latency=distribution([values]),
        throughput=1,
        open_ms=1,
        first_ms=1,
        peak_memory_bytes=4096,
        samples=[sample],
        device={},
    )


@pytest.mark.parametrize(
    ("exit_", "ends", "params"), [("1/2", [40], 40), ("all", [40, 120], 120)], ids=["cut", "with its heads"]
)
def test_collect_speaks_of_the_network_that_was_exported(exit_, ends, params):
    """The gain as well: of what is left of the student against the whole network on the labels alone."""
    names = ["1/2", "2/2"]
    points = [
        ExitPoint(name=name, stage="stage1", output="logits", params=count, macs=10 * count)
        for name, count in zip(names, ends, strict=False)
    ]
    training = TrainingReport(
        recipe="r", seed=0, train_images=1, validation_images=1, test_images=1, labels=["a"], methods=[],
        student=trained(0.9, 100), baseline=trained(0.88, 100),
    )  # fmt: skip
    hops = [hop("exit1/torch", 0.5), hop("torch", 0.7)]
    export = ExportReport(onnx={}, hops=hops, exit=exit_, exits=points, opset=18)
    metrics = {name: round(metric.value, 9) for name, metric in collect(training, export, []).items()}
    assert metrics == {
        "student/top1": 0.7, "student/params": params, "student/macs": 10 * params, "student/top1_gain": -0.18
    }  # fmt: skip


def test_collect_names_every_number_and_prefers_the_engine():
    training = TrainingReport(
        recipe="r",
        seed=0,
        train_images=1,
        validation_images=1,
        test_images=1,
        labels=["a"],
        methods=[],
        student=trained(0.9, 100),
        teachers=[trained(0.95, 1000)],
        baseline=trained(0.88, 100),
    )
    file = ExportedFile(path="m", bytes=2048, sha256="0" * 64)
    export = ExportReport(
        onnx={"fp32": file, "int8": file},
        engines={"int8": file},
        hops=[hop("torch", 0.9), hop("onnx-fp32", 0.91), hop("onnx-int8", 0.87), hop("engine-int8", 0.86)],
        opset=18,
    )
    metrics = collect(training, export, [profile("fp32", True, 9), profile("int8", False, 200)])
    assert {name: round(metric.value, 9) for name, metric in metrics.items()} == {
        "teacher/top1": 0.95,
        "student/top1": 0.9,
        "student/top1_gain": 0.02,
        "student/params": 100,
        "student/macs": 1000,
        "fp32/onnx_bytes": 2048,
        "fp32/top1": 0.91,
        "fp32/latency_median_ms": 0.5,
        "fp32/peak_memory_bytes": 4096,
        "int8/onnx_bytes": 2048,
        "int8/engine_bytes": 2048,
        "int8/top1": 0.86,
        "int8/latency_median_ms": 10.05,
        "int8/latency_p95_ms": 19.0,
        "int8/peak_memory_bytes": 4096,
    }
    assert [name for name, metric in metrics.items() if not metric.stable] == [
        "int8/latency_median_ms",
        "int8/latency_p95_ms",
    ]
    assert {name.split("/")[1] for name, metric in metrics.items() if metric.better == "higher"} == {
        "top1",
        "top1_gain",
    }


def test_collect_device_latency_where_there_is_one():
    assert "trt/device_latency_median_ms" not in profiled(profile("trt", True, 10))
    measured = profile("trt", False, 10).model_copy(update={"device_latency": distribution([[0.25, 0.5, 0.75]])})
    metric = profiled(measured)["trt/device_latency_median_ms"]
    assert (metric.value, metric.unit, metric.better, metric.stable) == (0.5, "ms", "lower", False)


@pytest.mark.parametrize(
    ("verdict", "code"), [("pass", 0), ("regression", 1), ("incomparable", 3), ("insufficient", 3), ("unstable", 4)]
)
def test_exit_code_is_0_for_every_verdict_of_a_gate_that_only_advises(verdict, code):
    result = GateResult(verdict=verdict, checks=[])
    assert exit_code(result) == code
    assert exit_code(result, advisory=True) == 0
