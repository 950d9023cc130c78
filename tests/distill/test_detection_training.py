"""A detector's training: by its own losses, judged by mAP, distilled, and the same weights interrupted or not."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from boxed import write_voc
from forked import Forkserver, Halt
from safetensors.torch import load_file

from kdedge.core.errors import KdedgeError, RecipeError
from kdedge.core.load import load_recipe
from kdedge.core.recipe import Data
from kdedge.core.training import Phase
from kdedge.data.build import build_data
from kdedge.distill.base import Network
from kdedge.distill.objective import Objective
from kdedge.models.detector import Detector
from kdedge.models.zoo import build_model

RECIPE = """\
version: 1
task: detect
data: {name: voc, root: set, image_size: 64, augment: {flip: true, zoom: [0.8, 1.2]}, workers: 0}
student: &detector
  name: retinanet
  options: {backbone: mobilenet_v3_small, channels: 16, levels: p3-p5}
teachers:
  - <<: *detector
    training: {epochs: 1, batch: 2}
phases:
  - epochs: 2
    batch: 2
    optimizer: {name: adamw, lr: 0.001}
    methods: [{name: mkd}]
run: {accelerator: cpu, threads: 1}
"""
STEP = "kdedge.distill.trainer:PhaseRun.step"
OWN = ["classification", "boxes"]


def settle(folder: Path) -> Path:
    write_voc(folder / "set")
    (folder / "boxed.yaml").write_text(RECIPE)
    return folder


def start(server: Forkserver, folder: Path, halt: Halt | None = None) -> tuple[int, str]:
    code, process = server.run(["distill", "boxed.yaml"], folder, halt)
    return code, process.stderr


def run_of(folder: Path) -> Path:
    return next(folder.glob("runs/boxed-*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, forkserver: Forkserver) -> Path:
    folder = settle(tmp_path_factory.mktemp("boxed"))
    code, stderr = start(forkserver, folder)
    assert code == 0, stderr
    return run_of(folder)


def rows(run: Path, name: str = "student") -> list[dict[str, str]]:
    with (run / name / "log.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_log_has_the_detectors_losses_each_term_and_map(trained: Path) -> None:
    columns = list(rows(trained)[0])
    assert columns[:3] == ["epoch", "lr", "loss"]
    assert set(OWN) < set(columns)
    assert {"mkd/soft", "mkd/guide/p3", "mkd/relation/p3-p4"} < set(columns)
    assert columns[-1] == "validation_mean_ap"
    assert not {"cross_entropy", "train_top1"} & set(columns)


def test_loss_of_the_undistilled_student_is_the_sum_of_its_own(trained: Path) -> None:
    for row in rows(trained, "baseline"):
        assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in OWN), rel=1e-5)
        assert set(row) == {"epoch", "lr", "loss", *OWN, "validation_mean_ap"}


def test_record_says_the_task_and_its_predictions_are_boxes(trained: Path) -> None:
    training = json.loads((trained / "training.json").read_text())
    assert training["task"] == "detect"
    assert training["labels"] == ["cat", "dog"]
    assert 0 <= training["student"]["accuracy"] <= 1
    with np.load(trained / "predictions/student.npz") as kept:
        assert kept["outputs"].shape == (1, 300, 6)  # one test picture, as many rows as a RetinaNet finds at most
        assert set(np.unique(kept["outputs"][..., 0])) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("call", [2, 4])
def test_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, forkserver: Forkserver, trained: Path, call: int
) -> None:
    """The second step is the teacher's last, the fourth the baseline's or, with the teacher in the cache, later."""
    folder = settle(tmp_path)
    code, _ = start(forkserver, folder, Halt(STEP, call))
    assert code != 0
    code, stderr = start(forkserver, folder)
    assert code == 0, stderr
    for name in ("student/weights.safetensors", "student/methods.safetensors", "baseline/weights.safetensors"):
        there, here = (load_file(run / name) for run in (trained, run_of(folder)))
        assert all(torch.equal(there[key], here[key]) for key in there), name
    assert rows(run_of(folder)) == rows(trained)


def objective(detection: dict[str, object]) -> Objective:
    torch.manual_seed(0)
    options = {"backbone": "mobilenet_v3_small", "channels": 16, "levels": "p3-p5"}
    student = build_model("retinanet", options, 2, (3, 64, 64), "detect")
    phase = Phase.model_validate({"epochs": 1, "detection": detection})
    return Objective(student, {}, phase, Network({}, 2, 64))


def test_label_terms_are_the_detectors_own_and_weighed_by_the_phase() -> None:
    one = objective({"boxes": 0.5, "schedule": {"end": 0.5}})
    assert isinstance(one.student, Detector)
    images, targets = torch.randn(2, 3, 64, 64), torch.tensor([[[1.0, 8, 8, 40, 40]], [[-1.0, 0, 0, 0, 0]]])
    total, terms, right = one.eval()(images, targets, torch.arange(2), [], 0, 0.25)
    own = one.student.losses(one.student(images), targets)
    assert right is None
    assert terms == {name: pytest.approx(own[name].item()) for name in OWN}
    assert total.item() == pytest.approx((own["classification"] + 0.5 * own["boxes"]).item(), rel=1e-6)
    assert one.weights(OWN, 0.75) == {"classification": 0, "boxes": 0}


@pytest.mark.parametrize(
    ("task", "section", "told"),
    [
        ("detect", "cross_entropy: {weight: 2}", "cross_entropy of a phase counts for nothing under task: detect"),
        ("classify", "detection: {boxes: 2}", "detection of a phase counts for nothing under task: classify"),
    ],
)
def test_loss_of_the_other_task_is_refused(tmp_path: Path, task: str, section: str, told: str) -> None:
    text = f"version: 1\ntask: {task}\ndata: {{name: voc}}\nstudent: {{name: x}}\nphases: [{{epochs: 1, {section}}}]"
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(RecipeError, match=told):
        load_recipe(str(tmp_path / "other.yaml"))


def test_validation_without_an_object_is_refused(tmp_path: Path) -> None:
    pictures = {"a": [("cat", 1, 1, 10, 8)], "b": [], "c": [("cat", 1, 1, 9, 9)]}
    write_voc(tmp_path, pictures, {"train": "a", "val": "b", "test": "c"})
    with pytest.raises(KdedgeError, match="voc has no validation image with an object: 1 are in its own list"):
        build_data(Data(name="voc", root=str(tmp_path), image_size=64), 0)
