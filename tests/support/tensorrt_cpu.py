"""Put a `tensorrt` package together that parses and builds on a machine without a GPU.

    python tests/support/tensorrt_cpu.py FOLDER
    export KDEDGE_TENSORRT=FOLDER

NVIDIA's own Python bindings of TensorRT 11, over the libraries of TensorRT-RTX that a provider of ONNX Runtime ships:
two public wheels, 150 MB, and tensorrt_cpu.c between them.  The parser, its errors, the network, optimization profiles
and the builder are real.  An engine is not run, nor opened; there are no plugins, accelerators (DLA) or weak types.
Wants gcc and pip, on Linux x86-64 with Python 3.10 to 3.13.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path, PurePath
from zipfile import ZipFile

WHEELS = ("tensorrt-cu13-bindings==11.4.0.106", "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0")
SOURCE = Path(__file__).with_suffix(".c")
BINDINGS, LIBRARIES = "tensorrt_bindings", "tensorrt_libs"
NAMES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
"""What the bindings ask for."""
BUILDER, PARSER = "libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"
"""What the names of RTX's libraries begin with; a version follows."""
LOAD = f"""\
import ctypes
from pathlib import Path

for name in {NAMES!r}:
    ctypes.CDLL(str(Path(__file__).with_name(name)), mode=ctypes.RTLD_GLOBAL)
"""
PACKAGE = f"from {BINDINGS} import *\nfrom {BINDINGS} import __version__\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="to be put on PYTHONPATH")
    folder = parser.parse_args().folder
    libraries = folder / LIBRARIES
    libraries.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*pip, "--dest", downloads, *WHEELS], check=True)
        for wheel in Path(downloads).glob("*.whl"):
            unpack(wheel, folder)
    for name in NAMES:
        compile_as(name, libraries)
    write(libraries / "__init__.py", LOAD)
    write(folder / "tensorrt/__init__.py", PACKAGE)


def unpack(wheel: Path, folder: Path) -> None:
    """The bindings as they are, and RTX's two libraries."""
    with ZipFile(wheel) as archive:
        for entry in archive.namelist():
            name = PurePath(entry).name
            if entry.startswith(f"{BINDINGS}/"):
                archive.extract(entry, folder)
            elif name.startswith((BUILDER, PARSER)):
                (folder / LIBRARIES / name).write_bytes(archive.read(entry))


def compile_as(name: str, folder: Path) -> None:
    found = {macro: next(folder.glob(f"{start}*")) for macro, start in (("BUILDER", BUILDER), ("PARSER", PARSER))}
    defined = [f'-D{macro}="{path.name}"' for macro, path in found.items()]
    linked = [f"-Wl,-soname,{name}", "-Wl,-rpath,$ORIGIN", "-ldl"]
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", *defined, "-o", folder / name, SOURCE, *linked], check=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
