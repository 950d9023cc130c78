"""What decides how fast this machine computes: its CPU, its instruction sets, the cores this process may use, its GPU.

Part of the device closure: Python 3.8, standard library only.  `root` stands for `/`, so that tests bring their own.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path

ROOT = Path("/")
COMPUTE_CAPABILITY = (75, 76)  # the driver's attributes of its major and minor number
# The ones that inference kernels are chosen by.
EXTENSIONS = frozenset(
    [
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx_vnni",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_int8",
        "amx_bf16",
        "neon",
        "asimd",
        "asimdhp",
        "fphp",
        "asimddp",
        "i8mm",
        "bf16",
        "sve",
        "sve2",
    ]
)


def read(path: Path) -> str:
    """The text of a small system file; empty where there is none, or none that may be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def cpu_fields(root: Path = ROOT) -> dict[str, str]:
    """The fields of the first processor in /proc/cpuinfo, names in lower case."""
    first = read(root / "proc/cpuinfo").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def cpu_model(root: Path = ROOT) -> str:
    fields = cpu_fields(root)
    if "model name" in fields:
        return fields["model name"]
    if "cpu part" in fields:  # Arm boards: the name is only in the device tree
        part = "Arm implementer {} part {}".format(fields.get("cpu implementer", "?"), fields["cpu part"])
        return " ".join(filter(None, [read(root / "proc/device-tree/model"), part]))
    return platform.processor() or "unknown"


def instruction_sets(root: Path = ROOT) -> str:
    """Those of `EXTENSIONS` that the CPU has, by name."""
    fields = cpu_fields(root)
    return " ".join(sorted(EXTENSIONS.intersection((fields.get("flags") or fields.get("features", "")).split())))


def allowed_cpus() -> list[int]:
    """The logical CPUs of this process's affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def physical_cores(cpus: Iterable[int], root: Path = ROOT) -> int:
    """How many cores these logical CPUs are; each counts as one where the system does not say."""
    cores = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        core = read(topology / "core_id")
        cores.add((read(topology / "physical_package_id"), core) if core else ("cpu", str(cpu)))
    return len(cores)


def cpu_quota(root: Path = ROOT) -> float | None:
    """The CPUs that this process's cgroup, or one above it, allows; None without a limit."""
    limits = []
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / controllers
        folder = base / path.lstrip("/")
        while True:
            limits += _limit(folder)
            if folder == base:
                break
            folder = folder.parent
    return min(limits) if limits else None


def _limit(folder: Path) -> list[float]:
    """The limit of one cgroup folder (version 2, else version 1), or nothing."""
    quota, _, period = read(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
    return [int(quota) / int(period)] if quota.isdigit() and period.isdigit() else []


def usable_cores(root: Path = ROOT) -> int:
    """Physical cores that the affinity mask and the cgroup leave to this process; at least one."""
    quota = cpu_quota(root)
    cores = physical_cores(allowed_cpus(), root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def identity(root: Path = ROOT) -> dict[str, str]:
    """What an engine optimized for one CPU is bound to."""
    return {"arch": platform.machine(), "cpu": cpu_model(root), "instruction_sets": instruction_sets(root)}


def gpu() -> str:
    """The first NVIDIA GPU and its compute capability, such as "Orin 8.7"; empty without one.

    Asked of the driver: no package is needed, and a Jetson has no nvidia-smi that would know.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    device, name, major, minor = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    asked = [
        cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0),
        cuda.cuDeviceGetName(name, len(name), device),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), COMPUTE_CAPABILITY[0], device),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), COMPUTE_CAPABILITY[1], device),
    ]
    return "" if any(asked) else f"{name.value.decode('utf-8', 'replace')} {major.value}.{minor.value}"
