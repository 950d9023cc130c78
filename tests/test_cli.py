"""The command line: what a person or a script sees of it."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from forked import Forkserver, Process
from mini import Finished, write_recipe
from onnx import TensorProto, helper

from kdedge.core.load import shipped
from kdedge.core.rundir import RunDir

JSON = [
    ["ls"],
    ["methods"],
    ["methods", "self_distill"],
    ["models"],
    ["layers", "resnet8", "--classes", "10", "--size", "16"],
    ["doctor"],
    ["clean"],
    ["version"],
    ["check", "--schema"],
    ["check", "mini.yaml"],
    ["distill", "mini.yaml"],
    ["export"],
    ["profile", "--processes", "1", "--seconds", "0.01"],
    ["gate"],
    ["gate", "--update", "--baseline", "b.json", "--reason", "a release"],
    ["report"],
    ["run", "mini.yaml"],
    ["profile", "two.onnx", "--processes", "1", "--seconds", "0.01", "--shape", "images=2x3x4x4"],
]


def kdedge(server: Forkserver, folder: Path, *arguments: str) -> tuple[int, Process]:
    return server.run(arguments, folder)


@pytest.fixture(scope="module")
def place(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run that all of these commands work in, and a model that kdedge did not make."""
    folder = tmp_path_factory.mktemp("cli")
    shutil.copytree(finished.folder, folder, dirs_exist_ok=True)
    foreign_model(folder / "two.onnx")
    return folder


def foreign_model(path: Path) -> None:
    """Two inputs, both with axes left open: images (N, 3, H, W) and a bias (3,)."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("Add", ["means", "bias"], ["answer"]),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"]),
        helper.make_tensor_value_info("bias", TensorProto.FLOAT, [3]),
    ]
    outputs = [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 3])]
    axes = onnx.numpy_helper.from_array(np.array([2, 3], np.int64), "axes")
    graph = helper.make_graph(nodes, "two", inputs, outputs, [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.mark.parametrize("arguments", JSON, ids=lambda arguments: " ".join(arguments[:2]))
def test_json_is_all_that_is_on_stdout(forkserver: Forkserver, place: Path, arguments: Sequence[str]) -> None:
    code, process = kdedge(forkserver, place, *arguments, "--json")
    assert code == 0, process.stderr
    assert json.loads(process.stdout)
    assert process.stdout.count("\n") == 1


def answer(server: Forkserver, folder: Path, *arguments: str) -> Any:
    return json.loads(kdedge(server, folder, *arguments, "--json")[1].stdout)


def test_json_is_the_same_whether_or_not_anything_was_done(
    forkserver: Forkserver, finished: Finished, place: Path
) -> None:
    assert answer(forkserver, place, "distill", "mini.yaml") == finished.json("training.json")
    assert answer(forkserver, place, "run", "mini.yaml")["gate"] == "pass"


def test_profile_of_a_foreign_model_takes_its_shapes(forkserver: Forkserver, place: Path) -> None:
    fast = ("--processes", "2", "--seconds", "0.01", "--threads", "1")
    report = answer(forkserver, place, "profile", "two.onnx", "--shape", "images=2x3x4x4", *fast)
    assert report["shapes"] == {"images": [2, 3, 4, 4], "bias": [3]}
    assert (report["batch"], report["latency"]["processes"]) == (2, 2)


def test_profile_says_which_axes_it_was_not_given(forkserver: Forkserver, place: Path) -> None:
    code, process = kdedge(forkserver, place, "profile", "two.onnx")
    assert code == 2
    assert "--shape images=" in process.stderr


def test_profile_of_a_run_whose_name_has_a_dot_is_of_the_run(forkserver: Forkserver, copied: Finished) -> None:
    dotted = copied.run.rename(copied.run.with_name("mini.v2-00000000"))
    code, process = kdedge(
        forkserver, copied.folder, "profile", f"runs/{dotted.name}", "--processes", "1", "--seconds", "0.01"
    )
    assert code == 0, process.stderr
    assert "teacher" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["export", "--trt", "--preset", "tensorrt"], 2, "--trt and --preset: each chooses the export section"),
        (
            ["profile", "--target", "jetson"],
            2,
            "--target jetson: expected local, or a device reached over SSH",
        ),
        (["doctor", "jetson"], 2, "target jetson: expected local, or a device reached over SSH"),
        (["run", "no_such_recipe"], 2, "no recipe 'no_such_recipe': known: "),
        (["run", "jetson_thor"], 2, "it is an export preset\n  kdedge export --preset jetson_thor"),
        (["run", "quickstrat"], 2, "did you mean 'quickstart'?\n  kdedge ls"),
        (["methods", "logit"], 2, "did you mean 'logits'?\n  kdedge methods"),
        (["layers", "resnet9"], 2, "unknown model 'resnet9'"),
        (["check"], 2, "no recipe is given"),
        (["profile", "missing.onnx"], 2, "missing.onnx is not there"),
        (["gate", "runs/none"], 2, "runs/none is not a run: there is no such folder"),
        (["profile", "--batches", ""], 2, "--batches : expected whole numbers from 1 on\n  --batches 1,2,4"),
        (["profile", "--streams", "x"], 2, "--streams x: expected whole numbers from 1 on\n  --streams 1,2,4"),
        (["profile", "--layers", "--batches", ""], 2, "--layers and --batches: each is measured by itself"),
        (["cp", "jetson_orin_nanno"], 2, "did you mean 'jetson_orin_nano'?\n  kdedge ls"),
        (["report"], 2, "nothing has been trained from this folder\n  kdedge run quickstart"),
        (["run", "quickstart", "--set", "seed=x"], 2, 'must be a whole number, not "x"'),
    ],
)
def test_mistake_ends_with_one_message_and_its_code(
    forkserver: Forkserver, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    found, process = kdedge(forkserver, tmp_path, *arguments)
    assert found == code
    assert process.stderr.startswith("error: ")
    assert said in process.stderr
    assert process.stdout == ""
    assert [path for path in tmp_path.iterdir() if path.suffix not in (".stdout", ".stderr")] == []


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["run", "quickstart", "--fast"], ["nothing"], ["run"]])
def test_usage_that_there_is_not_ends_with_2(forkserver: Forkserver, tmp_path: Path, arguments: list[str]) -> None:
    code, process = kdedge(forkserver, tmp_path, *arguments)
    assert code == 2
    assert "Usage: " in process.stderr


def test_bug_keeps_its_traceback(forkserver: Forkserver, tmp_path: Path) -> None:
    setup = """
