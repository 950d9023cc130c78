import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from mutants import mutants

from kdedge.profile.jetson import (
    Clock,
    Package,
    PowerMode,
    cudnn_package,
    fan_mode,
    jetpack,
    jetson_release,
    l4t_release,
    power_mode,
    power_modes,
    release_date,
    shown_clocks,
    shown_fan,
    tensorrt_package,
    tensorrt_packages,
)

SAMPLES = Path(os.environ.get("KDEDGE_SAMPLES", "none"))
RELEASE = """\
# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64
# DATE: Wed Jan  8 01:02:03 AM UTC 2025
# KERNEL_VARIANT: oot
"""
QUERY = """\
NVPM VERB: parsing done for /etc/nvpmodel.conf
NV Fan Mode:cool
NVPM VERB: Current mode: NV Power Mode: MODE_15W
2
"""
MODES = """\
# modes of a board that nobody sells
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=MAXN_SUPER >
CPU_ONLINE CORE_0 1
TPC_POWER_GATING TPC_PG_MASK 0

< POWER_MODEL NAME=15W ID=12 >
CPU_ONLINE CORE_0 1
GPU MAX_FREQ 624750000
< PM_CONFIG DEFAULT=1 >
"""
CLOCKS = """\
SOC family:tegra234  Machine:Some Board
Online CPUs: 0-1
cpu0: Online=1 Governor=schedutil MinFreq=115200 MaxFreq=2201600 CurrentFreq=2112000 IdleStates: WFI=1 c7=1
cpu1: Online=0 Governor=schedutil MinFreq=115200 MaxFreq=2201600
GPU MinFreq=306000000 MaxFreq=624750000 CurrentFreq=306000000
DLA1_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
FAN Dynamic Speed control=active hwmon2_pwm1=55
"""
DPKG = """\
ii  libnvinfer-bin:arm64   10.3.0.30-1+cuda12.5  arm64  TensorRT binaries
ii  libnvinfer10\t\t10.3.0.31-1+cuda12.6\tarm64\tTensorRT runtime
rc  libnvinfer8            8.5.2-1+cuda11.4      arm64  TensorRT runtime
ii  libcudnn9              9.3.0.75-1+cuda12.5   arm64  cuDNN
ii  nvidia-tensorrt        6.2+b77               arm64  metapackage
"""
REPORT = """\
Model: NVIDIA Some Board - Jetpack 6.2 [L4T 36.4.3]
NV Power Mode[3]: 25W
Serial Number: 1234567890123
 - CUDA: 12.6.68
 - TensorRT: 10.3.0.30
"""


@pytest.mark.parametrize(
    ("release", "name"),
    [("36.4.3", "6.2"), ("36.4.7", "6.2.1"), ("38.2.2", "7.0"), ("35.6.3", "5.1.5"), ("39.2.1", "7.2.1"), ("", "")],
)
def test_jetpack_of_a_release(release, name):
    assert jetpack(release) == name


@pytest.mark.parametrize("release", ["36.4.9", "40.1.0", "36.4"])
def test_jetpack_of_an_unknown_release_is_not_guessed(release):
    assert jetpack(release) == f"L4T {release}"


def test_release_file_of_several_lines():
    assert (l4t_release(RELEASE), release_date(RELEASE)) == ("36.4.3", "Wed Jan  8 01:02:03 AM UTC 2025")


@pytest.mark.parametrize("text", ["", "# R36 (release)\n", "# R36 (release), REVISION: 4.", "R36.4.3\n"])
def test_release_that_is_not_said_is_empty(text):
    assert (l4t_release(text), release_date(text)) == ("", "")


def test_power_mode_is_found_between_other_lines():
    assert (power_mode(QUERY), fan_mode(QUERY)) == (PowerMode("MODE_15W", 2), "cool")


@pytest.mark.parametrize(
    "text", ["", "NVPM WARN: power mode is not set!\n", "NV Power Mode: 25W\n", "NV Power Mode: \n1"]
)
def test_power_mode_that_is_not_said_is_none(text):
    assert power_mode(text) is None


def test_power_modes_of_the_configuration():
    assert power_modes(MODES) == {
        PowerMode("MAXN_SUPER", 0): {"CPU_ONLINE CORE_0": "1", "TPC_POWER_GATING TPC_PG_MASK": "0"},
        PowerMode("15W", 12): {"CPU_ONLINE CORE_0": "1", "GPU MAX_FREQ": "624750000"},
    }


