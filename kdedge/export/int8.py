"""int8 from a float32 ONNX file, with calibrated Q/DQ pairs; layers may be left in float.

Preprocessing nodes stay in float32.  Needs onnx and onnxruntime, no torch.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import QDQQuantizer, QuantType, TensorData
from onnxruntime.quantization.registry import QDQRegistry

from kdedge.core.deployment import Export
from kdedge.core.errors import ModelError
from kdedge.engine.boxes_decoding import KEY
from kdedge.export.boxes import add_nms, remove_nms
from kdedge.export.calibration import tensor_ranges
from kdedge.export.layout import choose_layout
from kdedge.export.onnx import load, metadata_of, save, write_metadata
from kdedge.export.precision import in_fp16
from kdedge.export.preprocess import preprocess_nodes
from kdedge.export.trace import dims

LEFT_IN_FLOAT = {"BatchNormalization", "InstanceNormalization"}
"""One that no convolution took in; its scale and statistics would get one quantization scale for all channels.  Of the
other, which group normalization is made of, ONNX Runtime has no integer kernel."""
NOTHING: Mapping[str, Sequence[float]] = MappingProxyType({})
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def to_int8(source: Path, out: Path, images: NDArray[Any], export: Export) -> None:
    """Static quantization of every layer; see `Calibrated`."""
    Calibrated(source, images, export).quantize(out)


class Calibrated:
    """A float32 ONNX file and the ranges that its activations take.

    Args:
        images: what to calibrate on, in the model's own input form.
        export: `calibration` (its `images` is the caller's to apply) and `quantization` are read.
        learned: ranges of what layers take, by their names, that a training for int8 has left; they go before what
            calibration sees.

    Raises:
        ModelError: the images do not fit the model's input.
    """

    def __init__(
        self, source: Path, images: NDArray[Any], export: Export, learned: Mapping[str, Sequence[float]] = NOTHING
    ) -> None:
        self.source, self.images, self.export = source, images, export
        model = load(source)
        self.with_nms = remove_nms(model)
        self.model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        check_images(source, self.model, images)
        self.pixels = preprocess_nodes(self.model)
        found = {node.op_type for node in self.model.graph.node if node.name not in self.pixels}
        self.operators = sorted(found & set(QDQRegistry) - LEFT_IN_FLOAT)
        self.layout = choose_layout(export.quantization)
        self.ranges = tensor_ranges(self.model, images, self.operators, export.calibration, self.layout.symmetric)
        constants = {value.name for value in self.model.graph.initializer}
        self.layers: dict[str, list[str]] = {}
        """Nodes with weights, by the names of their modules; one that is called twice has two."""
        for node in filter(is_layer, self.model.graph.node):
            self.layers.setdefault(layer_name(node, constants), []).append(node.name)
        self.take_up({name: span for name, span in learned.items() if name in self.layers})

    def take_up(self, learned: Mapping[str, Sequence[float]]) -> None:
        """Put what training has learned in the place of what calibration saw."""
        self.layout = self.layout.model_copy(update={"learned": len(learned)})
        takes = {node.name: node.input[0] for node in self.model.graph.node}
        for name, (low, high) in learned.items():
            for tensor in {takes[node] for node in self.layers[name]} & set(self.ranges):
                self.ranges[tensor] = TensorData(lowest=np.float32(min(low, 0)), highest=np.float32(max(high, 0)))

    def quantize(self, out: Path, *, keep: Collection[str] = (), only: Collection[str] = ()) -> None:
        """int8 weights, one scale a channel, and calibrated activations, as Q/DQ pairs.

        Args:
            keep: layers that stay in float, in fp16 if `quantization.rest` says so.
            only: layers to quantize, and nothing else; none stands for all.  A detector then gives its raw heads, with
                NMS in its graph as well.

        Raises:
            ModelError: nothing in the model can be quantized.
        """
        how, layout, model = self.export.quantization, self.layout, ModelProto()
        model.CopyFrom(self.model)
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=layout.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if layout.activations == "int8" else QuantType.QUInt8,
            tensors_range=self.ranges,
            nodes_to_quantize=self.nodes_of(only),
            nodes_to_exclude=[*self.pixels, *self.in_float(keep)],
            op_types_to_quantize=self.operators,
            extra_options={"ActivationSymmetric": layout.symmetric, "QuantizeBias": how.quantize_bias},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized = quantizer.model.model
        if not any(node.op_type == "QuantizeLinear" for node in quantized.graph.node):
            raise ModelError(f"{self.source} cannot be made int8", "none of its operators can be quantized")
        if how.rest == "fp16" and not only:
            typed = onnx.shape_inference.infer_shapes(quantized, strict_mode=True)
            quantized = in_fp16(typed, [*self.pixels, *quantized_nodes(typed)])
        if self.with_nms and not only:
            add_nms(quantized, metadata_of(self.model, KEY))
        write_metadata(quantized, metadata_of(self.model) | self.described(keep))
        save(quantized, out)

    def save_float(self, out: Path) -> None:
        """The model with nothing quantized; a detector gives its raw heads."""
        save(self.model, out)

    def nodes_of(self, layers: Collection[str]) -> list[str]:
        return [node for name in layers for node in self.layers[name]]

    def in_float(self, keep: Collection[str]) -> list[str]:
        """Nodes of the layers, and the operators without weights that take what these give."""
        names, tensors = set(self.nodes_of(keep)), set[str]()
        for node in self.model.graph.node:
            if node.name in names or (not is_layer(node) and tensors.intersection(node.input)):
                names.add(node.name)
                tensors.update(node.output)
        return sorted(names)

    def described(self, keep: Collection[str]) -> dict[str, Any]:
        """For the file's metadata."""
        return {
            "precision": "int8",
            "calibration": self.export.calibration.model_dump(mode="json") | {"images": len(self.images)},
            "quantization": {
                **self.layout.model_dump(exclude={"why"}),
                **self.export.quantization.model_dump(mode="json", include={"quantize_bias", "rest"}),
            },
            "left_in_float": list(keep),
        }


def is_layer(node: NodeProto) -> bool:
    return node.op_type in WEIGHTED


def layer_name(node: NodeProto, constants: Collection[str]) -> str:
    """Of its module, where its weight is called as that module's; the node's own otherwise."""
    weight = next((name for name in node.input[1:] if name in constants and name.endswith(".weight")), "")
    return weight.removesuffix(".weight") or node.name


def quantized_nodes(model: ModelProto) -> list[str]:
    """Q/DQ nodes, and those that compute on nothing but what is dequantized."""
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    constants = {value.name for value in model.graph.initializer}

    def is_quantized(node: NodeProto) -> bool:
        with_weight = node.op_type in WEIGHTED | LEFT_IN_FLOAT
        read = node.input[:2] if with_weight else [name for name in node.input if name and name not in constants]
        return node.op_type in ("QuantizeLinear", "DequantizeLinear") or dequantized.issuperset(read)

    return [node.name for node in model.graph.node if is_quantized(node)]


def check_images(source: Path, model: ModelProto, images: NDArray[Any]) -> None:
    entry = model.graph.input[0]
    dtype, shape = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type), dims(entry)
    sizes = zip(shape[1:], images.shape[1:], strict=False)
    fits = images.ndim == len(shape) and all(isinstance(want, str) or want == have for want, have in sizes)
    if not len(images) or images.dtype != dtype or not fits:
        takes = f"{source} takes {dtype} ({', '.join(map(str, shape))})"
        raise ModelError(f"calibration images of {images.dtype} {images.shape}", takes)
