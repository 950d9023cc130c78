"""Energy of one inference, from power samples while many of them run.

Net energy is (mean power of the run - mean power while idle) x time / inferences, gross energy without the idle part.
Both are given, for neither alone is right: a board that is on anyway pays the net, one that waits pays the gross.
Sampled power cannot tell one layer or one inference from the next; so runs are long, and a run is the smallest unit.
Part of the device closure: Python 3.8, standard library, numpy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdedge.core.errors import Unstable
from kdedge.profile.tegrastats import total_power
from kdedge.profile.telemetry import RATE, PowerSource, Sampler

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.float64]]

RUN_SECONDS, IDLE_SECONDS = 30.0, 10.0
"""The least that a mean is taken over."""
LEAST_SAMPLES = 30
LARGEST_GAP = 2.0
"""Seconds without a sample, after which nobody knows what the power was."""
DRIFT = 0.05


@dataclass(frozen=True)
class Trace:
    """Power over time: `seconds` and `milliwatts` of the samples, and the names of the rails they are made of."""

    seconds: Array
    milliwatts: Array
    rails: tuple[str, ...]

    @property
    def duration(self) -> float:
        return float(self.seconds[-1] - self.seconds[0]) if len(self.seconds) else 0.0

    def mean(self) -> float:
        """mW, each sample weighed by the time it stands for."""
        areas = (self.milliwatts[1:] + self.milliwatts[:-1]) / 2 * np.diff(self.seconds)
        return float(areas.sum()) / self.duration

    def drift(self) -> float:
        """Mean of the last third relative to that of the first."""
        third = len(self.milliwatts) // 3
        return float(self.milliwatts[-third:].mean() / self.milliwatts[:third].mean() - 1)


@dataclass(frozen=True)
class Run:
    trace: Trace
    seconds: float
    """Of the inferences alone, by the same clock as the trace."""
    inferences: int


@dataclass(frozen=True)
class Spread:
    """Of the repeats."""

    mean: float
    std: float | None
    """None with one repeat."""
    lowest: float
    highest: float
    values: tuple[float, ...] = ()
    """In order."""


@dataclass(frozen=True)
class Energy:
    net_mj: Spread
    """Millijoules per inference, idle power subtracted."""
    gross_mj: Spread
    power_mw: Spread
    idle_mw: float
    repeats: int
    inferences: int
    """Of all repeats."""
    samples: int
    rate_hz: float
    source: str
    """What was read, and which rails make the total."""
    notes: tuple[str, ...]


def record(source: PowerSource, block: Callable[[], object], rate: float = RATE) -> Trace:
    """The power while `block` runs.

    Raises:
        KdedgeError: the source failed.
    """
    source.read()  # so that a mean since the last read begins here
    with Sampler(source.read, 1 / rate) as sampler:
        block()
    return trace(sampler.times, sampler.values)


def trace(seconds: Sequence[float], rails: Sequence[dict[str, float]]) -> Trace:
    """Samples of rails as a trace of their total; samples that lack a rail that others have are left out."""
    totals = [total_power(sample.items()) for sample in rails]
    names = max((found.rails for found in totals if found), key=len, default=())
    kept = [(seconds[i], found.milliwatts) for i, found in enumerate(totals) if found and found.rails == names]
    times, milliwatts = np.array(kept, dtype=np.float64).reshape(-1, 2).T
    return Trace(times, milliwatts, names)


def run_for(
    query: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[int, float]:
    """Query again and again for `seconds`; how often it was done, and the seconds it took."""
    begin = clock()
    count, now = 0, begin
    while now - begin < seconds:
        query()
        count, now = count + 1, clock()
    return count, now - begin


def measure(
    query: Callable[[], object],
    source: PowerSource,
    repeats: int = 3,
    seconds: float = RUN_SECONDS,
    idle: Callable[[float], object] = time.sleep,
) -> Energy:
    """Idle for a while, then query for `seconds`, several times.  Takes repeats x seconds and a little more.

    Raises:
        Unstable: too short, or too few samples.
    """
    resting = record(source, lambda: idle(IDLE_SECONDS + 1 / RATE))
    runs = []
    for _ in range(repeats):
        done: list[tuple[int, float]] = []
        power = record(source, lambda: done.append(run_for(query, seconds)))  # noqa: B023
        runs.append(Run(power, done[0][1], done[0][0]))
    return energy(resting, runs, f"{source.name}; {source.scope}", seconds)


def energy(idle: Trace, runs: Sequence[Run], source: str, least: float = RUN_SECONDS) -> Energy:
    """Energy per inference from one idle trace and the runs.

    Raises:
        Unstable: no run, one shorter than `least` seconds, too few samples, gaps between them, or no inference.
    """
    _check("idle power", idle, IDLE_SECONDS)
    if not runs:
        raise Unstable("energy per inference", "there is no run")
    for run in runs:
        _check("power of the run", run.trace, least)
        if run.inferences < 1 or run.seconds < least:
            raise Unstable("energy per inference", f"{run.inferences} inferences in {run.seconds:.1f} s")
        if run.trace.rails != idle.rails:
            raise Unstable("energy per inference", "idle and run were read from other rails")
    idle_mw, powers = idle.mean(), np.array([run.trace.mean() for run in runs])
    seconds = np.array([run.seconds / run.inferences for run in runs])
    traces = [run.trace for run in runs]
    samples = sum(len(trace.seconds) for trace in traces)
    return Energy(
        net_mj=_spread((powers - idle_mw) * seconds),
        gross_mj=_spread(powers * seconds),
        power_mw=_spread(powers),
        idle_mw=idle_mw,
        repeats=len(runs),
        inferences=sum(run.inferences for run in runs),
        samples=samples,
        rate_hz=(samples - len(runs)) / sum(trace.duration for trace in traces),
        source=f"{_total_of(idle.rails)} by {source}",
        notes=tuple(_notes(idle_mw, powers, traces)),
    )


def _check(what: str, power: Trace, least: float) -> None:
    """A trace begins and ends up to one sample inside of what it was taken of."""
    longer = "profile it for longer"
    if not power.rails:
        raise Unstable(what, "no rail was read: some images show them to root only")
    if len(power.seconds) < LEAST_SAMPLES:
        raise Unstable(what, f"{len(power.seconds)} samples are too few, {LEAST_SAMPLES} are the least", longer)
    if not (np.isfinite(power.milliwatts).all() and (np.diff(power.seconds) >= 0).all()):
        raise Unstable(what, "a sample is not a number, or out of order")
    gap = float(np.diff(power.seconds).max())
    if gap > LARGEST_GAP:
        raise Unstable(what, f"there was no sample for {gap:.1f} s")
    if power.duration + gap < least:
        raise Unstable(what, f"{power.duration:.1f} s are too short, {least:g} s are the least", longer)


def _spread(values: Array) -> Spread:
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return Spread(float(values.mean()), std, float(values.min()), float(values.max()), tuple(values.tolist()))


def _total_of(rails: tuple[str, ...]) -> str:
    if len(rails) == 1:
        return f"rail {rails[0]}"
    return "the sum of {}, as there is no rail for all".format(", ".join(rails))


def _notes(idle_mw: float, powers: Array, traces: list[Trace]) -> list[str]:
    notes = []
    if powers.min() <= idle_mw:
        notes.append(f"idle power ({idle_mw:.0f} mW) is not below that of the run: the net energy means nothing")
    drift = max((trace.drift() for trace in traces), key=abs)
    if abs(drift) > DRIFT:
        notes.append(f"power changed by {drift:+.0%} within a run: not stationary")
    if len(powers) == 1:
        notes.append("one repeat: the spread is not known")
    return notes
