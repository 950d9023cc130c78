"""Early exits of a real run: chosen on validation images, reported on test images, measured, and kept."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxruns import tell_of_boxes
from forked import Forkserver, Process
from mini import Finished
from telling import RUN_AND_TELL

from kdedge.core.errors import KdedgeError
from kdedge.core.exits import ExitsReport
from kdedge.core.rundir import write_json
from kdedge.data.build import build_data
from kdedge.engine.cascade import open_cascade
from kdedge.pipeline.exits import Asked, fraction, parse
from kdedge.pipeline.project import Project, reopen

PRESET = "precisions: [fp32, int8]\ncalibration: {images: 64}\nexits: all\n"


@pytest.fixture(scope="module")
def place(forkserver: Forkserver, finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The finished run exported with all its exits; tests of this file go on from each other's."""
    folder = tmp_path_factory.mktemp("exits")
    shutil.copytree(finished.folder, folder, dirs_exist_ok=True)
    (folder / "exits.yaml").write_text(PRESET)
    code, process = forkserver.run(["export", "--preset", "exits.yaml"], folder)
    assert code == 0, process.stderr
    return Finished(folder, finished.killed, finished.completed)


@pytest.fixture(scope="module")
def found(forkserver: Forkserver, place: Finished) -> Process:
    """`kdedge exits --json` on it."""
    code, process = forkserver.run(["exits", "--accuracy", "50%", "--json"], place.folder)
    assert code == 0, process.stderr
    return process


@pytest.fixture(scope="module")
def report(found: Process) -> ExitsReport:
    return ExitsReport.model_validate_json(found.stdout)


def project_of(place: Finished) -> Project:
    return reopen(place.run).with_preset(str(place.folder / "exits.yaml"))


def test_json_is_the_record_that_is_kept(found: Process, place: Finished) -> None:
    assert found.stdout.count("\n") == 1
    assert json.loads(found.stdout) == place.json("exits.json")
    assert (place.run / "exits.svg").read_text().startswith("<?xml")


def test_point_is_the_cheapest_that_is_accurate_enough_on_validation_images(report: ExitsReport) -> None:
    assert report.wanted == 0.5
    assert report.validation.top1 >= 0.5
    cheaper = [point for point in report.curve if point.macs < report.validation.macs]
    assert all(point.top1 < 0.5 for point in cheaper)
    assert (report.validation_images, report.test_images) == (80, 360)


def test_exits_are_those_of_the_export(report: ExitsReport, place: Finished) -> None:
    export = place.json("export.json")
    top1 = {hop["name"]: hop["quality"]["top1"] for hop in export["hops"]}
    assert [found.name for found in report.exits] == ["1/3", "2/3", "3/3"]
    assert [found.macs for found in report.exits] == [point["macs"] for point in export["exits"]]
    assert [found.test_top1 for found in report.exits] == [
        top1[name] for name in ("exit1/engine-fp32", "exit2/engine-fp32", "engine-fp32")
    ]
    assert report.without.macs == place.json("training.json")["student"]["macs"] < report.exits[-1].macs


def test_costs_are_those_of_the_images_that_stop_at_each_exit(report: ExitsReport) -> None:
    for point in (report.validation, report.test):
        macs = sum(share * found.macs for share, found in zip(point.shares, report.exits, strict=True))
        latency = sum(share * found.latency_ms for share, found in zip(point.shares, report.exits, strict=True))
        assert (point.macs, point.latency_ms) == (pytest.approx(macs), pytest.approx(latency))
    latencies = [found.latency_ms for found in report.exits]
    assert 0 < latencies[0] < latencies[1] < latencies[2]
    assert report.without.latency_ms > 0


def test_measured_cascade_does_what_was_predicted(report: ExitsReport) -> None:
    """All 360 test images are timed, so that they stop where they were said to stop."""
    measured = report.measured
    assert (measured.images, measured.processes, report.threads) == (360, 2, 1)
    assert measured.shares == pytest.approx(report.test.shares)
    assert measured.top1 == pytest.approx(report.test.top1)
    assert measured.predicted_ms == pytest.approx(report.test.latency_ms)
    assert measured.median_ms > 0
    assert measured.mean_ms > 0


