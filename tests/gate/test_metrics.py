"""What of a run's records becomes a metric, and what its unit of measurement is."""

from typing import Any

import numpy as np
import pytest
from boxruns import quality

from kdedge.core.correctness import correctness
from kdedge.core.energy import Energy, Spread
from kdedge.core.profiling import ProcessSample, ProfileReport
from kdedge.core.quality import Quality
from kdedge.core.report import ExitPoint, ExportedFile, ExportReport, Hop, TrainedModel, TrainingReport
from kdedge.core.stats import distribution
from kdedge.gate.metrics import answers_of, built, collect, profiled


def trained(top: float, params: int) -> TrainedModel:
    return TrainedModel(
        model="m", params=params, macs=10 * params, weight_bytes=4 * params, input_shape=[1, 8, 8], accuracy=top
    )


def hop(name: str, top: float) -> Hop:
    return Hop(name=name, quality=Quality(images=10, top1=top, per_class=[top], ece=0.0))


def process(values: list[float], settled: bool = True) -> ProcessSample:
    return ProcessSample(
        latency_ms=values,
        open_ms=1,
        first_ms=1,
        warmup_queries=1,
        warmup_ms=1,
        settled=settled,
        baseline_bytes=1,
        peak_bytes=4097,
    )


def profile(name: str, settled: bool, count: int) -> ProfileReport:
    values = [0.1 * (i + 1) for i in range(count)]
    return profile_of(name, [process(values, settled)])


def profile_of(name: str, samples: list[ProcessSample], **more: Any) -> ProfileReport:
    return ProfileReport(
        name=name,
        model="m.ort",
        model_bytes=1,
        model_sha256="0" * 64,
        backend="ort",
        provider="CPU",
        shapes={},
        batch=1,
        threads=1,
        latency=distribution([np.array(sample.latency_ms) for sample in samples]),
        throughput=1,
        open_ms=1,
        first_ms=1,
        peak_memory_bytes=4096,
        samples=samples,
        device={},
        **more,
    )


@pytest.mark.parametrize(
    ("exit_", "ends", "params"), [("1/2", [40], 40), ("all", [40, 120], 120)], ids=["cut", "with its heads"]
)
def test_collect_speaks_of_the_network_that_was_exported(exit_, ends, params):
    """The gain as well: of what is left of the student against the whole network on the labels alone."""
    names = ["1/2", "2/2"]
    points = [
        ExitPoint(name=name, stage="stage1", output="logits", params=count, macs=10 * count)
        for name, count in zip(names, ends, strict=False)
    ]
    training = TrainingReport(
        recipe="r", seed=0, train_images=1, validation_images=1, test_images=1, labels=["a"], methods=[],
        student=trained(0.9, 100), baseline=trained(0.88, 100),
    )  # fmt: skip
    hops = [hop("exit1/torch", 0.5), hop("torch", 0.7)]
    export = ExportReport(onnx={}, hops=hops, exit=exit_, exits=points, opset=18)
    metrics = {name: round(metric.value, 9) for name, metric in collect(training, export, []).items()}
    assert metrics == {
        "student/top1": 0.7, "student/params": params, "student/macs": 10 * params, "student/top1_gain": -0.18
    }  # fmt: skip


def test_collect_names_every_number_and_prefers_the_engine():
    training = TrainingReport(
        recipe="r",
        seed=0,
        train_images=1,
        validation_images=1,
        test_images=1,
        labels=["a"],
        methods=[],
        student=trained(0.9, 100),
        teachers=[trained(0.95, 1000)],
        baseline=trained(0.88, 100),
    )
    file = ExportedFile(path="m", bytes=2048, sha256="0" * 64, layers=12)
    export = ExportReport(
        onnx={"fp32": file, "int8": file},
        engines={"int8": file},
        hops=[hop("torch", 0.9), hop("onnx-fp32", 0.91), hop("onnx-int8", 0.87), hop("engine-int8", 0.86)],
        opset=18,
    )
    int8 = profile("int8", False, 200).model_copy(
        update={"precision_asked": "int8", "precision_built": {"int8": 18, "fp32": 3}}
    )
    metrics = collect(training, export, [profile("fp32", True, 9), int8])
    assert {name: round(metric.value, 9) for name, metric in metrics.items()} == {
        "teacher/top1": 0.95,
        "student/top1": 0.9,
        "student/top1_gain": 0.02,
        "student/params": 100,
        "student/macs": 1000,
        "fp32/onnx_bytes": 2048,
        "fp32/onnx_layers": 12,
        "fp32/top1": 0.91,
        "fp32/latency_median_ms": 0.5,
        "fp32/peak_memory_bytes": 4096,
        "int8/onnx_bytes": 2048,
        "int8/onnx_layers": 12,
        "int8/engine_layers": 21,
        "int8/fallback_layers": 3,
        "int8/engine_bytes": 2048,
        "int8/top1": 0.86,
        "int8/latency_median_ms": 10.05,
        "int8/latency_p95_ms": 19.0,
        "int8/peak_memory_bytes": 4096,
    }
    assert [name for name, metric in metrics.items() if not metric.stable] == [
        "int8/latency_median_ms",
        "int8/latency_p95_ms",
    ]
    assert {name.split("/")[1] for name, metric in metrics.items() if metric.better == "higher"} == {
        "top1",
        "top1_gain",
    }


