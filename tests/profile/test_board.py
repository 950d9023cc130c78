import getpass
import json
import platform
import socket

import pytest
from boards import ORIN_NANO, WORKSTATION, run_program
from tree import Programs, plant

from kdedge.profile.board import fingerprint, in_container

JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "proc/loadavg": "0.50 0.40 0.30 1/234 5678\n",
    "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 600 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\nHugePages_Total: 0\n",
}
GOVERNOR = {"scaling_governor": "schedutil\n", "scaling_cur_freq": "729600\n", "scaling_max_freq": "1510400\n"}


@pytest.fixture
def jetson(tmp_path, monkeypatch):
    monkeypatch.setattr("kdedge.profile.board.allowed_cpus", lambda: [0, 1])
    clocks = {f"sys/devices/system/cpu/cpu0/cpufreq/{name}": text for name, text in GOVERNOR.items()}
    for name, text in {**JETSON, **clocks}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_fingerprint_of_a_jetson(jetson):
    device = fingerprint({"onnxruntime": "1.2.3"}, jetson)
    assert device["match"] == {
        "arch": platform.machine(),
        "cpu": "NVIDIA Jetson Orin Nano Developer Kit Arm implementer 0x41 part 0xd42",
        "instruction_sets": "asimd",
        "board": "NVIDIA Jetson Orin Nano Developer Kit",
        "l4t": "36.4.3",
        "cores": 2,
        "cpus": 2,
        "cpu_quota": None,
        "onnxruntime": "1.2.3",
    }
    note = device["note"]
    assert (note["memory_total"], note["memory_available"], note["swap_used"]) == (1_024_000, 614_400, 30_720)
    assert (note["governor"], note["mhz"], note["mhz_max"]) == ("schedutil", 729, 1510)
    assert note["load"] == [0.5, 0.4, 0.3]
    assert note["distro"] == "Ubuntu 22.04.5 LTS"
    assert note["container"] is False


STATE = {
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >",
    "sys/devices/system/cpu/online": "0-5",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": 1510400,
    "sys/class/devfreq/17000000.gpu/cur_freq": 918000000,
    "sys/class/devfreq/17000000.gpu/min_freq": 918000000,
    "sys/class/devfreq/17000000.gpu/max_freq": 918000000,
    "sys/class/thermal/thermal_zone0/type": "tj-thermal",
    "sys/class/thermal/thermal_zone0/temp": 41500,
    "sys/class/hwmon/hwmon2/name": "pwmfan",
    "sys/class/hwmon/hwmon2/pwm1": 88,
}
DPKG = "echo 'un  libnvinfer8 '; echo 'ii  libnvinfer10 10.3.0.30-1+cuda12.5'"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    (tmp_path / "programs").mkdir()
    return Programs(tmp_path / "programs", monkeypatch)


def test_state_of_a_jetson_is_in_its_fingerprint(jetson, programs):
    programs.add("dpkg-query", DPKG)
    device = fingerprint({}, plant(jetson, STATE))
    assert (device["match"]["power_mode"], device["match"]["clocks_pinned"]) == ("MAXN_SUPER", True)
    note = device["note"]
    assert (note["jetpack"], note["tensorrt_package"]) == ("6.2", "10.3.0.30+cuda12.5")
    assert note["clocks"] == {"17000000.gpu": {"now": 918.0, "lowest": 918.0, "highest": 918.0, "governor": ""}}
    assert (note["cpus_online"], note["temperatures"], note["fan"]) == ("0-5", {"tj-thermal": 41.5}, {"pwm": 88})
    assert programs.calls[0].startswith("dpkg-query -W -f ")
    assert json.loads(json.dumps(device)) == device


def test_build_of_tensorrt_must_match_where_tensorrt_is_measured(jetson, programs):
    programs.add("dpkg-query", DPKG)
    device = fingerprint({"tensorrt": "10.3.0", "gpu": "Orin 8.7"}, jetson)
    assert device["match"]["tensorrt_package"] == "10.3.0.30+cuda12.5"
    assert "tensorrt_package" not in device["note"]


def test_module_memory_blocks_and_what_else_uses_the_gpu_are_in_the_fingerprint(tmp_path, programs, monkeypatch):
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096}.__getitem__)
    programs.add("dpkg-query", f"{DPKG}; echo 'ii  libcudnn9-cuda-12 9.3.0.75-1'")
    root = plant(tmp_path / "root", ORIN_NANO)
    run_program(root, 41, "python3", "/dev/nvgpu/igpu0/ctrl")
    run_program(root, 42, "Xorg", "/dev/nvhost-ctrl-gpu")
    device = fingerprint({}, root)
    assert device["match"]["module"] == "nvidia,p3768-0000+p3767-0005-super"
    note = device["note"]
    assert (note["cma_total"], note["cma_free"], note["largest_free_blocks"]) == (
        268_435_456,
        209_715_200,
        "11x4096KiB",
    )
    assert (note["gpu_clients"], note["display_server"]) == (2, True)
    assert (note["cuda"], note["cudnn"]) == ("12.6.11", "9.3.0.75")


def test_driver_of_a_discrete_gpu_is_noted(tmp_path):
    note = fingerprint({}, plant(tmp_path, WORKSTATION))["note"]
    assert (note["driver"], note["gpu_clients"], note["display_server"]) == ("570.86.15", 0, False)


def test_power_mode_without_its_status_file_is_asked_for(jetson, programs):
    programs.add("nvpmodel", "printf 'NV Power Mode: 25W\\n1\\n'")
    assert fingerprint({}, jetson)["match"]["power_mode"] == "25W"
    assert programs.calls == ["nvpmodel -q"]


def test_tool_that_fails_leaves_its_fact_out(jetson, programs):
    programs.add("nvpmodel", "exit 1")
    device = fingerprint({}, jetson)
    assert "power_mode" not in device["match"]
    assert "tensorrt_package" not in device["note"]
    assert device["note"]["jetpack"] == "6.2"


def test_other_boards_are_not_asked_for_what_a_jetson_has(tmp_path, programs):
    programs.add("nvpmodel", "exit 1")
    programs.add("dpkg-query", DPKG)
    device = fingerprint({}, plant(tmp_path, {"proc/device-tree/model": "Some Board"}))
    assert device["match"]["board"] == "Some Board"
    assert not {"jetpack", "tensorrt_package"} & set(device["note"])
    assert programs.calls == []


def test_what_the_system_does_not_say_is_left_out(tmp_path):
    device = fingerprint({}, tmp_path)
    assert not {"board", "l4t"} & set(device["match"])
    assert not {"governor", "mhz", "memory_total", "driver", "gpu_clients"} & set(device["note"])


def test_fingerprint_of_this_machine_repeats():
    assert fingerprint({})["match"] == fingerprint({})["match"]


def test_fingerprint_names_neither_host_nor_user():
    text = json.dumps(fingerprint({}))
    for secret in (socket.gethostname(), getpass.getuser()):
        assert f'"{secret}"' not in text
    assert "serial" not in text


@pytest.mark.parametrize(
    ("name", "text"), [(".dockerenv", ""), ("run/.containerenv", ""), ("proc/1/cgroup", "0::/docker/0123\n")]
)
def test_container_is_recognized_by_its_marks(tmp_path, name, text):
    assert not in_container(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    assert in_container(tmp_path)