def test_cascade_has_the_threshold(report: ExitsReport, place: Finished) -> None:
    with (
        np.load(place.run / "arrays/eval.npz") as arrays,
        open_cascade(place.run / "engine/cascade.fp32.json") as cascade,
    ):
        assert cascade.threshold == report.validation.threshold
        answer = cascade.run(arrays["images"])
        assert (answer.logits.argmax(axis=1) == arrays["labels"]).mean() == pytest.approx(report.test.top1)


def test_validation_images_are_in_the_form_of_the_test_images(report: ExitsReport, place: Finished) -> None:
    recipe = reopen(place.run).recipe
    dataset = build_data(recipe.data, recipe.seed)
    with np.load(place.run / "arrays/validation.npz") as kept, np.load(place.run / "arrays/eval.npz") as test:
        pixels = dataset.validation.images.numpy().astype(np.float64)  # type: ignore[union-attr]
        expected = (pixels / 255 - dataset.normalize.mean[0]) / dataset.normalize.std[0]
        np.testing.assert_allclose(kept["images"], expected, rtol=1e-4, atol=1e-5)
        assert kept["images"].dtype == test["images"].dtype
        assert np.array_equal(kept["labels"], dataset.validation.labels.numpy())


def test_threshold_in_the_cascade_makes_no_export_stale(
    forkserver: Forkserver, report: ExitsReport, place: Finished
) -> None:
    code, process = forkserver.run(["export", "--preset", "exits.yaml"], place.folder)
    assert code == 0, process.stderr
    assert "export: unchanged" in process.stdout


def test_page_shows_them_until_the_run_is_exported_anew(
    forkserver: Forkserver, report: ExitsReport, place: Finished, tmp_path: Path
) -> None:
    shutil.copytree(place.folder, tmp_path, dirs_exist_ok=True)
    code, process = forkserver.run(["report"], tmp_path)
    assert code == 0, process.stderr
    project = reopen(tmp_path / place.run.relative_to(place.folder))
    page = (project.run / "report.html").read_text()
    assert "<h2>Early exits</h2>" in page
    assert f"stop at {report.validation.threshold:.4f}" in page
    assert project.exits() == ["exits.json"]
    export = project.run / "export.json"
    export.write_text(export.read_text().replace('"opset": 18', '"opset": 19'))
    project.run.record("export", "another", project.run.manifest.commands["export"].artifacts)
    assert project.exits() == []


def test_page_forgets_a_threshold_that_an_export_took_out_of_the_cascade(
    report: ExitsReport, place: Finished, tmp_path: Path
) -> None:
    """`export --exit none` and then `--exit all` end with the same export.json, and a cascade without a threshold."""
    shutil.copytree(place.folder, tmp_path, dirs_exist_ok=True)
    project = reopen(tmp_path / place.run.relative_to(place.folder))
    assert project.exits() == ["exits.json"]
    cascade = project.run / "engine/cascade.fp32.json"
    write_json(cascade, {**json.loads(cascade.read_text()), "threshold": None})
    project.run.record("export", "another", project.run.manifest.commands["export"].artifacts)
    assert project.exits() == []


def test_warm_up_that_did_not_settle_is_said_of_the_cascade_too(
    forkserver: Forkserver, report: ExitsReport, place: Finished, tmp_path: Path
) -> None:
    """A millionth of a second is over after the first query."""
    shutil.copytree(place.folder, tmp_path, dirs_exist_ok=True)
    run = tmp_path / place.run.relative_to(place.folder)
    saved = json.loads((run / "recipe.json").read_text())
    saved["recipe"]["profile"]["warmup_cap"] = 1e-6
    (run / "recipe.json").write_text(json.dumps(saved))
    code, process = forkserver.run(["exits", "--threshold", "0.5"], tmp_path)
    assert code == 0, process.stderr
    restless = "stage 1, stage 2, stage 3, cascade, student without exits"
    note = f"{restless}: the warm-up did not settle within 1e-06 s in 2 of 2 processes"
    assert note in json.loads((run / "exits.json").read_text())["notes"]


