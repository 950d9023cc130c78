import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.deployment import Calibration, Export, Quantization
from kdedge.core.errors import ModelError
from kdedge.core.stats import output_error
from kdedge.export.int8 import to_int8
from kdedge.export.onnx import load, read_metadata
from kdedge.export.precision import to_fp16

Images = NDArray[np.float32]
Infer = Callable[[Path, NDArray[Any]], NDArray[np.float32]]
METHODS = ["minmax", "entropy", "percentile"]
TENSORRT = Quantization(activations="int8", symmetric=True, quantize_bias=False)


def constants(path: Path) -> dict[str, NDArray[Any]]:
    return {value.name: numpy_helper.to_array(value) for value in load(path).graph.initializer}


def test_fp16_halves_the_weights_and_keeps_inputs_and_outputs(
    fp32: Path, images: Images, infer: Infer, tmp_path: Path
) -> None:
    path = tmp_path / "fp16.onnx"
    to_fp16(fp32, path)
    exact, half = constants(fp32), constants(path)
    weights = [name for name, value in exact.items() if value.dtype == np.float32]
    assert len(weights) == 12
    assert all(np.array_equal(half[name], exact[name].astype(np.float16)) for name in weights)
    graph = load(path).graph
    assert [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)] == [TensorProto.FLOAT] * 2
    assert output_error(infer(fp32, images), infer(path, images))[0] < 5e-3


def test_int8_weights_have_one_scale_a_channel(fp32: Path, images: Images, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    to_int8(fp32, path, images, Export())
    exact, made, graph = constants(fp32), constants(path), load(path).graph
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    groups = [attribute.i for node in convolutions for attribute in node.attribute if attribute.name == "group"]
    assert groups == [1, 8, 1, 16, 1]
    sources = [node for node in load(fp32).graph.node if node.op_type == "Conv"]
    for node, source in zip(convolutions, sources, strict=True):
        weight, pair = exact[source.input[1]], dequantized[node.input[1]]
        assert [attribute.i for attribute in pair.attribute if attribute.name == "axis"] == [0]
        assert made[pair.input[0]].dtype == np.int8
        np.testing.assert_allclose(made[pair.input[1]], np.abs(weight).max(axis=(1, 2, 3)) / 127, rtol=1e-5)


@pytest.mark.parametrize(("method", "tolerance"), [("minmax", 0.05), ("entropy", 0.05), ("percentile", 0.05)])
def test_int8_stays_near_the_original(
    fp32: Path, images: Images, infer: Infer, tmp_path: Path, method: Any, tolerance: float
) -> None:
    to_int8(fp32, tmp_path / "int8.onnx", images, Export(calibration=Calibration(method=method, chunk=16)))
    assert output_error(infer(fp32, images), infer(tmp_path / "int8.onnx", images))[0] < tolerance


@pytest.mark.parametrize(
    ("quantization", "dtype", "scale", "zero"),
    [(Quantization(), np.uint8, 4 / 255, 64), (TENSORRT, np.int8, 3 / 127, 0)],
    ids=["uint8", "symmetric int8"],
)
def test_int8_activations_span_what_calibration_saw(
    fp32: Path, images: Images, tmp_path: Path, quantization: Quantization, dtype: Any, scale: float, zero: int
) -> None:
    """From -1 to 3."""
    seen = (images - images.min()) / (images.max() - images.min()) * 4 - 1
    to_int8(fp32, tmp_path / "int8.onnx", seen, Export(quantization=quantization))
    made = constants(tmp_path / "int8.onnx")
    assert made["images_scale"] == pytest.approx(scale, rel=1e-4)
    assert (made["images_zero_point"].dtype, int(made["images_zero_point"])) == (dtype, zero)


@pytest.mark.parametrize(("quantization", "integers"), [(Quantization(), 6), (TENSORRT, 0)])
def test_int8_biases_are_quantized_when_asked(
    fp32: Path, images: Images, tmp_path: Path, quantization: Quantization, integers: int
) -> None:
    to_int8(fp32, tmp_path / "int8.onnx", images, Export(quantization=quantization))
    biases = [name for name in constants(tmp_path / "int8.onnx") if name.endswith("bias_quantized")]
    assert len(biases) == integers


def test_smaller_precisions_keep_the_metadata(fp32: Path, images: Images, tmp_path: Path) -> None:
    to_fp16(fp32, tmp_path / "fp16.onnx")
    to_int8(fp32, tmp_path / "int8.onnx", images[:20], Export(quantization=TENSORRT))
    exact = read_metadata(fp32)
    assert read_metadata(tmp_path / "fp16.onnx") == exact | {"precision": "fp16"}
    assert read_metadata(tmp_path / "int8.onnx") == exact | {
        "precision": "int8",
        "calibration": {"method": "minmax", "images": 20, "percentile": 99.99, "chunk": 64},
        "quantization": {
            "cpu": "",
            "activations": "int8",
            "symmetric": True,
            "reduce_range": False,
            "learned": 0,
            "quantize_bias": False,
            "rest": "fp32",
        },
        "left_in_float": [],
    }
    assert [entry.key for entry in load(tmp_path / "int8.onnx").metadata_props] == ["kdedge"]


def test_conversions_are_silent_and_leave_one_file(
    fp32: Path,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    before = sorted(fp32.parent.iterdir())
    to_fp16(fp32, tmp_path / "fp16.onnx")
    for method in METHODS:
        to_int8(fp32, tmp_path / "int8.onnx", images[:8], Export(calibration=Calibration(method=method)))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["fp16.onnx", "int8.onnx", "temporary"]
    assert sorted(fp32.parent.iterdir()) == before


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 3, 16, 16), np.float32),
        np.zeros((4, 3, 16, 16), np.uint8),
        np.zeros((4, 16, 16, 3), np.float32),
        np.zeros((3, 16, 16), np.float32),
    ],
    ids=["none", "dtype", "layout", "one image"],
)
def test_int8_refuses_images_that_do_not_fit_the_input(fp32: Path, tmp_path: Path, wrong: NDArray[Any]) -> None:
    with pytest.raises(ModelError, match=r"calibration images of .*model.onnx takes float32 \(batch, 3, 16, 16\)"):
        to_int8(fp32, tmp_path / "int8.onnx", wrong, Export())
    assert not any(tmp_path.iterdir())


def test_int8_refuses_a_model_with_nothing_to_quantize(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("images", "logits")]
    graph = helper.make_graph([helper.make_node("Erf", ["images"], ["logits"])], "odd", values[:1], values[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "odd.onnx"
    )
    with pytest.raises(ModelError, match=r"odd\.onnx cannot be made int8"):
        to_int8(tmp_path / "odd.onnx", tmp_path / "int8.onnx", np.ones((4, 4), np.float32), Export())


def test_conversions_and_parity_import_no_torch() -> None:
    modules = "kdedge.export.onnx, kdedge.export.precision, kdedge.export.parity"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
