"""Runs as `kdedge compare` sees them: made up."""

from typing import Any

from kdedge.core.report import Metric
from kdedge.report.fronts import Entry

HERE, THERE = {"cpu": "fast", "cores": 8}, {"cpu": "slow", "cores": 8}
DIGITS, SVHN = {"data": "digits", "images": 360}, {"data": "svhn", "images": 26032}


def entry(
    name: str, machine: dict[str, Any], test_set: dict[str, Any] = DIGITS, **values: tuple[float, float, float]
) -> Entry:
    """`int8=(top-1, bytes, ms)`"""
    metrics = {"student/params": Metric(value=1500, unit="count", better="lower")}
    intervals = {}
    for precision, (top1, count, ms) in values.items():
        metrics[f"{precision}/top1"] = Metric(value=top1, unit="fraction", better="higher")
        metrics[f"{precision}/onnx_bytes"] = Metric(value=count, unit="bytes", better="lower")
        intervals[f"{precision}/top1"] = (top1 - 0.01, top1 + 0.01)
        if machine:
            metrics[f"{precision}/latency_median_ms"] = Metric(value=ms, unit="ms", better="lower")
            intervals[f"{precision}/latency_median_ms"] = (0.95 * ms, 1.05 * ms)
    return Entry(name, "resnet8", metrics, tuple(values), machine, test_set, intervals)
