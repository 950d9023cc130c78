"""Real lines of tegrastats: one of each file in full, worked out by eye, and all of them checked word by word."""

import os
from pathlib import Path

import pytest
from standing import check, stands

from kdedge.profile.tegrastats import (
    Core,
    Engine,
    Load,
    Memory,
    Rail,
    Reading,
    Temperature,
    parse_line,
    parse_log,
    total_power,
)

SAMPLES = Path(os.environ.get("KDEDGE_SAMPLES", "none"))
HOW = "set KDEDGE_SAMPLES to a folder with tegrastats_*.log"


def cores(percents, clocks, off=0):
    return [Core(*core) for core in zip(percents, clocks, strict=True)] + [None] * off


def warm(**celsius):
    return [Temperature(name, value, None) for name, value in celsius.items()]


def rails(**values):
    return [Rail(name, *(value if len(value) == 3 else (*value, None))) for name, value in values.items()]


def off(*names):
    return [Engine(name, None) for name in names]


ORIN_OFF = off("NVENC", "NVDEC", "NVJPG", "NVJPG1", "VIC", "OFA", "NVDLA0", "NVDLA1", "PVA0_FREQ")
THOR_OFF = off("NVENC0", "NVDEC0", "NVJPG0", "NVJPG1", "VIC", "OFA", "NVDLA0", "NVDLA1", "PVA0_FREQ")
FIRST = {
    "agx_orin_jp6_pergpc_engines_off": Reading(
        "07-21-2025 16:33:42",
        [Memory("RAM", 17953, 62841, "MB", "lfb 9x4MB"), Memory("SWAP", 0, 31420, "MB", "cached 0MB")],
        cores([7, 31, 7, 42, 4, 5, 6, 1], [1728, 1036, 1036, 1036, 1420, 729, 729, 729], off=4),
        [Load("EMC_FREQ", 12, (204,)), Load("GR3D_FREQ", 39, (305, None))],
        [*ORIN_OFF, Engine("APE", 174)],
        warm(cpu=43.906, soc2=40.406, soc0=41.187, gpu=40.093, tj=43.906, soc1=40.437),
        rails(VDD_GPU_SOC=(2798, 2798), VDD_CPU_CV=(799, 799), VIN_SYS_5V0=(3315, 3315)),
    ),
    "agx_orin_jp72_triplet_power": Reading(
        "07-25-2026 09:08:28",
        [Memory("RAM", 20642, 62817, "MB", "lfb 1x2MB")],
        cores([23, 10, 4, 14, 30, 18, 10, 10, 33, 7, 5, 27], [2201] * 12),
        [Load("EMC_FREQ", 3, (3199,)), Load("GR3D_FREQ", 12, (1300, 1300))],
        [*THOR_OFF, Engine("APE", 174)],
        [
            Temperature("cpu", 52.968, 52.968),
            Temperature("soc2", 48.406, 48.406),
            Temperature("soc0", 49.531, 49.531),
            Temperature("gpu", 47.625, 47.625),
        ],
        rails(VDD_GPU_SOC=(5139, 5139, 5139), VDD_CPU_CV=(3268, 3268, 3268), VIN_SYS_5V0=(5500, 5500, 5500)),
    ),
    "agx_xavier_jp4_no_units": Reading(
        "",
        [Memory("RAM", 14700, 15692, "MB", "lfb 3x2MB"), Memory("SWAP", 898, 8192, "MB", "cached 23MB")],
        cores([0] * 8, [1190] * 8),
        [Load("EMC_FREQ", 0, ()), Load("GR3D_FREQ", 0, ())],
        [],
        warm(AO=30, GPU=30.5, Tboard=31, Tdiode=32, AUX=30.5, CPU=31.5, thermal=30.8, PMIC=100),
        rails(GPU=(463, 463), CPU=(618, 618), SOC=(2936, 2936), CV=(0, 0), VDDRQ=(309, 309), SYS5V=(3306, 3306)),
    ),
    "nano_jp4": Reading(
        "",
        [Memory("RAM", 2015, 3964, "MB", "lfb 98x4MB"), Memory("SWAP", 29, 1982, "MB", "cached 3MB")],
        cores([6, 5, 4, 3], [102] * 4),
        [Load("EMC_FREQ", 0, ()), Load("GR3D_FREQ", 0, ())],
        [],
        warm(PLL=28, CPU=31.5, PMIC=100, GPU=30.5, AO=36, thermal=31.25),
        rails(POM_5V_IN=(1388, 1388), POM_5V_GPU=(122, 122), POM_5V_CPU=(163, 163)),
    ),
    "orin_nano_4gb_jp5_mixed": Reading(
        "01-24-2024 09:17:09",
        [Memory("RAM", 3503, 7337, "MB", "lfb 7x1MB"), Memory("SWAP", 430, 3668, "MB", "cached 1MB")],
        cores([11, 13, 9, 18], [729] * 4, off=2),
        [Load("EMC_FREQ", 0, (2133,)), Load("GR3D_FREQ", 0, (305,)), Load("GR3D2_FREQ", 0, (None,))],
        [Engine("VIC_FREQ", 115), Engine("APE", 174)],
        warm(
            CV0=42.718,
            CPU=44.093,
            SOC2=42.625,
            SOC0=43.281,
            CV1=42.25,
            GPU=41.343,
            tj=46.968,
            SOC1=46.968,
            CV2=42.875,
        ),
        rails(VDD_IN=(4915, 4915), VDD_CPU_GPU_CV=(449, 449), VDD_SOC=(1431, 1431)),
    ),
    "orin_nano_jp6": Reading(
        "11-15-2024 08:38:09",
        [Memory("RAM", 6185, 7620, "MB", "lfb 8x2MB"), Memory("SWAP", 851, 3810, "MB", "cached 1MB")],
        cores([15, 11, 14, 13, 11, 8], [729] * 6),
        [Load("EMC_FREQ", 43, (2133,)), Load("GR3D_FREQ", 63, (621,))],
        [*off("NVDEC", "NVJPG", "NVJPG1", "VIC", "OFA"), Engine("APE", 200)],
        warm(cpu=53.968, soc2=52.437, soc0=50.75, gpu=53.343, tj=53.968, soc1=51.656),
        rails(VDD_IN=(12479, 12479), VDD_CPU_GPU_CV=(4667, 4667), VDD_SOC=(2817, 2817)),
    ),
    "orin_nx_no_power_nonroot": Reading(
        "08-21-2026 15:11:33",
        [Memory("RAM", 998, 15389, "MB", "lfb 3313x4MB"), Memory("SWAP", 0, 7694, "MB", "cached 0MB")],
        cores([4, 0, 1, 0, 0, 0, 0, 0], [883] * 4 + [729] * 4),
        [Load("EMC_FREQ", 0, ()), Load("GR3D_FREQ", 0, ()), Load("GR3D2_FREQ", 0, (None,))],
        [],
        warm(
            CV0=54.156,
            CPU=56.843,
            SOC2=54.906,
            SOC0=56.031,
            CV1=54.093,
            GPU=54.375,
            tj=57.468,
            SOC1=57.468,
            CV2=54.281,
        ),
        [],
    ),
    "tx2_jp42_vdd_sys_names": Reading(
        "",
        [Memory("RAM", 2020, 7852, "MB", "lfb 1164x4MB")],
        cores([9, 21, 25, 3, 1, 1], [345] * 6),
        [Load("EMC_FREQ", 0, ()), Load("GR3D_FREQ", 0, ())],
        [],
        warm(PLL=42.5, MCPU=42.5, PMIC=100, Tboard=40, GPU=41, BCPU=42.5, thermal=41.9, Tdiode=41.25),
        rails(
            VDD_SYS_GPU=(153, 158),
            VDD_SYS_SOC=(536, 547),
            VDD_4V0_WIFI=(633, 527),
            VDD_IN=(3140, 3208),
            VDD_SYS_CPU=(536, 590),
            VDD_SYS_DDR=(557, 601),
        ),
    ),
    "tx2_jp4_multi": Reading(
        "",
        [Memory("RAM", 1685, 7854, "MB", "lfb 1044x4MB"), Memory("SWAP", 278, 8192, "MB", "cached 23MB")],
        cores([0] * 6, [1303, 345, 345, 1419, 1420, 1421]),
        [
            Load("EMC_FREQ", 0, (1866,)),
            Load("GR3D_FREQ", 0, (140,)),
            Load("MTS fg", 1, ()),
            Load("MTS bg", 8, ()),
        ],
        [Engine("APE", 150)],
        warm(BCPU=41, MCPU=41, GPU=39, PLL=41, Tboard=37, Tdiode=37.25, PMIC=100, thermal=39.9),
        rails(
            VDD_IN=(1931, 1931),
            VDD_CPU=(231, 231),
            VDD_GPU=(154, 154),
            VDD_SOC=(385, 385),
            VDD_WIFI=(38, 38),
            VDD_DDR=(326, 326),
        ),
    ),
    "xavier_nx_jp5_2cores_off": Reading(
        "10-01-2025 20:05:55",
        [Memory("RAM", 2274, 6834, "MB", "lfb 27x4MB"), Memory("SWAP", 542, 3417, "MB", "cached 2MB")],
        cores([99, 100, 100, 98], [1189, 1188, 1189, 1189], off=2),
        [Load("EMC_FREQ", 0, ()), Load("GR3D_FREQ", 22, ())],
        [],
        warm(AUX=36.5, CPU=40, thermal=37.85, AO=37.5, GPU=38, PMIC=50),
        rails(VDD_IN=(5542, 5542), VDD_CPU_GPU_CV=(1594, 1594), VDD_SOC=(1234, 1234)),
    ),
}
# Lines in the file, and mW of the whole board in its last line.
LAST = {
    "agx_orin_jp6_pergpc_engines_off": (15, 2399 + 399 + 2813),
    "agx_orin_jp72_triplet_power": (1, 5139 + 3268 + 5500),
    "agx_xavier_jp4_no_units": (2, 18401 + 2301 + 4602 + 0 + 2914 + 4632),
    "nano_jp4": (2, 1750),
    "orin_nano_4gb_jp5_mixed": (1, 4915),
    "orin_nano_jp6": (2, 4824),
    "orin_nx_no_power_nonroot": (1, None),
    "tx2_jp42_vdd_sys_names": (2, 5297),
    "tx2_jp4_multi": (3, 1738),
    "xavier_nx_jp5_2cores_off": (103, 13751),
}


