"""fp16 from a float32 ONNX file.  Preprocessing nodes stay in float32.  Needs onnx and onnxruntime, no torch."""

from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16

from kdedge.engine.boxes_decoding import KEY
from kdedge.export.boxes import add_nms, remove_nms
from kdedge.export.onnx import load, metadata_of, save, write_metadata
from kdedge.export.preprocess import preprocess_nodes


def to_fp16(source: Path, out: Path) -> None:
    """Weights and arithmetic in float16; inputs and outputs keep their types, and boxes are made in float32."""
    model = load(source)
    with_nms = remove_nms(model)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    metadata = metadata_of(model) | {"precision": "fp16"}
    model = in_fp16(model, preprocess_nodes(model))
    if with_nms:
        add_nms(model, metadata_of(model, KEY))
    write_metadata(model, metadata)
    save(model, out)


def in_fp16(model: ModelProto, blocked: Collection[str]) -> ModelProto:
    """All but the blocked nodes in float16, with casts where the two meet."""
    forget_types(model, between(model, blocked))
    converted: ModelProto = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True, node_block_list=list(blocked)
    )
    ONNXModel(converted).topological_sort()  # the converter appends its casts at the end
    return converted


def between(model: ModelProto, nodes: Collection[str]) -> set[str]:
    """Tensors that these nodes give, and nobody else takes."""
    given = {name for node in model.graph.node if node.name in nodes for name in node.output}
    taken = {name for node in model.graph.node if node.name not in nodes for name in node.input}
    return given - taken


def forget_types(model: ModelProto, names: set[str]) -> None:
    """Drop value infos: the converter puts casts around every blocked value that it knows the type of."""
    kept = [info for info in model.graph.value_info if info.name not in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
