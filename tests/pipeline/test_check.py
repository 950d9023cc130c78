"""What the dry run says: of a phase, and of a detector."""

from pathlib import Path

import pytest
import torch
from boxed import write_voc

from kdedge.core import console
from kdedge.core.load import load_recipe
from kdedge.models.weights import save_weights
from kdedge.models.zoo import build_model
from kdedge.pipeline.check import PhaseCost, run
from kdedge.pipeline.project import open_project


def test_phase_that_takes_days_says_so() -> None:
    row = PhaseCost(["logits", "attention"], 200, 128, 2911.7, 3 * 2**20, int8=False).row(1)
    assert row == ["1", "logits, attention", "200", "128", "2911.7", "6 days, 17:45:40", "3.0 MiB"]


def test_phase_that_trains_for_int8_says_so() -> None:
    rows = [PhaseCost(methods, 1, 64, 1.0, 2**20, int8=True).row(0) for methods in (["logits"], [])]
    assert [row[1] for row in rows] == ["logits, in int8", "labels only, in int8"]


RECIPE = """
version: 1
task: detect
data: {name: voc, root: voc, image_size: 64, workers: 0}
student: &detector {name: ssdlite, options: {backbone: mobilenet_v3_small}}
teachers: [{<<: *detector, checkpoint: teacher.safetensors}]
phases: [{epochs: 3, batch: 2, methods: [{name: pkd}]}]
run: {accelerator: cpu, threads: 1}
"""


def test_recipe_of_a_detector_is_tried_and_its_teacher_s_boxes_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_voc(tmp_path / "voc")
    (tmp_path / "boxes.yaml").write_text(RECIPE)
    torch.manual_seed(0)
    detector = build_model("ssdlite", {"backbone": "mobilenet_v3_small"}, 2, (3, 64, 64), "detect")
    save_weights(detector, tmp_path / "teacher.safetensors")
    tables: list[tuple] = []
    emitted: list[dict] = []
    monkeypatch.setattr(console, "show_table", lambda *given: tables.append(given))
    monkeypatch.setattr(console, "emit", emitted.append)
    run(open_project(load_recipe(str(tmp_path / "boxes.yaml")), tmp_path / "runs"))
    (title, columns, (student, teacher)), (_, _, [phase]) = tables
    assert title == "boxes: voc, 4 training, 1 validation, 1 test images of 3x64x64, 2 classes"
    assert columns[2] == "mAP"
    assert (student[2], teacher[2]) == ("-", f"{100 * emitted[0]['teacher_mean_ap']:.2f} %")
    assert teacher[-1].startswith("p4 288@16, ")
    assert phase[:4] == ["0", "pkd", "3", "2"]
    assert emitted[0]["phases"][0]["epoch_seconds"] > 0
