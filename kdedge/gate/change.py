"""A metric against its baseline, by what kind it is: known exactly, measured, or an accuracy.

What is measured is worse where it is so by more than the limit and by more than chance; top-1 as well, where it is
known of which images; all else where it is so by more than the limit.
"""

from collections.abc import Iterator
from typing import NamedTuple

from kdedge.core.console import quantity
from kdedge.core.correctness import Correctness
from kdedge.core.gating import Accepted, Baseline, Snapshot
from kdedge.core.report import Metric, Verdict
from kdedge.core.significance import rank_sum_test, sign_test
from kdedge.gate.baseline import differences, machine_digest
from kdedge.gate.limits import (
    LEAST_PROCESSES,
    SIGNIFICANT,
    WORSE,
    Limit,
    default_limit,
    is_average_precision,
    is_measured,
    unpaired_limit,
)

ROUNDING = 1e-9  # relative; a value that is at its limit on paper is within it


class Judged(NamedTuple):
    verdict: Verdict
    reason: str
    limit: str
    """As a person reads it."""
    before: float | None


class Comparison:
    """A run beside the baseline."""

    def __init__(self, run: Snapshot, baseline: Baseline | None, look_back: int = 0) -> None:
        """Args:
        look_back: earlier baselines among which the start of a slow change is looked for.
        """
        self.run, self.baseline, self.look_back = run, baseline, look_back
        self.differing = differences(baseline.fingerprint, run.fingerprint) if baseline else []
        """What of the machine or the way of measuring is not as it was for the baseline."""

    def before(self, name: str) -> Metric | None:
        return self.baseline.metrics.get(name) if self.baseline else None

    def judge(self, name: str, max_change: float | None = None) -> Iterator[Judged]:
        """Against the baseline; where that passes and the metric crept, against the oldest one it crept from.

        Args:
            max_change: instead of the default limit's relative part.
        """
        metric, before = self.run.metrics[name], self.before(name)
        limit = default_limit(name, metric.unit)
        if max_change is not None:
            limit = limit._replace(relative=max_change)
        elif metric.unit == "fraction":
            limit = Limit(WORSE) if self.answers(name) else unpaired_limit(name)
        told = limit_text(metric, limit, before.value if before else None)
        verdict, reason = self.against_baseline(name, metric, before, limit)
        yield Judged(verdict, reason, told, before.value if before else None)
        if verdict == "pass" and self.baseline:
            if metric.unit == "fraction" and max_change is None:
                limit = unpaired_limit(name)
            yield from self.creep(name, metric, limit)

    def against_baseline(self, name: str, metric: Metric, before: Metric | None, limit: Limit) -> tuple[Verdict, str]:
        if self.baseline is None:
            return "insufficient", "no baseline at hand"
        if before is None:
            return "insufficient", "the baseline does not have it"
        worse = exceeded(metric, before.value, limit)
        told = change(metric.value, before.value, metric.unit)
        if is_measured(name):
            return self.measured(metric, before, worse, told)
        if answers := self.answers(name):
            return paired(*answers, worse, told)
        if metric.unit == "fraction" and not is_average_precision(name):
            told += "; not known by image"
        return "regression" if worse else "pass", told

    def measured(self, metric: Metric, before: Metric, worse: bool, told: str) -> tuple[Verdict, str]:
        """Only what was measured asks for the same machine."""
        if self.differing:
            return "incomparable", "; ".join(self.differing)
        if not metric.stable:
            return "unstable", metric.trouble
        if not before.stable:
            return "unstable", "the baseline's own measurement did not settle; update the baseline"
        return significant(metric, before.samples, worse, told)

    def answers(self, name: str) -> tuple[Correctness, Correctness] | None:
        """Of the run and of the baseline, where both are known and of the same images."""
        now = self.run.answers.get(name)
        before = self.baseline.answers.get(name) if self.baseline else None
        return (now, before) if now and before and now.since(before) else None

    def creep(self, name: str, metric: Metric, limit: Limit) -> Iterator[Judged]:
        origin = self.origin(name)
        if origin is None or not exceeded(metric, origin.values[name], limit):
            return
        value = origin.values[name]
        verdict: Verdict = "regression"
        told = f"{change(metric.value, value, metric.unit)} since {origin.created}, in steps that each were allowed"
        if is_measured(name):
            verdict, told = significant(metric, origin.samples.get(name, []), True, told)
        if verdict == "regression":
            yield Judged(verdict, told, limit_text(metric, limit, value, origin.created), value)

    def origin(self, name: str) -> Accepted | None:
        """The oldest earlier baseline from which the metric came to be what it is without a step that was accepted."""
        newer: Baseline | Accepted | None = self.baseline
        if self.baseline is None or newer is None or not self.look_back:
            return None
        machine, found = machine_digest(self.run.fingerprint), None
        for entry in reversed(self.baseline.history[-self.look_back :]):
            elsewhere = is_measured(name) and entry.machine != machine
            if name in newer.accepts or name not in entry.values or elsewhere:
                break
            newer = found = entry
        return found


