"""What a build asks of each version of TensorRT, against fakes that have what the version lists and nothing else."""

from typing import Any

import pytest
from faketrt import FakeTRT

from kdedge.core.errors import KdedgeError, MissingTool, ModelError
from kdedge.engine import trt as module
from kdedge.engine.base import backend

WEAK = ["8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11"]
ALL = [*WEAK, "11.4.0.106"]
CONV, POOL = ("conv", "CONVOLUTION", "FLOAT"), ("pool", "POOLING", "FLOAT")
FP32 = [CONV, POOL]
FP16 = [("conv", "CONVOLUTION", "HALF"), ("pool", "POOLING", "HALF")]
QDQ = [("q", "QUANTIZE", "INT8"), ("dq", "DEQUANTIZE", "FLOAT"), ("conv", "CONVOLUTION", "INT8")]


@pytest.mark.parametrize(
    ("version", "layers", "flags", "bits"),
    [
        ("8.6.1", FP32, set(), 0b01),
        ("8.6.1", FP16, {"FP16"}, 0b01),
        ("8.6.1", QDQ, {"INT8"}, 0b01),
        ("10.3.0", FP32, set(), 0b11),
        ("10.3.0", FP16, set(), 0b11),
        ("10.16.1.11", QDQ, set(), 0b11),
        ("11.4.0.106", FP16, set(), 0b1),
        ("11.4.0.106", QDQ, set(), 0b1),
    ],
)
def test_types_of_the_file_are_kept_by_strong_typing_or_allowed_by_flags(
    build_fake: Any, version: str, layers: list[Any], flags: set[str], bits: int
) -> None:
    built = build_fake(FakeTRT(version, layers))
    assert (built.trt.flags, built.trt.network_flags) == (flags, bits)
    assert built.sidecar["flags"] == sorted(flags)
    assert built.sidecar["weakly_typed"] is False


@pytest.mark.parametrize("version", WEAK)
def test_weak_types_are_flags_of_a_network_that_is_not_strongly_typed(build_fake: Any, version: str) -> None:
    built = build_fake(FakeTRT(version, FP32), weak_types=["int8", "fp16"])
    assert (built.trt.flags, built.trt.network_flags) == ({"FP16", "INT8"}, 1)
    assert built.precision == {"int8": 2}
    assert built.sidecar["weakly_typed"] is True


def test_weak_types_are_refused_where_the_file_alone_has_types(build_fake: Any) -> None:
    with pytest.raises(
        KdedgeError, match=r"option weak_types of backend trt: TensorRT 11\.4\.0\.106 is strongly typed"
    ):
        build_fake(FakeTRT("11.4.0.106", FP32), weak_types=["fp16"])


@pytest.mark.parametrize("version", ALL)
def test_options_that_every_version_has_become_flags(build_fake: Any, version: str) -> None:
    built = build_fake(
        FakeTRT(version, FP32), refit=True, version_compatible=True, tf32=True, optimization_level=5,
        hardware_compatibility="ampere_plus",
    )  # fmt: skip
    assert built.trt.flags == {"TF32", "REFIT", "VERSION_COMPATIBLE"}
    assert built.trt.config.builder_optimization_level == 5
    assert built.trt.config.hardware_compatibility_level.name == "AMPERE_PLUS"


def without(trt: FakeTRT, kind: str, name: str) -> FakeTRT:
    """The same version before it had a member."""
    delattr(getattr(trt, kind) if kind else trt, name)
    return trt


