"""The tables at the end of commands, by what the networks are for."""

from typing import Any

import pytest
from boxruns import quality

from kdedge.core.quality import BoxAgreement, Quality
from kdedge.core.report import ExportedFile, ExportReport, Hop, TrainedModel, TrainingReport
from kdedge.pipeline import show
from kdedge.pipeline.summary import columns, summary_rows

STUDENT = TrainedModel(
    model="ssdlite", params=1500, macs=2_000_000, weight_bytes=6000, input_shape=[3, 64, 64], accuracy=0.4
)
ALIKE = {"reference": "torch", "agreement": 0.975, "boxes": BoxAgreement(score=0.3, boxes=40, least_iou=0.9875)}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    shown: list = []
    monkeypatch.setattr(show, "show_table", lambda *given: shown.append(given))
    return shown


def trained(**changes: Any) -> TrainingReport:
    counts = {"train_images": 5, "validation_images": 2, "test_images": 3}
    return TrainingReport(recipe="r", seed=0, labels=["a"], methods=[], student=STUDENT, **counts, **changes)


def exported(*hops: Hop) -> ExportReport:
    return ExportReport(onnx={"fp32": ExportedFile(path="m", bytes=2048, sha256="")}, hops=list(hops), opset=18)


@pytest.mark.parametrize(("task", "label"), [("classify", "top-1"), ("detect", "mAP")])
def test_accuracy_is_named_by_the_task(task: Any, label: str, tables: list) -> None:
    training = trained(task=task, teachers=[STUDENT])
    show.show_training(training)
    [(_, titles, rows)] = tables
    assert [dict(zip(titles, row, strict=True))[label] for row in rows] == ["40.00 %", "40.00 %"]
    (_, student) = summary_rows(training, exported(Hop(name="onnx-fp32", quality=quality(0.35))), [])
    assert dict(zip(columns(training), student, strict=True))[label] == "35.00 %"


def test_hops_of_a_detector_tell_precisions_and_what_became_of_the_boxes(tables: list) -> None:
    hops = [Hop(name="torch", quality=quality(0.4)), Hop(name="onnx-fp32", quality=quality(0.35), **ALIKE)]
    show.show_hops("export", hops)
    [(title, titles, (torch, onnx), caption)] = tables
    assert title == "export"
    assert titles == (
        "hop", "against", "mAP", "AP50", "AP75", "medium", "large", "boxes kept", "least IoU", "score error"
    )  # fmt: skip
    assert torch == ["torch", "-", "40.00 %", "60.00 %", "30.00 %", "40.00 %", "50.00 %", "-", "-", "-"]
    assert onnx[:5] == ["onnx-fp32", "torch", "35.00 %", "55.00 %", "25.00 %"]
    assert onnx[7:] == ["97.50 %", "0.9875", "-"]
    assert caption == (
        "sizes in the pictures' own pixels; boxes kept: of those that either hop scores 0.3 or more, the share that "
        "the other has too"
    )


def test_size_that_no_object_has_in_any_hop_is_left_out(tables: list) -> None:
    none = {"small": None, "medium": None, "large": None}
    show.show_hops("export", [Hop(name="torch", quality=quality(0.4, **none))])
    [(_, titles, rows, caption)] = tables
    assert titles[4:6] == ("AP75", "boxes kept")
    assert len(rows[0]) == len(titles)
    assert caption == ""


def test_hops_of_a_classifier_tell_top_5_and_calibration(tables: list) -> None:
    classes = Quality(images=8, top1=0.5, top5=None, per_class=[0.5, 0.5], ece=0.125)
    show.show_export(exported(Hop(name="torch", quality=classes)))
    [(title, titles, rows)] = tables
    assert title == "export: opset 18, "
    assert titles == ("hop", "against", "top-1", "top-5", "ECE", "agreement", "max error", "mean error")
    assert rows == [["torch", "-", "50.00 %", "-", "0.1250", "-", "-", "-"]]
