"""What the agent does to time a TensorRT engine where trtexec stands in for the Python package.

The times are those of one run of trtexec, copies included and one query in flight, of which the first queries are the
warm-up by the same rule as elsewhere.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdedge.core.errors import KdedgeError
from kdedge.profile.building import device
from kdedge.profile.meter import LEAST_QUERIES, WarmUp, warm_up
from kdedge.profile.streams import check_batches
from kdedge.profile.telemetry import power_source
from kdedge.profile.throttle import State, evidence, state
from kdedge.profile.timing import held, inputs
from kdedge.profile.trtexec import profile_layers, time_engine
from kdedge.profile.trtexec_backend import TrtexecBackend, TrtexecSession
from kdedge.profile.trtexec_log import WARNINGS

if TYPE_CHECKING:
    from kdedge.engine.trt_layers import Layer
    from kdedge.profile.trtexec_json import Array, Times
    from kdedge.profile.trtexec_log import Log
    from kdedge.profile.trtexec_numbers import LayerTime

MILLISECOND, MIB = 1_000_000, 1 << 20
QUERIES = 4 * LEAST_QUERIES
"""At least, however long they take: half of them may be warm-up."""


def latency(request: dict[str, Any]) -> dict[str, Any]:
    if request.get("energy"):  # which is measured next: better refused before minutes are spent than after
        power_source().close()
    with held(request):
        return timed(request)


def timed(request: dict[str, Any]) -> dict[str, Any]:
    session, reply = opened(request)
    seconds = request["seconds"] + request["warmup_cap"]
    before = state()
    log, times = run(session, reply["shapes"], seconds=math.ceil(seconds), queries=QUERIES, warmup_ms=0)
    reply["throttled"] = throttled(before)
    reply["notes"] += doubts(log)
    reply["memory_method"] = "peak resident memory of trtexec's process, its libraries included"
    reply["sample"] = sample(log, times, request)
    return reply


def streams(request: dict[str, Any]) -> dict[str, Any]:
    """Several queries in flight, each on a stream of its own; trtexec does not say which was on which."""
    with held(request):
        session, reply = opened(request)
        check_batches(session, request["batches"])
        warmup = math.ceil(1000 * request["warmup_cap"])
        load = {"seconds": math.ceil(request["seconds"]), "warmup_ms": warmup, "streams": request["streams"]}
        before = state()
        log, times = run(session, reply["shapes"], **load)
        reply["throttled"] = throttled(before)
        reply["notes"] += doubts(log)
    settled = replay(times.latency_ms, math.inf).settled
    return {**reply, "latency_ms": [times.latency_ms.tolist()], "wall_ms": times.walltime_ms, "settled": settled}


def layers(request: dict[str, Any]) -> dict[str, Any]:
    """The query as it is, then in another run the query whose layers are timed."""
    with held(request):
        session, reply = opened(request)
        warmup = math.ceil(1000 * request["warmup_cap"])
        load = {"seconds": math.ceil(request["seconds"]), "warmup_ms": warmup}
        _, plain = run(session, reply["shapes"], **load)
        timed_load = replace(session.load_of(reply["shapes"]), **load)
        _, costs, known = profile_layers(session.program, session.path, timed_load)
    by_name = {layer.name: layer for layer in known}
    return {
        **reply,
        "queries": max((round(cost.total_ms / cost.mean_ms) for cost in costs if cost.mean_ms), default=0),
        "plain_ms": float(np.median(plain.latency_ms)),
        "query_ms": sum(cost.mean_ms for cost in costs),
        "layers": [summary(cost, by_name.get(cost.name)) for cost in costs],
    }


def summary(cost: LayerTime, layer: Layer | None) -> dict[str, Any]:
    named = {"name": cost.name, "kind": layer.kind if layer else "", "nodes": list(layer.nodes) if layer else []}
    return {**named, "mean_ms": cost.mean_ms, "median_ms": cost.mean_ms if cost.median_ms is None else cost.median_ms}


def opened(request: dict[str, Any]) -> tuple[TrtexecSession, dict[str, Any]]:
    """The engine, and what every reply says of it."""
    engine = TrtexecBackend.found()
    settings = engine.settings(request.get("options", {}))
    session = engine.open(Path(request["model"]), settings)
    shapes, _ = inputs(session, request)
    facts = {"shapes": shapes, "provider": session.provider, "precision_built": session.precision_built()}
    return session, {**device(request), **facts, "options": settings, "notes": [engine.note]}


def run(
    session: TrtexecSession,
    shapes: dict[str, tuple[int, ...]],
    on_start: Callable[[], object] | None = None,
    **load: Any,
) -> tuple[Log, Times]:
    whole = replace(session.load_of(shapes), **load)
    return time_engine(session.program, session.path, whole, on_start=on_start)


def doubts(log: Log) -> list[str]:
    """What trtexec itself warns of, such as a CUDA graph that could not be made."""
    return [f"trtexec: {WARNINGS[kind][1]}" for kind in log.warnings]


def throttled(before: State) -> list[str]:
    return [found.text for found in evidence([before, state()])]


def sample(log: Log, times: Times, request: dict[str, Any]) -> dict[str, Any]:
    """Raises KdedgeError where trtexec does not say how long loading took."""
    opened = log.numbers.get("deserialized_s", log.numbers.get("loaded_s"))
    if opened is None:
        raise KdedgeError("the times of trtexec", "it does not say how long it took to load the engine")
    queries = times.latency_ms[1:]
    warm = replay(queries, request["warmup_cap"])
    rest = queries[warm.queries :]
    count = max(LEAST_QUERIES, 1 + int(np.searchsorted(rest.cumsum(), 1000 * request["seconds"])))
    kept = slice(1 + warm.queries, 1 + warm.queries + count)
    return {
        "latency_ms": times.latency_ms[kept].tolist(),
        "device_ms": times.compute_ms[kept].tolist(),
        "open_ms": 1000 * opened,
        "first_ms": float(times.latency_ms[0]),
        "warmup_queries": warm.queries,
        "warmup_ms": warm.elapsed_ns / MILLISECOND,
        "settled": warm.settled,
        "baseline_bytes": 0,
        "peak_bytes": children_peak(),
        "device_bytes": device_bytes(log),
    }


def replay(queries_ms: Array, cap: float) -> WarmUp:
    """The warm-up that these queries would have been: at most `cap` seconds, or half of them."""
    now, coming = [0], iter((queries_ms * MILLISECOND).astype(np.int64).tolist())

    def query() -> None:
        now[0] += next(coming)

    return warm_up(query, min(cap, float(queries_ms.sum()) / 2000), clock=lambda: now[0])


def device_bytes(log: Log) -> dict[str, int]:
    """What trtexec says that the engine holds on the GPU."""
    said = log.numbers
    found = {"context": MIB * said.get("context_mib", 0.0), "weights": said.get("weights_bytes", 0.0)}
    return {name: int(size) for name, size in found.items() if size}


def children_peak() -> int:
    """Bytes of resident memory of the largest program that this process ran and that ended.

    It counts this process before it became the other one, too; but one that uses CUDA is larger.
    """
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
