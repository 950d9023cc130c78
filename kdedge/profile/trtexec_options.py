"""Which trtexec there is, and the options that make each version do the same.

Defaults changed with TensorRT 11 (copies off, spinning and CUDA graph on), so every switch is given; an option that a
version does not know is fatal to it, so only those that its help lists are.
Part of the device closure: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.core.errors import KdedgeError, MissingTool
from kdedge.profile.trtexec_log import Version, read_version

if TYPE_CHECKING:
    Shapes = Mapping[str, tuple[int, ...]]

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
INSTALL = "sudo apt install libnvinfer-bin   (on a Jetson: sudo apt install nvidia-jetpack)"
OLDEST = (8, 5)
HELP_LIMIT = 120.0  # seconds: the first start of a board reads hundreds of megabytes
OPTION = re.compile(r"--\w+")
SWITCHES = {"gpu_fallback": "--allowGPUFallback", "refit": "--refit", "version_compatible": "--versionCompatible"}
COMPATIBILITY = {"ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}


@dataclass(frozen=True)
class Program:
    path: str
    version: Version
    options: frozenset[str]
    """What its help lists."""

    def either(self, *names: str) -> str:
        """The first of an option's names that this version has.

        Raises:
            MissingTool: it has none of them.
        """
        found = next((name for name in names if name in self.options), None)
        if found is None:
            raise MissingTool(f"trtexec {self.version} has no option {names[0]}", f"its help is that of {self.path}")
        return found

    def command(self, options: list[str]) -> list[str]:
        for option in options:
            self.either(option.partition("=")[0])
        return [self.path, *options]


def locate(given: str = "") -> str:
    """The program at `given`, on the PATH, or where TensorRT's packages put it; empty where there is none."""
    places = [given] if given else ["trtexec", *PLACES]
    return next((found for found in map(shutil.which, places) if found), "")


