from xml.etree import ElementTree

import pytest

from kdedge.core.report import Check, GateResult, Metric
from kdedge.gate.render import COLUMNS, HEADLINES, MARKER, MARKER_AGAINST, headline, junit, markdown, rows


def check(metric: str, verdict: str, advisory: bool = False, **more) -> Check:
    parts = {"value": 2048, "unit": "bytes", "limit": "<= 1.0 KiB", "reason": "missed by 1.0 KiB"}
    return Check(metric=metric, verdict=verdict, advisory=advisory, **(parts | more))


RESULT = GateResult(
    verdict="regression",
    checks=[
        check("int8/onnx_bytes", "regression"),
        check("int8/top1", "pass", value=0.9, unit="fraction", limit=">= 90.00 %", reason=""),
        check("int8/latency_median_ms", "incomparable", value=1.5, unit="ms", baseline=1.0),
        check("fp16/latency_median_ms", "unstable", value=1.5, unit="ms"),
        check("fp32/top1", "insufficient", value=0.9, unit="fraction"),
        check("gone<b>|x", "regression", advisory=True, value=None, unit=""),
    ],
    warnings=["a <b> | c"],
    metrics={"int8/onnx_bytes": Metric(value=2048, unit="bytes", better="lower")},
    baseline="2026-01-02 first",
)


def test_rows_show_units_baseline_and_advice():
    table = rows(RESULT.checks)
    assert all(len(row) == len(COLUMNS) for row in table)
    assert table[0] == ["int8/onnx_bytes", "2.0 KiB", "<= 1.0 KiB", "-", "regression", "missed by 1.0 KiB"]
    assert table[2][1:4] == ["1.500 ms", "<= 1.0 KiB", "1.000 ms"]
    assert table[5][1] == "-"
    assert table[5][4] == "regression (advisory)"


def test_junit_has_one_testcase_per_check_of_the_right_kind():
    suite = ElementTree.fromstring(junit(RESULT))
    kinds = {case.get("name").split()[0]: [child.tag for child in case] for case in suite.iter("testcase")}
    assert kinds == {
        "int8/onnx_bytes": ["failure"],
        "int8/top1": [],
        "int8/latency_median_ms": ["skipped"],
        "fp16/latency_median_ms": ["error"],
        "fp32/top1": ["skipped"],
        "gone<b>|x": ["skipped"],
    }
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "1", "errors": "1", "skipped": "3"}
    assert suite.find("testcase/failure").get("message") == "regression: 2.0 KiB, missed by 1.0 KiB"


def test_markdown_can_be_found_again_and_keeps_its_table():
    text = markdown(RESULT)
    lines = text.splitlines()
    assert lines[0] == MARKER
    assert lines[1] == "### kdedge gate failed: a limit is not kept"
    table = [line for line in lines if line.startswith("| ") and "<=" in line.replace("&lt;", "<")]
    assert [line.replace("\\|", "").count("|") for line in table] == [len(COLUMNS) + 1] * 5
    assert "| gone&lt;b>\\|x |" in text
    assert "- warning: a &lt;b> \\| c" in text
    assert "- baseline: 2026-01-02 first" in text


def test_markdown_without_checks_has_no_table():
    assert "|" not in markdown(GateResult(verdict="pass", checks=[]))


def test_junit_names_the_baseline_when_it_alone_is_why_nothing_passes():
    kept = check("int8/top1", "pass", value=0.9, unit="fraction", limit=">= 90.00 %", reason="")
    suite = ElementTree.fromstring(junit(GateResult(verdict="insufficient", checks=[kept])))
    assert [case.get("name") for case in suite.iter("testcase")] == ["int8/top1 >= 90.00 %", "baseline at hand"]
    assert suite.get("skipped") == "1"
    assert suite.find("testcase/skipped").get("message").endswith(HEADLINES["insufficient"])


