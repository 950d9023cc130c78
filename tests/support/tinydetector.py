"""A detector of two anchors whose answers are worked out by hand: red on the left, green on the right."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from kdedge.engine.boxes_decoding import KEY
from kdedge.export.onnx import write_metadata

SIZE, OFF = 20, -9.0
LEFT, RIGHT = (1, 1, 9, 9), (11, 1, 19, 9)
"""The anchors, and with it the boxes."""
DECODING: dict[str, Any] = {
    "classes": 2,
    "image_size": SIZE,
    "coder": "deltas",
    "weights": [1.0, 1.0, 1.0, 1.0],
    "normalize_by_size": False,
    "scores": "sigmoid",
    "levels": [{"grid": [1, 2], "stride": [10, 10], "offset": [0.5, 0.5], "cells": [[-4, -4, 4, 4]]}],
    "clip": False,
    "score_threshold": 0.05,
    "nms_threshold": 0.5,
    "candidates": 10,
    "detections": 10,
}
NOTED = {
    "labels": ["red", "green"],
    "preprocess": False,
    "normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


def tiny_detector(path: Path, noted: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Logits are twice the mean of the normalized red (of the left box) and green (of the right one)."""
    model = network((noted or NOTED).get("preprocess", False))
    write_metadata(model, NOTED if noted is None else noted)
    write_metadata(model, DECODING | changes, KEY)
    onnx.save(model, path)
    return path


def network(pixels: bool) -> ModelProto:
    """(1, 3, 20, 20) normalized, or (1, height, width, 3) uint8 -> (1, 2, 6)."""
    weights, bias = np.zeros((3, 2, 6), np.float32), np.zeros((2, 6), np.float32)
    bias[:, 4:] = OFF
    for anchor in (0, 1):
        weights[anchor, anchor, 4 + anchor], bias[anchor, 4 + anchor] = 2, 0
    if pixels:  # 2 * (pixel / 255 - 0.5) / 0.25
        weights, bias = weights / (255 * 0.25), bias - 2 * weights.sum(axis=0)
    constants = {"axes": [1, 2] if pixels else [2, 3], "weights": weights.reshape(3, 12), "bias": bias.reshape(12)}
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["sums"]),
        helper.make_node("Add", ["sums", "bias"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["outputs"]),
    ]
    taken = helper.make_tensor_value_info(
        "images",
        TensorProto.UINT8 if pixels else TensorProto.FLOAT,
        [1, "height", "width", 3] if pixels else [1, 3, SIZE, SIZE],
    )
    given = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, [1, 2, 6])
    arrays = {name: np.array(value) for name, value in {**constants, "shape": [1, 2, 6]}.items()}
    initializers = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "tiny", [taken], [given], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def choosing_detector(path: Path) -> Path:
    """One with NMS in its graph, which finds the same two boxes on every picture, and has room for a third."""
    boxes = [[*RIGHT], [*LEFT], [0, 0, 20, 20]]
    given = {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([[0.75, 0.5, 0.99]], np.float32),
        "classes": np.array([[1, 0, 0]], np.int64),
        "count": np.array([2], np.int64),
    }
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(a)) for name, a in given.items()]
    taken = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])]
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    outputs = [helper.make_tensor_value_info(name, types[name], array.shape) for name, array in given.items()]
    graph = helper.make_graph(nodes, "choosing", taken, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    write_metadata(model, NOTED)
    write_metadata(model, DECODING, KEY)
    onnx.save(model, path)
    return path


def score(mean: float) -> float:
    """Of a box whose color has this mean, 0 to 255, over the whole square."""
    return 1 / (1 + math.exp(-2 * (mean / 255 - 0.5) / 0.25))
