"""What is pushed to a board: it must run under Python 3.8 with numpy and an inference library, and nothing else."""

import ast
import json
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import kdedge

PACKAGE = Path(kdedge.__file__).parent
CLOSURE = sorted(
    [
        *PACKAGE.glob("engine/*.py"),
        *(PACKAGE / f"profile/{name}.py" for name in ("__init__", "agent", "meter", "board")),
        *(PACKAGE / f"{name}.py" for name in ("__init__", "core/__init__", "core/errors")),
    ]
)
INSIDE_FUNCTIONS = {"onnx", "onnxruntime"}


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(tree):
    """(module, whether it is imported inside a function) of each import statement."""
    inside = {
        id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module, id(node) in inside


@pytest.mark.parametrize("path", CLOSURE, ids=module_name)
def test_closure_imports_only_itself_numpy_and_the_standard_library(path):
    members = {module_name(member) for member in CLOSURE}
    for name, inside in imports(ast.parse(path.read_text())):
        top = name.split(".")[0]
        if top == "kdedge":
            assert name in members
        elif top in INSIDE_FUNCTIONS:
            assert inside, f"{top} must be imported where it is used: a board may not have it"
        else:
            assert top == "numpy" or top in sys.stdlib_module_names


def test_closure_is_python_3_8():
    vermin = shutil.which("vermin", path=str(Path(sys.executable).parent)) or shutil.which("vermin")
    assert vermin, "pip install vermin"
    done = subprocess.run([vermin, "-t=3.8-", "--no-tips", *map(str, CLOSURE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["__init__", "core/__init__", "engine/__init__", "profile/__init__"])
def test_packages_of_the_closure_are_empty(name):
    assert (PACKAGE / f"{name}.py").read_text() == ""


@pytest.fixture
def archive(tmp_path):
    for path in CLOSURE:
        copy = tmp_path / "closure" / path.relative_to(PACKAGE.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    zipapp.create_archive(tmp_path / "closure", tmp_path / "agent.pyz", main="kdedge.profile.agent:main")
    shutil.rmtree(tmp_path / "closure")
    return tmp_path / "agent.pyz"


def test_archive_runs_the_agent_without_kdedge_installed(archive, tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "neg", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "neg.onnx"
    )
    np.savez(tmp_path / "in.npz", x=np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32))
    request = {"mode": "predict", "backend": "ort", "model": "neg.onnx", "arrays": "in.npz", "outputs": "out.npz"}
    # -I: neither the current folder nor PYTHONPATH; -S would hide numpy as well
    command = [sys.executable, "-I", archive.name]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert json.loads(done.stdout) == {"rows": 3, "outputs": ["y"]}, done.stderr
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["y"].tolist() == [[-1, -2], [-3, -4], [-5, -6]]


def test_archive_is_where_its_modules_come_from(archive, tmp_path):
    program = "import sys; sys.path.insert(0, 'agent.pyz'); import kdedge.engine.ort as ort; print(ort.__file__)"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().endswith("agent.pyz/kdedge/engine/ort.py"), done.stderr
