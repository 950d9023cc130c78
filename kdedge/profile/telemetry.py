"""Power and state of the machine, read in the background while something else runs.

Power comes from the first that there is: INA3221 rails under /sys, tegrastats, NVML (discrete GPUs), RAPL (x86 CPUs).
The sampler is a thread of the process that it is started in, so measure latency and energy in separate runs.
Part of the device closure: Python 3.8, standard library only.  `root` stands for `/`, so that tests bring their own.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Generic, Protocol, TypeVar

from kdedge.core.errors import KdedgeError, MissingTool, require
from kdedge.engine.machine import ROOT, read
from kdedge.profile.sysfs import number, power_rails
from kdedge.profile.tegrastats import parse_line

T = TypeVar("T")
RATE = 20.0
"""Samples a second: sysfs is good for 10 to 50."""
TEGRASTATS_MS = 100
PATIENCE = 10.0
"""Seconds for tegrastats to say something."""


class PowerSource(Protocol):
    name: str
    """What is measured and how, for the report."""
    scope: str
    """What the number leaves out."""

    def read(self) -> dict[str, float]:
        """mW by rail, now or (RAPL) since the last read."""

    def close(self) -> None: ...


class SysfsPower:
    scope = "the module, not the wall: carrier board and power supply come on top"

    def __init__(self, root: Path = ROOT) -> None:
        self.rails = power_rails(root)
        self.name = "INA3221 of sysfs"

    def read(self) -> dict[str, float]:
        values = {rail.name: rail.milliwatts() for rail in self.rails}
        return {name: value for name, value in values.items() if value is not None}

    def close(self) -> None:
        pass


class TegrastatsPower:
    """A tegrastats process of its own; of each rail the current value is taken, not the average since its start."""

    scope = SysfsPower.scope

    def __init__(self, program: str, patience: float = PATIENCE) -> None:
        self.name, self.patience = f"tegrastats, every {TEGRASTATS_MS} ms", patience
        command = [program, "--interval", str(TEGRASTATS_MS)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, bufsize=0
        )
        self.rest = b""

    def read(self) -> dict[str, float]:
        """The newest line that was not read yet; waits for it where there is none.

        Raises:
            KdedgeError: none came, because tegrastats ended or hangs.
        """
        assert self.process.stdout
        line, ended = b"", False
        while not ended and select.select([self.process.stdout], [], [], 0 if line else self.patience)[0]:
            more = self.process.stdout.read(1 << 16)
            ended = not more
            *lines, self.rest = (self.rest + more).split(b"\n")
            line = lines[-1] if lines else line
        if not line:
            raise KdedgeError("tegrastats", "it ended" if ended else f"it said nothing for {self.patience:g} s")
        return {rail.name: float(rail.milliwatts) for rail in parse_line(line.decode("utf-8", "replace")).rails}

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class NvmlPower:
    """The first GPU, or the first of CUDA_VISIBLE_DEVICES."""

    name = "NVML"
    scope = "the GPU's board, without the host"

    def __init__(self, nvml: ModuleType) -> None:
        self.nvml = nvml
        self.nvml.nvmlInit()
        try:
            self.gpu = self._device(os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0])
            self.read()
        except BaseException:
            self.nvml.nvmlShutdown()
            raise

    def _device(self, visible: str) -> Any:
        if visible.startswith("GPU-"):
            return self.nvml.nvmlDeviceGetHandleByUUID(visible)
        return self.nvml.nvmlDeviceGetHandleByIndex(int(visible) if visible.isdigit() else 0)

    def read(self) -> dict[str, float]:
        return {"GPU": float(self.nvml.nvmlDeviceGetPowerUsage(self.gpu))}

    def clock_reasons(self) -> int:
        """Bits that say why the clock is what it is; 0 where the GPU does not tell."""
        try:
            return int(self.nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self.gpu))
        except self.nvml.NVMLError:
            return 0

    def close(self) -> None:
        self.nvml.nvmlShutdown()


class RaplPower:
    """Counters of energy, which start again from 0 at their largest value.  The mean since the last read."""

    name = "RAPL of the CPU"
    scope = "the CPU's package and memory as the CPU estimates them, not the wall"

    def __init__(self, root: Path = ROOT, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.counters = rapl_domains(root)
        if "psys" in self.counters:  # holds the others
            self.counters = {"psys": self.counters["psys"]}
        self.ranges = {name: number(path / "max_energy_range_uj") or 0 for name, path in self.counters.items()}
        self.at, self.energy = clock(), self._energy()

    def _energy(self) -> dict[str, int]:
        values = {name: number(path / "energy_uj") for name, path in self.counters.items()}
        return {name: value for name, value in values.items() if value is not None}

    def read(self) -> dict[str, float]:
        """Nothing when the clock has not moved since."""
        now, energy = self.clock(), self._energy()
        seconds, before = now - self.at, self.energy
        if seconds <= 0:
            return {}
        self.at, self.energy = now, energy
        used = {name: value - before[name] for name, value in energy.items() if name in before}
        return {name: (uj + self.ranges[name] * (uj < 0)) / 1000 / seconds for name, uj in used.items()}

    def close(self) -> None:
        pass


def rapl_domains(root: Path = ROOT) -> dict[str, Path]:
    """Packages, their memory, and the whole system (psys), by name; a package's cores and GPU are part of it."""
    domains = {}
    for path in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        parent, name = path.with_name(path.name.rpartition(":")[0]), read(path / "name")
        if parent.name == "intel-rapl":
            domains[name] = path
        elif name == "dram":
            domains[f"{read(parent / 'name')} dram"] = path
    return domains


