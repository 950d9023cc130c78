"""ONNX Runtime's own profile: what each node took in each query.

Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import json

from kdedge.engine.base import LayerTimes, by_layer

KERNEL = "_kernel_time"
QUERY = "model_run"
MICROSECONDS = 1000.0
"""In a millisecond: what durations are given in, whole ones."""
CONTROL = ("If", "Loop", "Scan")
"""Operators that run nodes of their own, whose times are part of theirs."""


def read_profile(text: str) -> list[LayerTimes]:
    """Of the file that a session wrote: its nodes, with those inside an If or Loop, in the order they first ran.

    Such a node's time is what those inside of it leave of it.
    """
    queries: list[dict[str, float]] = []
    kinds: dict[str, str] = {}
    running: dict[str, float] = {}
    spans: list[tuple[float, float]] = []  # when it began, and how long it took, of what has ended in this query
    for event in json.loads(text):
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            name, kind = event["name"][: -len(KERNEL)], str(event.get("args", {}).get("op_name", ""))
            kinds.setdefault(name, kind)
            own = event["dur"] - (_inside(event["ts"], spans) if kind in CONTROL else 0)
            spans.append((event["ts"], event["dur"]))
            running[name] = running.get(name, 0.0) + max(own, 0) / MICROSECONDS
        elif event["name"] == QUERY:  # comes after its nodes
            queries.append(running)
            running, spans = {}, []
    return by_layer(queries, {name: LayerTimes(name, kind, (), []) for name, kind in kinds.items()})


def _inside(began: float, spans: list[tuple[float, float]]) -> float:
    """Take away the spans that began since, and return what they add up to."""
    inside = 0.0
    while spans and spans[-1][0] >= began:
        inside += spans.pop()[1]
    return inside