def test_collect_speaks_of_a_detector_by_its_average_precision():
    training = TrainingReport(
        recipe="r", task="detect", seed=0, train_images=1, validation_images=1, test_images=10, labels=["a"],
        methods=[], student=trained(0.5, 100), teachers=[trained(0.6, 1000)], baseline=trained(0.52, 100),
    )  # fmt: skip
    hops = [Hop(name=name, quality=quality(ap)) for name, ap in (("torch", 0.5), ("onnx-int8", 0.4))]
    export = ExportReport(onnx={"int8": ExportedFile(path="m", bytes=1, sha256="")}, hops=hops, opset=18)
    metrics = collect(training, export, [])
    assert {name: round(metric.value, 9) for name, metric in metrics.items()} == {
        "teacher/mean_ap": 0.6,
        "student/mean_ap": 0.5,
        "student/mean_ap_gain": -0.02,
        "student/params": 100,
        "student/macs": 1000,
        "int8/onnx_bytes": 1,
        "int8/mean_ap": 0.4,
        "int8/ap50": 0.6,
        "int8/ap75": 0.3,
    }
    assert {name.split("/")[1] for name, metric in metrics.items() if metric.better == "higher"} == {
        "mean_ap", "mean_ap_gain", "ap50", "ap75"
    }  # fmt: skip
    assert answers_of(training, export) == {}


def test_collect_device_latency_where_there_is_one():
    assert "trt/device_latency_median_ms" not in profiled(profile("trt", True, 10))
    measured = profile("trt", False, 10).model_copy(
        update={"device_latency": distribution([np.array([0.25, 0.5, 0.75])])}
    )
    metric = profiled(measured)["trt/device_latency_median_ms"]
    assert (metric.value, metric.unit, metric.better, metric.stable) == (0.5, "ms", "lower", False)


def test_latency_counts_by_process_and_leaves_out_what_did_not_settle():
    times = [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [9.0, 9.0, 9.0], [3.0, 4.0, 5.0], [2.0, 2.0, 8.0]]
    samples = [process(values, settled=values[0] < 9) for values in times]
    metric = profiled(profile_of("a", samples))["a/latency_median_ms"]
    assert metric.samples == [2.0, 3.0, 4.0, 2.0]
    assert metric.stable
    assert profiled(profile_of("a", samples))["a/peak_memory_bytes"].samples == [4096.0] * 5


def test_latency_is_not_stable_where_half_of_the_processes_did_not_settle():
    metric = profiled(profile_of("a", [process([1.0]), process([1.0], settled=False)]))["a/latency_median_ms"]
    assert not metric.stable
    assert "did not settle" in metric.trouble


def test_latency_of_a_throttled_machine_is_not_stable():
    measured = profile_of("a", [process([1.0])] * 5, throttled=["slowed down for heat"])
    metric = profiled(measured)["a/latency_median_ms"]
    assert (metric.stable, metric.trouble) == (False, "slowed down for heat")


def test_energy_counts_by_repeat():
    net = Spread(mean=2.0, std=1.0, lowest=1.0, highest=3.0, values=(1.0, 2.0, 3.0))
    energy = Energy(
        net_mj=net, gross_mj=net, power_mw=net, idle_mw=1, repeats=3, inferences=9, samples=9, rate_hz=1, source="rail"
    )
    metric = profiled(profile_of("a", [process([1.0])], energy=energy))["a/energy_net_mj"]
    assert (metric.value, metric.unit, metric.better, metric.samples) == (2.0, "mJ", "lower", [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("asked", "layers", "expected"),
    [
        ("fp32", {"fp32": 9}, {"a/engine_layers": 9}),
        ("fp16", {"fp32": 9}, {"a/engine_layers": 9, "a/fallback_layers": 9}),
        ("int8", {"int8": 8, "fp32": 1}, {"a/engine_layers": 9, "a/fallback_layers": 1}),
        ("int8", {}, {}),
    ],
)
def test_layers_that_compute_in_another_type_fell_back(asked, layers, expected):
    measured = profile("a", True, 9).model_copy(update={"precision_asked": asked, "precision_built": layers})
    assert {name: metric.value for name, metric in built(measured).items()} == expected


HOPS = ("torch", "onnx-int8", "engine-int8")


@pytest.mark.parametrize(("images", "known"), [(10, ["student/top1", "int8/top1"]), (20, ["int8/top1"])])
def test_answers_are_of_the_engine_and_of_the_student_where_all_test_images_were_asked(images, known):
    training = TrainingReport(
        recipe="r", seed=0, train_images=1, validation_images=1, test_images=images, labels=["a"], methods=[],
        student=trained(0.5, 100),
    )  # fmt: skip
    right = {name: correctness([name != "torch"] * 10, range(10), [0] * 10) for name in HOPS}
    hops = [hop(name, 0.5).model_copy(update={"correctness": right[name]}) for name in HOPS]
    file = ExportedFile(path="m", bytes=1, sha256="")
    answers = answers_of(training, ExportReport(onnx={"int8": file}, hops=hops, opset=18))
    assert list(answers) == known
    assert answers["int8/top1"] is right["engine-int8"]
