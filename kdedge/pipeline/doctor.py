"""What a machine has and lacks, each with the line that brings it: this one, or one reached over SSH."""

import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from kdedge.core import console
from kdedge.core.errors import KdedgeError, MissingTool
from kdedge.core.rundir import cache_folder
from kdedge.profile.address import SCHEME
from kdedge.profile.doctor_packages import MODULES
from kdedge.profile.finding import FIX, OK, Finding
from kdedge.profile.ssh import SshTarget
from kdedge.profile.targets import Target, parse_target

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
    "faster_coco_eval": ("average precision", "train"),
    "tensorboard": ("training logs", "train"),
    "tensorrt": ("TensorRT engines", "tensorrt"),
    "pycuda": ("running TensorRT engines", "tensorrt"),
}


def run(target: str = "local") -> None:
    """Show what there is, and what is missing with its line.

    Raises:
        MissingTool: nothing can be built and measured there.
        KdedgeError: no such target, or one that cannot be reached.
    """
    place = open_target(target)
    with place:
        reply = place.run({"mode": "doctor", "now": time.time()})
    findings = [Finding(**line) for line in reply["findings"]]
    result = {**reply, "machine": {**reply["machine"]["match"], **reply["machine"]["note"]}}
    title, login = "this machine", ""
    if isinstance(place, SshTarget):
        title, login = target, place.address.ssh
    else:
        result |= look_here(findings, result["machine"])
    console.show_table(title, ("", "what", "found"), [row(line) for line in findings])
    show_lines(findings, login)
    console.emit(result)
    if not reply["backends"]:
        raise nothing_works(title, login, findings)
    console.show_text(f"builds and measures with: {', '.join(reply['backends'])}")


def open_target(text: str) -> Target:
    try:
        return parse_target(text)
    except KdedgeError as error:
        raise KdedgeError(f"target {text}", error.why, f"kdedge doctor {SCHEME}user@host") from None


def look_here(findings: list[Finding], machine: dict[str, Any]) -> dict[str, Any]:
    """What only the machine that trains and exports needs; shows its packages."""
    packages = [package_row(package, *need) for package, need in NEEDS.items()]
    console.show_table("packages", ("package", "version", "for", "to get it"), packages)
    here = {"accelerator": accelerator(), "cache": str(cache_folder())}
    findings += [Finding(topic, OK, found) for topic, found in here.items()]
    return {"packages": packages, "machine": {**machine, **here}}


def row(line: Finding) -> list[str]:
    return [line.state, line.topic, f"{line.found}: {line.why}" if line.why else line.found]


def show_lines(findings: list[Finding], login: str) -> None:
    """What to type for that which is not as it should be; outside of the table, so that it can be copied."""
    lines = [f"  {line.topic:12} {line.fix}" for line in findings if line.fix]
    if lines:
        console.show_text("\n".join([f"\nto type there, after {login}" if login else "\nto type", *lines, ""]))


def nothing_works(title: str, login: str, findings: list[Finding]) -> MissingTool:
    fix = next((line.fix for line in findings if line.state == FIX and line.topic in MODULES), "")
    what = f"{title} can neither build engines nor measure them"
    return MissingTool(what, "it has no inference library that works", f"{login}   and there: {fix}" if login else fix)


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
