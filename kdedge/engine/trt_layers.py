"""The layers of a built engine: what each computes in, the ONNX nodes fused into it, and where it runs.

Part of the device closure: Python 3.8, standard library only; `trt` is the tensorrt module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kdedge.core.errors import ModelError
from kdedge.engine.machine import gpu
from kdedge.engine.trt_log import make_log

TYPES = {"Float": "fp32", "FP32": "fp32", "Half": "fp16", "FP16": "fp16", "Int8": "int8", "BFloat16": "bf16"}
TYPE = re.compile(r"\b({})\b".format("|".join(TYPES)))
# Layers that move or convert, and generated kernels (__myl_...) named after nothing but such steps.
MOVES = re.compile("(?i)reformat|noop|constant|shuffle|shape|copy|slice|concat|signal|wait")
MOVING_KERNEL = re.compile("__myl_(Move|Cast|Repl|Conc|Slic|Tran|Resh)+_")
GENERATED = "kgen"
LAYER = re.compile(
    r"^Name: (.*?), LayerType: (\w+), Inputs: \[(.*?)\], (?:Constants|Outputs): \[(?:.*?, Metadata: (.*))?",
    re.MULTILINE,
)
DATATYPE = re.compile(r"Datatype: ([^,}]*)")
NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f]|$)")
ON_DLA = re.compile(r"\[DlaLayer\] (.*)")
ON_GPU = re.compile(r"\[GpuLayer\] (.*)")


class Layer(NamedTuple):
    name: str
    kind: str
    precision: str
    """Of its first input; empty where it only moves or converts."""
    nodes: tuple[str, ...]
    """The ONNX nodes it was made from; empty where the engine does not say."""


def read_layers(trt: Any, engine_file: Path, logged: str) -> list[Layer]:
    """Of the engine itself on a GPU, else as the builder logged them."""
    if not gpu():
        return list(from_log(logged))
    runtime = trt.Runtime(make_log(trt))
    engine = runtime.deserialize_cuda_engine(engine_file.read_bytes())
    if engine is None:
        return list(from_log(logged))
    inspector = engine.create_engine_inspector()
    return list(from_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))


def from_log(text: str) -> Iterator[Layer]:
    """Each layer of the builder's verbose log."""
    for name, kind, inputs, metadata in LAYER.findall(text):
        yield _layer(name, kind, DATATYPE.findall(inputs), metadata)


def from_inspector(text: str) -> Iterator[Layer]:
    """Each layer of the engine inspector's JSON; nothing of layers that it only names."""
    for layer in json.loads(text)["Layers"]:
        if isinstance(layer, dict):
            types = [str(given.get("Format/Datatype") or given.get("Datatype", "")) for given in layer["Inputs"]]
            yield _layer(str(layer["Name"]), str(layer["LayerType"]), types, str(layer.get("Metadata", "")))


def _layer(name: str, kind: str, types: list[str], metadata: str) -> Layer:
    nodes = NODE.findall(metadata.strip())
    if not nodes and " + " in name:  # before 8.6 the name is all there is
        nodes = name.split(" + ")
    return Layer(name, kind, _precision(name, kind, types), tuple(nodes))


def _precision(name: str, kind: str, types: list[str]) -> str:
    found = TYPE.search(types[0]) if types else None
    if found is None or MOVES.search(kind) or MOVING_KERNEL.match(name):
        return ""
    precision = TYPES[found.group(1)]
    if kind == GENERATED and precision == "int8":
        return ""  # pointwise code that takes integers converts them first: no arithmetic in int8
    return precision


def count(layers: Iterable[Layer]) -> dict[str, int]:
    """Layers by the type they compute in; those that move or convert are left out."""
    counts: dict[str, int] = {}
    for layer in layers:
        if layer.precision:
            counts[layer.precision] = counts.get(layer.precision, 0) + 1
    return counts


def describe_layers(layers: list[Layer]) -> dict[str, Any]:
    """For the sidecar."""
    fused = sum(len(layer.nodes) > 1 for layer in layers)
    return {"precision": count(layers), "fused_layers": fused, "layers": [layer._asdict() for layer in layers]}


def describe_placement(logged: str, network_layers: int, fallback: list[str]) -> dict[str, Any]:
    """What the accelerator took, for the sidecar.

    Args:
        logged: the builder's lines on where layers run.
        fallback: the network's layers that the accelerator cannot run.

    Raises:
        ModelError: it took nothing, so that this is a GPU engine by another name.
    """
    parts, left = ON_DLA.findall(logged), ON_GPU.findall(logged)
    if not parts:
        raise ModelError(
            "nothing of the engine runs on the deep learning accelerator",
            "the GPU was given {}".format("; ".join(left) or "everything"),
            "leave dla_core out of export.backend_options",
        )
    share = 1 - len(fallback) / network_layers
    return {"share": round(share, 4), "parts": parts, "gpu_layers": left, "fallback": fallback}


def check_types(onnx: Path, asked: set[str], built: dict[str, int]) -> None:
    """Raises ModelError where an engine that should compute in fewer bits does not."""
    missing = {"int8"} & asked - set(built)
    if not built or not asked or (not missing and asked & set(built)):
        return
    raise ModelError(
        "{} was asked for in {}".format(onnx, " and ".join(sorted(asked))),
        "TensorRT built its layers in {}".format(", ".join(f"{kind} ({built[kind]})" for kind in sorted(built))),
        "kdedge export --preset tensorrt   (types in the ONNX file that TensorRT keeps)",
    )
