"""Exit codes of the gate, and the life of a baseline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import Forkserver
from mini import Finished

Gate = Callable[..., tuple[int, str]]


@pytest.fixture
def gate(forkserver: Forkserver, copied: Finished) -> Gate:
    """`gate(budgets, *options)` -> exit code and what was said."""

    def decide(budgets: list[dict[str, Any]] | None, *options: str) -> tuple[int, str]:
        if budgets is not None:
            saved = json.loads((copied.run / "recipe.json").read_text())
            saved["recipe"]["gate"]["budgets"] = budgets
            (copied.run / "recipe.json").write_text(json.dumps(saved))
        code, process = forkserver.run(["gate", str(copied.run), *options], copied.folder)
        return code, process.stdout + process.stderr

    return decide


CHANGE = [{"metric": "int8/onnx_bytes", "max_change": 0.01}]


def test_gate_ends_with_0_when_budgets_are_kept_and_1_when_not(gate: Gate, copied: Finished) -> None:
    assert gate(None)[0] == 0
    code, said = gate([{"metric": "student/params", "max": 10}])
    assert code == 1
    assert "regression" in said
    assert copied.json("gate.json")["verdict"] == "regression"
    assert "Traceback" not in said


def test_gate_that_is_advisory_ends_with_0(gate: Gate) -> None:
    assert gate([{"metric": "student/params", "max": 10, "advisory": True}])[0] == 0


@pytest.mark.parametrize("budgets", [CHANGE, []], ids=["a limit on change", "no limit that needs it"])
def test_gate_ends_with_3_without_the_baseline_that_is_named(
    gate: Gate, copied: Finished, budgets: list[dict[str, Any]]
) -> None:
    code, said = gate(budgets, "--baseline", "missing.json")
    assert code == 3
    assert "no baseline at " in said
    assert "kdedge gate --update" in said
    assert copied.json("gate.json")["verdict"] == "insufficient"


def test_gate_ends_with_3_when_a_limit_on_change_has_no_baseline(gate: Gate) -> None:
    assert gate(CHANGE)[0] == 3


def test_gate_ends_with_1_when_a_budget_is_broken_even_without_a_baseline(gate: Gate) -> None:
    assert gate([{"metric": "student/params", "max": 10}], "--baseline", "missing.json")[0] == 1


def test_baseline_goes_round_and_finds_a_regression(gate: Gate, copied: Finished) -> None:
    baseline = copied.folder / "baseline.json"
    code, said = gate(CHANGE, "--baseline", "baseline.json", "--update", "--reason", "first release")
    assert (code, said) == (0, f"baseline written: {baseline.resolve()}\n")
    kept = json.loads(baseline.read_text())
    assert kept["reason"] == "first release"
    assert list(kept) == sorted(kept)
    assert str(copied.folder) not in baseline.read_text()
    assert gate(CHANGE, "--baseline", "baseline.json")[0] == 0

    kept["metrics"]["int8/onnx_bytes"]["value"] *= 0.9
    baseline.write_text(json.dumps(kept))
    code, said = gate(CHANGE, "--baseline", "baseline.json")
    assert code == 1
    assert "+11.1 %" in said  # 1 / 0.9


def test_baseline_from_another_machine_ends_with_3_for_what_was_measured(gate: Gate, copied: Finished) -> None:
    baseline = copied.folder / "baseline.json"
    gate([], "--baseline", "baseline.json", "--update", "--reason", "first")
    kept = json.loads(baseline.read_text())
    kept["fingerprint"]["match"]["cpu"] = "a faster one"
    baseline.write_text(json.dumps(kept))
    assert gate(CHANGE, "--baseline", "baseline.json")[0] == 0
    latency = [{"metric": "fp32/latency_median_ms", "max_change": 5}]
    code, said = gate(latency, "--baseline", "baseline.json")
    assert code == 3
    assert "cpu was a faster one" in said


def test_baseline_of_another_schema_ends_with_3_and_a_damaged_one_with_2(gate: Gate, copied: Finished) -> None:
    baseline = copied.folder / "baseline.json"
    baseline.write_text('{"schema_version": 99}')
    assert gate(CHANGE, "--baseline", "baseline.json")[0] == 3
    baseline.write_text("{")
    code, said = gate(CHANGE, "--baseline", "baseline.json")
    assert code == 2
    assert "cannot read the baseline" in said


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--update", "--baseline", "b.json"], "--update: --reason is not given"),
        (["--update", "--reason", "because"], "--update: no baseline file is named"),
    ],
)
def test_update_needs_a_file_and_a_reason(gate: Gate, copied: Finished, options: list[str], why: str) -> None:
    code, said = gate(None, *options)
    assert code == 2
    assert f"error: {why}\n  kdedge gate --update --baseline FILE --reason" in said
    assert not (copied.folder / "b.json").exists()


@pytest.mark.parametrize("name", ["training.json", "export.json", "profile/fp32.json"])
@pytest.mark.parametrize("damage", ["lost", "half"])
def test_record_that_is_damaged_ends_with_2_and_its_name(gate: Gate, copied: Finished, name: str, damage: str) -> None:
    path: Path = copied.run / name
    half = path.read_bytes()[:100]
    path.unlink()
    if damage == "half":
        path.write_bytes(half)
    code, said = gate(None)
    assert code == 2
    assert f"{name} cannot be read" in said
    assert "Traceback" not in said


def test_what_was_measured_of_an_earlier_export_is_left_out(gate: Gate, copied: Finished) -> None:
    budgets = [{"metric": "fp32/latency_median_ms", "max": 1e6}]
    assert gate(budgets)[0] == 0
    export = copied.json("export.json")
    export["engines"]["fp32"]["sha256"] = "0" * 64
    (copied.run / "export.json").write_text(json.dumps(export))
    assert gate(budgets)[0] == 1
    [check] = copied.json("gate.json")["checks"]
    assert (check["value"], check["reason"]) == (None, "not measured since it was exported: kdedge profile")
