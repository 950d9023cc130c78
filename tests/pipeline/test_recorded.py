"""What a report finds in a real run: answers, layers, the paired gate and boards of this export, and of no other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxruns import tell_of_boxes
from closeups import ORIN, layer_times, paired_gate
from mini import Finished

from kdedge.core.device import DeviceReport
from kdedge.core.report import ExportReport, TrainingReport
from kdedge.core.rundir import read_record, write_json
from kdedge.pipeline import recorded
from kdedge.pipeline.project import EXPORT, TRAINING, Project, reopen
from kdedge.pipeline.report import gather
from kdedge.report.answers import said
from kdedge.report.html import render

Records = tuple[Project, TrainingReport, ExportReport]


@pytest.fixture
def opened(copied: Finished) -> Records:
    project = reopen(copied.run)
    return project, read_record(project.run / TRAINING, TrainingReport), read_record(project.run / EXPORT, ExportReport)


def add(project: Project, command: str, name: str, record: Any) -> None:
    (project.run / name).parent.mkdir(parents=True, exist_ok=True)
    write_json(project.run / name, record)
    project.run.record(command, "key", [name])


def test_answers_are_those_of_the_engines_on_the_same_images(opened: Records) -> None:
    _, training, export = opened
    found = recorded.asked(*opened)
    assert found is not None
    assert list(found.deployed) == ["engine-fp32", "engine-fp16", "engine-int8"]
    assert list(found.others) == ["teacher", "labels alone"]
    for precision in ("fp32", "int8"):
        right = (said(found.deployed[f"engine-{precision}"]) == found.labels).mean()
        assert right == pytest.approx(export.quality(precision).top1)
    assert (said(found.others["teacher"]) == found.labels).mean() == pytest.approx(training.teacher.accuracy)
    grey = 255 * (found.images * np.array(found.normalize.std)[0] + found.normalize.mean[0])
    assert (grey.min(), grey.max()) == pytest.approx((0, 255), abs=1e-3)  # digits are 0..16, scaled to 0..255


def test_answers_to_other_images_are_left_out(opened: Records) -> None:
    project, _, _ = opened
    path = project.run / "predictions/teacher.npz"
    with np.load(path) as file:
        np.savez(path, ids=file["ids"] + 1, outputs=file["outputs"])
    found = recorded.asked(*opened)
    assert found is not None
    assert list(found.others) == ["labels alone"]


def test_run_without_its_test_images_has_no_answers(opened: Records) -> None:
    project, _, _ = opened
    (project.run / "arrays/eval.npz").unlink()
    assert recorded.asked(*opened) is None


def test_boxes_of_a_detector_are_judged_on_its_page(copied: Finished) -> None:
    tell_of_boxes(copied.run, 0.25)
    with np.load(copied.run / "arrays/eval.npz") as file:
        labels, ids = file["labels"], file["ids"]
    sure = np.full((*labels.shape[:2], 1), 0.75)
    found = np.concatenate([labels[..., :1], sure, labels[..., 1:] + [0, 0, 2, 2]], axis=2)
    for hop in ("engine-fp32", "engine-fp16", "engine-int8", "teacher", "baseline"):
        np.savez(copied.run / f"predictions/{hop}.npz", ids=ids[::-1], outputs=found[::-1])
    project = reopen(copied.run)
    data = gather(project)
    assert data.asked is not None
    assert data.asked.labels.shape == labels.shape
    summary = (
        f"engine-int8 on {len(labels)} test images with {len(labels)} objects. Counted are finds with a score of at"
    )
    assert summary in render(data)


def test_layer_times_of_an_earlier_export_are_left_out(opened: Records) -> None:
    project, _, export = opened
    assert [(each.name, each.times) for each in recorded.layers(project, export)] == [
        ("fp32", None),
        ("fp16", None),
        ("int8", None),
    ]
    now = export.engines["teacher"].sha256
    add(project, "layers", "profile/layers-teacher.json", layer_times("teacher", model_sha256=now))
    add(project, "layers of old", "profile/layers-int8.json", layer_times("int8", model_sha256="0" * 64))
    timed = {each.name: each.times for each in recorded.layers(project, export)}
    assert list(timed) == [*("fp32", "fp16", "int8"), "teacher"]
    assert timed["teacher"] is not None
    assert timed["int8"] is None


def test_weights_of_the_file_are_about_its_size(opened: Records) -> None:
    project, _, export = opened
    fp32 = recorded.layers(project, export)[0].footprint
    assert 4 * 13_000 < fp32.weights < export.onnx["fp32"].bytes


def test_paired_gate_of_an_earlier_export_is_left_out(opened: Records) -> None:
    project, _, export = opened
    assert recorded.against(project, export) is None
    for onnx, shown in (({"fp32": export.onnx["fp32"].sha256}, True), ({"fp32": "0" * 64}, False), ({}, False)):
        add(project, "against", "against.json", paired_gate().model_copy(update={"onnx": onnx}))
        assert (recorded.against(project, export) is not None) == shown


def test_boards_are_those_that_measured_this_export(opened: Records) -> None:
    project, _, export = opened
    for board, onnx in (("orin", export.hashes()), ("nano", {"fp32": "0" * 64})):
        record = DeviceReport(device=ORIN, backend="trt", onnx=onnx, hops=[], profiles=[])
        add(project, f"devices/{board}", f"devices/{board}/device.json", record)
    found, earlier = recorded.devices(project, export)
    assert [each.name for each in found] == ["NVIDIA Jetson Orin Nano"]
    assert earlier == ["nano"]


def test_report_is_made_again_when_something_was_looked_at_closer(opened: Records) -> None:
    project, _, _ = opened
    before = project.key("report")
    add(project, "layers", "profile/layers-fp32.json", layer_times("fp32"))
    assert project.key("report") != before


def test_report_of_a_real_run_says_how_to_make_it_again(finished: Finished) -> None:
    page = Path(finished.run / "report.html").read_text()
    assert "<code>kdedge run mini.yaml</code>" in page
    assert "kdedge profile runs/mini-" in page
    assert json.loads((finished.run / "recipe.json").read_text())["given"] == ["mini.yaml"]
