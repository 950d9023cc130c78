"""A detector's terms taken apart and methods compared: judged by mAP, the student alone as reference, and resumable."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from boxed import write_voc
from forked import Forkserver

from kdedge.bench import cost
from kdedge.bench.ablation import Asked, ablate, beside
from kdedge.bench.cells import make_job
from kdedge.bench.contenders import LABELS, contender
from kdedge.bench.grid import Grid
from kdedge.bench.methods import Asked as Compared
from kdedge.bench.methods import MethodGrid, compare
from kdedge.core.errors import KdedgeError
from kdedge.core.load import load_recipe
from kdedge.core.rundir import read_record
from kdedge.data.build import build_data
from kdedge.pipeline.networks import untrained_teacher
from kdedge.report import ablation as report
from kdedge.report.ablation import Ablation

RECIPE = """\
version: 1
task: detect
data: {name: voc, root: voc, image_size: 64, augment: {flip: true}, workers: 0}
student: {name: retinanet, options: {backbone: mobilenet_v3_small, channels: 8, levels: p3-p5}}
teachers:
  - name: retinanet
    options: {backbone: mobilenet_v3_small, channels: 16, levels: p3-p5}
    training: {epochs: 1, batch: 2, optimizer: {lr: 0.001}}
phases:
  - epochs: 1
    batch: 2
    optimizer: {lr: 0.001}
    methods: [{name: mkd, terms: {"[aer]*": {weight: 0}}}]
run: {accelerator: cpu, threads: 1}
"""
"""Of mkd the soft targets and the guide."""
LINES = [LABELS, "+ mkd/soft", "whole", "pkd"]


def write_recipe(folder: Path) -> str:
    write_voc(folder / "voc")
    (folder / "cells.yaml").write_text(RECIPE.replace("root: voc", f"root: {folder / 'voc'}"))
    return str(folder / "cells.yaml")


def trained(folder: Path) -> dict[str, int]:
    """Modification times of all weights that a finished training left, by path."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("weights.safetensors")}


@dataclass(frozen=True)
class Taken:
    made: Ablation
    compared: dict[str, Any]
    """methods.json of a comparison in the same folder."""
    folder: Path
    stages: list[dict[str, int]]
    """What was trained: when it was interrupted, when it was done, and after the comparison."""
    said: list[str]


