"""What the agent does to time a model's layers, in a process of its own because that makes every query slower.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from kdedge.engine.base import LayerTimes, backend
from kdedge.profile.building import device
from kdedge.profile.meter import LEAST_QUERIES, SECOND, measure, warm_up
from kdedge.profile.throttle import evidence, state
from kdedge.profile.timing import MILLISECOND, held, inputs

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays, Session

MOST_QUERIES = 100
COLD = 5
"""First queries of the session that times layers; the machine is warm by then."""


def layers(request: dict[str, Any]) -> dict[str, Any]:
    """The query as it is, then the query whose layers are timed."""
    engine, path = backend(request["backend"]), Path(request["model"])
    settings = engine.settings(request.get("options", {}))
    reply, before = device(request), state()
    with held(request):
        with engine.open(path, settings) as session:
            shapes, feeds = inputs(session, request)
            warm = warm_up(lambda: session.run(feeds), request["warmup_cap"])
            plain_ns = median(measure(lambda: session.run(feeds), request["seconds"], warm.median_ns).tolist())
            reply.update(shapes=shapes, provider=session.provider, options=settings)
        queries = max(LEAST_QUERIES, min(MOST_QUERIES, int(request["seconds"] * SECOND / plain_ns)))
        with engine.open_profiled(path, settings) as session:
            taken = [elapsed(session, feeds) for _ in range(COLD + queries)]
            found = session.layer_times()
    reply.update(queries=queries, plain_ms=plain_ns / MILLISECOND, query_ms=median(taken[COLD:]) / MILLISECOND)
    reply["throttled"] = [evident.text for evident in evidence([before, state()])]
    reply["layers"] = [summary(layer) for layer in found]
    return reply


def elapsed(session: Session, feeds: Arrays) -> int:
    """Nanoseconds of one query."""
    begin = time.perf_counter_ns()
    session.run(feeds)
    return time.perf_counter_ns() - begin


def summary(layer: LayerTimes) -> dict[str, Any]:
    times = layer.milliseconds[COLD:]
    named = {"name": layer.name, "kind": layer.kind, "nodes": list(layer.nodes)}
    return {**named, "mean_ms": fmean(times), "median_ms": median(times)}
