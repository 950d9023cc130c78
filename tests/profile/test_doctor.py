"""What doctor finds on machines made of files, with programs and packages that are not the real ones."""

import os
import time

import pytest
from boards import NANO, ORIN_NANO, WORKSTATION, give_modules, run_program
from tree import Programs, plant

from kdedge.profile.doctor import doctor
from kdedge.profile.doctor_machine import look
from kdedge.profile.doctor_state import clock, disk

NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC
DPKG = "echo 'ii  libnvinfer10 10.3.0.30-1+cuda12.5'"
TRTEXEC = "echo '&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b30] # trtexec --help'"
APT = "sudo apt-get install"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    (tmp_path / "programs").mkdir()
    monkeypatch.setattr("kdedge.profile.trtexec_options.PLACES", ())
    return Programs(tmp_path / "programs", monkeypatch)


@pytest.fixture
def examine(tmp_path, monkeypatch, programs):
    """examine(files, gpu="", takes="", processes=(), **packages) -> the reply, and its findings by topic."""

    def run(files, gpu="", takes="", now=None, **packages):
        monkeypatch.setattr("kdedge.engine.machine.gpu", lambda: gpu)
        monkeypatch.setattr("kdedge.profile.doctor_machine.cuda_driver", lambda: takes)
        monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096}.__getitem__)
        monkeypatch.setattr("kdedge.engine.machine.allowed_cpus", lambda: [0, 1, 2, 3, 4, 5])
        monkeypatch.setattr("kdedge.profile.doctor_state.allowed_cpus", lambda: [0, 1, 2, 3, 4, 5])
        monkeypatch.syspath_prepend(str(give_modules(tmp_path / "packages", **packages)))
        reply = doctor({"mode": "doctor", "now": now}, plant(tmp_path / "root", files))
        return reply, {line["topic"]: line for line in reply["findings"]}

    return run


def told(line):
    return line["state"], line["found"]


WORKING = {"tensorrt": "__version__ = '10.3.0'", "pycuda": "", "pycuda__driver": "__version__ = '2024.1.2'"}


def test_orin_nano_that_has_all(examine, programs, tmp_path):
    programs.add("dpkg-query", DPKG)
    programs.add("trtexec", TRTEXEC)
    reply, found = examine(ORIN_NANO, gpu="Orin 8.7", takes="12.6", **WORKING)
    assert [line["topic"] for line in reply["findings"] if line["state"] not in ("ok", "advice")] == []
    assert [line["topic"] for line in reply["findings"] if line["fix"]] == ["clocks"]
    assert found["board"]["found"] == (
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super (nvidia,p3768-0000+p3767-0005-super), "
        "JetPack 6.2 (L4T 36.4.3)"
    )
    assert found["gpu"]["found"] == "Orin, compute capability 8.7"
    assert found["cuda"]["found"] == "takes CUDA up to 12.6, toolkit 12.6.11"
    assert found["tensorrt"]["found"] == "10.3.0, package 10.3.0.30+cuda12.5"
    assert found["pycuda"]["found"] == "2024.1.2"
    assert found["trtexec"]["found"] == f"10.3.0.30, {tmp_path}/programs/bin/trtexec"
    assert found["memory"]["found"] == (
        "7.4 GiB, 5.5 GiB available, largest free blocks 11x4096KiB, CMA 200 of 256 MiB free"
    )
    assert found["swap"]["found"] == "0.0 GiB of 3.7 GiB in use"
    assert found["power mode"]["found"] == "25W (of 15W, 25W, MAXN_SUPER)"
    assert found["clocks"]["found"] == "not pinned"
    assert found["clocks"]["fix"].startswith("sudo jetson_clocks ")
    assert found["load"]["found"] == "0.10 on 6 CPUs, mean of the last minute"
    assert found["gpu users"]["found"].endswith("; load 2 %")
    assert found["display"]["found"] == "no display server runs"
    assert reply["backends"] == ["ort", "trt"]
    assert reply["machine"]["match"]["tensorrt"] == "10.3.0"
    assert reply["machine"]["match"]["board"].startswith("NVIDIA Jetson Orin Nano")


def test_orin_nano_as_it_was_flashed(examine, programs):
    files = {name: text for name, text in ORIN_NANO.items() if "cuda" not in name}
    reply, found = examine(files, gpu="Orin 8.7", takes="12.6")
    missing = {line["topic"]: line["fix"] for line in reply["findings"] if line["state"] == "fix"}
    assert list(missing) == ["cuda", "tensorrt", "pycuda", "trtexec"]
    assert missing["cuda"] == f"{APT} nvidia-jetpack"
    assert missing["tensorrt"] == f"{APT} python3-libnvinfer"
    assert missing["pycuda"].startswith("export PATH=/usr/local/cuda/bin:$PATH; ")
    assert missing["trtexec"].startswith("sudo apt install libnvinfer-bin")
    assert "pip" not in missing["tensorrt"]
    assert found["cuda"]["why"] == "pycuda is compiled with its nvcc"
    assert reply["backends"] == ["ort"]


