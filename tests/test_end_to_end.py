"""From a recipe to a report, through the command line, with a kill on the way."""

import csv
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from forked import Forkserver
from mini import Finished
from sklearn.datasets import load_digits

from kdedge.core.recipe import Data
from kdedge.core.rundir import RunDir
from kdedge.data.build import build_data

EXPECTED = """
baseline/log.csv baseline/methods.safetensors baseline/weights.safetensors
deep_supervision/log.csv deep_supervision/methods.safetensors deep_supervision/weights.safetensors
student/log.csv student/methods.safetensors student/weights.safetensors
teacher/log.csv teacher.safetensors training.json
arrays/calibration.npz arrays/eval.npz
predictions/baseline.npz predictions/deep_supervision.npz predictions/student.npz predictions/teacher.npz
predictions/torch.npz predictions/onnx-fp32.npz predictions/onnx-fp16.npz predictions/onnx-int8.npz
predictions/engine-fp32.npz predictions/engine-fp16.npz predictions/engine-int8.npz
export/student.fp32.onnx export/student.fp16.onnx export/student.int8.onnx export/teacher.onnx export.json
profile/fp32.json profile/fp16.json profile/int8.json profile/teacher.json
gate.json gate.md gate.xml report.html
"""


def test_run_that_was_killed_in_the_student_goes_on_after_its_last_finished_epoch(finished: Finished) -> None:
    assert "teacher resnet8: training it once" in finished.killed.stdout
    assert "teacher resnet8: cached" in finished.completed.stdout
    assert "student resnet8: going on after epoch 2\n" in finished.completed.stdout
    with (finished.run / "student/log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5"]


def test_run_says_how_good_the_teacher_is_before_anything_learns_from_it(finished: Finished) -> None:
    top1 = finished.json("training.json")["teachers"][0]["accuracy"]
    assert f"teacher resnet8: {100 * top1:.2f} % top-1 on 360 test images\n" in finished.killed.stdout


def test_run_leaves_every_artifact_as_it_is_recorded(finished: Finished) -> None:
    run = RunDir(finished.run)
    assert set(EXPECTED.split()) <= set(run.manifest.artifacts)
    for command, entry in run.manifest.commands.items():
        assert run.fresh(command, entry.key), command
    assert [path.name for path in finished.run.rglob(".*")] == []


def test_run_learns(finished: Finished) -> None:
    training = finished.json("training.json")
    assert training["student"]["accuracy"] > 0.6
    assert training["teachers"][0]["accuracy"] > 0.6
    assert training["student"]["params"] < training["teachers"][0]["params"] / 5
    assert sorted(training["student"]["exits"]) == ["stage1", "stage2"]


@pytest.mark.parametrize("name", ["teacher", "baseline", "student"])
def test_accuracy_is_that_of_the_predictions_that_were_kept(finished: Finished, name: str) -> None:
    labels = build_data(Data(name="digits"), seed=0).test.labels.numpy()
    with np.load(finished.run / f"predictions/{name}.npz") as kept:
        assert len(kept["outputs"]) == 360
        top1 = (kept["outputs"].argmax(1) == labels).mean()
    training = finished.json("training.json")
    assert (training["teachers"][0] if name == "teacher" else training[name])["accuracy"] == pytest.approx(top1)


@pytest.mark.parametrize(("precision", "least"), [("fp32", 1.0), ("fp16", 0.99), ("int8", 0.95)])
def test_exported_model_agrees_with_the_student_on_pixels_read_anew(
    finished: Finished, precision: str, least: float
) -> None:
    """An oracle that shares nothing with the export: scikit-learn's digits, normalized here, in ONNX Runtime."""
    path = finished.run / f"export/student.{precision}.onnx"
    onnx.checker.check_model(onnx.load(path), full_check=True)
    test = build_data(Data(name="digits"), seed=0).test
    pixels = np.rint(load_digits().images * 255 / 16)
    chosen = [np.flatnonzero((pixels == image[0]).all(axis=(1, 2)))[0] for image in test.images.numpy()]
    train = finished.json("recipe.json")["recipe"]["data"]
    dataset = build_data(Data.model_validate(train), seed=0)
    mean, std = dataset.normalize.mean[0], dataset.normalize.std[0]
    images = ((pixels[chosen] / 255 - mean) / std)[:, None].astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = np.concatenate(
        [session.run(None, {session.get_inputs()[0].name: part})[0] for part in np.array_split(images, 3)]
    )
    with np.load(finished.run / "predictions/student.npz") as kept:
        agreement = (answers.argmax(1) == kept["outputs"].argmax(1)).mean()
    assert agreement >= least
    hop = next(hop for hop in finished.json("export.json")["hops"] if hop["name"] == f"onnx-{precision}")
    assert hop["quality"]["top1"] == pytest.approx((answers.argmax(1) == test.labels.numpy()).mean(), abs=0.01)


def test_every_hop_is_measured(finished: Finished) -> None:
    hops = finished.json("export.json")["hops"]
    names = ["torch", *(f"{kind}-{precision}" for kind in ("onnx", "engine") for precision in ("fp32", "fp16", "int8"))]
    assert [hop["name"] for hop in hops] == names
    assert all(hop["problems"] == [] for hop in hops)
    assert next(hop for hop in hops if hop["name"] == "onnx-int8")["agreement"] >= 0.95


def test_smaller_precision_is_a_smaller_file(finished: Finished) -> None:
    files = finished.json("export.json")["onnx"]
    assert files["int8"]["bytes"] < files["fp32"]["bytes"]


def test_profile_keeps_raw_samples_of_every_process(finished: Finished) -> None:
    profile = finished.json("profile/int8.json")
    samples = [sample["latency_ms"] for sample in profile["samples"]]
    assert len(samples) == 2
    assert profile["latency"]["n"] == sum(map(len, samples))
    assert profile["latency"]["median"] == pytest.approx(np.median(np.concatenate(samples)))


def test_report_is_one_file_that_loads_nothing(finished: Finished) -> None:
    page = (finished.run / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page) == []
    assert "@import" not in page
    for text in ("mini", "teacher resnet8", "student int8", "<svg"):
        assert text in page


def test_summary_ends_the_run_with_a_row_for_each_network_and_precision(finished: Finished) -> None:
    end = finished.completed.stdout.rpartition("mini\n")[2]
    for label in ("teacher resnet8", "resnet8, labels only", "student fp32", "student fp16", "student int8"):
        assert label in end
    assert end.endswith(f"gate: pass\nreport: {finished.run / 'report.html'}\n")


def test_student_that_lost_to_the_labels_alone_is_a_warning_and_one_that_won_is_none(finished: Finished) -> None:
    training = finished.json("training.json")
    lost = training["student"]["accuracy"] < training["baseline"]["accuracy"]
    warnings = [text for text in finished.json("gate.json")["warnings"] if "trained on the labels alone" in text]
    assert len(warnings) == lost


def test_second_run_does_nothing(forkserver: Forkserver, copied: Finished) -> None:
    code, process = forkserver.run(["run", "mini.yaml"], copied.folder)
    assert code == 0
    lines = process.stdout.splitlines()[1:6]
    assert lines == [f"{command}: unchanged" for command in ("distill", "export", "profile", "gate", "report")]
