"""A run held against another: what is compared, what is said where it cannot be, files and exit codes."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from boxruns import tell_of_boxes
from mini import Finished
from onnx import TensorProto, helper
from turns import Timed

from kdedge.core import console
from kdedge.core.errors import KdedgeError, ModelError
from kdedge.pipeline import against as module
from kdedge.pipeline.against import gate_against
from kdedge.pipeline.project import reopen
from kdedge.profile.targets import LocalTarget


@pytest.fixture
def base(copied: Finished, tmp_path: Path) -> Path:
    """Another run, which may be changed."""
    return Path(shutil.copytree(copied.run, tmp_path / "runs/base"))


def against(
    copied: Finished, other: Path, target: LocalTarget | None = None, **options: Any
) -> tuple[int, dict[str, dict]]:
    """Exit code, and the checks by their metric."""
    code = gate_against(reopen(copied.run), str(other), target or Timed(), **options)
    return code, {check["metric"]: check for check in copied.json("against.json")["result"]["checks"]}


def test_run_against_its_like_passes_in_every_metric(copied: Finished, base: Path) -> None:
    code, checks = against(copied, base)
    assert code == 0
    assert {check["verdict"] for check in checks.values()} == {"pass"}
    each = ("latency_median_ms", "onnx_bytes", "top1")
    expected = {f"{precision}/{name}" for precision in ("fp32", "fp16", "int8") for name in each}
    assert set(checks) == expected | {"student/params", "student/macs"}


def test_engines_of_the_runs_are_what_is_measured(copied: Finished, base: Path) -> None:
    target = Timed()
    against(copied, base, target)
    assert {request["mode"] for request in target.asked} == {"paired"}
    assert target.asked[0]["model"] == str(copied.run / "engine/student.fp32.engine.onnx")
    assert target.asked[0]["base"] == str(base / "engine/student.fp32.engine.onnx")


def test_slower_run_is_a_regression_in_all_files(copied: Finished, base: Path) -> None:
    code, checks = against(copied, base, Timed(1.1))
    assert code == 1
    assert checks["int8/latency_median_ms"]["reason"].startswith("+10.0 %")
    text = (copied.run / "against.md").read_text()
    assert text.startswith("<!-- kdedge against -->\n### kdedge gate failed: slower than base\n")
    assert "| metric | value | limit | base | verdict | why |\n" in text
    assert "| int8/latency_median_ms | 1.100 ms |" in text
    assert "- base: base, measured in turns with the run\n" in text
    assert ElementTree.parse(copied.run / "against.xml").getroot().get("failures") == "3"
    assert str(copied.folder) not in (copied.run / "against.json").read_text()


def test_throttled_machine_ends_with_4(copied: Finished, base: Path) -> None:
    code, checks = against(copied, base, Timed(1.0, ("slowed down for heat",)))
    assert code == 4
    (advice,) = copied.json("against.json")["result"]["warnings"]
    assert advice.startswith("fp32, fp16, int8: too unsteady to tell; let the machine cool down, or ")
    assert "slowed down for heat" in checks["fp32/latency_median_ms"]["reason"]


def test_point_of_accuracy_is_found_by_the_images_that_were_lost(copied: Finished, base: Path) -> None:
    """The base knows every image; the run's own mistakes are what it lost."""
    labels = np.load(base / "arrays/eval.npz")["labels"]
    ids = np.load(base / "arrays/eval.npz")["ids"]
    np.savez(base / "predictions/engine-fp32.npz", ids=ids, outputs=np.eye(10, dtype=np.float32)[labels])
    code, checks = against(copied, base)
    own = np.load(copied.run / "predictions/engine-fp32.npz")["outputs"].argmax(axis=1)
    assert code == 1
    assert f": {(own != labels).sum()} images lost, 0 won" in checks["fp32/top1"]["reason"]
    assert checks["fp32/top1"]["baseline"] == 1.0
    assert checks["int8/top1"]["verdict"] == "pass"


