"""What a result was made with, for the record."""

import sys
from importlib.metadata import PackageNotFoundError, version

from kdedge.engine.machine import identity

PACKAGES = ("kdedge", "torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy")


def environment() -> dict[str, str]:
    """Versions and processor; no host or user names."""
    found = {"python": sys.version.split()[0], "cpu": identity()["cpu"]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