@pytest.fixture(scope="module")
def taken(forkserver: Forkserver, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    folder, said = tmp_path_factory.mktemp("detectors"), []
    forkserver.run(["version"], folder)  # so that the processes start from what is imported there
    recipe, stages, out = write_recipe(folder), [], folder / "out"
    asked = Asked(recipe, mode="add", seeds=1, beside=("pkd",), out=out)

    def interrupted(grid: Grid, cells: Any) -> Any:
        train(grid, cells[:2])
        raise KeyboardInterrupt

    train = Grid.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdedge.core.console.say", said.append)
        patch.setattr(Grid, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ablate(asked)
        stages.append(trained(out))
        patch.setattr(Grid, "train", train)
        ablate(asked)
        stages.append(trained(out))
        patch.setattr(MethodGrid, "measure", lambda *_: {})
        compare(Compared(("pkd",), seeds=1, recipe=recipe, out=out))
        stages.append(trained(out))
    made = read_record(out / "ablation.json", Ablation)
    return Taken(made, json.loads((out / "methods.json").read_text()), out, stages, said)


def test_terms_are_added_in_turn_and_a_method_stands_beside_them(taken: Taken) -> None:
    rows = [(row.label, row.role, row.term, row.beside) for row in taken.made.trained]
    assert rows == [
        (LABELS, "labels", "", ""),
        ("+ mkd/soft", "added", "mkd/soft", LABELS),
        ("whole", "whole", "mkd/guide/*", "+ mkd/soft"),
        ("pkd", "beside", "", ""),
    ]
    assert taken.made.failed == []
    assert all(0 <= accuracy <= 1 for row in taken.made.trained for accuracy in row.accuracy.values())
    assert (taken.made.train_images, taken.made.test_images) == (4, 1)


def test_record_table_and_messages_say_map(taken: Taken) -> None:
    assert (taken.made.task, taken.made.measure.label, taken.compared["task"]) == ("detect", "mAP", "detect")
    assert report.columns(taken.made)[1] == "mAP"
    for name in ("ablation.md", "methods.md"):
        text = (taken.folder / name).read_text()
        assert "mAP" in text
        assert "top-1" not in text.lower()
    [told, *_] = [text for text in taken.said if text.startswith("teacher retinanet: ") and "test images" in text]
    assert "% mAP on the test images" in told


def test_teacher_is_measured_first_and_said_above_the_table(taken: Taken) -> None:
    [teacher] = taken.made.teachers
    assert teacher.name == "retinanet"
    assert taken.compared["teacher"]["accuracy"] == teacher.accuracy
    text = (taken.folder / "ablation.md").read_text()
    assert text.index("Teacher: retinanet") < text.index("| trained by |")


def test_interrupted_ablation_goes_on_where_it_was(taken: Taken) -> None:
    """The teacher's copy and two students; then the other two."""
    before, after, _ = taken.stages
    assert (len(before), len(after)) == (1 + 2, 1 + len(LINES))
    assert {path: after[path] for path in before} == before


def test_comparison_in_the_same_folder_takes_what_is_trained_there(taken: Taken) -> None:
    """The student alone is the only reference, and nothing is tuned."""
    assert taken.compared["contenders"] == [LABELS, "pkd"]
    assert (taken.compared["tuned"], taken.compared["tuning"]) == ("", {})
    students = [path for path in taken.stages[1] if "student" in path]
    assert {path: taken.stages[2][path] for path in students} == {path: taken.stages[1][path] for path in students}
    assert len(taken.stages[2]) == len(taken.stages[1])
    found = {cell["contender"]: cell["accuracy"] for cell in taken.compared["cells"]}
    assert found == {label: row.accuracy[0] for label in (LABELS, "pkd") if (row := taken.made.row(label))}


def test_step_of_a_method_is_held_against_the_student_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "ROUNDS", 1)
    monkeypatch.setattr(cost, "BLOCK", 1)
    grid = MethodGrid(Compared(("pkd",), recipe=write_recipe(tmp_path), out=tmp_path / "out"))
    assert ([each.label for each in grid.contenders], grid.trials) == ([LABELS, "pkd"], [])
    alone, pkd = (grid.cell(each, 0).project() for each in grid.contenders)
    dataset = build_data(alone.recipe.data, 0)
    teacher = untrained_teacher(grid.base.recipe.teachers[0], dataset, 0)
    jobs = (partial(make_job, pkd, dataset, (teacher,)), partial(make_job, alone, dataset, ()))
    found = cost.cost_of(*jobs)
    assert found.times > 0
    assert found.extra_params == 3 * 8 * 16  # a 1x1 convolution a level


def test_what_stands_beside_needs_one_phase(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path)).recipe
    twice = recipe.model_copy(update={"phases": recipe.phases * 2})
    with pytest.raises(KdedgeError, match="cells has 2 phases: what stands beside its terms has the budget of one"):
        beside(Asked("", beside=("pkd",)), twice)
    assert list(beside(Asked(""), twice)) == []
    assert [row.label for row in beside(Asked("", beside=("pkd", LABELS, "pkd")), recipe)] == ["pkd"]


def test_recipe_brings_its_weights_of_the_detectors_own_losses(tmp_path: Path) -> None:
    base = load_recipe(write_recipe(tmp_path)).recipe
    (tmp_path / "other.yaml").write_text(RECIPE.replace("methods:", "detection: {boxes: 2}\n    methods:"))
    [phase] = contender(f"recipe:{tmp_path / 'other.yaml'}", base).phases
    assert phase.detection.boxes == 2
    assert [use.name for use in phase.methods] == ["mkd"]
