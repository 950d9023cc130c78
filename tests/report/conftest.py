"""A run as the pipeline would report it: made up, but of the sizes and shapes of a real one."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from boxreport import detector_run
from closeups import layer_views, made_up_answers, orin, paired_gate, terms

from kdedge.core.profiling import ProcessSample, ProfileReport
from kdedge.core.quality import Quality
from kdedge.core.report import Check, ExportedFile, ExportReport, GateResult, Hop, TrainedModel, TrainingReport
from kdedge.core.stats import distribution
from kdedge.report.html import ReportData

LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
DEVICE = {
    "match": {"cpu": "Example CPU @ 2.70GHz", "cores": 2, "cpus": 4, "cpu_quota": None, "onnxruntime": "1.27.0"},
    "note": {
        "memory_total": 8_330_000_000,
        "governor": "performance",
        "load": [0.2, 0.1, 0.1],
        "kernel": "6.1.0",
        "container": False,
    },
}


def network(model: str, params: int, top1: float, **more: Any) -> TrainedModel:
    return TrainedModel(
        model=model,
        params=params,
        macs=150 * params,
        weight_bytes=4 * params,
        input_shape=[3, 32, 32],
        accuracy=top1,
        validation_accuracy=top1 + 0.004,
        **more,
    )


def training() -> TrainingReport:
    return TrainingReport(
        recipe="resnet_dw",
        seed=0,
        train_images=45000,
        validation_images=5000,
        test_images=10000,
        labels=LABELS,
        methods=["logits", "attention", "self_distill"],
        student=network(
            "resnet20",
            58_000,
            0.9012,
            options={"convolution": "depthwise"},
            epochs=40,
            seconds=812.0,
            exits={"stage1": 0.712, "stage2": 0.848},
            extra_params=12_000,
            source="trained",
        ),
        teachers=[network("resnet56", 855_770, 0.9338, source="cifar10_resnet56.safetensors")],
        baseline=network(
            "resnet20", 58_000, 0.8874, options={"convolution": "depthwise"}, epochs=40, seconds=604.0, source="trained"
        ),
        environment={"torch": "2.15.0", "python": "3.11.2", "threads": "2", "device": "cpu"},
    )


def curve(final: float, terms: dict[str, float], epochs: int = 40) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, epochs + 1):
        done = 1 - math.exp(-4 * epoch / epochs)
        wobble = 0.006 * math.sin(5 * epoch) * (1 - epoch / epochs)
        own = {name: scale * (1.6 - 1.35 * done) for name, scale in terms.items()}
        rows.append(
            {
                "epoch": epoch,
                "lr": 0.05 * (1 + math.cos(math.pi * epoch / epochs)),
                "loss": sum(own.values()),
                **own,
                "train_top1": 0.3 + (final - 0.28) * done,
                "validation_top1": 0.3 + (final - 0.29) * done + wobble,
                "seconds": 20.0,
            }
        )
    return rows


def curves() -> dict[str, list[dict[str, float]]]:
    own = {"cross_entropy": 1.0, "logits": 1.4, "attention/stage2": 0.05, "attention/stage3": 0.03, "self_distill": 0.6}
    return {"student": curve(0.905, own), "baseline": curve(0.89, {"cross_entropy": 1.0})}


def hop(name: str, reference: str | None, top1: float, error: float | None, **more: Any) -> Hop:
    per_class = np.clip(top1 + 0.05 * np.sin(np.arange(10) * 2.1), 0, 1)
    quality = Quality(images=10000, top1=top1, top5=0.996, per_class=per_class.tolist(), ece=0.031)
    small = None if error is None else error / 9
    return Hop(name=name, reference=reference, max_error=error, mean_error=small, quality=quality, **more)


def exported() -> ExportReport:
    return ExportReport(
        onnx={
            "fp32": ExportedFile(path="student.onnx", bytes=251_000, sha256="a" * 64),
            "fp16": ExportedFile(path="student-fp16.onnx", bytes=134_000, sha256="b" * 64),
            "int8": ExportedFile(path="student-int8.onnx", bytes=98_500, sha256="c" * 64),
        },
        engines={
            "fp32": ExportedFile(path="student.ort", bytes=262_000, sha256="d" * 64),
            "fp16": ExportedFile(
                path="student-fp16.ort", bytes=141_000, sha256="e" * 64, notes=["fp16 storage, fp32 compute"]
            ),
            "int8": ExportedFile(path="student-int8.ort", bytes=104_000, sha256="f" * 64),
        },
        hops=[
            hop("torch", None, 0.9012, None),
            hop("onnx-fp32", "torch", 0.9012, 1.2e-6, agreement=1.0),
            hop("engine-fp32", "onnx-fp32", 0.9012, 0.0, agreement=1.0),
            hop("onnx-fp16", "onnx-fp32", 0.9011, 1.9e-3, agreement=0.9996),
            hop("engine-fp16", "onnx-fp16", 0.9011, 2.0e-6, agreement=1.0),
            hop(
                "onnx-int8",
                "onnx-fp32",
                0.8921,
                0.14,
                agreement=0.968,
                problems=["top-1 lost 0.91 points, 0.50 allowed"],
            ),
            hop("engine-int8", "onnx-int8", 0.8923, 1e-3, agreement=0.9991),
        ],
        opset=18,
        backend="ort",
        environment={"onnx": "1.20.1", "onnxruntime": "1.27.0"},
    )


def profile(
    name: str, median: float, per_process: int = 2000, processes: int = 5, settled: bool = True
) -> ProfileReport:
    random = np.random.default_rng(len(name) + int(1000 * median))
    drawn = []
    for process in range(processes):
        values = median * (1 + 0.02 * process) * (1 + 0.05 * random.gamma(2, 1, per_process))
        values[random.random(per_process) < 0.003] *= 4
        drawn.append(values)
    latency = distribution(drawn)
    return ProfileReport(
        name=name,
        model=f"student-{name}.ort",
        model_bytes=104_000,
        model_sha256="f" * 64,
        backend="ort",
        provider="CPUExecutionProvider",
        precision_asked=name,
        precision_built={"float32": 41} if name != "int8" else {"uint8": 38, "float32": 6},
        shapes={"input": [1, 3, 32, 32]},
        batch=1,
        threads=2,
        latency=latency,
        throughput=1000 / latency.mean,
        open_ms=21.0,
        first_ms=3.1,
        peak_memory_bytes=9_400_000,
        samples=[
            ProcessSample(
                latency_ms=values.tolist(),
                open_ms=21.0,
                first_ms=3.1,
                warmup_queries=400,
                warmup_ms=210.0,
                settled=settled,
                baseline_bytes=60_000_000,
                peak_bytes=69_400_000,
            )
            for values in drawn
        ],
        device=DEVICE,
    )


def gated() -> GateResult:
    return GateResult(
        verdict="regression",
        checks=[
            Check(metric="student/top1", value=0.9012, unit="fraction", limit=">= 90.00 %", verdict="pass"),
            Check(
                metric="int8/onnx_bytes",
                value=98_500,
                unit="bytes",
                limit="<= baseline + 2 %",
                baseline=95_000,
                verdict="regression",
                reason="+3.7 %",
            ),
            Check(
                metric="int8/latency_median_ms",
                value=0.213,
                unit="ms",
                limit="<= baseline + 5 %",
                baseline=0.201,
                verdict="incomparable",
                advisory=True,
                reason="cpu was Other CPU, is Example CPU @ 2.70GHz",
            ),
        ],
        warnings=["not in the baseline yet: int8/latency_p95_ms"],
        baseline="2026-08-14 first accepted run",
    )


def whole_run(**changes: Any) -> ReportData:
    columns = ("model", "top-1", "parameters", "MACs", "bytes", "median", "p95", "peak memory")
    rows = [
        ("teacher", "93.38 %", "855.8k", "128.4M", "3.3 MiB", "-", "-", "-"),
        ("student fp32", "90.12 %", "58k", "8.7M", "245.1 KiB", "0.412 ms", "0.480 ms", "9.0 MiB"),
        ("student fp16", "90.11 %", "58k", "8.7M", "130.9 KiB", "0.420 ms", "0.493 ms", "9.0 MiB"),
        ("student int8", "89.23 %", "58k", "8.7M", "96.2 KiB", "0.213 ms", "0.251 ms", "9.0 MiB"),
    ]
    parts = {
        "title": "resnet_dw",
        "recipe": {"version": 1, "name": "resnet_dw", "data": {"name": "cifar10"}, "phases": ({"epochs": 40},)},
        "training": training(),
        "curves": curves(),
        "export": exported(),
        "profiles": [profile("fp32", 0.38), profile("fp16", 0.39), profile("int8", 0.195)],
        "gate": gated(),
        "summary": (columns, rows),
        "command": "kdedge run recipes/resnet_dw.yaml --set seed=0",
        "created": "2026-08-20 10:42",
        "asked": made_up_answers(LABELS),
        "layers": layer_views(),
        "against": paired_gate(),
        "devices": [orin([profile("int8", 0.8, 200)])],
        "earlier": ["jetson-nano"],
        "ablation": terms(),
    }
    return ReportData(**(parts | changes))


@pytest.fixture(scope="session")
def run() -> Callable[..., ReportData]:
    """`run(gate=None)`: a whole run with parts of it exchanged."""
    return whole_run


@pytest.fixture(scope="session")
def detector(run: Callable[..., ReportData]) -> Callable[..., ReportData]:
    """The same of a detector."""
    profiles = [profile("fp32", 11.2, 400), profile("int8", 6.1, 400)]
    return lambda **changes: run(**detector_run(**({"profiles": profiles} | changes)))


@pytest.fixture(scope="session")
def make_profile() -> Callable[..., ProfileReport]:
    return profile
