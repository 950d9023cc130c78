import os
from types import SimpleNamespace

import pytest

from kdedge.engine import machine

X86 = """processor\t: 0
model name\t: Acme 9000 @ 3 GHz
flags\t\t: fpu sse4_2 avx2 avx512f nonsense

processor\t: 1
model name\t: Acme 9000 @ 3 GHz
"""
ARM = """processor\t: 0
Features\t: fp asimd asimddp crc32
CPU implementer\t: 0x41
CPU part\t: 0xd42
"""


@pytest.fixture
def files(tmp_path):
    """files({"proc/cpuinfo": text, ...}) -> a root with these files."""

    def write(content):
        for name, text in content.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_cpu_of_a_pc_is_named_with_what_kernels_depend_on(files):
    root = files({"proc/cpuinfo": X86})
    assert machine.cpu_model(root) == "Acme 9000 @ 3 GHz"
    assert machine.instruction_sets(root) == "avx2 avx512f sse4_2"


def test_cpu_of_an_arm_board_is_named_by_its_device_tree(files):
    root = files({"proc/cpuinfo": ARM, "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0"})
    assert machine.cpu_model(root) == "NVIDIA Jetson Orin Nano Arm implementer 0x41 part 0xd42"
    assert machine.instruction_sets(root) == "asimd asimddp"


def test_this_machine_has_a_name_and_a_core():
    assert all(machine.identity()[name] for name in ("arch", "cpu"))
    assert 1 <= machine.usable_cores() <= len(os.sched_getaffinity(0))


def test_hyperthreads_count_once(files):
    topology = "sys/devices/system/cpu/cpu{}/topology/{}"
    where = {0: ("0", "0"), 1: ("0", "0"), 2: ("0", "1"), 3: ("1", "0")}
    root = files(
        {topology.format(cpu, "physical_package_id"): package for cpu, (package, _) in where.items()}
        | {topology.format(cpu, "core_id"): core for cpu, (_, core) in where.items()}
    )
    assert machine.physical_cores([0, 1, 2, 3], root) == 3
    assert machine.physical_cores([0, 1], root) == 1


def test_cpus_of_unknown_topology_count_one_each(tmp_path):
    assert machine.physical_cores([0, 5], tmp_path) == 2


@pytest.mark.parametrize(
    ("content", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, 0.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
                "sys/fs/cgroup/a/cpu.max": "200000 100000",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n2:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
    ],
    ids=["no-cgroup", "unlimited", "v2", "v2-parent", "v2-tightest", "v1"],
)
def test_cpu_quota_is_the_tightest_of_the_cgroups_above(files, content, quota):
    assert machine.cpu_quota(files(content)) == quota


def test_quota_below_one_cpu_still_leaves_a_core(files):
    root = files({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000"})
    assert machine.usable_cores(root) == 1


def driver(status):
    """libcuda of a machine with an Orin (status 0), or with a driver and no device."""

    def get_name(name, size, device):
        name.value = b"Orin"
        return 0

    def get_attribute(value, attribute, device):
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    return SimpleNamespace(
        cuInit=lambda flags: status,
        cuDeviceGet=lambda device, number: status,
        cuDeviceGetName=get_name,
        cuDeviceGetAttribute=get_attribute,
    )


@pytest.mark.parametrize(("status", "name"), [(0, "Orin 8.7"), (100, "")])
def test_gpu_is_named_with_its_compute_capability(monkeypatch, status, name):
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda library: driver(status))
    assert machine.gpu() == name


def test_gpu_of_a_machine_without_a_driver_is_none(monkeypatch):
    def missing(library):
        raise OSError(library)

    monkeypatch.setattr(machine.ctypes, "CDLL", missing)
    assert machine.gpu() == ""
