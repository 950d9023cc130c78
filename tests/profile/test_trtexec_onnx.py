"""The small reader of ONNX files, beside what the onnx package wrote."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge.core.errors import ModelError
from kdedge.engine.base import TensorSpec
from kdedge.profile.trtexec_onnx import read_outline


def save(path, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "net", inputs, outputs, list(weights))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def tensor(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def test_outline_names_inputs_and_outputs_without_the_weights(tmp_path):
    weight = numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    x, listed = tensor("x", TensorProto.FLOAT, ["n", 3]), tensor("w", TensorProto.FLOAT, [3, 2])
    y = tensor("y", TensorProto.FLOAT, ["n", 2])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    found = read_outline(save(tmp_path / "net.onnx", [node], [x, listed], [y], [weight]))
    assert found == ([TensorSpec("x", (None, 3), "float32")], [TensorSpec("y", (None, 2), "float32")], set())


@pytest.mark.parametrize(
    ("kind", "name"),
    [(TensorProto.UINT8, "uint8"), (TensorProto.INT64, "int64"), (TensorProto.BOOL, "bool")],
)
def test_outline_names_types_as_numpy_does(kind, name, tmp_path):
    x, y = tensor("größe", kind, [1, 300, 300, 3]), tensor("y", kind, [])
    found = read_outline(save(tmp_path / "net.onnx", [helper.make_node("Neg", ["größe"], ["y"])], [x], [y]))
    assert found.inputs == [TensorSpec("größe", (1, 300, 300, 3), name)]
    assert found.outputs == [TensorSpec("y", (), name)]


def test_outline_tells_the_types_below_fp32(tmp_path):
    x, y = tensor("x", TensorProto.FLOAT, [1, 2]), tensor("y", TensorProto.FLOAT, [1, 2])
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)
    quantize = helper.make_node("QuantizeLinear", ["x", "s"], ["y"])
    back = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    half = numpy_helper.from_array(np.float16(0.5), "h")
    path = tmp_path / "net.onnx"
    assert read_outline(save(path, [cast], [x], [y])).types == {"fp16"}
    assert read_outline(save(path, [quantize], [x], [y], [scale])).types == {"int8"}
    assert read_outline(save(path, [back], [x], [y])).types == set()
    assert read_outline(save(path, [back], [x], [y], [half])).types == {"fp16"}
    assert read_outline(save(path, [back], [tensor("x", TensorProto.FLOAT16, [1])], [y])).types == {"fp16"}


def test_what_is_no_onnx_file_is_refused_wherever_it_is_cut(tmp_path):
    x, y = tensor("x", TensorProto.FLOAT, [1, 2]), tensor("y", TensorProto.FLOAT, [1, 2])
    path = save(tmp_path / "net.onnx", [helper.make_node("Neg", ["x"], ["y"])], [x], [y])
    content = path.read_bytes()
    for size in range(content.index(b"y") + 1):
        path.write_bytes(content[:size])
        with pytest.raises(ModelError, match="it is not an ONNX file"):
            read_outline(path)
    for other in (b"", b"\x00\xff" * 40, b"\x7fELF" + bytes(64), b"\xff" * 64):
        path.write_bytes(other)
        with pytest.raises(ModelError, match="it is not an ONNX file"):
            read_outline(path)


def test_tensor_of_another_type_is_refused(tmp_path):
    x, y = tensor("x", TensorProto.STRING, [1]), tensor("y", TensorProto.STRING, [1])
    path = save(tmp_path / "net.onnx", [helper.make_node("Identity", ["x"], ["y"])], [x], [y])
    with pytest.raises(ModelError, match="x is of a type that trtexec does not take"):
        read_outline(path)
