"""What the profile command adds to what was measured."""

from pathlib import Path

import numpy as np

from kdedge.core.report import ProfileReport
from kdedge.core.stats import distribution
from kdedge.pipeline.profile import note_no_gain


def measured(name: str, milliseconds: float) -> ProfileReport:
    return ProfileReport(
        name=name,
        model=str(Path(name).with_suffix(".onnx")),
        model_bytes=1,
        model_sha256="",
        backend="ort",
        provider="CPUExecutionProvider",
        shapes={},
        batch=1,
        threads=1,
        latency=distribution([np.full(20, milliseconds)]),
        throughput=1000 / milliseconds,
        open_ms=1,
        first_ms=1,
        peak_memory_bytes=1,
        samples=[],
        device={},
    )


def test_lower_precision_that_is_not_faster_says_so() -> None:
    reports = [measured("int8", 0.5), measured("fp32", 0.5), measured("fp16", 0.25)]
    note_no_gain(reports)
    assert [report.notes for report in reports] == [["not faster than fp32 here: 0.500 against 0.500 ms"], [], []]
