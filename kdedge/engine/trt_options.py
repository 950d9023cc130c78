"""The options of backend trt: what each means, its default, and what it may be.

    opt_batch, max_batch    an open batch runs from 1 to `max_batch` and is tuned for `opt_batch`
    workspace_mib           memory that single layers may take; null: an eighth of the machine's, at most 1024
    optimization_level      0 to 5, how long tactics are searched for (TensorRT's own is 3); from 8.6 on
    tf32                    let fp32 layers round their inputs to 10 bits of mantissa
    weak_types              [fp16, int8]: types that TensorRT may choose besides the ONNX file's; up to 10.x
    calibration             .npz of arrays named after the inputs, which int8 scales are calibrated on; up to 10.x
    calibrator              entropy or minmax
    dla_core                run on this deep learning accelerator, with the batch fixed to `max_batch`
    gpu_fallback            let the GPU run the layers that the accelerator does not take
    refit                   weights can be replaced in the built engine
    version_compatible      the engine opens in later versions, too; from 8.6 on
    hardware_compatibility  none, ampere_plus or same_compute_capability: GPUs besides this one; from 8.6 on
    timing_cache            keep what was timed for the next build
    cuda_graph              launch the whole network at once; not with an accelerator

Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from kdedge.core.errors import KdedgeError, nearest
from kdedge.engine.machine import ROOT, read

DEFAULTS = MappingProxyType(
    {
        "opt_batch": 1,
        "max_batch": 8,
        "workspace_mib": None,
        "optimization_level": None,
        "tf32": False,
        "weak_types": (),
        "calibration": None,
        "calibrator": "entropy",
        "dla_core": None,
        "gpu_fallback": False,
        "refit": False,
        "version_compatible": False,
        "hardware_compatibility": "none",
        "timing_cache": True,
        "cuda_graph": False,
    }
)
NUMBERS = {  # least and largest value, and whether null is one
    "opt_batch": (1, None, False),
    "max_batch": (1, None, False),
    "workspace_mib": (1, None, True),
    "optimization_level": (0, 5, True),
    "dla_core": (0, None, True),
}
CHOICES = {
    "calibrator": ("entropy", "minmax"),
    "hardware_compatibility": ("none", "ampere_plus", "same_compute_capability"),
}
WEAK_TYPES = ("fp16", "int8")
WORKSPACE_MIB = 1024
WORKSPACE_SHARE = 8  # on a board the network, its other half and the system live in the same memory


def checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Complete settings, with the workspace filled in.

    Raises:
        KdedgeError: a value that its option cannot have, or two options that exclude each other.
    """
    for key, (least, most, optional) in NUMBERS.items():
        _check_number(key, settings[key], least, most, optional)
    for key, known in CHOICES.items():
        if settings[key] not in known:
            raise _refused(key, f"it has no value {settings[key]!r}: {nearest(str(settings[key]), known)}")
    for key, default in DEFAULTS.items():
        if type(default) is bool and type(settings[key]) is not bool:
            raise _refused(key, f"expected true or false, given {settings[key]!r}")
    _check_types(settings["weak_types"])
    if settings["calibration"] is not None and not isinstance(settings["calibration"], str):
        raise _refused("calibration", f"expected the path of an .npz file, given {settings['calibration']!r}")
    _check_together(settings)
    made = dict(settings, weak_types=sorted(settings["weak_types"]))
    if made["workspace_mib"] is None:
        made["workspace_mib"] = default_workspace()
    return made


def default_workspace(root: Path = ROOT) -> int:
    """MiB."""
    first = read(root / "proc/meminfo").split("\n")[0].split()
    if first[:1] != ["MemTotal:"]:
        return WORKSPACE_MIB
    return max(1, min(WORKSPACE_MIB, int(first[1]) // 1024 // WORKSPACE_SHARE))


def _check_number(key: str, value: Any, least: int, most: int | None, optional: bool) -> None:
    if value is None and optional:
        return
    if type(value) is not int or value < least or (most is not None and value > most):
        limit = "on" if most is None else f"to {most}"
        raise _refused(key, f"expected a whole number from {least} {limit}, given {value!r}")


def _check_types(given: Any) -> None:
    if not isinstance(given, (list, tuple)):
        raise _refused("weak_types", f"expected a list, given {given!r}")
    for name in given:
        if name not in WEAK_TYPES:
            raise _refused("weak_types", f"it has no value {name!r}: {nearest(str(name), WEAK_TYPES)}")


def _check_together(settings: dict[str, Any]) -> None:
    if settings["opt_batch"] > settings["max_batch"]:
        given = f"{settings['opt_batch']} and {settings['max_batch']}"
        raise KdedgeError("batch of backend trt", f"expected opt_batch <= max_batch, given {given}")
    if settings["dla_core"] is None:
        if settings["gpu_fallback"]:
            raise _refused("gpu_fallback", "without dla_core everything runs on the GPU", "give dla_core as well")
    elif settings["cuda_graph"]:
        raise _refused("cuda_graph", "a deep learning accelerator takes no CUDA graph", "leave it out, or dla_core")


def _refused(key: str, why: str, fix: str = "") -> KdedgeError:
    return KdedgeError(f"option {key} of backend trt", why, fix)
