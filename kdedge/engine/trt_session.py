"""Running a TensorRT engine: one execution context, one stream, pinned buffers for the largest batch.

With a CUDA graph the network is launched as one; what surrounds it, the copies, is not part of the graph.

Part of the device closure: Python 3.8, standard library and numpy; `trt` and `cuda` are tensorrt and pycuda.driver.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdedge.core.errors import KdedgeError, MissingTool, ModelError
from kdedge.engine.base import Session, TensorSpec
from kdedge.engine.trt_cuda import Graph, enter_context
from kdedge.engine.trt_log import make_log

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays

# By name, because trt.nptype of older versions asks numpy for members that it no longer has.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def open_engine(
    trt: Any,
    path: Path,
    sidecar: dict[str, Any],
    cuda_graph: bool = False,
    kind: Callable[..., TensorRTSession] | None = None,
) -> TensorRTSession:
    """A session on the first GPU; it belongs to the thread that opens it.

    Args:
        kind: its class, TensorRTSession if not given.

    Raises:
        ModelError: TensorRT does not take the engine.
        KdedgeError: a CUDA graph of an engine that runs on an accelerator.
        MissingTool: no pycuda, or a TensorRT before 8.5.
    """
    if not hasattr(trt.IExecutionContext, "execute_async_v3"):
        raise MissingTool(f"TensorRT {trt.__version__} is too old", "kdedge needs 8.5 (JetPack 5.1) or newer")
    if cuda_graph and sidecar.get("options", {}).get("dla_core") is not None:
        raise KdedgeError(f"engine {path}", "it runs on a deep learning accelerator, which takes no CUDA graph")
    cuda = enter_context("running a TensorRT engine")
    try:
        return (kind or TensorRTSession)(trt, cuda, path, sidecar, cuda_graph)
    except BaseException:
        cuda.Context.pop()
        raise


class TensorRTSession(Session):
    def __init__(self, trt: Any, cuda: Any, path: Path, sidecar: dict[str, Any], cuda_graph: bool) -> None:
        self._cuda, self._log = cuda, make_log(trt)
        engine = load_engine(trt, path, sidecar.get("options", {}), self._log)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        given = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        inputs = [_spec(engine, name) for name in given]
        outputs = [_spec(engine, name) for name in names if name not in given]
        super().__init__(path.name, inputs, outputs, "TensorRT", sidecar.get("precision", {}))
        self.device_memory = device_memory(trt, engine)
        self._limits = {name: _limits(engine, name) for name in given}
        self.min_batch = max((low[0] for low, _ in self._limits.values() if low), default=1)
        self.max_batch = min((high[0] for _, high in self._limits.values() if high), default=None)
        self._engine: Any = engine
        self._context: Any = engine.create_execution_context()
        self._stream: Any = cuda.Stream()
        self._began, self._ended = cuda.Event(), cuda.Event()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._with_graph = cuda_graph
        self._graph: Graph | None = None
        self._allocate()

    def _allocate(self) -> None:
        """Pinned and device memory for the largest batch, whose addresses then stay."""
        largest = {name: high for name, (_, high) in self._limits.items()}
        shapes = self._set_shapes(largest)
        self._pinned: Arrays = {}
        self._device: dict[str, Any] = {}
        for spec in (*self.inputs, *self.outputs):
            size = int(np.prod(shapes[spec.name]))
            self._pinned[spec.name] = self._cuda.pagelocked_empty(size, np.dtype(spec.dtype))
            self._device[spec.name] = self._cuda.mem_alloc(max(self._pinned[spec.name].nbytes, 1))
            self._context.set_tensor_address(spec.name, int(self._device[spec.name]))
        buffers = sum(buffer.nbytes for buffer in self._pinned.values())
        self.device_memory = {**self.device_memory, "buffers": buffers}
        self._view(shapes)

    def _set_shapes(self, given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Tell the context the inputs' shapes; returns those of every input and output."""
        for name, shape in given.items():
            low, high = self._limits[name]
            fits = all(low[axis] <= size <= high[axis] for axis, size in enumerate(shape))
            if not fits or not self._context.set_input_shape(name, shape):
                raise ModelError(
                    f"input {name} of {self.model}",
                    f"given {list(shape)}, built for {list(low)} to {list(high)}",
                    "kdedge export --trt with export.backend_options.max_batch",
                )
        shapes = dict(given)
        for spec in self.outputs:
            shapes[spec.name] = tuple(self._context.get_tensor_shape(spec.name))
            if -1 in shapes[spec.name]:
                raise ModelError(f"output {spec.name} of {self.model}", "its shape depends on the values of the inputs")
        return shapes

    def _view(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Look at the pinned buffers as arrays of these shapes."""
        self._shapes = {spec.name: shapes[spec.name] for spec in self.inputs}
        self._arrays = {
            name: buffer[: int(np.prod(shapes[name]))].reshape(shapes[name]) for name, buffer in self._pinned.items()
        }

    def _infer(self, feeds: Arrays) -> Arrays:
        if self._context is None:
            raise ValueError(f"the session of {self.model} is closed")
        shapes = {spec.name: feeds[spec.name].shape for spec in self.inputs}
        if shapes != self._shapes:
            self._drop_graph()
            self._view(self._set_shapes(shapes))
        for name in shapes:
            np.copyto(self._arrays[name], feeds[name])
            self._cuda.memcpy_htod_async(self._device[name], self._arrays[name], self._stream)
        self._execute()
        for spec in self.outputs:
            self._cuda.memcpy_dtoh_async(self._arrays[spec.name], self._device[spec.name], self._stream)
        self._stream.synchronize()
        return {spec.name: self._arrays[spec.name].copy() for spec in self.outputs}

    def device_ms(self) -> float:
        """Between CUDA events around the network, or its graph; its inputs are still on the GPU."""
        self._began.record(self._stream)
        self._execute()
        self._ended.record(self._stream)
        self._ended.synchronize()
        return float(self._ended.time_since(self._began))

    def _execute(self) -> None:
        if self._graph is not None:
            self._graph.launch()
        elif not self._enqueue():
            raise ModelError(f"{self.model} failed to run", self._log.last_errors())
        elif self._with_graph:
            self._stream.synchronize()  # the first query of a shape settles what the context has put off till then
            self._graph = Graph(self._stream.handle, self._enqueue)

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(self._stream.handle))

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def close(self) -> None:
        if self._context is None:
            return
        self._drop_graph()
        self._context = self._engine = self._stream = self._feeds = self._began = self._ended = None
        self._arrays, self._pinned, self._device = {}, {}, {}  # freed while the GPU's context is still current
        self._cuda.Context.pop()


def load_engine(trt: Any, path: Path, options: dict[str, Any], log: Any) -> Any:
    """Raises ModelError where TensorRT does not take it, in its words.

    Args:
        options: those it was built with.
    """
    trt.init_libnvinfer_plugins(log, "")
    runtime = trt.Runtime(log)
    if options.get("version_compatible"):
        runtime.engine_host_code_allowed = True
    if options.get("dla_core") is not None:
        runtime.DLA_core = options["dla_core"]
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ModelError(f"engine {path}", log.last_errors(), "kdedge export --trt   (builds it again)")
    return engine


def device_memory(trt: Any, engine: Any) -> dict[str, int]:
    """Bytes on the GPU: what its contexts work in, and its weights where the version tells."""
    old = getattr(engine, "device_memory_size", 0)  # to 10.x; the other one from 10.3 on
    memory = {"context": int(getattr(engine, "device_memory_size_v2", old))}
    if hasattr(engine, "get_engine_stat") and hasattr(trt, "EngineStat"):
        memory["weights"] = int(engine.get_engine_stat(trt.EngineStat.TOTAL_WEIGHTS_SIZE))
    return memory


def _spec(engine: Any, name: str) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    if kind not in DTYPES:
        raise ModelError(f"tensor {name} of the engine", f"its type {kind} is none of numpy's")
    return TensorSpec(name, tuple(None if size < 0 else size for size in engine.get_tensor_shape(name)), DTYPES[kind])


def _limits(engine: Any, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Least and largest shape of an input."""
    shape = tuple(engine.get_tensor_shape(name))
    if -1 not in shape:
        return shape, shape
    low, _, high = engine.get_tensor_profile_shape(name, 0)
    return tuple(low), tuple(high)
