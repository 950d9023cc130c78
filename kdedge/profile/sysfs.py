"""Power rails, clocks, temperatures, cooling and over-current counters as Linux shows them under /sys.

What cannot be read (not there, gated, root only) is None or left out, never 0.
Part of the device closure: Python 3.8, standard library only.  `root` stands for `/`, so that tests bring their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from kdedge.engine.machine import ROOT, read

RAIL_MONITOR = "ina3221"
NO_RAILS = ("NC", "sum of shunt voltages")
GPU = re.compile(r"gpu-gpc-\d+|\w+\.gpu|\w+\.g[a-z]\d+b")
"""Of devfreq: Thor's, and those of the boards before it."""
PASSIVE = "passive"
KILOHERTZ, HERTZ = 1000, 1_000_000
"""What clocks are divided by to get MHz."""
DEVICE_FILES = ("cur_freq", "min_freq", "max_freq", "governor")
CPU_FILES = tuple(f"scaling_{name}" for name in DEVICE_FILES)
MEMORY_FILES = ("rate", "min_rate", "max_rate", "governor")


class Rail(NamedTuple):
    name: str
    folder: Path
    channel: int

    def milliwatts(self) -> float | None:
        """Voltage (mV) times current (mA): two reads, one right after the other."""
        volt, ampere = (number(self.folder / f"{kind}{self.channel}_input") for kind in ("in", "curr"))
        return None if volt is None or ampere is None else volt * ampere / 1000


class Clock(NamedTuple):
    """Of a GPU, memory controller or CPU, in MHz; `lowest` and `highest` are what the power mode and the user allow."""

    now: float | None
    lowest: float | None
    highest: float | None
    governor: str

    @property
    def pinned(self) -> bool | None:
        return None if self.lowest is None or self.highest is None else self.lowest == self.highest


class Zone(NamedTuple):
    celsius: float | None
    passive: float | None
    """The lowest temperature at which the kernel begins to slow something down."""


class Cooler(NamedTuple):
    kind: str
    state: int
    """0: it does nothing."""


def number(path: Path) -> int | None:
    text = read(path)
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def _folders(root: Path, pattern: str) -> Iterator[Path]:
    """In the order of the numbers in their names."""
    yield from sorted(root.glob(pattern), key=lambda path: [int(digits) for digits in re.findall(r"\d+", path.name)])


def monitors(root: Path, name: str) -> Iterator[Path]:
    """The folders of a hwmon driver; their numbers change from boot to boot."""
    yield from (folder for folder in _folders(root, "sys/class/hwmon/hwmon*") if read(folder / "name") == name)


def power_rails(root: Path = ROOT) -> list[Rail]:
    """The rails that INA3221 monitors measure."""
    rails = []
    for folder in monitors(root, RAIL_MONITOR):
        for path in _folders(folder, "in*_label"):
            rail = Rail(read(path), folder, int(re.sub(r"\D", "", path.name)))
            if rail.name not in NO_RAILS and rail.milliwatts() is not None:
                rails.append(rail)
    return rails


def alarms(root: Path = ROOT) -> dict[str, int]:
    """The current alarms of the rails: {"VDD_IN crit": 0, "VDD_IN max": 0, ...}."""
    found = {}
    for rail in power_rails(root):
        for limit in ("crit", "max"):
            value = number(rail.folder / f"curr{rail.channel}_{limit}_alarm")
            if value is not None:
                found[f"{rail.name} {limit}"] = value
    return found


def over_current_events(root: Path = ROOT) -> dict[str, int]:
    """Times that the chip was throttled for its supply since it was started: {"oc1": 0, "oc2": 0, "oc3": 12}."""
    found = {}
    for folder in monitors(root, "soctherm_oc"):
        for path in _folders(folder, "oc*_event_cnt"):
            value = number(path)
            if value is not None:
                found[path.name[: -len("_event_cnt")]] = value
    return found


def device_clocks(root: Path = ROOT) -> dict[str, Clock]:
    """GPU, and whatever else has a devfreq driver, by the driver's name; EMC where its debug files may be read."""
    found = {path.name: _clock(path, DEVICE_FILES, HERTZ) for path in _devfreq(root)}
    memory = root / "sys/kernel/debug/bpmp/debug/clk/emc"
    if number(memory / "rate") is not None:
        found["EMC"] = _clock(memory, MEMORY_FILES, HERTZ)
    return found


