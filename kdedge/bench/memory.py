"""The most memory that a piece of work takes."""

import ctypes
import resource
import sys
from pathlib import Path
from typing import NamedTuple

import torch

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
CUDA = "peak of the CUDA allocator"
RESIDENT = "growth of the peak of resident memory"
MMAP_THRESHOLD = -3
"""From malloc.h."""


class Memory(NamedTuple):
    bytes: int
    how: str
    """What was counted."""


class PeakMemory:
    """Counts from where it is made: on a GPU all that is allocated there, otherwise what this process grows by."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif CLEAR.exists():
            CLEAR.write_text("5")  # the peak starts anew from what is resident now
        self.before = 0 if device.type == "cuda" else resident_peak()

    def read(self) -> Memory:
        if self.device.type == "cuda":
            return Memory(torch.cuda.max_memory_allocated(self.device), CUDA)
        return Memory(resident_peak() - self.before, RESIDENT)


def return_what_is_freed() -> None:
    """Have the C library give memory back to the system at once; that is slow, and for the rest of this process.

    Otherwise it keeps some for later, so that what is resident depends on what was there before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt:
        mallopt(MMAP_THRESHOLD, 2**16)


def resident_peak() -> int:
    """Of this process, in bytes."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
