"""From a torch model to the graph that torch's exporter writes of it."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, ValueInfoProto

from kdedge.core.deployment import Export
from kdedge.core.errors import ModelError, require
from kdedge.engine.boxes_decoding import MULTIPLE

if TYPE_CHECKING:
    from torch import nn

INPUT = "images"
SIDE, ANCHORS = "side", "anchors"
"""What is free of a detector for squares of any side."""
EXPORTER_OPSET = 18  # the lowest that torch's exporter writes


def trace(
    model: "nn.Module",
    image_shape: tuple[int, int, int],
    export: Export,
    outputs: tuple[str, ...],
    steps: Sequence[int] = (),
) -> ModelProto:
    """The graph as torch's exporter writes it, batch norm folded into the convolutions.

    Args:
        steps: of a detector for squares of any side, by how many pixels the places of its maps are apart.
    """
    import copy

    import torch

    require("onnxscript", "train", "torch's ONNX exporter")
    still = copy.deepcopy(model).cpu().eval()
    free: dict[int, Any] = {0: torch.export.Dim("batch")} if export.dynamic_batch else {}
    if steps:
        side = max(steps) + MULTIPLE  # a map of a single place would be taken to be one always
        free |= dict.fromkeys((2, 3), MULTIPLE * torch.export.Dim("cells", min=2))
        image_shape = (image_shape[0], side, side)
    images = torch.zeros(2 if export.dynamic_batch else 1, *image_shape)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # height and width share theirs
            program = torch.onnx.export(
                still,
                (images,),
                input_names=[INPUT],
                output_names=list(outputs),
                opset_version=max(export.opset, EXPORTER_OPSET),
                dynamic_shapes=(free,) if free else None,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ModelError(f"{type(model).__name__} cannot be exported to ONNX", reason) from error
    assert program is not None
    return program.model_proto


def name_sizes(graph: ModelProto) -> None:
    """Say what is free of a detector for squares of any side, in place."""
    for axis in (2, 3):
        graph.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = SIDE
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_param = ANCHORS
    del graph.graph.value_info[:]  # terms of torch's symbols


def check_io(
    graph: ModelProto,
    image_shape: tuple[int | str, ...],
    export: Export,
    row: tuple[int | str, ...],
    outputs: Sequence[str],
) -> None:
    """Raises ModelError unless the graph takes one batch of images and gives rows of logits, one an image.

    Args:
        row: the shape of an image's logits.
        outputs: what the logits are called; there may be features beside them.
    """
    batch = "batch" if export.dynamic_batch else 1
    logits = [value for value in graph.graph.output if value.name in outputs]
    given = [(value.name, *dims(value)) for value in (*graph.graph.input, *logits)]
    wanted = [(INPUT, batch, *image_shape), *((name, batch, *row) for name in outputs)]
    if given != wanted:
        raise ModelError(f"the exported graph has {given}", f"it should have {wanted}")


def dims(value: ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
