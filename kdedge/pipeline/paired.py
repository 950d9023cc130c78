"""Two models measured in turns, in fresh processes until it is clear whether the new one is slower"""

import time
from statistics import median
from typing import Any

from kdedge.core.console import progress_bar
from kdedge.core.deployment import Profile
from kdedge.core.paired import PairedTimes
from kdedge.gate.paired import slow_down_allowed
from kdedge.gate.sequential import LOOKS, judge
from kdedge.profile.measure import Model, request_for
from kdedge.profile.targets import Target

WARM_UP = 0.5
"""Seconds at most for each of the two: what is not yet warm is so for both."""
MEASURED = 1.0
"""Seconds of queries in each process."""
MOST_THROTTLED = 3


def paired_request(new: Model, base: Model, spec: Profile) -> dict[str, Any]:
    """One process of the comparison."""
    spec = spec.model_copy(update={"seconds": MEASURED, "warmup_cap": WARM_UP})
    other = request_for("paired", base.path, base.backend, spec, base.shapes, base.options)
    fields = {"base": other["model"], "base_backend": other["backend"]}
    fields |= {"base_options": other["options"], "base_shapes": other["shapes"]}
    return request_for("paired", new.path, new.backend, spec, new.shapes, new.options) | fields


def measure_until_clear(name: str, request: dict[str, Any], target: Target, seconds: float) -> PairedTimes:
    """Fresh processes, each of which measures both models.

    Those that were throttled do not count; with more than 3 of them the answer is `unstable`.

    Args:
        request: of `paired_request`.
        seconds: for all processes; the first five are measured even where they take longer.
    """
    began = now = time.monotonic()
    replies: list[dict[str, Any]] = []
    times = None
    with progress_bar(f"{name} in turns until it is clear", LOOKS[-1]) as bar:
        while times is None:
            before = now
            replies.append(target.run({**request, "new_first": len(replies) % 2 == 1}))
            now = time.monotonic()
            late = len(replies) >= LOOKS[0] and 2 * now - before - began > seconds  # the next one as long as this
            times = decide(name, replies, now - began, late)
            bar.note(ratio=median(reply["ratio"] for reply in replies))
            bar.advance()
    return times


def decide(name: str, replies: list[dict[str, Any]], seconds: float, last: bool) -> PairedTimes | None:
    """What the processes so far say; None: measure on."""
    counted = [reply for reply in replies if not reply["throttled"]]
    unfit = len(replies) - len(counted) > MOST_THROTTLED
    base_ms = median(reply["base_ms"] for reply in counted or replies)
    limit = slow_down_allowed(base_ms)
    found = judge([reply["ratio"] for reply in counted], limit, last or unfit)
    if found is None:
        return None
    # Medians of each model alone may come from different processes, and clocks differ between those.
    shown = sorted(counted or replies, key=lambda reply: reply["ratio"])[len(counted or replies) // 2]
    return PairedTimes(
        name=name,
        outcome="unstable" if unfit else found.outcome,
        ratio=found.ratio,
        interval=found.interval,
        ratios=[reply["ratio"] for reply in counted],
        base_ms=shown["base_ms"],
        new_ms=shown["new_ms"],
        limit=limit,
        throttled=[text for reply in replies for text in reply["throttled"]],
        unsettled=sum(not reply["settled"] for reply in counted),
        seconds=seconds,
    )
