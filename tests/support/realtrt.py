"""The real TensorRT builder, which needs no GPU, in a process of its own: pytest's never loads its 200 MB library.

Not named after the package, which it would hide.
"""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from kdedge.core import errors

FOLDER = os.environ.get("KDEDGE_TENSORRT", "")
HOW = "run python tests/support/tensorrt_cpu.py FOLDER, and set KDEDGE_TENSORRT to the folder"
IMPORTABLE = f"import os, sys; sys.path.insert(0, {FOLDER!r}); os.environ['PYTHONPATH'] = {FOLDER!r}"
"""Python that gives TensorRT to a process that is running already, and to those it starts."""
BUILD = """\
import json, sys
from pathlib import Path
from kdedge.core.errors import KdedgeError
from kdedge.engine.base import backend
from kdedge.engine.sidecar import sidecar_path

for line in sys.stdin:
    onnx, out, options = json.loads(line)
    try:
        backend("trt").build(Path(onnx), Path(out), options)
        reply = json.loads(sidecar_path(Path(out)).read_text())
    except KdedgeError as error:
        reply = {"error": [type(error).__name__, error.what, error.why, error.fix]}
    print(json.dumps(reply), flush=True)
"""


def build(needs: Callable[[object, str], None], onnx: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Build `out` (*.engine) from `onnx` as kdedge does; returns its sidecar, or raises what kdedge raised.

    `needs` is the fixture: without TensorRT the test skips.
    """
    needs(FOLDER, HOW)
    process = builder()
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps([str(onnx), str(out), options]) + "\n")
    process.stdin.flush()
    reply: dict[str, Any] = json.loads(process.stdout.readline() or '{"error": ["KdedgeError", "it died", "", ""]}')
    if "error" in reply:
        kind, *parts = reply["error"]
        raise getattr(errors, kind)(*parts)
    return reply


@cache
def builder() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": FOLDER}
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    atexit.register(end, process)
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
