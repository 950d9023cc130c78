"""What is run again, and what is not."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from mini import Finished

from kdedge.core.errors import KdedgeError
from kdedge.core.load import load_recipe
from kdedge.core.rundir import RunDir
from kdedge.pipeline.chain import COMMANDS, perform_all, perform_one
from kdedge.pipeline.project import Project, open_project, reopen

Ran = Callable[..., list[str]]


@pytest.fixture
def ran(copied: Finished, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """`ran("gate.budgets=[]", ...)` runs the recipe with these changes and returns the commands that did something."""
    noted: list[str] = []

    def watch(command: str) -> None:
        module = importlib.import_module(f"kdedge.pipeline.{command}")
        real = module.run

        def run(project: Project) -> list[str]:
            noted.append(command)
            artifacts: list[str] = real(project)
            return artifacts

        monkeypatch.setattr(module, "run", run)

    for command in COMMANDS:
        watch(command)

    def perform(*changes: str) -> list[str]:
        noted.clear()
        perform_all(open_project(load_recipe(str(copied.recipe), changes), copied.folder / "runs"))
        return list(noted)

    return perform


def test_nothing_is_run_again_when_nothing_has_changed(ran: Ran) -> None:
    assert ran() == []


def test_new_gate_is_decided_and_reported_without_anything_before_it(ran: Ran) -> None:
    change = "gate.budgets=[{metric: student/macs, max: 1}]"
    assert ran(change) == ["gate", "report"]
    assert ran(change) == []


def test_new_way_of_measuring_runs_from_the_profile_on(ran: Ran) -> None:
    assert ran("profile.processes=1", "profile.seconds=0.01") == ["profile", "gate", "report"]


def test_new_export_runs_from_the_export_on(ran: Ran, copied: Finished) -> None:
    assert ran("export.precisions=[fp32]") == ["export", "profile", "gate", "report"]
    run = RunDir(copied.run)
    assert sorted(run.manifest.commands["profile"].artifacts) == ["profile/fp32.json", "profile/teacher.json"]
    assert "export/student.int8.onnx" not in run.manifest.artifacts


def test_dropping_the_baseline_trains_nothing_and_takes_it_from_the_report(ran: Ran, copied: Finished) -> None:
    assert "labels only" in (copied.run / "report.html").read_text()
    weights = (copied.run / "student/weights.safetensors").stat().st_mtime_ns
    assert copied.json("export.json")["fragility"]
    assert ran("baseline=false") == ["distill", "export", "profile", "gate", "report"]
    assert copied.json("export.json")["fragility"] is None
    assert "labels only" not in (copied.run / "report.html").read_text()
    assert (copied.run / "student/weights.safetensors").stat().st_mtime_ns > weights  # saved again, from its checkpoint


@pytest.mark.parametrize(
    ("artifact", "producer"),
    [("student/weights.safetensors", "distill"), ("predictions/student.npz", "distill"), ("gate.md", "gate")],
)
def test_artifact_that_is_gone_is_made_again_by_its_command_alone(
    ran: Ran, copied: Finished, artifact: str, producer: str
) -> None:
    before = (copied.run / artifact).read_bytes()
    (copied.run / artifact).unlink()
    assert ran() == [producer]
    if artifact.endswith(".safetensors"):
        assert (copied.run / artifact).read_bytes() == before


@pytest.mark.parametrize(
    ("artifact", "again"),
    [
        ("report.html", ["report"]),
        ("gate.json", ["gate"]),
        ("profile/fp32.json", ["profile", "gate", "report"]),
    ],
)
def test_artifact_that_was_altered_is_made_again(ran: Ran, copied: Finished, artifact: str, again: list[str]) -> None:
    path = copied.run / artifact
    path.write_bytes(path.read_bytes() + b" ")
    assert ran() == again
    assert not path.read_bytes().endswith(b" ")


def test_library_that_the_engines_are_bound_to_is_part_of_the_export(
    copied: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = reopen(copied.run)
    before = {command: project.key(command) for command in ("distill", "export")}
    monkeypatch.setattr("kdedge.pipeline.project.identity", lambda: {"cpu": "another one"})
    assert project.key("distill") == before["distill"]
    assert project.key("export") != before["export"]


def test_failed_command_is_not_recorded(copied: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Project) -> list[str]:
        raise KdedgeError("the disk is on fire")

    monkeypatch.setattr("kdedge.pipeline.report.run", fail)
    project = reopen(copied.run)
    before = project.run.manifest
    with pytest.raises(KdedgeError, match="on fire"):
        perform_one(project, "report", again=True)
    assert project.run.manifest == before


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_command_without_what_it_reads_says_what_to_run(tmp_path: Path, finished: Finished, command: str) -> None:
    project = open_project(load_recipe(str(finished.recipe)), tmp_path / "runs")
    with pytest.raises(KdedgeError, match=r"(has no .+: the command that writes it has not run|not been profiled)"):
        perform_one(project, command)
