from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdedge.distill.logs import TrainingLog, read_rows


def test_log_is_a_csv_with_a_row_an_epoch(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, []) as log:
        log.add({"epoch": 1, "loss": 0.5})
        log.add({"epoch": 2, "loss": 0.25})
    assert (tmp_path / "log.csv").read_text() == "epoch,loss\n1,0.5\n2,0.25\n"


def test_log_reads_back_exactly_and_leaves_out_what_a_row_does_not_have(tmp_path: Path) -> None:
    rows = [{"epoch": 1.0, "loss": 1 / 3}, {"epoch": 2.0, "loss": 0.1, "logits/kd": 2e-17}]
    with TrainingLog(tmp_path, []) as log:
        for row in rows:
            log.add(row)
    assert read_rows(tmp_path / "log.csv") == rows


def scalars(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


def test_log_goes_on_after_the_rows_of_an_earlier_start(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, []) as log:
        log.add({"epoch": 1, "loss": 0.5})
        log.add({"epoch": 2, "loss": 0.25})
        log.add({"epoch": 3, "loss": 9.0})  # its checkpoint was never finished
    with TrainingLog(tmp_path, [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]) as log:
        log.add({"epoch": 3, "loss": 0.125})
    assert [row["loss"] for row in read_rows(tmp_path / "log.csv")] == [0.5, 0.25, 0.125]
    assert scalars(tmp_path) == [(1, 0.5), (2, 0.25), (3, 0.125)]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_log_keeps_a_value_of_zero(tmp_path: Path, value: float) -> None:
    with TrainingLog(tmp_path, []) as log:
        log.add({"epoch": 1, "lr": value})
    assert read_rows(tmp_path / "log.csv") == [{"epoch": 1.0, "lr": value}]
