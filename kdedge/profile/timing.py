"""What the agent does to time a model, and to measure its energy, in a process that does nothing else.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdedge.engine.base import backend
from kdedge.engine.feeds import input_shapes, random_feeds
from kdedge.profile.building import device
from kdedge.profile.clocks import controlled
from kdedge.profile.energy import measure as measure_energy
from kdedge.profile.memory import available, proportional, reset_peak, resident
from kdedge.profile.meter import LEAST_QUERIES, measure, warm_up
from kdedge.profile.telemetry import power_source
from kdedge.profile.throttle import evidence, state

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays, Session

MILLISECOND = 1_000_000


def latency(request: dict[str, Any]) -> dict[str, Any]:
    if request.get("energy"):  # which is measured next: better refused before minutes are spent than after
        power_source().close()
    with held(request):
        return timed(request)


def timed(request: dict[str, Any]) -> dict[str, Any]:
    """Open the model, feed it random inputs and time it; memory is that of this process alone."""
    engine, path = backend(request["backend"]), Path(request["model"])
    settings = engine.settings(request.get("options", {}))
    reply = device(request)  # also imports the library, so that its size is in the baseline
    memory = MemoryWatch()
    begin = time.perf_counter_ns()
    with engine.open(path, settings) as session:
        opened, before = time.perf_counter_ns(), state()
        shapes, feeds = inputs(session, request)
        ready = time.perf_counter_ns()
        session.run(feeds)
        first = time.perf_counter_ns() - ready
        warm = warm_up(lambda: session.run(feeds), request["warmup_cap"])
        samples = measure(lambda: session.run(feeds), request["seconds"], warm.median_ns)
        memory_used = memory.read(session)
        on_device = device_times(session, request["seconds"])
        after = state()
        reply.update(
            shapes=shapes, provider=session.provider, precision_built=session.precision_built(), options=settings
        )
    reply["memory_method"] = memory.method
    reply["sample"] = {
        "latency_ms": (samples / MILLISECOND).tolist(),
        "device_ms": on_device,
        "open_ms": (opened - begin) / MILLISECOND,
        "first_ms": first / MILLISECOND,
        "warmup_queries": warm.queries,
        "warmup_ms": warm.elapsed_ns / MILLISECOND,
        "settled": warm.settled,
        **memory_used,
    }
    reply["throttled"] = [found.text for found in evidence([before, after])]
    return reply


def device_times(session: Session, seconds: float) -> list[float]:
    """Of computing alone, for `seconds` and at least 5 queries; empty where the device has no clock to be read."""
    found: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(found) < LEAST_QUERIES:
        taken = session.device_ms()
        if taken is None:
            break
        found.append(taken)
    return found


class MemoryWatch:
    """How much memory is used, against when this was made."""

    def __init__(self) -> None:
        self._baseline, self._pss, self._available = resident("VmRSS"), proportional(), available()
        since = "reset before the model was opened" if reset_peak() else "since the process began"
        self.method = f"VmHWM of /proc/self/status, {since}"

    def read(self, session: Session) -> dict[str, Any]:
        """As a sample's fields, with what the session holds on its device."""
        return {
            "baseline_bytes": self._baseline,
            "peak_bytes": resident("VmHWM"),
            "pss_bytes": _difference(proportional(), self._pss),
            "system_bytes": _difference(self._available, available()),
            "device_bytes": dict(session.device_memory),
        }


def _difference(more: int | None, less: int | None) -> int | None:
    return None if more is None or less is None else more - less


def held(request: dict[str, Any]) -> AbstractContextManager[None]:
    """Clocks and power mode as the request wants them, put back at the end."""
    return controlled(request.get("lock_clocks", False), request.get("power_mode"))


def inputs(session: Session, request: dict[str, Any]) -> tuple[dict[str, tuple[int, ...]], Arrays]:
    """Shapes as asked for, and random arrays of them."""
    asked = {name: tuple(shape) for name, shape in request.get("shapes", {}).items()}
    shapes = input_shapes(session.model, session.inputs, asked, request.get("batch", 1))
    return shapes, random_feeds(session.model, session.inputs, shapes, request.get("seed", 0))


def energy(request: dict[str, Any]) -> dict[str, Any]:
    """Open the model, and take power samples while it runs over and over."""
    engine = backend(request["backend"])
    settings = engine.settings(request.get("options", {}))
    with closing(power_source()) as source, held(request), engine.open(Path(request["model"]), settings) as session:
        _, feeds = inputs(session, request)
        warm_up(lambda: session.run(feeds), request["warmup_cap"])
        found = measure_energy(lambda: session.run(feeds), source, request["repeats"], request["seconds"])
    return {"energy": asdict(found)}
