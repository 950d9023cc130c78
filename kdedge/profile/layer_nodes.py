"""Which nodes of an ONNX file the layers of an optimized one came from, as far as their names tell.

ONNX Runtime names a layer after one of the nodes that it was fused from, or after the tensor that it makes, with
endings of its own.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdedge.core.errors import require

ADDED = re.compile(
    r"^(?:fused |InsertedPrecisionFreeCast_)|(?:_nchwc|_nhwc|_token_\d+|_quant|/\w+(?:Fusion|Transformer))$"
)
ACTIVATIONS = ("Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh")
JOIN_THE_ONE_BEFORE = frozenset([*ACTIVATIONS, "BatchNormalization", "Add", "Sum", "QuantizeLinear"])
CONVERT = frozenset(["QuantizeLinear", "DequantizeLinear"])


def nodes_of_layers(names: Sequence[str], onnx_file: Path) -> list[list[str]]:
    """For each layer, in the order in which they run, names of the nodes it computes; empty where its name is no help.

    A node without a layer of its own belongs to the first layer that needs it, an activation or sum to the one before.

    Raises:
        MissingTool: onnx is not installed.
    """
    onnx = require("onnx", "", "finding the ONNX nodes of layers")
    graph = Graph(list(onnx.load(str(onnx_file), load_external_data=False).graph.node))
    anchors = [graph.find(name) for name in names]
    owner = graph.appended({anchor: layer for layer, anchor in enumerate(anchors) if anchor is not None})
    for layer, anchor in enumerate(anchors):
        for node in [] if anchor is None else graph.needed(anchor, set(owner)):
            owner[node] = layer
    groups: list[list[int]] = [[] for _ in names]
    for node in sorted(owner):
        groups[owner[node]].append(node)
    return [graph.names(group) for group in groups]


class Graph:
    """Nodes by their place in the file, which is a topological order."""

    def __init__(self, nodes: list[Any]) -> None:
        self.nodes = nodes
        self.makers = {output: place for place, node in enumerate(nodes) for output in node.output if output}
        self.named = {node.name: place for place, node in enumerate(nodes) if node.name}
        self.readers = Counter(name for node in nodes for name in node.input)

    def find(self, layer: str) -> int | None:
        """The node that a layer is named after, or that makes the tensor it is named after."""
        while True:
            for places in (self.named, self.makers):
                if layer in places:
                    return places[layer]
            shorter = ADDED.sub("", layer, count=1)
            if shorter == layer:
                return None
            layer = shorter

    def appended(self, owner: dict[int, int]) -> dict[int, int]:
        """With the activations and sums that only the result of a layer goes into; of a sum's two, the later one."""
        owner = dict(owner)
        for place, node in enumerate(self.nodes):
            before = [owner[self.makers[name]] for name in node.input if self.goes_on(name, owner)]
            if place not in owner and node.op_type in JOIN_THE_ONE_BEFORE and before:
                owner[place] = max(before)
        return owner

    def goes_on(self, tensor: str, owner: dict[int, int]) -> bool:
        """Whether a layer makes it, for one reader alone."""
        return self.makers.get(tensor) in owner and self.readers[tensor] == 1

    def needed(self, place: int, done: set[int]) -> list[int]:
        """The nodes that must run before this one, up to those that are done."""
        found: set[int] = set()
        ahead = [place]
        while ahead:
            makers = {self.makers[name] for name in self.nodes[ahead.pop()].input if name in self.makers}
            new = makers - done - found
            found |= new
            ahead += new
        return sorted(found)

    def names(self, places: Sequence[int]) -> list[str]:
        """Without conversions to and from int8 beside what computes."""
        computing = [place for place in places if self.nodes[place].op_type not in CONVERT] or places
        return [self.nodes[place].name or self.nodes[place].output[0] for place in computing]
