"""Bytes of weights and activations by layer, from an ONNX file by shape inference."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, NodeProto, helper

from kdedge.core.footprint import Footprint, LayerBytes
from kdedge.export.onnx import load

VIEWS = frozenset(["DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"])
"""Operators that make no tensor of their own: engines read through them."""
ACTIVATIONS = ("Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh")
IN_PLACE = frozenset([*ACTIVATIONS, "BatchNormalization", "QuantizeLinear"])
"""Operators that engines compute on the output of the layer before, where nothing else reads that."""


def footprint(path: Path, batch: int = 1) -> Footprint:
    """What the layers of a model keep, in the order of the file, which is one that they can run in.

    A tensor counts from the layer that makes it to the last one that reads it.  An engine that fuses more, or reuses
    memory less, needs another amount.
    """
    model = load(path)
    for value in model.graph.input:
        first = value.type.tensor_type.shape.dim[0]
        batch = first.dim_value = first.dim_value or batch  # a file may be for one batch only
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    return Footprint(batch, tuple(Walk(graph).layers()))


class Walk:
    """Goes over the nodes; each tensor goes by the name of the one that it is a view of."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.weights = {tensor.name: count(tensor.data_type, tensor.dims) for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.weights]
        self.bytes = {value.name: bytes_of(value) for value in (*graph.input, *graph.value_info, *graph.output)}
        self.readers = Counter(name for node in graph.node for name in node.input)
        self.readers.update(value.name for value in graph.output)
        self.base: dict[str, str] = {}
        self.riders: dict[str, list[str]] = {}
        self.groups: list[list[NodeProto]] = []
        self.maker: dict[str, int] = {}

    def layers(self) -> list[LayerBytes]:
        for node in self.graph.node:
            self.place(node)
        reads = [self.reads(group) for group in self.groups]
        last = {name: index for index, names in enumerate(reads) for name in names}
        last |= {self.name(value.name): len(reads) for value in self.graph.output}
        live, seen, found = {name: self.bytes[name] for name in self.inputs}, set[str](), []
        for index, group in enumerate(self.groups):
            made = {name: self.bytes.get(name, 0) for name in group[0].output if name}
            live |= made
            own = {name for name in reads[index] if name in self.weights} - seen
            seen |= own
            found.append(
                LayerBytes(
                    " + ".join(node.op_type for node in group),
                    tuple(node.name or node.output[0] for node in group),
                    sum(self.weights[name] for name in own),
                    sum(made.values()),
                    sum(live.values()),
                )
            )
            live = {name: size for name, size in live.items() if last.get(name, -1) > index}
        return found

    def place(self, node: NodeProto) -> None:
        """A layer of its own, part of the one before, or no more than another name."""
        if node.op_type == "Constant":
            self.weights[node.output[0]] = constant_bytes(node)
            return
        source = self.name(node.input[0]) if node.input else ""
        maker = self.maker.get(source)
        joins = node.op_type in IN_PLACE and maker is not None and self.readers[node.input[0]] == 1
        if joins or node.op_type in VIEWS:
            self.base[node.output[0]] = source
            self.riders.setdefault(source, []).extend(node.input[1:])
        if joins and maker is not None:
            self.groups[maker].append(node)
            self.bytes[source] = self.bytes.get(node.output[0], self.bytes.get(source, 0))
        elif node.op_type not in VIEWS:
            self.maker |= dict.fromkeys(node.output, len(self.groups))
            self.groups.append([node])

    def reads(self, group: list[NodeProto]) -> list[str]:
        """Tensors that a layer reads, the scales of those that it reads through a conversion included."""
        own = {output for node in group for output in node.output}
        names = [self.name(name) for node in group for name in node.input if name and name not in own]
        return names + [self.name(rider) for name in names for rider in self.riders.get(name, ()) if rider]

    def name(self, tensor: str) -> str:
        while tensor in self.base:
            tensor = self.base[tensor]
        return tensor


def count(kind: int, shape: Any) -> int:
    """Bytes of a tensor."""
    return int(prod(shape)) * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)


def bytes_of(value: Any) -> int:
    """0 for a tensor whose shape is not known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(axis.HasField("dim_value") for axis in tensor.shape.dim):
        return 0
    return count(tensor.elem_type, [axis.dim_value for axis in tensor.shape.dim])


def constant_bytes(node: NodeProto) -> int:
    tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
    return count(tensor.data_type, tensor.dims) if tensor is not None else 0
