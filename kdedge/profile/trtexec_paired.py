"""What the agent does to hold one TensorRT engine against another where trtexec stands in for the Python package.

Each of trtexec's runs is a process of its own, so that it is whole runs that take turns.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import statistics
from typing import Any

from kdedge.core.errors import KdedgeError
from kdedge.profile.paired import base_of
from kdedge.profile.timing import held
from kdedge.profile.trtexec_backend import stands_in
from kdedge.profile.trtexec_timing import timed


def paired(request: dict[str, Any]) -> dict[str, Any]:
    """The ratio of the new engine's time to the base's in four runs, by the sums of their medians.

    `new_first` in the request has the four the other way round.

    Raises:
        KdedgeError: one of the two is not run by trtexec.
    """
    if other := [name for name in (request["backend"], request["base_backend"]) if not stands_in(name)]:
        raise KdedgeError(
            f"backend {other[0]} beside TensorRT",
            "trtexec, all that there is of TensorRT here, cannot take turns with another library",
            "kdedge export --trt for both, or install tensorrt and pycuda there",
        )
    models = {"base": base_of(request), "new": request}
    first, second = ("new", "base") if request.get("new_first") else ("base", "new")
    with held(request):
        replies = [(name, timed(models[name])) for name in (first, second, second, first)]
    medians: dict[str, list[float]] = {name: [] for name in models}
    for name, reply in replies:
        medians[name].append(statistics.median(reply["sample"]["latency_ms"]))
    return {
        "device": replies[0][1]["device"],
        "ratio": sum(medians["new"]) / sum(medians["base"]),
        "base_ms": statistics.mean(medians["base"]),
        "new_ms": statistics.mean(medians["new"]),
        "rounds": 1,
        "settled": all(reply["sample"]["settled"] for _, reply in replies),
        "throttled": [text for _, reply in replies for text in reply["throttled"]],
    }
