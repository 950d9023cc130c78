"""ONNX Runtime on the CPU.  Its engine is the model as optimized offline for it, so that opening does no such work.

Part of the device closure: Python 3.8, standard library, numpy and onnxruntime.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kdedge.core.errors import KdedgeError, MissingTool, ModelError, nearest, require
from kdedge.engine.base import Backend, Session, TensorSpec, register
from kdedge.engine.graph import count_precisions, remove_inputs
from kdedge.engine.machine import usable_cores
from kdedge.engine.ort_layers import read_profile

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays, LayerTimes

PROVIDERS = ("CPUExecutionProvider",)
CUDA, TENSORRT = ON_GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
INSTALL = "pip uninstall onnxruntime; pip install onnxruntime-gpu   (on a Jetson: the wheel made for its JetPack)"
LIBRARIES = {
    CUDA: 'pip install "onnxruntime-gpu[cuda,cudnn]"   (CUDA and cuDNN of the versions it was built with)',
    TENSORRT: "put the libraries of the TensorRT that this onnxruntime-gpu was built with on LD_LIBRARY_PATH",
}
LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
SILENT = 4  # only fatal messages: what fails is raised, and says so
DTYPES = {"float": "float32", "double": "float64", "string": "object"}
INLINE_BYTES = 1 << 40  # weights below this many bytes go into the engine's file, wherever the ONNX file had them
PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|\S+\.(?:h|cc):\d+ .*?\) ")


@register
class OrtBackend(Backend):
    name = "ort"
    suffix = ".engine.onnx"
    defaults: Mapping[str, Any] = MappingProxyType(
        {"threads": None, "provider": PROVIDERS[0], "graph_optimization": "all"}
    )
    choices: Mapping[str, Collection[str]] = MappingProxyType({"provider": PROVIDERS, "graph_optimization": LEVELS})

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": str(onnxruntime().__version__)}

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        """Without `threads`: the physical cores this process may use.  An engine is past its `graph_optimization`."""
        settings = super().settings(options)
        if settings["threads"] is None:
            settings["threads"] = usable_cores()
        if type(settings["threads"]) is not int or settings["threads"] < 1:
            raise KdedgeError(
                f"option threads of backend {self.name}",
                "expected a whole number from 1 on, given {!r}".format(settings["threads"]),
            )
        for key, known in self.choices.items():
            if settings[key] not in known:
                raise KdedgeError(
                    f"option {key} of backend {self.name} has no value {settings[key]!r}",
                    nearest(str(settings[key]), known),
                )
        return settings

    def _build(self, onnx: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
        options = session_options(settings, settings["graph_optimization"])
        options.optimized_model_filepath = str(out)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", out.name + ".data")
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", str(INLINE_BYTES)
        )
        source = create(onnx, options, settings["provider"])
        built = create(out, session_options(settings, "none"), settings["provider"])
        stale = _input_names(built) - _input_names(source)
        if stale:  # weights that an old model lists as inputs, and that optimization folded away
            remove_inputs(out, stale)
        return {"precision": count_precisions(out)}

    def _open(self, path: Path, settings: dict[str, Any], sidecar: dict[str, Any] | None) -> Session:
        session = create(path, _options_for(sidecar, settings), settings["provider"])
        return OrtSession(path, session, {} if sidecar is None else sidecar.get("precision", {}))

    def _open_profiled(self, path: Path, settings: dict[str, Any], sidecar: dict[str, Any] | None) -> Session:
        if settings.get("provider") != PROVIDERS[0]:
            why = f"backend {self.name} knows when a GPU's kernels were launched, not what they took"
            raise KdedgeError(f"layers of {path}", why, "kdedge export --trt   (its layers are timed on the GPU)")
        return ProfiledOrtSession(path, settings, _options_for(sidecar, settings))


class OrtSession(Session):
    def __init__(self, path: Path, session: Any, precision: dict[str, int]) -> None:
        inputs = [_spec(value) for value in session.get_inputs()]
        outputs = [_spec(value) for value in session.get_outputs()]
        super().__init__(path.name, inputs, outputs, session.get_providers()[0], precision)
        self._session: Any = session
        self._names = [spec.name for spec in outputs]
        self._failures = _failures()

    def _infer(self, feeds: Arrays) -> Arrays:
        if self._session is None:
            raise ValueError(f"the session of {self.model} is closed")
        try:
            values = self._session.run(self._names, feeds)
        except self._failures as error:
            raise ModelError(f"{self.model} failed to run", _cause(error)) from error
        return {name: values[index] for index, name in enumerate(self._names)}

    def close(self) -> None:
        self._session = self._feeds = None


class ProfiledOrtSession(OrtSession):
    """ONNX Runtime writes down every node's time as it goes; the file is read once, at the end."""

    def __init__(self, path: Path, settings: dict[str, Any], options: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="kdedge-")
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name) / "nodes")
        try:
            super().__init__(path, create(path, options, settings["provider"]), {})
        except BaseException:
            self._folder.cleanup()
            raise

    def layer_times(self) -> list[LayerTimes]:
        """Queries after this are not timed by layer."""
        return read_profile(Path(self._session.end_profiling()).read_text(encoding="utf-8"))

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def onnxruntime() -> Any:
    return require("onnxruntime", "", "backend ort")


def _failures() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions; they have no base class of their own."""
    native = vars(onnxruntime().capi.onnxruntime_pybind11_state).values()
    return tuple(kind for kind in native if isinstance(kind, type) and issubclass(kind, Exception))


def _cause(error: Exception) -> str:
    """The message in one line, without the library's error codes, source lines and repetitions of the path."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return PREFIX.sub("", lines[0]).strip() if lines else type(error).__name__


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except _failures() as error:
        raise ModelError(f"model {path}", _cause(error)) from error


def session_options(settings: dict[str, Any], level: str) -> Any:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = settings["threads"]
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    return options


def _options_for(sidecar: dict[str, Any] | None, settings: dict[str, Any]) -> Any:
    """An engine is past its optimization."""
    return session_options(settings, settings["graph_optimization"] if sidecar is None else "none")


def create(path: Path, options: Any, provider: str, of_provider: Mapping[str, str] = MappingProxyType({})) -> Any:
    """ONNX Runtime's session.

    Args:
        of_provider: the provider's own options.

    Raises:
        MissingTool: this onnxruntime was built without the provider, or cannot load it.
        ModelError: onnxruntime refuses the model.
    """
    ort = onnxruntime()
    if provider not in ort.get_available_providers():
        raise MissingTool(
            f"{provider} is not in this onnxruntime",
            "it has {}".format(", ".join(ort.get_available_providers())),
            INSTALL if provider in ON_GPU else "",
        )
    with _explained(path):
        session = ort.InferenceSession(
            str(path), options, providers=[(provider, dict(of_provider))], enable_fallback=False
        )
    if session.get_providers()[0] != provider:
        raise MissingTool(
            f"{provider} does not load",
            f"asked for it, onnxruntime fell back to {session.get_providers()[0]}",
            LIBRARIES.get(provider, ""),
        )
    return session


def _input_names(session: Any) -> set[str]:
    return {value.name for value in session.get_inputs()}


def _spec(value: Any) -> TensorSpec:
    """A tensor's type becomes numpy's name; other values (sequences, maps) keep ONNX Runtime's."""
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    tensor = re.match(r"tensor\((\w+)\)$", value.type)
    element = tensor.group(1) if tensor else value.type
    return TensorSpec(value.name, shape, DTYPES.get(element, element))
