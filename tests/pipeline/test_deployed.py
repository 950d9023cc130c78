"""Which file `kdedge detect` asks: one that is named, or what a run deploys."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from telling import RUN_AND_TELL
from tinydetector import tiny_detector

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.core.load import load_recipe
from kdedge.core.report import ExportedFile, ExportReport
from kdedge.core.rundir import write_json
from kdedge.engine.base import backend
from kdedge.engine.trt import TensorRTBackend
from kdedge.pipeline.deployed import chosen
from kdedge.pipeline.project import Project, open_project

RECIPE = """
version: 1
task: {task}
data: {{name: voc}}
student: {{name: retinanet}}
phases: [{{epochs: 1}}]
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a detector, exported in fp32 and int8 for the engines of this machine."""
    monkeypatch.chdir(tmp_path)
    return exported(tmp_path).run.path


def exported(folder: Path, library: str = "ort", task: str = "detect") -> Project:
    project = started(folder, task)
    files: dict[str, dict[str, ExportedFile]] = {"onnx": {}, "engines": {}}
    for precision in ("fp32", "int8"):
        onnx = project.run / f"export/student.{precision}.onnx"
        onnx.parent.mkdir(parents=True, exist_ok=True)
        tiny_detector(onnx, detections=10 + len(precision))
        engine = project.run / f"engine/student.{precision}{backend(library).suffix}"
        if library == "ort":
            backend(library).build(onnx, engine, {})
        for kind, path in (("onnx", onnx), ("engines", engine)):
            name = str(path.relative_to(project.run.path))
            files[kind][precision] = ExportedFile(path=name, bytes=1, sha256="")
    report = ExportReport(onnx=files["onnx"], engines=files["engines"], opset=18, backend=library)
    write_json(project.run / "export.json", report)
    project.run.record("export", "key", ["export.json"])
    return project


def started(folder: Path, task: str) -> Project:
    (folder / "tiny.yaml").write_text(RECIPE.format(task=task))
    project = open_project(load_recipe(str(folder / "tiny.yaml")), folder / "runs")
    project.save()
    project.run.record("distill", "key", ["recipe.json"])
    return project


def without_engines(run: Path) -> None:
    """As a preset for a board leaves it."""
    report = json.loads((run / "export.json").read_text())
    (run / "export.json").write_text(json.dumps({**report, "engines": {}}))


def test_run_deploys_its_engine_of_the_precision(run: Path) -> None:
    found = chosen(None, run, "int8")
    assert found.path == run / "engine/student.int8.engine.onnx"
    assert (found.name, found.library) == (f"{run.name}/engine/student.int8.engine.onnx", "ort")


def test_newest_run_and_fp32_are_meant_where_none_is_named(run: Path) -> None:
    assert chosen(None, None, None).path == Path("runs", run.name, "engine/student.fp32.engine.onnx")


def test_run_whose_engines_are_built_on_a_device_deploys_its_onnx_file(run: Path) -> None:
    without_engines(run)
    assert chosen(None, run, None).path == run / "export/student.fp32.onnx"


def test_onnx_file_stands_in_for_an_engine_that_does_not_run_here(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(TensorRTBackend, "obstacle", lambda _: "no GPU here")
    found = chosen(None, exported(tmp_path, "trt").run.path, "int8")
    assert (found.path.name, found.library) == ("student.int8.onnx", "ort")
    assert "the engine does not run here (no GPU here): its ONNX file is asked" in capsys.readouterr().err


def test_engine_opens_with_the_library_and_options_of_the_export(run: Path) -> None:
    report = json.loads((run / "export.json").read_text())
    changed = {**report, "backend": "ort_cuda", "backend_options": {"threads": 2}}
    (run / "export.json").write_text(json.dumps(changed))
    found = chosen(None, run, None)
    assert (found.library, found.options) == ("ort_cuda", {"threads": 2})


def test_run_of_classifiers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KdedgeError, match=r"tiny-\w+ has no detector: its networks are classifiers"):
        chosen(None, exported(tmp_path, task="classify").run.path, None)


def test_run_that_is_not_exported_says_what_to_type(tmp_path: Path) -> None:
    run = started(tmp_path, "detect").run.path
    with pytest.raises(KdedgeError) as caught:
        chosen(None, run, None)
    assert str(caught.value) == f"{run} is not exported\n  kdedge export {run}"


@pytest.mark.parametrize(("given", "hint"), [("fp16", "did you mean 'fp32'?"), ("teacher", "known: fp32, int8")])
def test_precision_that_is_not_exported_is_refused(run: Path, given: str, hint: str) -> None:
    with pytest.raises(KdedgeError) as caught:
        chosen(None, run, given)
    assert (caught.value.what, caught.value.why) == (f"--precision {given}: {run} is not exported in it", hint)


def test_exported_file_that_is_gone_is_named(run: Path) -> None:
    (run / "engine/student.fp32.engine.onnx").unlink()
    with pytest.raises(KdedgeError, match=r"student\.fp32\.engine\.onnx is not there"):
        chosen(None, run, None)


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KdedgeError, match=r"is not a run: it has no recipe\.json"):
        chosen(None, tmp_path, None)


@pytest.mark.parametrize(
    ("run_too", "precision", "said"),
    [(True, None, "--model and --run"), (False, "int8", "--model and --precision: a file has its own")],
)
def test_file_is_asked_by_itself(run: Path, run_too: bool, precision: str | None, said: str) -> None:
    with pytest.raises(KdedgeError, match=said):
        chosen(run / "export/student.fp32.onnx", run if run_too else None, precision)


@pytest.mark.parametrize(("name", "said"), [("no.onnx", r"no\.onnx is not there"), ("runs", r"runs is a folder")])
def test_model_that_is_no_file_is_named(run: Path, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        chosen(run.parents[1] / name, None, None)


def test_command_asks_a_run_without_torch(run: Path) -> None:
    Image.new("RGB", (40, 40), (255, 0, 0)).save("red.png")
    line = ["detect", "red.png", "--run", str(run), "--precision", "int8", "--json"]
    done = subprocess.run([sys.executable, "-c", RUN_AND_TELL, *line], capture_output=True, text=True)
    said, _, modules = done.stderr.rpartition("\n")
    assert done.returncode == 0, said
    told = json.loads(done.stdout)
    assert told["model"] == f"{run.name}/engine/student.int8.engine.onnx"
    assert [box["label"] for box in told["pictures"][0]["boxes"]] == ["red"]
    assert {"torch", "torchvision", "matplotlib"} & set(json.loads(modules)) == set()
