"""The builder's configuration, asked of whatever version is there.

Part of the device closure: Python 3.8, standard library only; `trt` is the tensorrt module.
"""

from __future__ import annotations

from typing import Any

from kdedge.core.errors import KdedgeError, MissingTool, ModelError

SWITCHES = {"gpu_fallback": "GPU_FALLBACK", "refit": "REFIT", "version_compatible": "VERSION_COMPATIBLE"}
TYPED_FLAGS = {"fp16": "FP16", "int8": "INT8"}
IN_THE_FILE = "kdedge export with export.precisions, which writes the types into the ONNX file"


def weakly_typed(settings: dict[str, Any]) -> bool:
    """Whether TensorRT may choose types: asked for, or needed by its calibration or an accelerator."""
    return bool(settings["weak_types"]) or settings["calibration"] is not None or settings["dla_core"] is not None


def wanted_types(trt: Any, network: Any, settings: dict[str, Any]) -> set[str]:
    """Types below fp32 that the network has, or that an option asks for."""
    types = set(settings["weak_types"])
    if settings["calibration"] is not None:
        types.add("int8")
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        if layer.type in (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE):
            types.add("int8")
        outputs = (layer.get_output(index) for index in range(layer.num_outputs))
        if any(tensor.dtype == trt.DataType.HALF for tensor in outputs):
            types.add("fp16")
    if settings["dla_core"] is not None and not types:
        raise KdedgeError(
            "option dla_core of backend trt",
            "a deep learning accelerator computes in fp16 and int8 only, the model is fp32",
            "export.backend_options.weak_types: [fp16]",
        )
    return types


def builder_flags(trt: Any, types: set[str], settings: dict[str, Any]) -> list[str]:
    """The names of the flags to set.

    Raises:
        KdedgeError: this version lacks one that an option asks for.
    """
    flags = [_member(trt, "BuilderFlag", flag, option) for option, flag in SWITCHES.items() if settings[option]]
    if weakly_typed(settings) or not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        # A version without these flags takes the types of the file, whatever it is asked.
        flags += [flag for name, flag in TYPED_FLAGS.items() if name in types and hasattr(trt.BuilderFlag, flag)]
        if settings["weak_types"] and not hasattr(trt.BuilderFlag, "FP16"):
            raise _lacking(trt, "weak_types", "is strongly typed", IN_THE_FILE)
    return sorted(flags)


def make_config(trt: Any, builder: Any, flags: list[str], settings: dict[str, Any]) -> Any:
    """Raises KdedgeError where this version lacks what an option asks for, MissingTool where there is no such DLA."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings["workspace_mib"] << 20)
    if not settings["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    for name in flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if settings["optimization_level"] is not None:
        if not hasattr(config, "builder_optimization_level"):
            raise _lacking(trt, "optimization_level", "has no such level")
        config.builder_optimization_level = settings["optimization_level"]
    if settings["hardware_compatibility"] != "none":
        if not hasattr(trt, "HardwareCompatibilityLevel"):
            raise _lacking(trt, "hardware_compatibility", "builds for one kind of GPU")
        level = _member(
            trt, "HardwareCompatibilityLevel", settings["hardware_compatibility"].upper(), "hardware_compatibility"
        )
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if settings["dla_core"] is not None:
        use_dla(trt, builder, config, settings["dla_core"])
    return config


def use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    if core >= builder.num_DLA_cores:
        raise MissingTool(
            f"deep learning accelerator {core}",
            f"this machine has {builder.num_DLA_cores} that TensorRT {trt.__version__} can use",
            "leave dla_core out of export.backend_options",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core


def unsupported_by_dla(config: Any, network: Any, settings: dict[str, Any]) -> list[str]:
    """The layers that fall back to the GPU; none without an accelerator.

    Raises:
        ModelError: there are some, and nobody allowed it.
    """
    if settings["dla_core"] is None:
        return []
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    names = [str(layer.name) for layer in layers if not config.can_run_on_DLA(layer)]
    if names and not settings["gpu_fallback"]:
        raise ModelError(
            f"{len(names)} of {len(layers)} layers do not run on the deep learning accelerator",
            ", ".join(names),
            "export.backend_options.gpu_fallback: true",
        )
    return names


def _member(trt: Any, enumeration: str, name: str, option: str) -> str:
    if not hasattr(getattr(trt, enumeration), name):
        raise _lacking(trt, option, f"has no {enumeration}.{name}")
    return name


def _lacking(trt: Any, option: str, what: str, fix: str = "leave it out") -> KdedgeError:
    return KdedgeError(f"option {option} of backend trt", f"TensorRT {trt.__version__} {what}", fix)
