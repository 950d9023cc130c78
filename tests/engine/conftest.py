"""Small networks made on the spot (convolution, depthwise convolution, pooling, classifier), and fakes of TensorRT."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from fakecuda import FakeCuda
from faketrt import Built, FakeTRT, build_engine
from onnx import TensorProto, helper, numpy_helper

from kdedge.engine import trt_layers

MakeNet = Callable[..., Path]


def conv_net(float_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(float_type)
    sizes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 1, 3, 3), "fc": (10, 16)}
    weights = [
        numpy_helper.from_array(generator.normal(0, 0.2, size).astype(dtype), name) for name, size in sizes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1], group=16),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "fc"], ["logits"], transB=1),
    ]
    image = helper.make_tensor_value_info("image", float_type, ["batch", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", float_type, ["batch", 10])
    graph = helper.make_graph(nodes, "net", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


TENSORRT = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


def quantize(source: Path, out: Path, options: dict[str, Any] | None = None) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.random.default_rng(1).random((3, 4, 3, 32, 32), dtype=np.float32))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {"image": batch}

    quantize_static(source, out, Images(), quant_format=QuantFormat.QDQ, per_channel=True, extra_options=options or {})


@pytest.fixture
def make_net(tmp_path: Path) -> MakeNet:
    """make_net("fp32" | "fp16" | "int8" | "symmetric int8") -> an ONNX file."""

    def make(precision: str = "fp32") -> Path:
        path = tmp_path / f"net-{precision}.onnx"
        if precision.endswith("int8"):
            quantize(make("fp32"), path, TENSORRT if precision == "symmetric int8" else None)
        else:
            onnx.save(conv_net(TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT), path)
        return path

    return make


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", made)
    return made


@pytest.fixture
def engine_path(tmp_path: Path) -> Path:
    (tmp_path / "net.engine").write_bytes(b"engine")
    return tmp_path / "net.engine"


@pytest.fixture
def build_fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Built]:
    """build_fake(FakeTRT(...), **options) -> the engine's build, with a cache of its own."""
    monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trt_layers, "gpu", lambda: "")

    def build(trt: FakeTRT, **options: Any) -> Built:
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        return build_engine(trt, tmp_path, options)

    return build
