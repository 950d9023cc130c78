"""A whole comparison on the digits, interrupted after its tuning and started again."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import Forkserver
from typer.testing import CliRunner

from kdedge.bench import contenders
from kdedge.bench.contenders import LABELS, STANDARDIZED, TUNED
from kdedge.bench.methods import Asked, MethodGrid, compare, load_base
from kdedge.bench.workers import perform_all
from kdedge.cli import app
from kdedge.core.errors import KdedgeError
from kdedge.core.load import LoadedRecipe, load_recipe

BASE = """\
version: 1
data: {name: digits, train_limit: 160, validation: 0.25, augment: {crop_padding: 1, views: 2}}
student: {name: resnet8, options: {conv: depthwise}}
teachers:
  - {name: resnet8, training: {epochs: 2, batch: 32, optimizer: {lr: 0.1}}}
phases:
  - {epochs: 1, batch: 32, optimizer: {lr: 0.1}}
run: {accelerator: cpu, threads: 1}
"""
TRIALS = ["logits T=4 labels=0.5 kd=0.5", "logits T=4 labels=0.1 kd=0.9"]


@dataclass(frozen=True)
class Compared:
    folder: Path
    made: dict[str, Any]
    before: dict[str, int]
    """What was trained when it was interrupted."""
    said: list[str]
    """By the second start."""

    def cells(self, label: str) -> list[dict[str, Any]]:
        return [cell for cell in self.made["cells"] if cell["contender"] == label]


def trained(folder: Path) -> dict[str, int]:
    """Modification times of all weights that a finished training left, by path."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("weights.safetensors")}


@pytest.fixture(scope="module")
def compared(forkserver: Forkserver, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder, said = tmp_path_factory.mktemp("compared"), []
    forkserver.run(["version"], folder)  # so that the processes of the comparison start from what is imported there
    asked = Asked(("attention",), seeds=2, recipe=str(folder / "base.yaml"), out=folder / "out", jobs=2)
    (folder / "base.yaml").write_text(BASE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contenders, "TEMPERATURES", (4.0,))
        patch.setattr(contenders, "WEIGHTS", ((0.5, 0.5), (0.1, 0.9)))
        with pytest.MonkeyPatch.context() as after_tuning:
            calls = iter((MethodGrid.train, interrupt))
            after_tuning.setattr(MethodGrid, "train", lambda *given: next(calls)(*given))
            with pytest.raises(KeyboardInterrupt):
                compare(asked)
        before = trained(folder)
        patch.setattr("kdedge.core.console.say", said.append)
        compare(asked)
    return Compared(folder, json.loads((folder / "out/methods.json").read_text()), before, said)


def interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_comparison_has_every_contender_with_every_seed(compared: Compared) -> None:
    assert compared.made["contenders"] == [LABELS, TUNED, STANDARDIZED, "attention"]
    seeds = {(cell["contender"], cell["seed"]) for cell in compared.made["cells"]}
    assert seeds == {(label, seed) for label in compared.made["contenders"] for seed in (0, 1)}
    assert compared.made["failed"] == []
    for cell in compared.made["cells"]:
        assert (cell["epochs"], cell["train_images"], cell["test_images"]) == (1, 120, 360)
    assert list(compared.made["costs"]) == compared.made["contenders"]
    for cost in compared.made["costs"].values():
        assert cost["memory_bytes"] > 2**20
        assert cost["extra_params"] == 0
        least, greatest = cost["times_range"]
        assert 0 < least <= cost["times"] <= greatest


def test_what_was_trained_before_is_not_trained_again(compared: Compared) -> None:
    """The teacher's copy, and the student of each trial."""
    assert len(compared.before) == 1 + len(TRIALS)
    after = trained(compared.folder)
    assert {path: after[path] for path in compared.before} == compared.before
    assert len(after) == 1 + len(TRIALS) + 4 * 2 - 1  # the tuned KD of the first seed is one of the trials


def test_kd_is_tuned_on_the_validation_images(compared: Compared) -> None:
    tried = compared.made["tuning"]
    assert list(tried) == TRIALS
    assert tried[compared.made["tuned"]] == max(tried.values())
    assert compared.cells(TUNED)[0]["validation_accuracy"] == max(tried.values())


def test_teacher_is_trained_and_asked_once_for_all_students(compared: Compared) -> None:
    cache = Path(os.environ["KDEDGE_CACHE"]) / "teachers"
    [answers] = [path.parent for path in cache.glob("*-answers-*/key.json") if '"train_limit": 160' in path.read_text()]
    assert {path.stem for path in answers.glob("*.npy")} == {"logits", "stage1", "stage2", "stage3"}
    assert max(path.stat().st_mtime_ns for path in answers.glob("*.npy")) < min(compared.before.values())
    weights = (compared.folder / "out/runs/teacher/weights.safetensors").read_bytes()
    [teacher] = [path for path in cache.glob("*/weights.safetensors") if path.read_bytes() == weights]
    assert teacher.parent.name.startswith("resnet8-")
    assert compared.made["teacher"]["views"] == 2


def test_table_and_plot_lie_beside(compared: Compared) -> None:
    text = (compared.folder / "out/methods.md").read_text()
    for label in compared.made["contenders"]:
        assert f"\n| {label} | " in text
    assert (compared.folder / "out/methods.svg").read_text().startswith("<?xml")
    assert compared.said[-1].startswith(str(compared.folder / "out/methods.md"))


def test_command_line_is_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Asked] = []
    monkeypatch.setattr("kdedge.bench.methods.compare", found.append)
    line = "bench methods --pair a:b --data cifar10 --methods dkd,logits:cifar --seeds 2 --epochs 5 --set seed=3"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    asked = Asked(("dkd", "logits:cifar"), 2, None, "a:b", "cifar10", 5, ("seed=3",), 1, None)
    assert found == [asked]


