"""The JSON beside an engine: what it was built from, by what and for which machine.

An engine belongs to the library and the CPU that built it; opened elsewhere it fails late, or is silently slow.
Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdedge.core.errors import ModelError
from kdedge.engine import machine

SCHEMA = 1
FLAGS = ("ort", "trt")  # backends that kdedge export has a flag for; the others are the recipe's


def sidecar_path(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path` that takes its name when the block ends well, and is removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=str(path.parent)) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


def write_sidecar(engine: Path, onnx: Path, content: dict[str, Any]) -> None:
    """Describe a finished engine: `content` and both files' hashes and this machine."""
    record = dict(content)
    record.update(schema_version=SCHEMA, onnx_sha256=sha256_file(onnx), engine_sha256=sha256_file(engine))
    record["device"] = machine.identity()
    with atomic(sidecar_path(engine)) as temporary:
        temporary.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def checked_sidecar(
    engine: Path,
    backend: str,
    versions: dict[str, str],
    may_differ: Callable[[dict[str, Any], dict[str, str]], set[str]],
) -> dict[str, Any]:
    """The sidecar of an engine that this machine may open.

    Args:
        may_differ: given the sidecar and `versions`, the fields that need not be this machine's.

    Raises:
        ModelError: no readable sidecar, other bytes than it describes, or built by another library or for another
            machine; it names the first field that differs.
    """
    record = read_sidecar(engine, backend)
    here = {"schema_version": SCHEMA, "backend": backend, "versions": versions, "device": machine.identity()}
    built, free = dict(_flat(record)), may_differ(record, versions)
    for field, value in _flat(here):
        if built.get(field) != value and field not in free:
            raise ModelError(f"engine {engine}", f"{field}: built with {built.get(field)}, here {value}", _fix(backend))
    if record.get("engine_sha256") != sha256_file(engine):
        raise ModelError(
            f"engine {engine}",
            f"its bytes are not those that {sidecar_path(engine).name} describes",
            _fix(backend),
        )
    return record


def _flat(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def read_sidecar(engine: Path, backend: str) -> dict[str, Any]:
    """Raises ModelError when there is none, or it is not one."""
    path = sidecar_path(engine)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"engine {engine}",
            f"{path.name} is missing, which says what it was built for",
            _fix(backend),
        ) from None
    except ValueError as error:
        raise ModelError(f"engine {engine}", f"{path.name} is not JSON: {error}", _fix(backend)) from None
    if not isinstance(record, dict):
        raise ModelError(f"engine {engine}", f"{path.name} is not a JSON object", _fix(backend))
    return record


def _fix(backend: str) -> str:
    flag = f" --{backend}" if backend in FLAGS else ""
    return f"kdedge export{flag}   (builds it again, for this machine)"
