"""The layout for a CPU, and what it makes of the codes in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from kdedge.core.deployment import Cpu, Export, Quantization
from kdedge.export import layout
from kdedge.export.int8 import to_int8
from kdedge.export.layout import choose_layout, kind_of_cpu
from kdedge.export.onnx import load, read_metadata

Images = NDArray[Any]


@pytest.mark.parametrize(
    ("arch", "extensions", "kind"),
    [
        ("x86_64", "avx avx2 fma", "x86"),
        ("x86_64", "avx2 avx512bw avx512f avx512vl", "x86"),
        ("x86_64", "avx2 avx512_vnni avx512f", "x86_vnni"),
        ("AMD64", "avx2 avx_vnni", "x86_vnni"),
        ("aarch64", "asimd asimddp", "arm"),
        ("arm64", "", "arm"),
        ("armv7l", "neon", "arm"),
        ("riscv64", "", "x86"),
    ],
)
def test_cpu_is_of_the_kind_that_its_instructions_make_it(arch: str, extensions: str, kind: str) -> None:
    assert kind_of_cpu(arch, extensions) == kind


@pytest.mark.parametrize(
    ("cpu", "activations", "reduce_range"),
    [("x86", "uint8", True), ("x86_vnni", "uint8", False), ("arm", "int8", False)],
)
def test_auto_is_what_the_kernels_of_the_cpu_want(cpu: Cpu, activations: str, reduce_range: bool) -> None:
    found = choose_layout(Quantization(activations="auto", cpu=cpu))
    assert (found.cpu, found.activations, found.symmetric, found.reduce_range) == (
        cpu,
        activations,
        False,
        reduce_range,
    )


def test_auto_without_a_cpu_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(layout, "instruction_sets", lambda: "avx2 fma")
    assert choose_layout(Quantization(activations="auto")).told() == [
        "int8 layout: asymmetric uint8 activations, weights of 7 bits; "
        "x86 without VNNI, whose 16-bit sums saturate with weights of 8"
    ]


def test_what_the_recipe_names_wins_over_auto() -> None:
    found = choose_layout(Quantization(activations="auto", cpu="x86", symmetric=True, reduce_range=False))
    assert (found.activations, found.symmetric, found.reduce_range) == ("uint8", True, False)


def test_named_activations_are_taken_as_they_are() -> None:
    found = choose_layout(Quantization(activations="int8", cpu="x86"))
    assert (found.cpu, found.activations, found.symmetric, found.reduce_range) == ("", "int8", False, False)
    assert found.why == "as export.quantization says"


@pytest.mark.parametrize(("cpu", "largest"), [("x86", 64), ("x86_vnni", 127)])
def test_weights_have_the_bits_of_the_layout(
    fp32: Path, images: Images, tmp_path: Path, cpu: Cpu, largest: int
) -> None:
    """Two products of a 7-bit weight and an activation fit into 16 bits: 2 * 64 * 255 = 32640, at most 32767 do."""
    path = tmp_path / "int8.onnx"
    to_int8(fp32, path, images, Export(quantization=Quantization(activations="auto", cpu=cpu)))
    found = [value for value in load(path).graph.initializer if value.name.endswith("weight_quantized")]
    weights = [numpy_helper.to_array(value) for value in found]
    assert {weight.dtype for weight in weights} == {np.dtype(np.int8)}
    for weight in weights:
        assert set(np.abs(weight.astype(int)).reshape(len(weight), -1).max(axis=1)) == {largest}
    assert read_metadata(path)["quantization"]["cpu"] == cpu
