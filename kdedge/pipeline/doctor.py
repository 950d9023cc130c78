"""What this machine has and lacks, each with the line that brings it."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from kdedge.core import console
from kdedge.core.rundir import cache_folder
from kdedge.engine.base import backend
from kdedge.profile.board import fingerprint

NEEDS = {
    "onnxruntime": ("engines, profile", ""),
    "onnx": ("export", ""),
    "torch": ("distill, export", "train"),
    "torchvision": ("data sets, models", "train"),
    "lightning_fabric": ("distill", "train"),
    "safetensors": ("distill", "train"),
    "onnxscript": ("export", "train"),
    "onnxsim": ("export", "train"),
    "sklearn": ("the digits data set", "train"),
    "tensorboard": ("training logs", "train"),
    "tensorrt": ("TensorRT engines", "tensorrt"),
    "pycuda": ("running TensorRT engines", "tensorrt"),
}


def run() -> None:
    """Show packages, processor and accelerator of this machine."""
    table = [package_row(package, *need) for package, need in NEEDS.items()]
    console.show_table("packages", ("package", "version", "for", "to get it"), table)
    device = fingerprint(backend("ort").versions())
    facts = {**device["match"], **device["note"], "accelerator": accelerator(), "cache": str(cache_folder())}
    console.show_table("this machine", ("fact", "value"), [[key, shown(key, value)] for key, value in facts.items()])
    console.emit({"packages": table, "machine": facts})


def shown(key: str, value: object) -> str:
    """A fact as a person reads it."""
    if isinstance(value, int) and key.startswith(("memory", "swap")):
        return console.size(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)


def package_row(package: str, used_for: str, extra: str) -> list[str]:
    if find_spec(package):
        name = {"lightning_fabric": "lightning-fabric", "sklearn": "scikit-learn"}.get(package, package)
        return [package, version_of(package, name), used_for, ""]
    return [package, "missing", used_for, f'pip install "kdedge[{extra}]"' if extra else "pip install kdedge"]


def version_of(package: str, name: str) -> str:
    """As pip knows it, else as the package says: a board's own TensorRT was not installed by pip."""
    try:
        return version(name)
    except PackageNotFoundError:
        return str(getattr(import_module(package), "__version__", "unknown"))


def accelerator() -> str:
    if not find_spec("torch"):
        return "unknown without torch"
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name(0)} x {torch.cuda.device_count()}"
    return "mps" if torch.backends.mps.is_available() else "none: trains on the CPU"
