"""What a Jetson's own files and tools say of it: release, power mode, clocks, TensorRT package.

Each function takes the text as it is and says nothing (None, "", an empty dict) where the text does not say it.
Serial numbers are never picked up.  Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from kdedge.profile.sysfs import HERTZ, KILOHERTZ

JETPACK = {
    "39.2.1": "7.2.1",
    "39.2.0": "7.2",
    "39.0.0": "7.2 EA",
    "38.4.0": "7.1",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "36.5.2": "6.2.3",
    "36.5.0": "6.2.2",
    "36.4.7": "6.2.1",
    "36.4.4": "6.2.1",
    "36.4.3": "6.2",
    "36.4.2": "6.1",
    "36.4.0": "6.1",
    "36.3.0": "6.0",
    "35.6.4": "5.1.6",
    "35.6.3": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.1": "5.1.5",
    "35.6.0": "5.1.4",
    "35.5.0": "5.1.3",
    "35.4.1": "5.1.2",
    "35.3.1": "5.1.1",
    "35.2.1": "5.1",
    "35.1.0": "5.0.2",
    "32.7.1": "4.6.1",
}
FROM_JETPACK = {"tensorrt": "python3-libnvinfer"}
"""Python packages that a Jetson has from apt; those of the same name on PyPI are for other machines."""
LINES = re.MULTILINE | re.ASCII
RELEASE = re.compile(r"^# R(\d{1,3}) \(release\), REVISION: (\d{1,3}(?:\.\d{1,3}){1,2})(?=,|$)", LINES)
BRANCH = re.compile(r"^# branch R(\d{1,3}(?:\.\d{1,3}){2})$", LINES)
MODE = re.compile(r"^(?:NVPM VERB: Current mode: )?NV Power Mode: *(\S+) *\n(\d{1,4})$", LINES)
HEADER = re.compile(r"< *POWER_MODEL((?: +(?:ID=\d{1,4}|NAME=[^\s>]+)){2}) *>", re.ASCII)
CLOCK_LINE = re.compile(r"^(\w+):? +(?=.*\bM(?:in|ax)Freq=)(.*)$", LINES)
VERSION = r"(\d{1,4}(?:\.\d{1,4}){2,3})-\d{1,3}\+cuda(\d{1,3}\.\d{1,3})(?!\S)"
PACKAGE = re.compile(r"^(?:[hi]i[ \t]+)?(?:([a-z][a-z0-9.+-]*)(?::\w+)?[ \t]+)?" + VERSION, LINES)


class PowerMode(NamedTuple):
    name: str
    """Numbers of modes differ by module; names do not."""
    number: int


class Clock(NamedTuple):
    """Of one unit, in MHz; None where the line does not say."""

    online: bool
    governor: str
    lowest: float | None
    highest: float | None
    now: float | None


class Package(NamedTuple):
    name: str
    """Empty where only a version was given."""
    version: str
    """With the build number where the package has one: 10.3.0.30."""
    cuda: str
    """What it was built for, which may not be what is installed."""


def l4t_release(text: str) -> str:
    """The release in /etc/nv_tegra_release, such as 36.4.3."""
    found = RELEASE.search(text)
    if found:
        return f"{found[1]}.{found[2]}"
    branch = BRANCH.search(text)  # vendor images
    return branch[1] if branch else ""


def release_date(text: str) -> str:
    """As printed there: in 24 hours or with AM and PM, on the first comment line or the second."""
    found = re.search(r"\bDATE: ([^\n]*\S)", text)
    return found[1] if found else ""


def jetpack(l4t: str) -> str:
    """The JetPack of an L4T release; of one that is not known, the release itself: "L4T 36.9.9"."""
    return JETPACK.get(l4t, f"L4T {l4t}") if l4t else ""


def power_mode(text: str) -> PowerMode | None:
    """What `nvpmodel -q` says, verbose or not; a fan mode may stand above it."""
    found = MODE.search(text)
    return PowerMode(found[1], int(found[2])) if found else None


def fan_mode(text: str) -> str:
    """What JetPack 4's `nvpmodel -q` says of the fan."""
    found = re.search(r"^NV Fan Mode: *(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def power_modes(text: str) -> dict[PowerMode, dict[str, str]]:
    """The modes of /etc/nvpmodel.conf and the settings of each: {"CPU_ONLINE CORE_0": "1", "GPU MAX_FREQ": ...}."""
    modes: dict[PowerMode, dict[str, str]] = {}
    settings: dict[str, str] = {}
    for line in map(str.strip, text.splitlines()):
        if line.startswith("<"):
            settings = {}
            found = HEADER.match(line)
            fields = dict(word.split("=", 1) for word in found[1].split()) if found else {}
            if fields.keys() == {"ID", "NAME"}:
                modes[PowerMode(fields["NAME"], int(fields["ID"]))] = settings
        elif len(line.split()) == 3 and not line.startswith("#"):
            unit, argument, value = line.split()
            settings[f"{unit} {argument}"] = value
    return modes


def shown_clocks(text: str) -> dict[str, Clock]:
    """The clocks of `jetson_clocks --show` by unit: cpu0, GPU, EMC, DLA0_CORE ..."""
    clocks = {}  # CPUs are in kHz there, all else in Hz
    for name, rest in CLOCK_LINE.findall(text):
        words = dict(re.findall(r"(?<!\S)(\w+)=([\w-]+)(?!\S)", rest, re.ASCII))
        unit = KILOHERTZ if re.fullmatch(r"cpu\d+", name) else HERTZ
        low, high, now = (_mhz(words.get(f"{which}Freq", ""), unit) for which in ("Min", "Max", "Current"))
        clocks[name] = Clock(words.get("Online", "1") == "1", words.get("Governor", ""), low, high, now)
    return clocks


def _mhz(text: str, unit: int) -> float | None:
    return int(text) / unit if re.fullmatch(r"\d{1,11}", text, re.ASCII) else None


def shown_fan(text: str) -> dict[str, int]:
    """The fan's PWM or speed in `jetson_clocks --show`, as the tool calls it: {"hwmon2_pwm1": 55}."""
    found = re.search(r"^fan\b.*$", text, re.MULTILINE | re.IGNORECASE)
    words = re.findall(r"(?<!\S)(\w*(?:pwm\d?|speed))=(\d{1,5})(?!\S)", found[0] if found else "", re.I | re.ASCII)
    return {name: int(value) for name, value in words}


def tensorrt_packages(text: str) -> list[Package]:
    """TensorRT's packages in what `dpkg -l` or `dpkg-query -W` say: installed ones, and versions alone."""
    found = (Package(*fields) for fields in PACKAGE.findall(text))
    return [package for package in found if not package.name or re.search("nvinfer|tensorrt", package.name)]


def tensorrt_package(text: str) -> Package | None:
    """The one that holds the library itself, or else the first: they may differ after a half-done upgrade."""
    packages = tensorrt_packages(text)
    libraries = [package for package in packages if re.fullmatch(r"libnvinfer\d*", package.name)]
    return next(iter(libraries + packages), None)


def cudnn_package(text: str) -> str:
    """The version of the installed libcudnn8, libcudnn9-cuda-12, ... in what `dpkg -l` or `dpkg-query -W` say."""
    found = re.search(r"^[hi]i[ \t]+libcudnn\d+(?:-cuda-\d+)?(?::\w+)?[ \t]+(\d[\d.]*\d)", text, LINES)
    return found[1] if found else ""


def jetson_release(text: str) -> dict[str, Any]:
    """What `jetson_release -v` of jetson-stats says, in its old layout and its new one.

    Keys, those that it has: board, l4t, jetpack, power_mode (a `PowerMode`), cuda, cudnn, tensorrt.
    """
    found: dict[str, Any] = {}
    for name, pattern in {
        "board": r"^ *-? *(?:Model: )?(NVIDIA [^\n]*?)(?: - Jetpack[^\n]*)?$",
        "l4t": r"\bL4T:? (\d{1,3}(?:\.\d{1,3}){2})(?=\]|$)",
        "jetpack": r"\bJetpack:? (\d[\w.]*)",
        "cuda": r"^ *[-*] *CUDA: (\d[\d.]*)$",
        "cudnn": r"^ *[-*] *cuDNN: (\d[\d.]*)$",
        "tensorrt": r"^ *[-*] *TensorRT: (\d[\d.]*)$",
    }.items():
        match = re.search(pattern, text, LINES)
        if match:
            found[name] = match[1]
    for pattern in (
        r"NV Power Mode: (?P<name>\S+) - Type: (?P<number>\d{1,4})$",
        r"^NV Power Mode\[(?P<number>\d{1,4})\]: (?P<name>\S+)$",
    ):
        match = re.search(pattern, text, LINES)
        if match:
            found["power_mode"] = PowerMode(match["name"], int(match["number"]))
    return found