@pytest.mark.parametrize(
    ("trt", "options", "said"),
    [
        (FakeTRT("10.3.0", FP32), {"hardware_compatibility": "same_compute_capability"}, "10.3.0 has no Hardware"),
        (without(FakeTRT("8.6.1", FP32), "", "HardwareCompatibilityLevel"), {"hardware_compatibility": "ampere_plus"},
         "TensorRT 8.6.1 builds for one kind of GPU"),
        (without(FakeTRT("8.6.1", FP32), "BuilderFlag", "VERSION_COMPATIBLE"), {"version_compatible": True},
         "option version_compatible of backend trt: TensorRT 8.6.1 has no BuilderFlag.VERSION_COMPATIBLE"),
    ],
    ids=["level", "levels", "flag"],
)  # fmt: skip
def test_option_that_a_version_lacks_is_refused(
    build_fake: Any, trt: FakeTRT, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(KdedgeError, match=said):
        build_fake(trt, **options)


@pytest.mark.parametrize(
    ("layers", "options", "said"),
    [
        (FP16, {}, r"net\.onnx was asked for in fp16: TensorRT built its layers in fp32 \(2\)"),
        (QDQ, {}, r"net\.onnx was asked for in int8: TensorRT built its layers in fp32 \(3\)"),
        (FP32, {"weak_types": ["fp16"]}, r"asked for in fp16: .* fp32 \(2\)"),
    ],
)
def test_silent_fp32_is_an_error(build_fake: Any, layers: list[Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        build_fake(FakeTRT("8.6.1", layers, builds="FLOAT"), **options)


def test_int8_that_became_fp16_is_an_error(build_fake: Any) -> None:
    with pytest.raises(ModelError, match=r"asked for in int8: TensorRT built its layers in fp16 \(3\)"):
        build_fake(FakeTRT("10.3.0", QDQ, builds="HALF"))


@pytest.mark.parametrize("version", ALL)
def test_accelerator_takes_its_layers_at_one_batch_and_the_rest_is_told(build_fake: Any, version: str) -> None:
    trt = FakeTRT(
        version, [*FP16, ("shuffle", "SHUFFLE", "HALF"), ("fc", "CONVOLUTION", "HALF")], ("conv", "pool", "fc"), 2
    )
    built = build_fake(trt, dla_core=1, gpu_fallback=True, max_batch=4)
    assert built.trt.config.DLA_core == 1
    assert built.trt.config.default_device_type.name == "DLA"
    assert built.trt.flags - {"FP16"} == {"GPU_FALLBACK"}
    assert built.trt.profiles[0].shapes == [("images", (4, 3, 8, 8), (4, 3, 8, 8), (4, 3, 8, 8))]
    assert built.sidecar["dla"] == {
        "share": 0.75,
        "parts": ["{ForeignNode[conv]}", "{ForeignNode[pool]}", "{ForeignNode[fc]}"],
        "gpu_layers": ["SHUFFLE: shuffle"],
        "fallback": ["shuffle"],
    }


@pytest.mark.parametrize(
    ("layers", "on_dla", "options", "said"),
    [
        (
            FP16,
            ("conv",),
            {},
            "1 of 2 layers do not run on the deep learning accelerator: pool\n  .*gpu_fallback: true",
        ),
        (
            FP16,
            (),
            {"gpu_fallback": True},
            r"nothing of the engine runs on .*: the GPU was given SHUFFLE: conv; SHUFFLE",
        ),
        (FP32, ("conv", "pool"), {}, "computes in fp16 and int8 only, the model is fp32\n  .*weak_types: .fp16"),
    ],
    ids=["fallback", "nothing", "fp32"],
)
def test_accelerator_that_would_not_do_what_was_asked_is_an_error(
    build_fake: Any, layers: list[Any], on_dla: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(KdedgeError, match=said):
        build_fake(FakeTRT("8.6.1", layers, on_dla, 1), dla_core=0, **options)


def test_accelerator_that_there_is_not_is_a_missing_tool(build_fake: Any) -> None:
    with pytest.raises(MissingTool, match=r"accelerator 0: this machine has 0 that TensorRT 10\.16\.1\.11 can use"):
        build_fake(FakeTRT("10.16.1.11", FP16), dla_core=0)


@pytest.mark.parametrize(
    ("built", "here", "opens"),
    [
        ("8.6.1", "8.6.2", True),
        ("8.6.1", "10.3.0", True),
        ("10.3.0", "11.4.0.106", True),
        ("8.6.1", "11.4.0.106", False),
        ("10.3.0", "8.6.1", False),
        ("10.16.1", "10.3.0", False),
        ("None", "10.3.0", False),
    ],
)
def test_version_compatible_engine_opens_up_to_the_next_major_version(built: str, here: str, opens: bool) -> None:
    assert module.opens_in(built, here) is opens
    sidecar = {"options": {"version_compatible": True}, "versions": {"tensorrt": built, "gpu": "Orin 8.7"}}
    fields = backend("trt").may_differ(sidecar, {"tensorrt": here, "gpu": "Orin 8.7"})
    assert ("versions.tensorrt" in fields) is opens


@pytest.mark.parametrize(
    ("compatibility", "built", "here", "runs"),
    [
        ("none", "Orin 8.7", "Orin 8.7", False),
        ("ampere_plus", "Orin 8.7", "NVIDIA Thor 11.0", True),
        ("ampere_plus", "Orin 8.7", "Xavier 7.2", False),
        ("same_compute_capability", "Orin 8.7", "Orin Nano 8.7", True),
        ("same_compute_capability", "Orin 8.7", "NVIDIA A100 8.0", False),
        ("ampere_plus", "Orin 8.7", "none", False),
    ],
)
def test_hardware_compatible_engine_runs_on_the_gpus_it_was_made_for(
    compatibility: str, built: str, here: str, runs: bool
) -> None:
    assert module.runs_on(compatibility, built, here) is runs
