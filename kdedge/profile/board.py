"""The fingerprint of a machine: what two measurements must share to be compared, and what else explains a number.

No host name, user, address or serial number is read.
Part of the device closure: Python 3.8, standard library only.  `root` stands for `/`, so that tests bring their own.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kdedge.engine.machine import ROOT, allowed_cpus, cpu_quota, identity, physical_cores, read
from kdedge.profile.jetson import (
    PowerMode,
    cudnn_package,
    jetpack,
    l4t_release,
    power_mode,
    power_modes,
    tensorrt_package,
)
from kdedge.profile.nvidia import cuda_toolkit, device_nodes, gpu_clients, kernel_driver, process_name, processes
from kdedge.profile.sysfs import clocks_pinned, device_clocks, fan, largest_blocks, zones

NAMES = ("libnvinfer*", "tensorrt*", "libcudnn*")
DPKG = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\\n", *NAMES]
DISPLAY_SERVERS = frozenset(
    ["Xorg", "X", "Xwayland", "gnome-shell", "kwin_wayland", "weston", "sway", "labwc", "wayfire", "cage"]
)
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
        **memory(root),
        **_clock(root, cpus[0]),
        **(_board_state(root, str(jetson.get("l4t", ""))) if jetson else {}),
        **_gpu_state(root),
        "cpus_total": os.cpu_count(),
        "load": _load(root),
        "display_server": display_server(root),
        "container": in_container(root),
        "kernel": platform.release(),
        "distro": distro(root),
        "python": platform.python_version(),
        "numpy": installed_version("numpy") or None,
    }
    if "tensorrt" in versions and "tensorrt_package" in note:  # with its build number: engines are bound to it
        match["tensorrt_package"] = note.pop("tensorrt_package")
    return {"match": match, "note": note}


def _jetson(root: Path) -> dict[str, Any]:
    """Board, module, L4T release, and how fast it is set to run; nothing on other machines."""
    release = l4t_release(read(root / "etc/nv_tegra_release"))
    found: dict[str, Any] = {
        "board": read(root / "proc/device-tree/model"),
        "module": read(root / "proc/device-tree/compatible").split("\0")[0],
        "l4t": release,
    }
    if release:
        mode = current_power_mode(root)
        found.update(power_mode=mode.name if mode else "", clocks_pinned=clocks_pinned(root))
    return {name: value for name, value in found.items() if value not in ("", None)}


def current_power_mode(root: Path = ROOT) -> PowerMode | None:
    """From nvpmodel's own files, which anyone may read; else as it says itself."""
    status = re.match(r"pmode:(\d+)", read(root / "var/lib/nvpmodel/status"))
    modes = power_modes(read(root / "etc/nvpmodel.conf"))
    known = [mode for mode in modes if status and mode.number == int(status[1])]
    return known[0] if known else power_mode(output(["nvpmodel", "-q"]))


def _board_state(root: Path, l4t: str) -> dict[str, Any]:
    """What the power mode allows (MHz), clocks, temperatures (C) and fan as they are now, and NVIDIA's packages."""
    clocks = device_clocks(root)
    packages = output(DPKG) if l4t else ""
    found = {
        "jetpack": jetpack(l4t),
        "tensorrt_package": tensorrt_build(packages),
        "cudnn": cudnn_package(packages),
        "cpus_online": read(root / "sys/devices/system/cpu/online"),
        "clocks": {name: clock._asdict() for name, clock in clocks.items()},
        "temperatures": {name: zone.celsius for name, zone in zones(root).items()},
        "fan": fan(root),
    }
    return {name: value for name, value in found.items() if value}


def _gpu_state(root: Path) -> dict[str, Any]:
    """Driver and CUDA, and how many other programs hold the GPU; nothing without one."""
    if not device_nodes(root):
        return {}
    found = {"driver": kernel_driver(root), "cuda": cuda_toolkit(root), "gpu_clients": len(gpu_clients(root))}
    return {name: value for name, value in found.items() if value != ""}


def tensorrt_build(packages: str) -> str:
    """The version of TensorRT's package and what it was built for: "10.3.0.30+cuda12.5"."""
    package = tensorrt_package(packages)
    return f"{package.version}+cuda{package.cuda}" if package else ""


def display_server(root: Path = ROOT) -> bool:
    """Whether one draws with the GPU, or waits to."""
    return any(process_name(process, root) in DISPLAY_SERVERS for process in processes(root))


def output(command: list[str]) -> str:
    """What a program prints; nothing where it is missing or fails."""
    program = shutil.which(command[0])
    if not program:
        return ""
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def distro(root: Path) -> str:
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', read(root / "etc/os-release"), re.MULTILINE)
    return name.group(1) if name else ""


def installed_version(package: str) -> str:
    """As the record of a Python package has it, which is not imported; empty where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def in_container(root: Path = ROOT) -> bool:
    marked = any((root / name).exists() for name in (".dockerenv", "run/.containerenv"))
    return marked or bool(CONTAINER.search(read(root / "proc/1/cgroup")))


def _load(root: Path) -> list[float]:
    """The load average of the last 1, 5 and 15 minutes."""
    return [float(value) for value in read(root / "proc/loadavg").split()[:3]]


def memory(root: Path = ROOT) -> dict[str, Any]:
    """Bytes; nothing where the system does not say.  Of the largest free blocks, also how many: "8x4MiB"."""
    lines = (line.split() for line in read(root / "proc/meminfo").splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}
    if "MemTotal" not in sizes:
        return {}
    found: dict[str, Any] = {
        "memory_total": sizes["MemTotal"],
        "memory_available": sizes.get("MemAvailable", 0),
        "swap_total": sizes.get("SwapTotal", 0),
        "swap_used": sizes.get("SwapTotal", 0) - sizes.get("SwapFree", 0),
    }
    if "CmaTotal" in sizes:
        found.update(cma_total=sizes["CmaTotal"], cma_free=sizes.get("CmaFree", 0))
    blocks = largest_blocks(root)
    if blocks:
        found["largest_free_blocks"] = f"{blocks[0]}x{blocks[1] // 1024}KiB"
    return found


def _clock(root: Path, cpu: int) -> dict[str, Any]:
    """Governor and frequencies of a CPU; nothing where they cannot be read, as on most virtual machines."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
    governor = read(folder / "scaling_governor")
    if not governor:
        return {}
    values = {"mhz": read(folder / "scaling_cur_freq"), "mhz_max": read(folder / "scaling_max_freq")}
    return dict({name: int(text) // 1000 for name, text in values.items() if text.isdigit()}, governor=governor)
