"""Exit codes of the gate, and the life of a baseline."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import Forkserver, Halt
from mini import Finished
from telling import RUN_AND_TELL

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


HEAVY = {"torch", "onnx", "onnxruntime", "matplotlib", "numpy", "scipy", "sklearn"}
CHANGE = [{"metric": "int8/onnx_bytes", "max_change": 0.01}]
TIME_IS_TOLD = [{"metric": f"*/{what}", "advisory": True} for what in ("latency_*", "peak_memory_bytes")]
"""The small recipe has two processes, which tell no change from chance."""


def test_gate_ends_with_0_when_budgets_are_kept_and_1_when_not(gate: Gate, copied: Finished) -> None:
    assert gate(None)[0] == 0
    code, said = gate([{"metric": "student/params", "max": 10}])
    assert code == 1
    assert "regression" in said
    assert copied.json("gate.json")["verdict"] == "regression"
    assert "Traceback" not in said


def test_gate_imports_nothing_that_takes_long(copied: Finished) -> None:
    """With a baseline, so that every rule is asked."""
    command = [sys.executable, "-c", RUN_AND_TELL, "gate", str(copied.run), "--baseline", "baseline.json"]
    for more in (["--update", "--reason", "first"], ["--advisory"]):
        result = subprocess.run([*command, *more], cwd=copied.folder, capture_output=True, text=True, check=True)
        assert HEAVY & set(json.loads(result.stderr.rpartition("\n")[2])) == set()


def test_gate_that_is_advisory_ends_with_0(gate: Gate) -> None:
    assert gate([{"metric": "student/params", "max": 10, "advisory": True}])[0] == 0


@pytest.mark.parametrize("budgets", [CHANGE, []], ids=["a limit on change", "no limit that needs it"])
def test_gate_ends_with_3_without_the_baseline_that_is_named(
    gate: Gate, copied: Finished, budgets: list[dict[str, Any]]
) -> None:
    code, said = gate(budgets, "--baseline", "missing.json")
    assert code == 3
    assert "no baseline at missing.json" in said
    assert "kdedge gate --update" in said
    assert copied.json("gate.json")["verdict"] == "insufficient"
    assert str(copied.folder) not in (copied.run / "gate.md").read_text()


def test_gate_ends_with_3_when_a_limit_on_change_has_no_baseline(gate: Gate) -> None:
    assert gate(CHANGE)[0] == 3


def test_gate_ends_with_1_when_a_budget_is_broken_even_without_a_baseline(gate: Gate) -> None:
    assert gate([{"metric": "student/params", "max": 10}], "--baseline", "missing.json")[0] == 1


def test_baseline_goes_round_and_finds_a_regression(gate: Gate, copied: Finished) -> None:
    baseline = copied.folder / "baseline.json"
    budgets = CHANGE + TIME_IS_TOLD
    code, said = gate(budgets, "--baseline", "baseline.json", "--update", "--reason", "first release")
    assert (code, said) == (0, "baseline written: baseline.json\n")
    kept = json.loads(baseline.read_text())
    assert kept["reason"] == "first release"
    assert list(kept) == sorted(kept)
    assert str(copied.folder) not in baseline.read_text()
    assert gate(budgets, "--baseline", "baseline.json")[0] == 0

    kept["metrics"]["int8/onnx_bytes"]["value"] *= 0.9
    baseline.write_text(json.dumps(kept))
    code, said = gate(budgets, "--baseline", "baseline.json")
    assert code == 1
    assert "+11.1 %" in said  # 1 / 0.9

    code, said = gate(budgets, "--baseline", "baseline.json", "--update", "--reason", "a wider stem")
    assert said == "baseline written: baseline.json\naccepted though worse: int8/onnx_bytes, +11.1 %\n"
    renewed = json.loads(baseline.read_text())
    assert renewed["accepts"] == ["int8/onnx_bytes"]
    assert [entry["reason"] for entry in renewed["history"]] == ["first release"]
    assert gate(budgets, "--baseline", "baseline.json")[0] == 0


def test_baseline_holds_every_metric_by_default(gate: Gate, copied: Finished) -> None:
    gate([], "--baseline", "baseline.json", "--update", "--reason", "first")
    assert gate([], "--baseline", "baseline.json")[0] == 3  # two processes are too few
    result = copied.json("gate.json")
    checks = {check["metric"]: check for check in result["checks"]}
    assert set(checks) == set(result["metrics"])
    for name, check in checks.items():
        measured = "latency" in name or "memory" in name
        assert check["verdict"] == ("insufficient" if measured else "pass"), name
    assert checks["int8/top1"]["reason"] == "+0.00 points: 0 images lost, 0 won, p = 1"
    assert checks["int8/top1"]["limit"] == ">= baseline - 0.1 points"
    assert {f"int8/{name}_layers" for name in ("onnx", "engine", "fallback")} < set(checks)
    assert gate(TIME_IS_TOLD, "--baseline", "baseline.json")[0] == 0


@pytest.mark.parametrize("call", ["kdedge.pipeline.gate:held", "kdedge.core.rundir:os.fsync"])
def test_update_that_is_killed_leaves_the_baseline_as_it_was(
    gate: Gate, forkserver: Forkserver, copied: Finished, call: str
) -> None:
    update = ["gate", str(copied.run), "--baseline", "baseline.json", "--update", "--reason"]
    gate(None, *update[2:], "first")
    before = (copied.folder / "baseline.json").read_bytes()
    code, _ = forkserver.run([*update, "never"], copied.folder, Halt(call, 1))
    assert code == -signal.SIGKILL
    assert (copied.folder / "baseline.json").read_bytes() == before
    assert gate(None, *update[2:], "third")[0] == 0
    assert [entry["reason"] for entry in json.loads((copied.folder / "baseline.json").read_text())["history"]] == [
        "first"
    ]


def test_updates_at_once_lose_no_entry(gate: Gate, forkserver: Forkserver, copied: Finished) -> None:
    """The first waits with what it read in its hand; the second must not take its place meanwhile."""
    update = ["gate", str(copied.run), "--baseline", "baseline.json", "--update", "--reason"]
    gate(None, *update[2:], "first")
    slow = forkserver.start([*update, "second"], copied.folder, Halt("kdedge.pipeline.gate:make_baseline", 1, None))
    slow.wait_for_halt()
    waiting = forkserver.start([*update, "third"], copied.folder, Halt("kdedge.gate.baseline:os.open", 1, None))
    waiting.wait_for_halt()
    waiting.told.send("go on")
    slow.told.send("go on")
    assert (slow.end(), waiting.end()) == (0, 0)
    kept = json.loads((copied.folder / "baseline.json").read_text())
    assert [*(entry["reason"] for entry in kept["history"]), kept["reason"]] == ["first", "second", "third"]


@pytest.mark.parametrize(("text", "code"), [("{", 2), ('{"schema_version": 99}', 3)], ids=["damaged", "newer"])
def test_update_does_not_write_over_what_it_cannot_read(gate: Gate, copied: Finished, text: str, code: int) -> None:
    (copied.folder / "baseline.json").write_text(text)
    assert gate(None, "--baseline", "baseline.json", "--update", "--reason", "r")[0] == code
    assert (copied.folder / "baseline.json").read_text() == text


def test_baseline_from_another_machine_ends_with_3_for_what_was_measured(gate: Gate, copied: Finished) -> None:
    baseline = copied.folder / "baseline.json"
    gate([], "--baseline", "baseline.json", "--update", "--reason", "first")
    kept = json.loads(baseline.read_text())
    kept["fingerprint"]["match"]["cpu"] = "a faster one"
    baseline.write_text(json.dumps(kept))
    assert gate(CHANGE + TIME_IS_TOLD, "--baseline", "baseline.json")[0] == 0
    code, said = gate(CHANGE, "--baseline", "baseline.json")
    assert code == 3
    assert "cpu was a faster one" in said


def test_baseline_of_a_newer_schema_ends_with_3_and_a_damaged_one_with_2(gate: Gate, copied: Finished) -> None:
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
