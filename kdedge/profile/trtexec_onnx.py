"""What trtexec must be told of an ONNX file, read without the onnx package, which a board need not have.

Only the few fields of the protocol buffer that say it: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kdedge.core.errors import ModelError
from kdedge.engine.base import TensorSpec

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}
FLOAT16 = 10
TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", FLOAT16: "float16", 11: "float64"}
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


class Outline(NamedTuple):
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    types: set[str]
    """Those below fp32 that it asks for: fp16, int8."""


def read_outline(path: Path) -> Outline:
    """The inputs and outputs of an ONNX file, and the types it asks for.

    Raises:
        ModelError: it is no ONNX file, or has a tensor of a type that trtexec does not take.
    """
    try:
        graph = _messages(memoryview(path.read_bytes()), 7)[0]
        weights = _messages(graph, 5)
        names = {_text(weight, 8) for weight in weights}
        inputs = [spec for spec in map(_spec, _messages(graph, 11)) if spec.name not in names]
        outputs = [_spec(value) for value in _messages(graph, 12)]
        nodes = _messages(graph, 1)
        types = {"int8"} if any(_text(node, 4) in QUANTIZERS for node in nodes) else set()
        halves = any(_first(weight, 2) == FLOAT16 for weight in weights) or any(map(_casts_to_half, nodes))
        if halves or any(spec.dtype == "float16" for spec in inputs):
            types.add("fp16")
    except (IndexError, ValueError) as error:
        raise ModelError(f"model {path}", f"it is not an ONNX file: {error}") from None
    return Outline(inputs, outputs, types)


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value, int or memoryview, of each field; those of a fixed size are left out.

    Raises:
        ValueError: it is not a protocol buffer.
        IndexError: it is cut short.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
        elif kind == BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("it is cut short")
            yield key >> 3, message[at : at + size]
            at += size
        elif kind in SIZES:
            at += SIZES[kind]
        else:
            raise ValueError("it is no protocol buffer")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")


def _messages(message: memoryview, number: int) -> list[memoryview]:
    return [value for found, value in _fields(message) if found == number and isinstance(value, memoryview)]


def _first(message: memoryview, number: int) -> Any:
    return next((value for found, value in _fields(message) if found == number), None)


def _text(message: memoryview, number: int) -> str:
    value = _first(message, number)
    return bytes(value).decode("utf-8") if isinstance(value, memoryview) else ""


def _spec(value_info: memoryview) -> TensorSpec:
    name = _text(value_info, 1)
    tensor = _messages(_messages(value_info, 2)[0], 1)[0]
    kind = _first(tensor, 1)
    if kind not in TYPES:
        raise ValueError(f"{name} is of a type that trtexec does not take")
    shapes = _messages(tensor, 2)
    sizes = [_first(axis, 1) for axis in (_messages(shapes[0], 1) if shapes else [])]
    return TensorSpec(name, tuple(size if isinstance(size, int) else None for size in sizes), TYPES[kind])


def _casts_to_half(node: memoryview) -> bool:
    given = _messages(node, 5) if _text(node, 4) == "Cast" else []
    return any(_text(attribute, 1) == "to" and _first(attribute, 3) == FLOAT16 for attribute in given)