def test_given_threshold_of_another_precision_needs_no_torch(report: ExitsReport, place: Finished) -> None:
    command = [sys.executable, "-c", RUN_AND_TELL, "exits", "--precision", "int8", "--threshold", "0.6"]
    done = subprocess.run(command, cwd=place.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    assert "numpy" in modules
    assert not {"torch", "sklearn"} & modules
    table = [re.split(r"\s*[│┃]\s*", line) for line in done.stdout.splitlines() if line.startswith(("│", "┃"))]
    assert [row[1] for row in table] == ["exit", "1/3", "2/3", "3/3", "stop at 0.6000", "without exits"]
    assert "int8: an image stops at the first exit" in done.stdout
    assert "0.6000, as it was given" in done.stdout
    thresholds = {name: json_of(place, f"engine/cascade.{name}.json")["threshold"] for name in ("fp32", "int8")}
    assert thresholds == {"fp32": report.validation.threshold, "int8": 0.6}
    assert project_of(place).run.fresh("export", project_of(place).key("export"))
    assert place.json("exits.json")["precision"] == "int8"
    assert place.json("exits.json")["wanted"] is None


def json_of(place: Finished, name: str) -> Any:
    return json.loads((place.run / name).read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--accuracy", "92.5"], "--accuracy 92.5: expected a percentage such as 92.5%, or a fraction such as 0.925\n"),
        (["--accuracy", "1", "--precision", "fp16"], "--precision fp16: not exported with exits: "),
        (["--accuracy", "100%"], "no threshold reaches it on the validation images, the best "),
        (["--threshold", "1.5"], "--threshold 1.5: a probability is expected\n"),
        (["--threshold", "0.5", "--accuracy", "0.9"], "--accuracy and --threshold: "),
    ],
)
def test_mistake_ends_with_one_message(
    forkserver: Forkserver, place: Finished, arguments: list[str], said: str
) -> None:
    code, process = forkserver.run(["exits", *arguments], place.folder)
    assert code == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("error: ") == 1
    assert said in process.stderr
    assert "Traceback" not in process.stderr
    assert "early exits" not in process.stdout


def test_run_exported_without_exits_says_how_to_export_them(forkserver: Forkserver, copied: Finished) -> None:
    code, process = forkserver.run(["exits"], copied.folder)
    assert code == 2
    run = copied.run.relative_to(copied.folder)
    assert f"{run} is not exported with all its exits\n  kdedge export {run} --exit all\n" in process.stderr


def test_detector_has_no_exits_to_choose(forkserver: Forkserver, copied: Finished) -> None:
    tell_of_boxes(copied.run, 0.4)
    code, process = forkserver.run(["exits"], copied.folder)
    assert code == 2
    run = copied.run.relative_to(copied.folder)
    assert f"{run} is a detector: only classifiers have early exits\n  kdedge methods self_distill" in process.stderr


def test_recipe_that_trains_no_exits_says_what_to_add(forkserver: Forkserver, copied: Finished) -> None:
    training = copied.json("training.json")
    training["student"]["exits"] = {}
    (copied.run / "training.json").write_text(json.dumps(training))
    code, process = forkserver.run(["exits"], copied.folder)
    assert code == 2
    assert "has no early exits: its recipe trains none\n  methods: [{name: self_distill" in process.stderr


@pytest.mark.parametrize(
    ("text", "by_hand"),
    [("92.5%", 0.925), ("0.925", 0.925), (" 92.5 % ", 0.925), ("100%", 1.0), ("0", 0.0), ("1", 1.0)],
)
def test_accuracy_is_a_percentage_or_a_fraction(text: str, by_hand: float) -> None:
    assert fraction(text) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("92.5", "--accuracy 92.5%"),
        ("101%", "--accuracy 92.5%"),
        ("-1%", "--accuracy 92.5%"),
        ("-0.1", "--accuracy 92.5%"),
        ("nan", "--accuracy 92.5%"),
        ("high", "--accuracy 92.5%"),
        ("%", "--accuracy 92.5%"),
        ("1.01", "--accuracy 1.01%"),
    ],
)
def test_accuracy_that_is_neither_is_refused(text: str, fix: str) -> None:
    with pytest.raises(KdedgeError, match="expected a percentage such as") as error:
        fraction(text)
    assert error.value.fix == fix


def test_nothing_is_wanted_unless_asked() -> None:
    assert parse(Asked()) is None
    with pytest.raises(KdedgeError, match="a probability is expected"):
        parse(Asked(threshold=float("nan")))
