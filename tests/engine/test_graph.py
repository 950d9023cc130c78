import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge.engine.graph import count_precisions


@pytest.fixture
def save(tmp_path):
    def write(nodes, input_type=TensorProto.FLOAT, **weights):
        tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
        x = helper.make_tensor_value_info("x", input_type, [4, 4])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        path = tmp_path / "graph.onnx"
        onnx.save(helper.make_model(helper.make_graph(nodes, "graph", [x], [y], tensors)), path)
        return path

    return write


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


def test_half_precision_between_casts_to_fp32_counts_as_fp32(save):
    nodes = [
        node("Relu", "x", "a"),
        node("Cast", "a", "b", to=TensorProto.FLOAT),
        node("MatMul", "b b", "c"),
        node("Sigmoid", "c", "d"),
        node("Cast", "d", "y", to=TensorProto.FLOAT16),
    ]
    assert count_precisions(save(nodes, TensorProto.FLOAT16)) == {"fp16": 1, "fp32": 2}


def test_quantized_nodes_count_as_int8_and_their_neighbors_do_not(save):
    nodes = [
        node("QuantizeLinear", "x scale zero", "a"),
        node("MaxPool", "a", "b", kernel_shape=[1]),
        node("QLinearMatMul", "b scale zero b scale zero scale zero", "c"),
        node("DequantizeLinear", "c scale zero", "d"),
        node("Softmax", "d", "y"),
    ]
    weights = {"scale": np.array(0.1, dtype=np.float32), "zero": np.array(3, dtype=np.uint8)}
    assert count_precisions(save(nodes, **weights)) == {"int8": 2, "fp32": 1}


def test_integer_accumulation_counts_as_int8_and_its_rescaling_as_fp32(save):
    nodes = [
        node("DynamicQuantizeLinear", "x", "a"),
        node("MatMulInteger", "a w", "b"),
        node("Cast", "b", "c", to=TensorProto.FLOAT),
        node("Mul", "c scale", "y"),
    ]
    weights = {"w": np.ones((4, 4), dtype=np.int8), "scale": np.array(0.1, dtype=np.float32)}
    assert count_precisions(save(nodes, **weights)) == {"int8": 1, "fp32": 1}


def test_shape_arithmetic_is_no_computation_of_the_network(save):
    nodes = [
        node("Shape", "x", "s"),
        node("Mul", "s s", "t"),
        node("Greater", "x x", "m"),
        node("Where", "m x x", "w"),
        node("Transpose", "w", "y"),
    ]
    assert count_precisions(save(nodes)) == {"fp32": 2}  # Greater and Where


def test_counts_are_unknown_without_the_onnx_package(save, monkeypatch):
    path = save([node("Relu", "x", "y")])
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert count_precisions(path) == {}
