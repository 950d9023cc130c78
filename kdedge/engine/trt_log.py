"""What TensorRT says while it parses, builds and opens.

Part of the device closure: Python 3.8, standard library only; `trt` is the tensorrt module.
"""

from __future__ import annotations

import re
from typing import Any

ERRORS = 5  # the last ones are told
NOISE = re.compile(r"catchCudaError")  # what each error drags along on a machine without a GPU


def make_log(trt: Any) -> Any:
    """A logger that keeps the errors, and what the builder says of the layers it has made and where they run."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""
            self.placement = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message.strip())
            elif ", LayerType: " in message:
                self.layers += message
            elif "[DlaLayer]" in message or "[GpuLayer]" in message:
                self.placement += message + "\n"

        def last_errors(self) -> str:
            lines = [line for line in self.errors if not NOISE.search(line)] or self.errors
            return "\n  ".join(lines[-ERRORS:]) or "TensorRT gave no reason"

    return Log()