@pytest.mark.parametrize("header", ["ID=1 ID=2", "NAME=a NAME=b", "NAME=ID=3 NAME=b", "ID=x NAME=a", "ID=1"])
def test_power_mode_without_a_name_or_number_is_none(header):
    assert power_modes(f"< POWER_MODEL {header} >\nCPU_ONLINE CORE_0 1\n") == {}


def test_clocks_are_in_megahertz_whatever_the_tool_counts_in():
    assert shown_clocks(CLOCKS) == {
        "cpu0": Clock(True, "schedutil", 115.2, 2201.6, 2112.0),
        "cpu1": Clock(False, "schedutil", 115.2, 2201.6, None),
        "GPU": Clock(True, "", 306.0, 624.75, 306.0),
        "DLA1_CORE": Clock(True, "", 0.0, 1600.0, 1600.0),
    }
    assert shown_fan(CLOCKS) == {"hwmon2_pwm1": 55}


def test_installed_packages_of_tensorrt_are_found():
    assert tensorrt_packages(DPKG) == [
        Package("libnvinfer-bin", "10.3.0.30", "12.5"),
        Package("libnvinfer10", "10.3.0.31", "12.6"),
    ]
    assert tensorrt_package(DPKG) == Package("libnvinfer10", "10.3.0.31", "12.6")
    assert tensorrt_package("8.5.2-1+cuda11.4\n") == Package("", "8.5.2", "11.4")
    assert tensorrt_package("no packages found\n") is None


def test_report_of_jetson_stats_is_read_without_the_serial_number():
    assert jetson_release(REPORT) == {
        "board": "NVIDIA Some Board",
        "jetpack": "6.2",
        "l4t": "36.4.3",
        "power_mode": PowerMode("25W", 3),
        "cuda": "12.6.68",
        "tensorrt": "10.3.0.30",
    }


def stands(text):
    """Each number that a parser makes of the text must be in it, beside its name; how many there were."""
    lines = text.splitlines()
    words = [line.split() for line in text.replace("<", "< ").replace(">", " >").split("\n")]

    def line_with(*parts):
        return any(all(part in line for part in parts) for line in words)

    release = l4t_release(text)
    if release:
        major, _, rest = release.partition(".")
        assert f"R{major} (release), REVISION: {rest}" in text or f"branch R{release}" in text
    assert release_date(text) in text
    mode = power_mode(text)
    if mode:
        told = [(line.rpartition("NV Power Mode:")[2].strip(), below) for line, below in pairwise(lines)]
        assert any(name == mode.name and below.isdecimal() and int(below) == mode.number for name, below in told)
    for found, settings in power_modes(text).items():
        assert any(f"NAME={found.name}" in line and found.number in numbers(line, "ID=") for line in words)
        assert all(line_with(*setting.split(), value) for setting, value in settings.items())
    for name, clock in shown_clocks(text).items():
        unit = 1e3 if name[:3] == "cpu" and name[3:].isdecimal() else 1e6
        own = [line for line in words if line and line[0].rstrip(":") == name]
        for key, value in {"MinFreq=": clock.lowest, "MaxFreq=": clock.highest, "CurrentFreq=": clock.now}.items():
            assert value is None or any(round(value * unit) in numbers(line, key) for line in own), (name, key)
    for name, value in shown_fan(text).items():
        assert any(value in numbers(line, f"{name}=") for line in words)
    for package in tensorrt_packages(text):
        version = [word for line in words for word in line if word.startswith(f"{package.version}-")]
        assert any(word.endswith(f"+cuda{package.cuda}") for word in version)
        assert any(word.partition(":")[0] == package.name for line in words for word in line) or not package.name
    report = jetson_release(text)
    for key, shown in {
        "cuda": "CUDA: ",
        "cudnn": "cuDNN: ",
        "tensorrt": "TensorRT: ",
        "l4t": "L4T",
        "board": "",
    }.items():
        assert key not in report or (shown in text and report[key] in text)
    return len(shown_clocks(text)) + len(tensorrt_packages(text)) + len(power_modes(text)) + bool(mode) + bool(release)


def numbers(words, key):
    return [int(word[len(key) :]) for word in words if word.startswith(key) and word[len(key) :].isdecimal()]


def test_what_mutated_texts_yield_stands_in_them():
    texts = [RELEASE, QUERY, MODES, CLOCKS, DPKG, REPORT]
    assert sum(map(stands, texts)) == 10
    assert sum(map(stands, mutants(texts, 1500))) > 1000


def sections(name, needs):
    path = SAMPLES / name
    needs(path.is_file(), f"set KDEDGE_SAMPLES to a folder with {name}")
    return [text for text in re.split(r"^### .*\n", path.read_text(), flags=re.MULTILINE) if text]


