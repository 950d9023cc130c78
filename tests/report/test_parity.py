"""What the page says of the way to the engine."""

from boxreport import CELLS, exported, of_cells

from kdedge.core.report import Hop
from kdedge.report.parity import class_rows, columns, explained, rows, size_rows, sizes_explained


def test_hops_of_a_detector_are_told_by_their_boxes():
    export = exported()
    assert columns(export)[2:8] == ("boxes kept", "least IoU", "score error", "mAP", "AP50", "AP75")
    assert rows(export)[0][1:8] == ["-", "-", "-", "-", "48.12 %", "68.12 %", "38.12 %"]
    assert rows(export)[3] == [
        "onnx-int8", "onnx-fp32", "96.80 %", "0.7200", "7.0e-03", "47.02 %", "67.02 %", "37.02 %",
        "mAP fell by 1.1 points, limit 1",
    ]  # fmt: skip


def test_hop_that_keeps_no_box_has_neither_iou_nor_score():
    export = exported()
    boxes = export.hops[1].boxes.model_copy(update={"least_iou": None, "score_error": None})
    hops = [export.hops[0], export.hops[1].model_copy(update={"agreement": 0.0, "boxes": boxes})]
    assert rows(export.model_copy(update={"hops": hops}))[1][2:5] == ["0.00 %", "-", "-"]


def test_sizes_are_told_where_there_are_objects_of_them():
    export = exported()
    assert [(row.label, row.accuracies) for row in size_rows(export)][:2] == [
        ("small", (None, None, None)),
        ("medium", (0.4812, 0.4812, 0.4702)),
    ]
    assert "of the original pictures" in sizes_explained(of_cells(0.5))
    assert "of the square that the model sees" in sizes_explained(of_cells(0.5, sizes_in="input"))


def test_class_without_objects_is_last():
    hop = Hop(name="torch", quality=of_cells(0.5, per_class=[0.4, 0.0, 0.6], empty=[1]))
    export = exported().model_copy(update={"hops": [hop]})
    assert [(row.label, row.accuracies) for row in class_rows(export, CELLS)] == [
        ("RBC", (0.4,)),
        ("Platelets", (0.6,)),
        ("WBC", (None,)),
    ]


def test_explanation_names_images_objects_and_the_score_of_sure_boxes():
    text = explained(exported())
    assert text.startswith("Every step from the trained network to the engine on the same 72 test images with 958 obj")
    assert "Boxes that either hop gives a score of at least 0.30 are looked for" in text


def test_export_without_hops_says_so(run):
    export = run().export.model_copy(update={"hops": []})
    assert explained(export) == "Every step from the trained network to the engine: none was compared."
    assert (rows(export), size_rows(export), class_rows(export, CELLS)) == ([], [], [])
