"""ONNX Runtime's CUDA and TensorRT backends: refused for real without a GPU, and with its CPU standing in for one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from kdedge.core.errors import KdedgeError, MissingTool, ModelError
from kdedge.engine import ort_gpu
from kdedge.engine.base import Backend, backend, backend_names
from kdedge.engine.ort_gpu import OrtCudaBackend, OrtTensorRTBackend, nodes_on_cpu

MakeNet = Callable[..., Path]
PROVIDERS = {"ort_cuda": "CUDAExecutionProvider", "ort_tensorrt": "TensorrtExecutionProvider"}
GPU = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has the GPU's providers"
)


class Asked:
    """What onnxruntime was asked for, and the real CPU session that stands in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, loads: bool = True) -> None:
        self.providers: list[tuple[str, dict[str, str]]] = []
        real, asked = onnxruntime.InferenceSession, self

        class Session(real):  # type: ignore[misc, valid-type]
            def __init__(self, path: str, options: Any, providers: Any, enable_fallback: bool) -> None:
                assert not enable_fallback, "onnxruntime would try the CPU by itself, and print it"
                asked.providers += providers
                super().__init__(path, options, providers=["CPUExecutionProvider"])

            def get_providers(self) -> list[str]:
                return [asked.providers[-1][0], "CPUExecutionProvider"] if loads else ["CPUExecutionProvider"]

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: [*PROVIDERS.values(), "CPUExecutionProvider"]
        )


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    """A machine whose GPU runs everything: the profile names no CPU."""
    monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ort_gpu, "PROVIDERS", ("NoSuchProvider",))
    monkeypatch.setattr(ort_gpu, "gpu", lambda: "Orin 8.7")
    return Asked(monkeypatch)


def test_both_are_backends() -> None:
    assert {"ort", "ort_cuda", "ort_tensorrt"} <= set(backend_names())


@GPU
@pytest.mark.parametrize("name", PROVIDERS)
def test_provider_that_this_onnxruntime_lacks_names_the_package(name: str, make_net: MakeNet, tmp_path: Path) -> None:
    for attempt in (
        lambda: backend(name).build(make_net(), tmp_path / "net.engine.onnx", {}),
        lambda: backend(name).open(make_net(), {}),
    ):
        with pytest.raises(MissingTool, match=f"{PROVIDERS[name]} is not in this onnxruntime: it has ") as caught:
            attempt()
        assert "pip install onnxruntime-gpu" in caught.value.fix
    assert not (tmp_path / "net.engine.onnx").exists()


@pytest.mark.parametrize(
    ("name", "library"), [("ort_cuda", "onnxruntime-gpu[cuda,cudnn]"), ("ort_tensorrt", "libraries of the TensorRT")]
)
def test_provider_that_does_not_load_names_its_libraries(
    name: str, library: str, make_net: MakeNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    Asked(monkeypatch, loads=False)
    with pytest.raises(MissingTool, match="does not load: asked for it, onnxruntime fell back to CPUExec") as caught:
        backend(name).open(make_net(), {})
    assert library in caught.value.fix


@pytest.mark.parametrize("name", PROVIDERS)
def test_nodes_that_the_cpu_computes_are_an_error_that_names_them(
    name: str, make_net: MakeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path / "cache"))
    Asked(monkeypatch)
    engine: Backend = backend(name)
    with pytest.raises(ModelError, match=r"4 nodes of net\.engine\.onnx fell back to the CPU: .*Conv .*GlobalAverage"):
        engine.build(make_net(), tmp_path / "net.engine.onnx", {})
    assert not (tmp_path / "net.engine.onnx").exists()
    with pytest.raises(ModelError, match=rf"4 nodes of net-fp32\.onnx fell back .*{PROVIDERS[name]} does not take"):
        engine.open(make_net(), {})


