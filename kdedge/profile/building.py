"""What the agent does to describe its machine and to build an engine there.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdedge.profile.board import fingerprint
from kdedge.profile.trtexec_backend import library


def device(request: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint of this machine."""
    return {"device": fingerprint(library(request["backend"]).versions())}


def build(request: dict[str, Any]) -> dict[str, Any]:
    """Build an engine for this machine, with its sidecar."""
    engine = library(request["backend"])
    precision = engine.build(Path(request["onnx"]), Path(request["out"]), request.get("options", {}))
    return {"precision_built": precision, **device(request)}
