"""Inputs for a model that nobody described: shapes from what the model says and the user adds, content at random.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdedge.core.errors import ModelError, nearest
from kdedge.engine.base import TensorSpec

if TYPE_CHECKING:
    from kdedge.engine.base import Arrays

EXAMPLE_SIZE = 224


def input_shapes(
    model: str, specs: Sequence[TensorSpec], asked: dict[str, tuple[int, ...]], batch: int = 1
) -> dict[str, tuple[int, ...]]:
    """The shape of every input: as asked for, else the model's own with `batch` for an open first axis.

    Raises:
        ModelError: a name that is no input, a shape that the model refuses, or open axes that nobody gave a size.
    """
    for name in asked:
        if name not in [spec.name for spec in specs]:
            raise ModelError(
                f"{model} has no input {name!r}",
                nearest(name, [spec.name for spec in specs]),
                shape_line(model, specs),
            )
    shapes = {spec.name: asked.get(spec.name) or _own_shape(spec, batch) for spec in specs}
    still_open = [spec for spec in specs if None in shapes[spec.name]]
    if still_open:
        axes = "; ".join(f"{spec} leaves axis {_open_axes(spec)} open" for spec in still_open)
        raise ModelError(f"{model} needs its input shapes", axes, shape_line(model, still_open, batch))
    whole = {name: tuple(size or 0 for size in shape) for name, shape in shapes.items()}
    _check_shapes(model, specs, whole, batch)
    return whole


def _check_shapes(model: str, specs: Sequence[TensorSpec], shapes: dict[str, tuple[int, ...]], batch: int) -> None:
    for spec in specs:
        given = "x".join(str(size) for size in shapes[spec.name])
        if not spec.admits(shapes[spec.name]):
            raise ModelError(
                f"shape {given} for an input of {model}", f"the model takes {spec}", shape_line(model, [spec])
            )
        if batch > 1 and spec is specs[0] and shapes[spec.name][:1] != (batch,):
            fix = "leave the batch out, or export the model with a dynamic one"
            raise ModelError(f"batch {batch} for {model}", f"its input {spec.name} is {given}", fix)


def _own_shape(spec: TensorSpec, batch: int) -> tuple[int | None, ...]:
    return (batch, *spec.shape[1:]) if spec.shape[:1] == (None,) else spec.shape


def _open_axes(spec: TensorSpec) -> str:
    return ", ".join(str(axis) for axis, size in enumerate(spec.shape) if size is None and axis > 0)


def shape_line(model: str, specs: Sequence[TensorSpec], batch: int = 1) -> str:
    """The line to type, with sizes that stand for the user's own."""
    options = []
    for spec in specs:
        image = len(spec.shape) == 4
        sizes = [
            (batch if axis == 0 else EXAMPLE_SIZE if image else 1) if size is None else size
            for axis, size in enumerate(spec.shape)
        ]
        options.append("--shape {}={}".format(spec.name, "x".join(str(size) for size in sizes)))
    return "kdedge profile {} {}   (with your sizes)".format(model, " ".join(options))


def random_feeds(model: str, specs: Sequence[TensorSpec], shapes: dict[str, tuple[int, ...]], seed: int) -> Arrays:
    """Uniform in [0, 1) for floats, over the whole range for 8 bits and booleans, and 0 or 1 for wider integers,
    which are often indices.

    Raises:
        ModelError: an input of a type that has no random values, such as a string.
    """
    generator = np.random.default_rng(seed)
    return {spec.name: _random(model, spec, shapes[spec.name], generator) for spec in specs}


def _random(
    model: str, spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray[Any, Any]:
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind == "f":
        return generator.random(shape, dtype="float64" if dtype == np.float64 else "float32").astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = (limits.min, limits.max + 1) if dtype.itemsize == 1 else (0, 2)
        return generator.integers(low, high, shape, dtype=dtype)
    raise ModelError(f"input of {model}", f"{spec} has a type that cannot be filled at random")
