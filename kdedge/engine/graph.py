"""What an optimized ONNX file holds: the types its nodes compute in, and inputs that nothing reads any more.

Asked for and built are two things: a CPU without half-precision kernels gets casts to fp32 around each node, and a
quantizer may leave nodes out.  The file says which.
Part of the device closure: Python 3.8, standard library, and onnx inside the functions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kdedge.core.errors import require

FLOATS = {"FLOAT": "fp32", "FLOAT16": "fp16", "DOUBLE": "fp64", "BFLOAT16": "bf16"}
INTEGERS = {"INT8", "UINT8"}
QUANTIZED = re.compile(r"^(QLinear|QGemm|QAttention|DynamicQuantize(MatMul|LSTM)|\w*Integer)")
MOVES = frozenset(
    [
        "Cast",
        "CastLike",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Constant",
        "ConstantOfShape",
        "Identity",
        "Shape",
        "Size",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "ReorderInput",
        "ReorderOutput",
        "Concat",
        "QLinearConcat",
        "Split",
        "Slice",
        "Gather",
        "Expand",
        "Tile",
        "Pad",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)


def count_precisions(path: Path) -> dict[str, int]:
    """Nodes that do arithmetic on real numbers, by the type they do it in; those that move or convert are left out.

    Empty where onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        return {}
    graph = onnx.load(str(path), load_external_data=False).graph
    name_of = onnx.TensorProto.DataType.Name
    types = {value.name: name_of(value.type.tensor_type.elem_type) for value in graph.input}
    types.update({tensor.name: name_of(tensor.data_type) for tensor in graph.initializer})
    counts: dict[str, int] = {}
    for node in graph.node:
        taken = next((types[name] for name in node.input if types.get(name, "BOOL") != "BOOL"), "")
        made = _made(node, taken, types, name_of)
        types.update(dict.fromkeys(node.output, made))
        precision = _precision(node.op_type, taken)
        if precision:
            counts[precision] = counts.get(precision, 0) + 1
    return counts


def operators_of(path: Path) -> set[str]:
    """The operators of a file's nodes.

    Raises:
        MissingTool: onnx is not installed.
    """
    onnx = require("onnx", "", "telling what types an ONNX file asks for")
    return {str(node.op_type) for node in onnx.load(str(path), load_external_data=False).graph.node}


def _precision(op: str, taken: str) -> str:
    if op in MOVES:
        return ""
    return "int8" if QUANTIZED.match(op) or taken in INTEGERS else FLOATS.get(taken, "")


def _made(node: Any, taken: str, types: dict[str, str], name_of: Any) -> str:
    """The element type of a node's outputs: its input's, but for the few operators that change it.

    The optimized file does not say.
    """
    attributes = {attribute.name: attribute for attribute in node.attribute}
    op = node.op_type
    if op == "Cast":
        return str(name_of(attributes["to"].i))
    if op == "Constant":
        return str(name_of(attributes["value"].t.data_type)) if "value" in attributes else ""
    if op in ("QuantizeLinear", "DynamicQuantizeLinear"):
        return types.get(node.input[2], "UINT8") if len(node.input) > 2 else "UINT8"
    if op == "DequantizeLinear":
        return types.get(node.input[1], "FLOAT")
    if op in ("Shape", "Size", "ArgMax", "ArgMin", "NonZero"):
        return "INT64"
    if op in ("ConvInteger", "MatMulInteger"):
        return "INT32"
    if op in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And", "Or", "IsNaN", "IsInf"):
        return "BOOL"
    return "FLOAT" if op.endswith("ToFloat") else taken


def remove_inputs(path: Path, names: set[str]) -> None:
    """Take graph inputs out of a file, in place."""
    onnx = require("onnx", "", "building from a model that lists its weights as inputs (IR version 3)")
    model = onnx.load(str(path))
    for value in [value for value in model.graph.input if value.name in names]:
        model.graph.input.remove(value)
    onnx.save(model, str(path))
