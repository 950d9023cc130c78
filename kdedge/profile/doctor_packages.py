"""Which libraries that build and run engines are there, and whether they load.

Each is imported in a process of its own, as one that is broken may take its process along.
Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from kdedge.core.errors import MissingTool
from kdedge.engine.ort import CUDA, TENSORRT
from kdedge.profile.board import DPKG, installed_version, output, tensorrt_build
from kdedge.profile.doctor_machine import Machine
from kdedge.profile.trtexec_options import OLDEST, Program, find_trtexec

MODULES = {"numpy": "numpy", "onnxruntime": "onnxruntime", "tensorrt": "tensorrt", "pycuda": "pycuda.driver"}
"""What is imported of a package: the part that needs more than itself."""
ON_GPU = {"ort_cuda": CUDA, "ort_tensorrt": TENSORRT}
"""Backends by the provider that they need."""
SECONDS = 120.0
"""The first import of a board reads hundreds of megabytes."""
# With this process's path, so that it finds what this process would.
TRY = """\
import sys
name, sys.path[:] = sys.argv[1], sys.argv[2:]
import importlib, json, os
module = importlib.import_module(name)
providers = module.get_available_providers() if name == "onnxruntime" else []
print("\\n" + json.dumps([getattr(module, "__version__", ""), providers]), flush=True)
os._exit(0)  # without what libraries do, say or break when they end
"""


class Package(NamedTuple):
    name: str
    absent: bool = False
    version: str = ""
    trouble: str = ""
    """Why it does not load."""
    providers: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        return not self.absent and not self.trouble


class Libraries(NamedTuple):
    packages: dict[str, Package]
    trtexec: Program | MissingTool
    """The program, or why there is none."""
    tensorrt_package: str
    """Of dpkg, with its build number: "10.3.0.30+cuda12.5"."""
    elsewhere: bool
    """Whether the system's own Python has a TensorRT."""

    @property
    def tensorrt_runs(self) -> bool:
        """From Python."""
        package = self.packages["tensorrt"]
        return package.works and not is_old(package.version) and self.packages["pycuda"].works

    @property
    def trtexec_stands_in(self) -> bool:
        """As it does for packages that are not there, but not for broken ones."""
        absent = self.packages["tensorrt"].absent or self.packages["pycuda"].absent
        return absent and isinstance(self.trtexec, Program)


def find(root: Path) -> Libraries:
    packages = {name: try_package(name) for name in MODULES}
    elsewhere = any(root.glob("usr/lib/python3*/dist-packages/tensorrt/__init__.py"))
    return Libraries(packages, try_trtexec(), tensorrt_build(output(DPKG)), elsewhere)


def try_trtexec() -> Program | MissingTool:
    try:
        return find_trtexec()
    except MissingTool as error:
        return error


def try_package(name: str) -> Package:
    if find_spec(name) is None:
        return Package(name, absent=True)
    known = installed_version(name)
    command = [sys.executable, "-I", "-c", TRY, MODULES[name], *sys.path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Package(name, version=known, trouble=f"not done after {SECONDS:g} s")
    if done.returncode < 0:
        return Package(name, version=known, trouble=signal.Signals(-done.returncode).name)
    if done.returncode:
        return Package(name, version=known, trouble=(done.stderr.strip() or "it said nothing").splitlines()[-1][:200])
    told, providers = json.loads(done.stdout.splitlines()[-1])
    return Package(name, version=str(told) or known, providers=tuple(providers))


def backends(machine: Machine, has: Libraries) -> list[str]:
    """Those that can build engines and measure them here, for which the agent needs numpy."""
    ort = has.packages["onnxruntime"]
    if not has.packages["numpy"].works:
        return []
    found = ["ort"] if ort.works else []
    if machine.gpu:
        found += [name for name, provider in ON_GPU.items() if provider in ort.providers]
        found += ["trt"] if has.tensorrt_runs or has.trtexec_stands_in else []
    return found


def is_old(version: str) -> bool:
    return bool(numbers(version)) and numbers(version)[:2] < OLDEST


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
