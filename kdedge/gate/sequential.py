"""Whether one model is slower than another, from the ratios of their times in fresh processes, asked after ever more.

A group-sequential test of log ratios: each look may spend a part of the error, and the parts add up to all of it, so
that by Bonferroni's inequality looking early raises no false alarms, whatever the looks have in common.  A look takes
the trimmed mean and Student's t of Tukey and McLaughlin, Sankhya A 25 (1963) 331, which an outlier does not move.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

LOOKS = (5, 7, 10, 14, 18)
"""Numbers of processes after which is looked."""
SLOWER = (0.0005, 0.001, 0.001, 0.001, 0.0015)
"""What each look spends of the 0.5 % chance that a model is called slower than its equal."""
NO_SLOWER = (0.01, 0.01, 0.01, 0.01, 0.01)
"""And of the 5 % chance that one passes that is slower by the limit."""
TRIM = 7
"""One ratio in so many is left out at each end."""
INTERVAL = 0.025
"""Of the interval that is told, at each end."""

Outcome = Literal["regression", "pass", "unstable", "insufficient"]


class Estimate(NamedTuple):
    """Of the mean log ratio."""

    mean: float
    error: float
    freedom: int

    def bound(self, tail: float) -> float:
        """How far from the mean the true value is at most, but for a chance of `tail`."""
        return self.error * student_quantile(tail, self.freedom)


class Finding(NamedTuple):
    outcome: Outcome
    ratio: float | None
    """None without a process."""
    interval: tuple[float, float] | None
    """95 % of the ratio, as if there had been one look only; None below two processes."""


def judge(ratios: Sequence[float], limit: float, last: bool = False) -> Finding | None:
    """What the ratios (new to base, one a process) say so far; None: measure on.

    Slower than the limit and significantly slower at all: regression.  Significantly less slow than the limit: pass.
    When no more can be measured, the looks that were not taken are taken as one; what is then still open passes where
    twice the limit is excluded, and is unstable otherwise.

    Args:
        limit: a relative slow-down, such as 0.03, that a model is allowed to have.
        last: no more can be measured.
    """
    count = len(ratios)
    last = last or count >= LOOKS[-1]
    if count < LOOKS[0]:
        return Finding("insufficient", *told(ratios)) if last else None
    if count not in LOOKS and not last:
        return None
    left = [number for number, look in enumerate(LOOKS) if (look >= count if last else look == count)] or [-1]
    estimate, allowed = trimmed(ratios), math.log1p(limit)
    slower = estimate.mean > allowed and estimate.mean > estimate.bound(sum(SLOWER[number] for number in left))
    if slower:
        return Finding("regression", *told(ratios))
    if estimate.mean + estimate.bound(sum(NO_SLOWER[number] for number in left)) < allowed:
        return Finding("pass", *told(ratios))
    if not last:
        return None
    excluded = estimate.mean + estimate.bound(2 * INTERVAL) < math.log1p(2 * limit)
    return Finding("pass" if excluded else "unstable", *told(ratios))


def told(ratios: Sequence[float]) -> tuple[float | None, tuple[float, float] | None]:
    """The ratio and its interval."""
    if len(ratios) < 2:
        return (ratios[0] if ratios else None), None
    estimate = trimmed(ratios)
    reach = estimate.bound(INTERVAL)
    return math.exp(estimate.mean), (math.exp(estimate.mean - reach), math.exp(estimate.mean + reach))


def trimmed(ratios: Sequence[float]) -> Estimate:
    """Trimmed mean of the logs, and its standard error by the winsorized squares; two ratios or more."""
    logs = sorted(math.log(ratio) for ratio in ratios)
    cut = len(logs) // TRIM
    kept = logs[cut : len(logs) - cut]
    whole = [kept[0]] * cut + kept + [kept[-1]] * cut
    center = math.fsum(whole) / len(whole)
    squares = math.fsum((value - center) ** 2 for value in whole)
    count = len(kept)
    return Estimate(math.fsum(kept) / count, math.sqrt(squares / (count * (count - 1))), count - 1)


def student_tail(t: float, freedom: int) -> float:
    """The chance that Student's t exceeds `t`, by the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 - within) / 2


def student_quantile(tail: float, freedom: int) -> float:
    """The t that is exceeded with the chance `tail`, which is below a half."""
    low, high = 0.0, 1.0
    while student_tail(high, freedom) > tail:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, freedom) > tail else (low, middle)
    return high
