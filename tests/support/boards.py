"""Machines made of files, for those who look at one."""

from pathlib import Path

from tree import plant

ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
    "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"',
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >",
    "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: asimd fphp\nCPU implementer\t: 0x41\nCPU part\t: 0xd42",
    "proc/loadavg": "0.10 0.20 0.30 1/234 5678",
    "proc/meminfo": "MemTotal: 7802000 kB\nMemAvailable: 5767168 kB\nSwapTotal: 3901000 kB\nSwapFree: 3901000 kB\n"
    "CmaTotal: 262144 kB\nCmaFree: 204800 kB",
    "proc/buddyinfo": "Node 0, zone    DMA    5    4    3    2    1    1    1    0    2    1    8\n"
    "Node 0, zone Normal    9    9    0    0    0    0    0    0    0    0    3",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": 729600,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": 1510400,
    "sys/class/devfreq/17000000.gpu/cur_freq": 306000000,
    "sys/class/devfreq/17000000.gpu/min_freq": 306000000,
    "sys/class/devfreq/17000000.gpu/max_freq": 918000000,
    "sys/class/devfreq/17000000.gpu/device/load": 20,
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
    "dev/nvmap": "",
    "dev/nvhost-ctrl-gpu": "",
    "dev/nvgpu/igpu0/ctrl": "",
    "dev/dri/renderD128": "",
}
NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,jetson-nano\0nvidia,tegra210\0",
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64",
    "proc/meminfo": "MemTotal: 4059000 kB\nMemAvailable: 900000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB",
    "usr/local/cuda/version.txt": "CUDA Version 10.2.300",
    "dev/nvhost-gpu": "",
}
WORKSTATION = {
    "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"',
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 sse4_2",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build"
    "  (dvs-builder@U16-I3-B16-3-4)\nGCC version:  gcc version 13.3.0",
    "proc/meminfo": "MemTotal: 32000000 kB\nMemAvailable: 30000000 kB\nSwapTotal: 8000000 kB\nSwapFree: 3000000 kB",
    "proc/loadavg": "50.00 40.00 30.00 1/234 5678",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": 4500000,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    "dev/nvidia0": "",
    "dev/nvidiactl": "",
}


def run_program(root: Path, process: int, name: str, *open_files: str) -> None:
    """A process of the machine, by the name that the kernel has of it."""
    plant(root, {f"proc/{process}/comm": name, f"proc/{process}/fd/0": ""})
    for number, file in enumerate(open_files, 3):
        (root / f"proc/{process}/fd/{number}").symlink_to(file)


def give_modules(folder: Path, **sources: str) -> Path:
    """A folder to import packages from: names with two underscores are those of modules in a package."""
    for name, source in sources.items():
        path = folder.joinpath(*name.split("__"))
        path.mkdir(parents=True, exist_ok=True)
        (path / "__init__.py").write_text(source)
    return folder