def test_error_in_one_process_leaves_the_results_of_the_others(tmp_path: Path, forkserver: Forkserver) -> None:
    forkserver.run(["version"], tmp_path)
    done: list[str] = []
    found = perform_all(load_recipe, ["quickstart", "quickstrat"], 2, lambda name, _: done.append(name))
    assert isinstance(found[0], LoadedRecipe)
    assert str(found[1]).startswith("no recipe 'quickstrat'")
    assert done == ["quickstart"]


def load(folder: Path, text: str = BASE, **asked: Any) -> Any:
    (folder / "base.yaml").write_text(text)
    return load_base(Asked((), recipe=str(folder / "base.yaml"), **asked)).recipe


def test_pair_data_and_epochs_change_the_recipe(tmp_path: Path) -> None:
    found = load(tmp_path, pair="resnet20:resnet14", data="cifar10", epochs=7, changes=["data.train_limit=80"])
    assert (found.teachers[0].name, found.teachers[0].training.epochs) == ("resnet20", 1)
    assert (found.student.name, found.student.options) == ("resnet14", {})
    assert (found.data.name, found.data.train_limit, found.phases[0].epochs) == ("cifar10", 80, 7)


def test_pair_that_the_recipe_has_keeps_its_options(tmp_path: Path) -> None:
    found = load(tmp_path, pair="resnet8:resnet8")
    assert found.teachers[0].training.epochs == 2
    assert found.student.options == {"conv": "depthwise"}


def test_without_a_recipe_the_budget_is_that_of_the_benchmark() -> None:
    found = load_base(Asked((), pair="resnet56:resnet20", data="cifar10", epochs=24)).recipe
    phase, teacher = found.phases[0], found.teachers[0].training
    assert teacher is not None
    assert (phase.epochs, teacher.epochs, phase.batch, phase.optimizer.lr) == (24, 24, 64, 0.05)
    assert found.data.augment.views == 4


@pytest.mark.parametrize("pair", ["resnet56", "resnet56:", "timm:resnet18:resnet8"])
def test_pair_that_is_none_is_refused(tmp_path: Path, pair: str) -> None:
    with pytest.raises(KdedgeError, match=f"--pair {pair}: it is TEACHER:STUDENT"):
        load(tmp_path, pair=pair)


def test_recipe_of_several_phases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KdedgeError, match="has 1 teachers and 2 phases"):
        load(tmp_path, BASE.replace("run:", "  - {epochs: 1}\nrun:"))


def test_contender_that_needs_no_teacher_has_none(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    grid = MethodGrid(Asked(("self_distill", "dkd"), recipe=str(tmp_path / "base.yaml"), out=tmp_path))
    taught = {each.label: bool(grid.cell(each, 0).recipe.teachers) for each in grid.contenders}
    assert taught == {LABELS: False, STANDARDIZED: True, "self_distill": False, "dkd": True}
