"""TensorRT by way of trtexec, on a board that has it but not TensorRT's Python package or pycuda.

The engine and its sidecar are those of backend trt, so that either opens what the other has built.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine.base import Backend, Session, TensorSpec, backend
from kdedge.engine.machine import gpu
from kdedge.engine.trt import TensorRTBackend
from kdedge.engine.trt_cache import cache_file, power_mode, read_cache, write_cache
from kdedge.engine.trt_config import weakly_typed
from kdedge.engine.trt_layers import check_types, describe_layers, describe_placement
from kdedge.profile.trtexec import ask_engine, build_engine
from kdedge.profile.trtexec_onnx import Outline, read_outline
from kdedge.profile.trtexec_options import END_TO_END, SWITCHES, Build, Load, Program, find_trtexec, locate

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays
    from kdedge.profile.trtexec_options import Shapes

PACKAGES = ("tensorrt", "pycuda")


def library(name: str) -> Backend:
    """The backend of a name; for trt the one that goes by trtexec where that is all there is."""
    return TrtexecBackend.found() if stands_in(name) else backend(name)


def stands_in(name: str) -> bool:
    """Whether trtexec is all that this machine has of the backend of this name."""
    return name == "trt" and bool(lacking()) and bool(locate())


def lacking() -> list[str]:
    """The Python packages that backend trt needs and this Python does not find."""
    return [name for name in PACKAGES if find_spec(name) is None]


class TrtexecBackend(TensorRTBackend):
    """Not registered: it is called trt like the one that it stands in for."""

    def __init__(self, program: Program) -> None:
        self.program = program

    @classmethod
    def found(cls) -> TrtexecBackend:
        """Raises MissingTool where there is no trtexec."""
        return cls(find_trtexec())

    @property
    def note(self) -> str:
        """For whoever reads the numbers."""
        without = " and ".join(lacking())
        return f"run by trtexec {self.program.version}, as this Python has no {without}"

    def versions(self) -> dict[str, str]:
        numbers = ".".join(map(str, self.program.version[:3]))
        return {"tensorrt": numbers, "gpu": gpu() or "none", "trtexec": str(self.program.version)}

    def obstacle(self) -> str:
        return ""  # trtexec says so itself

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        settings = super().settings(options)
        if settings["calibration"] is not None:
            raise _refused("calibration", "trtexec takes no images", "export int8 as Q/DQ nodes in the ONNX file")
        if settings["weak_types"] and self.program.version.major >= 11:
            raise _refused("weak_types", f"TensorRT {self.program.version} takes types from the ONNX file only")
        return settings

    def may_differ(self, sidecar: dict[str, Any], versions: dict[str, str]) -> set[str]:
        """Besides what backend trt allows: who built it, and how many numbers its version has."""
        fields = super().may_differ(sidecar, versions) | {"versions.trtexec"}
        built = str(sidecar.get("versions", {}).get("tensorrt")).split(".")
        return fields | {"versions.tensorrt"} if built[:3] == versions["tensorrt"].split(".") else fields

    def _build(self, onnx: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
        outline = read_outline(onnx)
        build = build_options(onnx, outline, settings)
        with kept_timings(self.program, build, settings["timing_cache"]) as timings:
            log, layers = build_engine(self.program, onnx, out, replace(build, timing_cache=timings))
        record = describe_layers(layers)
        if build.dla_core is None:
            check_types(onnx, set(build.types), record["precision"])
        else:
            placement = describe_placement(log.placement, 1, [])  # of how many layers, trtexec does not say
            record["dla"] = {name: placement[name] for name in ("parts", "gpu_layers")}
        record.update(inputs=_plain(outline.inputs), outputs=_plain(outline.outputs), weakly_typed=build.weak)
        return record

    def open(self, path: Path, options: dict[str, Any]) -> TrtexecSession:
        return cast("TrtexecSession", super().open(path, options))

    def _open(self, path: Path, settings: dict[str, Any], sidecar: dict[str, Any] | None) -> Session:
        if sidecar is None:
            raise ModelError(f"model {path}", "TensorRT opens engines (*.engine) only", "kdedge export --trt")
        if "inputs" not in sidecar:
            raise ModelError(
                f"engine {path}", "the Python package built it, so that its sidecar names no inputs",
                "build it again here, or install " + " and ".join(lacking()),
            )  # fmt: skip
        return TrtexecSession(self.program, path, sidecar, settings["cuda_graph"])


class TrtexecSession(Session):
    """Starts trtexec for every query: for answers, not for times."""

    def __init__(self, program: Program, path: Path, sidecar: dict[str, Any], cuda_graph: bool) -> None:
        inputs, outputs = (
            [TensorSpec(spec["name"], tuple(spec["shape"]), spec["dtype"]) for spec in sidecar[kind]]
            for kind in ("inputs", "outputs")
        )
        super().__init__(path.name, inputs, outputs, f"TensorRT by trtexec {program.version}", sidecar["precision"])
        built = sidecar["options"]
        self.program, self.path = program, path
        if any(None in spec.shape for spec in inputs):
            self.max_batch = built["max_batch"]
            self.min_batch = 1 if built["dla_core"] is None else self.max_batch
        self.load = Load(
            replace(END_TO_END, graph=cuda_graph),
            dla_core=built["dla_core"],
            version_compatible=built["version_compatible"],
        )

    def load_of(self, shapes: Mapping[str, tuple[int, ...]]) -> Load:
        """Of these shapes; trtexec is told those that are open alone."""
        return replace(self.load, shapes={spec.name: shapes[spec.name] for spec in self.inputs if None in spec.shape})

    def _infer(self, feeds: Arrays) -> Arrays:
        load = self.load_of({name: array.shape for name, array in feeds.items()})
        answer = ask_engine(self.program, self.path, feeds, load)
        missing = [spec.name for spec in self.outputs if spec.name not in answer]
        if missing:
            raise ModelError(f"engine {self.path}", "trtexec exported no output {}".format(", ".join(missing)))
        return {spec.name: answer[spec.name].astype(spec.dtype) for spec in self.outputs}

    def close(self) -> None:
        pass


def build_options(onnx: Path, outline: Outline, settings: dict[str, Any]) -> Build:
    types = sorted(outline.types | set(settings["weak_types"]))
    if settings["dla_core"] is not None and not types:
        why, fix = "a deep learning accelerator computes in fp16 and int8 only", "weak_types: [fp16]"
        raise _refused("dla_core", f"{why}, the model is fp32", f"export.backend_options.{fix}")
    alike = ("tf32", "workspace_mib", "dla_core", "hardware_compatibility", "optimization_level", *SWITCHES)
    chosen = {name: settings[name] for name in alike}
    return Build(tuple(types), shapes=_shapes(onnx, outline, settings), weak=weakly_typed(settings), **chosen)


def _shapes(onnx: Path, outline: Outline, settings: dict[str, Any]) -> tuple[Shapes, Shapes, Shapes] | None:
    """Of an open batch: least, usual, most; None where every shape is known.  An accelerator takes one size alone."""
    inputs = [spec for spec in outline.inputs if None in spec.shape]
    for spec in inputs:
        if None in spec.shape[1:]:
            raise ModelError(
                f"input {spec} of {onnx}", "only its first axis, the batch, may be open in a TensorRT engine",
                "export it with the other axes fixed (export.preprocess: false)",
            )  # fmt: skip
    most = settings["max_batch"]
    batches = (1, settings["opt_batch"], most) if settings["dla_core"] is None else (most, most, most)
    rest = {spec.name: tuple(size or 0 for size in spec.shape[1:]) for spec in inputs}
    least, usual, largest = ({name: (size, *sizes) for name, sizes in rest.items()} for size in batches)
    return (least, usual, largest) if inputs else None


@contextmanager
def kept_timings(program: Program, build: Build, wanted: bool) -> Iterator[Path | None]:
    """A file for trtexec to keep its times of tactics in, which begins with those of earlier builds like this one."""
    if not wanted:
        yield None
        return
    alike = (build.types, build.weak, build.dla_core, build.optimization_level, build.hardware_compatibility)
    key = {"trtexec": str(program.version), "gpu": gpu(), "build": repr(alike), "power_mode": power_mode()}
    kept = cache_file("timing", key)
    with tempfile.TemporaryDirectory(prefix="kdedge-trtexec-") as folder:
        file, known = Path(folder) / "timings", read_cache(kept)
        if known:
            file.write_bytes(known)
        yield file
        if file.is_file():
            write_cache(kept, file.read_bytes())


def _plain(specs: list[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype} for spec in specs]


def _refused(option: str, why: str, fix: str = "leave it out") -> KdedgeError:
    return KdedgeError(f"option {option} of backend trt", why, fix)
