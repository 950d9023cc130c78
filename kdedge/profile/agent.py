"""What runs on the device, in a fresh process: one JSON request on stdin, one JSON reply on stdout.

    {"mode": "device",  "backend": "ort"}
    {"mode": "doctor",  "now": 1700000000.0}
    {"mode": "build",   "backend": "ort", "onnx": "m.onnx", "out": "m.engine.onnx", "options": {}}
    {"mode": "latency", "backend": "ort", "model": "m.onnx", "options": {}, "shapes": {}, "batch": 1, "seed": 0,
                        "seconds": 1.0, "warmup_cap": 2.0}
    {"mode": "energy",  the same with "repeats"; "seconds" is of each}
    {"mode": "predict", "backend": "ort", "model": "m.onnx", "options": {}, "batch": 64,
                        "arrays": "in.npz", "outputs": "out.npz", "decoding": {} of a detector}
    {"mode": "cascade", "backend": "ort", "model": "cascade.fp32.json", "options": {}, "threshold": 0.9,
                        "arrays": "eval.npz", "images": 1000, "warmup_cap": 2.0}
    {"mode": "streams", the same as latency with "streams": 2, "batches": [1, 4], all that are to be measured}
    {"mode": "layers",  the same as latency}
    {"mode": "paired",  the same as latency with "base": "b.onnx", "base_backend": "ort", "base_options", "base_shapes"}

What the user got wrong comes back as {"error": {"kind", "what", "why", "fix"}} with that error's exit code.
Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from importlib import import_module
from typing import Any, cast

from kdedge.core.errors import KdedgeError, MissingTool

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


MODES = {
    "device": "building",
    "doctor": "doctor",
    "build": "building",
    "latency": "timing",
    "energy": "timing",
    "predict": "answers",
    "cascade": "answers",
    "streams": "streams",
    "layers": "layers",
    "paired": "paired",
}
"""The module of this package that has a function of the mode's name."""
BY_TRTEXEC = dict.fromkeys(("latency", "streams", "layers"), "trtexec_timing")
BY_TRTEXEC.update(energy="trtexec_energy", paired="trtexec_paired")


def respond(request: dict[str, Any]) -> dict[str, Any]:
    mode = request.get("mode")
    if mode not in MODES:
        raise KdedgeError(f"mode {mode!r} of the agent", "it has {}".format(", ".join(MODES)))
    threads = request.get("options", {}).get("threads")
    if threads:  # numpy reads the variables when it is first imported, which is below
        os.environ.update({name: str(threads) for name in THREAD_VARIABLES})
    answer = getattr(import_module(f"kdedge.profile.{_module(request)}"), mode)
    return cast("dict[str, Any]", answer(request))


def _module(request: dict[str, Any]) -> str:
    """Where trtexec stands in for TensorRT's Python package it does the timing, too."""
    mode = request["mode"]
    if mode in BY_TRTEXEC:
        stands_in = import_module("kdedge.profile.trtexec_backend").stands_in
        if any(stands_in(request[key]) for key in ("backend", "base_backend") if key in request):
            return BY_TRTEXEC[mode]
    return MODES[mode]


def main() -> None:
    reply_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # with-blocks set back what they changed
    os.dup2(2, 1)  # whatever a library prints must not end up in the reply
    code = 0
    try:
        reply = respond(json.load(sys.stdin))
    except (KdedgeError, ModuleNotFoundError, OSError, MemoryError) as raised:
        error = user_error(raised)
        code = error.exit_code
        reply = {"error": {"kind": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix}}
    with reply_to:
        json.dump(reply, reply_to)
    sys.exit(code)


def user_error(error: Exception) -> KdedgeError:
    """What to tell the user; raises what is none of theirs: a bug."""
    if isinstance(error, KdedgeError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("kdedge"):
        package = error.name.split(".")[0]
        return MissingTool(f"{package} is not installed", "the agent needs it", f"pip install {package}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return KdedgeError("the disk is full", str(error), "df -h")
    if isinstance(error, MemoryError):
        return KdedgeError("not enough memory", str(error), "a smaller batch or shape")
    raise error


if __name__ == "__main__":
    main()