def test_accuracy_on_other_images_is_not_compared(copied: Finished, base: Path) -> None:
    with np.load(base / "arrays/eval.npz") as arrays:
        changed = {**arrays, "ids": arrays["ids"] + 1}
    np.savez(base / "arrays/eval.npz", **changed)
    code, checks = against(copied, base)
    assert code == 0
    assert not any(name.endswith("/top1") for name in checks)
    (warning,) = copied.json("against.json")["result"]["warnings"]
    assert warning == "accuracy of fp32, fp16, int8 is not compared: no answers to the same test images"


@pytest.mark.parametrize(("mean_ap", "exit_code"), [(0.395, 0), (0.385, 1)])
def test_detectors_are_compared_by_the_average_precision_of_their_records(
    copied: Finished, base: Path, mean_ap: float, exit_code: int
) -> None:
    tell_of_boxes(copied.run, mean_ap)
    tell_of_boxes(base, 0.4)
    code, checks = against(copied, base)
    assert code == exit_code
    assert not any("top1" in name for name in checks)
    values = {name: (check["value"], check["baseline"]) for name, check in checks.items() if "mean_ap" in name}
    assert values == {f"{precision}/mean_ap": (mean_ap, 0.4) for precision in ("fp32", "fp16", "int8")}
    assert copied.json("against.json")["result"]["warnings"] == []


def test_detectors_that_see_another_size_are_compared_on_the_same_objects_alone(copied: Finished, base: Path) -> None:
    for run in (copied.run, base):
        tell_of_boxes(run, 0.4)
    with np.load(base / "arrays/eval.npz") as arrays:
        known = dict(arrays)
    larger = np.concatenate([known["labels"][..., :1], 2 * known["labels"][..., 1:]], axis=-1)
    np.savez(base / "arrays/eval.npz", **known | {"labels": larger})
    assert "fp32/mean_ap" in against(copied, base)[1]
    larger[0, 0, 0] += 1
    np.savez(base / "arrays/eval.npz", **known | {"labels": larger})
    assert "fp32/mean_ap" not in against(copied, base)[1]


def test_detector_against_a_classifier_is_not_compared_in_accuracy(copied: Finished, base: Path) -> None:
    tell_of_boxes(copied.run, 0.4)
    _, checks = against(copied, base)
    assert not any("top1" in name or "mean_ap" in name for name in checks)
    (warning,) = copied.json("against.json")["result"]["warnings"]
    assert warning == "accuracy of fp32, fp16, int8 is not compared: no answers to the same test images"


def test_file_that_grew_by_a_tenth_is_a_regression(copied: Finished, base: Path) -> None:
    path = base / "export/student.int8.onnx"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size / 1.1)])
    code, checks = against(copied, base)
    assert (code, checks["int8/onnx_bytes"]["verdict"]) == (1, "regression")
    assert checks["int8/onnx_bytes"]["reason"] == "+10.0 %"


def test_precision_that_the_run_lost_has_vanished(copied: Finished, base: Path) -> None:
    record = json.loads((copied.run / "export.json").read_text())
    del record["onnx"]["int8"]
    (copied.run / "export.json").write_text(json.dumps(record))
    code, checks = against(copied, base)
    assert (code, checks["int8/latency_median_ms"]["value"]) == (1, None)
    assert checks["int8/latency_median_ms"]["reason"].startswith("vanished")


def test_onnx_file_is_held_against_the_precision_of_its_name(copied: Finished, base: Path) -> None:
    target = Timed()
    code, checks = against(copied, base / "export/student.int8.onnx", target)
    assert code == 0
    assert set(checks) == {"int8/latency_median_ms", "int8/onnx_bytes"}
    assert [request["mode"] for request in target.asked] == ["build", *["paired"] * 5]
    assert "student.int8.onnx is a file" in copied.json("against.json")["result"]["warnings"][0]


