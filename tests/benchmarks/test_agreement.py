import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks/profile"


@pytest.fixture
def agreement(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("agreement")


def test_agreement_writes_every_round_of_both_models(agreement, tmp_path):
    agreement.main(["--rounds", "2", "--seconds", "0.01", "--json", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())
    assert [result["model"] for result in written["results"]] == ["24 convolutions", "one node"]
    for result in written["results"]:
        assert [sorted(turn) for turn in result["rounds"]] == [["bare", "kdedge"]] * 2
        assert all(value > 0 for turn in result["rounds"] for pair in turn.values() for value in pair)
    assert written["setting"] == {"rounds": 2, "seconds": 0.01}
    assert "| 24 convolutions | " in (tmp_path / "out.md").read_text()


def test_ratio_and_difference_are_taken_within_a_round(agreement):
    turn = agreement.Round(bare=(1000.0, 3000.0), kdedge=(2000.0, 3000.0))
    assert turn.ratio == 1.25
    assert turn.overhead_ns == 500.0


def test_row_holds_medians_over_rounds(agreement):
    """Ratios 1, 1.5 and 2; differences of 0, 1 and 2 us."""
    turns = [agreement.Round((2000.0, 2000.0), (ours, ours)) for ours in (2000.0, 3000.0, 4000.0)]
    assert agreement.row(agreement.Result("net", 7, turns)) == [
        "net", "0.0020", "0.0030", "1.5000 (1.0000..2.0000)", "1.00 (0.00..2.00)", "7",
    ]  # fmt: skip