def test_samples_of_the_release_file(needs):
    found = [(l4t_release(text), release_date(text)) for text in sections("nv_tegra_release_variants.txt", needs)]
    assert found == [
        ("39.2.1", "Fri Aug 7 05:54:22 AM UTC 2026"),
        ("39.2.0", "Mon Jun  1 09:28:48 PM UTC 2026"),
        ("38.2.0", "Fri Aug 22 00:55:42 UTC 2025"),
        ("36.4.3", "Wed Jan  8 01:49:37 UTC 2025"),
        ("36.4.3", ""),
    ]
    assert [jetpack(release) for release, _ in found] == ["7.2.1", "7.2", "7.0", "6.2", "6.2"]


def test_samples_of_the_power_mode(needs):
    texts = sections("nvpmodel_q_variants.txt", needs)
    modes = [PowerMode("25W", 1), PowerMode("MAXN", 0), PowerMode("MAXN", 0), PowerMode("25W", 1)]
    assert [power_mode(text) for text in texts] == modes
    assert [fan_mode(text) for text in texts] == ["", "", "quiet", ""]


def test_sample_of_the_clocks(needs):
    text = "".join(sections("jetson_clocks_show_agx_orin_jp5_PARTIAL.txt", needs))
    cpu = (True, "schedutil", 115.2, 2201.6)
    assert shown_clocks(text) == {
        "cpu0": Clock(*cpu, 2112.0),
        "cpu1": Clock(*cpu, 2201.6),
        "cpu10": Clock(*cpu, 2201.6),
        "cpu11": Clock(*cpu, 1190.4),
        "cpu2": Clock(*cpu, 2112.0),
        "DLA1_CORE": Clock(True, "", 0.0, 1600.0, 1600.0),
        "DLA1_FALCON": Clock(True, "", 0.0, 844.8, 844.8),
        "PVA0_VPS0": Clock(True, "", 0.0, 1152.0, 1152.0),
        "PVA0_AXI": Clock(True, "", 0.0, 832.0, 832.0),
    }
    assert shown_fan(text) == {"hwmon2_pwm1": 55}


def test_samples_of_the_packages(needs):
    texts = sections("dpkg_nvinfer_variants.txt", needs)
    assert [(len(tensorrt_packages(text)), tensorrt_package(text)) for text in texts] == [
        (5, Package("libnvinfer-bin", "8.2.1", "10.2")),
        (6, Package("libnvinfer-bin", "10.3.0.30", "12.5")),
        (3, Package("libnvinfer10", "10.3.0.30", "12.5")),
        (1, Package("", "8.5.2", "11.4")),
        (2, Package("libnvinfer-bin", "11.1.0.106", "13.3")),
        (1, Package("libnvinfer8", "8.2.2", "11.4")),
    ]


def test_samples_of_the_report(needs):
    new, old = (
        jetson_release(sections(f"jetson_release_v_{name}.txt", needs)[0])
        for name in ("thor_jp71", "agx_xavier_jp43_old_format")
    )
    assert new == {
        "board": "NVIDIA Jetson AGX Thor Developer Kit",
        "l4t": "38.4.0",
        "power_mode": PowerMode("120W", 1),
        "cuda": "13.0.48",
        "cudnn": "9.12.0.46",
        "tensorrt": "10.13.3.9",
    }
    assert old == {
        "board": "NVIDIA Jetson AGX Xavier [16GB]",
        "l4t": "32.3.1",
        "jetpack": "4.3",
        "power_mode": PowerMode("MODE_15W", 2),
    }


def test_what_mutated_samples_yield_stands_in_them(needs):
    kinds = ("nvpmodel", "jetson_clocks", "jetson_release", "nv_tegra_release", "dpkg_nvinfer")
    texts = [path.read_text() for kind in kinds for path in sorted(SAMPLES.glob(f"{kind}*.txt"))]
    needs(texts, "set KDEDGE_SAMPLES to a folder with nvpmodel_q_variants.txt and the like")
    assert sum(map(stands, mutants(texts, 1500))) > 1500


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("un  libcudnn8 \nii  libcudnn9-cuda-12 9.3.0.75-1\nii  libnvinfer10 10.3.0.30-1+cuda12.5", "9.3.0.75"),
        ("ii  libcudnn8:arm64\t8.6.0.166-1+cuda11.4\tarm64", "8.6.0.166"),
        ("rc  libcudnn8 8.6.0.166-1+cuda11.4\nii  libcudnn8-dev 8.6.0.166-1+cuda11.4", ""),
    ],
)
def test_cudnn_package_is_the_installed_library(text, version):
    assert cudnn_package(text) == version
