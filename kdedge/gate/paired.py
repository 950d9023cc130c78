"""The rules of a gate against another model at hand: time by paired processes, the rest by what is known of both."""

from collections.abc import Iterable
from typing import NamedTuple

from kdedge.core.console import quantity
from kdedge.core.paired import PairedTimes
from kdedge.core.quality import MEASURES, BoxQuality
from kdedge.core.report import Check, GateResult, Metric
from kdedge.core.significance import sign_test
from kdedge.gate.change import beyond, change, margin
from kdedge.gate.limits import LARGER, SIGNIFICANT, SLOWER, SLOWER_MS, WORSE, WORSE_BOXES
from kdedge.gate.rules import worst
from kdedge.gate.sequential import LOOKS


class Answered(NamedTuple):
    """Two models' answers to the same test images."""

    images: int
    base_right: int
    new_right: int
    lost: int
    """Images that the base had right and the new model has wrong."""
    won: int


def slow_down_allowed(base_ms: float) -> float:
    """As a fraction of the base's time."""
    return max(SLOWER, SLOWER_MS / base_ms)


def latency_check(times: PairedTimes) -> Check:
    allowed = f"{100 * SLOWER:g} %" if times.limit <= SLOWER else quantity(SLOWER_MS, "ms")
    return Check(
        metric=f"{times.name}/latency_median_ms",
        value=times.new_ms,
        unit="ms",
        limit=f"<= base + {allowed}",
        baseline=times.base_ms,
        verdict=times.outcome,
        reason=told(times),
    )


def told(times: PairedTimes) -> str:
    """By how much, how sure, and from how many processes."""
    count = len(times.ratios)
    parts = [f"{count} process{'' if count == 1 else 'es'}, {times.seconds:.0f} s"]
    if times.ratio is not None:
        low, high = times.interval or (None, None)
        between = f" (95 %: {100 * (low - 1):+.1f} to {100 * (high - 1):+.1f})" if low and high else ""
        parts.insert(0, f"{100 * (times.ratio - 1):+.1f} %{between}")
    return "; ".join([", ".join(parts), *dict.fromkeys(times.throttled)])


def size_checks(new: dict[str, Metric], base: dict[str, Metric]) -> list[Check]:
    """Of what is known of both; what only the base has vanished."""
    return [size_check(name, new[name], before) for name, before in sorted(base.items()) if name in new]


def size_check(name: str, metric: Metric, before: Metric) -> Check:
    allowed = LARGER[metric.unit]
    return Check(
        metric=name,
        value=metric.value,
        unit=metric.unit,
        limit=f"<= base + {100 * allowed:g} %" if allowed else "<= base",
        baseline=before.value,
        verdict="regression" if metric.value > before.value * (1 + allowed) else "pass",
        reason=change(metric.value, before.value, metric.unit),
    )


def accuracy_check(precision: str, answered: Answered) -> Check:
    """By McNemar's exact test: only the images count on which one of the two is right."""
    gained = (answered.won - answered.lost) / answered.images
    chance = sign_test(answered.lost, answered.won)
    regression = gained < -WORSE and chance < SIGNIFICANT
    return Check(
        metric=f"{precision}/top1",
        value=answered.new_right / answered.images,
        unit="fraction",
        limit=f">= base - {margin(WORSE, 'fraction')}",
        baseline=answered.base_right / answered.images,
        verdict="regression" if regression else "pass",
        reason=f"{100 * gained:+.2f} points: {answered.lost} images lost, {answered.won} won, p = {chance:.2g}",
    )


def boxes_check(precision: str, new: BoxQuality, base: BoxQuality) -> Check:
    """By the limit alone, as mAP has no right or wrong by image."""
    lost = base.mean_ap - new.mean_ap
    return Check(
        metric=f"{precision}/{MEASURES['detect'].key}",
        value=new.mean_ap,
        unit="fraction",
        limit=f">= base - {margin(WORSE_BOXES, 'fraction')}",
        baseline=base.mean_ap,
        verdict="regression" if beyond(lost - WORSE_BOXES, base.mean_ap) else "pass",
        reason=change(new.mean_ap, base.mean_ap, "fraction"),
    )


def vanished(precision: str) -> Check:
    return Check(
        metric=f"{precision}/latency_median_ms",
        value=None,
        limit=f"<= base + {100 * SLOWER:g} %",
        verdict="regression",
        reason="vanished: the base has this precision, the run does not",
    )


def decide_paired(checks: Iterable[Check], warnings: list[str], against: str) -> GateResult:
    found = list(checks)
    verdict = worst(check.verdict for check in found) if found else "insufficient"
    return GateResult(verdict=verdict, checks=found, warnings=warnings, against=against)


def advice(times: Iterable[PairedTimes], seconds: float) -> list[str]:
    """What to do where it did not become clear whether the run is slower, at most one sentence.

    Args:
        seconds: that the measurements had.
    """
    open_ = [each for each in times if each.outcome == "unstable"]
    if not open_:
        return []
    hot = any(each.throttled for each in open_)
    ways = ["let the machine cool down" if hot else "stop what else runs on the machine"]
    ways.append("measure on one that does nothing else (--target ssh://user@board)")
    if any(len(each.ratios) + len(each.throttled) < LOOKS[-1] for each in open_) and not hot:
        ways.append(f"give it longer (--seconds {3 * seconds:g})")
    return [f"{', '.join(each.name for each in open_)}: too unsteady to tell; {', or '.join(ways)}"]
