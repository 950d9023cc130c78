"""What the profile command adds to what was measured."""

from pathlib import Path

import numpy as np
import pytest

from kdedge.core.profiling import ProfileReport
from kdedge.core.report import ExportReport, Original
from kdedge.core.stats import distribution
from kdedge.pipeline.profile import note_lightening, note_no_gain


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


@pytest.mark.parametrize(
    ("extensions", "built", "reasons"),
    [
        ("avx2 avx512_vnni", {"int8": 9, "fp32": 2}, ""),
        ("avx2", {"int8": 9, "fp32": 2}, "; this CPU has no VNNI, which int8 is fast by"),
        ("avx512_vnni", {"int8": 3, "fp32": 22}, "; 3 of its 25 nodes compute in int8"),
        ("avx512_vnni", {}, ""),
    ],
)
def test_int8_that_is_not_faster_says_why_where_that_is_known(
    extensions: str, built: dict[str, int], reasons: str
) -> None:
    int8 = measured("int8", 0.5)
    int8.device, int8.precision_built = {"match": {"arch": "x86_64", "instruction_sets": extensions}}, built
    note_no_gain([measured("fp32", 0.25), int8])
    assert int8.notes == ["not faster than fp32 here: 0.500 against 0.250 ms" + reasons]


@pytest.mark.parametrize(
    ("original_ms", "bought"),
    [
        (0.4, "fewer MACs bought no time here"),
        (0.5, "fewer MACs bought no time here"),
        (1.5, "3.0 times as fast, less than half of what the MACs promise"),
        (2.0, "4.0 times as fast"),
    ],
)
def test_lightened_student_says_what_its_fewer_macs_bought(original_ms: float, bought: str) -> None:
    reports = {"fp32": measured("fp32", 0.5), "original": measured("original", original_ms)}
    original = Original(name="original", model="vgg11", params=10, macs=800)
    note_lightening(reports, ExportReport(onnx={}, opset=18, original=original), macs=100)
    assert reports["fp32"].notes == [f"8.0 times fewer MACs than the original vgg11: {bought}"]
    assert reports["original"].notes == []


def test_student_that_was_not_lightened_says_nothing_of_it() -> None:
    reports = {"fp32": measured("fp32", 0.5)}
    note_lightening(reports, ExportReport(onnx={}, opset=18), macs=100)
    assert reports["fp32"].notes == []
