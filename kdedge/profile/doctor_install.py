"""The line that installs a package for the Python that runs this, on the machine that it runs on.

Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

VENV = "~/kdedge-venv"
EXTERNALLY_MANAGED = "EXTERNALLY-MANAGED"
"""The file by which a distribution keeps pip from changing its Python: PEP 668."""


def apt_install(package: str) -> str:
    return f"sudo apt-get install {package}"


def pip_install(package: str) -> str:
    line = f"{python_name()} -m pip install {package}"
    if is_system_python() and (Path(sysconfig.get_path("stdlib")) / EXTERNALLY_MANAGED).exists():
        return f"{apt_install('python3-venv')}; {with_system_packages('python3', f'{VENV}/bin/pip install {package}')}"
    if find_spec("pip") is not None:
        return line
    pip = apt_install("python3-pip") if is_system_python() else f"{python_name()} -m ensurepip"
    return f"{pip}; {line}"


def with_system_packages(python: str, *then: str) -> str:
    """Make a virtual environment that sees what apt has installed, and tell a target to use it."""
    lines = "; ".join([f"{python} -m venv --system-site-packages {VENV}", *then])
    return f"{lines}   (then ?python={VENV}/bin/python)"


def is_system_python() -> bool:
    """Whether this is the Python of Debian's or Ubuntu's packages, and no virtual environment."""
    return sys.prefix == sys.base_prefix == "/usr" and shutil.which("apt-get") is not None


def python_name() -> str:
    return "python3" if is_system_python() else sys.executable
