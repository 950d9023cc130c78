"""TensorRT, from 8.5 on.  Its engine belongs to one GPU and one version, and is built where it will run.

What a version offers is asked of its members, never of its number.  The options are those of trt_options.
Part of the device closure: Python 3.8, standard library and numpy, tensorrt and pycuda inside the functions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdedge.core.errors import MissingTool, ModelError, require
from kdedge.engine.base import Backend, register
from kdedge.engine.machine import gpu
from kdedge.engine.trt_build import build_engine
from kdedge.engine.trt_layers import check_types, describe_layers, read_layers
from kdedge.engine.trt_options import DEFAULTS, checked
from kdedge.engine.trt_profiler import ProfiledTensorRTSession
from kdedge.engine.trt_session import open_engine

if TYPE_CHECKING:
    from kdedge.engine.base import Session

FROM_8_6 = {8: 10, 10: 11}  # the next major version that a version-compatible engine opens in


@register
class TensorRTBackend(Backend):
    name = "trt"
    suffix = ".engine"
    defaults = DEFAULTS

    def versions(self) -> dict[str, str]:
        return {"tensorrt": str(_tensorrt().__version__), "gpu": gpu() or "none"}

    def obstacle(self) -> str:
        return "" if gpu() else "no NVIDIA GPU on this machine"

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        return checked(super().settings(options))

    def may_differ(self, sidecar: dict[str, Any], versions: dict[str, str]) -> set[str]:
        """The CPU; and what the engine was built to be compatible with."""
        fields = {"device.cpu", "device.instruction_sets"}
        options, built = sidecar.get("options", {}), sidecar.get("versions", {})
        if options.get("version_compatible") and opens_in(str(built.get("tensorrt")), versions["tensorrt"]):
            fields.add("versions.tensorrt")
        if runs_on(str(options.get("hardware_compatibility")), str(built.get("gpu")), versions["gpu"]):
            fields.add("versions.gpu")
        return fields

    def _build(self, onnx: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
        trt = _tensorrt()
        built = build_engine(trt, onnx, settings)
        with out.open("wb") as file:
            file.write(built.engine)
        record = describe_layers(read_layers(trt, out, built.layers))
        if settings["dla_core"] is None:  # an accelerator knows no fp32
            check_types(onnx, built.types, record["precision"])
        record.update(built.facts)
        if settings["calibration"] is not None:  # a path is nobody's business
            record["options"] = dict(settings, calibration=Path(settings["calibration"]).name)
        return record

    def _open(self, path: Path, settings: dict[str, Any], sidecar: dict[str, Any] | None) -> Session:
        return open_engine(_tensorrt(), path, self._runnable(path, sidecar), settings["cuda_graph"])

    def _open_profiled(self, path: Path, settings: dict[str, Any], sidecar: dict[str, Any] | None) -> Session:  # noqa: ARG002
        return open_engine(_tensorrt(), path, self._runnable(path, sidecar), kind=ProfiledTensorRTSession)

    def _runnable(self, path: Path, sidecar: dict[str, Any] | None) -> dict[str, Any]:
        """The sidecar; raises where the file is no engine, or this machine has no GPU to run it."""
        if sidecar is None:
            raise ModelError(f"model {path}", "TensorRT opens engines (*.engine) only", "kdedge export --trt")
        if self.obstacle():
            raise MissingTool(
                f"engine {path} was built here, but does not run here",
                self.obstacle(),
                "build and run it on the device, or kdedge export --ort",
            )
        return sidecar


def opens_in(built: str, here: str) -> bool:
    """Whether a version-compatible engine of TensorRT `built` opens in `here`, later or of the next major version."""
    was, now = _numbers(built), _numbers(here)
    return bool(was and now) and was <= now and now[0] in (was[0], FROM_8_6.get(was[0]))


def runs_on(compatibility: str, built: str, here: str) -> bool:
    """Whether an engine of one GPU, which `machine.gpu` describes, was made for the other one as well."""
    was, now = (_numbers(text.rpartition(" ")[2]) for text in (built, here))
    if compatibility == "ampere_plus":
        return bool(was and now) and now[0] >= 8
    return compatibility == "same_compute_capability" and bool(was) and was == now


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _tensorrt() -> Any:
    try:
        return require("tensorrt", "tensorrt", "backend trt")
    except MissingTool as error:
        jetson = "on a Jetson it comes with JetPack, for a venv made with --system-site-packages"
        raise MissingTool(error.what, error.why, f"{error.fix}; {jetson}") from None
    except (ImportError, OSError) as error:  # the package is there, the library it wraps is not
        raise MissingTool("tensorrt is installed, but does not load", str(error)) from error
