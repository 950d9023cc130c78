"""TensorRT, from 8.5 on.  Its engine belongs to one GPU and one version, and is built where it will run.

What a version offers is asked of its members, never of its number.
Part of the device closure: Python 3.8, standard library and numpy, tensorrt and pycuda inside the functions.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kdedge.core.errors import KdedgeError, MissingTool, ModelError, require
from kdedge.engine.base import Backend, register
from kdedge.engine.machine import gpu
from kdedge.engine.trt_build import build_engine, read_precisions
from kdedge.engine.trt_session import open_engine

if TYPE_CHECKING:
    from kdedge.engine.base import Session

COUNTS = ("opt_batch", "max_batch", "workspace_mib")


@register
class TensorRTBackend(Backend):
    name = "trt"
    suffix = ".engine"
    defaults = MappingProxyType({"opt_batch": 1, "max_batch": 8, "workspace_mib": 1024, "tf32": False})

    def versions(self) -> dict[str, str]:
        return {"tensorrt": str(_tensorrt().__version__), "gpu": gpu() or "none"}

    def obstacle(self) -> str:
        return "" if gpu() else "no NVIDIA GPU on this machine"

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        """An open batch runs from 1 to `max_batch` and is tuned for `opt_batch`.

        `workspace_mib` limits the memory of single layers, which on a board with shared memory is else all of it.
        `tf32` lets fp32 layers round their inputs to 10 bits of mantissa.
        """
        settings = super().settings(options)
        for key in COUNTS:
            if type(settings[key]) is not int or settings[key] < 1:
                raise KdedgeError(
                    f"option {key} of backend trt", f"expected a whole number from 1 on, given {settings[key]!r}"
                )
        if settings["opt_batch"] > settings["max_batch"]:
            given = f"{settings['opt_batch']} and {settings['max_batch']}"
            raise KdedgeError("batch of backend trt", f"expected opt_batch <= max_batch, given {given}")
        if type(settings["tf32"]) is not bool:
            given = repr(settings["tf32"])
            raise KdedgeError("option tf32 of backend trt", f"expected true or false, given {given}")
        return settings

    def _build(self, onnx: Path, out: Path, settings: dict[str, Any]) -> dict[str, int]:
        trt = _tensorrt()
        engine, layers = build_engine(trt, onnx, settings)
        with out.open("wb") as file:
            file.write(engine)
        return read_precisions(trt, out, layers)

    def _open(self, path: Path, settings: dict[str, Any], sidecar: dict[str, Any] | None) -> Session:  # noqa: ARG002
        if sidecar is None:
            raise ModelError(f"model {path}", "TensorRT opens engines (*.engine) only", "kdedge export --trt")
        if self.obstacle():
            raise MissingTool(
                f"engine {path} was built here, but does not run here",
                self.obstacle(),
                "build and run it on the device, or kdedge export --ort",
            )
        return open_engine(_tensorrt(), path, sidecar.get("precision", {}))


def _tensorrt() -> Any:
    try:
        return require("tensorrt", "tensorrt", "backend trt")
    except MissingTool as error:
        jetson = "on a Jetson it comes with JetPack, for a venv made with --system-site-packages"
        raise MissingTool(error.what, error.why, f"{error.fix}; {jetson}") from None
    except (ImportError, OSError) as error:  # the package is there, the library it wraps is not
        raise MissingTool("tensorrt is installed, but does not load", str(error)) from error
