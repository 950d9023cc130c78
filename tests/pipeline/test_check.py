"""What the dry run says of a phase."""

from kdedge.pipeline.check import PhaseCost


def test_phase_that_takes_days_says_so() -> None:
    row = PhaseCost(["logits", "attention"], 200, 128, 2911.7, 3 * 2**20, int8=False).row(1)
    assert row == ["1", "logits, attention", "200", "128", "2911.7", "6 days, 17:45:40", "3.0 MiB"]


def test_phase_that_trains_for_int8_says_so() -> None:
    rows = [PhaseCost(methods, 1, 64, 1.0, 2**20, int8=True).row(0) for methods in (["logits"], [])]
    assert [row[1] for row in rows] == ["logits, in int8", "labels only, in int8"]
