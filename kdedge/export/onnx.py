"""From a torch model to an ONNX file that stands alone: folded, simplified, checked, and saying what it takes.

Only `trace` needs torch; reading, writing and the metadata work without it.
"""

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, helper

from kdedge.core.deployment import Export
from kdedge.core.errors import ModelError, require
from kdedge.core.recipe import Normalize
from kdedge.core.rundir import atomic_path
from kdedge.core.stats import output_error
from kdedge.engine.boxes_decoding import KEY
from kdedge.engine.boxes_letterbox import GRAY
from kdedge.export.boxes import add_nms, decoding_of, row_shape, told_boxes, told_square
from kdedge.export.preprocess import add_preprocess
from kdedge.export.trace import ANCHORS, EXPORTER_OPSET, INPUT, SIDE, check_io, dims, name_sizes, trace

if TYPE_CHECKING:
    from torch import nn

OUTPUT = "logits"
METADATA = "kdedge"
SAME = 1e-4  # largest relative difference that simplifying may make


class Outputs(NamedTuple):
    """What a model puts out."""

    logits: tuple[str, ...] = (OUTPUT,)
    features: tuple[str, ...] = ()
    """Names for the feature maps that it gives after its logits.  In the graph they are no outputs, but tensors so
    called, at which it can be cut."""
    exit: str | None = None
    """For the metadata: which exits these are."""


NO_EXITS = Outputs()


def export_onnx(
    model: "nn.Module",
    out: Path,
    image_shape: tuple[int, int, int],
    export: Export,
    normalize: Normalize,
    labels: tuple[str, ...],
    outputs: Outputs = NO_EXITS,
) -> None:
    """Write `model`, in eval mode, to `out`; the model itself stays as it is.

    The graph takes `images` and gives `logits` (N, classes), or what else `outputs` says.  Images are float32
    (N, C, H, W), already normalized; with `export.preprocess` they are uint8 (N, height, width, C) of any size.  N is 1
    unless `export.dynamic_batch`.

    A detector's images are letterboxed squares, pixels as well (engine/boxes_letterbox makes them).  Its logits are
    (N, A, D), raw heads; with `export.boxes: nms` it gives boxes, scores, classes and count instead.  How it finds its
    boxes stands in the file (engine/boxes_decoding); `detections_of` of engine/boxes reads either output.

    Args:
        image_shape: (C, H, W) of what the model sees.

    Raises:
        ModelError: torch cannot export the model, or the result is not what was asked for.
    """
    boxes = decoding_of(model, image_shape, labels, export.dynamic_size)
    if export.boxes == "nms" and not boxes:
        raise ModelError("export.boxes: nms", f"{type(model).__name__} is no detector", "--set export.boxes=heads")
    names = (*outputs.logits, *outputs.features)
    graph = trace(model, image_shape, export, names, boxes.get("steps", ()))
    row: tuple[int | str, ...] = row_shape(boxes) if boxes else (len(labels),)
    if export.dynamic_size:
        name_sizes(graph)
        check_io(graph, (image_shape[0], SIDE, SIDE), export, (ANCHORS, *row[1:]), outputs.logits)
    else:
        check_io(graph, image_shape, export, row, outputs.logits)
    graph = at_opset(simplify(graph, image_shape), export.opset)
    hide(graph, outputs.features)
    if export.preprocess:
        add_preprocess(graph, image_shape, normalize, resize=not boxes)
    if export.boxes == "nms":
        add_nms(graph, boxes)
    describe(graph, image_shape, export, normalize, labels, outputs, boxes)
    save(graph, out)


def simplify(graph: ModelProto, image_shape: tuple[int, int, int]) -> ModelProto:
    """Constant-folded and without dead nodes; compared with what went in on random images."""
    simpler, _ = require("onnxsim", "train", "exporting to ONNX").simplify(graph)
    assert isinstance(simpler, ModelProto)
    forget_source(simpler)
    batch = dims(graph.graph.input[0])[0]
    images = np.random.default_rng(0).standard_normal((2 if batch == "batch" else 1, *image_shape), dtype=np.float32)
    errors = [output_error(*pair)[0] for pair in zip(run(graph, images), run(simpler, images), strict=True)]
    error = max(errors, key=lambda error: (error != error, error))  # what is no number is worst
    if not error <= SAME:
        raise ModelError(
            "simplifying the ONNX graph changed its outputs",
            f"by {error:.1e} of their largest value, {SAME:.0e} is allowed",
            "pip install -U onnxsim",
        )
    return simpler


