"""The gate's rules: a run's numbers against its budgets and its baseline, as pure functions.

A budget gives a check for each of its limits.  The verdict of the whole is the worst of the checks that are not
advisory: regression, then incomparable, unstable, insufficient, pass.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kdedge.core.console import quantity
from kdedge.core.deployment import Budget, Gate
from kdedge.core.errors import nearest
from kdedge.core.profiling import ProfileReport
from kdedge.core.report import Baseline, Check, ExportReport, GateResult, Metric, TrainedModel, TrainingReport, Verdict
from kdedge.gate.baseline import differences, remarks

WORST_FIRST: tuple[Verdict, ...] = ("regression", "incomparable", "unstable", "insufficient", "pass")
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "regression": 1, "incomparable": 3, "insufficient": 3, "unstable": 4}
MEASURED = ("latency_", "peak_memory_")
ROUNDING = 1e-9  # relative; a value that is at its limit on paper is within it


@dataclass(frozen=True)
class Evidence:
    """What the budgets are held against."""

    metrics: dict[str, Metric]
    baseline: dict[str, Metric] | None
    differing: list[str]
    """What of the machine or the way of measuring is not as it was for the baseline."""


def collect(training: TrainingReport, export: ExportReport, profiles: list[ProfileReport]) -> dict[str, Metric]:
    """Every number of a run that a budget can name.

    The accuracy of a precision is that of the built engine; of the ONNX file where no engine was compared.
    """
    student = export.deployed(training.student)
    metrics = trained(training, student) | deployed(student)
    for precision, file in export.engines.items():
        metrics[f"{precision}/engine_bytes"] = cost(file.bytes, "bytes")
    for precision, file in export.onnx.items():
        metrics[f"{precision}/onnx_bytes"] = cost(file.bytes, "bytes")
        if quality := export.quality(precision):
            metrics[f"{precision}/top1"] = accuracy(quality.top1)
    for profile in profiles:
        metrics |= profiled(profile)
    return metrics


def trained(training: TrainingReport, student: TrainedModel) -> dict[str, Metric]:
    metrics = {}
    if training.teacher:
        metrics["teacher/top1"] = accuracy(training.teacher.top1)
    if training.baseline:
        metrics["student/top1_gain"] = accuracy(student.top1 - training.baseline.top1)
    return metrics


def deployed(student: TrainedModel) -> dict[str, Metric]:
    """Of what was exported: of a student cut after an early exit, what is left of it."""
    return {
        "student/top1": accuracy(student.top1),
        "student/params": cost(student.params, "count"),
        "student/macs": cost(student.macs, "count"),
    }


def profiled(profile: ProfileReport) -> dict[str, Metric]:
    """A percentile that the samples do not support is no metric."""
    settled = all(sample.settled for sample in profile.samples)
    metrics = {
        f"{profile.name}/latency_median_ms": cost(profile.latency.median, "ms", settled),
        f"{profile.name}/peak_memory_bytes": cost(profile.peak_memory_bytes, "bytes"),
    }
    if profile.device_latency:
        metrics[f"{profile.name}/device_latency_median_ms"] = cost(profile.device_latency.median, "ms", settled)
    p95 = profile.latency.percentiles.get("p95")
    if p95 is not None:
        metrics[f"{profile.name}/latency_p95_ms"] = cost(p95, "ms", settled)
    return metrics


def accuracy(value: float) -> Metric:
    return Metric(value=value, unit="fraction", better="higher")


def cost(value: float, unit: str, stable: bool = True) -> Metric:
    return Metric(value=value, unit=unit, better="lower", stable=stable)


def decide(
    metrics: dict[str, Metric], gate: Gate, baseline: Baseline | None, fingerprint: dict[str, Any]
) -> GateResult:
    """Hold a run's metrics against the recipe's budgets.

    Args:
        baseline: none is at hand: limits against it are `insufficient`.
        fingerprint: of the machine and the way of measuring, as `kdedge.gate.baseline.fingerprint_of` makes it.
    """
    differing = differences(baseline.fingerprint, fingerprint) if baseline else []
    evidence = Evidence(metrics, baseline.metrics if baseline else None, differing)
    checks = [check for budget in gate.budgets for check in judge(budget, evidence)]
    checks += vanished(evidence, {budget.metric for budget in gate.budgets})
    return GateResult(
        verdict=worst(check.verdict for check in checks if not check.advisory),
        checks=checks,
        warnings=warnings_of(gate, evidence) + (remarks(baseline.fingerprint, fingerprint) if baseline else []),
        metrics=metrics,
        baseline=" ".join(part for part in (baseline.created, baseline.reason) if part) if baseline else None,
    )


def exit_code(result: GateResult, advisory: bool = False) -> int:
    """0 whatever was found where the gate only advises."""
    return 0 if advisory else EXIT_CODES[result.verdict]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    return min(verdicts, key=WORST_FIRST.index, default="pass")


def judge(budget: Budget, evidence: Evidence) -> Iterator[Check]:
    """A check for each limit of a budget; a single one when there is nothing to hold against it."""
    metric = evidence.metrics.get(budget.metric)
    if metric is None:
        yield absent(budget, evidence)
        return
    for excess, bound, limit in absolute(budget, metric):
        verdict, reason = settle(metric, excess, bound)
        yield check_of(budget, metric, limit, verdict, reason)
    if budget.max_change is not None:
        before = (evidence.baseline or {}).get(budget.metric)
        verdict, reason = compare(budget.metric, metric, before, budget.max_change, evidence)
        limit = change_limit(metric, budget.max_change)
        yield check_of(budget, metric, limit, verdict, reason, before.value if before else None)


def check_of(
    budget: Budget, metric: Metric, limit: str, verdict: Verdict, reason: str, before: float | None = None
) -> Check:
    return Check(
        metric=budget.metric,
        value=metric.value,
        unit=metric.unit,
        limit=limit,
        baseline=before,
        verdict=verdict,
        advisory=budget.advisory,
        reason=reason,
    )


def absolute(budget: Budget, metric: Metric) -> Iterator[tuple[float, float, str]]:
    """Each absolute limit: by how much it is exceeded (negative: within it), its size, and in words."""
    if budget.min is not None:
        yield budget.min - metric.value, budget.min, f">= {quantity(budget.min, metric.unit)}"
    if budget.max is not None:
        yield metric.value - budget.max, budget.max, f"<= {quantity(budget.max, metric.unit)}"


def settle(metric: Metric, excess: float, limit: float) -> tuple[Verdict, str]:
    if not metric.stable:
        return "unstable", "the measurement did not settle; measure again on a quiet machine"
    if excess <= ROUNDING * max(1.0, abs(limit)):
        return "pass", ""
    return "regression", "not a number" if math.isnan(excess) else f"missed by {margin(excess, metric.unit)}"


def compare(
    name: str, metric: Metric, before: Metric | None, allowed: float, evidence: Evidence
) -> tuple[Verdict, str]:
    """Against the baseline's value.  Only what was measured on a machine asks for the same machine."""
    if evidence.baseline is None:
        return "insufficient", "no baseline at hand"
    if before is None:
        return "insufficient", "the baseline does not have it"
    if is_measured(name) and evidence.differing:
        return "incomparable", "; ".join(evidence.differing)
    if not before.stable:
        return "unstable", "the baseline's own measurement did not settle; update the baseline"
    worse_by = before.value - metric.value if metric.better == "higher" else metric.value - before.value
    room = allowed if metric.unit == "fraction" else allowed * abs(before.value)
    verdict, reason = settle(metric, worse_by - room, before.value)
    return verdict, reason if verdict == "unstable" else change(metric.value, before.value, metric.unit)


