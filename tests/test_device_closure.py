"""What is pushed to a board: it must run under Python 3.8 with numpy and an inference library, and nothing else."""

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import kdedge
from kdedge.profile import closure
from kdedge.profile.closure import agent_zip, closure_files

PACKAGE = Path(kdedge.__file__).parent
CLOSURE = closure_files()
INSIDE_FUNCTIONS = {"onnx", "onnxruntime"}


def test_closure_holds_what_says_so_and_the_packages_around_it(tmp_path, monkeypatch):
    for name in ("__init__", "core/__init__", "core/errors", "core/load", "profile/__init__", "profile/agent"):
        path = tmp_path / f"kdedge/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Part of the device closure."""\n' if name in ("core/errors", "profile/agent") else "")
    (tmp_path / "kdedge/core/load.py").write_text("# Part of the device closure, but for once not in the docstring\n")
    monkeypatch.setattr(closure, "PACKAGE", tmp_path / "kdedge")
    found = [path.relative_to(tmp_path / "kdedge").as_posix() for path in closure_files()]
    assert found == ["__init__.py", "core/__init__.py", "core/errors.py", "profile/__init__.py", "profile/agent.py"]


def test_closure_holds_every_backend_and_all_that_is_sent():
    names = {module_name(path) for path in CLOSURE}
    backends = {module_name(path) for path in (PACKAGE / "engine").glob("*.py")}
    assert backends < names
    assert {"kdedge.profile.agent", "kdedge.profile.bootstrap", "kdedge.profile.supervisor"} < names


def test_archive_is_the_same_bytes_each_time(archive):
    first = archive.read_bytes()
    agent_zip.cache_clear()
    assert agent_zip() == first
    with zipfile.ZipFile(archive) as opened:
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}


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
    (tmp_path / "agent.pyz").write_bytes(agent_zip())
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
