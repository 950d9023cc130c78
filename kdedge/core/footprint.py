"""What a model's layers keep in memory while it computes, as its ONNX file tells."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerBytes:
    """One node with what an engine computes in place behind it, such as an activation."""

    kind: str
    """Operators, such as Conv + Relu."""
    nodes: tuple[str, ...]
    """Names in the ONNX file; the first is the one that computes."""
    weights: int
    """Of the tensors that no layer before has read."""
    outputs: int
    live: int
    """Of all activations that are kept while this layer runs: its inputs, its outputs, what later layers will read."""


@dataclass(frozen=True)
class Footprint:
    """In bytes, for one batch."""

    batch: int
    layers: tuple[LayerBytes, ...]
    """In the order in which they run."""

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def peak(self) -> LayerBytes:
        """The layer during which most is kept."""
        return max(self.layers, key=lambda layer: layer.live)
