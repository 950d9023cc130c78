"""What a result was made with, for the record."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


def commit_of(folder: Path) -> str:
    """Of the repository that a folder lies in, with -dirty where its files differ; empty where there is none."""
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
