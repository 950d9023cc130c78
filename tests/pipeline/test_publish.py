"""What a gate writes for GitHub Actions."""

from pathlib import Path

import pytest

from kdedge.core.recipe import Recipe
from kdedge.core.report import GateResult
from kdedge.core.rundir import RunDir
from kdedge.core.source import Source
from kdedge.gate.render import markdown
from kdedge.pipeline.project import Project
from kdedge.pipeline.publish import publish

RESULT = GateResult(verdict="regression", checks=[], warnings=["a [red]word[/] :bug: " + "long " * 60])
RECIPE = Recipe.model_validate(
    {"version": 1, "name": "a", "data": {"name": "digits"}, "student": {"name": "resnet8"}, "phases": [{"epochs": 1}]}
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(RECIPE, tmp_path, RunDir(tmp_path / "run"), Source("a.yaml"))


def test_publish_says_nothing_outside_of_ci(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    publish(project, RESULT)
    assert capsys.readouterr() == ("", "")


def test_publish_writes_annotations_as_they_are(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    publish(project, RESULT)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "::error title=kdedge::gate failed: a limit is not kept"
    assert lines[-1].rstrip() == f"::warning title=kdedge::{RESULT.warnings[0]}".rstrip()


def test_publish_adds_to_what_other_steps_wrote(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    publish(project, RESULT)
    assert summary.read_text() == "before\n" + markdown(RESULT)


def test_publish_goes_on_when_a_file_cannot_be_written(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    publish(project, RESULT)
    assert "warning: GITHUB_STEP_SUMMARY: " in capsys.readouterr().err
    assert "\nregression\n" in (tmp_path / "output").read_text()
