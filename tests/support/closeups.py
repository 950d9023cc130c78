"""The parts of a made-up run that look closer: answers to test images, layers, a paired gate, a board, an ablation."""

from typing import Any

import numpy as np

from kdedge.core.device import DeviceReport
from kdedge.core.footprint import Footprint, LayerBytes
from kdedge.core.paired import AgainstReport, PairedTimes
from kdedge.core.profiling import LayerCost, LayersReport, ProfileReport
from kdedge.core.quality import Quality
from kdedge.core.recipe import Normalize
from kdedge.core.report import Check, GateResult, Hop
from kdedge.report.ablation import Ablation, AblationTeacher, Trained
from kdedge.report.answers import Asked
from kdedge.report.devices import Measured, board
from kdedge.report.layers import LayersView

ORIN = {
    "match": {"board": "NVIDIA Jetson Orin Nano", "cpu": "Cortex-A78AE", "power_mode": "25W", "tensorrt": "10.3.0"},
    "note": {"memory_total": 7_989_248_000, "clocks": {"cpu": 1_510_400, "gpu": 918_000}, "distro": "Ubuntu 22.04"},
}


def made_up_answers(names: list[str], images: int = 400, size: int = 32) -> Asked:
    random = np.random.default_rng(4)
    labels = np.arange(images) % len(names)
    outputs = random.normal(0, 1.2, (images, len(names))).astype(np.float32)
    outputs[np.arange(images), labels] += 3
    lower = outputs + random.normal(0, 0.3, outputs.shape).astype(np.float32)
    return Asked(
        images=random.normal(0, 1, (images, 3, size, size)).astype(np.float32),
        normalize=Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        labels=labels,
        ids=np.arange(images),
        names=names,
        deployed={"engine-fp32": outputs, "engine-int8": lower},
        others={"teacher": outputs * 2, "labels alone": outputs[::-1]},
    )


def layer_bytes(number: int) -> LayerBytes:
    nodes = (f"conv{number}", f"relu{number}")
    return LayerBytes("Conv + Relu", nodes, 640 * number, 65536 // number, 131072 // number)


def footprint(layers: int = 20) -> Footprint:
    return Footprint(1, tuple(layer_bytes(number) for number in range(1, layers + 1)))


def layer_times(name: str, layers: int = 20, **changes: Any) -> LayersReport:
    costs = [
        LayerCost(
            name=f"fused_conv{number}_with_a_name_that_is_long",
            kind="Conv",
            nodes=[f"conv{number}", f"relu{number}"] if number != 2 else [],
            mean_ms=0.012 * number,
            median_ms=0.01 * number,
            share=number / sum(range(1, layers + 1)),
        )
        for number in range(1, layers + 1)
    ]
    parts = {
        "name": name,
        "model": f"student-{name}.ort",
        "model_sha256": "d" * 64,
        "backend": "ort",
        "provider": "CPUExecutionProvider",
        "batch": 1,
        "threads": 2,
        "queries": 100,
        "query_ms": 2.5,
        "plain_ms": 2.2,
        "layers": costs,
        "device": ORIN,
        "notes": ["ONNX Runtime counts whole microseconds for each layer"],
    }
    return LayersReport(**(parts | changes))


def layer_views() -> list[LayersView]:
    return [LayersView("fp32", footprint(), layer_times("fp32")), LayersView("int8", footprint(3))]


def paired_times(name: str, ratio: float, **changes: Any) -> PairedTimes:
    parts = {
        "name": name,
        "outcome": "pass" if ratio < 1.03 else "regression",
        "ratio": ratio,
        "interval": (ratio - 0.01, ratio + 0.01),
        "ratios": [ratio - 0.015, ratio, ratio + 0.005, ratio + 0.01],
        "base_ms": 0.5,
        "new_ms": 0.5 * ratio,
        "limit": 0.03,
        "seconds": 9.0,
    }
    return PairedTimes(**(parts | changes))


def paired_gate() -> AgainstReport:
    check = Check(
        metric="int8/latency", value=0.55, unit="ms", limit="<= base + 3 %", baseline=0.5, verdict="regression"
    )
    result = GateResult(verdict="regression", checks=[check], warnings=["a warm-up was short"], against="resnet_dw-old")
    throttled = ["CPU: 1.2 of 1.5 GHz"] * 2
    return AgainstReport(
        result=result, times=[paired_times("fp32", 1.004), paired_times("int8", 1.1, throttled=throttled)]
    )


def orin(profiles: list[ProfileReport], **changes: Any) -> Measured:
    quality = Quality(images=400, top1=0.875, per_class=[0.875], ece=0.02)
    hops = [Hop(name="engine-fp32", quality=quality), Hop(name="engine-int8", quality=quality, notes=["128 images"])]
    parts = {"device": ORIN, "backend": "trt", "hops": hops, "profiles": [each.name for each in profiles]}
    return board(DeviceReport(**(parts | changes)), profiles)


def terms() -> Ablation:
    def row(label: str, role: Any, top1: float, **more: Any) -> Trained:
        return Trained(label=label, role=role, top1={0: top1, 1: top1 + 0.01}, seconds=1.5, extra_params=0, **more)

    return Ablation(
        recipe="resnet_dw",
        student="resnet20",
        data="cifar10",
        teachers=[AblationTeacher(name="resnet56", top1=0.94, source="resnet56.safetensors")],
        seeds=[0, 1],
        epochs=40,
        train_images=45000,
        test_images=10000,
        trained=[
            row("labels alone", "labels", 0.88),
            row("+ logits", "added", 0.9, term="logits", beside="labels alone"),
            row("the whole", "whole", 0.89),
        ],
        failed=[],
        settings={},
        environment={"torch": "2.15.0"},
    )