def test_engine_is_the_file_and_computes_it(on_gpu: Asked, make_net: MakeNet, tmp_path: Path) -> None:
    source, engine, feeds = make_net(), tmp_path / "net.engine.onnx", {"image": np.ones((2, 3, 32, 32), np.float32)}
    assert OrtCudaBackend().build(source, engine, {}) == {"fp32": 4 + 2}  # the ReLUs, too: fused only when opened
    assert engine.read_bytes() == source.read_bytes()
    sidecar = json.loads((tmp_path / "net.engine.onnx.json").read_text())
    assert sidecar["versions"] == {"onnxruntime": onnxruntime.__version__, "gpu": "Orin 8.7"}
    with OrtCudaBackend().open(engine, {}) as session, backend("ort").open(source, {}) as plain:
        assert (session.provider, session.precision_built()) == ("CUDAExecutionProvider", {"fp32": 6})
        np.testing.assert_allclose(session.run(feeds)["logits"], plain.run(feeds)["logits"], rtol=1e-5)


def test_engine_of_another_gpu_is_refused_and_of_another_cpu_not(
    on_gpu: Asked, make_net: MakeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "net.engine.onnx"
    OrtCudaBackend().build(make_net(), engine, {})
    path = tmp_path / "net.engine.onnx.json"
    sidecar = json.loads(path.read_text())
    path.write_text(json.dumps({**sidecar, "device": {**sidecar["device"], "cpu": "another"}}))
    OrtCudaBackend().open(engine, {}).close()
    monkeypatch.setattr(ort_gpu, "gpu", lambda: "Orin Nano 8.7")
    with pytest.raises(
        ModelError, match=r"versions\.gpu: built with Orin 8\.7, here Orin Nano 8\.7\n  kdedge export  "
    ):
        OrtCudaBackend().open(engine, {})


def test_options_of_the_provider_win_over_kdedges(on_gpu: Asked, make_net: MakeNet) -> None:
    OrtCudaBackend().open(make_net(), {"provider_options": {"use_tf32": True, "gpu_mem_limit": 1 << 30}}).close()
    assert on_gpu.providers[-1] == ("CUDAExecutionProvider", {"use_tf32": "1", "gpu_mem_limit": "1073741824"})


@pytest.mark.parametrize(
    ("precision", "fp16", "int8"), [("fp32", "0", "0"), ("fp16", "1", "0"), ("symmetric int8", "0", "1")]
)
def test_tensorrt_may_use_the_types_that_the_file_has(
    request: pytest.FixtureRequest, make_net: MakeNet, tmp_path: Path, precision: str, fp16: str, int8: str
) -> None:
    source = make_net(precision)  # its quantizer needs the real onnxruntime
    on_gpu: Asked = request.getfixturevalue("on_gpu")
    OrtTensorRTBackend().open(source, {}).close()
    name, options = on_gpu.providers[-1]
    assert (name, options["trt_fp16_enable"], options["trt_int8_enable"]) == (PROVIDERS["ort_tensorrt"], fp16, int8)
    assert options["trt_engine_cache_path"] == str(tmp_path / "cache/ort_tensorrt")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"provider": "CUDAExecutionProvider"}, "unknown option 'provider' of backend ort_cuda"),
        ({"provider_option": {}}, "did you mean 'provider_options'"),
        ({"provider_options": ["a"]}, r"expected names with plain values, given \['a'\]"),
        ({"provider_options": {"device_id": None}}, "expected names with plain values"),
        ({"threads": 0}, "option threads of backend ort_cuda: expected a whole number"),
    ],
)
def test_option_that_it_cannot_have_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(KdedgeError, match=said):
        backend("ort_cuda").settings(options)


def test_settings_are_plain_and_settings_again() -> None:
    settings = backend("ort_tensorrt").settings({})
    assert json.loads(json.dumps(settings)) == settings == backend("ort_tensorrt").settings(settings)


def test_nodes_that_only_move_are_left_to_the_cpu() -> None:
    def event(name: str, operator: str, provider: str) -> dict[str, Any]:
        details = {"op_name": operator, "provider": provider}
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": details}

    events = [
        event("a", "Conv", "CUDAExecutionProvider"),
        event("b", "Shape", "CPUExecutionProvider"),
        event("c", "Softmax", "CPUExecutionProvider"),
        event("c", "Softmax", "CPUExecutionProvider"),
        {"cat": "Session", "name": "model_run"},
    ]
    assert nodes_on_cpu(json.dumps(events)) == ["Softmax c"]
