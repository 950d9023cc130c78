"""The gate's rules: a run's numbers against its budgets and its baseline, as pure functions.

A budget gives a check for each of its limits; with a baseline at hand every metric that both have is checked, whether
or not a budget speaks of it.  The verdict of the whole is the worst of the checks that are not advisory: regression,
then incomparable, unstable, insufficient, pass.
"""

import math
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from kdedge.core.console import quantity
from kdedge.core.deployment import Budget, Gate
from kdedge.core.errors import nearest
from kdedge.core.gating import Baseline, Snapshot
from kdedge.core.report import Check, GateResult, Metric, Verdict
from kdedge.gate.baseline import remarks
from kdedge.gate.change import Comparison, beyond, margin
from kdedge.gate.limits import GAINS, only_told

WORST_FIRST: tuple[Verdict, ...] = ("regression", "incomparable", "unstable", "insufficient", "pass")
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "regression": 1, "incomparable": 3, "insufficient": 3, "unstable": 4}


def decide(run: Snapshot, gate: Gate, baseline: Baseline | None) -> GateResult:
    """Hold a run against the recipe's budgets and a baseline; without one, limits against it are `insufficient`."""
    comparison = Comparison(run, baseline, gate.look_back)
    budgets = expanded(gate.budgets, comparison)
    checks = [check for budget in budgets for check in judge(budget, comparison)]
    checks += by_default(budgets, comparison)
    return GateResult(
        verdict=worst(check.verdict for check in checks if not check.advisory),
        checks=checks,
        warnings=warnings_of(gate, run, baseline),
        metrics=run.metrics,
        baseline=" ".join(part for part in (baseline.created, baseline.reason) if part) if baseline else None,
    )


def exit_code(result: GateResult, advisory: bool = False) -> int:
    """0 whatever was found where the gate only advises."""
    return 0 if advisory else EXIT_CODES[result.verdict]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    return min(verdicts, key=WORST_FIRST.index, default="pass")


def expanded(budgets: Iterable[Budget], comparison: Comparison) -> list[Budget]:
    """A pattern stands for the metrics of its kind that the run or the baseline has; for itself where none is."""
    known = sorted({*comparison.run.metrics, *(comparison.baseline.metrics if comparison.baseline else ())})
    found = []
    for budget in budgets:
        names = [name for name in known if fnmatchcase(name, budget.metric)] or [budget.metric]
        found += [budget.model_copy(update={"metric": name}) for name in names]
    return found


def judge(budget: Budget, comparison: Comparison) -> Iterator[Check]:
    """A check for each limit of a budget; a single one when there is nothing to hold against it."""
    metric = comparison.run.metrics.get(budget.metric)
    if metric is None:
        yield absent(budget, comparison)
        return
    for excess, bound, limit in absolute(budget, metric):
        verdict, reason = settle(metric, excess, bound)
        yield check_of(budget, metric, limit, verdict, reason)
    if budget.max_change is not None:
        for found in comparison.judge(budget.metric, budget.max_change):
            yield check_of(budget, metric, found.limit, found.verdict, found.reason, found.before)


def by_default(budgets: list[Budget], comparison: Comparison) -> Iterator[Check]:
    """The baseline's metrics whose change no budget limits; advisory where the recipe says so of them."""
    for name in sorted(comparison.baseline.metrics if comparison.baseline else ()):
        about = [budget for budget in budgets if budget.metric == name]
        if any(budget.max_change is not None for budget in about):
            continue
        metric = comparison.run.metrics.get(name)
        advisory = any(budget.advisory for budget in about) if about else only_told(name)
        budget = Budget(metric=name, max_change=0, advisory=advisory)
        if metric is not None:
            for found in comparison.judge(name):
                yield check_of(budget, metric, found.limit, found.verdict, found.reason, found.before)
        elif not about:
            yield absent(budget, comparison)


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
        return "unstable", metric.trouble
    if not beyond(excess, limit):
        return "pass", ""
    return "regression", "not a number" if math.isnan(excess) else f"missed by {margin(excess, metric.unit)}"


def unmeasured(name: str, metrics: dict[str, Metric]) -> bool:
    """Whether it is of a model that was exported and has no latency."""
    model, _, what = name.partition("/")
    return "latency" in what and f"{model}/onnx_bytes" in metrics and f"{model}/latency_median_ms" not in metrics


def absent(budget: Budget, comparison: Comparison) -> Check:
    """A budget on a number that this run does not have never passes, nor does a number that was lost."""
    before, metrics = comparison.before(budget.metric), comparison.run.metrics
    if before:
        reason = "vanished: the baseline has it, this run does not"
    elif budget.metric.replace("_p95_", "_median_") in metrics:
        reason = "too few samples for a 95th percentile; raise profile.seconds"
    elif unmeasured(budget.metric, metrics):
        reason = "not measured since it was exported: kdedge profile"
    else:
        reason = f"this run has no metric of that name; {nearest(budget.metric, metrics)}"
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


def warnings_of(gate: Gate, run: Snapshot, baseline: Baseline | None) -> list[str]:
    found = []
    if not gate.budgets and baseline is None:
        found.append("the recipe's gate section has no budgets, so nothing was checked")
    for gain in (run.metrics[name].value for name in GAINS if name in run.metrics):
        if gain < 0:
            points = margin(-gain, "fraction")
            found.append(f"the student is {points} below the whole network trained on the labels alone")
    if baseline is None:
        return found
    if new := sorted(run.metrics.keys() - baseline.metrics.keys()):
        found.append(f"not in the baseline yet: {', '.join(new)}")
    return found + remarks(baseline.fingerprint, run.fingerprint)
