"""Memory of this process and of the system, as the system counts it.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

from pathlib import Path

from kdedge.core.errors import KdedgeError
from kdedge.engine.machine import ROOT


def resident(field: str) -> int:
    """Bytes of resident memory now (VmRSS) or at most (VmHWM).

    Not getrusage's ru_maxrss: a process inherits that from the one that started it, however big that was.
    """
    found = _bytes("proc/self/status", field)
    if found is None:
        raise KdedgeError("memory of this process", f"/proc/self/status has no {field}")
    return found


def proportional() -> int | None:
    """Resident bytes, those shared with other processes divided among them (PSS); None where that is not told."""
    return _bytes("proc/self/smaps_rollup", "Pss")


def available() -> int | None:
    """Bytes that the whole system could still give without swapping."""
    return _bytes("proc/meminfo", "MemAvailable")


def _bytes(file: str, field: str) -> int | None:
    try:
        lines = (ROOT / file).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), None)


def reset_peak() -> bool:
    """Make the peak count from now on; False where the system does not let a process do so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
