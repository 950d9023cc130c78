"""What `kdedge distill` trains beside the student, and what the student starts from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forkserver, Process
from mini import write_recipe
from safetensors.torch import load_file

from kdedge.core.load import load_recipe
from kdedge.core.training import Phase
from kdedge.data.build import build_data
from kdedge.distill.teachers import FrozenTeacher
from kdedge.pipeline.distill import controlled, controls_of, labels_only
from kdedge.pipeline.networks import build, start_student
from kdedge.pipeline.project import open_project

SELF = """\
version: 1
data: {name: digits, train_limit: 200}
student: {name: resnet8, lighten: {conv: grouped, groups: 2}}
phases:
  - {epochs: 1, batch: 32, methods: [{name: self_distill, weight: 0.5, options: {attention: simam}}]}
run: {accelerator: cpu, threads: 1}
"""
KEEP = """\
version: 1
data: {name: digits, train_limit: 200}
student: {name: resnet8, lighten: {conv: depthwise, init: teacher}}
teachers:
  - {name: resnet8, training: {epochs: 1, batch: 32}}
phases: [{epochs: 1, batch: 32}]
run: {accelerator: cpu, threads: 1}
"""


def distilled(server: Forkserver, folder: Path, name: str, text: str) -> tuple[Path, Process]:
    write_recipe(folder, name, text)
    code, process = server.run(["distill", f"{name}.yaml"], folder)
    assert code == 0, process.stderr
    return next(folder.glob(f"runs/{name}-*")), process


@pytest.fixture(scope="module")
def trained(forkserver: Forkserver, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Process]:
    return distilled(forkserver, tmp_path_factory.mktemp("controls"), "self", SELF)


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / name / "weights.safetensors")


def test_deep_supervision_is_trained_beside_and_is_the_recipe_without_distillation(
    forkserver: Forkserver, trained: tuple[Path, Process], tmp_path: Path
) -> None:
    run, _ = trained
    without = SELF.replace("attention: simam", "attention: simam, alpha: 0") + "baseline: false\n"
    alone, _ = distilled(forkserver, tmp_path, "alone", without)
    ours, its = weights(run, "deep_supervision"), weights(alone, "student")
    assert ours.keys() == its.keys()
    assert all(torch.equal(ours[key], its[key]) for key in ours)
    assert any(not torch.equal(ours[key], other) for key, other in weights(run, "student").items())
    assert not list(alone.glob("deep_supervision"))


def test_training_report_has_every_exit_and_all_exits_together(trained: tuple[Path, Process]) -> None:
    run, process = trained
    report: dict[str, Any] = json.loads((run / "training.json").read_text())
    for network in (report["student"], report["controls"]["deep supervision"]):
        assert list(network["exits"]) == ["stage1", "stage2"]
        assert 0 < network["ensemble"] <= 1
    assert report["baseline"]["exits"] == {}
    assert report["baseline"]["ensemble"] is None
    assert report["student"]["options"] == {"conv": "grouped", "groups": 2}
    assert "student, deep supervision" in process.stdout
    assert "all exits together" in process.stdout


def test_student_starts_from_what_it_can_keep_of_its_teacher(tmp_path: Path) -> None:
    project = open_project(load_recipe(str(write_recipe(tmp_path, "keep", KEEP))), tmp_path / "runs")
    recipe = project.recipe
    dataset = build_data(recipe.data, recipe.seed)
    teacher = FrozenTeacher(build(recipe.teachers[0], dataset, seed=7), dataset.normalize)
    kept, fresh = start_student(project, dataset, [teacher]), build(recipe.student, dataset, recipe.seed)
    stem = teacher.model.get_parameter("conv1.weight")
    assert torch.equal(kept.get_parameter("conv1.weight"), stem)
    assert not torch.equal(fresh.get_parameter("conv1.weight"), stem)


def test_recipe_that_starts_from_its_teacher_trains(forkserver: Forkserver, tmp_path: Path) -> None:
    run, _ = distilled(forkserver, tmp_path, "keep", KEEP)
    report = json.loads((run / "training.json").read_text())
    assert report["student"]["options"] == {"conv": "depthwise", "init": "teacher"}


def phase(*methods: dict[str, Any]) -> Phase:
    return Phase.model_validate({"epochs": 1, "methods": methods})


def test_control_replaces_the_method_and_nothing_else() -> None:
    before = phase({"name": "logits", "weight": 0.9}, {"name": "self_distill", "weight": 0.3})
    logits, self_distill = controlled(before, "deep supervision").methods
    assert logits == before.methods[0]
    assert (self_distill.weight, self_distill.options["alpha"]) == (0.3, 0.0)


def test_control_has_the_terms_that_its_method_has() -> None:
    """The recipe's terms may be those that the control leaves out."""
    use = {"name": "self_distill", "terms": {"*/logits": {"weight": 2}}}
    assert controlled(phase(use), "deep supervision").methods[0].terms == {}


def test_student_on_the_labels_alone_trains_whole_and_on_them() -> None:
    taught = Phase.model_validate(
        {"epochs": 3, "freeze": ["layer3"], "methods": [{"name": "logits"}], "cross_entropy": {"weight": 0.1}}
    )
    assert labels_only(taught) == Phase.model_validate({"epochs": 3})


def test_controls_are_those_that_the_methods_name(tmp_path: Path) -> None:
    assert controls_of(load_recipe(str(write_recipe(tmp_path, "self", SELF))).recipe) == ["deep supervision"]
    assert controls_of(load_recipe(str(write_recipe(tmp_path, "keep", KEEP))).recipe) == []
