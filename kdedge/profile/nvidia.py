"""NVIDIA's driver and CUDA on this machine, and which programs hold its GPU.

Part of the device closure: Python 3.8, standard library only.  `root` stands for `/`, so that tests bring their own.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kdedge.engine.machine import ROOT, read

NODES = ("nvidia[0-9]*", "nvgpu/*/*", "nvhost-gpu", "nvhost-*-gpu")
"""Below /dev: of discrete GPUs and Thor's, and of the boards before it."""
NODE = re.compile(r"/dev/(?:nvidia\d+|nvgpu/[^/]+/[^/]+|nvhost-(?:\w+-)?gpu)", re.ASCII)
IDLE_HOLDERS = ("nvidia-persiste",)
"""Keeps the driver loaded and computes nothing; the kernel cuts names off after 15 letters."""


def kernel_driver(root: Path = ROOT) -> str:
    """The version of the driver that the kernel has loaded, as "570.86.15"; empty on most Jetsons."""
    found = re.search(r"Kernel Module\b.*?\s(\d{3,4}\.\d+(?:\.\d+)?)(?!\S)", read(root / "proc/driver/nvidia/version"))
    return found[1] if found else ""


def cuda_toolkit(root: Path = ROOT) -> str:
    """The version of the toolkit in /usr/local/cuda; empty where there is none."""
    folder = root / "usr/local/cuda"
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(read(folder / "version.json"))["cuda"]["version"])
    found = re.search(r"CUDA Version (\d[\d.]*)", read(folder / "version.txt"))  # before CUDA 11.1
    return found[1] if found else ""


def cuda_driver() -> str:
    """The newest CUDA that the driver takes, as "12.6"; empty without a driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    number = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)) or not number.value:
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def device_nodes(root: Path = ROOT) -> list[Path]:
    """What a program opens to compute on the GPU."""
    return sorted(
        path for pattern in NODES for path in (root / "dev").glob(pattern) if NODE.fullmatch(_name(path, root))
    )


def _name(path: Path, root: Path) -> str:
    return f"/{path.relative_to(root).as_posix()}"


def gpu_clients(root: Path = ROOT) -> dict[int, str]:
    """Names of the programs, by process, that hold the GPU open; this process is left out.

    Only root sees those of other users.
    """
    if not device_nodes(root):
        return {}
    found = {process: process_name(process, root) for process in processes(root) if _holds_gpu(process, root)}
    return {process: name for process, name in found.items() if name not in IDLE_HOLDERS}


def processes(root: Path = ROOT) -> list[int]:
    """All but this one."""
    names = (path.name for path in (root / "proc").glob("[0-9]*"))
    return sorted(int(name) for name in names if name.isdigit() and int(name) != os.getpid())


def process_name(process: int, root: Path = ROOT) -> str:
    """Without its arguments, which may hold what is nobody's business."""
    return read(root / f"proc/{process}/comm") or "unknown"


def _holds_gpu(process: int, root: Path) -> bool:
    return any(NODE.fullmatch(file) for file in _open_files(root / f"proc/{process}/fd"))


def _open_files(folder: Path) -> Iterator[str]:
    """Nothing of a process that has ended, or belongs to somebody else."""
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                yield os.readlink(path)  # noqa: PTH115 - 3.8 knows no Path.readlink
