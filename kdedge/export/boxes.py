"""What sets a detector's file apart: the shape of its output, how boxes are found, and NMS in its graph if wanted."""

from typing import TYPE_CHECKING, Any

from onnx import ModelProto, TensorProto, helper

from kdedge.core.errors import ModelError
from kdedge.engine.boxes import CHOSEN
from kdedge.engine.boxes_decoding import KEY, read_decoding
from kdedge.engine.boxes_letterbox import GRAY
from kdedge.export.boxes_graph import PREFIX, box_nodes
from kdedge.export.boxes_nms import DOMAIN, detections, nms_function

if TYPE_CHECKING:
    from torch import nn

KINDS = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT32)
"""Types of the outputs in CHOSEN."""


def decoding_of(
    model: "nn.Module", image_shape: tuple[int, int, int], labels: tuple[str, ...], any_size: bool = False
) -> dict[str, Any]:
    """How the model's outputs become boxes, see engine/boxes_decoding; empty for a classifier.

    Args:
        any_size: for a file that takes squares of any side.

    Raises:
        ModelError: a detector of other classes, or for images of another size.
    """
    from kdedge.models.detector import Detector

    if not isinstance(model, Detector):
        return {}
    classes, size = model.classes, model.image_size
    if (classes, size) != (len(labels), image_shape[1]):
        what = f"{type(model).__name__} of {classes} classes for images of {size}x{size}"
        raise ModelError(what, f"to be exported for {len(labels)} labels and images of {image_shape[1]}")
    return model.decoding() | ({"steps": [2**level for level in model.levels]} if any_size else {})


def row_shape(boxes: dict[str, Any]) -> tuple[int, int]:
    """Of the raw heads for an image: anchors and the values of each."""
    decoding = read_decoding("the model", boxes)
    return len(decoding.anchors), decoding.width


def told_square(image_shape: tuple[int, int, int]) -> str:
    size = image_shape[1]
    return f"of a {size}x{size} square: a picture scaled until its longer side fills it, top left, the rest {GRAY}"


def told_boxes(kind: str) -> str:
    if kind == "nms":
        return (
            "boxes: x1, y1, x2, y2 in pixels of the square, best first; scores; classes: numbers of labels; "
            "count: how many of an image's are boxes, what follows them means nothing"
        )
    return f"logits: for each anchor of an image four values of its box, then those of its scores; see {KEY}"


def add_nms(model: ModelProto, boxes: dict[str, Any]) -> None:
    """Make boxes of the raw heads in the graph, in place.

    Args:
        boxes: as `decoding_of` gives it.
    """
    graph, decoding = model.graph, read_decoding("the model", boxes)
    heads = graph.output[0]
    part = box_nodes(heads.name, CHOSEN, decoding)
    graph.node.extend(part.nodes)
    graph.initializer.extend(part.constants)
    graph.value_info.append(heads)
    batch = heads.type.tensor_type.shape.dim[0]
    rows = [batch.dim_param or batch.dim_value, detections(decoding)]
    shapes = ([*rows, 4], rows, rows, rows[:1])
    del graph.output[:]
    graph.output.extend(map(helper.make_tensor_value_info, CHOSEN, KINDS, shapes))
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    model.functions.append(nms_function(decoding, opset))
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def remove_nms(model: ModelProto) -> bool:
    """Make the raw heads the output again, in place; False where they are already."""
    graph = model.graph
    mine = [node for node in graph.node if node.name.startswith(PREFIX)]
    if not mine:
        return False
    heads = next(value for value in graph.value_info if value.name == mine[0].input[0])
    del graph.output[:]
    graph.output.append(heads)
    graph.value_info.remove(heads)
    for part in (graph.node, graph.initializer, graph.value_info):
        for each in [each for each in part if each.name.startswith(PREFIX)]:
            part.remove(each)
    del model.functions[:]
    model.opset_import.remove(next(entry for entry in model.opset_import if entry.domain == DOMAIN))
    return True
