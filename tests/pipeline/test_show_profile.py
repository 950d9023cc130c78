"""The cells of what `kdedge profile` prints."""

import numpy as np
import pytest

from kdedge.core.profiling import LayerCost, LayersReport, Memory, ProfileReport, SweepPoint, SweepReport
from kdedge.core.stats import distribution
from kdedge.pipeline import show_profile

CPU, GPU = "CPUExecutionProvider", "TensorRT"


def measured(name: str, provider: str = CPU, device_ms: float | None = None, **fields) -> ProfileReport:
    device = None if device_ms is None else distribution([np.full(1000, device_ms)])
    end_to_end = distribution([np.full(20, 2.0), np.full(20, 2.0)])
    latencies = {"latency": end_to_end, "device_latency": device, "throughput": 500.0, "open_ms": 1, "first_ms": 3.25}
    model = {"name": name, "model": f"{name}.onnx", "model_bytes": 2048, "model_sha256": "", "backend": "ort"}
    rest = {"shapes": {}, "batch": 1, "threads": 1, "peak_memory_bytes": 1, "samples": [], "device": {}}
    return ProfileReport(provider=provider, **model, **latencies, **rest, **fields)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list:
    shown: list = []
    monkeypatch.setattr(show_profile, "show_table", lambda *given: shown.append(given))
    return shown


def test_processor_without_a_clock_of_its_own_is_told_once(tables: list) -> None:
    show_profile.show_profiles([measured("fp32"), measured("int8")])
    [(title, columns, rows, caption)] = tables
    assert title == "profile: batch 1, 1 threads, 2 processes, end to end"
    assert rows[0] == ["fp32", "2.0 KiB", "2.000", "2.000 .. 2.000", "-", "-", "500", "3.25"]
    assert len(columns) == len(rows[0])
    assert caption == f"end to end: from arrays to arrays; no device latency, as {CPU} has no clock of its own"


def test_device_latency_has_a_table_of_its_own(tables: list) -> None:
    show_profile.show_profiles([measured("fp32", GPU, 0.5), measured("other")])
    [(*_, end_to_end), (title, columns, rows, caption)] = tables
    assert end_to_end == f"end to end: from arrays to arrays; no device latency, as {CPU} has no clock of its own"
    assert title == "device latency"
    assert columns == ("model", "median ms", "95 % interval", "p95 ms", "p99 ms")
    assert rows == [["fp32", "0.500", "-", "0.500", "0.500"]]
    assert caption == "computing alone, without copies, by the device's clock"
    show_profile.show_profiles([measured("fp32", GPU, 0.5)])
    assert tables[2][-1] == "end to end: from arrays to arrays"


def test_note_that_several_models_share_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    notes = {"fp32": ["busy"], "fp16": ["busy", "storage"], "int8": ["busy", "busy"]}
    show_profile.show_notes([measured(name, notes=told) for name, told in notes.items()])
    assert capsys.readouterr().out == "fp32, fp16, int8: busy\nfp16: storage\n"


def test_memory_has_a_column_for_each_way_of_counting(tables: list) -> None:
    device = Memory(process_peak=1024, system=-2048, device={"context": 4096, "weights": 512})
    show_profile.show_memory(
        [measured("trt", memory=device), measured("ort", memory=Memory(process_peak=3, pss=2)), measured("old")]
    )
    [(_, columns, rows)] = tables
    assert columns == ("model", "peak RSS", "PSS", "system", "device: context", "device: weights")
    assert rows == [["trt", "1.0 KiB", "-", "-2.0 KiB", "4.0 KiB", "512 B"], ["ort", "3 B", "2 B", "-", "-", "-"]]


def test_best_point_of_a_sweep_is_marked(tables: list) -> None:
    points = [
        SweepPoint(batch=batch, streams=2, queries=9, median_ms=1.5, p99_ms=p99, throughput=rate, settled=True)
        for batch, p99, rate in [(1, 2.5, 100.0), (2, None, 300.0), (4, None, 200.0)]
    ]
    same = {"name": "fp32", "model": "m", "model_sha256": "", "backend": "ort", "provider": CPU, "device": {}}
    show_profile.show_sweeps([SweepReport(threads=1, points=points, **same)])
    [(title, columns, rows)] = tables
    assert title == "sweep of fp32: 1 threads a stream, end to end"
    assert rows == [
        ["1", "2", "1.500", "2.500", "100", ""],
        ["2", "2", "1.500", "-", "300", "best"],
        ["4", "2", "1.500", "-", "200", ""],
    ]
    assert len(columns) == 6


def test_slowest_layers_are_shown_first_and_the_rest_counted(tables: list) -> None:
    layers = [
        LayerCost(name=f"l{n}", kind="Conv", nodes=["a", "b"] if n else [], mean_ms=n, median_ms=n, share=n / 253)
        for n in range(23)
    ]
    same = {"name": "fp32", "model": "m", "model_sha256": "", "backend": "ort", "provider": CPU, "device": {}}
    report = LayersReport(batch=1, threads=1, queries=100, query_ms=1, plain_ms=1, layers=layers, **same)
    show_profile.show_layers([report])
    [(_, columns, rows, caption)] = tables
    assert len(rows) == 20
    assert rows[0] == ["l22", "Conv", "a + b", "22.0000", "22.0000", "8.70 %"]
    assert len(columns) == 6
    assert caption == "3 faster layers are not shown"
    assert show_profile.layer_row(layers[0])[2] == "-"