def power_source(root: Path = ROOT) -> PowerSource:
    """The best of this machine's, to be closed after use.

    Raises:
        MissingTool: there is none that this user may read.
    """
    if power_rails(root):
        return SysfsPower(root)
    program = shutil.which("tegrastats")
    if program:
        return TegrastatsPower(program)
    source = _nvml(root)
    if source:
        return source
    counters = [path / "energy_uj" for path in rapl_domains(root).values()]
    if any(number(path) is not None for path in counters):
        return RaplPower(root)
    if counters:
        fix = f"sudo chmod a+r {' '.join(map(str, counters))}"
        raise MissingTool("power of this machine", "only root may read its RAPL counters", fix)
    raise MissingTool(
        "power of this machine",
        "it has neither INA3221 rails, tegrastats, a GPU that NVML knows, nor RAPL counters",
        "pip install nvidia-ml-py   (where there is an NVIDIA GPU)",
    )


def _nvml(root: Path) -> NvmlPower | None:
    """None without the module, without a GPU, and on a Jetson, where most of NVML is not supported."""
    if (root / "etc/nv_tegra_release").exists():
        return None
    try:
        nvml = require("pynvml", "", "power of a GPU")
    except MissingTool:
        return None
    try:
        return NvmlPower(nvml)
    except nvml.NVMLError:
        return None


class Sampler(Generic[T]):
    """Calls `read` at once and every `period` seconds while a block runs; keeps what it says and when it said it.

        with Sampler(source.read, 1 / RATE) as sampler:
            ...
        sampler.times, sampler.values

    An error of `read` ends the sampling and is raised when the block ends, unless that ends with one of its own.
    """

    def __init__(
        self, read: Callable[[], T], period: float = 1 / RATE, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.read, self.period, self.clock = read, period, clock
        self.times: list[float] = []
        """Seconds of `clock`."""
        self.values: list[T] = []
        self.error: BaseException | None = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._work, name="kdedge-sampler", daemon=True)

    def _work(self) -> None:
        due = self.clock()
        try:
            while True:
                value = self.read()
                self.times.append(self.clock())
                self.values.append(value)
                due = max(due + self.period, self.times[-1])  # late: do not hurry to catch up
                if self.stop.wait(due - self.times[-1]):
                    return
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Sampler[T]:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()
        if self.error and error is None:
            raise self.error
