"""The fingerprint of a machine: what two measurements must share to be compared, and what else explains a number.

No host name, user, address or serial number is read.
Part of the device closure: Python 3.8, standard library, numpy.  `root` stands for `/`, so that tests bring their own.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.engine.machine import ROOT, allowed_cpus, cpu_quota, identity, physical_cores, read
from kdedge.profile.jetson import PowerMode, jetpack, l4t_release, power_mode, power_modes, tensorrt_package
from kdedge.profile.sysfs import clocks_pinned, device_clocks, fan, zones

DPKG = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\\n", "libnvinfer*", "tensorrt*"]
CONTAINER = re.compile("docker|containerd|kubepods|libpod|lxc")


def fingerprint(versions: dict[str, str], root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """`match`: what must be equal; `note`: what is recorded beside it.  `versions`: the inference library's."""
    cpus = allowed_cpus()
    jetson = _jetson(root)
    match = {
        **identity(root),
        **jetson,
        **versions,
        "cores": physical_cores(cpus, root),
        "cpus": len(cpus),
        "cpu_quota": cpu_quota(root),
    }
    note = {
        **_memory(root),
        **_clock(root, cpus[0]),
        **(_board_state(root, str(jetson.get("l4t", ""))) if jetson else {}),
        "cpus_total": os.cpu_count(),
        "load": _load(root),
        "container": in_container(root),
        "kernel": platform.release(),
        "distro": _distro(root),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return {"match": match, "note": note}


def _jetson(root: Path) -> dict[str, Any]:
    """Board, L4T release, and how fast it is set to run; nothing on other machines."""
    release = l4t_release(read(root / "etc/nv_tegra_release"))
    found: dict[str, Any] = {"board": read(root / "proc/device-tree/model"), "l4t": release}
    if release:
        mode = _power_mode(root)
        found.update(power_mode=mode.name if mode else "", clocks_pinned=clocks_pinned(root))
    return {name: value for name, value in found.items() if value not in ("", None)}


def _power_mode(root: Path) -> PowerMode | None:
    """From nvpmodel's own files, which anyone may read; else as it says itself."""
    status = re.match(r"pmode:(\d+)", read(root / "var/lib/nvpmodel/status"))
    modes = power_modes(read(root / "etc/nvpmodel.conf"))
    known = [mode for mode in modes if status and mode.number == int(status[1])]
    return known[0] if known else power_mode(_output(["nvpmodel", "-q"]))


def _board_state(root: Path, l4t: str) -> dict[str, Any]:
    """What the power mode allows (MHz), clocks, temperatures (C) and fan as they are now, and TensorRT's package."""
    clocks = device_clocks(root)
    package = tensorrt_package(_output(DPKG)) if l4t else None
    found = {
        "jetpack": jetpack(l4t),
        "tensorrt_package": f"{package.version}+cuda{package.cuda}" if package else "",
        "cpus_online": read(root / "sys/devices/system/cpu/online"),
        "clocks": {name: clock._asdict() for name, clock in clocks.items()},
        "temperatures": {name: zone.celsius for name, zone in zones(root).items()},
        "fan": fan(root),
    }
    return {name: value for name, value in found.items() if value}


def _output(command: list[str]) -> str:
    """What a program prints; nothing where it is missing or fails."""
    program = shutil.which(command[0])
    if not program:
        return ""
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _distro(root: Path) -> str:
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', read(root / "etc/os-release"), re.MULTILINE)
    return name.group(1) if name else ""


def in_container(root: Path = ROOT) -> bool:
    marked = any((root / name).exists() for name in (".dockerenv", "run/.containerenv"))
    return marked or bool(CONTAINER.search(read(root / "proc/1/cgroup")))


def _load(root: Path) -> list[float]:
    """The load average of the last 1, 5 and 15 minutes."""
    return [float(value) for value in read(root / "proc/loadavg").split()[:3]]


def _memory(root: Path) -> dict[str, int]:
    """Bytes; nothing where the system does not say."""
    lines = (line.split() for line in read(root / "proc/meminfo").splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}
    if "MemTotal" not in sizes:
        return {}
    return {
        "memory_total": sizes["MemTotal"],
        "memory_available": sizes.get("MemAvailable", 0),
        "swap_used": sizes.get("SwapTotal", 0) - sizes.get("SwapFree", 0),
    }


def _clock(root: Path, cpu: int) -> dict[str, Any]:
    """Governor and frequencies of a CPU; nothing where they cannot be read, as on most virtual machines."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
    governor = read(folder / "scaling_governor")
    if not governor:
        return {}
    values = {"mhz": read(folder / "scaling_cur_freq"), "mhz_max": read(folder / "scaling_max_freq")}
    return dict({name: int(text) // 1000 for name, text in values.items() if text.isdigit()}, governor=governor)