def is_measured(name: str) -> bool:
    return name.rpartition("/")[2].startswith(MEASURED)


def unmeasured(name: str, metrics: dict[str, Metric]) -> bool:
    """Whether it is of a model that was exported and has no latency."""
    model, _, what = name.partition("/")
    return "latency" in what and f"{model}/onnx_bytes" in metrics and f"{model}/latency_median_ms" not in metrics


def absent(budget: Budget, evidence: Evidence) -> Check:
    """A budget on a number that this run does not have never passes."""
    before = (evidence.baseline or {}).get(budget.metric)
    if before:
        reason = "vanished: the baseline has it, this run does not"
    elif budget.metric.replace("_p95_", "_median_") in evidence.metrics:
        reason = "too few samples for a 95th percentile; raise profile.seconds"
    elif unmeasured(budget.metric, evidence.metrics):
        reason = "not measured since it was exported: kdedge profile"
    else:
        reason = f"this run has no metric of that name; {nearest(budget.metric, evidence.metrics)}"
    unit = before.unit if before else ""
    bounds = {">=": budget.min, "<=": budget.max}
    limits = [f"{sign} {quantity(bound, unit)}" for sign, bound in bounds.items() if bound is not None]
    return Check(
        metric=budget.metric,
        value=None,
        unit=unit,
        limit=", ".join(limits) or "no worse than the baseline",
        baseline=before.value if before else None,
        verdict="regression",
        advisory=budget.advisory,
        reason=reason,
    )


def vanished(evidence: Evidence, named: set[str]) -> list[Check]:
    """The baseline's metrics that this run lost and no budget speaks of."""
    lost = (evidence.baseline or {}).keys() - evidence.metrics.keys() - named
    return [absent(Budget(metric=name, max_change=0), evidence) for name in sorted(lost)]


def warnings_of(gate: Gate, evidence: Evidence) -> list[str]:
    metrics = evidence.metrics
    found = [] if gate.budgets else ["the recipe's gate section has no budgets, so nothing was checked"]
    gain = metrics.get("student/top1_gain")
    if gain and gain.value < 0:
        points = margin(-gain.value, "fraction")
        found.append(f"the student is {points} below the whole network trained on the labels alone")
    if evidence.baseline is not None and (new := sorted(metrics.keys() - evidence.baseline.keys())):
        found.append(f"not in the baseline yet: {', '.join(new)}")
    return found


def margin(value: float, unit: str) -> str:
    """A difference of two values; accuracies differ by points."""
    return f"{100 * value:.2g} points" if unit == "fraction" else quantity(value, unit)


def change_limit(metric: Metric, allowed: float) -> str:
    bound, sign = ("<=", "+") if metric.better == "lower" else (">=", "-")
    return f"{bound} baseline {sign} {100 * allowed:.3g} {'points' if metric.unit == 'fraction' else '%'}"


def change(value: float, before: float, unit: str) -> str:
    """From the baseline to now, signed."""
    if unit == "fraction":
        return f"{100 * (value - before):+.2f} points"
    return f"{100 * (value / before - 1):+.1f} %" if before else f"from {quantity(before, unit)}"
