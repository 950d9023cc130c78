"""ONNX nodes written in Python, one call each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Value = str | NDArray[Any] | np.float32 | list[int]
"""A tensor by its name, or a constant; lists are of int64."""


class Nodes:
    """Nodes and their constants, in the order of the calls; all names begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def __call__(self, operator: str, *inputs: Value, **attributes: Any) -> str:
        """The new node's output."""
        name = f"{self.prefix}{operator.lower()}{len(self.nodes)}"
        self.add(operator, inputs, [name], **attributes)
        return name

    def two(self, operator: str, *inputs: Value, **attributes: Any) -> tuple[str, str]:
        """The outputs of a node that has two."""
        name = f"{self.prefix}{operator.lower()}{len(self.nodes)}"
        self.add(operator, inputs, [f"{name}a", f"{name}b"], **attributes)
        return f"{name}a", f"{name}b"

    def add(self, operator: str, inputs: Sequence[Value], outputs: Sequence[str], **attributes: Any) -> None:
        """A node whose outputs have names of their own."""
        name = f"{self.prefix}{operator.lower()}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, [self.named(each) for each in inputs], outputs, name, **attributes)
        )

    def named(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        name = f"{self.prefix}constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
