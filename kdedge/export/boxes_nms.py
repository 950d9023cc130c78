"""Non-maximum suppression at the end of a graph: one node that is TensorRT's plugin there, and a function elsewhere.

The node is called EfficientNMS_TRT, as the plugin is (plugin/efficientNMSPlugin in NVIDIA/TensorRT, from version 8.0
on), and names a namespace of plugins, at which TensorRT's parser prefers the plugin to the function of that name in the
file; a TensorRT without the plugin takes the function, from version 10 on.  ONNX's own NonMaxSuppression, of which the
function is made, is no good before: the shape of what it gives depends on the data, and versions 8 build nothing on
that (NVIDIA/TensorRT issues 2850 and 3527).
"""

from typing import Any

import numpy as np
from onnx import FunctionProto, TensorProto, helper

from kdedge.engine.boxes_decoding import Decoding
from kdedge.export.nodes import Nodes

DOMAIN, PLUGIN = "TRT", "EfficientNMS_TRT"


def candidates(decoding: Decoding) -> int:
    """Boxes of an image, or where scores are a softmax's of each class, that suppression chooses from."""
    if decoding.scores == "softmax":
        return min(decoding.candidates, len(decoding.anchors))
    return sum(min(decoding.candidates, count * decoding.classes) for count in decoding.levels)


def detections(decoding: Decoding) -> int:
    """The most boxes of an image."""
    return min(decoding.detections, candidates(decoding) * decoding.classes)


def settings(decoding: Decoding) -> dict[str, Any]:
    """The plugin's attributes."""
    return {
        "score_threshold": decoding.score_threshold,
        "iou_threshold": decoding.nms_threshold,
        "max_output_boxes": detections(decoding),
        "background_class": -1,
        "score_activation": 0,
        "class_agnostic": 0,
        "box_coding": 0,
        "plugin_version": "1",
        "plugin_namespace": "",
    }


def nms_function(decoding: Decoding, opset: int) -> FunctionProto:
    """What the plugin computes: boxes (N, M, 4), of a softmax's scores (N, M, classes, 4), and their scores
    (N, M, classes) -> how many are kept (N, 1), and their boxes (N, D, 4), scores and classes (N, D), best first.
    """
    node, softmax = Nodes("nms_"), decoding.scores == "softmax"
    scores, boxes = kept_of_classes(node, decoding) if softmax else kept(node, decoding)
    best, index = node.two("TopK", scores, [detections(decoding)], axis=1)
    inner = candidates(decoding) if softmax else decoding.classes
    outer = node("Div", index, [inner])
    classes, places = (outer, index) if softmax else (node("Sub", index, node("Mul", outer, [inner])), outer)
    above = node("Cast", node("Greater", best, np.float32(0)), to=TensorProto.INT32)
    node.add("ReduceSum", [above, [1]], ["count"], keepdims=1)
    node.add("GatherND", [boxes, node("Unsqueeze", places, [-1])], ["best_boxes"], batch_dims=1)
    node.add("Identity", [best], ["best_scores"])
    node.add("Cast", [classes], ["best_classes"], to=TensorProto.INT32)
    constants = [helper.make_node("Constant", [], [value.name], value=value) for value in node.constants]
    return helper.make_function(
        DOMAIN,
        PLUGIN,
        ["boxes", "scores"],
        ["count", "best_boxes", "best_scores", "best_classes"],
        [*constants, *node.nodes],
        [helper.make_opsetid("", opset)],
        list(settings(decoding)),
    )


def kept(node: Nodes, decoding: Decoding) -> tuple[str, str]:
    """Scores (N, M * classes), 0 where another box is better, and boxes (N, M, 4)."""
    by_class = node("Transpose", "scores", perm=[0, 2, 1])
    found = node("Gather", suppressed(node, "boxes", by_class, decoding), [0, 2, 1], axis=1)
    return node("Reshape", only(node, "scores", found), [0, -1]), "boxes"


def kept_of_classes(node: Nodes, decoding: Decoding) -> tuple[str, str]:
    """Scores (N, classes * M), 0 where another box is better, and boxes (N, classes * M, 4).

    Each class has boxes of its own, so that for the operator it is an image.
    """
    boxes, scores = node("Transpose", "boxes", perm=[0, 2, 1, 3]), node("Transpose", "scores", perm=[0, 2, 1])
    alone = node("Reshape", scores, [-1, 1, candidates(decoding)])
    found = suppressed(node, node("Reshape", boxes, [-1, candidates(decoding), 4]), alone, decoding)
    rows = node("Reshape", only(node, alone, found), [-1, decoding.classes * candidates(decoding)])
    return rows, node("Reshape", boxes, [0, -1, 4])


def suppressed(node: Nodes, boxes: str, scores: str, decoding: Decoding) -> str:
    """(n, 3): image, class and box of each that stays."""
    limits = np.float32(decoding.nms_threshold), np.float32(decoding.score_threshold)
    return node("NonMaxSuppression", boxes, scores, [detections(decoding)], *(limit.reshape(1) for limit in limits))


def only(node: Nodes, scores: str, places: str) -> str:
    """The scores at these places, and 0 everywhere else."""
    nothing = node("ConstantOfShape", node("Shape", scores))
    return node("ScatterND", nothing, places, node("GatherND", scores, places))