def test_junit_stays_xml_whatever_a_text_holds():
    odd = check("a/\x1b[31mb", "regression", reason='\x00 <&> "quoted" \ud800 \ufffe\nnext')
    suite = ElementTree.fromstring(junit(GateResult(verdict="regression", checks=[odd])).encode())
    assert suite.find("testcase").get("name") == "a/ [31mb <= 1.0 KiB"
    assert suite.find("testcase/failure").get("message") == 'regression: 2.0 KiB,   <&> "quoted"     next'


def test_markdown_keeps_a_row_whole_when_a_text_ends_in_a_backslash_or_breaks_its_line():
    text = markdown(GateResult(verdict="regression", checks=[check("m", "regression", reason="a\\|b\r\nc")]))
    assert "| regression | a&#92;\\|b c |" in text


AGAINST = GateResult(
    verdict="regression",
    checks=[
        check("int8/onnx_bytes", "regression", baseline=1024),
        check("int8/top1", "regression", value=0.9, unit="fraction", advisory=True),
        check("fp32/latency_median_ms", "regression", value=1.1, unit="ms"),
        check("fp16/latency_median_ms", "regression", value=1.1, unit="ms"),
    ],
    against="main-run",
)


def test_markdown_against_another_model_speaks_of_it_and_has_a_marker_of_its_own():
    text = markdown(AGAINST)
    assert text.startswith(f"{MARKER_AGAINST}\n### kdedge gate failed: larger and slower than main-run\n")
    assert "| metric | value | limit | base | verdict | why |\n" in text
    assert text.endswith("- base: main-run, measured in turns with the run\n")
    assert "budget" not in text
    assert MARKER not in text


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("pass", "gate passed: no worse than main-run"),
        ("unstable", "gate undecided: too unsteady to tell whether it is slower than main-run"),
        ("incomparable", "gate undecided: cannot be held against main-run"),
        ("insufficient", "gate undecided: too little was measured to hold it against main-run"),
    ],
)
def test_headline_against_another_model(verdict, said):
    assert headline(GateResult(verdict=verdict, checks=[], against="main-run")) == said


def test_headline_of_what_only_vanished():
    gone = check("int8/latency_median_ms", "regression", value=None, unit="")
    assert headline(GateResult(verdict="regression", checks=[gone], against="a")) == "gate failed: worse than a"


def test_junit_against_another_model_names_it():
    suite = ElementTree.fromstring(junit(AGAINST))
    assert suite.get("name") == "kdedge gate against main-run"
    suite = ElementTree.fromstring(junit(GateResult(verdict="incomparable", checks=[], against="a\x00b")))
    assert suite.find("testcase").get("name") == "base at hand"
    assert suite.find("testcase/skipped").get("message").endswith("cannot be held against a b")


def test_markdown_takes_a_name_as_text():
    """No link, image, code, emphasis, tag, person or row comes of it."""
    text = markdown(GateResult(verdict="pass", checks=[], against="[a](http://b) ![c](d) `e` *f* <g> @h k@l | i\n# j"))
    assert text.splitlines()[1] == (
        "### kdedge gate passed: no worse than &#91;a](http://b) !&#91;c](d) &#96;e&#96; &#42;f&#42; &lt;g> "
        "@&#8203;h k@l \\| i # j"
    )


def test_markdown_folds_what_passed_against_the_baseline() -> None:
    passed = Check(metric="a/params", value=1, unit="count", limit="<= baseline", baseline=1, verdict="pass")
    missed = passed.model_copy(update={"metric": "b/params", "verdict": "regression"})
    budget = passed.model_copy(update={"metric": "c/params", "baseline": None})
    text = markdown(GateResult(verdict="regression", checks=[passed, missed, budget]))
    at_once, _, folded = text.partition("<details><summary>passed against the baseline: 1</summary>")
    assert [name in at_once for name in ("a/params", "b/params", "c/params")] == [False, True, True]
    assert [name in folded for name in ("a/params", "b/params", "c/params")] == [True, False, False]


def test_markdown_against_another_model_folds_nothing() -> None:
    passed = Check(metric="a/params", value=1, unit="count", limit="<= base", baseline=1, verdict="pass")
    assert "<details>" not in markdown(GateResult(verdict="pass", checks=[passed], against="main"))
