"""A model with early exits cut into a cascade: stage models, each of which takes the feature map of the one before.

The model of each precision is cut by itself, so that a cascade computes what its whole model computes: the same nodes
with the same weights and scales.  Feature maps change hands where nothing is lost: in fp16 as they are, in int8 after
they have been quantized and dequantized, which the next stage then repeats and gets the same codes.  What still may
differ is rounding, where a runtime fuses nodes of the whole model that the cut has parted.
"""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto
from onnx.utils import Extractor

from kdedge.core.errors import ModelError
from kdedge.export.onnx import Outputs, load, metadata_of, save, write_metadata
from kdedge.export.trace import INPUT, dims

OF_IMAGES = ("image_shape", "layout", "dtype", "preprocess", "normalize")
"""Metadata that is of no use to the stages that take feature maps."""


def cut(source: Path, paths: Sequence[Path], outputs: Outputs) -> None:
    """Write the stage models of a model that `export_onnx` wrote with these outputs, or of one converted from it.

    The stage of each exit takes the images, or the feature map before it, and gives the exit's logits and, but for the
    last, its own feature map.

    Args:
        paths: one for each of the model's logits.

    Raises:
        ModelError: a feature map is not all that the layers behind it need.
    """
    model = onnx.shape_inference.infer_shapes(load(source), strict_mode=True)
    metadata, batch = metadata_of(model), dims(model.graph.input[0])[0]
    extractor = Extractor(model)
    takes, gives = (INPUT, *outputs.features), (*outputs.features, None)
    for number, (path, entry, feature, logits) in enumerate(zip(paths, takes, gives, outputs.logits, strict=True)):
        handed_on = exact(model, feature) if feature else None
        stage = extractor.extract_model([entry], [logits, handed_on] if handed_on else [logits])
        check_complete(stage, entry)
        if feature and handed_on:
            rename(stage, {feature: f"{feature}/float", handed_on: feature} if handed_on != feature else {})
        own = {key: value for key, value in metadata.items() if number == 0 or key not in OF_IMAGES}
        finish(stage, own | {"exit": f"{number + 1}/{len(paths)}"}, batch)
        save(stage, path)


def exact(model: ModelProto, feature: str) -> str:
    """The tensor that stands for a feature map where it is handed on: dequantized, if it is quantized at all."""
    tensor = feature
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        readers = [node for node in model.graph.node if tensor in node.input]
        if len(readers) != 1 or readers[0].op_type != operator:
            return feature
        tensor = readers[0].output[0]
    return tensor


def check_complete(stage: ModelProto, entry: str) -> None:
    graph = stage.graph
    known = {"", entry, *(tensor.name for tensor in graph.initializer)}
    known.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        if missing := [name for name in node.input if name not in known]:
            raise ModelError(
                f"the network cannot be cut at {entry}",
                f"a layer behind it reads {missing[0]} as well, which comes before",
                "--exit K/N exports one exit of it, without a cascade",
            )


def rename(model: ModelProto, names: dict[str, str]) -> None:
    graph = model.graph
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)


def finish(stage: ModelProto, metadata: dict[str, object], batch: int | str) -> None:
    """What extraction leaves out, and the batch's name where shape inference lost it."""
    graph = stage.graph
    graph.name = stage.producer_name = "kdedge"
    for value in (*graph.input, *graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if isinstance(batch, str):
            first.dim_param = batch
        else:
            first.dim_value = batch
    write_metadata(stage, metadata)