def forget_source(model: ModelProto) -> None:
    """Remove the exporter's notes, which name source files of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def run(graph: ModelProto, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, {INPUT: images})]


def hide(graph: ModelProto, names: tuple[str, ...]) -> None:
    """Make inner tensors of these outputs, in place."""
    for value in [value for value in graph.graph.output if value.name in names]:
        graph.graph.output.remove(value)
        graph.graph.value_info.append(value)


def at_opset(graph: ModelProto, opset: int) -> ModelProto:
    """The graph in the opset asked for; older ones than the exporter's are converted to."""
    if opset_of(graph) > opset:
        graph = lowered(graph, opset)
    if opset_of(graph) != opset:
        written = opset_of(graph)
        raise ModelError(f"export.opset {opset}", f"the exporter wrote {written}", f"--set export.opset={written}")
    return graph


def lowered(graph: ModelProto, opset: int) -> ModelProto:
    for node in graph.graph.node:
        for attribute in [a for a in node.attribute if a.name == "noop_with_empty_axes" and a.i == 0]:
            node.attribute.remove(attribute)  # a default that the converter does not know how to leave out
    try:
        return onnx.version_converter.convert_version(graph, opset)
    except RuntimeError as error:
        reason = str(error).strip().rpartition(": ")[2]
        raise ModelError(f"export.opset {opset}", reason, f"--set export.opset={EXPORTER_OPSET}") from error


def opset_of(graph: ModelProto) -> int:
    version: int = next(entry.version for entry in graph.opset_import if not entry.domain)
    return version


def describe(
    graph: ModelProto,
    image_shape: tuple[int, int, int],
    export: Export,
    normalize: Normalize,
    labels: tuple[str, ...],
    outputs: Outputs,
    boxes: dict[str, Any],
) -> None:
    """Note in the model what a program that runs it must know.

    Args:
        boxes: how a detector's outputs become boxes; empty for a classifier.
    """
    layout, dtype = ("NHWC", "uint8") if export.preprocess else ("NCHW", "float32")
    how = "pixels" if export.preprocess else "(pixels / 255 - mean) / std"
    size = told_square(image_shape) if boxes else "of any size" if export.preprocess else ""
    given = told_boxes(export.boxes) if boxes else f"{', '.join(outputs.logits)}: a row an image, a column a label"
    graph.doc_string = f"{INPUT}: {dtype} {layout}, {' '.join(filter(None, (how, size)))}.  {given}."
    graph.producer_name, graph.producer_version = "kdedge", metadata.version("kdedge")
    write_metadata(
        graph,
        {
            "producer": f"kdedge {graph.producer_version}",
            "exporter": f"torch {metadata.version('torch')}",
            "opset": opset_of(graph),
            "precision": "fp32",
            "labels": list(labels),
            "image_shape": list(image_shape),
            "layout": layout,
            "dtype": dtype,
            "preprocess": export.preprocess,
            "normalize": normalize.model_dump(mode="json"),
            **({"exit": outputs.exit} if outputs.exit else {}),
            **({"letterbox": {"place": "top left", "fill": GRAY}} if boxes else {}),
        },
    )
    if boxes:
        write_metadata(graph, boxes, KEY)


def write_metadata(graph: ModelProto, values: dict[str, Any], key: str = METADATA) -> None:
    """What kdedge noted under other keys stays; a library's own notes go."""
    noted = {entry.key: entry.value for entry in graph.metadata_props if entry.key.startswith(METADATA)}
    helper.set_model_props(graph, noted | {key: json.dumps(values, sort_keys=True)})


def metadata_of(graph: ModelProto, key: str = METADATA) -> dict[str, Any]:
    """Empty where there is none."""
    text = next((entry.value for entry in graph.metadata_props if entry.key == key), "{}")
    found: dict[str, Any] = json.loads(text)
    return found


def read_metadata(path: Path) -> dict[str, Any]:
    """What kdedge noted in the model: labels, image_shape, layout, dtype, normalize, ...; empty for others' models.

    Raises:
        ModelError: not an ONNX file.
    """
    return metadata_of(load(path))


def load(path: Path) -> ModelProto:
    """Raises ModelError when there is no ONNX model at `path`."""
    try:
        graph = onnx.load(path)
    except (OSError, DecodeError) as error:
        raise ModelError(f"cannot read {path}", str(error)) from None
    if not graph.graph.output:
        raise ModelError(f"{path} is not an ONNX model", "it holds no graph with an output")
    return graph


def count_nodes(path: Path) -> int:
    return len(onnx.load(path, load_external_data=False).graph.node)


def save(graph: ModelProto, out: Path) -> None:
    """Check the graph, types and shapes included, and write it in one piece."""
    onnx.checker.check_model(graph, full_check=True)
    with atomic_path(out) as temporary:
        onnx.save(graph, temporary)
