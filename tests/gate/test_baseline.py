import json

import pytest

from kdedge.core.errors import Incomparable, KdedgeError
from kdedge.core.report import Metric
from kdedge.core.rundir import write_json
from kdedge.gate.baseline import differences, load_baseline, make_baseline, remarks
from kdedge.profile.board import fingerprint

METRICS = {
    "student/top1": Metric(value=0.9, unit="fraction", better="higher"),
    "int8/onnx_bytes": Metric(value=1024, unit="bytes", better="lower"),
}
FINGERPRINT = {"match": {"cpu": "A", "cores": 2}, "note": {"kernel": "6.1"}}


def test_baseline_round_trip_is_sorted_and_unchanged(tmp_path):
    path = tmp_path / "baseline.json"
    made = make_baseline(METRICS, FINGERPRINT, "first accepted run", "2026-01-02")
    write_json(path, made)
    assert load_baseline(path) == made
    written = json.loads(path.read_text())
    assert list(written["metrics"]) == ["int8/onnx_bytes", "student/top1"]
    assert written["reason"] == "first accepted run"
    assert written["created"] == "2026-01-02"


def test_load_baseline_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(Incomparable, match="kdedge gate --update --baseline FILE --reason") as caught:
        load_baseline(tmp_path / "none.json")
    assert "none.json" in caught.value.what
    assert caught.value.exit_code == 3


def test_load_baseline_of_another_schema_is_incomparable(tmp_path):
    path = tmp_path / "b.json"
    path.write_text('{"schema_version": 7}')
    with pytest.raises(Incomparable, match="schema version 7"):
        load_baseline(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read the baseline"),
        ("[1]", "is not a baseline"),
        ('{"schema_version": 1, "metrics": {}}', "fingerprint: Field required"),
        ('{"schema_version": 1, "fingerprint": {}, "metrics": {"a": {"value": "x"}}}', "metrics.a.value"),
    ],
)
def test_load_baseline_broken_file_is_a_clear_error(tmp_path, text, message):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(KdedgeError, match=message) as caught:
        load_baseline(path)
    assert caught.value.exit_code == 2


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
