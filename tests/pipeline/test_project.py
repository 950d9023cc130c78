import json
from pathlib import Path

import pytest
from mini import Finished, write_recipe

from kdedge.core.errors import KdedgeError, ModelError
from kdedge.core.load import load_recipe
from kdedge.pipeline.project import Project, open_project, reopen


def project(folder: Path, *changes: str) -> Project:
    return open_project(load_recipe(str(write_recipe(folder)), changes), folder / "runs")


@pytest.mark.parametrize(
    "change",
    ["seed=1", "phases.0.epochs=9", "student.options.conv=grouped", "data.train_limit=7", "run.precision=bf16-mixed"],
)
def test_what_decides_the_weights_names_another_run(tmp_path: Path, change: str) -> None:
    before, after = project(tmp_path), project(tmp_path, change)
    assert before.run.path != after.run.path
    assert before.key("distill") != after.key("distill")


@pytest.mark.parametrize(
    "change",
    [
        "profile.seconds=9",
        "gate.budgets=[]",
        "export.precisions=[fp32]",
        "run.threads=2",
        "data.workers=0",
        "data.root=elsewhere",
    ],
)
def test_what_does_not_decide_the_weights_stays_in_the_same_run(tmp_path: Path, change: str) -> None:
    before, after = project(tmp_path), project(tmp_path, change)
    assert before.run.path == after.run.path
    assert before.key("distill") == after.key("distill")


def test_baseline_is_part_of_the_command_but_not_of_the_run(tmp_path: Path) -> None:
    before, after = project(tmp_path), project(tmp_path, "baseline=false")
    assert before.run.path == after.run.path
    assert before.key("distill") != after.key("distill")


TEACHER = "teachers=[{name: resnet8, checkpoint: weights/t.pt}]"


def test_checkpoint_is_looked_for_beside_the_recipe_here_and_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {name: tmp_path / name for name in ("recipe", "here", "data")}
    for place in places.values():
        (place / "weights").mkdir(parents=True)
    monkeypatch.chdir(places["here"])
    monkeypatch.setenv("KDEDGE_DATA", str(places["data"]))
    one = project(places["recipe"], TEACHER)
    with pytest.raises(ModelError, match=r"the teacher's checkpoint weights/t\.pt is missing") as caught:
        one.key("distill")
    assert all(str(place) in caught.value.why for place in places.values())
    assert "--set teachers.0.checkpoint=FILE" in str(caught.value)
    for name in ("data", "here", "recipe"):
        (places[name] / "weights/t.pt").write_text(name)
        assert one.checkpoint(one.recipe.teachers[0]) == places[name] / "weights/t.pt"


def test_other_bytes_in_the_checkpoint_are_another_training(tmp_path: Path) -> None:
    one = project(tmp_path, TEACHER)
    keys = set()
    for content in ("a", "b"):
        (tmp_path / "weights").mkdir(exist_ok=True)
        (tmp_path / "weights/t.pt").write_text(content)
        keys.add(one.key("distill"))
    assert len(keys) == 2


def test_run_is_reopened_with_all_of_its_recipe(finished: Finished) -> None:
    again = reopen(finished.run)
    assert again.recipe == load_recipe(str(finished.recipe)).recipe
    assert again.folder == finished.folder


def test_newest_run_is_reopened_when_none_is_named(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.folder)
    assert reopen(None).run.path.resolve() == finished.run


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KdedgeError, match=r"is not a run: it has no recipe\.json"):
        reopen(tmp_path)


@pytest.mark.parametrize("content", ["{", "{}", '{"recipe": {"version": 2}, "folder": "."}'])
def test_run_with_a_damaged_recipe_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(KdedgeError, match=r"recipe\.json cannot be read"):
        reopen(tmp_path)


def test_options_of_a_command_change_their_section_only(finished: Finished, tmp_path: Path) -> None:
    one = reopen(finished.run)
    assert one.with_preset(None) is one.with_baseline(None) is one
    assert one.with_profile({"seconds": 3.0}).recipe.profile.seconds == 3
    assert one.with_baseline(tmp_path / "b.json").baseline() == tmp_path / "b.json"
    preset = tmp_path / "p.yaml"
    preset.write_text("opset: 19\n")
    changed = one.with_preset(str(preset))
    assert changed.recipe.export.opset == 19
    assert changed.recipe.model_copy(update={"export": one.recipe.export}) == one.recipe
    with_exits = one.with_exit("all")
    assert with_exits.with_preset(str(preset)).recipe.export.exits == "all"
    preset.write_text("exits: none\n")
    assert with_exits.with_preset(str(preset)).recipe.export.exits == "none"


def test_saved_recipe_is_readable(finished: Finished) -> None:
    saved = json.loads((finished.run / "recipe.json").read_text())
    assert saved["recipe"]["student"] == {"name": "resnet8", "options": {"conv": "depthwise"}, "lighten": None}
