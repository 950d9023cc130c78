"""From an ONNX file to a serialized TensorRT engine, and the types that its layers compute in.

Types are those of the ONNX file: explicit Q/DQ for int8, half-precision tensors for fp16.
Part of the device closure: Python 3.8, standard library only; `trt` is the tensorrt module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdedge.core.errors import MissingTool, ModelError
from kdedge.engine.machine import gpu

ERRORS = 5  # the last ones are told
NOISE = re.compile(r"catchCudaError")  # what each error drags along on a machine without a GPU
QUANTIZATION = "kdedge export --preset tensorrt   (symmetric int8, biases left in float)"
FIXES = {
    "QuantizeLinear": QUANTIZATION,
    "DequantizeLinear": QUANTIZATION,
    "Resize": "kdedge export --preset tensorrt   (images are resized before the network, not in it)",
}
TYPES = {"Float": "fp32", "FP32": "fp32", "Half": "fp16", "FP16": "fp16", "Int8": "int8", "BFloat16": "bf16"}
TYPE = re.compile(r"\b({})\b".format("|".join(TYPES)))
# Layers that move or convert, and generated kernels (__myl_...) named after nothing but such steps.
MOVES = re.compile("(?i)reformat|noop|constant|shuffle|shape|copy|slice|concat|signal|wait")
MOVING_KERNEL = re.compile("__myl_(Move|Cast|Repl|Conc|Slic|Tran|Resh)+_")
GENERATED = "kgen"
LAYER = re.compile(r"^Name: (.*?), LayerType: (\w+), Inputs: \[(.*?)\], (?:Constants|Outputs): \[", re.MULTILINE)
DATATYPE = re.compile(r"Datatype: ([^,}]*)")


def make_log(trt: Any) -> Any:
    """A logger that keeps the errors, and what the builder says of the layers it has made."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message.strip())
            elif ", LayerType: " in message:
                self.layers += message

        def last_errors(self) -> str:
            lines = [line for line in self.errors if not NOISE.search(line)] or self.errors
            return "\n  ".join(lines[-ERRORS:]) or "TensorRT gave no reason"

    return Log()


def build_engine(trt: Any, onnx: Path, settings: dict[str, Any]) -> tuple[Any, str]:
    """The engine's bytes, and its layers as the builder logged them.

    Raises:
        ModelError: the parser or the builder refuses the model, with every reason it gives.
        MissingTool: this machine cannot build engines.
    """
    log = make_log(trt)
    try:
        builder = trt.Builder(log)
    except TypeError:  # what the bindings make of a null pointer
        raise MissingTool("TensorRT cannot build on this machine", log.last_errors()) from None
    trt.init_libnvinfer_plugins(log, "")
    network = builder.create_network(network_flags(trt))
    parse(trt, onnx, network, log)
    config = make_config(trt, builder, network, settings)
    profile = batch_profile(onnx, builder, network, settings)
    if profile is not None:
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelError(f"TensorRT builds no engine from {onnx}", log.last_errors())
    return engine, log.layers


def network_flags(trt: Any) -> int:
    """An explicit batch where it may be implicit, the ONNX file's types where others may be chosen.

    By name: bit 0 means the one in version 10 and the other in version 11.
    """
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        if flag is not None:
            flags |= 1 << int(flag)
    return flags


def parse(trt: Any, onnx: Path, network: Any, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(onnx)):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reasons = [describe(error) for error in errors] or [log.last_errors()]
    fix = next((FIXES[operator(error)] for error in errors if operator(error) in FIXES), "")
    raise ModelError(f"TensorRT does not take {onnx}", "\n  ".join(reasons), fix)


def operator(error: Any) -> str:
    return str(error.node_operator()) if hasattr(error, "node_operator") else ""  # from 10.0 on


def describe(error: Any) -> str:
    """One line: the node, the kind of error, and the parser's words where they say more than the condition it tried."""
    place = f"node {error.node()}" if error.node() >= 0 else "the file"
    if operator(error):
        place = f"{operator(error)} node {error.node_name()!r}"
    kind = error.code().name.lower().replace("_", " ")
    lines = [line for line in str(error.desc()).splitlines() if line != "false" and not NOISE.search(line)]
    return f"{place}: {kind}" + (", " + "; ".join(lines) if lines else "")


def make_config(trt: Any, builder: Any, network: Any, settings: dict[str, Any]) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings["workspace_mib"] << 20)
    if not settings["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        for name in weak_flags(trt, network):
            config.set_flag(getattr(trt.BuilderFlag, name))
    return config


def weak_flags(trt: Any, network: Any) -> set[str]:
    """The builder flags without which a version before strong typing refuses the types in the network."""
    flags = set()
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        if layer.type in (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE):
            flags.add("INT8")
        if any(layer.get_output(index).dtype == trt.DataType.HALF for index in range(layer.num_outputs)):
            flags.add("FP16")
    return flags


def batch_profile(onnx: Path, builder: Any, network: Any, settings: dict[str, Any]) -> Any:
    """The range of an open batch; None where every shape is known."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    open_ones = [tensor for tensor in tensors if -1 in tuple(tensor.shape)]
    if not open_ones:
        return None
    profile = builder.create_optimization_profile()
    for tensor in open_ones:
        rest = tuple(tensor.shape)[1:]
        if -1 in rest:
            shape = ", ".join("?" if size < 0 else str(size) for size in tuple(tensor.shape))
            raise ModelError(
                f"input {tensor.name} [{shape}] of {onnx}",
                "only its first axis, the batch, may be open in a TensorRT engine",
                "export it with the other axes fixed (export.preprocess: false)",
            )
        sizes = (1, settings["opt_batch"], settings["max_batch"])
        profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
    return profile


def read_precisions(trt: Any, engine: Path, logged: str) -> dict[str, int]:
    """Layers by the type they compute in: of the engine itself on a GPU, else as the builder logged them."""
    if not gpu():
        return count(from_log(logged))
    opened = trt.Runtime(make_log(trt)).deserialize_cuda_engine(engine.read_bytes())
    if opened is None:
        return {}
    text = opened.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return count(from_inspector(text))


def from_log(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Name, kind and types of the inputs of each layer in the builder's verbose log."""
    for name, kind, inputs in LAYER.findall(text):
        yield name, kind, DATATYPE.findall(inputs)


def from_inspector(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """The same of the engine inspector's JSON; nothing of layers that it only names."""
    for layer in json.loads(text)["Layers"]:
        if isinstance(layer, dict):
            types = [str(given.get("Format/Datatype") or given.get("Datatype", "")) for given in layer["Inputs"]]
            yield str(layer["Name"]), str(layer["LayerType"]), types


def count(layers: Iterator[tuple[str, str, list[str]]]) -> dict[str, int]:
    """Layers by the type of their first input; those that move or convert are left out."""
    counts: dict[str, int] = {}
    for name, kind, types in layers:
        found = TYPE.search(types[0]) if types else None
        if found is None or MOVES.search(kind) or MOVING_KERNEL.match(name):
            continue
        precision = TYPES[found.group(1)]
        if kind == GENERATED and precision == "int8":
            continue  # pointwise code that takes integers converts them first: no arithmetic in int8
        counts[precision] = counts.get(precision, 0) + 1
    return counts