def text_of(name, needs):
    path = SAMPLES / f"tegrastats_{name}.log"
    needs(path.is_file(), HOW)
    return path.read_text()


@pytest.mark.parametrize("name", FIRST)
def test_first_line_is_taken_apart(name, needs):
    assert parse_line(text_of(name, needs).splitlines()[0]) == FIRST[name]


@pytest.mark.parametrize("name", LAST)
def test_lines_and_total_power(name, needs):
    readings = parse_log(text_of(name, needs))
    total = total_power((rail.name, rail.milliwatts) for rail in readings[-1].rails)
    assert (len(readings), total.milliwatts if total else None) == LAST[name]


def test_every_word_of_every_sample_is_understood(needs):
    """Of other samples than those above, too."""
    paths = sorted(SAMPLES.glob("tegrastats_*.log"))
    needs(paths, HOW)
    for path in paths:
        lines = path.read_text().splitlines()
        readings = [parse_line(line) for line in lines]
        assert [word for reading in readings for word in reading.unknown] == [], path.name
        for reading, line in zip(readings, lines, strict=True):
            stands(reading, line)


def test_what_mutated_samples_yield_stands_in_them(needs):
    texts = [path.read_text() for path in sorted(SAMPLES.glob("tegrastats_*.log"))]
    needs(texts, HOW)
    assert check([line for text in texts for line in text.splitlines()[:2]], 1500) > 10_000
