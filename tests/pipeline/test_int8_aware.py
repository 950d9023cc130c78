"""A student trained for int8, from the recipe to the engine."""

import json
from pathlib import Path

import numpy as np
import pytest
from forked import Forkserver
from mini import write_recipe

from kdedge.core.load import load_recipe
from kdedge.export.onnx import read_metadata
from kdedge.pipeline.chain import perform_one
from kdedge.pipeline.distill import labels_only
from kdedge.pipeline.project import open_project, reopen

RECIPE = """\
version: 1
data: {name: digits, train_limit: 400}
student: {name: resnet8, options: {conv: depthwise}}
teachers: [{name: resnet8, training: {epochs: 2, batch: 32}}]
phases:
  - {epochs: 3, batch: 32, methods: [{name: logits}]}
  - epochs: 1
    batch: 32
    optimizer: {lr: 0.01}
    methods: [{name: logits}]
    quantize: {calibration_batches: 2}
run: {accelerator: cpu, threads: 1}
export:
  precisions: [fp32, int8]
  calibration: {images: 64}
  quantization: {sensitivity: false}
  tolerance: {int8: {accuracy_drop: null}}
"""


@pytest.fixture(scope="module")
def run(forkserver: Forkserver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aware")
    write_recipe(folder, "aware", RECIPE)
    for command in (["distill", "aware.yaml"], ["export"]):
        code, process = forkserver.run(command, folder)
        assert code == 0, process.stderr
    return next(folder.glob("runs/aware-*"))


def ranges(run: Path, name: str) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = json.loads((run / name / "int8.json").read_text())
    return found


def test_file_has_the_ranges_that_training_left(run: Path) -> None:
    learned = ranges(run, "student")
    assert read_metadata(run / "export/student.int8.onnx")["quantization"]["learned"] == len(learned) > 5
    export = json.loads((run / "export.json").read_text())
    assert export["layout"]["learned"] == len(learned)
    assert {"student/int8.json", "baseline/int8.json"} <= set(reopen(run).run.manifest.artifacts)


def test_every_hop_is_compared_as_ever(run: Path) -> None:
    export = json.loads((run / "export.json").read_text())
    hops = [(hop["name"], hop["reference"]) for hop in export["hops"]]
    assert hops == [
        ("torch", None),
        ("onnx-fp32", "torch"),
        ("onnx-int8", "onnx-fp32"),
        ("engine-fp32", "onnx-fp32"),
        ("engine-int8", "onnx-int8"),
    ]
    with np.load(run / "predictions/onnx-int8.npz") as int8, np.load(run / "predictions/onnx-fp32.npz") as fp32:
        assert (int8["outputs"].argmax(1) == fp32["outputs"].argmax(1)).mean() > 0.9


def test_undistilled_student_trains_for_int8_as_well_and_is_held_beside(run: Path) -> None:
    """With ranges of its own: what is compared is the teacher's doing alone."""
    assert ranges(run, "baseline").keys() == ranges(run, "student").keys()
    assert ranges(run, "baseline") != ranges(run, "student")
    assert json.loads((run / "export.json").read_text())["fragility"]["images"] == 360
    recipe = reopen(run).recipe
    assert labels_only(recipe.phases[1]).quantize == recipe.phases[1].quantize


def test_teacher_teaches_in_the_last_phase(run: Path) -> None:
    rows = (run / "student/log.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert last["epoch"] == "4"
    assert float(last["logits/kd"]) > 0


def test_nothing_is_trained_again_where_nothing_changed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = open_project(load_recipe(str(run.parents[1] / "aware.yaml")), run.parent)
    assert not perform_one(project, "distill")
    assert capsys.readouterr().out == "distill: unchanged\n"
