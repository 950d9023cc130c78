"""A TensorRT session that times its layers: TensorRT calls back with each layer's time after a query.

Part of the device closure: Python 3.8, standard library and numpy; `trt` and `cuda` are tensorrt and pycuda.driver.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdedge.engine.base import LayerTimes, by_layer
from kdedge.engine.trt_session import TensorRTSession

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays


class ProfiledTensorRTSession(TensorRTSession):
    """Without a CUDA graph, which hides what is in it.  The layers' nodes are those that the sidecar knows."""

    def __init__(self, trt: Any, cuda: Any, path: Path, sidecar: dict[str, Any], cuda_graph: bool) -> None:  # noqa: ARG002
        super().__init__(trt, cuda, path, sidecar, cuda_graph=False)
        self._known = {
            layer["name"]: LayerTimes(layer["name"], layer["kind"], tuple(layer["nodes"]), [])
            for layer in sidecar.get("layers", ())
        }
        self._queries: list[dict[str, float]] = []
        self._profiler = make_profiler(trt)
        self._context.profiler = self._profiler
        self._context.enqueue_emits_profile = False  # not while the query runs

    def _infer(self, feeds: Arrays) -> Arrays:
        outputs = super()._infer(feeds)
        self._context.report_to_profiler()
        self._queries.append(self._profiler.taken())
        return outputs

    def layer_times(self) -> list[LayerTimes]:
        return by_layer(self._queries, self._known)


def make_profiler(trt: Any) -> Any:
    """Collects the milliseconds of one query's layers."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, float] = {}

        def report_layer_time(self, name: str, milliseconds: float) -> None:
            self.times[name] = self.times.get(name, 0.0) + milliseconds

        def taken(self) -> dict[str, float]:
            times, self.times = self.times, {}
            return times

    return Profiler()