def _devfreq(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("sys/class/devfreq/*")) if number(path / "cur_freq") is not None]


def cpu_clocks(root: Path = ROOT) -> dict[str, Clock]:
    """Of the CPUs that are online, by name: cpu0 ..."""
    folders = (cpu / "cpufreq" for cpu in _folders(root, "sys/devices/system/cpu/cpu[0-9]*"))
    return {
        folder.parent.name: _clock(folder, CPU_FILES, KILOHERTZ)
        for folder in folders
        if number(folder / "scaling_max_freq") is not None
    }


def _clock(folder: Path, files: tuple[str, ...], unit: int) -> Clock:
    now, lowest, highest = (None if (value := number(folder / name)) is None else value / unit for name in files[:3])
    return Clock(now, lowest, highest, read(folder / files[3]))


def gpu_loads(root: Path = ROOT) -> dict[str, float]:
    """Percent, by the name that the GPU has among `device_clocks`."""
    loads = {path.name: number(path / "device/load") for path in _devfreq(root) if GPU.fullmatch(path.name)}
    return {name: load / 10 for name, load in loads.items() if load is not None}


def clocks_pinned(root: Path = ROOT) -> bool | None:
    """Whether GPU and CPUs may use one clock only, as after jetson_clocks; None where that cannot be seen."""
    gpus = [clock for name, clock in device_clocks(root).items() if GPU.fullmatch(name)]
    known = [clock.pinned for clock in [*gpus, *cpu_clocks(root).values()]]
    return None if not known or None in known else all(known)


def largest_blocks(root: Path = ROOT) -> tuple[int, int] | None:
    """How many of the largest free blocks of memory there are, and their size in bytes; None where not told."""
    counts: list[int] = []
    for line in read(root / "proc/buddyinfo").splitlines():
        zone = [int(word) for word in line.split()[4:] if word.isdigit()]
        counts = [sum(pair) for pair in zip_longest(counts, zone, fillvalue=0)]
    order = max((order for order, count in enumerate(counts) if count), default=None)
    return None if order is None else (counts[order], os.sysconf("SC_PAGE_SIZE") << order)


def zones(root: Path = ROOT) -> dict[str, Zone]:
    """Thermal zones by type.  None for one that cannot be read, as Thor's GPU while it has no power, or is off."""
    found = {}
    for folder in _folders(root, "sys/class/thermal/thermal_zone*"):
        value = number(folder / "temp")
        trips = [number(path.with_name(path.name[:-4] + "temp")) for path in passive_trips(folder)]
        known = [trip / 1000 for trip in trips if trip is not None and trip > 0]
        celsius = None if value is None or value <= -256_000 else value / 1000
        found[read(folder / "type") or folder.name] = Zone(celsius, min(known, default=None))
    return found


def passive_trips(zone: Path) -> Iterator[Path]:
    yield from (path for path in _folders(zone, "trip_point_*_type") if read(path) == PASSIVE)


def coolers(root: Path = ROOT) -> dict[str, Cooler]:
    """What slows the chip down for heat, by name of its folder; fans, which do not, are left out."""
    found = {}
    for folder in _folders(root, "sys/class/thermal/cooling_device*"):
        kind, state = read(folder / "type"), number(folder / "cur_state")
        if state is not None and "fan" not in kind:
            found[folder.name] = Cooler(kind, state)
    return found


def fan(root: Path = ROOT) -> dict[str, str | int]:
    """Its PWM (0 to 255) and, where nvfancontrol runs, its profile."""
    found: dict[str, str | int] = {}
    for name in ("pwmfan", "tegra_pwmfan"):
        for folder in monitors(root, name):
            pwm = number(folder / "pwm1")
            if pwm is not None:
                found["pwm"] = pwm
    profile = re.search(r"FAN_PROFILE:(\w+)", read(root / "var/lib/nvfancontrol/status"))
    if profile:
        found["profile"] = profile[1]
    return found