def test_trtexec_alone_stands_in_for_tensorrts_python_package(examine, programs):
    programs.add("trtexec", TRTEXEC)
    reply, found = examine(ORIN_NANO, gpu="Orin 8.7")
    assert [found[name]["state"] for name in ("tensorrt", "pycuda", "trtexec")] == ["advice", "advice", "ok"]
    assert found["tensorrt"]["why"] == "trtexec builds and runs engines instead"
    assert reply["backends"] == ["ort", "trt"]


def test_busy_board_with_a_desktop_names_programs_but_not_what_they_were_called_with(examine, tmp_path):
    run_program(tmp_path / "root", 41, "python3", "/dev/nvgpu/igpu0/ctrl")
    run_program(tmp_path / "root", 42, "Xorg", "/dev/nvhost-ctrl-gpu")
    plant(tmp_path / "root", {"proc/41/cmdline": "python3\0serve.py\0--token=secret"})
    reply, found = examine(ORIN_NANO, gpu="Orin 8.7", **WORKING)
    assert found["gpu users"]["found"] == "python3 (process 41), Xorg (process 42); load 2 %"
    assert found["gpu users"]["fix"] == "ps -p 41,42   (then end what is not needed)"
    assert told(found["display"]) == ("advice", "a display server runs")
    assert found["display"]["fix"].startswith("sudo systemctl isolate multi-user.target")
    assert reply["machine"]["note"]["gpu_clients"] == 2
    assert "secret" not in str(reply)


def test_gpu_that_is_busy_for_somebody_else_is_seen_by_its_load(examine):
    _, found = examine({**ORIN_NANO, "sys/class/devfreq/17000000.gpu/device/load": 630}, gpu="Orin 8.7", **WORKING)
    assert found["gpu users"]["state"] == "advice"
    assert found["gpu users"]["found"].endswith("; load 63 %")
    assert found["gpu users"]["fix"] == "sudo fuser -v /dev/nvgpu/igpu0/ctrl /dev/nvhost-ctrl-gpu"


def test_board_of_jetpack_4_whose_clock_begins_in_1970(examine, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 3600.0)
    reply, found = examine(NANO, gpu="NVIDIA Tegra X1 5.3", takes="10.2", now=NOW)
    assert told(found["board"]) == (
        "fix",
        "NVIDIA Jetson Nano Developer Kit (nvidia,jetson-nano), JetPack 4.6.1 (L4T 32.7.1)",
    )
    assert found["board"]["fix"].startswith("flash JetPack 5.1 or newer")
    assert told(found["clock"]) == ("fix", "1970-01-01 01:00 UTC")
    assert found["clock"]["fix"] == (
        "sudo timedatectl set-ntp true   (without a network: sudo date -u -s '2026-09-21 14:13')"
    )
    assert told(found["swap"]) == ("advice", "none")
    assert "swapon /swapfile" in found["swap"]["fix"]
    assert told(found["memory"]) == ("advice", "3.9 GiB, 0.9 GiB available")
    assert told(found["power mode"]) == ("advice", "not known")
    assert found["cuda"]["found"] == "takes CUDA up to 10.2, toolkit 10.2.300"
    assert [found[name]["fix"] for name in ("tensorrt", "pycuda", "trtexec")] == ["", "", ""]
    assert reply["backends"] == ["ort"]


def test_workstation_with_a_gpu(examine, programs):
    programs.add("nvidia-smi", "echo 4711; echo '[Not Supported]'")
    reply, found = examine(WORKSTATION, gpu="NVIDIA GeForce RTX 4090 8.9", takes="12.8")
    assert "board" not in found
    assert found["system"]["found"].startswith("Ubuntu 24.04.1 LTS, kernel ")
    assert found["cpu"]["found"].startswith("Some CPU, 6 cores, 6 of ")
    assert found["gpu"]["found"] == "NVIDIA GeForce RTX 4090, compute capability 8.9"
    assert told(found["cuda"]) == ("fix", "driver 570.86.15, takes CUDA up to 12.8, no toolkit in /usr/local/cuda")
    assert found["cuda"]["fix"] == f"{APT} nvidia-cuda-toolkit"
    assert found["tensorrt"]["fix"].endswith("-m pip install tensorrt")
    assert (found["onnxruntime"]["state"], found["onnxruntime"]["why"]) == ("advice", "it leaves the GPU alone")
    assert "pip install onnxruntime-gpu" in found["onnxruntime"]["fix"]
    assert told(found["clocks"]) == ("advice", "CPU governor powersave")
    assert told(found["swap"]) == ("advice", "4.8 GiB of 7.6 GiB in use")
    assert told(found["load"]) == ("advice", "50.00 on 6 CPUs, mean of the last minute")
    assert told(found["gpu users"]) == ("advice", "unknown (process 4711)")
    assert programs.calls[-1] == "nvidia-smi --query-compute-apps=pid --format=csv,noheader"
    assert reply["backends"] == ["ort"]


