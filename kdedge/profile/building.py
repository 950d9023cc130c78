"""What the agent does to describe its machine and to build an engine there.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdedge.engine.base import backend
from kdedge.profile.board import fingerprint


def device(request: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint of this machine."""
    return {"device": fingerprint(backend(request["backend"]).versions())}


def build(request: dict[str, Any]) -> dict[str, Any]:
    """Build an engine for this machine, with its sidecar."""
    engine = backend(request["backend"])
    precision = engine.build(Path(request["onnx"]), Path(request["out"]), request.get("options", {}))
    return {"precision_built": precision, **device(request)}
