"""Memory of small graphs, worked out by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.footprint import LayerBytes
from kdedge.export.footprint import footprint

FLOAT = TensorProto.FLOAT


def save(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], batch: int | str = 1) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, [batch, 2, 4, 4])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"{kind}_{output}", **attributes)


RESIDUAL = [
    node("Conv", "x w1 b1", "a"),
    node("Relu", "a", "r"),
    node("Conv", "r w2", "c"),
    node("Add", "c r", "s"),
    node("Flatten", "s", "f"),
    node("Gemm", "f w3", "y"),
]
WEIGHTS = {
    "w1": np.ones((3, 2, 1, 1), np.float32),
    "b1": np.ones(3, np.float32),
    "w2": np.ones((3, 3, 1, 1), np.float32),
    "w3": np.ones((48, 5), np.float32),
}


def test_skip_connection_is_kept_until_it_is_added(tmp_path: Path) -> None:
    found = footprint(save(tmp_path / "m.onnx", RESIDUAL, WEIGHTS))
    # x is 2 x 4 x 4 floats, 128 bytes; every feature map 3 x 4 x 4, 192 bytes; y is 5 floats
    assert found.layers == (
        LayerBytes("Conv + Relu", ("Conv_a", "Relu_r"), 36, 192, 128 + 192),
        LayerBytes("Conv", ("Conv_c",), 36, 192, 192 + 192),
        LayerBytes("Add", ("Add_s",), 0, 192, 3 * 192),
        LayerBytes("Gemm", ("Gemm_y",), 960, 20, 192 + 20),
    )
    assert (found.batch, found.weights, found.peak.nodes) == (1, 1032, ("Add_s",))


def test_open_batch_is_the_one_that_is_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", RESIDUAL, WEIGHTS, "batch")
    assert [layer.live for layer in footprint(path, 4).layers] == [4 * live for live in (320, 384, 576, 212)]
    fixed = footprint(save(tmp_path / "m.onnx", RESIDUAL, WEIGHTS, 2), 4)
    assert (fixed.batch, fixed.peak.live) == (2, 1152)


def test_output_that_two_read_is_not_computed_in_place(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w1", "a"), node("Relu", "a", "r"), node("Add", "a r", "y")]
    found = footprint(save(tmp_path / "m.onnx", nodes, WEIGHTS))
    assert [(layer.kind, layer.live) for layer in found.layers] == [("Conv", 320), ("Relu", 384), ("Add", 576)]


def test_weights_that_two_read_count_once(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w1", "a"), node("Conv", "x w1", "b"), node("Add", "a b", "y")]
    assert [layer.weights for layer in footprint(save(tmp_path / "m.onnx", nodes, WEIGHTS)).layers] == [24, 0, 0]


def test_quantized_layers_keep_bytes(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "d"),
        node("DequantizeLinear", "w scale wzero", "dw"),
        node("Conv", "d dw", "c"),
        node("QuantizeLinear", "c scale zero", "p"),
        node("DequantizeLinear", "p scale zero", "y"),
    ]
    weights = {
        "scale": np.array(0.5, np.float32),
        "zero": np.array(0, np.uint8),
        "wzero": np.array(0, np.int8),
        "w": np.ones((3, 2, 1, 1), np.int8),
    }
    found = footprint(save(tmp_path / "m.onnx", nodes, weights))
    # scale and zero point count where they are first read: 4 + 1 bytes; then 6 bytes of weights and their zero point
    assert found.layers == (
        LayerBytes("QuantizeLinear", ("QuantizeLinear_q",), 5, 32, 128 + 32),
        LayerBytes("Conv + QuantizeLinear", ("Conv_c", "QuantizeLinear_p"), 7, 48, 32 + 48),
    )


@pytest.mark.parametrize("kind", ["Identity", "Flatten"])
def test_view_of_the_input_is_no_layer(kind: str, tmp_path: Path) -> None:
    nodes = [node(kind, "x", "v"), node("Relu", "v", "y")]
    found = footprint(save(tmp_path / "m.onnx", nodes, {}))
    assert found.layers == (LayerBytes("Relu", ("Relu_y",), 0, 128, 256),)
