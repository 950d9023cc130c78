"""From an ONNX file to a serialized TensorRT engine.

Types are those of the ONNX file: explicit Q/DQ for int8, half-precision tensors for fp16.  Versions before 11 can also
be asked to choose types themselves (weak typing), which accelerators need.
Part of the device closure: Python 3.8, standard library only; `trt` is the tensorrt module.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from kdedge.core.errors import MissingTool, ModelError
from kdedge.engine.trt_cache import keep_timings, load_timings, timing_file
from kdedge.engine.trt_calibrator import calibrator_for
from kdedge.engine.trt_config import builder_flags, make_config, unsupported_by_dla, wanted_types, weakly_typed
from kdedge.engine.trt_layers import describe_placement
from kdedge.engine.trt_log import NOISE, make_log

QUANTIZATION = "kdedge export --preset tensorrt   (symmetric int8, biases left in float)"
HEADS = "kdedge export --set export.boxes=heads   (boxes are then made after the network, not in it)"
FIXES = {
    "EfficientNMS_TRT": HEADS,
    "NonMaxSuppression": HEADS,
    "QuantizeLinear": QUANTIZATION,
    "DequantizeLinear": QUANTIZATION,
    "Resize": "kdedge export --preset tensorrt   (images are resized before the network, not in it)",
}


class Built(NamedTuple):
    engine: Any
    """Its bytes."""
    layers: str
    """As the builder logged them."""
    types: set[str]
    """Those it was asked to compute in besides fp32."""
    facts: dict[str, Any]
    """For the sidecar."""


def build_engine(trt: Any, onnx: Path, settings: dict[str, Any]) -> Built:
    """Parse, configure and build.

    Raises:
        ModelError: the parser or the builder refuses the model, with every reason it gives.
        KdedgeError: this version has not what an option asks for.
        MissingTool: this machine cannot build engines.
    """
    log = make_log(trt)
    builder = make_builder(trt, log)
    trt.init_libnvinfer_plugins(log, "")
    network = builder.create_network(network_flags(trt, weakly_typed(settings)))
    parse(trt, onnx, network, log)
    types = wanted_types(trt, network, settings)
    flags = builder_flags(trt, types, settings)
    config = make_config(trt, builder, flags, settings)
    profile = batch_profile(onnx, builder, network, settings)
    if profile is not None:
        config.add_optimization_profile(profile)
    fallback = unsupported_by_dla(config, network, settings)
    timings = timing_file(trt, flags, settings)
    if timings is not None:
        load_timings(config, timings)
    with ExitStack() as stack:
        if settings["calibration"] is not None:
            shapes = calibration_shapes(network, settings)
            config.int8_calibrator = stack.enter_context(calibrator_for(trt, onnx, shapes, settings))
            if profile is not None:
                config.set_calibration_profile(fixed_profile(builder, shapes))
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        reason = log.last_errors()
        fix = HEADS if "nonmaxsuppression" in reason.lower() else ""
        raise ModelError(f"TensorRT builds no engine from {onnx}", reason, fix)
    if timings is not None:
        keep_timings(config, timings)
    facts: dict[str, Any] = {"flags": flags, "weakly_typed": weakly_typed(settings)}
    if settings["dla_core"] is not None:
        facts["dla"] = describe_placement(log.placement, network.num_layers, fallback)
    return Built(engine, log.layers, types, facts)


def make_builder(trt: Any, log: Any) -> Any:
    try:
        return trt.Builder(log)
    except TypeError:  # what the bindings make of a null pointer
        raise MissingTool("TensorRT cannot build on this machine", log.last_errors()) from None


def network_flags(trt: Any, weak: bool) -> int:
    """An explicit batch where it may be implicit, the ONNX file's types where others may be chosen.

    By name: bit 0 means the one in version 10 and the other in version 11.
    """
    flags = 0
    for name in ("EXPLICIT_BATCH",) if weak else ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
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
    if hasattr(error, "node_name") and operator(error):
        place = f"{operator(error)} node {error.node_name()!r}"
    kind = error.code().name.lower().replace("_", " ")
    lines = [line for line in str(error.desc()).splitlines() if line != "false" and not NOISE.search(line)]
    return f"{place}: {kind}" + (", " + "; ".join(lines) if lines else "")


def batch_profile(onnx: Path, builder: Any, network: Any, settings: dict[str, Any]) -> Any:
    """The range of an open batch; None where every shape is known.  An accelerator takes one size alone."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    open_ones = [tensor for tensor in tensors if -1 in tuple(tensor.shape)]
    if not open_ones:
        return None
    most = settings["max_batch"]
    sizes = (1, settings["opt_batch"], most) if settings["dla_core"] is None else (most, most, most)
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
        profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
    return profile


def calibration_shapes(network: Any, settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of each input; an open batch is `max_batch`."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    return {
        tensor.name: tuple(settings["max_batch"] if size < 0 else size for size in tuple(tensor.shape))
        for tensor in tensors
    }


def fixed_profile(builder: Any, shapes: dict[str, tuple[int, ...]]) -> Any:
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    return profile
