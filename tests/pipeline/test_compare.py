"""kdedge compare, of real runs."""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from boxruns import tell_of_boxes
from entries import HERE, SVHN, THERE, entry
from forked import Forkserver
from mini import Finished

from kdedge.pipeline.compare import entry_of, write
from kdedge.pipeline.project import reopen


@pytest.fixture
def two(copied: Finished) -> list[str]:
    """A run, and the same made a little worse on another machine."""
    other = copied.run.with_name("other")
    shutil.copytree(copied.run, other)
    for path in other.glob("profile/*.json"):
        profile = json.loads(path.read_text())
        profile["device"]["match"]["cpu"] = "another"
        path.write_text(json.dumps(profile))
    record = json.loads((other / "export.json").read_text())
    for file in record["onnx"].values():
        file["bytes"] += 4096
    (other / "export.json").write_text(json.dumps(record))
    return [f"runs/{copied.run.name}", "runs/other"]


def test_compare_shows_runs_and_what_dominates(forkserver: Forkserver, copied: Finished, two: list[str]) -> None:
    code, process = forkserver.run(["compare", *two], copied.folder)
    assert code == 0, process.stderr
    assert f"run {copied.run.name} dominates run other in all its precisions" in process.stdout
    assert re.search(
        rf"{copied.run.name} fp16 dominates other fp16: the same top-1, [\d.]+ % less size", process.stdout
    )
    assert "A and B differ in cpu " in process.stdout
    assert "accuracy against latency on machine B: the front is " in process.stdout


def test_compare_tells_runs_of_one_name_apart(forkserver: Forkserver, copied: Finished, two: list[str]) -> None:
    same = copied.folder / "elsewhere" / copied.run.name
    shutil.copytree(copied.run, same)
    code, process = forkserver.run(["compare", two[0], f"elsewhere/{copied.run.name}", "--json"], copied.folder)
    assert code == 0
    assert [run["name"] for run in json.loads(process.stdout)["runs"]] == [two[0], f"elsewhere/{copied.run.name}"]


def test_compare_gives_json_alone(forkserver: Forkserver, copied: Finished, two: list[str]) -> None:
    code, process = forkserver.run(["compare", *two, "--json"], copied.folder)
    assert code == 0
    told = json.loads(process.stdout)
    assert [run["name"] for run in told["runs"]] == [copied.run.name, "other"]
    assert {one["cost"] for one in told["fronts"]} == {"latency_median_ms", "onnx_bytes", "peak_memory_bytes"}
    assert told["runs"][0]["metrics"]["student/params"]["value"] == 14154


def test_compare_gives_markdown(forkserver: Forkserver, copied: Finished, two: list[str]) -> None:
    code, process = forkserver.run(["compare", *two, "--markdown"], copied.folder)
    assert code == 0
    assert process.stdout.startswith("| run | student |")


def test_compare_writes_table_numbers_and_figure(forkserver: Forkserver, copied: Finished, two: list[str]) -> None:
    code, process = forkserver.run(["compare", *two, "--out", "side by side"], copied.folder)
    assert code == 0, process.stderr
    folder = copied.folder / "side by side"
    assert sorted(path.name for path in folder.iterdir()) == ["compare.json", "compare.md", "compare.svg"]
    assert (folder / "compare.md").read_text().rstrip().endswith("(compare.svg)")
    told = json.loads((folder / "compare.json").read_text())
    low, high = told["runs"][0]["intervals"]["fp32/latency_median_ms"]
    assert low <= told["runs"][0]["metrics"]["fp32/latency_median_ms"]["value"] <= high
    assert told["runs"][0]["test_set"]["data"] == "digits"
    figure = ET.fromstring((folder / "compare.svg").read_text())
    assert {"size", "latency on machine A", "other"} <= set(figure.itertext())


def test_compare_of_detectors_speaks_of_average_precision(
    forkserver: Forkserver, copied: Finished, two: list[str]
) -> None:
    for run, mean_ap in zip(two, (0.45, 0.4), strict=True):
        tell_of_boxes(copied.folder / run, mean_ap)
    code, process = forkserver.run(["compare", *two], copied.folder)
    assert code == 0, process.stderr
    assert "top-1" not in process.stdout
    assert f"{copied.run.name} fp16 dominates other fp16: +5.00 points of mAP, " in process.stdout


def test_detectors_are_on_one_test_set_where_their_pictures_have_the_same_objects(
    copied: Finished, two: list[str]
) -> None:
    """Whatever size they see them in; what is known of the images one by one is not asked for."""
    runs = [copied.folder / run for run in two]
    for run in runs:
        tell_of_boxes(run, 0.4)
    with np.load(runs[1] / "arrays/eval.npz") as arrays:
        known = dict(arrays)
    boxes = known["labels"]
    boxes[..., 1:] *= 2
    np.savez(runs[1] / "arrays/eval.npz", **known)
    here, there = (entry_of(run.name, reopen(run)) for run in runs)
    assert here.test_set == there.test_set
    assert not [name for name in here.intervals if "mean_ap" in name or "top1" in name]
    boxes[0, 0, 0] += 1
    np.savez(runs[1] / "arrays/eval.npz", **known)
    assert entry_of("other", reopen(runs[1])).test_set != here.test_set


def test_no_figure_is_written_where_nothing_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "compare.svg").write_text("of an earlier comparison")
    write([entry("a", HERE, fp32=(0.9, 10, 1)), entry("b", THERE, SVHN, fp32=(0.9, 10, 1))], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.json", "compare.md"]
    assert "no figure: no two of the runs can be compared in anything" in capsys.readouterr().err


@pytest.mark.parametrize(("names", "what"), [([0], "one run"), ([0, 0], "a run twice")])
def test_compare_needs_two_runs(forkserver: Forkserver, copied: Finished, names: list[int], what: str) -> None:
    code, process = forkserver.run(["compare", *[str(copied.run) for _ in names]], copied.folder)
    assert code == 2
    assert f"{what} cannot be compared: name two or more" in process.stderr


def test_compare_imports_no_torch(tmp_path: Path) -> None:
    line = "import sys, kdedge.pipeline.compare; print({'torch', 'torchvision'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
