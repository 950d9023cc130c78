"""CUDA beside TensorRT: the context that both use, and graphs of the work given to a stream.

Graphs go through the driver, whose calls pycuda does not wrap.
Part of the device closure: Python 3.8, standard library only, pycuda inside the functions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kdedge.core.errors import ModelError, require

THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE: calls of other threads stay allowed


def enter_context(why: str) -> Any:
    """pycuda.driver, with the first GPU's primary context current; its `Context.pop()` leaves it.

    Raises:
        MissingTool: no pycuda.
    """
    cuda = require("pycuda.driver", "tensorrt", why)
    cuda.init()
    cuda.Device(0).retain_primary_context().push()  # the one that TensorRT itself uses
    return cuda


@contextmanager
def current_context(why: str) -> Iterator[Any]:
    cuda = enter_context(why)
    try:
        yield cuda
    finally:
        cuda.Context.pop()


class Graph:
    """Work captured from a stream once, to be launched as one."""

    def __init__(self, stream: int, enqueue: Callable[[], bool]) -> None:
        """Raises ModelError where the work cannot be captured."""
        self._driver: Any = ctypes.CDLL("libcuda.so.1")
        self._stream = ctypes.c_void_p(stream)
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, THREAD_LOCAL)
        enqueued = enqueue()
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        try:
            if not enqueued:
                raise _uncapturable("TensorRT refused to run")
            flags = ctypes.c_ulonglong(0)
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, flags)
        finally:
            self._driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        if self._executable:
            self._driver.cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise _uncapturable(f"{name} ended with CUDA error {code}")


def _uncapturable(why: str) -> ModelError:
    return ModelError("the engine does not run as a CUDA graph", why, "export.backend_options.cuda_graph: false")