def test_folder_with_one_onnx_file_stands_for_it(copied: Finished, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(copied.run / "export/student.fp32.onnx", tmp_path / "other/anything.onnx")
    assert set(against(copied, tmp_path / "other")[1]) == {"fp32/latency_median_ms", "fp32/onnx_bytes"}


@pytest.fixture
def free(tmp_path: Path) -> Path:
    """A model that leaves the size of its images open."""
    sizes: list[list[str | int]] = [["n", 3, "height", "width"], ["n", 3, 1, 1]]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in zip("xy", sizes, strict=True)
    )
    graph = helper.make_graph([helper.make_node("GlobalAveragePool", ["x"], ["y"])], "net", [x], [y])
    path = tmp_path / "free.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_size_that_a_file_leaves_open_is_asked_for_with_the_line_to_type(copied: Finished, free: Path) -> None:
    with pytest.raises(ModelError) as caught:
        against(copied, free, LocalTarget())
    assert caught.value.what == "free.engine.onnx needs its input shapes"
    assert caught.value.why.endswith("leaves axis 2, 3 open")
    assert caught.value.fix == f"kdedge gate RUN --against {free} --shape x=1x3x224x224   (with your sizes)"


def test_size_that_is_given_is_the_base_s_alone(copied: Finished, free: Path) -> None:
    target = Timed()
    against(copied, free, target, shapes={"x": (1, 3, 8, 8)})
    asked = next(request for request in target.asked if request["mode"] == "paired")
    assert asked["base_shapes"] == {"x": (1, 3, 8, 8)}
    assert "x" not in asked["shapes"]


def test_run_takes_no_shape(copied: Finished, base: Path) -> None:
    with pytest.raises(KdedgeError, match="is a run, whose shape is known"):
        against(copied, base, shapes={"x": (1, 3, 8, 8)})


def test_models_without_a_common_precision_are_incomparable(copied: Finished, base: Path) -> None:
    record = json.loads((copied.run / "export.json").read_text())
    record["onnx"] = {"fp16": record["onnx"]["fp16"]}
    (copied.run / "export.json").write_text(json.dumps(record))
    code, checks = against(copied, base / "export/student.int8.onnx")
    assert (code, checks) == (3, {})
    result = copied.json("against.json")["result"]
    assert (result["verdict"], result["against"]) == ("incomparable", "student.int8.onnx")
    assert result["warnings"][0].endswith("the run has fp16, student.int8.onnx int8")


def test_seconds_are_shared_by_the_precisions(copied: Finished, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other gets what those before it left: all the time here, as nothing takes any."""
    shares = []
    genuine = module.measure_until_clear
    monkeypatch.setattr(module, "measure_until_clear", lambda *given: shares.append(given[3]) or genuine(*given))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    against(copied, base, seconds=180.0)
    assert shares == [60.0, 90.0, 180.0]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere.onnx", "there is no such file"),
        ("mini.yaml", "neither a run's folder nor an ONNX file"),
        ("runs", "it holds 0 ONNX files"),
    ],
)
def test_what_is_no_model_is_refused(copied: Finished, name: str, why: str) -> None:
    with pytest.raises(KdedgeError) as caught:
        against(copied, copied.folder / name)
    assert (caught.value.what, caught.value.why) == (f"--against {copied.folder / name}", why)


def test_result_is_json_on_stdout(copied: Finished, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console.OUT.configure(as_json=True)
    try:
        against(copied, base)
    finally:
        console.OUT.configure()
    assert json.loads(capsys.readouterr().out) == copied.json("against.json")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--against", "runs", "--update"], "error: --against and --update: "),
        (["--against", "runs", "--baseline", "b.json"], "error: --against and --baseline: "),
        (["--against", "runs", "--keep"], "error: --against and --keep: "),
        (["--target", "ssh://board"], "error: --target: only --against measures"),
        (["--shape", "x=1"], "error: --shape: only --against measures"),
        (["--seconds", "9"], "error: --seconds: only --against measures"),
        (["--against", "runs", "--shape", "x"], "error: --shape x: expected an input's name"),
    ],
)
def test_options_that_do_not_go_together_end_with_2(forkserver, copied: Finished, options, said: str) -> None:
    code, process = forkserver.run(["gate", str(copied.run), *options], copied.folder)
    assert code == 2
    assert said in process.stdout + process.stderr
