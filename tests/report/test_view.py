"""What the page says of a run whose numbers are few enough to be worked out by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from kdedge.core.profiling import ProfileReport
from kdedge.core.quality import Quality
from kdedge.core.report import ExitPoint, ExportedFile, ExportReport, Hop, TrainedModel, TrainingReport
from kdedge.report.html import ReportData, render
from kdedge.report.view import Tile, exits, network_rows, tiles, warnings

MINUS = "\N{MINUS SIGN}"


def trained(training: TrainingReport, student: float, baseline: float, **more: Any) -> TrainingReport:
    parts = {
        "student": training.student.model_copy(update={"accuracy": student}),
        "baseline": training.student.model_copy(update={"accuracy": baseline}),
    }
    return training.model_copy(update={**parts, **more})


def cut(export: ExportReport, top1: float) -> ExportReport:
    """Exported with --exit 1/3."""
    quality = Quality(images=10, top1=top1, per_class=[top1], ece=0.0)
    point = ExitPoint(name="1/3", stage="stage1", output="logits", params=20_000, macs=3_000_000)
    hops = [Hop(name="torch", quality=quality)]
    return export.model_copy(update={"exit": "1/3", "exits": [point], "hops": hops})


def tile(label: str, data: ReportData) -> Tile:
    return next(each for each in tiles(data.training, data.export, data.profiles) if each.label == label)


def test_ungated_page_warns_of_the_exit_that_was_exported(run: Callable[..., ReportData]) -> None:
    data = run()
    assert data.export
    training, export = trained(data.training, 0.9, 0.8), cut(data.export, 0.6)
    expected = f"the student is {MINUS}20.00 points against the whole network trained on the labels alone"
    assert expected in warnings(training, export, [], None)
    assert not any("labels alone" in text for text in warnings(training, None, [], None))
    assert (
        f"{MINUS}20.00 points against labels alone"
        in tile("Student top-1", run(training=training, export=export)).notes
    )


@pytest.mark.parametrize("name", ["teacher", "original"])
def test_smallest_and_fastest_are_the_students_own(
    run: Callable[..., ReportData], make_profile: Callable[..., ProfileReport], name: str
) -> None:
    """A network that is measured for comparison is not what the reader will deploy."""
    data = run()
    assert data.export
    tiny = {name: ExportedFile(path=f"{name}.onnx", bytes=10, sha256="0" * 64)}
    export = data.export.model_copy(update={"onnx": {**data.export.onnx, **tiny}})
    other = run(export=export, profiles=[make_profile(name, 0.001, 20, 2), *data.profiles])
    for label, precision in (("Smallest model", "int8"), ("Median latency", "int8, batch 1, 2 threads")):
        assert tile(label, other) == tile(label, data)
        assert tile(label, other).notes[0] == precision


def test_controls_are_rows_gains_and_curves_of_their_own(run: Callable[..., ReportData]) -> None:
    data = run(profiles=[])
    control = data.training.student.model_copy(update={"accuracy": 0.85})
    training = trained(data.training, 0.9, 0.8, controls={"deep supervision": control})
    assert [row[0] for row in network_rows(training)] == ["teacher", "student", "labels alone", "deep supervision"]
    curves = {**data.curves, "deep supervision": data.curves["baseline"]}
    page = render(run(training=training, curves=curves, export=None, profiles=[]))
    assert "+5.00 points against deep supervision" in page
    assert page.count(">deep supervision</text>") == 2  # the curves by epoch, and the networks by size
    assert "Training loss of the deep supervision by epoch" in page


def test_network_rows_tell_the_exits_and_all_of_them_together() -> None:
    network = TrainedModel(
        model="net", params=1, macs=1, weight_bytes=4, input_shape=[1, 8, 8], accuracy=0.5,
        exits={"stage1": 0.25, "stage2": 0.375}, ensemble=0.625,
    )  # fmt: skip
    assert exits(network) == "25.00 % / 37.50 %, 62.50 %"
    assert exits(network.model_copy(update={"exits": {}, "ensemble": None})) == "-"
