"""Libraries that are missing, broken, old or there twice, and the line that helps each."""

import sys
from pathlib import Path

import pytest
from boards import give_modules
from realtrt import FOLDER, HOW
from tree import Programs, plant

from kdedge.core.errors import MissingTool
from kdedge.profile import doctor_install, doctor_packages
from kdedge.profile.doctor_install import pip_install
from kdedge.profile.doctor_libraries import findings
from kdedge.profile.doctor_machine import Machine
from kdedge.profile.doctor_packages import MODULES, Libraries, Package, backends, find, try_package
from kdedge.profile.trtexec_log import Version
from kdedge.profile.trtexec_options import Program

NO_TRTEXEC = MissingTool("trtexec is not installed", "looked for it", "sudo apt install libnvinfer-bin")
TRTEXEC = Program("/usr/src/tensorrt/bin/trtexec", Version(10, 3, 0, 30), frozenset())
CPU = ("CPUExecutionProvider",)
ORT = {
    "numpy": Package("numpy", version="1.24.4"),
    "onnxruntime": Package("onnxruntime", version="1.18", providers=CPU),
}
TRT = {"tensorrt": Package("tensorrt", version="10.3.0"), "pycuda": Package("pycuda", version="2024.1.2")}
NOTHING = {name: Package(name, absent=True) for name in MODULES}


def machine(jetson=True, gpu="Orin 8.7"):
    return Machine(Path("/"), "", "36.4.3" if jetson else "", jetson, gpu, [], container=False)


def has(trtexec=NO_TRTEXEC, package="", elsewhere=False, **packages):
    return Libraries({**NOTHING, **packages}, trtexec, package, elsewhere)


def found(libraries, jetson=True, gpu="Orin 8.7"):
    return {line.topic: line for line in findings(machine(jetson, gpu), libraries)}


@pytest.mark.parametrize(
    ("libraries", "gpu", "usable"),
    [
        (has(), "Orin 8.7", []),
        (has(**ORT), "", ["ort"]),
        (has(**TRT), "Orin 8.7", []),  # the agent needs numpy
        (has(**ORT, **TRT), "Orin 8.7", ["ort", "trt"]),
        (has(**ORT, **TRT), "", ["ort"]),
        (has(TRTEXEC, numpy=ORT["numpy"]), "Orin 8.7", ["trt"]),
        (has(TRTEXEC, numpy=ORT["numpy"]), "", []),
        (has(numpy=ORT["numpy"], tensorrt=TRT["tensorrt"]), "Orin 8.7", []),
        (has(**{**ORT, **TRT, "tensorrt": Package("tensorrt", version="8.4.1.5")}), "Orin 8.7", ["ort"]),
        (has(TRTEXEC, **ORT, **{**TRT, "pycuda": Package("pycuda", trouble="ImportError")}), "Orin 8.7", ["ort"]),
        (
            has(**{**ORT, "onnxruntime": Package("onnxruntime", providers=("CUDAExecutionProvider", *CPU))}),
            "Orin 8.7",
            ["ort", "ort_cuda"],
        ),
    ],
)
def test_backends_are_those_that_are_complete(libraries, gpu, usable):
    assert backends(machine(gpu=gpu), libraries) == usable


def test_package_is_imported_in_a_process_of_its_own(tmp_path, monkeypatch):
    sources = {
        "tensorrt": "print('a banner'); __version__ = '10.3.0'",
        "pycuda": "__version__ = 'of the package, not its driver'",
        "pycuda__driver": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "onnxruntime": "import ctypes; ctypes.CDLL('libabsent.so.1')",
    }
    monkeypatch.syspath_prepend(str(give_modules(tmp_path, **sources)))
    assert try_package("tensorrt") == Package("tensorrt", version="10.3.0")
    assert try_package("pycuda").trouble == "SIGSEGV"
    broken = try_package("onnxruntime")
    assert broken.trouble.startswith("OSError: libabsent.so.1: cannot open shared object file")
    assert not broken.works
    assert not {"tensorrt", "pycuda"} & set(sys.modules)


def test_real_tensorrt_loads(needs, monkeypatch):
    needs(FOLDER, HOW)
    monkeypatch.syspath_prepend(FOLDER)
    package = try_package("tensorrt")
    assert package.works, package.trouble
    assert int(package.version.split(".")[0]) >= 8


def test_package_whose_import_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_packages, "SECONDS", 0.01)
    monkeypatch.syspath_prepend(str(give_modules(tmp_path, tensorrt="import signal; signal.pause()")))
    assert try_package("tensorrt").trouble == "not done after 0.01 s"


