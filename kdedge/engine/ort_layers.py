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


def read_profile(text: str) -> list[LayerTimes]:
    """Of the file that a session wrote: its nodes, with those inside an If or Loop, in the order they first ran."""
    queries: list[dict[str, float]] = []
    kinds: dict[str, str] = {}
    running: dict[str, float] = {}
    for event in json.loads(text):
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            name = event["name"][: -len(KERNEL)]
            kinds.setdefault(name, str(event.get("args", {}).get("op_name", "")))
            running[name] = running.get(name, 0.0) + event["dur"] / MICROSECONDS
        elif event["name"] == QUERY:  # comes after its nodes
            queries.append(running)
            running = {}
    return by_layer(queries, {name: LayerTimes(name, kind, (), []) for name, kind in kinds.items()})
