import json

import pytest

from kdedge.core.correctness import correctness
from kdedge.core.errors import Incomparable, KdedgeError
from kdedge.core.gating import Baseline, Snapshot
from kdedge.core.report import Metric
from kdedge.gate.baseline import KEPT, differences, load_baseline, make_baseline, remarks, save_baseline
from kdedge.profile.board import fingerprint

METRICS = {
    "student/top1": Metric(value=0.9, unit="fraction", better="higher"),
    "int8/onnx_bytes": Metric(value=1024, unit="bytes", better="lower"),
    "int8/latency_median_ms": Metric(value=1.5, unit="ms", better="lower", samples=[1.25, 1.5, 1.75]),
}
ANSWERS = {"student/top1": correctness([True] * 9 + [False], range(10), range(10))}
FINGERPRINT = {"match": {"cpu": "A", "cores": 2}, "note": {"kernel": "6.1"}}


RUN = Snapshot(fingerprint=FINGERPRINT, metrics=METRICS, answers=ANSWERS)
FIRST = make_baseline(RUN, "first accepted run", "2026-01-02", tool={"kdedge": "1.2"})


def test_baseline_round_trip_is_sorted_and_unchanged(tmp_path):
    path = tmp_path / "baseline.json"
    save_baseline(path, FIRST)
    assert load_baseline(path) == FIRST
    written = json.loads(path.read_text())
    assert list(written["metrics"]) == ["int8/latency_median_ms", "int8/onnx_bytes", "student/top1"]
    assert list(written) == sorted(written)
    assert (written["schema_version"], written["reason"], written["created"]) == (2, "first accepted run", "2026-01-02")


def test_baseline_is_a_file_to_be_read_in_a_review(tmp_path):
    """Nothing that is only a default, and the processes of a measurement on one line."""
    path = tmp_path / "baseline.json"
    save_baseline(path, FIRST)
    expected = """\
    "int8/latency_median_ms": {
      "better": "lower",
      "samples": [1.25, 1.5, 1.75],
      "unit": "ms",
      "value": 1.5
    },
    "int8/onnx_bytes": {
      "better": "lower",
      "unit": "bytes",
      "value": 1024.0
    },
"""
    assert expected in path.read_text()


def test_make_baseline_keeps_what_was_before_in_its_history():
    second = make_baseline(RUN, "second", "2026-02-02", FIRST, accepts={"int8/onnx_bytes"})
    (kept,) = second.history
    assert (kept.created, kept.reason, kept.accepts) == ("2026-01-02", "first accepted run", [])
    assert kept.values == {"student/top1": 0.9, "int8/onnx_bytes": 1024, "int8/latency_median_ms": 1.5}
    assert kept.samples == {"int8/latency_median_ms": [1.25, 1.5, 1.75]}
    third = make_baseline(RUN, "third", "2026-03-02", second)
    assert [entry.reason for entry in third.history] == ["first accepted run", "second"]
    assert third.history[1].accepts == ["int8/onnx_bytes"]


def test_history_keeps_the_last_twenty():
    baseline = FIRST
    for number in range(25):
        baseline = make_baseline(RUN, str(number), "", baseline)
    assert [entry.reason for entry in baseline.history] == [str(number) for number in range(4, 24)]
    assert len(baseline.history) == KEPT == 20


def test_baseline_of_version_1_is_read_with_what_it_has(tmp_path):
    path = tmp_path / "b.json"
    metric = {"schema_version": 1, "value": 0.9, "unit": "fraction", "better": "higher", "stable": True}
    old = {"schema_version": 1, "fingerprint": FINGERPRINT, "metrics": {"a/top1": metric}, "reason": "r", "tool": {}}
    path.write_text(json.dumps(old))
    assert load_baseline(path) == Baseline(
        fingerprint=FINGERPRINT, reason="r", metrics={"a/top1": Metric(value=0.9, unit="fraction", better="higher")}
    )


def test_load_baseline_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(Incomparable, match="kdedge gate --update --baseline FILE --reason") as caught:
        load_baseline(tmp_path / "none.json")
    assert "none.json" in caught.value.what
    assert caught.value.exit_code == 3


def test_load_baseline_of_a_newer_schema_is_incomparable(tmp_path):
    path = tmp_path / "b.json"
    path.write_text('{"schema_version": 7}')
    with pytest.raises(Incomparable, match="schema version 7, this kdedge reads up to 2\n  pip install --upgrade"):
        load_baseline(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read the baseline"),
        ("[1]", "is not a baseline"),
        ('{"metrics": {}}', "fingerprint: Field required"),
        ('{"schema_version": 2, "fingerprint": {}, "metrics": {}, "more": 1}', "more: Extra inputs"),
        ('{"schema_version": 1, "metrics": {}}', "fingerprint: Field required"),
        (
            '{"fingerprint": {}, "metrics": {}, "answers": {"a": {"images": 9, "right": "!", "of": ""}}}',
            "answers.a: Value error, right: not base64",
        ),
        ('{"schema_version": 1, "fingerprint": {}, "metrics": {"a": {"value": "x"}}}', "metrics.a.value"),
    ],
)
def test_load_baseline_broken_file_is_a_clear_error(tmp_path, text, message):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(KdedgeError, match=message) as caught:
        load_baseline(path)
    assert caught.value.exit_code == 2
    assert str(tmp_path) not in str(caught.value)


def test_load_baseline_that_is_a_folder_is_a_clear_error(tmp_path):
    with pytest.raises(KdedgeError, match="cannot read the baseline"):
        load_baseline(tmp_path)


def test_differences_lists_changed_missing_and_new_fields():
    now = {"match": {"cores": 4, "board": "Orin"}}
    assert differences(FINGERPRINT, now) == [
        "board was not recorded, is Orin",
        "cores was 2, is 4",
        "cpu was A, is not recorded",
    ]
    assert differences(FINGERPRINT, FINGERPRINT) == []


def test_remarks_leave_out_what_always_moves():
    now = {"match": FINGERPRINT["match"], "note": {"kernel": "6.1", "load": [1.0]}}
    assert remarks(FINGERPRINT, now) == []


def test_differences_understands_the_fingerprint_of_the_profiler():
    here = fingerprint({"onnxruntime": "1.0"})
    other = here | {"match": here["match"] | {"onnxruntime": "2.0"}}
    assert differences(here, here) == []
    assert differences(here, other) == ["onnxruntime was 1.0, is 2.0"]
