"""The machine itself: board, system, CPU, GPU and CUDA.

Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import grp
import os
import platform
import shutil
from pathlib import Path
from typing import NamedTuple

from kdedge.engine import machine as hardware
from kdedge.engine.machine import read
from kdedge.profile.board import distro, in_container
from kdedge.profile.finding import ADVICE, FIX, NONE, OK, Finding
from kdedge.profile.jetson import jetpack, l4t_release
from kdedge.profile.nvidia import cuda_driver, cuda_toolkit, device_nodes, kernel_driver

TEGRA = "nvidia,tegra"
OLDEST_L4T = 35  # JetPack 5
SHARED_NODES = ("nvmap", "dri/renderD*")
"""Those of a Jetson that CUDA opens besides the GPU's own."""


class Machine(NamedTuple):
    """What decides which line helps."""

    root: Path
    board: str
    l4t: str
    jetson: bool
    gpu: str
    """Empty where CUDA finds none."""
    nodes: list[Path]
    """Of the GPU."""
    container: bool

    @property
    def accelerated(self) -> bool:
        """Whether there is a GPU, be it one that cannot be used as things are."""
        return bool(self.gpu or self.nodes or self.jetson)

    @property
    def release(self) -> int:
        """The first number of L4T's; 0 where it is not known."""
        return int(self.l4t.split(".")[0] or 0)

    @property
    def outdated(self) -> bool:
        """Whether its JetPack comes with a TensorRT that kdedge does not take."""
        return 0 < self.release < OLDEST_L4T


def look(root: Path) -> Machine:
    compatible = read(root / "proc/device-tree/compatible")
    l4t = l4t_release(read(root / "etc/nv_tegra_release"))  # a container may not have it
    return Machine(
        root=root,
        board=read(root / "proc/device-tree/model"),
        l4t=l4t,
        jetson=bool(l4t) or TEGRA in compatible,
        gpu=hardware.gpu(),
        nodes=device_nodes(root),
        container=in_container(root),
    )


def name(machine: Machine) -> Finding:
    if not machine.jetson:
        return Finding("board", OK, machine.board)
    module = read(machine.root / "proc/device-tree/compatible").split("\0")[0]
    known = [machine.board or "a Jetson", f"({module})" if module else ""]
    found = " ".join(filter(None, known))
    if not machine.l4t:
        why, file = "JetPack and power mode stay unknown", "/etc/nv_tegra_release"
        fix = f"docker run -v {file}:{file} ..." if machine.container else f"ls -l {file}"
        return Finding("board", ADVICE, f"{found}, without {file}", why, fix)
    found += f", JetPack {jetpack(machine.l4t)} (L4T {machine.l4t})"
    if machine.outdated:
        why = "its TensorRT is older than 8.5, so that only ONNX Runtime can be used"
        return Finding("board", FIX, found, why, "flash JetPack 5.1 or newer   (Nano, TX1 and TX2 have none)")
    return Finding("board", OK, found)


def system(machine: Machine) -> Finding:
    parts = [distro(machine.root), f"kernel {platform.release()}", platform.machine()]
    return Finding("system", OK, ", ".join(filter(None, [*parts, "in a container" if machine.container else ""])))


def cpu(machine: Machine) -> Finding:
    cpus, quota = hardware.allowed_cpus(), hardware.cpu_quota(machine.root)
    parts = [
        hardware.cpu_model(machine.root),
        f"{hardware.physical_cores(cpus, machine.root)} cores",
        f"{len(cpus)} of {os.cpu_count()} CPUs",
        "" if quota is None else f"limited to {quota:g} CPUs",
        hardware.instruction_sets(machine.root),
    ]
    return Finding("cpu", OK, ", ".join(filter(None, parts)))


def gpu(machine: Machine) -> Finding:
    if machine.gpu:
        model, _, capability = machine.gpu.rpartition(" ")
        return Finding("gpu", OK, f"{model}, compute capability {capability}")
    closed = next((node for node in _needed(machine) if not os.access(str(node), os.R_OK | os.W_OK)), None)
    if closed:
        found, why = f"this user may not open {_path(closed, machine)}", "CUDA opens it"
        return Finding("gpu", FIX, found, why, f"sudo usermod -aG {_group(closed)} $USER   (then log in anew)")
    if machine.nodes:
        found = f"{_path(machine.nodes[0], machine)} is there, but CUDA finds no GPU"
        why = "the driver is not installed, or not of the version that the kernel has loaded"
        return Finding("gpu", FIX, found, why, "sudo dmesg | grep -i -e nvrm -e nvgpu | tail")
    if machine.jetson:
        fix = "docker run --runtime nvidia ..." if machine.container else "sudo dmesg | grep -i nvgpu | tail"
        return Finding("gpu", FIX, "its device nodes are missing", "TensorRT needs the GPU", fix)
    return Finding("gpu", NONE, "no NVIDIA GPU")


def cuda(machine: Machine, needs_compiler: bool) -> Finding:
    driver, takes, toolkit = kernel_driver(machine.root), cuda_driver(), cuda_toolkit(machine.root)
    parts = [
        f"driver {driver}" if driver else "",
        f"takes CUDA up to {takes}" if takes else "",
        f"toolkit {toolkit}" if toolkit else "no toolkit in /usr/local/cuda",
    ]
    found = ", ".join(filter(None, parts))
    if toolkit or shutil.which("nvcc") or not needs_compiler or machine.outdated:
        return Finding("cuda", OK, found)
    package = "nvidia-jetpack" if machine.jetson else "nvidia-cuda-toolkit"
    return Finding("cuda", FIX, found, "pycuda is compiled with its nvcc", f"sudo apt-get install {package}")


def _needed(machine: Machine) -> list[Path]:
    shared = SHARED_NODES if machine.jetson else ()
    return machine.nodes + sorted(path for pattern in shared for path in (machine.root / "dev").glob(pattern))


def _path(node: Path, machine: Machine) -> str:
    return f"/{node.relative_to(machine.root).as_posix()}"


def _group(node: Path) -> str:
    """The name of the group that a device node belongs to."""
    number = node.stat().st_gid
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
