"""ONNX Runtime on an NVIDIA GPU: backends ort_cuda and ort_tensorrt, one for each of its providers.

Their engine is the ONNX file itself: what a provider makes of it is kept by the provider, or made when it is opened.
ONNX Runtime silently hands a node that its provider does not take, or a whole model, to the CPU; here that is an error.
Part of the device closure: Python 3.8, standard library, numpy and onnxruntime.
"""

from __future__ import annotations

import abc
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.engine.base import register
from kdedge.engine.feeds import input_shapes, random_feeds
from kdedge.engine.graph import MOVES, count_precisions, operators_of
from kdedge.engine.machine import gpu
from kdedge.engine.ort import CUDA, LEVELS, PROVIDERS, TENSORRT, OrtBackend, OrtSession, create, session_options
from kdedge.engine.trt_cache import cache_folder

if TYPE_CHECKING:
    from kdedge.engine.base import Session

NAMED = 5  # nodes that an error lists


class OrtGpuBackend(OrtBackend):
    """What both share.

    `provider_options` are handed to the provider as text, over what kdedge chooses; it refuses those that it lacks.
    """

    suffix = ".engine.onnx"
    defaults = MappingProxyType({"threads": 1, "graph_optimization": "all", "provider_options": MappingProxyType({})})
    choices = MappingProxyType({"graph_optimization": LEVELS})
    provider: str

    def versions(self) -> dict[str, str]:
        return {**super().versions(), "gpu": gpu() or "none"}

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        settings = super().settings(options)
        given = settings["provider_options"]
        plain = (str, int, float, bool)
        if not isinstance(given, Mapping) or not all(isinstance(value, plain) for value in given.values()):
            what = f"option provider_options of backend {self.name}"
            raise KdedgeError(what, f"expected names with plain values, given {given!r}")
        settings["provider_options"] = {str(name): _text(value) for name, value in given.items()}
        return settings

    def may_differ(self, sidecar: dict[str, Any], versions: dict[str, str]) -> set[str]:  # noqa: ARG002
        return {"device.cpu", "device.instruction_sets"}

    def _build(self, onnx: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
        shutil.copyfile(str(onnx), str(out))
        self._check_nodes(out, settings)
        return {"precision": self._precision(out)}

    def _open(self, path: Path, settings: dict[str, Any], sidecar: dict[str, Any] | None) -> Session:
        if sidecar is None:
            self._check_nodes(path, settings)
        options = session_options(settings, settings["graph_optimization"])
        session = create(path, options, self.provider, self._provider_options(path, settings))
        return OrtSession(path, session, {} if sidecar is None else sidecar.get("precision", {}))

    def _check_nodes(self, path: Path, settings: dict[str, Any]) -> None:
        """Run one query; raises ModelError where the CPU computes in it."""
        with tempfile.TemporaryDirectory() as folder:
            options = session_options(settings, settings["graph_optimization"])
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = create(path, options, self.provider, self._provider_options(path, settings))
            opened = OrtSession(path, session, {})
            shapes = input_shapes(path.name, opened.inputs, {}, 1)
            opened.run(random_feeds(path.name, opened.inputs, shapes, seed=0))
            nodes = nodes_on_cpu(Path(session.end_profiling()).read_text(encoding="utf-8"))
        if nodes:
            more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
            raise ModelError(
                f"{len(nodes)} nodes of {path.name} fell back to the CPU",
                ", ".join(nodes[:NAMED]) + more + f": {self.provider} does not take them",
                "export with backend ort, or with a model of other operators",
            )

    def _provider_options(self, path: Path, settings: dict[str, Any]) -> dict[str, str]:
        return {**self._chosen(path), **settings["provider_options"]}

    @abc.abstractmethod
    def _chosen(self, path: Path) -> dict[str, str]:
        """kdedge's own choice of the provider's options."""

    @abc.abstractmethod
    def _precision(self, path: Path) -> dict[str, int]:
        """Nodes by the type they compute in; empty where the provider does not say."""


@register
class OrtCudaBackend(OrtGpuBackend):
    name = "ort_cuda"
    provider = CUDA

    def _chosen(self, path: Path) -> dict[str, str]:  # noqa: ARG002
        return {"use_tf32": "0"}

    def _precision(self, path: Path) -> dict[str, int]:
        """As in the file: this provider computes in the types it finds, and in floats between Q/DQ pairs."""
        return count_precisions(path)


@register
class OrtTensorRTBackend(OrtGpuBackend):
    name = "ort_tensorrt"
    provider = TENSORRT

    def _chosen(self, path: Path) -> dict[str, str]:
        folder = str(cache_folder() / "ort_tensorrt")
        operators = operators_of(path)
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": folder,
            "trt_fp16_enable": _text("fp16" in count_precisions(path)),
            "trt_int8_enable": _text("QuantizeLinear" in operators),
        }

    def _precision(self, path: Path) -> dict[str, int]:  # noqa: ARG002
        return {}  # the provider does not say what TensorRT chose


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def nodes_on_cpu(profile: str) -> list[str]:
    """The nodes, as operator and name, that the CPU computed in a profile of ONNX Runtime.

    Without those that only move: what works on shapes is left to the CPU on purpose.
    """
    found = {}
    for event in json.loads(profile):
        details = event.get("args", {})
        if event.get("cat") == "Node" and details.get("provider") == PROVIDERS[0]:
            operator = str(details.get("op_name", ""))
            if operator not in MOVES:
                found["{} {}".format(operator, event["name"].replace("_kernel_time", ""))] = True
    return list(found)
