import os
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
from tree import Programs, alive, plant

from kdedge.core.errors import KdedgeError, MissingTool
from kdedge.profile.telemetry import RaplPower, Sampler, SysfsPower, TegrastatsPower, power_source

RAILS = {
    "sys/class/hwmon/hwmon3/name": "ina3221",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon3/in1_input": 5000,
    "sys/class/hwmon/hwmon3/curr1_input": 1200,
}
RAPL = "sys/class/powercap/intel-rapl:"
COUNTERS = {
    f"{RAPL}0/name": "package-0",
    f"{RAPL}0/energy_uj": 1_000_000,
    f"{RAPL}0/max_energy_range_uj": 4_000_000,
    f"{RAPL}0:0/name": "core",
    f"{RAPL}0:0/energy_uj": 500_000,
    f"{RAPL}0:1/name": "dram",
    f"{RAPL}0:1/energy_uj": 10_000,
    f"{RAPL}0:1/max_energy_range_uj": 4_000_000,
}
LINES = """\
echo 'RAM 1/2MB VDD_IN 4000mW/4000mW VDD_SOC 900mW/900mW'
read -r go < "$LOG.go"
echo 'RAM 1/2MB VDD_IN 4500mW/4500mW VDD_SOC 902mW/900mW
RAM 1/2MB VDD_IN 5000mW/4500mW VDD_SOC 901mW/900mW'
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """No program and no NVML, until a test adds one."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    return Programs(tmp_path, monkeypatch)


def test_rails_of_sysfs_come_first(programs, tmp_path):
    programs.add("tegrastats", LINES)
    source = power_source(plant(tmp_path, RAILS))
    assert isinstance(source, SysfsPower)
    assert source.read() == {"VDD_IN": 6000.0}
    (tmp_path / "sys/class/hwmon/hwmon3/in1_input").unlink()
    assert source.read() == {}
    source.close()
    assert programs.calls == []


def test_tegrastats_yields_the_current_values_of_its_newest_line(programs, tmp_path):
    os.mkfifo(f"{programs.log}.go")
    programs.add("tegrastats", LINES)
    source = power_source(tmp_path)
    try:
        assert source.read() == {"VDD_IN": 4000.0, "VDD_SOC": 900.0}
        Path(f"{programs.log}.go").write_text("go\n")
        source.process.wait(60)
        assert source.read() == {"VDD_IN": 5000.0, "VDD_SOC": 901.0}
        with pytest.raises(KdedgeError, match="tegrastats: it ended"):
            source.read()
    finally:
        source.close()
    assert programs.calls == ["tegrastats --interval 100"]


def test_tegrastats_that_hangs_is_given_up_and_killed(programs):
    source = TegrastatsPower(str(programs.add("tegrastats", "echo RAM 1/2MB; kill -STOP $$")))
    assert source.read() == {}
    source.patience = 0.01
    with pytest.raises(KdedgeError, match=r"said nothing for 0\.01 s"):
        source.read()
    assert alive(source.process.pid)
    source.close()
    assert not alive(source.process.pid)


def test_rapl_is_the_mean_since_the_last_read(programs, tmp_path):
    """Packages and memory; a core is part of its package.  The counter of the package starts again at 4 J."""
    clock = iter([0.0, 2.0, 3.0, 3.0])
    source = RaplPower(plant(tmp_path, COUNTERS), lambda: next(clock))
    plant(tmp_path, {f"{RAPL}0/energy_uj": 3_000_000, f"{RAPL}0:1/energy_uj": 30_000})
    assert source.read() == {"package-0": 1000.0, "package-0 dram": 10.0}
    plant(tmp_path, {f"{RAPL}0/energy_uj": 500_000})
    assert source.read() == {"package-0": 1500.0, "package-0 dram": 0.0}
    assert source.read() == {}, "no time has gone by"


def test_rapl_of_the_whole_system_holds_the_others(programs, tmp_path):
    plant(tmp_path, {**COUNTERS, f"{RAPL}1/name": "psys", f"{RAPL}1/energy_uj": 7})
    source = power_source(tmp_path)
    assert isinstance(source, RaplPower)
    assert list(source.counters) == ["psys"]
    source.close()


def test_rapl_that_only_root_may_read_says_how(programs, tmp_path):
    plant(tmp_path, {f"{RAPL}0/name": "package-0", f"{RAPL}0/energy_uj": None})
    with pytest.raises(MissingTool) as raised:
        power_source(tmp_path)
    assert raised.value.fix == f"sudo chmod a+r {tmp_path / RAPL}0/energy_uj"


def test_machine_without_a_meter_says_what_was_looked_for(programs, tmp_path):
    with pytest.raises(MissingTool, match="INA3221 rails, tegrastats, a GPU that NVML knows, nor RAPL"):
        power_source(tmp_path)


class Nvml(ModuleType):
    """As much of pynvml as is used."""

    class NVMLError(Exception):
        pass

    def __init__(self, gpus=1):
        super().__init__("pynvml")
        self.gpus, self.calls = gpus, []

    def nvmlInit(self):  # noqa: N802
        self.calls.append("init")

    def nvmlShutdown(self):  # noqa: N802
        self.calls.append("shutdown")

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        if index >= self.gpus:
            raise self.NVMLError("not found")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetPowerUsage(self, gpu):  # noqa: N802
        return 68_500 if gpu == 0 else 99_000

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu):  # noqa: N802
        if gpu:
            raise self.NVMLError("not supported")
        return 4


def test_nvml_of_a_discrete_gpu(programs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml := Nvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    source = power_source(tmp_path)
    assert (source.name, source.read(), source.clock_reasons()) == ("NVML", {"GPU": 68_500.0}, 4)
    source.close()
    assert nvml.calls == ["init", "shutdown"]


@pytest.mark.parametrize(("visible", "gpu"), [("1,0", 1), ("GPU-abc", "GPU-abc"), ("", 0)])
def test_nvml_takes_the_gpu_that_is_visible(programs, tmp_path, monkeypatch, visible, gpu):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(gpus=2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    source = power_source(tmp_path)
    assert source.gpu == gpu
    assert source.clock_reasons() == (4 if gpu == 0 else 0)


def test_nvml_without_a_gpu_or_on_a_jetson_is_not_used(programs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml := Nvml(gpus=0))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(MissingTool):
        power_source(tmp_path)
    assert nvml.calls == ["init", "shutdown"]
    monkeypatch.setitem(sys.modules, "pynvml", nvml := Nvml())
    with pytest.raises(MissingTool):
        power_source(plant(tmp_path, {"etc/nv_tegra_release": "# R36 (release), REVISION: 4.3,"}))
    assert nvml.calls == []


def counted(enough, reached):
    values = []

    def read():
        values.append(len(values))
        if len(values) == enough:
            reached.set()
        return values[-1]

    return read


def test_sampler_reads_until_the_block_ends():
    reached = threading.Event()
    with Sampler(counted(5, reached), 0.001) as sampler:
        assert reached.wait(30)
    assert sampler.values == list(range(len(sampler.values)))
    assert len(sampler.times) == len(sampler.values) >= 5
    assert sampler.times == sorted(sampler.times)
    assert not sampler.thread.is_alive()


def test_sampler_raises_what_stopped_it():
    reached = threading.Event()

    def read():
        reached.set()
        raise KdedgeError("tegrastats", "it ended")

    with pytest.raises(KdedgeError, match="it ended"), Sampler(read, 0.001):
        assert reached.wait(30)
    with pytest.raises(ZeroDivisionError), Sampler(read, 0.001):
        raise ZeroDivisionError
