"""What GitHub Actions reads: no text of a run may become a command or an output of its own."""

import re

import pytest

from kdedge.core.report import Check, GateResult
from kdedge.gate.github import annotations, command, outputs

MISSED = Check(
    metric="int8/top1", value=0.9, unit="fraction", limit=">= 91.00 %", verdict="regression", reason="missed"
)
ADVICE = MISSED.model_copy(update={"metric": "fp32/latency_median_ms", "advisory": True, "verdict": "unstable"})
KEPT = MISSED.model_copy(update={"verdict": "pass"})
RESULT = GateResult(verdict="regression", checks=[MISSED, KEPT, ADVICE], warnings=["50 % less\nthan before"])


def test_annotations_tell_errors_from_advice():
    assert list(annotations(RESULT)) == [
        "::error title=kdedge::gate failed: a limit is not kept",
        "::error title=kdedge int8/top1::regression: 90.00 %25, missed (limit >= 91.00 %25)",
        "::warning title=kdedge fp32/latency_median_ms::unstable (advisory): 90.00 %25, missed (limit >= 91.00 %25)",
        "::warning title=kdedge::50 %25 less%0Athan before",
    ]


def test_annotations_of_an_advisory_gate_are_no_errors():
    assert {line.split(" ")[0] for line in annotations(RESULT, advisory=True)} == {"::warning"}


def test_annotations_say_nothing_of_a_gate_that_passed():
    assert list(annotations(GateResult(verdict="pass", checks=[KEPT]))) == []


def test_annotations_say_why_without_a_check_that_failed():
    lines = list(annotations(GateResult(verdict="insufficient", checks=[KEPT])))
    assert [line.split("::")[1] for line in lines] == ["error title=kdedge", "error title=kdedge baseline"]


@pytest.mark.parametrize("text", ["a\n::set-env name=PATH::x", "a\r::error::b", "%0A::error::b"])
def test_command_is_one_line_whatever_a_text_holds(text):
    line = command("error", text, text)
    assert len(line.splitlines()) == 1
    properties, message = line.removeprefix("::error title=").split("::", 1)
    assert ":" not in properties
    assert message.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%") == text


def test_command_escapes_what_ends_a_title():
    assert command("error", "a:b,c%d\n", "a:b,c%d\n") == "::error title=a%3Ab%2Cc%25d%0A::a:b,c%25d%0A"


def test_outputs_stand_between_marks_that_no_value_can_guess():
    lines = outputs({"verdict": "pass", "run": "runs/a\nverdict=regression"}).splitlines()
    mark = lines[0].removeprefix("verdict<<")
    assert re.fullmatch(r"kdedge-[0-9a-f]{32}", mark)
    assert lines == [f"verdict<<{mark}", "pass", mark, f"run<<{mark}", "runs/a", "verdict=regression", mark]
    assert mark not in outputs({"verdict": "pass"})


def test_annotations_against_another_model_speak_of_it():
    result = GateResult(verdict="regression", checks=[MISSED], against="main:run, 2")
    assert list(annotations(result)) == [
        "::error title=kdedge::gate failed: less accurate than main:run, 2",
        "::error title=kdedge int8/top1::regression: 90.00 %25, missed (limit >= 91.00 %25)",
    ]
