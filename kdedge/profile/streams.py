"""What the agent does to time a model in several streams at once: a session and a thread for each.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING, Any, NamedTuple

from kdedge.core.errors import ModelError
from kdedge.engine.base import backend
from kdedge.profile.building import device
from kdedge.profile.meter import measure, warm_up
from kdedge.profile.throttle import evidence, state
from kdedge.profile.timing import MILLISECOND, held, inputs

if TYPE_CHECKING:
    from kdedge.engine.base import Session
    from kdedge.profile.meter import Samples


class Stream(NamedTuple):
    """What one of them measured; when it began and ended is on a clock that all share, in nanoseconds."""

    samples: Samples
    began: int
    ended: int
    settled: bool
    provider: str


def streams(request: dict[str, Any]) -> dict[str, Any]:
    """All begin to measure together, when each has warmed up beside the others."""
    with held(request):
        settings = backend(request["backend"]).settings(request.get("options", {}))
        reply, before = device(request), state()
        found = together(request, settings)
        after = state()
    wall = max(stream.ended for stream in found) - min(stream.began for stream in found)
    reply.update(
        latency_ms=[(stream.samples / MILLISECOND).tolist() for stream in found],
        wall_ms=wall / MILLISECOND,
        settled=all(stream.settled for stream in found),
        provider=found[0].provider,
        options=settings,
        throttled=[evident.text for evident in evidence([before, after])],
    )
    return reply


def together(request: dict[str, Any], settings: dict[str, Any]) -> list[Stream]:
    """Raises what the first of them raised, when all have ended."""
    count = request["streams"]
    ready = Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(one, request, settings, ready) for _ in range(count)]
    raised = [future.exception() for future in futures]
    for error in raised:
        if error is not None and not isinstance(error, BrokenBarrierError):
            raise error
    return [future.result() for future in futures]


def one(request: dict[str, Any], settings: dict[str, Any], ready: Barrier) -> Stream:
    """A session belongs to the thread that opens it."""
    try:
        with backend(request["backend"]).open(Path(request["model"]), settings) as session:
            check_batches(session, request["batches"])
            _, feeds = inputs(session, request)
            warm = warm_up(lambda: session.run(feeds), request["warmup_cap"])
            ready.wait()
            began = time.perf_counter_ns()
            samples = measure(lambda: session.run(feeds), request["seconds"], warm.median_ns)
            return Stream(samples, began, time.perf_counter_ns(), warm.settled, session.provider)
    except BaseException:
        ready.abort()  # the others would wait for it
        raise


def check_batches(session: Session, batches: Sequence[int]) -> None:
    """Raises ModelError for the batches that the model does not take, with the range that it does."""
    fixed = session.inputs[0].shape[0] if session.inputs and session.inputs[0].shape else None
    least, most = (fixed, fixed) if fixed else (session.min_batch, session.max_batch)
    refused = [batch for batch in batches if batch < least or (most is not None and batch > most)]
    if not refused:
        return
    takes = f"{least} only" if least == most else f"{least} to {most}" if most else f"{least} or more"
    left = [batch for batch in batches if batch not in refused] or [least]
    raise ModelError(
        "batch {} for {}".format(", ".join(map(str, refused)), session.model),
        f"it takes {takes}",
        "--batches {}   (others: export it with a dynamic or a larger batch)".format(",".join(map(str, left))),
    )
