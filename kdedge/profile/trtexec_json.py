"""The files that trtexec exports: the times of every query, the times of layers, and what the layers are.

trtexec writes the first two without escaping and with six significant digits, so that stamps of a run of seconds are
good for the order of queries alone; durations have fields of their own.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdedge.core.errors import KdedgeError
from kdedge.engine.trt_layers import Layer, from_inspector
from kdedge.profile.trtexec_numbers import VALUE, LayerTime

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.float64]]

FIELDS = ("startComputeMs", "startH2dMs", "endD2hMs", "h2dMs", "computeMs", "d2hMs", "latencyMs")
LARGEST = 1e15  # of what is believed to be a number
OUTPUT_FIELDS = ("name", "dimensions", "values")
SHAPE = re.compile(r"([0-9]{1,9}(x[0-9]{1,9})*)?")
NOT_FINITE = re.compile(r"(?<=[\s,\[])-?(?:nan|inf)(?=[\s,\]])")
SPELT = {"nan": "NaN", "inf": "Infinity"}  # JSON as Python reads it; of an answer both signs are as bad
UNDEFINED = "-?(?:nan|inf)"  # a share of a total of 0
COUNT = re.compile(r'\{\s*"count"\s*:\s*[0-9]+\s*\}')
LAYER = re.compile(
    rf'\{{\s*"name"\s*:\s*"(?P<name>.*)"\s*,\s*"timeMs"\s*:\s*(?P<total>{VALUE})\s*'
    rf',\s*"averageMs"\s*:\s*(?P<mean>{VALUE})\s*(?:,\s*"medianMs"\s*:\s*(?P<median>{VALUE})\s*)?'
    rf',\s*"percentage"\s*:\s*(?:(?P<percent>{VALUE})|{UNDEFINED})\s*\}}'
)


@dataclass(frozen=True)
class Times:
    """A value for each query after the warm-up, in order and in milliseconds."""

    compute_ms: Array
    latency_ms: Array
    """Copying in, computing and copying out: a sum of spans, not a stopwatch."""
    h2d_ms: Array
    d2h_ms: Array
    start_ms: Array
    """When it began to compute, since the run began; steps of 10 us after a second, of 100 us after ten."""
    walltime_ms: float
    """From the first query's copying in to the last one's copying out."""
    warmup_queries: int
    """Left out; up to TensorRT 8.4 the file holds them."""

    @property
    def queries_per_second(self) -> float:
        return 1000 * len(self.compute_ms) / self.walltime_ms


def read_times(text: str, warmup_ms: float = 200.0) -> Times:
    """Of a file of --exportTimes.

    Raises:
        KdedgeError: it is not such a file, or holds no query after the warm-up.
    """
    what, rows = "the times that trtexec exported", array("d")

    def keep(query: dict[str, Any]) -> None:  # at once: dictionaries of a million queries would fill a board's memory
        rows.extend(_row(what, len(rows) // len(FIELDS), query))

    if re.match(r"\s*[^\s\[]", text):
        raise KdedgeError(what, "they are not a list")
    queries = _load(what, text, keep)
    if any(query is not None for query in queries) or len(rows) != len(FIELDS) * len(queries):
        raise KdedgeError(what, "they are not a list of queries")
    table = np.array(rows).reshape(-1, len(FIELDS))
    kept = table[table[:, 0] >= warmup_ms]
    if not len(kept):
        raise KdedgeError(what, f"no query began after the warm-up of {warmup_ms:g} ms")
    start, start_h2d, end_d2h, h2d, compute, d2h, latency = kept.T
    walltime = float(end_d2h[-1] - start_h2d[0])
    if walltime <= 0:
        raise KdedgeError(what, "the last query ended before the first began")
    return Times(compute, latency, h2d, d2h, start, walltime, len(table) - len(kept))


def read_outputs(text: str) -> dict[str, Array]:
    """Of a file of --exportOutput: an array for each output.

    Raises:
        KdedgeError: it is not such a file.
    """
    what = "the outputs that trtexec exported"
    content = _load(what, NOT_FINITE.sub(lambda found: SPELT[found[0].lstrip("-")], text))
    if not isinstance(content, list) or not content:
        raise KdedgeError(what, "they are no list")
    outputs = {}
    for output in content:
        name, shape, values = (output.get(key) if isinstance(output, dict) else None for key in OUTPUT_FIELDS)
        if not isinstance(name, str) or not isinstance(shape, str) or not SHAPE.fullmatch(shape):
            raise KdedgeError(what, "one has no name or dimensions")
        sizes = [int(size) for size in shape.split("x") if size]
        if not isinstance(values, list) or len(values) != math.prod(sizes) or not all(map(_is_number, values)):
            raise KdedgeError(what, f"{name} does not hold the numbers of an array of {shape}")
        outputs[name] = np.array(values, dtype=np.float64).reshape(sizes)
    return outputs


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < LARGEST)


def _row(what: str, number: int, query: dict[str, Any]) -> list[float]:
    row = []
    for name in FIELDS:
        value = query.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < LARGEST:
            raise KdedgeError(what, f"query {number} has no time {name}")
        row.append(float(value))
    return row


def percentile(values: Array, p: float) -> float:
    """Nearest rank as trtexec computes it, in single precision: the p99 of 100 values is the largest.

    The median, p = 50, is the mean of the two middle values.
    """
    if p == 50:
        return float(np.median(values))
    excluded = int((np.float32(1) - np.float32(p) / np.float32(100)) * np.float32(len(values)))
    return float(np.sort(values)[max(len(values) - 1 - excluded, 0)])


def summarize(values: Array, percentiles: tuple[float, ...] = (90, 95, 99)) -> dict[str, float]:
    """The statistics that trtexec prints, under the names that its log has here."""
    summary = {"min": values.min(), "max": values.max(), "mean": values.mean(), "median": percentile(values, 50)}
    summary.update((f"p{p:g}", percentile(values, p)) for p in percentiles)
    return {name: float(value) for name, value in summary.items()}


def read_layer_times(text: str) -> list[LayerTime]:
    """Of a file of --exportProfile, a layer on each line; its names may hold quotes, which makes it no JSON.

    Raises:
        KdedgeError: a line is neither a layer nor the count of iterations.
    """
    layers = []
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip().lstrip(",").strip()
        if content in ("", "[", "]") or COUNT.fullmatch(content):
            continue
        found = LAYER.fullmatch(content)
        if found is None:
            raise KdedgeError("the layer times that trtexec exported", f"line {number} is not a layer: {content[:80]}")
        median, percent = (None if found[key] is None else float(found[key]) for key in ("median", "percent"))
        layers.append(LayerTime(found["name"], float(found["total"]), float(found["mean"]), median, percent))
    if not layers:
        raise KdedgeError("the layer times that trtexec exported", "they hold no layer")
    return layers


def read_layers(text: str) -> list[Layer]:
    """Of a file of --exportLayerInfo; an engine that was not built with detailed verbosity has names alone.

    Raises:
        KdedgeError: it is not such a file.
    """
    what = "the layers that trtexec exported"
    content = _load(what, text)
    found = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise KdedgeError(what, "they have no list of Layers")
    layers = []
    for number, layer in enumerate(found):
        if isinstance(layer, str):
            layers.append(Layer(layer, "", "", tuple(layer.split(" + "))))
        elif isinstance(layer, dict) and _whole(layer):
            # nodes that were fused twice are set apart by a second separator
            plain = dict(layer, Metadata=str(layer.get("Metadata", "")).replace("\x1f", "\x1e"))
            layers += from_inspector(json.dumps({"Layers": [plain]}))
        else:
            raise KdedgeError(what, f"layer {number} has no Name, LayerType and Inputs")
    return layers


def _whole(layer: dict[str, Any]) -> bool:
    inputs = layer.get("Inputs")
    named = isinstance(layer.get("Name"), str) and isinstance(layer.get("LayerType"), str)
    return named and isinstance(inputs, list) and all(isinstance(given, dict) for given in inputs)


def _load(what: str, text: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        return json.loads(text, strict=False, object_hook=hook)  # names may hold control characters
    except (ValueError, RecursionError) as error:
        raise KdedgeError(what, f"they are not JSON: {error}", "they may be cut short: is the disk full?") from None
