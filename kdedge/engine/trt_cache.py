"""What builds keep for later ones: the times of tactics, and the ranges that a calibrator found.

A timing cache makes the next build of a similar network many times faster, and its choice of tactics the same.
Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from kdedge.engine.machine import ROOT, gpu, read
from kdedge.engine.sidecar import atomic


def cache_folder() -> Path:
    """KDEDGE_CACHE, or the user's cache folder."""
    chosen = os.environ.get("KDEDGE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdedge"


def cache_file(kind: str, key: dict[str, Any]) -> Path:
    """A file for everything that the key names; equal keys share it."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "tensorrt" / f"{digest[:24]}.{kind}"


def power_mode(root: Path = ROOT) -> str:
    """As nvpmodel keeps it, such as "pmode:0002"; empty on other machines."""
    return read(root / "var/lib/nvpmodel/status").split("\n")[0]


def timing_file(trt: Any, flags: list[str], settings: dict[str, Any]) -> Path | None:
    """Where the times of this GPU are kept; None where none are taken or none shall be kept."""
    if not settings["timing_cache"] or not gpu():
        return None
    chosen = {key: settings[key] for key in ("optimization_level", "hardware_compatibility", "dla_core")}
    key = dict(chosen, tensorrt=str(trt.__version__), gpu=gpu(), flags=flags, power_mode=power_mode())
    return cache_file("timing", key)


def load_timings(config: Any, path: Path) -> None:
    """Begin with what an earlier build kept; a cache that TensorRT does not take is replaced by an empty one."""
    for content in (read_cache(path), b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return


def keep_timings(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is not None:
        write_cache(path, bytes(cache.serialize()))


def read_cache(path: Path) -> bytes:
    """Empty where there is none."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def write_cache(path: Path, content: bytes) -> None:
    """Or do without, on a full disk or in a home that is not writable: the engine is whole without it."""
    with contextlib.suppress(OSError), atomic(path) as temporary:
        temporary.write_bytes(content)
