"""What kdedge asks of an inference library: a backend builds an engine from ONNX, a session runs it.

A new backend is one module of this package with a class under `@register`.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import abc
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kdedge.core.errors import KdedgeError, ModelError, nearest
from kdedge.engine.sidecar import atomic, checked_sidecar, write_sidecar

if TYPE_CHECKING:
    import numpy as np

    Arrays = dict[str, np.ndarray[Any, Any]]
    Opener = Callable[[Path, dict[str, Any], "dict[str, Any] | None"], "Session"]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: None stands for an axis that each query may choose, `dtype` is numpy's name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        return "{} {} [{}]".format(
            self.name, self.dtype, ", ".join("?" if size is None else str(size) for size in self.shape)
        )

    def admits(self, shape: Sequence[int]) -> bool:
        if len(shape) != len(self.shape):
            return False
        return all(size is None or size == shape[axis] for axis, size in enumerate(self.shape))


class LayerTimes(NamedTuple):
    """One layer of what computes, which may be several nodes of the ONNX file."""

    name: str
    kind: str
    """Its operator, or what the library calls it; empty where it does not say."""
    nodes: tuple[str, ...]
    """The ONNX nodes it was made from; empty where the library does not say."""
    milliseconds: list[float]
    """Of each query; 0 where it did not run."""


def by_layer(queries: list[dict[str, float]], layers: dict[str, LayerTimes]) -> list[LayerTimes]:
    """The layers with their milliseconds of every query; in the order of the first query that ran them."""
    names = dict.fromkeys(name for query in queries for name in query)
    return [
        layers.get(name, LayerTimes(name, "", (), []))._replace(
            milliseconds=[query.get(name, 0.0) for query in queries]
        )
        for name in names
    ]


class Session(abc.ABC):
    """An opened model with named inputs and outputs; close it, or use it in a with-block."""

    min_batch = 1
    max_batch: int | None = None
    """The largest batch it takes; None where there is no limit."""
    device_memory: Mapping[str, int] = MappingProxyType({})
    """Bytes that it holds on a GPU, by what for; empty where that is not known."""

    def __init__(
        self, model: str, inputs: list[TensorSpec], outputs: list[TensorSpec], provider: str, precision: dict[str, int]
    ) -> None:
        self.model, self.inputs, self.outputs, self.provider = model, inputs, outputs, provider
        self._precision = precision
        self._feeds: Arrays | None = None
        self._accepted: list[tuple[str, Any, tuple[int, ...]]] | None = None

    def run(self, feeds: Arrays) -> Arrays:
        """The outputs for one query.

        Raises:
            ModelError: an input is missing, unknown, or of another type or shape than the model's.
        """
        form = [(name, array.dtype, array.shape) for name, array in feeds.items()]
        if form != self._accepted:  # a full check costs microseconds, as a small model's query does
            self._check(feeds)
            self._accepted = form
        self._feeds = feeds
        return self._infer(feeds)

    def enqueue(self) -> Arrays:
        """Run again with the feeds of the last `run`, unchecked."""
        if self._feeds is None:
            raise ValueError("enqueue() before the first run()")
        return self._infer(self._feeds)

    def device_ms(self) -> float | None:
        """Compute once more on the inputs of the last `run`: milliseconds by the device's own clock, copies left out.

        None where it has no clock of its own, as a CPU has none, or none that can be read.
        """
        return None

    def layer_times(self) -> list[LayerTimes]:
        """Of a session opened with `Backend.open_profiled`: its layers, and what each took in every query so far."""
        raise ValueError(f"{self.model} was opened without timing its layers")

    def precision_built(self) -> dict[str, int]:
        """Nodes by the type they compute in, read back from the engine; empty where it is not known."""
        return dict(self._precision)

    @abc.abstractmethod
    def _infer(self, feeds: Arrays) -> Arrays: ...

    @abc.abstractmethod
    def close(self) -> None: ...

    def _check(self, feeds: Arrays) -> None:
        for spec in self.inputs:
            array = feeds.get(spec.name)
            if array is None:
                raise ModelError(
                    f"{self.model} got no input {spec.name!r}",
                    "it takes " + self._takes(),
                    "given: {}".format(", ".join(feeds) or "nothing"),
                )
            if array.dtype.name != spec.dtype or not spec.admits(array.shape):
                given = TensorSpec(spec.name, array.shape, array.dtype.name)
                raise ModelError(f"input of {self.model}", f"expected {spec}, given {given}")
        if len(feeds) > len(self.inputs):
            names = [spec.name for spec in self.inputs]
            unknown = next(name for name in feeds if name not in names)
            raise ModelError(
                f"{self.model} has no input {unknown!r}", nearest(unknown, names), "it takes " + self._takes()
            )

    def _takes(self) -> str:
        return "; ".join(str(spec) for spec in self.inputs)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Backend(abc.ABC):
    """One inference library."""

    name: str
    suffix: str
    """What the names of its engines end with; any other file is opened as ONNX."""
    defaults: Mapping[str, Any]
    """Its options."""

    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """What an engine is bound to besides the CPU: its library, and the GPU where that matters.

        Raises:
            MissingTool: one is not installed.
        """

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        """`options` over the defaults.

        Raises:
            KdedgeError: an option that there is not, or a value that it cannot have.
        """
        for key in options:
            if key not in self.defaults:
                raise KdedgeError(f"unknown option {key!r} of backend {self.name}", nearest(key, self.defaults))
        return {**self.defaults, **options}

    def obstacle(self) -> str:
        """Why this machine, which builds engines, cannot run them; empty where it can."""
        return ""

    def build(self, onnx: Path, out: Path, options: dict[str, Any]) -> dict[str, int]:
        """Build an engine for this machine, with its sidecar; an earlier one stays until the new one is whole.

        Returns the nodes by the type they compute in, as `Session.precision_built` gives them later.

        Raises:
            ModelError: the ONNX file is missing, broken or not supported.
        """
        if not out.name.endswith(self.suffix):
            raise ModelError(f"engine {out}", f"engines of {self.name} are named *{self.suffix}")
        settings, versions = self.settings(options), self.versions()
        _must_exist(onnx)
        with atomic(out) as temporary:
            record = self._build(onnx, temporary, settings)
        write_sidecar(out, onnx, {"backend": self.name, "versions": versions, "options": settings, **record})
        return dict(record["precision"])

    def open(self, path: Path, options: dict[str, Any]) -> Session:
        """Open an engine, or an ONNX file as it is.

        Raises:
            ModelError: the file is missing or broken, or an engine of another machine or version.
        """
        return self._opened(self._open, path, options)

    def open_profiled(self, path: Path, options: dict[str, Any]) -> Session:
        """As `open`, but for timing each layer (`Session.layer_times`), which makes every query slower.

        Raises:
            KdedgeError: the library does not time layers.
        """
        return self._opened(self._open_profiled, path, options)

    def _opened(self, how: Opener, path: Path, options: dict[str, Any]) -> Session:
        settings, versions = self.settings(options), self.versions()
        _must_exist(path)
        if not path.name.endswith(self.suffix):
            return how(path, settings, None)
        return how(path, settings, checked_sidecar(path, self.name, versions, self.may_differ))

    def may_differ(self, sidecar: dict[str, Any], versions: dict[str, str]) -> set[str]:  # noqa: ARG002
        """Fields of an engine's sidecar that need not be this machine's, such as device.cpu."""
        return set()

    @abc.abstractmethod
    def _build(self, onnx: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """What the sidecar shall say of the engine.

        At least `precision`: its nodes by the type they compute in, read back from what was built, and empty where it
        does not say.
        """

    @abc.abstractmethod
    def _open(self, path: Path, settings: dict[str, Any], sidecar: dict[str, Any] | None) -> Session: ...

    def _open_profiled(
        self,
        path: Path,
        settings: dict[str, Any],  # noqa: ARG002
        sidecar: dict[str, Any] | None,  # noqa: ARG002
    ) -> Session:
        raise KdedgeError(f"layers of {path}", f"backend {self.name} does not time them")


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"model {path}", "it is not a file" if path.exists() else "there is no such file")


_BACKENDS: dict[str, type[Backend]] = {}
B = TypeVar("B", bound="type[Backend]")


def register(kind: B) -> B:
    if kind.name in _BACKENDS:
        raise ValueError(f"two backends are called {kind.name!r}")
    _BACKENDS[kind.name] = kind
    return kind


def backend_names() -> list[str]:
    """Every backend of this package, whether its library is installed or not."""
    package = importlib.import_module("kdedge.engine")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module("kdedge.engine." + module.name)
    return sorted(_BACKENDS)


def backend(name: str) -> Backend:
    names = backend_names()
    if name not in names:
        raise KdedgeError(f"unknown backend {name!r}", nearest(name, names))
    return _BACKENDS[name]()