def test_machine_without_a_gpu_is_not_asked_for_what_needs_one(examine):
    reply, found = examine({"proc/cpuinfo": "model name\t: Some CPU"})
    assert [line["topic"] for line in reply["findings"] if line["state"] == "fix"] == []
    assert [told(found[name]) for name in ("gpu", "tensorrt", "pycuda", "trtexec")] == [
        ("-", "no NVIDIA GPU"),
        ("-", "not installed"),
        ("-", "not installed"),
        ("-", "not installed"),
    ]
    assert not {"cuda", "display", "gpu users", "memory", "power mode"} & set(found)


def test_gpu_that_this_user_may_not_open_is_told_with_the_group_to_join(examine, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: "nvmap" not in str(path))
    monkeypatch.setattr("grp.getgrgid", lambda number: type("Group", (), {"gr_name": "video"}))
    reply, found = examine(ORIN_NANO, **WORKING)
    assert told(found["gpu"]) == ("fix", "this user may not open /dev/nvmap")
    assert found["gpu"]["fix"].startswith("sudo usermod -aG video $USER")
    assert reply["backends"] == ["ort"]


@pytest.mark.parametrize(
    ("files", "found", "fix"),
    [
        (WORKSTATION, "/dev/nvidia0 is there, but CUDA finds no GPU", "sudo dmesg | grep -i -e nvrm -e nvgpu | tail"),
        ({"proc/device-tree/compatible": "x\0nvidia,tegra234\0"}, "its device nodes are missing", "sudo dmesg"),
        (
            {"proc/device-tree/compatible": "x\0nvidia,tegra234\0", ".dockerenv": ""},
            "its device nodes are missing",
            "docker run --runtime nvidia",
        ),
    ],
)
def test_gpu_that_cuda_does_not_find_is_told_from_none(examine, files, found, fix):
    line = examine(files)[1]["gpu"]
    assert told(line) == ("fix", found)
    assert line["fix"].startswith(fix)


def test_jetson_is_known_in_a_container_without_its_release_file(tmp_path):
    assert look(plant(tmp_path, {"proc/device-tree/compatible": "a\0nvidia,tegra234\0"})).jetson
    assert not look(tmp_path / "nothing").jetson


@pytest.mark.parametrize(
    ("here", "host", "state", "found"),
    [
        (NOW, NOW + 119, "ok", "2026-09-21 14:13 UTC"),
        (NOW, None, "ok", "2026-09-21 14:13 UTC"),
        (NOW - 600, NOW, "fix", "2026-09-21 14:03 UTC, 10 minutes behind the host's"),
        (NOW + 7200, NOW, "fix", "2026-09-21 16:13 UTC, 2 hours ahead of the host's"),
        (NOW - 30 * 86400, NOW, "fix", "2026-08-22 14:13 UTC, 30 days behind the host's"),
        (0.0, None, "fix", "1970-01-01 00:00 UTC"),
    ],
)
def test_clock_is_compared_with_the_hosts(here, host, state, found):
    assert clock(here, host)[1:3] == (state, found)


def test_clock_of_a_host_that_is_wrong_as_well_is_no_example():
    assert clock(0.0, 0.0).fix == "sudo timedatectl set-ntp true"


def test_disk_that_is_nearly_full_is_told_for_the_folder_that_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path / "not/yet"))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("U", (), {"free": 1 << 29, "total": 1 << 35}))
    line = disk()
    assert (line.state, line.found) == ("fix", f"0.5 GiB free of 32.0 GiB (below {tmp_path})")
    assert line.fix.startswith("remove what the device can do without")


def test_home_folder_is_not_spelt_out(examine, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path))
    assert examine({})[1]["disk"]["found"].endswith("(below ~)")


def test_findings_of_this_machine_name_neither_host_nor_user():
    reply = doctor({"mode": "doctor", "now": time.time()})
    text = " ".join(" ".join(line.values()) for line in reply["findings"])
    assert os.uname().nodename not in text.split()
    assert {line["topic"]: line["state"] for line in reply["findings"]}["clock"] == "ok"
    assert "ort" in reply["backends"]
