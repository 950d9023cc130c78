"""What the agent does to measure energy where trtexec stands in for TensorRT's Python package.

trtexec says when its first query begins; what counts is the power over a stretch of time well within the run, and how
many queries a second the run had.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kdedge.core.errors import KdedgeError
from kdedge.profile.energy import IDLE_SECONDS, Run, Trace, record
from kdedge.profile.energy import energy as energy_of
from kdedge.profile.telemetry import RATE, power_source
from kdedge.profile.timing import held
from kdedge.profile.trtexec_timing import opened, run

if TYPE_CHECKING:
    from kdedge.profile.telemetry import PowerSource
    from kdedge.profile.trtexec_backend import TrtexecSession

MARGIN = 1.0
"""Seconds at the beginning and the end of a run that are left out."""
LONGER = 1.0
"""Seconds beyond those that are asked for, so that samples cover these from end to end."""


def energy(request: dict[str, Any]) -> dict[str, Any]:
    """Idle for a while, then run trtexec several times."""
    seconds = request["seconds"]
    with closing(power_source()) as source, held(request):
        session, reply = opened(request)
        resting = record(source, lambda: time.sleep(IDLE_SECONDS + 1 / RATE))
        runs = [powered(session, reply["shapes"], source, request) for _ in range(request["repeats"])]
        found = energy_of(resting, runs, f"{source.name}; {source.scope}", seconds)
    return {"energy": asdict(found)}


def powered(
    session: TrtexecSession, shapes: dict[str, tuple[int, ...]], source: PowerSource, request: dict[str, Any]
) -> Run:
    """Raises KdedgeError where trtexec does not say when it begins."""
    warmup, counted = request["warmup_cap"], request["seconds"] + LONGER
    load = {"seconds": math.ceil(counted + 2 * MARGIN), "warmup_ms": math.ceil(1000 * warmup)}
    began: list[float] = []
    done: list[Any] = []
    power = record(source, lambda: done.append(run(session, shapes, lambda: began.append(time.perf_counter()), **load)))
    if not began:
        raise KdedgeError("energy per inference", "trtexec does not say when its first query begins")
    _, times = done[0]
    return within(power, began[0] + warmup + MARGIN, counted, times.queries_per_second)


def within(power: Trace, start: float, seconds: float, rate: float) -> Run:
    """The part of a run from `start` on, at `rate` inferences a second."""
    inside = (power.seconds >= start) & (power.seconds <= start + seconds)
    trace = Trace(power.seconds[inside], power.milliwatts[inside], power.rails)
    return Run(trace, seconds, round(rate * seconds))