def test_package_that_does_not_load_is_installed_again():
    broken = {"tensorrt": Package("tensorrt", version="10.3.0", trouble="ImportError: libnvinfer.so.10")}
    line = found(has(**{**ORT, **broken}))["tensorrt"]
    assert (line.state, line.found) == ("fix", "10.3.0 does not load (ImportError: libnvinfer.so.10)")
    assert line.fix == "sudo apt-get install --reinstall python3-libnvinfer"
    line = found(has(numpy=Package("numpy", version="2.0", trouble="ImportError")))["numpy"]
    assert line.fix == f"{sys.executable} -m pip install --force-reinstall numpy"


def test_tensorrt_before_8_5_is_too_old():
    line = found(has(**{**TRT, "tensorrt": Package("tensorrt", version="8.2.1.9")}))["tensorrt"]
    assert (line.state, line.found, line.why) == ("fix", "8.2.1.9", "kdedge needs 8.5 or newer")


def test_second_tensorrt_beside_the_systems_is_told():
    pip = {**TRT, "tensorrt": Package("tensorrt", version="10.9.0.34")}
    line = found(has(package="10.3.0.30+cuda12.5", **pip))["tensorrt"]
    assert (line.state, line.found) == ("advice", "10.9.0.34, package 10.3.0.30+cuda12.5")
    assert line.fix == f"{sys.executable} -m pip uninstall tensorrt"
    assert found(has(package="10.3.0.30+cuda12.5", **TRT))["tensorrt"].state == "ok"


def test_tensorrt_that_pip_brought_to_a_jetson_is_the_wrong_one(tmp_path, monkeypatch):
    (tmp_path / "programs").mkdir()
    programs = Programs(tmp_path / "programs", monkeypatch)
    assert found(has(**TRT))["tensorrt"].state == "ok"  # without dpkg there is no telling
    programs.add("dpkg-query")
    line = found(has(**TRT))["tensorrt"]
    assert (line.state, line.found) == ("fix", "10.3.0, not from JetPack")
    assert line.fix == f"{sys.executable} -m pip uninstall tensorrt; sudo apt-get install python3-libnvinfer"
    assert found(has(**TRT), jetson=False)["tensorrt"].state == "ok"


def test_tensorrt_of_another_python_is_told_from_a_missing_one():
    line = found(has(package="10.3.0.30+cuda12.5", elsewhere=True))["tensorrt"]
    assert line.found == "only for the system's Python, which this one is apart from, package 10.3.0.30+cuda12.5"
    assert line.fix.startswith("/usr/bin/python3 -m venv --system-site-packages ~/kdedge-venv ")


def test_tensorrt_of_the_systems_python_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_packages, "try_package", lambda name: Package(name, absent=True))
    monkeypatch.setattr(doctor_packages, "try_trtexec", lambda: NO_TRTEXEC)
    plant(tmp_path, {"usr/lib/python3.10/dist-packages/tensorrt/__init__.py": ""})
    assert find(tmp_path).elsewhere
    assert not find(tmp_path / "nothing").elsewhere


def test_onnxruntime_is_not_asked_for_where_tensorrt_runs():
    assert found(has(numpy=ORT["numpy"], **TRT))["onnxruntime"].state == "-"
    assert found(has(numpy=ORT["numpy"]))["onnxruntime"].state == "fix"


def test_tensorrt_comes_by_apt_on_a_jetson_and_by_pip_elsewhere():
    assert found(has())["tensorrt"].fix == "sudo apt-get install python3-libnvinfer"
    assert found(has(), jetson=False, gpu="RTX 8.9")["tensorrt"].fix == f"{sys.executable} -m pip install tensorrt"


@pytest.fixture
def system_python(tmp_path, monkeypatch):
    """This Python as that of Ubuntu's packages; the folder of its standard library."""
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    (tmp_path / "programs").mkdir()
    Programs(tmp_path / "programs", monkeypatch).add("apt-get")
    monkeypatch.setattr("sysconfig.get_path", {"stdlib": str(tmp_path)}.__getitem__)
    return tmp_path


def test_packages_of_the_systems_python_come_by_apt_where_apt_has_them(system_python):
    assert found(has())["numpy"].fix == "sudo apt-get install python3-numpy"
    assert pip_install("onnxruntime") == "python3 -m pip install onnxruntime"


def test_systems_python_that_pip_must_not_change_gets_a_virtual_environment(system_python):
    (system_python / "EXTERNALLY-MANAGED").touch()
    assert pip_install("onnxruntime") == (
        "sudo apt-get install python3-venv; python3 -m venv --system-site-packages ~/kdedge-venv; "
        "~/kdedge-venv/bin/pip install onnxruntime   (then ?python=~/kdedge-venv/bin/python)"
    )


def test_python_without_pip_gets_it_first(monkeypatch, system_python):
    monkeypatch.setattr(doctor_install, "find_spec", lambda name: None)
    assert pip_install("pycuda") == "sudo apt-get install python3-pip; python3 -m pip install pycuda"
    monkeypatch.setattr(sys, "prefix", "/home/somebody/venv")
    assert pip_install("pycuda").startswith(f"{sys.executable} -m ensurepip; ")
