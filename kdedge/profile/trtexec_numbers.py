"""The numbers in what trtexec prints: the performance summary, memory, and the table of layers.

A number is taken only where its name and its unit stand beside it.  Messages are lines without their time and severity.
Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

COUNT = "[0-9]{1,20}"
VALUE = r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-][0-9]{2})?"
BYTES = r"(?: bytes|(?=\s*\n))"  # up to 8.x a whole line without a unit

NUMBERS = [
    rf"[Tt]hroughput: (?P<throughput_qps>{VALUE}) qps",
    rf"(?:Total Host Walltime|walltime): (?P<walltime_s>{VALUE}) s",
    rf"(?:Total GPU Compute Time|total compute time): (?P<compute_s>{VALUE}) s",
    rf"Timing trace has (?P<queries>{COUNT}) queries over (?P<trace_s>{VALUE}) s",
    rf"Warmup completed (?P<warmup_queries>{COUNT}) queries over (?P<warmup_ms>{VALUE}) ms",
    rf"\* GPU compute time is unstable, with coefficient of variance = (?P<cv_percent>{VALUE})%\.",
    rf"Engine built in (?P<built_s>{VALUE}) sec\.",
    rf"Engine loaded in (?P<loaded_s>{VALUE}) sec\.",
    rf"Engine deserialized in (?P<deserialized_s>{VALUE}) sec\.",
    rf"Created engine with size: (?P<engine_mib>{VALUE}) MiB",
    rf"Total Host Persistent Memory: (?P<host_persistent_bytes>{COUNT}){BYTES}",
    rf"Total Device Persistent Memory: (?P<device_persistent_bytes>{COUNT}){BYTES}",
    rf"(?:Max|Total) Scratch Memory: (?P<scratch_bytes>{COUNT}){BYTES}",
    rf"Total Activation Memory: (?P<activation_bytes>{COUNT}){BYTES}",
    rf"Total Weights Memory: (?P<weights_bytes>{COUNT}) bytes",
    rf"Created execution context with device memory size: (?P<context_mib>{VALUE}) MiB",
    r"\[MemUsageStats\] Peak memory usage of TRT CPU/GPU memory allocators: "
    rf"CPU (?P<peak_cpu_mib>{COUNT}) MiB, GPU (?P<peak_gpu_mib>{COUNT}) MiB",
]
NUMBER = re.compile(r"(?:{})\s*".format("|".join(NUMBERS)))
METRICS = {
    "Latency": "latency",
    "End-to-End Host Latency": "end_to_end",
    "Enqueue Time": "enqueue",
    "H2D Latency": "h2d",
    "GPU Compute Time": "compute",
    "D2H Latency": "d2h",
}
METRIC = re.compile("({}): ".format("|".join(METRICS)))
STATISTIC = re.compile(
    rf"\b(min|max|mean|median|percentile\((?P<percentile>{VALUE})%\)) ?= ?(?P<value>{VALUE}) ?ms\b", re.IGNORECASE
)
BLOCKS = {"Host Latency": "latency", "Enqueue Time": "enqueue", "GPU Compute": "compute"}
BLOCK_ROW = re.compile(
    rf"(min|max|mean|median|percentile): (?P<value>{VALUE}) ms(?: at (?P<percentile>{VALUE})%)?"
    rf"(?: \(end to end (?P<end_to_end>{VALUE}) ms(?: at {VALUE}%)?\))?\s*"
)
BLOCK_RATE = re.compile(rf"throughput: {VALUE} qps\s*|walltime: {VALUE} s\s*")
PROFILE = re.compile(rf"=== Profile \({COUNT} iterations ?\) ===\s*")
PROFILE_HEADER = re.compile(
    r"\s*(?P<first>Layer)?\s+Time ?\(ms\)\s+Avg\.(?: Time)? ?\(ms\)(?P<median>\s+Median(?: Time)? ?\(ms\))?\s"
)
CELL = r"\s+(?P<{}>[0-9]{{1,15}}\.[0-9]{{{}}})"


class LayerTime(NamedTuple):
    name: str
    total_ms: float
    mean_ms: float
    median_ms: float | None
    """None up to TensorRT 8.3."""
    percent: float | None
    """None where nothing took any time."""


def read_numbers(messages: list[str]) -> dict[str, float]:
    """By names that end in their unit; what is not said is not there."""
    numbers: dict[str, float] = {}
    for found in filter(None, map(NUMBER.fullmatch, messages)):
        said = {name: float(value) for name, value in found.groupdict().items() if value is not None}
        if "activation_bytes" in said and "host_persistent_bytes" not in numbers:
            continue  # 8.x says the same of the largest workspace before it builds
        for unknown in ("throughput_qps", "queries"):  # 7.x multiplies them by an implicit batch of 0
            if said.get(unknown) == 0:
                del said[unknown]
        numbers.update(said)
    return numbers


def read_metrics(messages: list[str]) -> dict[str, dict[str, float]]:
    """Milliseconds: latency, end_to_end, enqueue, h2d, compute or d2h -> min, max, mean, median, p90, ..."""
    return {**_blocks(messages), **_lines(messages)}


def _lines(messages: list[str]) -> dict[str, dict[str, float]]:
    """A line for each metric, from 8.0 on."""
    metrics: dict[str, dict[str, float]] = {}
    current = ""
    for message in messages:
        head = METRIC.match(message)
        if head is None and not (current and STATISTIC.match(message)):  # else the line before it goes on
            current = ""
            continue
        statistics = {_statistic(found): float(found["value"]) for found in STATISTIC.finditer(message)}
        if head is None:
            metrics[current].update(statistics)
        elif statistics:  # the explanations of a verbose log begin with the same words
            current = METRICS[head[1]]
            metrics[current] = statistics
    return metrics


def _statistic(found: re.Match[str]) -> str:
    percentile = found["percentile"]
    return found[1].lower() if percentile is None else f"p{float(percentile):g}"


def _blocks(messages: list[str]) -> dict[str, dict[str, float]]:
    """A heading for each metric and a line for each statistic, up to 7.x."""
    metrics: dict[str, dict[str, float]] = {}
    block = ""
    for message in messages:
        row = BLOCK_ROW.fullmatch(message)
        if row is None:
            block = block if BLOCK_RATE.fullmatch(message) else BLOCKS.get(message.strip(), "")
        elif block and _statistic(row) != "percentile":
            metrics.setdefault(block, {})[_statistic(row)] = float(row["value"])
            if block == "latency" and row["end_to_end"] is not None:
                metrics.setdefault("end_to_end", {})[_statistic(row)] = float(row["end_to_end"])
    return metrics


def read_layer_times(messages: list[str]) -> list[LayerTime]:
    """The last table of layers: a name is anything, and comes first up to 8.5, last from 8.6 on."""
    starts = [index for index, message in enumerate(messages[:-1]) if PROFILE.fullmatch(message)]
    header = PROFILE_HEADER.match(messages[starts[-1] + 1]) if starts else None
    if header is None:
        return []
    row = _row(name_first=header["first"] is not None, has_median=header["median"] is not None)
    layers = []
    for found in map(row.fullmatch, messages[starts[-1] + 2 :]):
        if found is None or found["name"].strip() == "Total":
            break
        median = found["median"] if header["median"] else None
        layers.append(
            LayerTime(
                found["name"].strip(),
                float(found["total"]),
                float(found["mean"]),
                None if median is None else float(median),
                float(found["percent"]),
            )
        )
    return layers


def _row(name_first: bool, has_median: bool) -> re.Pattern[str]:
    cells = [("total", 2), ("mean", 4), *([("median", 4)] if has_median else []), ("percent", 1)]
    numbers = "".join(CELL.format(name, decimals) for name, decimals in cells)
    return re.compile(rf"(?P<name>.*\S){numbers}\s*\n" if name_first else rf"{numbers} +(?P<name>\S.*)\n")
