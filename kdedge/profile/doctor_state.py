"""The state that a machine is in, as far as numbers measured there depend on it.

Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator

from kdedge.engine.machine import allowed_cpus, read
from kdedge.profile import sysfs
from kdedge.profile.board import current_power_mode, display_server, output
from kdedge.profile.board import memory as read_memory
from kdedge.profile.bootstrap import ROOM, cache_folder
from kdedge.profile.doctor_machine import Machine
from kdedge.profile.finding import ADVICE, FIX, NONE, OK, Finding, gib
from kdedge.profile.jetson import power_modes
from kdedge.profile.nvidia import gpu_clients, process_name

GIB = 1 << 30
LITTLE_ROOM = LITTLE_MEMORY = GIB
SMALL_BOARD = 9 * GIB
"""What is sold as 8 GB and less."""
MUCH_SWAPPED = 0.1
"""Share of the memory."""
BUSY_GPU = 10.0
"""Percent."""
YEAR_2020 = 1_577_836_800
OFF = 120.0
"""Seconds by which two clocks may differ."""
BIGGEST = "ps -eo rss,comm --sort -rss | head   (then end what is not needed)"
SWAP_FILE = "sudo sh -c 'fallocate -l 8G /swapfile; chmod 600 /swapfile; mkswap /swapfile; swapon /swapfile'"
COMPUTE_APPS = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]


def memory(machine: Machine) -> Iterator[Finding]:
    sizes = read_memory(machine.root)
    if not sizes:
        return
    total, free = sizes["memory_total"], sizes["memory_available"]
    found = f"{gib(total)}, {gib(free)} available"
    if "largest_free_blocks" in sizes:
        found += f", largest free blocks {sizes['largest_free_blocks']}"
    if "cma_total" in sizes:
        found += f", CMA {sizes['cma_free'] >> 20} of {sizes['cma_total'] >> 20} MiB free"
    if free < LITTLE_MEMORY:
        yield Finding("memory", ADVICE, found, "building an engine is killed when memory runs out", BIGGEST)
    else:
        yield Finding("memory", OK, found)
    yield _swap(machine, total, sizes["swap_total"], sizes["swap_used"])


def _swap(machine: Machine, memory: int, total: int, used: int) -> Finding:
    found = f"{gib(used)} of {gib(total)} in use" if total else "none"
    if used > MUCH_SWAPPED * memory:
        return Finding("swap", ADVICE, found, "what is swapped out comes back while it is measured", BIGGEST)
    if not total and machine.jetson and memory < SMALL_BOARD:
        why = "building an engine may take more memory than the board has"
        return Finding("swap", ADVICE, found, why, SWAP_FILE)
    return Finding("swap", OK if total else NONE, found)


def disk() -> Finding:
    """Where engines and the files of a run are kept."""
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(str(folder))
    found = f"{gib(usage.free)} free of {gib(usage.total)} (below {folder})"
    if usage.free < LITTLE_ROOM:
        return Finding("disk", FIX, found, "models, engines and timing caches are kept there", ROOM)
    return Finding("disk", OK, found)


def clock(here: float, host: float | None) -> Finding:
    """Both in seconds since 1970."""
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(here))
    right = here if host is None else host
    if here >= YEAR_2020 and abs(here - right) <= OFF:
        return Finding("clock", OK, shown)
    if here < YEAR_2020:
        why = "the board has no clock of its own that runs without power: apt and pip fail on certificates"
    else:
        shown, why = f"{shown}, {_apart(here - right)} the host's", "dates of files and logs are wrong"
    fix = "sudo timedatectl set-ntp true"
    if right >= YEAR_2020:
        fix += time.strftime("   (without a network: sudo date -u -s '%Y-%m-%d %H:%M')", time.gmtime(right))
    return Finding("clock", FIX, shown, why, fix)


def _apart(seconds: float) -> str:
    size, way = abs(seconds), "ahead of" if seconds > 0 else "behind"
    for unit, length in (("days", 86400), ("hours", 3600)):
        if size >= 2 * length:
            return f"{size / length:.0f} {unit} {way}"
    return f"{size / 60:.0f} minutes {way}"


def speed(machine: Machine) -> Iterator[Finding]:
    """How fast it is set to run."""
    if machine.l4t:
        yield _power_mode(machine)
        yield _clocks(machine)
        return
    governors = sorted({clock.governor for clock in sysfs.cpu_clocks(machine.root).values() if clock.governor})
    found = f"CPU governor {', '.join(governors)}"
    if not governors:
        yield Finding("clocks", NONE, "the CPU's cannot be seen")
    elif governors == ["performance"]:
        yield Finding("clocks", OK, found)
    else:
        yield Finding("clocks", ADVICE, found, "they follow the load", "sudo cpupower frequency-set -g performance")


def _power_mode(machine: Machine) -> Finding:
    mode = current_power_mode(machine.root)
    if not mode:
        why = "numbers of another mode cannot be told from a regression"
        return Finding("power mode", ADVICE, "not known", why, "sudo nvpmodel -q")
    others = [other.name for other in power_modes(read(machine.root / "etc/nvpmodel.conf"))]
    return Finding("power mode", OK, mode.name + (f" (of {', '.join(others)})" if others else ""))


def _clocks(machine: Machine) -> Finding:
    pinned = sysfs.clocks_pinned(machine.root)
    if pinned:
        return Finding("clocks", OK, "pinned")
    why = "short runs are slower and noisier than long ones"
    fix = "sudo jetson_clocks   (until the next start; or, as root, kdedge profile --lock-clocks)"
    return Finding("clocks", ADVICE, "not known" if pinned is None else "not pinned", why, fix)


def load(machine: Machine) -> Finding:
    cpus, average = len(allowed_cpus()), read(machine.root / "proc/loadavg").split()[:1]
    if not average:
        return Finding("load", NONE, "not known")
    found = f"{average[0]} on {cpus} CPUs, mean of the last minute"
    if float(average[0]) > cpus / 2:
        why = "other programs take the CPU while it is measured"
        return Finding("load", ADVICE, found, why, "top -b -n 1 | head -20")
    return Finding("load", OK, found)


def gpu_users(machine: Machine) -> Finding:
    """By name; those of other users are seen by root only."""
    users = {**_compute_apps(machine), **gpu_clients(machine.root)}
    busiest = max(sysfs.gpu_loads(machine.root).values(), default=None)
    names = ", ".join(f"{name} (process {process})" for process, name in sorted(users.items()))
    found = names or ("none" if os.geteuid() == 0 else "none of this user's")
    if busiest is not None:
        found += f"; load {busiest:.0f} %"
    why = "they share the GPU, and its memory, with what is measured"
    if users:
        fix = f"ps -p {','.join(map(str, sorted(users)))}   (then end what is not needed)"
        return Finding("gpu users", ADVICE, found, why, fix)
    if busiest is not None and busiest > BUSY_GPU:
        nodes = " ".join(f"/{node.relative_to(machine.root).as_posix()}" for node in machine.nodes[:3])
        return Finding("gpu users", ADVICE, found, why, f"sudo fuser -v {nodes}")
    return Finding("gpu users", OK, found)


def _compute_apps(machine: Machine) -> dict[int, str]:
    """As the driver of a discrete GPU has them; on most Jetsons it knows of none."""
    numbers = re.findall(r"^\d{1,9}$", output(COMPUTE_APPS), re.MULTILINE)
    return {int(number): process_name(int(number), machine.root) for number in numbers if int(number) != os.getpid()}


def display(machine: Machine) -> Finding:
    if not display_server(machine.root):
        return Finding("display", OK, "no display server runs")
    why = "it draws with the GPU and takes some hundred MB of memory"
    fix = "sudo systemctl isolate multi-user.target   (for good: sudo systemctl set-default multi-user.target)"
    return Finding("display", ADVICE, "a display server runs", why, fix)
