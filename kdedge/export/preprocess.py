"""Resize and normalize inside the graph, so that whoever runs the model needs no image code of kdedge's.

The nodes are written here rather than traced: their names carry a prefix by which the precision passes know them.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from kdedge.core.errors import ModelError
from kdedge.core.recipe import Normalize

PREFIX = "preprocess/"
PIXELS = PREFIX + "transpose"
OPSET = 18  # the first whose Resize can antialias
RESIZE = {"mode": "linear", "antialias": 1, "exclude_outside": 1, "axes": [1, 2]}
"""As torchvision and Pillow resize: weights that reach beyond the border are left out, not given to the last pixel."""


def preprocess_nodes(model: ModelProto) -> list[str]:
    """Names of the nodes that prepare the pixels; none where the model takes normalized images."""
    return [node.name for node in model.graph.node if node.name.startswith(PREFIX)]


def add_preprocess(
    model: ModelProto, image_shape: tuple[int, int, int], normalize: Normalize, resize: bool = True
) -> None:
    """Change the model's input, in place, to uint8 pixels (N, any height, any width, C).

    Args:
        resize: to the size that the model sees; without it that is the only one it takes.

    Raises:
        ModelError: the model's opset has no antialiased Resize.
    """
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    if resize and opset < OPSET:
        why = f"an antialiased Resize exists from opset {OPSET} on"
        raise ModelError(f"export.preprocess with opset {opset}", why, f"--set export.opset={OPSET}")
    graph = model.graph
    images = graph.input[0]
    for node in graph.node:
        node.input[:] = [PIXELS if name == images.name else name for name in node.input]
    channels, height, width = image_shape
    shape = images.type.tensor_type.shape
    batch = shape.dim[0].dim_param or shape.dim[0].dim_value
    nodes = pixel_nodes(images.name, resize)
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *body])
    graph.value_info.append(helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, [batch, channels, height, width]))
    graph.initializer.extend(constants(height, width, normalize, resize))
    taken = [batch, *(("height", "width") if resize else (height, width)), channels]
    images.CopyFrom(helper.make_tensor_value_info(images.name, TensorProto.UINT8, taken))


def pixel_nodes(images: str, resize: bool) -> list[onnx.NodeProto]:
    """uint8 NHWC -> float32 NCHW, resized and normalized with one multiplication and one addition."""

    def node(operator: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
        name = PREFIX + operator.lower()
        return helper.make_node(operator, inputs, [name], name, **attributes)

    fitting = [node("Resize", PREFIX + "cast", "", "", PREFIX + "size", **RESIZE)] if resize else []
    return [
        node("Cast", images, to=TensorProto.FLOAT),
        *fitting,
        node("Mul", PREFIX + ("resize" if resize else "cast"), PREFIX + "scale"),
        node("Add", PREFIX + "mul", PREFIX + "shift"),
        node("Transpose", PREFIX + "add", perm=[0, 3, 1, 2]),  # last: ONNX Runtime mishandles one before such a Resize
    ]


def constants(height: int, width: int, normalize: Normalize, resize: bool) -> list[TensorProto]:
    mean, std = (np.array(values, dtype=np.float64) for values in (normalize.mean, normalize.std))
    arrays: dict[str, NDArray[Any]] = {
        "scale": (1 / (255 * std)).astype(np.float32),
        "shift": (-mean / std).astype(np.float32),
    }
    if resize:
        arrays["size"] = np.array([height, width], dtype=np.int64)
    return [numpy_helper.from_array(array, PREFIX + name) for name, array in arrays.items()]
