"""The line that makes a run again."""

import subprocess
from pathlib import Path

import pytest

from kdedge.core.load import load_recipe
from kdedge.pipeline.again import command_of, notes_on
from kdedge.pipeline.environment import commit_of
from kdedge.pipeline.project import Project, SavedRecipe, open_project, reopen

RECIPE = """\
version: 1
data: {name: digits}
student: {name: resnet8}
phases: [{epochs: 1}]
run: {accelerator: cpu}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(*given: str) -> Project:
    return open_project(load_recipe(given[0], given[1:]))


def test_command_has_every_override_quoted(folder: Path) -> None:
    project = opened("small.yaml", "seed=3", "card.intended_use=two words")
    assert command_of(project) == "kdedge run small.yaml --set seed=3 --set 'card.intended_use=two words'"
    assert "Seed 3." in notes_on(project, {}, SavedRecipe(recipe=project.recipe, folder="."))


def test_command_is_known_to_a_run_that_is_opened_again(folder: Path) -> None:
    project = opened("small.yaml", "seed=3")
    project.save()
    again = reopen(project.run.path)
    assert command_of(again) == command_of(project) == "kdedge run small.yaml --set seed=3"


def test_command_names_no_folder_of_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    project = opened(str(folder / "small.yaml"), f"data.root={folder}/sets")
    assert command_of(project) == "kdedge run small.yaml --set 'data.root=~/sets'"


def test_command_allows_code_where_a_network_is_a_file(folder: Path) -> None:
    assert command_of(opened("small.yaml", "student.name=nets.py:tiny")).endswith(" --allow-code")


def test_run_from_before_commands_were_kept_says_so(folder: Path) -> None:
    project = opened("small.yaml")
    project.save()
    saved = project.run / "recipe.json"
    saved.write_text(SavedRecipe(recipe=project.recipe, folder=".").model_dump_json(exclude={"given", "commit"}))
    old = reopen(project.run.path)
    assert command_of(old) == "kdedge run small.yaml"
    assert any(
        "before its command was recorded" in note
        for note in notes_on(old, {}, SavedRecipe.model_validate_json(saved.read_text()))
    )


def test_commit_is_that_of_the_recipes_repository(folder: Path) -> None:
    assert commit_of(folder) == ""

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        return subprocess.run(["git", *who, *words], capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("add", "small.yaml")
    git("commit", "-qm", "recipe")
    head = git("rev-parse", "HEAD")
    assert commit_of(folder) == head
    Path("small.yaml").write_text(RECIPE + "seed: 1\n")
    project = opened("small.yaml")
    project.save()
    saved = SavedRecipe.model_validate_json((project.run / "recipe.json").read_text())
    assert saved.commit == f"{head}-dirty"
    assert f"Commit of the recipe's folder: {head}-dirty." in notes_on(project, {}, saved)
    assert notes_on(project, {"torch": "2.15.0", "numpy": "2.4"}, saved)[-1] == "Made with torch 2.15.0, numpy 2.4."
