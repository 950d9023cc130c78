"""A gate or a profile must not wait for torch: not imported where it is installed, not asked for where it is not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from telling import RUN_AND_TELL

HEAVY = {"torch", "torchvision", "lightning_fabric", "torchmetrics", "timm", "sklearn"}
PROFILE = "profile model.onnx --processes 1 --seconds 0.05"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing but an ONNX model that kdedge did not make."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help", 0),
        ("gate --help", 0),
        ("gate", 2),  # there is no run, which is found out without torch
        ("report", 2),
        ("ls", 0),
        ("profile", 2),
        (PROFILE, 0),
    ],
)
def test_command_leaves_torch_alone(line: str, code: int, folder: Path) -> None:
    result = run([sys.executable, "-c", RUN_AND_TELL, *line.split()], folder)
    said, _, modules = result.stderr.rpartition("\n")
    assert result.returncode == code, said
    assert HEAVY & set(json.loads(modules)) == set()


@pytest.mark.parametrize("module", ["onnx", "onnxruntime", "matplotlib", "numpy", "pydantic", "yaml"])
def test_help_leaves_what_it_does_not_need_alone(module: str, folder: Path) -> None:
    result = run([sys.executable, "-c", RUN_AND_TELL, "--help"], folder)
    assert module not in json.loads(result.stderr.rpartition("\n")[2])


@pytest.fixture
def bare(needs: Callable[[object, str], None]) -> str:
    """The command of kdedge's wheel, installed without any extra."""
    python = os.environ.get("KDEDGE_BARE_PYTHON", "")
    needs(python, "set KDEDGE_BARE_PYTHON to the Python of a virtual environment with kdedge's wheel, as .ci/run does")
    return str(Path(python).with_name("kdedge"))


@pytest.mark.parametrize(
    ("line", "shows"),
    [
        ("--help", "distill"),
        ("ls", "quickstart"),
        ("gate --help", "--baseline"),
        ("report --help", "HTML"),
        ("doctor", 'pip install "kdedge[train]"'),
        (PROFILE, "model"),
    ],
)
def test_command_works_without_the_extras(line: str, shows: str, folder: Path, bare: str) -> None:
    result = run([bare, *line.split()], folder)
    assert result.returncode == 0, result.stderr
    assert shows in result.stdout


@pytest.mark.parametrize(
    "line", ["run quickstart", "distill quickstart", "check quickstart", "methods", "models", "layers resnet8"]
)
def test_training_without_the_extra_names_it(line: str, folder: Path, bare: str) -> None:
    result = run([bare, *line.split()], folder)
    assert result.returncode == 5, result.stderr
    assert 'pip install "kdedge[train]"' in result.stderr
    assert "Traceback" not in result.stderr
