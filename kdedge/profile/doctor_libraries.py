"""What is told of the libraries that build and run engines, with the line that brings what is missing.

Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import platform
import shutil
import sys

from kdedge.engine.ort import CUDA, INSTALL
from kdedge.profile.board import installed_version
from kdedge.profile.doctor_install import apt_install, is_system_python, pip_install, python_name, with_system_packages
from kdedge.profile.doctor_machine import Machine
from kdedge.profile.doctor_packages import Libraries, Package, is_old, numbers
from kdedge.profile.finding import ADVICE, FIX, NONE, OK, Finding
from kdedge.profile.jetson import FROM_JETPACK
from kdedge.profile.trtexec_options import OLDEST, Program

PIP_FROM = 38
"""The L4T release whose boards take TensorRT's package for Arm servers."""
NVCC = "export PATH=/usr/local/cuda/bin:$PATH"


def findings(machine: Machine, has: Libraries) -> list[Finding]:
    return [
        _python(),
        _numpy(has.packages["numpy"]),
        _onnxruntime(has, machine),
        _tensorrt(has, machine),
        _pycuda(has, machine),
        _trtexec(has, machine),
    ]


def _python() -> Finding:
    return Finding("python", OK, f"{platform.python_version()}, {sys.executable}")


def _numpy(package: Package) -> Finding:
    line = apt_install("python3-numpy") if is_system_python() else pip_install("numpy")
    return _plain(package, package.version) or _lacking(package, FIX, "every backend needs it", line)


def _onnxruntime(has: Libraries, machine: Machine) -> Finding:
    package = has.packages["onnxruntime"]
    if not package.works:
        needed = FIX if package.trouble or not has.tensorrt_runs else NONE
        return _lacking(package, needed, "backend ort needs it", pip_install("onnxruntime"))
    providers = ", ".join(name.replace("ExecutionProvider", "") for name in package.providers)
    found = f"{package.version}, providers {providers}"
    if machine.gpu and not machine.jetson and CUDA not in package.providers and not has.tensorrt_runs:
        return Finding("onnxruntime", ADVICE, found, "it leaves the GPU alone", INSTALL)
    return Finding("onnxruntime", OK, found)


def _tensorrt(has: Libraries, machine: Machine) -> Finding:
    package, debian = has.packages["tensorrt"], has.tensorrt_package
    behind = f", package {debian}" if debian else ""
    if not package.works:
        return _no_tensorrt(has, machine, behind)
    if is_old(package.version):
        why = "kdedge needs {}.{} or newer".format(*OLDEST)
        fix = "flash JetPack 5.1 or newer" if machine.jetson else pip_install("--upgrade tensorrt")
        return Finding("tensorrt", FIX, package.version + behind, why, fix)
    if machine.jetson and not debian and shutil.which("dpkg-query") and machine.release < PIP_FROM:
        fix = f"{python_name()} -m pip uninstall tensorrt; {apt_install(FROM_JETPACK['tensorrt'])}"
        return Finding("tensorrt", FIX, f"{package.version}, not from JetPack", "pip's is for other machines", fix)
    if debian and numbers(package.version)[:3] != numbers(debian)[:3]:
        why = "Python loads another one than the system has"
        fix = f"{python_name()} -m pip uninstall tensorrt" if machine.jetson else pip_install("--upgrade tensorrt")
        return Finding("tensorrt", ADVICE, package.version + behind, why, fix)
    known = installed_version("tensorrt")
    exact = f" ({known})" if known not in ("", package.version) else ""
    return Finding("tensorrt", OK, package.version + exact + behind)


def _no_tensorrt(has: Libraries, machine: Machine, behind: str) -> Finding:
    package, needed = has.packages["tensorrt"], _need(has, machine)
    why = "trtexec builds and runs engines instead" if needed == ADVICE else "backend trt needs it"
    line = apt_install(FROM_JETPACK["tensorrt"]) if machine.jetson else pip_install("tensorrt")
    if package.absent and has.elsewhere and needed != NONE and not is_system_python():
        found = f"only for the system's Python, which this one is apart from{behind}"
        return Finding("tensorrt", needed, found, why, with_system_packages("/usr/bin/python3"))
    return _lacking(package, needed, why, line, behind)


def _pycuda(has: Libraries, machine: Machine) -> Finding:
    package = has.packages["pycuda"]
    why = "TensorRT's engines are run by it"
    line = f"{NVCC}; {pip_install('pycuda')}"
    return _plain(package, package.version) or _lacking(package, _need(has, machine), why, line)


def _need(has: Libraries, machine: Machine) -> str:
    """How bad it is that a package of TensorRT's is missing: trtexec can stand in, and without a GPU none is needed."""
    if not machine.accelerated or machine.outdated:
        return NONE
    return ADVICE if has.trtexec_stands_in else FIX


def _trtexec(has: Libraries, machine: Machine) -> Finding:
    if isinstance(has.trtexec, Program):
        return Finding("trtexec", OK, f"{has.trtexec.version}, {has.trtexec.path}")
    found, fix = has.trtexec.what.replace("trtexec is not installed", "not installed"), has.trtexec.fix
    if has.tensorrt_runs or _need(has, machine) == NONE:
        return Finding("trtexec", NONE, found)
    return Finding("trtexec", FIX, found, "it can stand in for TensorRT's Python package and pycuda", fix)


def _plain(package: Package, found: str) -> Finding | None:
    return Finding(package.name, OK, found) if package.works else None


def _lacking(package: Package, needed: str, why: str, line: str, behind: str = "") -> Finding:
    found = "not installed" if package.absent else f"{package.version} does not load ({package.trouble})".lstrip()
    if needed == NONE:
        return Finding(package.name, needed, found + behind)
    if package.trouble:
        line = line.replace("apt-get install", "apt-get install --reinstall")
        line = line.replace("pip install", "pip install --force-reinstall")
    return Finding(package.name, needed, found + behind, why, line)
