"""NVIDIA's driver, its CUDA and who holds its GPU, on machines made of files."""

import os

import pytest
from boards import NANO, ORIN_NANO, WORKSTATION, run_program
from tree import plant

from kdedge.profile.nvidia import cuda_driver, cuda_toolkit, device_nodes, gpu_clients, kernel_driver


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build", "570.86.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build", "540.4.0"),
        ("", ""),
    ],
)
def test_kernel_driver_is_read_from_either_form(tmp_path, text, version):
    assert kernel_driver(plant(tmp_path, {"proc/driver/nvidia/version": text})) == version


def test_cuda_toolkit_is_read_from_its_file_of_either_age(tmp_path):
    assert cuda_toolkit(plant(tmp_path / "orin", ORIN_NANO)) == "12.6.11"
    assert cuda_toolkit(plant(tmp_path / "nano", NANO)) == "10.2.300"
    assert cuda_toolkit(plant(tmp_path / "broken", {"usr/local/cuda/version.json": "[1]"})) == ""
    assert cuda_toolkit(tmp_path) == ""


def test_cuda_driver_is_as_the_driver_says(tmp_path, monkeypatch):
    class Driver:
        def cuDriverGetVersion(self, number):  # noqa: N802 - CUDA's name
            number._obj.value = 12060
            return 0

    monkeypatch.setattr("ctypes.CDLL", lambda name: {"libcuda.so.1": Driver()}[name])
    assert cuda_driver() == "12.6"


def test_machine_without_a_driver_has_no_cuda(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", absent)
    assert cuda_driver() == ""


def test_device_nodes_are_those_of_gpus(tmp_path):
    names = ["nvidia0", "nvidia12", "nvidiactl", "nvidia-uvm", "nvhost-gpu", "nvhost-vic", "nvmap", "null"]
    root = plant(tmp_path, {f"dev/{name}": "" for name in [*names, "nvgpu/igpu0/ctrl", "nvhost-ctrl-gpu"]})
    found = [path.relative_to(root / "dev").as_posix() for path in device_nodes(root)]
    assert found == ["nvgpu/igpu0/ctrl", "nvhost-ctrl-gpu", "nvhost-gpu", "nvidia0", "nvidia12"]


def test_gpu_clients_are_named_and_this_process_and_idle_holders_left_out(tmp_path):
    root = plant(tmp_path, WORKSTATION)
    run_program(root, 41, "python3", "/dev/null", "/dev/nvidia0")
    run_program(root, 42, "bash", "/dev/null", "/dev/nvidiactl")
    run_program(root, 43, "nvidia-persiste", "/dev/nvidia0")
    run_program(root, os.getpid(), "pytest", "/dev/nvidia0")
    assert gpu_clients(root) == {41: "python3"}


def test_gpu_clients_of_a_jetson_hold_its_own_nodes(tmp_path):
    root = plant(tmp_path, ORIN_NANO)
    run_program(root, 7, "Xorg", "/dev/nvgpu/igpu0/ctrl")
    run_program(root, 8, "camera", "/dev/nvmap")
    assert gpu_clients(root) == {7: "Xorg"}


def test_machine_without_a_gpu_has_no_clients_of_it(tmp_path):
    run_program(tmp_path, 41, "python3", "/dev/nvidia0")
    assert gpu_clients(tmp_path) == {}
