"""Smaller number formats made from a float32 ONNX file: fp16, and int8 with calibrated Q/DQ pairs.

Preprocessing nodes stay in float32 in both.  Needs onnx and onnxruntime, no torch.
"""

from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.registry import QDQRegistry
from onnxruntime.transformers.float16 import convert_float_to_float16

from kdedge.core.deployment import Export
from kdedge.core.errors import ModelError
from kdedge.export.calibration import tensor_ranges
from kdedge.export.onnx import dims, load, metadata_of, save, write_metadata
from kdedge.export.preprocess import PIXELS, preprocess_nodes

LEFT_IN_FLOAT = {"BatchNormalization"}
"""One that no convolution took in; its scale and statistics would get one quantization scale for all channels."""


def to_fp16(source: Path, out: Path) -> None:
    """Weights and arithmetic in float16; inputs and outputs keep their types."""
    model = onnx.shape_inference.infer_shapes(load(source), strict_mode=True)
    metadata = metadata_of(model) | {"precision": "fp16"}
    pixels = preprocess_nodes(model)
    forget_types(model, {name for node in model.graph.node if node.name in pixels for name in node.output} - {PIXELS})
    model = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True, node_block_list=pixels)
    ONNXModel(model).topological_sort()  # the converter appends its casts at the end
    write_metadata(model, metadata)
    save(model, out)


def forget_types(model: ModelProto, names: set[str]) -> None:
    """Drop value infos: the converter puts casts around every blocked value that it knows the type of."""
    kept = [info for info in model.graph.value_info if info.name not in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def to_int8(source: Path, out: Path, images: NDArray[Any], export: Export) -> None:
    """Static quantization: int8 weights, one scale a channel, and calibrated activations, as Q/DQ pairs.

    Args:
        images: what to calibrate on, in the model's own input form.
        export: `calibration` (its `images` is the caller's to apply) and `quantization` are read.

    Raises:
        ModelError: the images do not fit the model's input, or nothing in the model can be quantized.
    """
    model = onnx.shape_inference.infer_shapes(load(source), strict_mode=True)
    check_images(source, model, images)
    pixels, how = preprocess_nodes(model), export.quantization
    found = {node.op_type for node in model.graph.node if node.name not in pixels}
    operators = sorted(found & set(QDQRegistry) - LEFT_IN_FLOAT)
    metadata = metadata_of(model) | {
        "precision": "int8",
        "calibration": export.calibration.model_dump(mode="json") | {"images": len(images)},
        "quantization": how.model_dump(mode="json"),
    }
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if how.activations == "int8" else QuantType.QUInt8,
        tensors_range=tensor_ranges(model, images, operators, export.calibration, how.symmetric),
        nodes_to_quantize=[],
        nodes_to_exclude=pixels,
        op_types_to_quantize=operators,
        extra_options={"ActivationSymmetric": how.symmetric, "QuantizeBias": how.quantize_bias},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized = quantizer.model.model
    if not any(node.op_type == "QuantizeLinear" for node in quantized.graph.node):
        raise ModelError(f"{source} cannot be made int8", "none of its operators can be quantized")
    write_metadata(quantized, metadata)
    save(quantized, out)


def check_images(source: Path, model: ModelProto, images: NDArray[Any]) -> None:
    entry = model.graph.input[0]
    dtype, shape = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type), dims(entry)
    sizes = zip(shape[1:], images.shape[1:], strict=False)
    fits = images.ndim == len(shape) and all(isinstance(want, str) or want == have for want, have in sizes)
    if not len(images) or images.dtype != dtype or not fits:
        takes = f"{source} takes {dtype} ({', '.join(map(str, shape))})"
        raise ModelError(f"calibration images of {images.dtype} {images.shape}", takes)