def significant(metric: Metric, before: list[float], worse: bool, told: str) -> tuple[Verdict, str]:
    """The process is the unit, since queries of one process have much in common."""
    counts = len(metric.samples), len(before)
    if min(counts) < LEAST_PROCESSES:
        few = f"{counts[0]} against {counts[1]} processes, {LEAST_PROCESSES} against {LEAST_PROCESSES} are the least"
        return "insufficient", f"{told}; {few}"
    chance = rank_sum_test(metric.samples, before)
    sure = chance < SIGNIFICANT
    return "regression" if worse and sure else "pass", f"{'' if sure else '~ '}{told}, p = {chance:.2g}"


def paired(now: Correctness, before: Correctness, worse: bool, told: str) -> tuple[Verdict, str]:
    """By McNemar's exact test: only the images count on which one of the two is right."""
    changed = now.since(before)
    lost, won = changed or (0, 0)
    chance = sign_test(lost, won)
    verdict: Verdict = "regression" if worse and chance < SIGNIFICANT else "pass"
    return verdict, f"{told}: {lost} images lost, {won} won, p = {chance:.2g}"


def exceeded(metric: Metric, before: float, limit: Limit) -> bool:
    """Whether it is worse than `before` by more than is allowed; so is what is no number."""
    worse_by = before - metric.value if metric.better == "higher" else metric.value - before
    return beyond(worse_by - limit.room(before, metric.unit), before)


def beyond(excess: float, scale: float) -> bool:
    return not excess <= ROUNDING * max(1.0, abs(scale))


def limit_text(metric: Metric, limit: Limit, before: float | None, since: str = "baseline") -> str:
    bound, sign = ("<=", "+") if metric.better == "lower" else (">=", "-")
    if metric.unit != "fraction" and before is not None and limit.absolute > limit.relative * abs(before):
        return f"{bound} {since} {sign} {quantity(limit.absolute, metric.unit)}"
    if not limit.relative:
        return f"{bound} {since}"
    allowed = points(f"{100 * limit.relative:.3g}") if metric.unit == "fraction" else f"{100 * limit.relative:.3g} %"
    return f"{bound} {since} {sign} {allowed}"


def change(value: float, before: float, unit: str) -> str:
    """From the baseline to now, signed."""
    if unit == "fraction":
        return f"{100 * (value - before):+.2f} points"
    return f"{100 * (value / before - 1):+.1f} %" if before else f"from {quantity(before, unit)}"


def margin(value: float, unit: str) -> str:
    """A difference of two values; accuracies differ by points."""
    return points(f"{100 * value:.2g}") if unit == "fraction" else quantity(value, unit)


def points(number: str) -> str:
    return f"{number} point{'' if number == '1' else 's'}"
