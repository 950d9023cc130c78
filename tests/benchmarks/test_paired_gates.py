import importlib.util
import json
from pathlib import Path

import onnx
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/gate/run.py"


@pytest.fixture
def run():
    """The script, whose name others have as well."""
    spec = importlib.util.spec_from_file_location("paired_gates", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line(slower, number, outcome, seconds=10.0, ratios=(1.0, 1.02)):
    return {
        "slower": slower, "number": number, "busy": number % 2 == 1, "outcome": outcome, "seconds": seconds,
        "ratios": list(ratios), "load": 0.5 + number, "base_ms": 1.0,
    }  # fmt: skip


def test_row_counts_what_was_said(run):
    """Of 1.00 and 1.02 the standard deviation is 1.41 %."""
    gates = [line(0.05, 0, "regression", 10.0), line(0.05, 1, "unstable", 50.0), line(0.05, 2, "regression", 12.0)]
    assert run.row(0.05, gates) == [
        "5 %", "3", "1", "2 (66.7 %)", "at least 80 %", "1", "12.0", "50.0", "2", "1.41 %",
    ]  # fmt: skip
    assert run.row(0.0, [])[:2] == ["none", "0"]


def test_gates_that_there_are_are_not_measured_again(run, tmp_path, monkeypatch):
    known = [line(slower, number, "pass") for slower in (0.0, 0.10, 0.05) for number in range(2)]
    (tmp_path / "gates.jsonl").write_text("".join(json.dumps(one) + "\n" for one in known[:-1]))
    asked = []
    monkeypatch.setattr(run, "base_ms", lambda request: 2.0)
    monkeypatch.setattr(run, "gate", lambda case, request, wait_ms: asked.append((case, wait_ms)) or known[-1])
    run.main(["--gates", "2", "--results", str(tmp_path)])
    assert asked == [(run.Case(0.05, 1), 0.1)]  # 5 % of 2 ms
    assert [json.loads(one) for one in (tmp_path / "gates.jsonl").read_text().splitlines()] == known
    told = (tmp_path / "gates.md").read_text()
    assert "| 5 % | 2 | 1 |" in told
    assert "A model of 1.00 ms" in told
    assert "Load average beside the gates: 0.5 to 1.5" in told


def test_model_is_valid(run, tmp_path):
    run.write_model(tmp_path / "model.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