def find_trtexec(given: str = "") -> Program:
    """The program at `given`, on the PATH, or where TensorRT's packages put it.

    Raises:
        MissingTool: there is none, it does not start, or it is older than 8.5.
    """
    path = locate(given)
    if not path:
        looked = given or "the PATH and {}".format(", ".join(PLACES))
        raise MissingTool("trtexec is not installed", f"looked for it at {looked}", INSTALL)
    try:
        done = subprocess.run(
            [path, "--help"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=HELP_LIMIT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingTool(f"{path} does not start", str(error), INSTALL) from None
    text = done.stdout.decode("utf-8", "replace")
    version = read_version(text)
    if version is None:
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise MissingTool(f"{path} does not say its version", f"it says: {last[:200]}", INSTALL)
    if version[:2] < OLDEST:
        raise MissingTool(
            f"{path} is of TensorRT {version}", "kdedge needs 8.5 or newer", "JetPack 5.1 or newer has it"
        )
    help_lines = (line for line in text.splitlines() if not line.startswith("&&&&"))
    return Program(path, version, frozenset(name for line in help_lines for name in OPTION.findall(line)))


@dataclass(frozen=True)
class Build:
    types: tuple[str, ...] = ()
    """fp16, int8, ...: for versions that do not take them from the ONNX file."""
    workspace_mib: int = 1024
    tf32: bool = False
    shapes: tuple[Shapes, Shapes, Shapes] | None = None
    """Least, usual and most, of inputs with open axes."""
    weak: bool = False
    """Types are TensorRT's own choice among `types`, whatever those of the file."""
    dla_core: int | None = None
    gpu_fallback: bool = False
    refit: bool = False
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    optimization_level: int | None = None
    timing_cache: Path | None = None


def build_command(program: Program, onnx: Path, engine: Path, layers: Path, build: Build) -> list[str]:
    options = [
        f"--onnx={onnx}",
        f"--saveEngine={engine}",
        f"--exportLayerInfo={layers}",
        program.either("--skipInference", "--buildOnly"),
        f"--memPoolSize=workspace:{build.workspace_mib}",
        "--profilingVerbosity=detailed",
        *_types(program, build),
    ]
    if not build.tf32:
        options.append("--noTF32")
    if build.shapes is not None:
        least, usual, most = map(_spec, build.shapes)
        options += [f"--minShapes={least}", f"--optShapes={usual}", f"--maxShapes={most}"]
    if build.dla_core is not None:
        options.append(f"--useDLACore={build.dla_core}")
    if build.optimization_level is not None:
        options.append(f"--builderOptimizationLevel={build.optimization_level}")
    if build.hardware_compatibility != "none":
        options.append(f"--hardwareCompatibilityLevel={COMPATIBILITY[build.hardware_compatibility]}")
    if build.timing_cache is not None:
        options.append(f"--timingCacheFile={build.timing_cache}")
    options += [option for name, option in SWITCHES.items() if getattr(build, name)]
    return program.command(options)


def _types(program: Program, build: Build) -> list[str]:
    """Types are the ONNX file's where TensorRT can be told so; the accelerator takes them from the flags up to 10."""
    if program.version.major >= 11:
        return []
    if "--stronglyTyped" in program.options and build.dla_core is None and not build.weak:
        return ["--stronglyTyped"]
    return [f"--{name}" for name in build.types if name != "fp32"]


@dataclass(frozen=True)
class Switches:
    """How queries are run; `device` and `end_to_end` are the two that kdedge reports."""

    transfers: bool
    spin: bool
    graph: bool
    one_at_a_time: bool
    """One query in flight; else trtexec copies for the next one while it computes."""


DEVICE = Switches(transfers=False, spin=True, graph=True, one_at_a_time=False)
END_TO_END = Switches(transfers=True, spin=False, graph=False, one_at_a_time=True)
PROFILE = Switches(transfers=False, spin=False, graph=False, one_at_a_time=False)  # layers in a graph have no times


@dataclass(frozen=True)
class Load:
    """What is run, and for how long."""

    switches: Switches = DEVICE
    shapes: Shapes = field(default_factory=dict)
    """Of inputs with open axes."""
    seconds: int = 10
    queries: int = 10
    """At least, however long they take."""
    warmup_ms: int = 200
    streams: int = 1
    dla_core: int | None = None
    version_compatible: bool = False

    def settled(self) -> Load:
        """Without a CUDA graph on the accelerator, which cannot be captured in one."""
        return self if self.dla_core is None else replace(self, switches=replace(self.switches, graph=False))


def time_command(program: Program, engine: Path, times: Path, load: Load) -> list[str]:
    return program.command([*_load_options(program, engine, load), f"--exportTimes={times}"])


def answer_command(program: Program, engine: Path, inputs: Mapping[str, Path], outputs: Path, load: Load) -> list[str]:
    files = ",".join(f"{_quoted(name)}:{path}" for name, path in inputs.items())
    return program.command(
        [*_load_options(program, engine, load), f"--loadInputs={files}", f"--exportOutput={outputs}"]
    )


def profile_command(program: Program, engine: Path, times: Path, layers: Path, load: Load) -> list[str]:
    exports = [f"--exportProfile={times}", f"--exportLayerInfo={layers}"]
    return program.command([*_load_options(program, engine, load), "--dumpProfile", *exports])


def _load_options(program: Program, engine: Path, load: Load) -> list[str]:
    options = [
        f"--loadEngine={engine}",
        f"--duration={load.seconds}",
        f"--iterations={load.queries}",
        f"--warmUp={load.warmup_ms}",
        "{}={}".format(program.either("--infStreams", "--streams"), load.streams),
        "--sleepTime=0",
        "--idleTime=0",
        "--avgRuns=10",
        "--percentile=50,90,95,99",
        *switch_options(program.version, load.switches),
    ]
    if load.shapes:
        options.append(f"--shapes={_spec(load.shapes)}")
    if load.dla_core is not None:
        options.append(f"--useDLACore={load.dla_core}")
    if load.version_compatible:
        options.append(SWITCHES["version_compatible"])
    return options


def switch_options(version: Version, switches: Switches) -> list[str]:
    if version.major >= 11:
        chosen = [
            ("--includeDataTransfers", switches.transfers),
            ("--noSpinWait", not switches.spin),
            ("--noCudaGraph", not switches.graph),
        ]
    else:
        chosen = [
            ("--noDataTransfers", not switches.transfers),
            ("--useSpinWait", switches.spin),
            ("--useCudaGraph", switches.graph),
        ]
    return [name for name, given in [*chosen, ("--exposeDMA", switches.one_at_a_time)] if given]


def _spec(shapes: Shapes) -> str:
    texts = {name: "x".join(map(str, shape)) or "scalar" for name, shape in shapes.items()}
    return ",".join(f"{_quoted(name)}:{text}" for name, text in texts.items())


def _quoted(name: str) -> str:
    """Names with a colon stand in quotes, which are trtexec's own.

    Raises:
        KdedgeError: a name that trtexec has no way to write.
    """
    if re.search("['\",*]", name):
        raise KdedgeError(f"input {name}", "trtexec takes no name with a quote, comma or star in it")
    return f"'{name}'" if ":" in name else name
