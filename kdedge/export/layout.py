"""Which int8 layout ONNX Runtime computes fast, and right, on a kind of CPU.

On x86 its integer kernels take unsigned activations; of a residual network in a signed layout it leaves every other
convolution in float, between quantizers that cost time (`python benchmarks/layouts.py`: 2 to 5 times the time of the
unsigned one).  Without VNNI these kernels add pairs of products in 16 bits, which saturate unless weights have 7 bits
(ONNX Runtime's documentation, "Quantize ONNX models", data type selection).  On Arm signed activations need no
conversion (microsoft/onnxruntime pull request 9902).
"""

import platform

from kdedge.core.deployment import Cpu, Quantization
from kdedge.core.precision import Layout
from kdedge.engine.machine import instruction_sets

VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}
ARM = ("arm", "aarch64")
LAYOUTS = {
    "x86": Layout(
        cpu="x86",
        activations="uint8",
        symmetric=False,
        reduce_range=True,
        why="x86 without VNNI, whose 16-bit sums saturate with weights of 8",
    ),
    "x86_vnni": Layout(
        cpu="x86_vnni",
        activations="uint8",
        symmetric=False,
        reduce_range=False,
        why="x86 with VNNI, which multiplies unsigned by signed and adds in 32 bits",
    ),
    "arm": Layout(
        cpu="arm", activations="int8", symmetric=False, reduce_range=False, why="Arm, which multiplies signed by signed"
    ),
}


def kind_of_cpu(arch: str, extensions: str) -> Cpu:
    """Args:
    arch: as `platform.machine` calls it; one that is neither counts as x86, whose layout is right everywhere.
    extensions: as `instruction_sets` gives them.
    """
    if arch.lower().startswith(ARM):
        return "arm"
    return "x86_vnni" if VNNI & set(extensions.split()) else "x86"


def host() -> Cpu:
    """This machine's kind of CPU."""
    return kind_of_cpu(platform.machine(), instruction_sets())


def choose_layout(how: Quantization) -> Layout:
    """As the recipe says; what it leaves to `auto`, as ONNX Runtime wants it on the CPU that the file is for."""
    if how.activations == "auto":
        found = LAYOUTS[host() if how.cpu == "host" else how.cpu]
    else:
        why = "as export.quantization says"
        found = Layout(cpu="", activations=how.activations, symmetric=False, reduce_range=False, why=why)
    given = {name: getattr(how, name) for name in ("symmetric", "reduce_range") if getattr(how, name) is not None}
    return found.model_copy(update=given)