import kdedge.pipeline.listing
def show_shipped():
    raise ZeroDivisionError("a bug")
kdedge.pipeline.listing.show_shipped = show_shipped
"""
    code, process = forkserver.run(["ls"], tmp_path, setup=setup)
    assert code == 1
    assert "Traceback" in process.stderr
    assert "ZeroDivisionError: a bug" in process.stderr


def test_ls_names_everything_that_ships_with_what_it_is_for(forkserver: Forkserver, tmp_path: Path) -> None:
    _, process = kdedge(forkserver, tmp_path, "ls")
    for name in (*shipped("recipes"), *shipped("export")):
        assert name in process.stdout
    assert "scikit-learn's 8x8 digits" in process.stdout
    lines = [line.split() for line in process.stdout.splitlines() if re.search("│ (quickstart|mkd_ssdlite) ", line)]
    assert {line[1]: line[3] for line in lines} == {"quickstart": "classify", "mkd_ssdlite": "detect"}


def test_cp_copies_what_ships_and_never_overwrites(forkserver: Forkserver, tmp_path: Path) -> None:
    assert kdedge(forkserver, tmp_path, "cp", "quickstart")[0] == 0
    copy = tmp_path / "quickstart.yaml"
    assert copy.read_bytes() == shipped("recipes")["quickstart"].read_bytes()
    copy.write_text("mine")
    code, process = kdedge(forkserver, tmp_path, "cp", "quickstart")
    assert code == 2
    assert "quickstart.yaml exists: it is not overwritten\n  kdedge cp quickstart OTHER.yaml" in process.stderr
    assert copy.read_text() == "mine"
    assert kdedge(forkserver, tmp_path, "cp", "quickstart", "other.yaml")[0] == 0
    assert kdedge(forkserver, tmp_path, "cp", "onnxruntime_cpu")[0] == 0
    assert yaml.safe_load((tmp_path / "onnxruntime_cpu.yaml").read_text())["backend"] == "ort"
    code, process = kdedge(forkserver, tmp_path, "cp", "quickstrt")
    assert (code, "did you mean 'quickstart'?" in process.stderr) == (2, True)


def test_clean_removes_only_when_asked(forkserver: Forkserver, tmp_path: Path) -> None:
    (tmp_path / "runs/a-1").mkdir(parents=True)
    (tmp_path / "runs/a-1/recipe.json").write_bytes(b"x" * 2048)
    (tmp_path / "runs/another-tool").mkdir()
    (tmp_path / "cache/teachers/t-1").mkdir(parents=True)
    (tmp_path / "cache/teachers/t-1/weights").write_bytes(b"x" * 1024)
    (tmp_path / "recipe.yaml").write_text("mine")
    here = f"import os; os.environ['KDEDGE_CACHE'] = {str(tmp_path / 'cache')!r}"

    def clean(*options: str) -> str:
        code, process = forkserver.run(["clean", *options], tmp_path, setup=here)
        assert code == 0
        return process.stdout

    said = clean()
    assert "runs/a-1" in said
    assert "2.0 KiB" in said
    assert "3.0 KiB in all; kdedge clean --yes removes them" in said
    assert (tmp_path / "runs/a-1/recipe.json").exists()
    assert "removed" in clean("--yes")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["another-tool"]
    assert list((tmp_path / "cache/teachers").iterdir()) == []
    assert (tmp_path / "recipe.yaml").exists()


def test_clean_leaves_a_run_that_is_being_worked_in(forkserver: Forkserver, tmp_path: Path) -> None:
    here = f"import os; os.environ['KDEDGE_CACHE'] = {str(tmp_path / 'cache')!r}"
    run = RunDir(tmp_path / "runs/a-1")
    with run.locked():
        (run / "recipe.json").touch()
        code, process = forkserver.run(["clean", "--yes"], tmp_path, setup=here)
        assert code == 2
        assert "is in use" in process.stderr
        assert run.path.is_dir()


def test_check_tries_a_recipe_and_trains_nothing(forkserver: Forkserver, tmp_path: Path) -> None:
    write_recipe(tmp_path)
    code, process = kdedge(forkserver, tmp_path, "check", "mini.yaml", "--set", "teachers.0.name=resnet14")
    assert code == 0, process.stderr
    assert "720 training, 80 validation, 360 test images of 1x8x8, 10 classes" in process.stdout
    for text in ("to be trained", "resnet14", "logits, self_distill", "stage1", "the run would be in runs/mini-"):
        assert text in process.stdout
    assert not (tmp_path / "runs").exists()


def test_check_measures_a_teacher_that_is_there(forkserver: Forkserver, copied: Finished) -> None:
    (copied.folder / "t.safetensors").write_bytes((copied.run / "teacher.safetensors").read_bytes())
    change = "teachers=[{name: resnet8, checkpoint: t.safetensors}]"
    top1 = copied.json("training.json")["teachers"][0]["accuracy"]
    checked = answer(forkserver, copied.folder, "check", "mini.yaml", "--set", change)
    assert checked["teacher_top1"] == top1
    assert checked["networks"]["teacher"]["model"] == "resnet8"


def test_schema_of_recipes_takes_what_ships(forkserver: Forkserver, tmp_path: Path) -> None:
    schema = answer(forkserver, tmp_path, "check", "--schema")
    for path in shipped("recipes").values():
        recipe = yaml.safe_load(path.read_text())
        assert set(recipe) <= set(schema["properties"])
        assert set(schema["required"]) <= set(recipe)


def test_quiet_shows_results_only(forkserver: Forkserver, copied: Finished) -> None:
    code, process = kdedge(forkserver, copied.folder, "run", "mini.yaml", "--quiet")
    assert code == 0
    assert process.stdout.startswith("mini\n")
    assert "unchanged" not in process.stdout


def test_methods_shows_options_and_source(forkserver: Forkserver, tmp_path: Path) -> None:
    _, process = kdedge(forkserver, tmp_path, "methods", "logits")
    assert "arXiv:1503.02531" in process.stdout
    for text in ("temperature", "4.0", "standardize"):
        assert text in process.stdout


def test_preset_for_detectors_is_pasted_without_what_classifiers_learn_labels_by(
    forkserver: Forkserver, tmp_path: Path
) -> None:
    presets = {name: answer(forkserver, tmp_path, "methods", name)["presets"] for name in ("fgd", "logits")}
    assert "cross_entropy" not in presets["fgd"]["retinanet"]
    assert all("cross_entropy" in phase for phase in presets["logits"].values())


def test_methods_says_what_each_is_for(forkserver: Forkserver, tmp_path: Path) -> None:
    assert answer(forkserver, tmp_path, "methods", "pkd")["tasks"] == ["classify", "detect"]
    _, process = kdedge(forkserver, tmp_path, "methods")
    [fgd] = [line for line in process.stdout.splitlines() if "FGD without" in line]
    assert "detect" in fgd
    assert "classify" not in fgd
    _, process = kdedge(forkserver, tmp_path, "methods", "mgd")
    assert "0.15; to detect 0.65" in process.stdout


def test_layers_shows_where_a_network_may_be_tapped(forkserver: Forkserver, tmp_path: Path) -> None:
    rows = answer(forkserver, tmp_path, "layers", "resnet8", "--classes", "10", "--size", "16")
    tapped = {row[-1]: row[0] for row in rows if row[-1]}
    assert sorted(tapped) == ["stage1", "stage2", "stage3"]
    assert ["linear", "Linear", "10", "650", "640", ""] in rows


def test_doctor_says_what_is_here(forkserver: Forkserver, tmp_path: Path) -> None:
    found = answer(forkserver, tmp_path, "doctor")
    versions = {row[0]: row[1] for row in found["packages"]}
    assert versions["onnx"] == onnx.__version__
    assert {name for name, version in versions.items() if version == "missing"} <= {"tensorrt", "pycuda"}
    assert found["machine"]["cpu"]
