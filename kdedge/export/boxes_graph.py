"""From a detector's raw heads to its boxes as ONNX nodes: what engine/boxes computes.

All in float32, whatever the heads are computed in.
"""

from collections.abc import Sequence

import numpy as np

from kdedge.engine.boxes import LARGEST
from kdedge.engine.boxes_decoding import Decoding
from kdedge.export.boxes_nms import DOMAIN, PLUGIN, candidates, settings
from kdedge.export.nodes import Nodes

PREFIX = "boxes/"
"""Of all names but those of the outputs."""


def box_nodes(heads: str, outputs: Sequence[str], decoding: Decoding) -> Nodes:
    """Args:
    heads: (N, A, D), as `engine.boxes.decode` takes them.
    outputs: names for what `engine.boxes.chosen` takes.
    """
    node = Nodes(PREFIX)
    find = best_of_classes if decoding.scores == "softmax" else best_of_levels
    anchors, scores = find(node, score_nodes(node, heads, decoding), decoding)
    boxes, best, classes, count = outputs
    inputs, counts = [coded(node, heads, anchors, decoding), scores], PREFIX + "count"
    node.add(PLUGIN, inputs, [counts, boxes, best, classes], domain=DOMAIN, **settings(decoding))
    node.add("Squeeze", [counts, [1]], [count])
    return node


def score_nodes(node: Nodes, heads: str, decoding: Decoding) -> str:
    """(N, A, classes)"""
    if decoding.scores == "softmax":
        shares = node("Softmax", columns(node, heads, 4, decoding.width), axis=2)
        return columns(node, shares, 1, 1 + decoding.classes)
    scores = node("Sigmoid", columns(node, heads, 4, 4 + decoding.classes))
    if decoding.scores == "sigmoid":
        return scores
    centers = node("Sigmoid", columns(node, heads, 4 + decoding.classes, decoding.width))
    return node("Sqrt", node("Mul", scores, centers))


def columns(node: Nodes, values: str, start: int, end: int) -> str:
    return node("Slice", values, [start], [end], [2])


def best_of_levels(node: Nodes, scores: str, decoding: Decoding) -> tuple[str, str]:
    """Candidates, the best of each level whatever their class: anchors (N, M) and scores (N, M, classes).

    Each is of one class, and its scores of the others are 0.
    """
    found, places, start = [], [], 0
    for count in decoding.levels:
        level = node("Reshape", node("Slice", scores, [start], [start + count], [1]), [0, -1])
        most = min(decoding.candidates, count * decoding.classes)
        best, index = node.two("TopK", level, [most], axis=1)
        found.append(best)
        places.append(node("Add", index, [start * decoding.classes]))
        start += count
    best, place = node("Concat", *found, axis=1), node("Concat", *places, axis=1)
    anchors = node("Div", place, [decoding.classes])
    classes = node("Sub", place, node("Mul", anchors, [decoding.classes]))
    own = node("Equal", node("Unsqueeze", classes, [2]), list(range(decoding.classes)))
    return anchors, node("Where", own, node("Unsqueeze", best, [2]), np.float32(0))


def best_of_classes(node: Nodes, scores: str, decoding: Decoding) -> tuple[str, str]:
    """Candidates, the best of each class whatever their level: anchors and scores (N, M, classes)."""
    best, anchors = node.two("TopK", scores, [candidates(decoding)], axis=1)
    return anchors, best


def coded(node: Nodes, heads: str, anchors: str, decoding: Decoding) -> str:
    """Boxes (..., 4) of candidates whose anchors are (N, ...)."""
    values = node("GatherND", columns(node, heads, 0, 4), node("Unsqueeze", anchors, [-1]), batch_dims=1)
    corners = decoding.anchors[:, :2], decoding.anchors[:, 2:]
    sizes = corners[1] - corners[0]
    size = node("Gather", sizes, anchors)
    if decoding.coder == "deltas":
        center = node("Gather", corners[0] + np.float32(0.5) * sizes, anchors)
        ends = from_deltas(node, values, center, size, decoding)
    else:
        center = node("Gather", np.float32(0.5) * (corners[0] + corners[1]), anchors)
        ends = from_distances(node, values, center, size, decoding)
    boxes = node("Concat", *ends, axis=-1)
    return node("Clip", boxes, np.float32(0), np.float32(decoding.image_size))


def from_deltas(node: Nodes, values: str, center: str, size: str, decoding: Decoding) -> list[str]:
    weighted = node("Div", values, np.array(decoding.weights, np.float32))
    shift, stretch = node.two("Split", weighted, [2, 2], axis=-1)
    middle = node("Add", center, node("Mul", shift, size))
    growth = node("Exp", node("Min", stretch, np.float32(LARGEST)))
    half = node("Mul", node("Mul", size, np.float32(0.5)), growth)
    return [node("Sub", middle, half), node("Add", middle, half)]


def from_distances(node: Nodes, values: str, center: str, size: str, decoding: Decoding) -> list[str]:
    near, far = node.two("Split", values, [2, 2], axis=-1)
    if decoding.normalize_by_size:
        near, far = node("Mul", near, size), node("Mul", far, size)
    return [node("Sub", center, near), node("Add", center, far)]
