"""Memory of this process, as the system counts it.

Part of the device closure: Python 3.8, standard library and numpy.
"""

from __future__ import annotations

from pathlib import Path

from kdedge.core.errors import KdedgeError


def resident(field: str) -> int:
    """Bytes of resident memory now (VmRSS) or at most (VmHWM).

    Not getrusage's ru_maxrss: a process inherits that from the one that started it, however big that was.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KdedgeError("memory of this process", f"/proc/self/status has no {field}")


def reset_peak() -> bool:
    """Make the peak count from now on; False where the system does not let a process do so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
